//! `temporal_denoise` on made-up clips.

use aquatint::models::path_denoise::path_denoise;
use aquatint::models::temporal_denoise::{FRAMES, temporal_denoise};
use aquatint::{DType, Error, Gpu, Plan, Target};

use crate::clip::{Clip, psnr, squares};
use crate::hashed::gpu;
use crate::{BAD, Sequence, assert_same, mess, number};

fn denoiser(gpu: &Gpu, [h, w]: [usize; 2], frames: u32) -> Sequence {
    Sequence::new(gpu, &temporal_denoise(w, h, frames, DType::F32).unwrap())
}

fn alone(gpu: &Gpu, [h, w]: [usize; 2]) -> Sequence {
    Sequence::new(gpu, &path_denoise(w, h, DType::F32).unwrap())
}

const SIZE: [usize; 2] = [40, 56];

/// Colours that are remembered, of nine numbers a pixel.
fn remembered(sequence: &Sequence) -> Vec<f32> {
    let samples = sequence.0.read("history.samples").unwrap().to_f32();
    samples.chunks(9).flat_map(|pixel| pixel[..3].to_vec()).collect()
}

#[test]
fn a_still_scene_is_as_clean_as_all_its_frames_together() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::still(SIZE);
    // Points are what a frame shows; there are no edges within pixels.
    let points: Vec<f32> = clip.frame(0, 1, [0.0; 2], None).color.to_f32();
    let sequence = denoiser(gpu, SIZE, FRAMES);
    let mut first = (0.0, 0.0);
    for n in 1..=16 {
        let found = sequence.step(&clip.frame(n, 1, [0.0; 2], Some(5)), &[]);
        let (noise, error) = (squares(&remembered(&sequence), &points), squares(&found, &points));
        if n == 1 {
            first = (noise, error);
        }
        if [1, 2, 4, 8, 16].contains(&n) {
            println!(
                "{n:2} frames: {:.2} of the noise's share, error {error:.6}",
                noise * n as f64 / first.0
            );
            // The noise of n frames is a part n of one's. What holds the history to the last frames takes some off.
            let share = noise * n as f64 / first.0;
            assert!((0.5..1.25).contains(&share), "{share} after {n} frames");
        }
        if n == 16 {
            assert!(error < first.1 / 2.0, "{error} instead of {}", first.1);
        }
    }
    let counts = sequence.0.read("history.count").unwrap().to_f32();
    assert!(counts.iter().all(|c| (c - 16.0).abs() < 1e-3), "{counts:?}");
}

#[test]
fn what_is_uncovered_has_no_ghost() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip { size: SIZE, wall: [0.0; 2], disc: Some([2.0, 0.0]) };
    let (sequence, alone) = (denoiser(gpu, SIZE, FRAMES), alone(gpu, SIZE));
    let [_, w] = SIZE;
    for t in 0..10 {
        let frame = clip.frame(t, 1, [0.0; 2], None);
        let (found, single) = (sequence.step(&frame, &[]), alone.step(&frame, &[]));
        let truth = frame.color.to_f32();
        if t < 4 {
            continue;
        }
        // Pixels that the disc has left in this frame.
        let place = |i: usize| [(i % w) as f64 + 0.5, (i / w) as f64 + 0.5];
        let left = |i: usize| clip.covered(t - 1, place(i)) && !clip.covered(t, place(i));
        let off = |of: &[f32]| {
            let pixels: Vec<usize> = (0..of.len() / 3).filter(|&i| left(i)).collect();
            assert!(pixels.len() > 10);
            let all = pixels.iter().flat_map(|&i| 3 * i..3 * i + 3).map(|i| (of[i] - truth[i]).abs());
            f64::from(all.sum::<f32>()) / (3 * pixels.len()) as f64
        };
        let (ghost, without) = (off(&found), off(&single));
        println!("frame {t}: off by {ghost:.4}, without a memory {without:.4}");
        assert!(ghost < without + 0.005, "{ghost}, without a memory {without}");
    }
}

