//! What a network is asked, by what it gives, and what its answers are called.

use aquatint::models::vision::VisionModel;
use aquatint::ops::best_boxes::BOX;
use aquatint::tasks::{self, DetectOptions};
use aquatint::{DType, Error, Graph, Result, Shape, Tensor, ValueId};
use eframe::egui::Color32;
use eframe::egui::ecolor::Hsva;

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The output `picture`, in a texture.
    Picture,
    /// The output `boxes` `[1, most, 6]`, drawn over the picture.
    Boxes,
    /// The output `probabilities` `[1, classes]`, as text.
    Names,
}

impl Kind {
    /// The one output of the graph.
    pub fn output(self) -> &'static str {
        match self {
            Kind::Picture => "picture",
            Kind::Boxes => "boxes",
            Kind::Names => "probabilities",
        }
    }
}

/// How much of a class's colour is seen over the picture, of 255.
const OPACITY: u8 = 140;

/// A graph from `pictures` `[1, height, width]`, as words of sRGB, to whatever the network says of it.
pub fn graph(model: &VisionModel, [height, width]: [usize; 2]) -> Result<(Graph, Kind)> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [1, height, width], DType::U32);
    let gives = outputs(model, [height, width])?;
    let shape_of = |name: &str| gives.iter().find(|(given, _)| given == name).map(|(_, shape)| shape);
    let (answer, kind) = if shape_of("picture").is_some() {
        (tasks::redraw(&mut g, model, pictures)?, Kind::Picture)
    } else if shape_of("boxes").is_some() {
        (tasks::detect(&mut g, model, pictures, &DetectOptions::default())?, Kind::Boxes)
    } else if let Some(map) = shape_of("map") {
        let classes = tasks::segment(&mut g, model, pictures)?;
        (coloured(&mut g, pictures, classes, map.last().max(2))?, Kind::Picture)
    } else if shape_of("logits").is_some() {
        (tasks::classify(&mut g, model, pictures)?, Kind::Names)
    } else {
        return Err(Error::Invalid {
            what: format!("network {}", model.name),
            expected: "one that gives a picture, boxes, a map of classes or names".to_owned(),
            found: gives.iter().map(|(name, shape)| format!("{name} {shape}")).collect::<Vec<_>>().join(", "),
        });
    };
    g.output(kind.output(), answer);
    Ok((g, kind))
}

/// What the network gives for a picture of this size: names and shapes.
fn outputs(model: &VisionModel, [height, width]: [usize; 2]) -> Result<Vec<(String, Shape)>> {
    let mut trial = Graph::new();
    let pictures = trial.input("pictures", [1, height, width], DType::U32);
    let x = model.preprocess.append(&mut trial, pictures, DType::F32)?;
    let outputs = model.build(&mut trial, x)?;
    Ok(outputs.into_iter().map(|(name, value)| (name, trial.shape(value).clone())).collect())
}

/// Each class but the first, which is what is left, in its colour over the picture.
fn coloured(g: &mut Graph, pictures: ValueId, classes: ValueId, count: usize) -> Result<ValueId> {
    let word = |class| {
        let [r, g, b, _] = colour(class).to_array();
        u32::from_le_bytes([r, g, b, OPACITY])
    };
    let colours: Vec<u32> = (0..count).map(|class| if class == 0 { 0 } else { word(class) }).collect();
    let colours = g.weight("colours", Tensor::from_u32([count], &colours));
    g.overlay(pictures, classes, colours)
}

/// Of a class: hues a golden section of the circle apart.
pub fn colour(class: usize) -> Color32 {
    Hsva::new((class as f32 * 0.618_034 + 0.02).fract(), 0.8, 0.85, 1.0).into()
}

/// A thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Left, top, right, bottom in pixels of the picture.
    pub edges: [f32; 4],
    pub class: usize,
    /// Name and score.
    pub text: String,
}

/// The boxes among the numbers of a detector's answer: those before the first without a score.
pub fn boxes(numbers: &[f32], labels: &[String]) -> Vec<Found> {
    let found = numbers.chunks_exact(BOX).take_while(|b| b[4] > 0.0);
    found
        .map(|b| {
            let class = b[5] as usize;
            let text = format!("{} {:.0} %", name(labels, class), 100.0 * b[4]);
            Found { edges: [b[0], b[1], b[2], b[3]], class, text }
        })
        .collect()
}

/// The likeliest classes of a classifier's answer, one a line.
pub fn names(probabilities: &[f32], labels: &[String]) -> String {
    const MOST: usize = 8;
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let line = |class: usize| format!("{:5.1} %  {}\n", 100.0 * probabilities[class], name(labels, class));
    order.into_iter().take(MOST).map(line).collect()
}

fn name(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}
