//! Made-up clips of which everything is known: a patterned wall that goes by, and before it a disc that goes another way.

use aquatint::Tensor;

/// Places are in fine pixels: those of the picture that a clip should look like.
#[derive(Clone, Copy)]
pub struct Clip {
    /// Height and width in fine pixels.
    pub size: [usize; 2],
    /// How far the wall goes in a frame.
    pub wall: [f64; 2],
    /// How far the disc goes in a frame, if there is one.
    pub disc: Option<[f64; 2]>,
}

/// What a pixel shows: its colour, where that was in the frame before, and how far it is.
pub struct Point {
    pub colour: [f64; 3],
    pub motion: [f64; 2],
    pub depth: f64,
}

/// What a renderer hands over, a tensor each.
pub struct Frame {
    pub color: Tensor,
    pub albedo: Tensor,
    pub normal: Tensor,
    pub motion: Tensor,
    pub depth: Tensor,
}

const WALL: f64 = 8.0;
const DISC: f64 = 4.0;

impl Clip {
    pub fn still(size: [usize; 2]) -> Clip {
        Clip { size, wall: [0.0; 2], disc: None }
    }

    fn centre(&self, frame: usize) -> Option<[f64; 2]> {
        let [h, w] = self.size.map(|n| n as f64);
        self.disc.map(|[x, y]| [0.3 * w + x * frame as f64, 0.5 * h + y * frame as f64])
    }

    /// Whether the disc covers a place.
    pub fn covered(&self, frame: usize, [x, y]: [f64; 2]) -> bool {
        let radius = 0.2 * self.size[0] as f64;
        self.centre(frame).is_some_and(|[cx, cy]| (x - cx).hypot(y - cy) < radius)
    }

    pub fn at(&self, frame: usize, [x, y]: [f64; 2]) -> Point {
        let against = |v: [f64; 2]| v.map(|v| -v);
        if let Some(velocity) = self.disc.filter(|_| self.covered(frame, [x, y])) {
            let [cx, _] = self.centre(frame).unwrap();
            let colour = [0.9 - 0.3 * ((x - cx) * 0.5).cos(), 0.8, 0.1];
            return Point { colour, motion: against(velocity), depth: DISC };
        }
        let t = frame as f64;
        let (u, v) = (x - self.wall[0] * t, y - self.wall[1] * t);
        let tile = ((u / 6.0).floor() + (v / 5.0).floor()).rem_euclid(2.0);
        let colour = [
            0.35 + 0.2 * (0.35 * u).sin() * (0.3 * v).sin() + 0.15 * (1.3 * u + 0.6 * v).sin() + 0.15 * tile,
            0.3 + 0.2 * (0.12 * u + 1.0).sin() + 0.1 * (1.1 * v).sin(),
            0.3 + 0.2 * (0.2 * v + 0.1 * u).cos(),
        ];
        Point { colour, motion: against(self.wall), depth: WALL }
    }

    /// Each fine pixel's mean, of 4×4 points in it.
    pub fn truth(&self, frame: usize) -> Vec<f32> {
        let [h, w] = self.size;
        let mut values = Vec::with_capacity(3 * h * w);
        for i in 0..h * w {
            let (x, y) = ((i % w) as f64, (i / w) as f64);
            let mut sum = [0.0; 3];
            for k in 0..16 {
                let place = [x + (f64::from(k % 4) + 0.5) / 4.0, y + (f64::from(k / 4) + 0.5) / 4.0];
                let point = self.at(frame, place);
                sum.iter_mut().zip(point.colour).for_each(|(sum, c)| *sum += c / 16.0);
            }
            values.extend(sum.map(|c| c as f32));
        }
        values
    }

    /// A frame of pixels of `side` fine ones: each a point `jitter` pixels off its middle, with a seed lit as a path or two
    /// would find it: in the mean as it should be.
    pub fn frame(&self, frame: usize, side: usize, jitter: [f32; 2], noise: Option<u64>) -> Frame {
        let [h, w] = self.size.map(|n| n / side);
        let s = side as f64;
        let points: Vec<Point> = (0..h * w)
            .map(|i| {
                let at = |i: usize, jitter: f32| s * (i as f64 + 0.5 + f64::from(jitter));
                self.at(frame, [at(i % w, jitter[0]), at(i / w, jitter[1])])
            })
            .collect();
        let light: Vec<f64> = match noise {
            None => vec![1.0; h * w],
            Some(seed) => {
                let mut dice = Dice(seed.wrapping_mul(0x9e37) + frame as u64 * 7919);
                (0..h * w).map(|_| -dice.next().max(1e-9).ln()).collect()
            }
        };
        let tensor = |c: usize, of: &dyn Fn(usize) -> Vec<f64>| {
            let values: Vec<f32> = (0..h * w).flat_map(of).map(|v| v as f32).collect();
            Tensor::from_f32([1, h, w, c], &values)
        };
        Frame {
            color: tensor(3, &|i| points[i].colour.map(|c| c * light[i]).into()),
            albedo: tensor(3, &|i| points[i].colour.into()),
            normal: tensor(3, &|_| vec![0.0, 0.0, 1.0]),
            motion: tensor(3, &|i| vec![points[i].motion[0] / s, points[i].motion[1] / s, 0.0]),
            depth: tensor(1, &|i| vec![points[i].depth]),
        }
    }
}

/// SplitMix64, from 0 to 1.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub fn squares(found: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(found.len(), truth.len());
    let sum: f64 = found.iter().zip(truth).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    sum / found.len() as f64
}

/// Of numbers from 0 to 1, in dB.
pub fn psnr(found: &[f32], truth: &[f32]) -> f64 {
    -10.0 * squares(found, truth).log10()
}

/// How much more a picture changes than it should: the mean distance of its change from that of the truth.
pub fn flicker(found: [&[f32]; 2], truth: [&[f32]; 2]) -> f64 {
    let change = |of: [&[f32]; 2], i: usize| f64::from(of[1][i] - of[0][i]);
    let n = truth[0].len();
    (0..n).map(|i| (change(found, i) - change(truth, i)).abs()).sum::<f64>() / n as f64
}
