//! How often a verdict is right, counted over simulated pairs of runs. The figures are those of docs/benchmark.md.

use aquatint::bench::compare::{CompareOptions, Outcome, compare};
use aquatint::bench::record::{Results, Status};
use aquatint::bench::synthetic::{Device, Noise, results, slow_down};

/// Parts of the verdicts over at least a thousand pairs of rows.
#[derive(Debug, Default)]
struct Rates {
    pairs: usize,
    faster: f64,
    same: f64,
    slower: f64,
    ambiguous: f64,
}

impl Rates {
    fn of(outcomes: &[Outcome]) -> Rates {
        let part = |wanted| outcomes.iter().filter(|&&o| o == wanted).count() as f64 / outcomes.len() as f64;
        Rates {
            pairs: outcomes.len(),
            faster: part(Outcome::Faster),
            same: part(Outcome::Same),
            slower: part(Outcome::Slower),
            ambiguous: part(Outcome::Ambiguous),
        }
    }

    fn print(&self, what: &str) {
        let [faster, same, slower, ambiguous] =
            [self.faster, self.same, self.slower, self.ambiguous].map(|p| 100.0 * p);
        println!(
            "| {what} | {} | {faster:.1} % | {same:.1} % | {slower:.1} % | {ambiguous:.1} % |",
            self.pairs
        );
    }
}

/// Pairs of runs in which every fourth row of the second takes `factor` times as long; outcomes of these rows and of the
/// others.
fn simulate(noise: Noise, factor: f64, seed: u64) -> (Rates, Rates) {
    let (mut shifted, mut others) = (Vec::new(), Vec::new());
    for pair in 0.. {
        let run = |side: u64| results(Device::Discrete, seed + 2 * pair + side, noise);
        let (a, mut b) = (run(0), run(1));
        let mut ids = Vec::new();
        for row in b.rows.iter_mut().skip(pair as usize % 4).step_by(4) {
            slow_down(row, factor);
            ids.push(row.id.clone());
        }
        for row in compare(&a, &b, &CompareOptions::default()).rows {
            if row.judgement.is_some() && row.baseline.status == Some(Status::Ok) {
                if ids.contains(&row.id) { &mut shifted } else { &mut others }.push(row.outcome);
            }
        }
        if shifted.len() >= 1000 {
            break;
        }
    }
    (Rates::of(&shifted), Rates::of(&others))
}

#[test]
fn the_same_twice_is_the_same() {
    // Percent that a row differs by between processes, and the least part that must be found the same.
    for (process, least) in [(0.005, 0.98), (0.01, 0.95), (0.015, 0.95), (0.02, 0.93)] {
        let (rates, _) = simulate(Noise { process, ..Noise::default() }, 1.0, 1000);
        rates.print(&format!("no change, rows differ by {} % between processes", 100.0 * process));
        assert!(rates.same >= least, "{rates:?}");
        assert!(rates.faster.max(rates.slower) <= 0.02, "{rates:?}");
    }
}

#[test]
fn changes_are_found_and_not_turned_round() {
    for (shift, least) in [(0.05, 0.3), (0.10, 0.97), (-0.05, 0.3), (-0.10, 0.97)] {
        let (rates, others) = simulate(Noise::default(), 1.0 + shift, 50_000);
        let way = if shift > 0.0 { "slower" } else { "faster" };
        rates.print(&format!("{:.0} % {way}", 100.0 * f64::abs(shift)));
        others.print("the rows beside them");
        let (right, wrong) =
            if shift > 0.0 { (rates.slower, rates.faster) } else { (rates.faster, rates.slower) };
        assert!(right >= least, "{shift}: {rates:?}");
        assert_eq!(wrong, 0.0, "{shift}: {rates:?}");
        let missed = if shift.abs() < 0.1 { 0.45 } else { 0.01 };
        assert!(rates.same <= missed, "{shift}: {rates:?}");
        assert!(others.faster.max(others.slower) <= 0.01, "{shift}: {others:?}");
        assert!(others.same >= 0.95, "{shift}: {others:?}");
    }
}

