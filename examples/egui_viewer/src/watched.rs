//! A network with a picture on both sides of it, and its runs.

use std::path::Path;
use std::time::{Duration, Instant};

use aquatint::formats::picture;
use aquatint::frame::{Bindings, Costs, ReadRing, Slices, Texels};
use aquatint::models::{self, vision::VisionModel};
use aquatint::wgpu::{self, TextureUsages};
use aquatint::{Error, Gpu, Network, Result};
use image::RgbImage;

use crate::answer::{self, Kind};
use crate::clock::Clock;

/// What the user wants to see: a network by its name or file, and a file with a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub model: String,
    pub picture: String,
}

impl Wish {
    /// With a picture that suits the network, if none is given.
    pub fn new(model: &str, picture: Option<String>) -> Wish {
        let picture = picture.unwrap_or_else(|| {
            let file = match model {
                "denoise" => "coffee-noisy.png",
                "upscale-x2" => "coffee-small.png",
                name if name.starts_with("letters") => "letters.png",
                _ => "coffee.jpg",
            };
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("pictures");
            folder.join(file).display().to_string()
        });
        Wish { model: model.to_owned(), picture }
    }

    pub fn open(&self) -> Result<(VisionModel, RgbImage)> {
        Ok((models::open(&self.model)?, picture::open(&self.picture)?))
    }
}

/// Device time that a frame gives to the network.
const BUDGET: Duration = Duration::from_millis(8);

/// A network that is loaded, bound to textures, and run a slice at a time.
pub struct Watched {
    gpu: Gpu,
    network: Network,
    slices: Slices,
    clock: Option<Clock>,
    /// Brings answers that are no pictures to the host.
    ring: Option<ReadRing>,
    pub kind: Kind,
    pub labels: Vec<String>,
    pub source: wgpu::Texture,
    /// What the network draws, if it draws.
    pub drawn: Option<wgpu::Texture>,
    /// The latest answer that is no picture.
    pub numbers: Option<Vec<f32>>,
    /// Frames that the run went over so far.
    pub frames: usize,
    /// How long it took to open, plan and load the network.
    pub made_in: Duration,
}

impl Watched {
    /// Takes long: files are read and kernels compiled. For another thread.
    pub fn make(gpu: &Gpu, wish: &Wish) -> Result<Watched> {
        let start = Instant::now();
        let (model, picture) = wish.open()?;
        let size = [picture.width(), picture.height()];
        let (graph, kind) = answer::graph(&model, [size[1] as usize, size[0] as usize])?;
        let network = Network::new(gpu, &graph)?;
        let source = texture(gpu, "picture", size, TextureUsages::TEXTURE_BINDING | TextureUsages::COPY_DST)?;
        upload(gpu, &source, &picture);
        let shape = network.desc(kind.output())?.shape.clone();
        let mut bound = vec![("pictures", Texels::colour(&source).into())];
        let drawn = match kind {
            Kind::Picture => {
                let usage = TextureUsages::STORAGE_BINDING | TextureUsages::TEXTURE_BINDING;
                let drawn = texture(gpu, "drawn", [shape[2] as u32, shape[1] as u32], usage)?;
                bound.push((kind.output(), Texels::colour(&drawn).into()));
                Some(drawn)
            }
            Kind::Boxes | Kind::Names => None,
        };
        let bindings: Bindings = network.bind(&bound)?;
        let slices = Slices::new(&bindings, &Costs::predicted(network.plan()), 1)?;
        let ring = match kind {
            Kind::Picture => None,
            Kind::Boxes | Kind::Names => Some(ReadRing::new(gpu, 1, 4 * shape.elements() as u64)?),
        };
        Ok(Watched {
            gpu: gpu.clone(),
            network,
            slices,
            clock: Clock::new(gpu)?,
            ring,
            kind,
            labels: model.labels,
            source,
            drawn,
            numbers: None,
            frames: 0,
            made_in: start.elapsed(),
        })
    }

    /// Takes what came back, and submits the next slice of the run if the device keeps up.
    pub fn advance(&mut self) -> Result<()> {
        if let Some(clock) = &mut self.clock {
            clock.poll()?;
        }
        if let Some(ring) = &mut self.ring
            && let Some(read) = ring.poll()?
        {
            let numbers = read.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            self.numbers = Some(numbers.collect());
        }
        if self.slices.is_done() || self.clock.as_ref().is_some_and(Clock::is_behind) {
            return Ok(());
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        if let Some(clock) = &self.clock {
            clock.begin(&mut encoder);
        }
        let progress = self.slices.record(&mut encoder, BUDGET)?;
        if let Some(clock) = &mut self.clock {
            clock.end(&mut encoder)?;
        }
        if let Some(ring) = &mut self.ring
            && progress.is_done()
        {
            let output = self.kind.output();
            let bytes = self.network.desc(output)?.bytes();
            ring.push_buffer(&mut encoder, self.network.buffer(output)?, 0, bytes, 0)?;
        }
        self.gpu.queue().submit([encoder.finish()]);
        self.frames += 1;
        Ok(())
    }

    /// Whether the run is done and all that it brings is here.
    pub fn is_settled(&self) -> bool {
        self.slices.is_done()
            && self.clock.as_ref().is_none_or(|clock| clock.seconds().is_some())
            && self.ring.as_ref().is_none_or(ReadRing::is_empty)
    }

    /// Runs the network again.
    pub fn again(&mut self) {
        self.slices.cancel();
        self.frames = 0;
        if let Some(clock) = &mut self.clock {
            clock.reset();
        }
    }

    /// Launches that are submitted, of all.
    pub fn progress(&self) -> f32 {
        let progress = self.slices.progress();
        progress.launches as f32 / progress.of.max(1) as f32
    }

    /// How long the run took on the device, in seconds; none while it is not done and where there is no clock.
    pub fn seconds(&self) -> Option<f64> {
        self.clock.as_ref().filter(|_| self.slices.is_done()).and_then(Clock::seconds)
    }

    pub fn network(&self) -> &Network {
        &self.network
    }
}

/// A texture whose bytes are sRGB, as pictures' are and as egui wants them.
fn texture(gpu: &Gpu, label: &str, [width, height]: [u32; 2], usage: TextureUsages) -> Result<wgpu::Texture> {
    let (needed, available) = (width.max(height), gpu.target().max_texture);
    if needed > available {
        let (device, what) = (gpu.target().name.clone(), format!("a side of the texture \"{label}\""));
        return Err(Error::Limit { device, what, needed: needed.into(), available: available.into() });
    }
    Ok(gpu.device().create_texture(&wgpu::TextureDescriptor {
        label: Some(label),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage,
        view_formats: &[],
    }))
}

fn upload(gpu: &Gpu, texture: &wgpu::Texture, picture: &RgbImage) {
    let texels: Vec<u8> = picture.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2], 255]).collect();
    let layout = wgpu::TexelCopyBufferLayout {
        offset: 0,
        bytes_per_row: Some(4 * texture.width()),
        rows_per_image: None,
    };
    gpu.queue().write_texture(texture.as_image_copy(), &texels, layout, texture.size());
}
