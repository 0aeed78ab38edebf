//! A side of a picture in tiles of one length.

/// How far a network looks along a side, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub length: usize,
    /// Tiles begin at multiples of it, and are as long as the whole but for such a multiple.
    pub period: usize,
    /// Pixels at the beginning of a tile that are not those of the whole picture, a multiple of the period; and at its end.
    pub before: usize,
    pub after: usize,
}

/// A part of a side that goes through the network, and what of its result is kept; pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub start: usize,
    pub keep: [usize; 2],
}

impl Side {
    /// Tiles of `length` that cover the side, if there can be any.
    pub fn tiles(&self, length: usize) -> Option<Vec<Tile>> {
        if length >= self.length {
            return (length == self.length).then(|| vec![Tile { start: 0, keep: [0, self.length] }]);
        }
        let rest = self.length - length;
        let step = length.checked_sub(self.before + self.after)? / self.period * self.period;
        if step == 0 || !rest.is_multiple_of(self.period) {
            return None;
        }
        let starts: Vec<usize> = (0..=rest.div_ceil(step)).map(|i| (i * step).min(rest)).collect();
        let tile = |(i, &start): (usize, &usize)| {
            let from = if i == 0 { 0 } else { start + self.before };
            let until = starts.get(i + 1).map_or(self.length, |next| next + self.before);
            Tile { start, keep: [from, until] }
        };
        Some(starts.iter().enumerate().map(tile).collect())
    }

    /// Lengths of tiles that are worth a try with how many there are of each: for each number the least length, the longest
    /// first.
    pub fn lengths(&self) -> Vec<(usize, usize)> {
        let base = self.length % self.period;
        let periods = self.length / self.period;
        // Of `k` periods and the base, all but so many are new in a tile.
        let lost = (self.before + self.after).saturating_sub(base).div_ceil(self.period);
        let mut lengths = vec![(self.length, 1)];
        let mut shortest = periods;
        for count in 2.. {
            let k = (periods + (count - 1) * lost).div_ceil(count).max(lost + 1);
            if k >= periods {
                break;
            }
            if k < shortest {
                shortest = k;
                lengths.push((base + k * self.period, count));
            }
            if k == lost + 1 {
                break;
            }
        }
        // Counted anew: the shortest may need more, or fewer do.
        lengths.into_iter().filter_map(|(length, _)| Some((length, self.tiles(length)?.len()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_kept_once_with_what_it_looks_at() {
        for (length, period, before, after) in [
            (1, 4, 12, 9),
            (1080, 16, 112, 97),
            (1083, 16, 112, 97),
            (333, 4, 12, 9),
            (8192, 64, 192, 170),
            (97, 3, 0, 0),
            (64, 8, 0, 11),
            (130, 2, 64, 64),
        ] {
            let side = Side { length, period, before, after };
            let lengths = side.lengths();
            assert_eq!(lengths[0], (length, 1));
            assert!(lengths.windows(2).all(|pair| pair[0].0 > pair[1].0), "{lengths:?}");
            for (tile, count) in lengths {
                let tiles = side.tiles(tile).unwrap();
                assert_eq!(tiles.len(), count);
                let mut kept = 0;
                for part in &tiles {
                    let ([from, until], end) = (part.keep, part.start + tile);
                    assert_eq!(from, kept);
                    assert!(from < until, "{part:?}");
                    assert!(part.start % period == 0 && end <= length && (length - end) % period == 0);
                    assert!(part.start == 0 || part.start + before <= from, "{part:?}");
                    assert!(end == length || until + after <= end, "{part:?}, {tile}");
                    kept = until;
                }
                assert_eq!(kept, length);
            }
        }
    }

    #[test]
    fn what_is_too_short_is_none() {
        let side = Side { length: 100, period: 4, before: 12, after: 9 };
        assert!(side.tiles(20).is_none() && side.tiles(24).is_none() && side.tiles(30).is_none());
        assert!(side.tiles(28).is_some() && side.tiles(104).is_none());
    }
}
