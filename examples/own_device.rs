//! Records a network into the command encoder of a program that has its own
//! wgpu device, as a renderer would in each frame: no wait, no copy to the CPU.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Gpu, Graph, Network, Tensor};

const SIZE: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The program's own device and queue.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;

    // A 5×5 box blur, loaded on that device.
    let mut graph = Graph::new();
    let frame = graph.input("frame", [1, SIZE, SIZE, 1], DType::F32);
    let kernel = graph.weight("box", Tensor::from_f32([1, 1, 5, 5], &[1.0 / 25.0; 25]));
    let blurred = graph.conv2d(frame, kernel, None, Conv2dOptions::padded(2))?;
    graph.output("blurred", blurred);
    let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone());
    let network = Network::new(&gpu, &graph)?;

    // One frame: the program fills the network's input, records the network
    // between its own commands and submits all of it at once.
    let bytes = (SIZE * SIZE * 4) as u64;
    let mut checkerboard = Vec::new();
    for i in 0..SIZE * SIZE {
        let odd = (i % SIZE / 16 + i / SIZE / 16) % 2;
        checkerboard.extend_from_slice(&(odd as f32).to_le_bytes());
    }
    queue.write_buffer(network.buffer("frame")?, 0, &checkerboard);
    let screen = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("screen"),
        size: bytes,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    network.encode(&mut encoder);
    encoder.copy_buffer_to_buffer(network.buffer("blurred")?, 0, &screen, 0, bytes);
    queue.submit([encoder.finish()]);

    // Only to show the result here; a renderer would draw it.
    screen.map_async(wgpu::MapMode::Read, .., |result| result.expect("the buffer can be mapped"));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let view = screen.get_mapped_range(..)?;
    let shades = [' ', '.', ':', 'o', '@'];
    for y in (0..SIZE).step_by(4) {
        let shade = |x: usize| {
            let at = (y * SIZE + x) * 4;
            let value = f32::from_le_bytes(view[at..at + 4].try_into().expect("four bytes"));
            shades[((value * 5.0) as usize).min(4)]
        };
        println!("{}", (0..SIZE).step_by(2).map(shade).collect::<String>());
    }
    Ok(())
}
