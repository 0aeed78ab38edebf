//! Which tensors may share memory: buffers from lifetimes.

/// When a tensor is alive: from the dispatch that first writes it to the last that touches it, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

impl Lifetime {
    fn overlaps(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A buffer of each size in the first list serves the tensors that the second
/// list sends to it.
///
/// Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep
/// Neural Net Inference", 2020): the largest tensor first, each into the first
/// buffer whose tensors it does not meet. Tensors that one dispatch reads and
/// writes meet in it, so no buffer is ever bound as both.
pub fn assign(tensors: &[Lifetime]) -> (Vec<u64>, Vec<usize>) {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(tensors[i].bytes), tensors[i].first, i));
    let mut sizes = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut assignment = vec![0; tensors.len()];
    for i in order {
        let free = members.iter().position(|m| m.iter().all(|&j| !tensors[i].overlaps(&tensors[j])));
        let buffer = free.unwrap_or_else(|| {
            sizes.push(tensors[i].bytes);
            members.push(Vec::new());
            sizes.len() - 1
        });
        members[buffer].push(i);
        assignment[i] = buffer;
    }
    (sizes, assignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(first: usize, last: usize, bytes: u64) -> Lifetime {
        Lifetime { first, last, bytes }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<_> = (0..10).map(|i| tensor(i, i + 1, 100)).collect();
        let (sizes, assignment) = assign(&chain);
        assert_eq!(sizes, [100, 100]);
        for pair in assignment.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn a_skip_connection_keeps_its_own() {
        let (sizes, assignment) = assign(&[tensor(0, 3, 64), tensor(1, 2, 64), tensor(2, 3, 32)]);
        assert_eq!(sizes.iter().sum::<u64>(), 160);
        assert!(assignment[0] != assignment[1] && assignment[0] != assignment[2]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_alive_at_once_shares(raw in proptest::collection::vec((0usize..40, 0usize..10, 1u64..1000), 1..60)) {
            let tensors: Vec<_> = raw.iter().map(|&(f, d, b)| tensor(f, f + d, b)).collect();
            let (sizes, assignment) = assign(&tensors);
            for i in 0..tensors.len() {
                proptest::prop_assert!(sizes[assignment[i]] >= tensors[i].bytes);
                for j in 0..i {
                    if assignment[i] == assignment[j] {
                        proptest::prop_assert!(!tensors[i].overlaps(&tensors[j]));
                    }
                }
            }
            let live = |t: usize| tensors.iter().filter(|l| l.first <= t && t <= l.last).map(|l| l.bytes).sum::<u64>();
            proptest::prop_assert!(sizes.iter().sum::<u64>() >= (0..60).map(live).max().unwrap());
        }
    }
}
