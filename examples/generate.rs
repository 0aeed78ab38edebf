//! Draws a letter out of noise and reads it back.
//!
//! ```text
//! cargo run --release --example generate [LABEL [FILE]]
//! ```

use aquatint::Gpu;
use aquatint::tasks::{Classifier, DiffusionModel, Generator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let label = arguments.next().unwrap_or_else(|| "Q".to_owned());
    let file = arguments.next().unwrap_or_else(|| "target/letter.png".to_owned());

    let gpu = Gpu::headless()?;
    let model = DiffusionModel::letters()?;
    let mut generator = Generator::new(&gpu, &model, 1, &model.options())?;
    let pictures = generator.start(&[label.as_str()], &[7])?.pictures()?;
    pictures[0].save(&file)?;

    let answers = Classifier::letters(&gpu, 1)?.classify(&pictures)?;
    let best = &answers[0][0];
    println!("{file}: drawn as {label}, read as {} ({:.1} %)", best.label, 100.0 * best.probability);
    Ok(())
}
