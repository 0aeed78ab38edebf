//! What a 3×3 convolution costs a GPU plain and Winograd's way, by a model: which of them is taken where nothing was measured.
//!
//! Costs are counted in operations that the device could do in the time if it did nothing else: those that are done, over the
//! share of the peak that the kernel reaches; bytes, at what it could do while it moves one; launches. Shares and launches are
//! an NVIDIA H200's. Bytes are dear on purpose: that device does 15 operations in the time of one, most do 25 to 40, and the
//! way is to be taken only where it is quicker on nearly all.

use super::Conv2d;
use super::shared::{self, Shared};
use super::winograd::Squares;
use crate::ops::matmul;
use crate::ops::waves::units;
use crate::target::Target;
use crate::tensor::TensorDesc;

/// Operations in the time of a byte.
const PER_BYTE: f64 = 40.0;

/// What a launch costs, for each of the workgroups that keep a device busy: 5 µs.
const LAUNCH: f64 = (1 << 21) as f64;

/// Tiles of the products at the points, and what share of the peak large products reach with them: 40, 37, 36 and 30 of 63 TFLOP/s.
const PRODUCTS: [(Shared, f64); 4] =
    [(matmul::SHARED[0], 0.63), (shared::TILES[0], 0.58), (shared::TILES[1], 0.56), (matmul::SHARED[1], 0.48)];

impl Conv2d {
    /// As one product in workgroup memory, with the tile that is chosen or, if the model thinks better of it, another.
    pub(super) fn plain_on_gpu(&self, target: &Target, output: &TensorDesc) -> Option<usize> {
        let pixels: usize = self.extent(output).iter().product();
        let cost = |tile: Shared| {
            let workgroups = tile.count(pixels, self.c_out) * tile.parts;
            let steps = self.steps(tile.depth).div_ceil(tile.parts);
            let launches = if tile.parts > 1 { 2 } else { 1 };
            (of_products(target, tile, workgroups, steps) / tile.share() + of_launches(target, launches)) as usize
        };
        let others = shared::TILES.into_iter().filter(|tile| tile.fits(target));
        self.choose_shared(target, output).into_iter().chain(others).map(cost).min()
    }

    /// Winograd's way, with the tile of the products that suits it best; none if the device can take none.
    pub(super) fn winograd_of_gpu(
        &self,
        squares: Squares,
        target: &Target,
        output: &TensorDesc,
    ) -> Option<(Shared, usize)> {
        let [count, band] = self.squares_in_bands(squares, target, output);
        let (bands, area) = (count.div_ceil(band), squares.area());
        let bytes = |numbers: usize| PER_BYTE * (numbers * size_of::<f32>()) as f64;
        let at_points = bytes(area * count * (self.c_in + self.c_out));
        let weight = bytes(bands * area * self.c_in * self.c_out);
        let pixels: usize = output.shape[..3].iter().product();
        // Pixels that squares have in common are read once: neighbours find them in a cache.
        let outside = bytes(pixels * (self.c_in + self.c_out));
        let cost = |(tile, share): (Shared, f64)| {
            let workgroups = area * tile.count(band, self.c_out);
            let steps = self.c_in.div_ceil(tile.depth);
            let products = bands as f64 * of_products(target, tile, workgroups, steps) / share;
            // What products read and write, they do while they multiply.
            let cost = at_points + outside + products.max(at_points + weight) + of_launches(target, 3 * bands);
            (tile, cost as usize)
        };
        products(target).map(cost).min_by_key(|(_, cost)| *cost)
    }
}

/// Tiles of the products at the points that the device can take, and the share of the peak that they reach.
pub(super) fn products(target: &Target) -> impl Iterator<Item = (Shared, f64)> {
    PRODUCTS.into_iter().filter(|(tile, _)| tile.fits(target))
}

/// Of so many workgroups with so many steps each. Twice as many as keep a device busy are computed at a time, some of them while
/// others wait for what they read.
fn of_products(target: &Target, tile: Shared, workgroups: usize, steps: usize) -> f64 {
    let at_a_time = 2 * units(target).unwrap_or(1);
    let computed = workgroups.next_multiple_of(at_a_time) * tile.rows * tile.columns;
    2.0 * computed as f64 * (tile.depth * steps) as f64
}

fn of_launches(target: &Target, launches: usize) -> f64 {
    (launches * units(target).unwrap_or(1)) as f64 * LAUNCH
}

#[cfg(test)]
mod tests {
    use super::super::{Conv2dOptions, Method};
    use super::*;
    use crate::ops::epilogue::Epilogue;
    use crate::target::DeviceClass;
    use crate::tensor::DType;

