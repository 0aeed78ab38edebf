//! Letters appear on the faces of a block while it turns: the steps of a diffusion model are recorded into the encoder of each
//! frame, and what they have come to goes into the layers of the texture that the renderer samples. Shows a strip of frames,
//! and below it the faces at the end.
//!
//! ```text
//! cargo run --release --example diffuse_into_texture -- --letters AQUTIN --out target/diffused.png
//! cargo run --release --example diffuse_into_texture -- --window --budget 4
//! ```

mod scene;
mod window;

use std::error::Error;
use std::time::Duration;

use aquatint::diffusion::{ROW_FLOATS, Row, Table, cuda_normal};
use aquatint::frame::{Bindings, Costs, Slices, Texels};
use aquatint::ops::strided::Range;
use aquatint::tasks::{DiffusionModel, GenerateOptions};
use aquatint::{Gpu, Network, Tensor, wgpu};
use clap::Parser;
use image::{Rgb, RgbImage, imageops};
use scene::Scene;

#[derive(Parser)]
struct Options {
    /// On the block: front, right, back, left, top, bottom
    #[arg(long, default_value = "ABCDEF")]
    letters: String,
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Of the sampler, until the letters are done
    #[arg(long, default_value_t = 18)]
    steps: usize,
    /// Steps in each frame
    #[arg(long, default_value_t = 3)]
    steps_per_frame: usize,
    /// Instead of whole steps, what takes about so many milliseconds of a frame
    #[arg(long)]
    budget: Option<f32>,
    /// Pixels of a frame
    #[arg(long, default_value_t = 160)]
    side: u32,
    #[arg(long, default_value = "target/diffused.png")]
    out: std::path::PathBuf,
    /// Frame after frame in a window, instead of some in a file
    #[arg(long)]
    window: bool,
}

const FACES: usize = 6;
/// Of the model's pictures.
const SIDE: usize = 32;
/// In a window, new letters come so many seconds after the last were done.
const REST: f32 = 3.0;

/// A step of a sampler with all it needs, for one picture a face.
struct Letters {
    /// Scale of the first noise, and how many samples, with what the sampler keeps of earlier steps, are in its state.
    scale: f32,
    slots: usize,
    steps: usize,
    network: Network,
    step: Bindings,
}

impl Letters {
    /// `faces` has a layer for each letter.
    fn new(gpu: &Gpu, options: &Options, faces: &wgpu::Texture) -> Result<Letters, Box<dyn Error>> {
        let model = DiffusionModel::letters()?;
        let mut labels = Vec::new();
        for letter in options.letters.chars().cycle().take(FACES) {
            labels.push(model.label(&letter.to_string())?);
        }
        // Network, guidance and the sampler's update are one graph, whose states go on from run to run. Of the sample after a
        // step, the first part is the pictures as they are now.
        let sampling = GenerateOptions { steps: options.steps, ..model.options() };
        let mut graph = model.step_graph(FACES, &sampling)?;
        let (_, sample) = graph.updates()[0];
        let slots = graph.shape(sample)[0];
        let first = Range { start: 0, stop: Some(1), step: 1 };
        let all = Range::all();
        let pictures = graph.slice(sample, &[first, all, all, all, all])?;
        let pictures = graph.reshape(pictures, [FACES, SIDE, SIDE, 1])?;
        graph.output("pictures", pictures);
        let network = Network::new(gpu, &graph)?;

        // What stays the same for all steps: the sampler as a table, and what to draw. Guidance wants each picture once with
        // its label and once with the class that stands for none.
        let table = Table::new(model.schedule(), sampling.sampler, sampling.sigmas, sampling.steps)?;
        let rows: Vec<f32> = table.rows.iter().flat_map(Row::to_f32).collect();
        network.write("table", &Tensor::from_f32([table.rows.len(), ROW_FLOATS], &rows))?;
        network.write("guidance", &Tensor::from_f32([1], &[sampling.guidance]))?;
        let none = model.labels().len() as u32;
        labels.resize(2 * FACES, none);
        network.write("labels", &Tensor::from_u32([2 * FACES], &labels))?;

        // Each picture of the batch into a layer: ink is +1, paper −1.
        let layer = |i| Texels::colour(faces).layer(i as u32).picture(i).normalised(&[(0.5, 0.5); 3]);
        let bound: Vec<_> = (0..FACES).map(|i| ("pictures", layer(i).into())).collect();
        let step = network.bind(&bound)?;
        let (scale, steps) = (table.init_noise_scale as f32, table.rows.len());
        Ok(Letters { scale, slots, steps, network, step })
    }

