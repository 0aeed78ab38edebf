//! `temporal_upscale` on made-up clips, beside the interpolation of single frames.

use aquatint::models::temporal_upscale::{FRAMES, jitter, temporal_upscale};
use aquatint::ops::resize::{Coordinates, Interpolation};
use aquatint::{DType, Error, Gpu, Graph, Tensor};

use crate::clip::{Clip, flicker, psnr};
use crate::hashed::gpu;
use crate::{BAD, Sequence, assert_same, mess, number};

/// For pictures of this fine size.
fn upscaler(gpu: &Gpu, [h, w]: [usize; 2]) -> Sequence {
    Sequence::new(gpu, &temporal_upscale(w / 2, h / 2, FRAMES).unwrap())
}

fn bicubic(gpu: &Gpu, [h, w]: [usize; 2]) -> Sequence {
    let mut g = Graph::new();
    let color = g.input("color", [1, h / 2, w / 2, 3], DType::F32);
    let (interpolation, coordinates) = (Interpolation::Bicubic { a: -0.5 }, Coordinates::HalfPixel);
    let large = g.resize(color, [h, w], interpolation, coordinates).unwrap();
    g.output("upscaled", large);
    Sequence::new(gpu, &g)
}

fn offset(frame: usize) -> ([f32; 2], Tensor) {
    let offset = jitter(frame as u32);
    (offset, Tensor::from_f32([2], &offset))
}

const SIZE: [usize; 2] = [64, 96];

#[test]
fn offsets_cover_the_pixel() {
    let all: Vec<[f32; 2]> = (0..16).map(jitter).collect();
    assert_eq!(all[3], jitter(19));
    assert!(all.iter().flatten().all(|v| (-0.5..0.5).contains(v)));
    // Each quarter of a pixel has its share.
    for quarter in 0..4 {
        let found =
            all.iter().filter(|[x, y]| u8::from(*x >= 0.0) + 2 * u8::from(*y >= 0.0) == quarter).count();
        assert!((3..=5).contains(&found), "{found} in quarter {quarter}");
    }
    let mean = [0, 1].map(|i| all.iter().map(|o| o[i]).sum::<f32>() / 16.0);
    assert!(mean.iter().all(|m| m.abs() < 0.05), "{mean:?}");
}

#[test]
fn many_frames_are_a_sharper_picture_than_one() {
    let Some(gpu) = gpu() else { return };
    let (upscaler, bicubic) = (upscaler(gpu, SIZE), bicubic(gpu, SIZE));
    for (name, clip, better) in [
        ("still", Clip::still(SIZE), 6.0),
        ("panned", Clip { wall: [1.3, 0.7], ..Clip::still(SIZE) }, 0.5),
        ("a disc before it", Clip { wall: [1.3, 0.7], disc: Some([-0.8, 0.4]), ..Clip::still(SIZE) }, 0.5),
    ] {
        let (mut likeness, mut changes) = ([0.0; 2], [0.0; 2]);
        let mut last: Option<[Vec<f32>; 3]> = None;
        for t in 0..20 {
            let (at, offset) = offset(t);
            let reset = number(f32::from(u8::from(t == 0)));
            let fine = upscaler.step(&clip.frame(t, 2, at, None), &[("jitter", &offset), ("reset", &reset)]);
            let single = bicubic.step(&clip.frame(t, 2, [0.0; 2], None), &[]);
            let now = [fine, single, clip.truth(t)];
            if let Some(last) = last.filter(|_| t >= 12) {
                for i in 0..2 {
                    likeness[i] += psnr(&now[i], &now[2]) / 8.0;
                    changes[i] += flicker([&last[i], &now[i]], [&last[2], &now[2]]) / 8.0;
                }
            }
            last = Some(now);
        }
        println!(
            "{name}: {likeness:.2?} dB, flicker {changes:.4?}, of the sequence and of frames by themselves"
        );
        assert!(likeness[0] > likeness[1] + better, "{name}: {likeness:?}");
        if name != "still" {
            assert!(changes[0] < changes[1], "{name}: {changes:?}");
        }
    }
}

#[test]
fn a_frame_by_itself_is_interpolated() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::still(SIZE);
    let upscaler = upscaler(gpu, SIZE);
    let found =
        upscaler.step(&clip.frame(0, 2, [0.0; 2], None), &[("jitter", &Tensor::from_f32([2], &[0.0; 2]))]);
    let expected = bicubic(gpu, SIZE).step(&clip.frame(0, 2, [0.0; 2], None), &[]);
    let [found, expected] = [found, expected].map(|values| psnr(&values, &clip.truth(0)));
    println!("{found:.2} dB, bicubic {expected:.2}");
    assert!(found > expected - 1.5, "{found} dB, bicubic {expected}");
}