/// On a machine whose rows differ by half a percent between processes, a twentieth is found too.
#[test]
fn small_changes_are_found_where_it_is_quiet() {
    let quiet = Noise { process: 0.005, scatter: 0.01, ..Noise::default() };
    for shift in [0.05, -0.05] {
        let (rates, others) = simulate(quiet, 1.0 + shift, 150_000);
        let way = if shift > 0.0 { "slower" } else { "faster" };
        rates.print(&format!("5 % {way}, rows differ by 0.5 % between processes, samples by 1 %"));
        let right = if shift > 0.0 { rates.slower } else { rates.faster };
        assert!(right >= 0.85 && rates.same <= 0.03, "{shift}: {rates:?}");
        assert!(others.same >= 0.98, "{others:?}");
    }
}

/// Noise that no interval knows of: many outliers, wide scatter, strong drift.
#[test]
fn loud_noise_makes_verdicts_rarer_and_not_wrong() {
    for (what, noise) in [
        ("outliers in 20 %", Noise { outliers: 0.2, ..Noise::default() }),
        ("samples scatter by 10 %", Noise { scatter: 0.1, ..Noise::default() }),
        ("drift of up to 6 %", Noise { drift: 0.06, ..Noise::default() }),
    ] {
        let (rates, _) = simulate(noise, 1.0, 90_000);
        rates.print(&format!("no change, {what}"));
        assert!(rates.faster.max(rates.slower) <= 0.01, "{what}: {rates:?}");
        let (rates, _) = simulate(noise, 1.10, 120_000);
        rates.print(&format!("10 % slower, {what}"));
        assert_eq!(rates.faster, 0.0, "{what}: {rates:?}");
        assert!(rates.same <= 0.05, "{what}: {rates:?}");
    }
}

/// Half of all visits are slowed down by up to four fifths, as on a host that others share. Medians then say little; what two
/// visits reach undisturbed says the rest.
#[test]
fn disturbed_visits_leave_their_floors() {
    let noise = Noise { disturbed: 0.5, ..Noise::default() };
    let (rates, _) = simulate(noise, 1.0, 200_000);
    rates.print("no change, half of the visits disturbed");
    assert!(rates.same >= 0.7, "{rates:?}");
    assert!(rates.faster.max(rates.slower) <= 0.01, "{rates:?}");
    for factor in [1.2, 1.0 / 1.2] {
        let (rates, others) = simulate(noise, factor, 250_000);
        let way = if factor > 1.0 { "slower" } else { "faster" };
        rates.print(&format!("by a factor of 1.2 {way}, half of the visits disturbed"));
        let (right, wrong) =
            if factor > 1.0 { (rates.slower, rates.faster) } else { (rates.faster, rates.slower) };
        assert!(right >= 0.6 && wrong <= 0.005 && rates.same <= 0.01, "{rates:?}");
        assert!(others.faster.max(others.slower) <= 0.01, "{others:?}");
    }
}

/// A device that runs slower by a tenth, canary and all, has not made any row slower; without the canary it would have.
#[test]
fn a_slower_clock_is_not_a_regression() {
    let slow = |canary: bool| -> Vec<Outcome> {
        let a = results(Device::Discrete, 1, Noise::default());
        let mut b: Results = results(Device::Discrete, 2, Noise::default());
        b.rows.iter_mut().for_each(|row| slow_down(row, 1.1));
        if canary {
            b.canary.iter_mut().for_each(|c| c.seconds *= 1.1);
        }
        let compared = compare(&a, &b, &CompareOptions::default());
        compared.rows.iter().filter(|r| r.judgement.is_some()).map(|r| r.outcome).collect()
    };
    let (with, without) = (Rates::of(&slow(true)), Rates::of(&slow(false)));
    with.print("10 % slower, and so is the canary");
    without.print("10 % slower, and the canary is not");
    assert!(with.slower <= 0.05 && with.ambiguous >= 0.9, "{with:?}");
    assert!(without.slower >= 0.9, "{without:?}");
}
