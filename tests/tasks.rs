//! Tasks as library calls, on the bundled networks and on small ones made here.

use std::sync::OnceLock;

use aquatint::models::bundled::bundled;
use aquatint::models::letters;
use aquatint::models::vision::{Candidates, Filter, Fit, Preprocess, VisionModel};
use aquatint::ops::best_boxes::{Classes, Selection};
use aquatint::ops::conv2d::Conv2dOptions;
use aquatint::ops::picture_crops::PictureCrops;
use aquatint::tasks::{self, Classifier, DetectOptions, Detector, Embedder, Redrawer, Segmenter, cosine};
use aquatint::{DType, Error, Gpu, Graph, Network, Result, Tensor, ValueId};
use image::{Rgb, RgbImage};

fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::headless() {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    })
    .as_ref()
}

/// Hash noise over a gradient: something that is nowhere alike.
fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let hash = (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35) >> 8;
        Rgb([(x * 3 + y) as u8, (y * 5) as u8 ^ (hash as u8 & 31), hash as u8])
    })
}

fn words(picture: &RgbImage) -> Tensor {
    let words: Vec<u32> =
        picture.pixels().map(|p| u32::from_le_bytes([p.0[0], p.0[1], p.0[2], 255])).collect();
    Tensor::from_u32([1, picture.height() as usize, picture.width() as usize], &words)
}

fn plain(size: Option<[usize; 2]>, fit: Fit) -> Preprocess {
    Preprocess {
        size,
        multiple: 1,
        fit,
        filter: Filter::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
        light_on_dark: false,
    }
}

/// Letters of the held-out sheet on a grey ground, with the label and the place of each.
fn scene() -> (RgbImage, Vec<(String, [u32; 4])>) {
    let sheet =
        image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/letters-heldout.png")).unwrap().into_rgb8();
    let mut scene = RgbImage::from_pixel(240, 100, Rgb([0; 3]));
    let mut places = Vec::new();
    for (i, (column, label)) in [(0, "A"), (17, "R"), (33, "7")].into_iter().enumerate() {
        let cell = image::imageops::crop_imm(&sheet, column * 32, 0, 32, 32).to_image();
        let (x, y) = (20 + 80 * i as u32, 30);
        image::imageops::replace(&mut scene, &cell, x.into(), y.into());
        places.push((label.to_owned(), [x, y, x + 32, y + 32]));
    }
    (scene, places)
}

#[test]
fn tiles_leave_no_seams() {
    let Some(gpu) = gpu() else { return };
    for (name, side, size) in [("upscale-x2", 48, (131, 97)), ("denoise", 192, (350, 203))] {
        let model = bundled(name).unwrap().unwrap();
        let picture = photo(size.0, size.1);
        let mut whole = Redrawer::new(gpu, model.clone()).unwrap();
        let mut tiled = Redrawer::new(gpu, model).unwrap();
        tiled.set_tile(side).unwrap();
        let (a, b) = (whole.redraw(&picture).unwrap(), tiled.redraw(&picture).unwrap());
        assert_eq!(a.dimensions(), b.dimensions());
        // Squares of Winograd's convolution begin elsewhere in a tile, and round their own way: a level of 255 at most, and
        // seldom; a seam would be a line of pixels.
        let levels = |(a, b): (&u8, &u8)| a.abs_diff(*b);
        let off: Vec<u8> = a.as_raw().iter().zip(b.as_raw()).map(levels).filter(|off| *off > 0).collect();
        assert!(off.iter().all(|off| *off == 1) && off.len() * 1000 < a.as_raw().len(), "{name}: {off:?}");
        let message = tiled.set_tile(8).unwrap_err().to_string();
        assert!(message.contains("more than"), "{message}");
    }
}

#[test]
fn the_smallest_and_the_odd_are_redrawn() {
    let Some(gpu) = gpu() else { return };
    for (name, factor) in [("upscale-x2", 2), ("denoise", 1)] {
        let mut redrawer = Redrawer::new(gpu, bundled(name).unwrap().unwrap()).unwrap();
        for (width, height) in [(1, 1), (1, 33), (17, 5)] {
            let drawn = redrawer.redraw(&photo(width, height)).unwrap();
            assert_eq!(drawn.dimensions(), (factor * width, factor * height), "{name}");
        }
        assert!(redrawer.redraw(&RgbImage::new(0, 3)).is_err());
    }
}

