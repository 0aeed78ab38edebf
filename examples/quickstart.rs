//! Describes a network, loads it on the GPU, runs it: the edges of a disc.

use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::{DType, Gpu, Graph, Network, Result, Tensor};

const HEIGHT: usize = 20;
const WIDTH: usize = 40;

fn main() -> Result<()> {
    // A Laplacian filter, then ReLU. Feature maps are [n, height, width, channels].
    let mut graph = Graph::new();
    let picture = graph.input("picture", [1, HEIGHT, WIDTH, 1], DType::F32);
    let laplacian = Tensor::from_f32([1, 1, 3, 3], &[-1., -1., -1., -1., 8., -1., -1., -1., -1.]);
    let laplacian = graph.weight("laplacian", laplacian);
    let edges = graph.conv2d(picture, laplacian, None, Conv2dOptions::padded(1))?;
    let edges = graph.relu(edges)?;
    graph.output("edges", edges);

    // Kernels are chosen for the device and compiled here, once.
    let gpu = Gpu::headless()?;
    let network = Network::new(&gpu, &graph)?;

    let disc: Vec<f32> = (0..HEIGHT * WIDTH).map(|i| inside_disc(i % WIDTH, i / WIDTH)).collect();
    let disc = Tensor::from_f32([1, HEIGHT, WIDTH, 1], &disc);
    let edges = network.run(&[("picture", &disc)])?.remove(0).to_f32();

    for row in edges.chunks(WIDTH) {
        println!("{}", row.iter().map(|&edge| if edge > 0.0 { '#' } else { '.' }).collect::<String>());
    }
    Ok(())
}

/// 1 inside a disc in the middle. Characters are twice as high as wide.
fn inside_disc(x: usize, y: usize) -> f32 {
    let dx = (x as f32 + 0.5 - WIDTH as f32 / 2.0) / 2.0;
    let dy = y as f32 + 0.5 - HEIGHT as f32 / 2.0;
    if dx.hypot(dy) < 8.0 { 1.0 } else { 0.0 }
}
