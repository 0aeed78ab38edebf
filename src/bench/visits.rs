//! Which visits of a row count: not those during which something slowed the machine down.
//!
//! Another tenant of a host, a job in the background or a clock that falls only ever make slower, and not one row alone: the canary
//! next to a visit shows it too. What is slow while the canary is not is the row's own.

use super::record::Visit;

/// Part by which both must be slower than at the best visit, for it to be more than scatter.
const NOTICEABLE: f64 = 0.1;

/// Marks the visits that count: all but those that were slower than the fastest by more than a tenth, while the canary was
/// slower than round that one by more than a tenth.
pub(super) fn count(visits: &mut [Visit]) {
    let fastest = visits.iter().min_by(|a, b| a.median.total_cmp(&b.median));
    let Some((median, canary)) = fastest.map(|visit| (visit.median, visit.canary)) else { return };
    let slower = |time: f64, than: f64| time > (1.0 + NOTICEABLE) * than;
    for visit in visits {
        let canary_too = visit.canary.zip(canary).is_some_and(|(canary, best)| slower(canary, best));
        visit.counts = !(canary_too && slower(visit.median, median));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(visits: &[(f64, f64)]) -> Vec<bool> {
        let visit = |&(median, canary)| Visit {
            at: 0.0,
            samples: 9,
            median,
            fastest: median,
            canary: (canary > 0.0).then_some(canary),
            counts: true,
            set_aside: Vec::new(),
        };
        let mut visits: Vec<Visit> = visits.iter().map(visit).collect();
        count(&mut visits);
        visits.iter().map(|visit| visit.counts).collect()
    }

    #[test]
    fn what_slows_row_and_canary_down_does_not_count() {
        assert_eq!(counted(&[(1.0, 10.0), (1.4, 14.0), (1.02, 10.1)]), [true, false, true]);
        assert_eq!(counted(&[(1.5, 14.0), (1.4, 14.0), (1.0, 10.0)]), [false, false, true]);
    }

    #[test]
    fn what_is_slow_by_itself_counts() {
        // A row with two peaks, and a canary that something else met.
        assert_eq!(counted(&[(1.0, 10.0), (1.4, 10.1), (1.05, 20.0)]), [true; 3]);
        assert_eq!(counted(&[(1.0, 10.0)]), [true]);
        assert_eq!(counted(&[(1.0, 10.0), (1.3, 0.0)]), [true; 2]);
        assert!(counted(&[]).is_empty());
    }
}