#[test]
fn what_looks_at_everything_is_not_cut() {
    let Some(gpu) = gpu() else { return };
    let mut style = Redrawer::new(gpu, bundled("style-engraving").unwrap().unwrap()).unwrap();
    assert_eq!(style.margin(), None);
    assert!(style.set_tile(256).unwrap_err().to_string().contains("whole picture"));
    assert_eq!(style.redraw(&photo(37, 51)).unwrap().dimensions(), (37, 51));
    let message = style.redraw(&photo(9000, 6000)).unwrap_err().to_string();
    assert!(message.contains("9000 × 6000") && message.contains("cannot work in tiles"), "{message}");
}

/// Scores that are the colours themselves: red, green, blue as classes.
fn colours(preprocess: Preprocess) -> VisionModel {
    let labels = ["red", "green", "blue"].map(String::from).to_vec();
    VisionModel::new("colours", preprocess, labels, |g, x| {
        // Doubled, so that there is something to compute.
        Ok(vec![("map".into(), g.affine(x, 2.0, 0.0)?)])
    })
}

#[test]
fn masks_lie_on_their_picture() {
    let Some(gpu) = gpu() else { return };
    // Left half red, right half blue, a green bar below.
    let picture = RgbImage::from_fn(90, 60, |x, y| match (x, y) {
        (_, 40..) => Rgb([0, 255, 0]),
        (0..45, _) => Rgb([255, 0, 0]),
        _ => Rgb([0, 0, 255]),
    });
    let class = |x: u32, y: u32| {
        if y >= 40 {
            1
        } else if x < 45 {
            0
        } else {
            2
        }
    };
    for (size, fit) in [
        (None, Fit::Stretch),
        (Some([48, 48]), Fit::Stretch),
        (Some([96, 96]), Fit::Letterbox { fill: 0.5 }),
        (Some([30, 30]), Fit::Letterbox { fill: 0.0 }),
    ] {
        let mut segmenter = Segmenter::new(gpu, colours(plain(size, fit)), 4).unwrap();
        let result = segmenter.segment(&[picture.clone(), picture.clone()]).unwrap().remove(1);
        assert_eq!(result.mask.dimensions(), (90, 60));
        // A pixel of the map is up to three of the picture.
        let near = |x: u32, y: u32| y.abs_diff(40) <= 3 || x.abs_diff(45) <= 3 && y < 40;
        for (x, y, pixel) in result.mask.enumerate_pixels() {
            assert!(near(x, y) || pixel.0[0] == class(x, y), "{size:?}, {fit:?} at {x}, {y}: {}", pixel.0[0]);
        }
        assert_eq!(result.areas.iter().map(|a| a.pixels).sum::<u64>(), 90 * 60);
        let green = result.mask.pixels().filter(|p| p.0[0] == 1).count() as u64;
        assert_eq!((result.areas[1].label.as_str(), result.areas[1].pixels), ("green", green));
        // The first class is left as it is, the others are tinted.
        assert_eq!(result.overlay.get_pixel(5, 5), picture.get_pixel(5, 5));
        assert_ne!(result.overlay.get_pixel(80, 5), picture.get_pixel(80, 5));
    }
}

/// A detector that sees what is written into it: candidates and scores as weights.
fn fixed_detector(size: [usize; 2]) -> VisionModel {
    let labels = ["cat", "dog"].map(String::from).to_vec();
    VisionModel::new("fixed", plain(Some(size), Fit::Letterbox { fill: 0.5 }), labels, |g, x| {
        let n = g.shape(x)[0];
        let boxes = [[10., 20., 30., 40.], [11., 21., 31., 41.], [10., 20., 30., 40.], [40., 20., 60., 90.]];
        let scores = [[0.8, 0.1], [0.9, 0.2], [0.1, 0.7], [0.05, 0.5]];
        let boxes = g.weight("boxes", Tensor::from_f32([1, 4, 4], boxes.as_flattened()));
        let scores = g.weight("scores", Tensor::from_f32([1, 4, 2], scores.as_flattened()));
        Ok(vec![
            ("boxes".into(), g.broadcast_to(boxes, [n, 4, 4])?),
            ("scores".into(), g.broadcast_to(scores, [n, 4, 2])?),
        ])
    })
}