#[test]
fn a_moving_picture_is_cleaner_than_its_frames() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip { size: SIZE, wall: [1.3, 0.6], disc: Some([-0.7, 0.4]) };
    let (sequence, alone) = (denoiser(gpu, SIZE, FRAMES), alone(gpu, SIZE));
    let (mut with, mut without) = (0.0, 0.0);
    for t in 0..12 {
        let frame = clip.frame(t, 1, [0.0; 2], Some(3));
        let (found, single) = (sequence.step(&frame, &[]), alone.step(&frame, &[]));
        if t >= 8 {
            let truth = clip.frame(t, 1, [0.0; 2], None).color.to_f32();
            with += psnr(&found, &truth) / 4.0;
            without += psnr(&single, &truth) / 4.0;
        }
    }
    println!("{with:.2} dB, without a memory {without:.2}");
    assert!(with > without + 1.0, "{with} dB, without a memory {without}");
}

#[test]
fn reset_forgets_to_the_last_bit() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip { size: SIZE, wall: [1.3, 0.6], disc: Some([-0.7, 0.4]) };
    let frame = |t: usize| clip.frame(t, 1, [0.0; 2], Some(1));
    let (used, fresh) = (denoiser(gpu, SIZE, FRAMES), denoiser(gpu, SIZE, FRAMES));
    for t in 0..4 {
        used.step(&frame(t), &[("reset", &number(0.0))]);
    }
    let expected = fresh.step(&frame(4), &[("reset", &number(0.0))]);
    assert_same(&used.step(&frame(4), &[("reset", &number(1.0))]), &expected);
    for ((name, found), (_, expected)) in used.states().iter().zip(&fresh.states()) {
        println!("{name}");
        assert_same(found, expected);
    }
    // And on from there.
    let [a, b] = [&used, &fresh].map(|sequence| sequence.step(&frame(5), &[("reset", &number(0.0))]));
    assert_same(&a, &b);
    assert_ne!(a, denoiser(gpu, SIZE, FRAMES).step(&frame(5), &[]));
}

#[test]
fn no_nan_stays() {
    let Some(gpu) = gpu() else { return };
    let size = [19, 22];
    let clip = Clip { size, wall: [0.4, 0.1], disc: None };
    let frame = |t| clip.frame(t, 1, [0.0; 2], Some(2));
    let finite = |values: &[f32], what: &str| {
        let wrong = values.iter().filter(|v| !v.is_finite() || **v < 0.0).count();
        assert_eq!(wrong, 0, "{what}: {wrong} numbers");
    };
    let sequence = denoiser(gpu, size, FRAMES);
    for bad in BAD {
        sequence.fill_states(bad);
        finite(&sequence.step(&frame(0), &[("reset", &number(0.0))]), &format!("states of {bad}"));
        for (name, values) in sequence.states() {
            assert!(values.iter().all(|v| v.is_finite()), "{name} after {bad}");
        }
    }
    for bad in BAD {
        finite(&sequence.step(&mess(size), &[("reset", &number(bad))]), "a mess");
    }
    // After a cut nothing of it is left.
    let found = sequence.step(&frame(1), &[("reset", &number(1.0))]);
    assert_same(&found, &denoiser(gpu, size, FRAMES).step(&frame(1), &[]));
}

#[test]
fn frames_of_any_size_go_on() {
    let Some(gpu) = gpu() else { return };
    for size in [[1, 1], [1, 19], [23, 2], [16, 16], [17, 33]] {
        let sequence = denoiser(gpu, size, FRAMES);
        let clip = Clip { size, wall: [0.3, 0.2], disc: None };
        for t in 0..3 {
            let found = sequence.step(&clip.frame(t, 1, [0.0; 2], None), &[]);
            assert_eq!(found.len(), 3 * size[0] * size[1]);
            assert!(found.iter().all(|v| (0.0..4.0).contains(v)), "{size:?}: {found:?}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for ([w, h], frames, says) in [
        ([0, 4], 8, "at least one pixel"),
        ([4, 0], 8, "at least one pixel"),
        ([4, 4], 0, "1 to 1024"),
        ([4, 4], 1025, "1 to 1024"),
    ] {
        let error = temporal_denoise(w, h, frames, DType::F32).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let graph = temporal_denoise(1920, 1080, FRAMES, DType::F32).unwrap();
    let plan = Plan::compile(&graph, &Target::typical()).unwrap();
    println!("full HD: {} MB of states and results", plan.resident_bytes() / 1_000_000);
}