    /// Noise of these seeds in the pictures' place.
    fn begin(&self, seed: u64) -> Result<(), Box<dyn Error>> {
        let mut sample = vec![0.0; self.slots * FACES * SIDE * SIDE];
        for (i, value) in sample[..FACES * SIDE * SIDE].iter_mut().enumerate() {
            let (face, pixel) = (i / (SIDE * SIDE), i % (SIDE * SIDE));
            *value = self.scale * cuda_normal(seed + face as u64, 0, pixel as u32);
        }
        self.network.write("sample", &Tensor::from_f32([self.slots, FACES, SIDE, SIDE, 1], &sample))?;
        self.network.write("step", &Tensor::from_u32([1], &[0]))?;
        Ok(())
    }
}

/// A block that turns, and letters that come onto it.
struct Block {
    queue: wgpu::Queue,
    scene: Scene,
    frame: wgpu::Texture,
    letters: Letters,
    pace: Pace,
    costs: Costs,
    seed: u64,
    done: Option<f32>,
}

/// How much of the sampler goes into a frame.
enum Pace {
    /// Whole steps, and how many are left. For devices that do some in a frame.
    Steps { each: usize, left: usize },
    /// Parts of steps, as many as fit in. For devices on which a step takes longer than a frame may.
    Slices { budget: Duration, slices: Slices },
}

impl Block {
    fn new(gpu: &Gpu, options: &Options) -> Result<Block, Box<dyn Error>> {
        let faces = scene::picture(gpu.device(), [SIDE as u32; 2], FACES as u32);
        let frame = scene::frame(gpu.device(), [options.side; 2]);
        let scene = Scene::new(gpu.device(), include_str!("scene/block.wgsl"), &frame, Some(&faces));
        let letters = Letters::new(gpu, options, &faces)?;
        let costs = Costs::predicted(letters.network.plan());
        let pace = match options.budget {
            None => Pace::Steps { each: options.steps_per_frame.max(1), left: letters.steps },
            Some(budget) => Pace::Slices {
                budget: Duration::try_from_secs_f32(budget / 1000.0)?,
                slices: Slices::new(&letters.step, &costs, letters.steps)?.shown_each_run(),
            },
        };
        letters.begin(options.seed)?;
        let (queue, seed) = (gpu.queue().clone(), options.seed);
        Ok(Block { queue, scene, frame, letters, pace, costs, seed, done: None })
    }

    /// Records what a frame has time for; true once the letters are done.
    fn develop(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<bool, Box<dyn Error>> {
        match &mut self.pace {
            Pace::Steps { each, left } => {
                for _ in 0..*left.min(each) {
                    self.letters.step.record(encoder)?;
                    *left -= 1;
                }
                Ok(*left == 0)
            }
            Pace::Slices { budget, slices } => Ok(slices.record(encoder, *budget)?.is_done()),
        }
    }

    /// Other noise, from which other letters come.
    fn begin_anew(&mut self) -> Result<(), Box<dyn Error>> {
        self.seed += FACES as u64;
        self.letters.begin(self.seed)?;
        match &mut self.pace {
            Pace::Steps { left, .. } => *left = self.letters.steps,
            Pace::Slices { slices, .. } => {
                *slices = Slices::new(&self.letters.step, &self.costs, self.letters.steps)?.shown_each_run();
            }
        }
        Ok(())
    }
}

impl window::Animation for Block {
    fn picture(&self) -> &wgpu::Texture {
        &self.frame
    }

    fn record(&mut self, encoder: &mut wgpu::CommandEncoder, seconds: f32) -> Result<(), Box<dyn Error>> {
        if self.done.is_some_and(|done| seconds > done + REST) {
            self.begin_anew()?;
            self.done = None;
        }
        if self.done.is_none() && self.develop(encoder)? {
            self.done = Some(seconds);
        }
        self.scene.record(&self.queue, encoder, seconds);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if options.window {
        return window::show("diffuse_into_texture", [480; 2], |gpu| Block::new(gpu, &options));
    }
    let gpu = Gpu::headless()?;
    let mut block = Block::new(&gpu, &options)?;
    let mut strip = Vec::new();
    while block.done.is_none() {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        window::Animation::record(&mut block, &mut encoder, 0.4 * strip.len() as f32)?;
        gpu.queue().submit([encoder.finish()]);
        // Only for the file; a renderer would show the frame.
        strip.extend(scene::read(&gpu, [&block.frame])?);
    }
    println!("{} frames, {} steps of the sampler", strip.len(), block.letters.steps);

    let pictures = block.letters.network.read("pictures")?.to_f32();
    let face =
        |numbers: &[f32]| {
            let grey = |at: usize| (255.0 * (0.5 + 0.5 * numbers[at]).clamp(0.0, 1.0)).round() as u8;
            let face = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
                Rgb([grey(y as usize * SIDE + x as usize); 3])
            });
            imageops::resize(&face, options.side, options.side, imageops::FilterType::Nearest)
        };
    let faces = pictures.chunks(SIDE * SIDE).map(face).collect();
    scene::sheet(&[strip, faces]).save(&options.out)?;
    println!("{}: frame after frame, and the faces", options.out.display());
    Ok(())
}