#[test]
fn boxes_go_back_through_the_letterbox() {
    let Some(gpu) = gpu() else { return };
    // 128 × 64 (w × h) in 64 × 64: half the size, 16 rows of grey above.
    let options = DetectOptions { threshold: 0.3, overlap: 0.5, across_classes: false, most: 10 };
    let mut detector = Detector::new(gpu, fixed_detector([64, 64]), options, 2).unwrap();
    let pictures = [RgbImage::new(128, 64), RgbImage::new(128, 64), RgbImage::new(128, 64)];
    for found in detector.detect(&pictures).unwrap() {
        let rows: Vec<(&str, [f32; 4])> =
            found.iter().map(|d| (d.label.as_str(), [d.left, d.top, d.right, d.bottom])).collect();
        // The first candidate gives way to the second, of its class; the third is of another one; the last is cut.
        let expected =
            [("cat", [22., 10., 62., 50.]), ("dog", [20., 8., 60., 48.]), ("dog", [80., 8., 120., 64.])];
        assert_eq!(rows, expected);
        assert!(found.windows(2).all(|w| w[0].score >= w[1].score));
    }
    assert!(
        Detector::new(gpu, fixed_detector([64, 64]), DetectOptions { threshold: 2.0, ..options }, 1).is_err()
    );
}

/// For each thing that is found its label and a share of its place.
fn found(gpu: &Gpu, model: VisionModel, options: DetectOptions) -> Result<Vec<(String, f32)>> {
    let found = Detector::new(gpu, model, options, 1)?.detect(&[RgbImage::new(64, 64)])?;
    Ok(found[0].iter().map(|d| (d.label.clone(), d.left)).collect())
}

#[test]
fn models_say_what_their_candidates_are() {
    let Some(gpu) = gpu() else { return };
    let options = DetectOptions { threshold: 0.15, overlap: 0.5, across_classes: false, most: 10 };
    let run = |candidates: Candidates, labels: &[&str], options: DetectOptions| {
        let mut model = fixed_detector([64, 64]);
        model.candidates = candidates;
        model.labels = labels.iter().map(|l| (*l).to_owned()).collect();
        found(gpu, model, options)
    };
    let rows = |rows: &[(&str, f32)]| rows.iter().map(|(l, x)| ((*l).to_owned(), *x)).collect::<Vec<_>>();

    let best = Candidates::default();
    let all = rows(&[("cat", 11.0), ("dog", 10.0), ("dog", 40.0)]);
    assert_eq!(run(best, &["cat", "dog"], options).unwrap(), all);
    // A better box of whatever class stands in the way.
    let across = DetectOptions { across_classes: true, ..options };
    assert_eq!(run(best, &["cat", "dog"], across).unwrap(), rows(&[("cat", 11.0), ("dog", 40.0)]));
    // As a dog the second candidate is too much like the third.
    let each = Candidates { classes: Classes::Each(300), ..best };
    assert_eq!(run(each, &[], options).unwrap(), rows(&[("0", 11.0), ("1", 10.0), ("1", 40.0)]));
    assert_eq!(run(each, &[], across).unwrap(), rows(&[("0", 11.0), ("1", 40.0)]));
    // Class 0 is nothing.
    for classes in [Classes::Best, Classes::Each(2)] {
        let background = Candidates { classes, background: true };
        let dogs = rows(&[("dog", 10.0), ("dog", 40.0)]);
        assert_eq!(run(background, &["", "dog"], options).unwrap(), dogs);
        assert_eq!(run(background, &[], options).unwrap()[0].0, "1");
    }
    let wrong = run(best, &["cat"], options).unwrap_err().to_string();
    assert!(wrong.contains("labels") && wrong.contains('2'), "{wrong}");
}