#[test]
fn what_is_uncovered_has_no_ghost() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip { disc: Some([5.0, 0.0]), ..Clip::still(SIZE) };
    let upscaler = upscaler(gpu, SIZE);
    for t in 0..12 {
        let (at, offset) = offset(t);
        let found = upscaler.step(&clip.frame(t, 2, at, None), &[("jitter", &offset)]);
        if t < 6 {
            continue;
        }
        let w = SIZE[1];
        let truth = clip.truth(t);
        let place = |i: usize| [(i % w) as f64 + 0.5, (i / w) as f64 + 0.5];
        // Farther than a coarse pixel from the disc, whose edge that frame does not know better.
        let near = |i: usize| {
            let [x, y] = place(i);
            (0..25).any(|k| clip.covered(t, [x + f64::from(k % 5 - 2), y + f64::from(k / 5 - 2)]))
        };
        let left: Vec<usize> =
            (0..truth.len() / 3).filter(|&i| clip.covered(t - 1, place(i)) && !near(i)).collect();
        assert!(left.len() > 10, "{}", left.len());
        let off = left.iter().flat_map(|&i| 3 * i..3 * i + 3).map(|i| (found[i] - truth[i]).abs());
        let off = f64::from(off.sum::<f32>()) / (3 * left.len()) as f64;
        println!("frame {t}: off by {off:.4} in {} pixels", left.len());
        // The disc is half a unit brighter than the wall.
        assert!(off < 0.08, "{off}");
    }
}

#[test]
fn reset_forgets_to_the_last_bit() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip { wall: [1.3, 0.7], disc: Some([-0.8, 0.4]), ..Clip::still(SIZE) };
    let step = |sequence: &Sequence, t: usize, reset: f32| {
        let (at, offset) = offset(t);
        sequence.step(&clip.frame(t, 2, at, None), &[("jitter", &offset), ("reset", &number(reset))])
    };
    let (used, fresh) = (upscaler(gpu, SIZE), upscaler(gpu, SIZE));
    for t in 0..4 {
        step(&used, t, 0.0);
    }
    assert_same(&step(&used, 4, -3.0), &step(&fresh, 4, 0.0));
    for ((name, found), (_, expected)) in used.states().iter().zip(&fresh.states()) {
        println!("{name}");
        assert_same(found, expected);
    }
    assert_same(&step(&used, 5, 0.0), &step(&fresh, 5, 0.0));
}

#[test]
fn no_nan_stays_and_sizes_are_any() {
    let Some(gpu) = gpu() else { return };
    for size in [[2, 2], [2, 38], [46, 4], [34, 66]] {
        let clip = Clip { wall: [0.4, 0.1], ..Clip::still(size) };
        let sequence = upscaler(gpu, size);
        let (at, offset) = offset(1);
        let frame = clip.frame(1, 2, at, None);
        for bad in BAD {
            sequence.fill_states(bad);
            let found = sequence.step(&frame, &[("jitter", &offset), ("reset", &number(0.0))]);
            assert!(found.iter().all(|v| v.is_finite()), "states of {bad}, {size:?}");
            let more = Tensor::from_f32([2], &[bad; 2]);
            let found =
                sequence.step(&mess(size.map(|n| n / 2)), &[("jitter", &more), ("reset", &number(bad))]);
            assert!(found.iter().all(|v| v.is_finite()), "a mess with {bad}, {size:?}");
            assert!(sequence.states().iter().all(|(_, values)| values.iter().all(|v| v.is_finite())));
        }
        let found = sequence.step(&frame, &[("jitter", &offset), ("reset", &number(1.0))]);
        let expected = upscaler(gpu, size).step(&frame, &[("jitter", &offset), ("reset", &number(0.0))]);
        assert_same(&found, &expected);
        assert!(found.iter().all(|v| (-0.1..1.1).contains(v)), "{size:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (w, h, frames) in [(0, 4, 8), (4, 0, 8), (4, 4, 0)] {
        let error = temporal_upscale(w, h, frames).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    let graph = temporal_upscale(1920, 1080, FRAMES).unwrap();
    aquatint::Plan::compile(&graph, &aquatint::Target::typical()).unwrap();
}
