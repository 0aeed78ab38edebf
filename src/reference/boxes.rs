//! Which boxes of a detector are left.

use super::approx::{Approx, U};
use super::{Element, Task, Values};
use crate::ops::best_boxes::{BOX, BestBoxes, Classes};
use crate::ops::suppress::Suppress;

/// Intersection over union of left, top, right, bottom.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |b: [f64; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    if shared == 0.0 { 0.0 } else { shared / (area(a) + area(b) - shared).max(1e-12) }
}

/// Whether two boxes overlap by more than the threshold; none where rounding decides.
fn covers(a: [f64; 4], b: [f64; 4], threshold: f64) -> Option<bool> {
    let found = overlap(a, b);
    // Areas are differences of edges, which may be far larger than they.
    let size = a.iter().chain(&b).fold(0f64, |m, x| m.max(x.abs()));
    let sides = [a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]].map(f64::abs);
    let least = sides.into_iter().fold(f64::INFINITY, f64::min).max(1e-30);
    let off = 16.0 * U * (1.0 + size / least);
    // Whole numbers and halves are exact in f32.
    let exact = a.iter().chain(&b).all(|x| (x * 2.0).fract() == 0.0 && x.abs() < 512.0) && found != threshold;
    match (found - threshold).abs() > off || exact || found == 0.0 {
        true => Some(found > threshold),
        false => None,
    }
}

struct Candidate {
    score: f64,
    class: usize,
    place: usize,
}

/// Greedy choice of at most `keep` in the order given; and from which on rounding decides, if it does.
fn choose(
    candidates: Vec<Candidate>,
    keep: usize,
    edges: impl Fn(usize) -> [f64; 4],
    threshold: f64,
    across: bool,
) -> (Vec<Candidate>, usize) {
    let (mut kept, mut decided): (Vec<Candidate>, usize) = (Vec::new(), usize::MAX);
    for candidate in candidates {
        if kept.len() == keep {
            break;
        }
        let (mut gone, mut doubt) = (false, false);
        for better in kept.iter().filter(|b| across || b.class == candidate.class) {
            match covers(edges(candidate.place), edges(better.place), threshold) {
                Some(covered) => gone |= covered,
                None => doubt = true,
            }
        }
        if doubt && !gone {
            decided = decided.min(kept.len());
        }
        if !gone {
            kept.push(candidate);
        }
    }
    (kept, decided)
}

pub fn best_boxes<'v>(op: &'v BestBoxes, task: &Task<'_, 'v>) -> Element<'v> {
    let (boxes, scores) = (task.inputs[0], task.inputs[1]);
    let [n, count, classes] = [0, 1, 2].map(|d| task.shape(1)[d]);
    let s = op.selection;
    let edges = |place: usize| [0, 1, 2, 3].map(|k| boxes.at(place * 4 + k));
    let pictures: Vec<(Vec<Candidate>, usize)> = (0..n)
        .map(|picture| {
            let first = usize::from(s.background);
            let mut all: Vec<Candidate> = Vec::new();
            for place in picture * count..(picture + 1) * count {
                let score = |class: usize| scores.at(place * classes + class);
                match s.classes {
                    Classes::Best => {
                        let best =
                            (first + 1..classes).fold(first, |b, k| if score(k) > score(b) { k } else { b });
                        all.push(Candidate { score: score(best), class: best, place });
                    }
                    Classes::Each(_) => {
                        all.extend((first..classes).map(|class| Candidate {
                            score: score(class),
                            class,
                            place,
                        }));
                    }
                }
            }
            all.retain(|c| c.score >= f64::from(s.least));
            match s.classes {
                Classes::Best => all.sort_by(|a, b| b.score.total_cmp(&a.score)),
                // Of equals, classes come in order.
                Classes::Each(_) => {
                    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)));
                }
            }
            if let Classes::Each(most) = s.classes {
                let mut seen = vec![0; classes];
                all.retain(|c| {
                    seen[c.class] += 1;
                    seen[c.class] <= most
                });
            }
            choose(all, s.keep, edges, f64::from(s.overlap), s.across_classes)
        })
        .collect();
    Box::new(move |i| {
        let (number, row, picture) = (i % BOX, i / BOX % s.keep, i / BOX / s.keep);
        let (kept, decided) = &pictures[picture];
        let value = kept.get(row).map_or(Approx::exact(0.0), |c| match number {
            4 => Approx::exact(c.score),
            5 => Approx::exact(c.class as f64),
            k => {
                let [scale, shift] = op.place[usize::from(k % 2 == 0)].map(f64::from);
                let product = boxes.at(c.place * 4 + k) * scale;
                let most = op.size[usize::from(k % 2 == 0)] as f64;
                let error = 2.0 * U * (product.abs() + shift.abs());
                Approx { value: (product + shift).clamp(0.0, most), error }
            }
        });
        if row >= *decided { Approx::undecided(value.value) } else { value }
    })
}

pub fn suppress<'v>(op: &Suppress, task: &Task<'_, 'v>) -> Element<'v> {
    let (boxes, scores) = (task.inputs[0], task.inputs[1]);
    let [n, classes, count] = [0, 1, 2].map(|d| task.shape(1)[d]);
    let threshold = task.inputs[2].at(0);
    let least = task.inputs.get(3).map_or(f64::NEG_INFINITY, |l: &&Values| l.at(0));
    let mut rows: Vec<[usize; 3]> = Vec::new();
    let mut decided = usize::MAX;
    for list in 0..n * classes {
        let edges = |place: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|k| boxes.at((list / classes * count + place) * 4 + k));
            match op.centre {
                true => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
                false => [a.min(c), b.min(d), a.max(c), b.max(d)],
            }
        };
        let of = |place: usize| Candidate { score: scores.at(list * count + place), class: 0, place };
        let mut all: Vec<Candidate> = (0..count).map(of).filter(|c| c.score > least).collect();
        // Two zeros are equals.
        all.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(std::cmp::Ordering::Equal));
        let (kept, sure) = choose(all, op.most, edges, threshold, true);
        decided = decided.min(rows.len().saturating_add(sure));
        rows.extend(kept.into_iter().map(|c| [list / classes, list % classes, c.place]));
    }
    Box::new(move |i| {
        let value = match i / 3 {
            0 => [rows.len(), 0, 0][i % 3],
            row => rows.get(row - 1).map_or(0, |r| r[i % 3]),
        } as f64;
        let doubtful = decided != usize::MAX && (i == 0 || i / 3 > decided);
        if doubtful { Approx::undecided(value) } else { Approx::exact(value) }
    })
}