#[test]
fn letters_are_found_and_vectors_tell_them_apart() {
    let Some(gpu) = gpu() else { return };
    let (scene, places) = scene();
    let cut = |i: usize, dx: u32| {
        let [x, y, ..] = places[i].1;
        image::imageops::crop_imm(&scene, x + dx, y, 32, 32).to_image()
    };
    let mut embedder = Embedder::new(gpu, letters::letters_classifier().unwrap(), None, 4).unwrap();
    let vectors = embedder.embed(&[cut(0, 0), cut(0, 1), cut(1, 0)]).unwrap();
    assert_eq!(vectors[0].len(), 96);
    let (same, other) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[0], &vectors[2]));
    assert!(same > other && same > 0.8, "{same} {other}");
    assert!((cosine(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-9);
    // Any layer by name, averaged over its pixels.
    let layer = |name: &str| {
        Embedder::new(gpu, letters::letters_classifier().unwrap(), Some(name), 4).unwrap().embed(&[cut(0, 0)])
    };
    assert_eq!(layer("block1.b").unwrap()[0].len(), 48);
    assert_eq!(layer("logits").unwrap()[0].len(), 36);
    let message = layer("block9").unwrap_err().to_string();
    assert!(message.contains("block9") && message.contains("block1.b"), "{message}");
}

#[test]
fn any_network_with_logits_classifies() {
    let Some(gpu) = gpu() else { return };
    let labels = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let model = |names: &[&str]| {
        VisionModel::new("means", plain(Some([8, 8]), Fit::Crop { portion: 0.5 }), labels(names), |g, x| {
            let weight = Tensor::from_f32([3, 3, 1, 1], &[9., 0., 0., 0., 9., 0., 0., 0., 9.]);
            let weight = g.weight("w", weight);
            let h = g.conv2d(x, weight, None, Conv2dOptions::default())?;
            let n = g.shape(h)[0];
            let h = g.global_pool(h, aquatint::ops::pool::PoolKind::Mean { include_pad: false })?;
            Ok(vec![("logits".into(), g.reshape(h, [n, 3])?)])
        })
    };
    // Only the middle counts.
    let picture = |middle: [u8; 3]| {
        RgbImage::from_fn(40, 20, |x, y| {
            let inside = (15..25).contains(&x) && (5..15).contains(&y);
            Rgb(if inside { middle } else { [255 - middle[0], 255 - middle[1], 255 - middle[2]] })
        })
    };
    let mut classifier = Classifier::new(gpu, model(&["red", "green", "blue"]), 8).unwrap();
    let pictures = [picture([255, 0, 0]), picture([0, 0, 255]), picture([0, 255, 0]), photo(9, 7)];
    let answers = classifier.classify(&pictures).unwrap();
    let best: Vec<&str> = answers.iter().map(|a| a[0].label.as_str()).collect();
    assert_eq!(best[..3], ["red", "blue", "green"]);
    let unnamed = Classifier::new(gpu, model(&[]), 8).unwrap().classify(&pictures[..1]).unwrap();
    assert_eq!(unnamed[0][0].label, "0");
    let wrong =
        Classifier::new(gpu, model(&["red", "green"]), 8).unwrap().classify(&pictures[..1]).unwrap_err();
    assert!(wrong.to_string().contains("labels") && wrong.to_string().contains('3'), "{wrong}");
    let other =
        Classifier::new(gpu, bundled("denoise").unwrap().unwrap(), 1).unwrap().classify(&pictures[..1]);
    assert!(other.unwrap_err().to_string().contains("logits"));
}

/// Detect, cut out and classify in one graph: boxes are read by the crop where they were written.
fn chain(size: [usize; 2], boxes: impl Fn(&mut Graph, ValueId) -> Result<ValueId>) -> Result<Graph> {
    let mut g = Graph::new();
    let pictures = g.input("pictures", [1, size[0], size[1]], DType::U32);
    let boxes = boxes(&mut g, pictures)?;
    let reader = letters::letters_classifier()?;
    let crops = PictureCrops {
        size: reader.preprocess.size.unwrap(),
        margin: 0.0,
        square: true,
        normalise: reader.preprocess.normalise(),
    };
    let crops = g.picture_crops(pictures, boxes, crops)?;
    let probabilities = tasks::classify_prepared(&mut g, &reader, crops)?;
    g.output("boxes", boxes);
    g.output("probabilities", probabilities);
    Ok(g)
}

#[test]
fn a_chain_stays_on_the_device() {
    let Some(gpu) = gpu() else { return };
    let (scene, places) = scene();
    let size = [scene.height() as usize, scene.width() as usize];
    let edges: Vec<f32> = places.iter().flat_map(|(_, b)| b.map(|v| v as f32)).collect();
    let graph = chain(size, |g, pictures| {
        let n = g.shape(pictures)[0];
        let boxes = g.weight("boxes", Tensor::from_f32([1, 3, 4], &edges));
        let scores = g.weight("scores", Tensor::from_f32([1, 3, 1], &[0.7, 0.9, 0.8]));
        let [rows, columns] = plain(None, Fit::Stretch).axes([g.shape(pictures)[1], g.shape(pictures)[2]])?;
        assert_eq!(n, 1);
        let selection = Selection {
            least: 0.5,
            overlap: 0.5,
            across_classes: false,
            keep: 3,
            classes: Classes::Best,
            background: false,
        };
        g.best_boxes(boxes, scores, [&rows, &columns], selection)
    })
    .unwrap();
    let network = Network::new(gpu, &graph).unwrap();
    network.write("pictures", &words(&scene)).unwrap();
    // One submission, no buffer made on the way: a read-back would need one.
    let before = gpu.counts();
    network.submit(1).unwrap();
    assert_eq!(gpu.counts(), before);
    let probabilities = network.read("probabilities").unwrap();
    assert_eq!(probabilities.desc.shape[..], [3, 36]);
    let labels = letters::labels();
    let read: Vec<&str> = probabilities
        .to_f32()
        .chunks_exact(36)
        .map(|p| labels[(0..36).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap()].as_str())
        .collect();
    // Best box first.
    assert_eq!(read, ["R", "7", "A"]);
}
