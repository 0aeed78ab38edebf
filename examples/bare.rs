//! The smallest embedding: a program with its own device and textures gets a network between its own commands. Headless;
//! writes `embossed.png` into the folder for temporary files, or the file that is named.

use aquatint::frame::{Read, ReadRing, Texels};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::wgpu::{self, TextureUsages};
use aquatint::{DType, Gpu, Graph, Network, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The program's own: a device, a texture with this frame, one that the network writes.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
    let picture = image::open("examples/pictures/coffee.jpg")?.to_rgba8();
    let size = wgpu::Extent3d { width: picture.width(), height: picture.height(), depth_or_array_layers: 1 };
    let texture = |usage| {
        device.create_texture(&wgpu::TextureDescriptor {
            label: None,
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba8Unorm,
            usage,
            view_formats: &[],
        })
    };
    let frame = texture(TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_DST);
    let shown = texture(TextureUsages::STORAGE_BINDING | TextureUsages::COPY_SRC);
    let layout =
        wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * size.width), rows_per_image: None };
    queue.write_texture(frame.as_image_copy(), &picture, layout, size);

    // Once: a network that embosses, loaded on that device, and bound to those textures.
    let mut graph = Graph::new();
    let input = graph.input("frame", [1, size.height as usize, size.width as usize, 3], DType::F32);
    let kernel = Tensor::from_f32([3, 1, 3, 3], &[-2., -1., 0., -1., 1., 1., 0., 1., 2.].repeat(3));
    let kernel = graph.weight("emboss", kernel);
    let embossed = graph.conv2d(input, kernel, None, Conv2dOptions::padded(1).groups(3))?;
    graph.output("embossed", embossed);
    let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone());
    let network = Network::new(&gpu, &graph)?;
    let bindings = network
        .bind(&[("frame", Texels::colour(&frame).into()), ("embossed", Texels::colour(&shown).into())])?;
    let mut ring = ReadRing::new(&gpu, 1, ReadRing::bytes_of(&shown))?;

    // Each frame: recorded like any other pass. The copy back is for the file; a renderer would draw the texture.
    let mut encoder = device.create_command_encoder(&Default::default());
    bindings.record(&mut encoder)?;
    ring.push_texture(&mut encoder, &shown, 0)?;
    gpu.wait(queue.submit([encoder.finish()]))?;
    let Some(Read { bytes, .. }) = ring.poll()? else { return Err("nothing came back".into()) };
    let file = std::env::args_os().nth(1).map(Into::into);
    let file: std::path::PathBuf = file.unwrap_or_else(|| std::env::temp_dir().join("embossed.png"));
    image::save_buffer(&file, &bytes, size.width, size.height, image::ColorType::Rgba8)?;
    println!("{}", file.display());
    Ok(())
}
