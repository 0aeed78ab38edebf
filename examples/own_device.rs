//! A device that is made for a network, and the network in a compute pass of the program's own, from its buffer to its
//! buffer: no wait, no copy to the CPU.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{AdapterOptions, DType, Gpu, Graph, Network, Plan, Tensor, wgpu};

const SIZE: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A 5×5 box blur.
    let mut graph = Graph::new();
    let frame = graph.input("frame", [1, SIZE, SIZE, 1], DType::F32);
    let kernel = graph.weight("box", Tensor::from_f32([1, 1, 5, 5], &[1.0 / 25.0; 25]));
    let blurred = graph.conv2d(frame, kernel, None, Conv2dOptions::padded(2))?;
    graph.output("blurred", blurred);

    // What it needs is known from the adapter alone; then the program makes its device and queue.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let target = AdapterOptions::default().target(&adapter)?.without_textures();
    let plan = Plan::compile(&graph, &target)?;
    println!("{} bytes of intermediate results, {} in all", plan.scratch_bytes(), plan.resident_bytes());
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: plan.required_features(),
        required_limits: plan.required_limits(),
        ..Default::default()
    }))?;
    let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone());
    let network = Network::from_plan(&gpu, plan)?;

    // The program's buffers, bound once.
    let bytes = (SIZE * SIZE * 4) as u64;
    let buffer = |usage| {
        let (label, size, mapped_at_creation) = (None, bytes, false);
        device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
    };
    let frame = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
    let blurred = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let bindings = network.bind(&[("frame", (&frame).into()), ("blurred", (&blurred).into())])?;

    // One frame: the network goes into a pass that is open, and all of it is submitted at once.
    let odd = |i: usize| (i % SIZE / 16 + i / SIZE / 16) % 2;
    let checkerboard: Vec<u8> = (0..SIZE * SIZE).flat_map(|i| (odd(i) as f32).to_le_bytes()).collect();
    queue.write_buffer(&frame, 0, &checkerboard);
    let screen = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
    let mut encoder = device.create_command_encoder(&Default::default());
    bindings.record_in(&mut encoder.begin_compute_pass(&Default::default()))?;
    encoder.copy_buffer_to_buffer(&blurred, 0, &screen, 0, bytes);
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