    fn conv(c_in: usize, c_out: usize, side: usize, options: Conv2dOptions) -> Conv2d {
        let kernel = [side, side];
        let products = side * side * c_in / options.groups;
        Conv2d { options, kernel, c_in, c_out, products, upsample: 1, epilogue: Epilogue::default(), method: None }
    }

    /// The squares that are thought to be quickest of those that are thought to be worth it.
    fn squares(target: &Target, conv: &Conv2d, [n, height, width]: [usize; 3], dtype: DType) -> Option<Squares> {
        let source = TensorDesc::new([n, height, width, conv.c_in], dtype);
        let size = |i: usize, size: usize| {
            let reach = conv.options.dilation[i] * (conv.kernel[i] - 1);
            (size + conv.options.padding[i] + conv.options.padding[i + 2] - reach - 1) / conv.options.stride[i] + 1
        };
        let output = TensorDesc::new([n, size(0, height), size(1, width), conv.c_out], dtype);
        let offers = conv.at_points(target, &source, &output, false);
        let best = offers.iter().filter(|offer| offer.is_quicker()).max_by_key(|offer| offer.saved())?;
        match best.method {
            Method::Winograd { squares, .. } => Some(squares),
            method => panic!("{method} at points"),
        }
    }

    const GPUS: [DeviceClass; 2] = [DeviceClass::Discrete, DeviceClass::Integrated];

    #[test]
    fn large_convolutions_go_winograds_way() {
        use Squares::{Four, Two};
        let padded = Conv2dOptions::padded(1);
        for class in GPUS {
            let target = Target { class, ..Target::typical() };
            for (side, c_in, c_out, expected) in [
                // Stable Diffusion's UNet, and its decoder. Where there are few squares of 4 × 4, weights alone are read for long.
                (64, 320, 320, Some(Four)),
                (64, 960, 320, Some(Four)),
                (32, 640, 640, Some(Four)),
                (32, 1920, 640, Some(Four)),
                (16, 1280, 1280, Some(Two)),
                (16, 2560, 1280, Some(Two)),
                (8, 1280, 1280, None),
                (64, 512, 512, Some(Four)),
                (256, 256, 256, Some(Four)),
                (512, 128, 128, Some(Four)),
                // Its first and last layer; little work; few channels.
                (64, 4, 320, None),
                (64, 320, 4, None),
                (7, 512, 512, None),
                (256, 16, 16, None),
                (32, 16, 32, None),
                // Channels that make no quads.
                (64, 320, 322, None),
                (64, 322, 320, None),
            ] {
                let conv = conv(c_in, c_out, 3, padded);
                // Whatever the number of samples: the bits of one are the same.
                for n in [1, 2, 5, 64] {
                    let found = squares(&target, &conv, [n, side, side], DType::F32);
                    assert_eq!(found, expected, "{c_in} → {c_out} at {n}×{side}×{side}, {class:?}");
                }
            }
        }
    }

    #[test]
    fn no_others_do() {
        let padded = Conv2dOptions::padded(1);
        for class in GPUS {
            let target = Target { class, ..Target::typical() };
            let place = [1, 64, 64];
            for (conv, dtype) in [
                (conv(320, 320, 3, padded), DType::F16),
                (conv(320, 320, 1, Conv2dOptions::default()), DType::F32),
                (conv(320, 320, 5, padded), DType::F32),
                (conv(320, 320, 3, padded.stride(2)), DType::F32),
                (conv(320, 320, 3, padded.dilation(2)), DType::F32),
                (conv(320, 320, 3, padded.groups(2)), DType::F32),
            ] {
                assert_eq!(squares(&target, &conv, place, dtype), None, "{conv:?}, {dtype}");
            }
            let wide = conv(320, 320, 3, padded);
            assert!(squares(&target, &wide, place, DType::F32).is_some());
            // Room for no tile, and for no weight.
            let small = Target { shared_memory: 4 << 10, ..target.clone() };
            assert_eq!(squares(&small, &wide, place, DType::F32), None);
            let small = Target { max_binding: 4 << 20, ..target };
            assert_eq!(squares(&small, &wide, place, DType::F32), None);
        }
    }

    #[test]
    fn the_model_is_near_what_was_measured() {
        // On an H200, in µs, less the 8 that a launch is measured to take where it does nothing.
        let target = Target::typical();
        for (side, channels, measured) in [(56, 64, 15.1), (28, 128, 15.9), (32, 320, 74.4), (7, 512, 26.6)] {
            let conv = conv(channels, channels, 3, Conv2dOptions::padded(1));
            let output = TensorDesc::new([1, side, side, channels], DType::F32);
            let cost = conv.plain_on_gpu(&target, &output).unwrap();
            let ratio = cost as f64 / 63e6 / measured;
            assert!((0.6..1.7).contains(&ratio), "{channels} channels at {side}×{side}: {ratio:.2}");
        }
    }
}
