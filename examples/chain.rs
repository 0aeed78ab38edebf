//! Finds letters in a photograph, takes them off their background and reads them: three networks in one graph. What one
//! makes, the next reads where it is, on the GPU.
//!
//! ```text
//! cargo run --release --example chain [FILE]
//! ```

use aquatint::formats::picture;
use aquatint::ops::picture_crops::PictureCrops;
use aquatint::ops::typed::Function;
use aquatint::tasks::{self, DetectOptions};
use aquatint::{DType, Gpu, Graph, Network, Tensor, models};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "examples/pictures/letters.png".to_owned());
    let scene = picture::open(&file)?;
    let [height, width] = [scene.height() as usize, scene.width() as usize];
    let detector = models::open("letters-detector")?;
    let segmenter = models::open("letters-segmenter")?;
    let reader = models::letters::letters_classifier()?;

    let mut g = Graph::new();
    let pictures = g.input("pictures", [1, height, width], DType::U32);
    let options = DetectOptions { most: 32, ..Default::default() };
    let boxes = tasks::detect(&mut g, &detector, pictures, &options)?;
    // The reader knows white letters on black: the segmenter's mask, 0 or 1, as a picture.
    let mask = tasks::segment(&mut g, &segmenter, pictures)?;
    let white = g.weight("white", Tensor::from_u32([1], &[0x00ff_ffff]));
    let mask = g.typed(Function::Mul, &[mask, white])?;
    let crops = PictureCrops {
        size: reader.preprocess.size.unwrap_or([32, 32]),
        margin: 0.1,
        square: true,
        normalise: reader.preprocess.normalise(),
    };
    let crops = g.picture_crops(mask, boxes, crops)?;
    let probabilities = tasks::classify_prepared(&mut g, &reader, crops)?;
    let best = g.arg_max(probabilities, 1)?;
    g.output("boxes", boxes);
    g.output("best", best);
    let network = Network::new(&Gpu::headless()?, &g)?;

    let words: Vec<u32> = scene.pixels().map(|p| u32::from_le_bytes([p.0[0], p.0[1], p.0[2], 255])).collect();
    let found = network.run(&[("pictures", &Tensor::from_u32([1, height, width], &words))])?;
    let (boxes, best) = (found[0].to_f32(), found[1].to_f32());
    for (b, best) in boxes.chunks_exact(6).zip(best).take_while(|(b, _)| b[4] > 0.0) {
        let labels = [&detector.labels[b[5] as usize], &reader.labels[best as usize]];
        println!(
            "{:>4.0} {:>4.0}  found as {} ({:.0} %), read as {}",
            b[0],
            b[1],
            labels[0],
            100.0 * b[4],
            labels[1]
        );
    }
    Ok(())
}
