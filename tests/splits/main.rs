//! However work is split, between launches, submissions, tiles, buffers, kernels, devices and runs, the answer is the same: to
//! the bit where the arithmetic is, and within what rounding explains where it is not. docs/reliability.md has the table.

mod subjects;
mod ways;

use aquatint::cache::Cache;
use aquatint::ops::Operator;
use aquatint::{AdapterOptions, Error, Gpu, Graph, Network, Result, Source, Tensor, ValueId};

use subjects::subjects;
use ways::{Answer, Held, WAYS, answer, same};

/// A device of one's own, or `None` (said aloud) on a machine without one, unless `REQUIRE_GPU` is set.
fn open(cache: &Cache) -> Option<Gpu> {
    match Gpu::with_options(&AdapterOptions { cache: cache.clone(), ..AdapterOptions::from_env() }) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter { .. }) if std::env::var_os("REQUIRE_GPU").is_none() => {
            eprintln!("SKIPPED: no adapter; set REQUIRE_GPU=1 to fail instead");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The largest difference as a share of the largest number of its tensor; infinite where one is no number and the other is.
fn difference(found: &[Tensor], wanted: &[Tensor]) -> f64 {
    let of = |(found, wanted): (&Tensor, &Tensor)| {
        assert_eq!(found.desc.shape, wanted.desc.shape);
        let (found, wanted) = (found.to_f32(), wanted.to_f32());
        let largest = wanted.iter().fold(0f32, |most, x| most.max(x.abs()));
        let off = found.iter().zip(&wanted).map(|(f, w)| if f == w { 0.0 } else { (f - w).abs() });
        let worst = off.fold(0f32, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x) });
        f64::from(worst) / f64::from(largest.max(f32::MIN_POSITIVE))
    };
    found.iter().zip(wanted).map(of).fold(0.0, f64::max)
}

/// What other orders of sums may make of the results, as a share of their range: of each operation 6 √n units of roundoff for
/// its sums of n products (Higham and Mary 2019, with λ = 6), one for what has none, and no operation makes of an error of
/// its input more than four times as much, over all of them together.
fn bound(graph: &Graph) -> f64 {
    let of = |(_, value): (ValueId, &aquatint::Value)| match &value.source {
        Source::Op { op, inputs } => {
            let inputs: Vec<_> = inputs.iter().map(|&i| graph.desc(i)).collect();
            let terms =
                op.flops(&inputs, &value.desc) as f64 / value.desc.shape.elements().max(1) as f64 / 2.0;
            6.0 * terms.max(1.0).sqrt()
        }
        _ => 0.0,
    };
    4.0 * f64::from(f32::EPSILON) / 2.0 * graph.values().map(of).sum::<f64>()
}

#[test]
fn the_answer_is_the_same_however_work_is_split() -> Result<()> {
    let Some(gpu) = open(&Cache::off()) else { return Ok(()) };
    let subjects = subjects();
    let wanted: Vec<Answer> =
        subjects.iter().map(|s| answer(Network::new(&gpu, &(s.graph)(1)?)?, 1)).collect::<Result<_>>()?;
    let bounds: Vec<f64> = subjects.iter().map(|s| Ok(bound(&(s.graph)(1)?))).collect::<Result<_>>()?;
    for (subject, wanted) in subjects.iter().zip(&wanted) {
        let floats = wanted.iter().filter(|tensor| tensor.desc.dtype.is_float());
        let all: Vec<f32> = floats.flat_map(Tensor::to_f32).collect();
        assert!(all.iter().all(|x| x.is_finite()) && all.iter().any(|&x| x != 0.0), "{}", subject.name);
    }
    let mut failures = Vec::new();
    println!("figure splits: | way | networks | held to | largest difference | why |");
    println!("figure splits: |---|---|---|---|---|");
    for way in &WAYS {
        let (mut networks, mut equal, mut worst, mut share) = (0, 0, 0f64, 0f64);
        let start = std::time::Instant::now();
        for ((subject, wanted), bound) in subjects.iter().zip(&wanted).zip(&bounds) {
            let found = (way.compute)(&gpu, subject)
                .unwrap_or_else(|e| panic!("{}, {}: {e}", way.name, subject.name));
            let Some(found) = found else { continue };
            networks += 1;
            let (bits, off) = (same(&found, wanted), difference(&found, wanted));
            equal += usize::from(bits);
            (worst, share) = (worst.max(off), share.max(off / bound));
            match way.held.on(&gpu) {
                Held::Bits if !bits => {
                    failures.push(format!("{}, {}: {off:.1e} off", way.name, subject.name))
                }
                Held::Sums if off.is_nan() || off > *bound => {
                    failures
                        .push(format!("{}, {}: {off:.1e} off, {bound:.1e} allowed", way.name, subject.name));
                }
                _ => {}
            }
        }
        let (held, found) = match way.held.on(&gpu) {
            Held::Bits => ("the same bits".to_owned(), "none".to_owned()),
            Held::Sums | Held::Compiled => (
                "the bound".to_owned(),
                format!("{worst:.1e}, {:.0} % of the bound; {equal} the same bits", 100.0 * share),
            ),
        };
        println!("figure splits: | {} | {networks} | {held} | {found} | {} |", way.name, way.why);
        println!("{}: {:.1} s", way.name, start.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}
