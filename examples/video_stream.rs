//! Frames of a video from standard input, through a network, to standard output: a part of a pipe between programs that decode
//! and encode. Frames are uploaded, computed and read back at the same time. Without a size it streams frames to itself and
//! shows some of them, above what came back.
//!
//! ```text
//! ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - |
//!     cargo run --release --example video_stream -- --model upscale-x2 --size 640x360 |
//!     ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - out.mp4
//! ```

mod scene;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use aquatint::frame::ReadRing;
use aquatint::models::vision::VisionModel;
use aquatint::{DType, Gpu, Graph, Network, models, tasks, wgpu};
use clap::{Parser, ValueEnum};
use image::{RgbImage, imageops};

#[derive(Parser)]
struct Options {
    /// upscale-x2, denoise, style-engraving, or a file of a network from pictures to pictures
    #[arg(long, default_value = "upscale-x2")]
    model: String,
    /// Width and height of the frames that come in, pixels: 640x360
    #[arg(long, value_parser = size)]
    size: Option<[usize; 2]>,
    /// Of the frames that come in and go out, as ffmpeg names it
    #[arg(long, value_enum, default_value = "rgb24")]
    pixels: Pixels,
    /// Frames that are under way at most
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    frames: u8,
    /// Of the frames that it streams to itself
    #[arg(long, default_value = "target/streamed.png")]
    out: std::path::PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Pixels {
    Rgb24,
    /// Alpha is 255 on the way out
    Rgba,
}

impl Pixels {
    fn bytes(self) -> usize {
        match self {
            Pixels::Rgb24 => 3,
            Pixels::Rgba => 4,
        }
    }
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    sides.filter(|sides| !sides.contains(&0)).ok_or_else(|| "width and height, as in 640x360".to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Some(size) = options.size else { return stream_to_itself(&options) };
    if io::stdin().is_terminal() {
        return Err("frames come through a pipe, as raw bytes; --help shows one".into());
    }
    let gpu = Gpu::headless()?;
    let mut stream = Stream::new(&gpu, &models::open(&options.model)?, size, &options)?;
    let start = Instant::now();
    match stream.run(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(frames) => {
            eprintln!("{frames} frames, {:.1} a second", frames as f64 / start.elapsed().as_secs_f64());
            Ok(())
        }
        // Who reads has seen enough.
        Err(error) if is_broken_pipe(&*error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A network for frames of a size, and the buffers through which results come back.
struct Stream {
    gpu: Gpu,
    network: Network,
    ring: ReadRing,
    /// Of the frames that are under way, oldest first, and how many may be.
    submissions: VecDeque<wgpu::SubmissionIndex>,
    most: usize,
    pixels: Pixels,
    /// Of a frame that comes in.
    bytes: usize,
}

impl Stream {
    fn new(
        gpu: &Gpu,
        model: &VisionModel,
        [width, height]: [usize; 2],
        options: &Options,
    ) -> aquatint::Result<Stream> {
        // Pictures of packed bytes in and out; the task adds what the network wants of them.
        let mut graph = Graph::new();
        let frame = graph.input("frame", [1, height, width], DType::U32);
        let redrawn = tasks::redraw(&mut graph, model, frame)?;
        graph.output("redrawn", redrawn);
        let network = Network::new(gpu, &graph)?;
        let most = usize::from(options.frames);
        let ring = ReadRing::new(gpu, most, network.desc("redrawn")?.bytes())?;
        let bytes = width * height * options.pixels.bytes();
        let (gpu, pixels) = (gpu.clone(), options.pixels);
        Ok(Stream { gpu, network, ring, submissions: VecDeque::new(), most, pixels, bytes })
    }

    /// All frames until the input ends; how many there were.
    fn run(&mut self, input: &mut impl Read, output: &mut impl Write) -> Result<u64, Box<dyn Error>> {
        let mut frame = vec![0; self.bytes];
        let mut frames = 0;
        let ended = loop {
            match read_frame(input, &mut frame) {
                Ok(true) => frames += 1,
                ended => break ended,
            }
            if self.submissions.len() == self.most {
                self.write_oldest(output)?;
            }
            self.submit(&frame)?;
            while let Some(read) = self.ring.poll()? {
                self.submissions.pop_front();
                write_frame(output, self.pixels, &read.bytes)?;
            }
        };
        while !self.submissions.is_empty() {
            self.write_oldest(output)?;
        }
        ended.map(|_| frames)
    }

    /// Upload, network and the way back, in order with what was submitted before; nothing waits.
    fn submit(&mut self, frame: &[u8]) -> aquatint::Result<()> {
        let words: Vec<u8> = match self.pixels {
            Pixels::Rgba => frame.to_vec(),
            Pixels::Rgb24 => frame.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect(),
        };
        self.gpu.queue().write_buffer(self.network.buffer("frame")?, 0, &words);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.network.encode(&mut encoder);
        let bytes = self.network.desc("redrawn")?.bytes();
        let taken = self.ring.push_buffer(&mut encoder, self.network.buffer("redrawn")?, 0, bytes, 0)?;
        assert!(taken, "there is a buffer for each frame that is under way");
        self.submissions.push_back(self.gpu.queue().submit([encoder.finish()]));
        Ok(())
    }

    /// Waits for the oldest of the frames that are under way.
    fn write_oldest(&mut self, output: &mut impl Write) -> Result<(), Box<dyn Error>> {
        let Some(submission) = self.submissions.pop_front() else { return Ok(()) };
        self.gpu.wait(submission)?;
        let read = loop {
            if let Some(read) = self.ring.poll()? {
                break read;
            }
        };
        Ok(write_frame(output, self.pixels, &read.bytes)?)
    }
}

/// False where the input ends before the frame.
fn read_frame(input: &mut impl Read, frame: &mut [u8]) -> Result<bool, Box<dyn Error>> {
    let mut filled = 0;
    while filled < frame.len() {
        match input.read(&mut frame[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => {
                let all = frame.len();
                return Err(format!(
                    "the last frame has {filled} of {all} bytes; are --size and --pixels right?"
                )
                .into());
            }
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn write_frame(output: &mut impl Write, pixels: Pixels, words: &[u8]) -> io::Result<()> {
    match pixels {
        Pixels::Rgba => output.write_all(words)?,
        Pixels::Rgb24 => {
            let bytes: Vec<u8> = words.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
            output.write_all(&bytes)?;
        }
    }
    // Who reads it need not wait for the next.
    output.flush()
}

/// Frames of a camera that moves over a photograph, through a process of this program.
fn stream_to_itself(options: &Options) -> Result<(), Box<dyn Error>> {
    const SIZE: [u32; 2] = [96, 72];
    const FRAMES: u32 = 8;
    let photograph = image::open("examples/pictures/coffee.jpg")?.into_rgb8();
    let photograph = imageops::resize(&photograph, 300, 200, imageops::FilterType::Triangle);
    let frame = |i| imageops::crop_imm(&photograph, 60 + 9 * i, 40 + 6 * i, SIZE[0], SIZE[1]).to_image();
    let frames: Vec<RgbImage> = (0..FRAMES).map(frame).collect();

    let mut child = Command::new(std::env::current_exe()?)
        .args(["--model", &options.model, "--frames", &options.frames.to_string()])
        .args(["--size", &format!("{}x{}", SIZE[0], SIZE[1])])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut to), Some(mut from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("a process without pipes".into());
    };
    // Written by another thread, as both pipes are short.
    let all: Vec<u8> = frames.iter().flat_map(|frame| frame.as_raw().clone()).collect();
    let writer = std::thread::spawn(move || to.write_all(&all));
    let mut came = Vec::new();
    from.read_to_end(&mut came)?;
    let status = child.wait()?;
    let sent = writer.join().map_err(|_| "the writer failed")?;
    if !status.success() {
        return Err(format!("the process ended with {status}").into());
    }
    sent?;

    // Networks make pictures larger by a whole number.
    let pixels = came.len() / (3 * FRAMES as usize);
    let factor = (pixels / (SIZE[0] * SIZE[1]) as usize).isqrt() as u32;
    let [width, height] = SIZE.map(|side| factor * side);
    let large = |frame| imageops::resize(frame, width, height, imageops::FilterType::Triangle);
    let shown = |i: &usize| i.is_multiple_of(3);
    let before = (0..frames.len()).filter(shown).map(|i| large(&frames[i])).collect();
    let after = came.chunks_exact(3 * pixels).map(|bytes| RgbImage::from_raw(width, height, bytes.to_vec()));
    let after: Vec<RgbImage> = after.collect::<Option<_>>().ok_or("frames of another size came back")?;
    println!("{} of {FRAMES} frames came back, {width} × {height}", after.len());
    let after = (0..after.len()).filter(shown).map(|i| after[i].clone()).collect();
    scene::sheet(&[before, after]).save(&options.out)?;
    println!("{}: frames as they went, and as they came back", options.out.display());
    Ok(())
}
