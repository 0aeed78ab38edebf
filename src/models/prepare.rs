//! From pictures to what a network reads, as operations of its graph, and where its answers lie in the picture.

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::models::vision::{Fit, Preprocess};
use crate::ops::expr::{Binary, Expr, Unary};
use crate::ops::picture_to_tensor::{Axis, Outside};
use crate::tensor::DType;

impl Preprocess {
    /// Rows and columns of what the network reads of a picture of `[height, width]`; [`Axis::to_picture`] leads back.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty picture, or sizes that make no sense.
    pub fn axes(&self, picture: [usize; 2]) -> Result<[Axis; 2]> {
        let invalid = |what: &str, expected: &str, found: String| Error::Invalid {
            what: what.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        if picture.contains(&0) {
            let [h, w] = picture;
            return Err(invalid("picture", "at least one pixel", format!("{w} × {h}")));
        }
        let Some(size) = self.size else {
            let padded = |length: usize| Axis {
                out: length.next_multiple_of(self.multiple.max(1)),
                ..Axis::whole(length)
            };
            return Ok(picture.map(padded));
        };
        if size.contains(&0) {
            return Err(invalid("size that the network reads", "at least 1 × 1", format!("{size:?}")));
        }
        let both = |f: &dyn Fn(usize) -> Axis| [f(0), f(1)];
        match self.fit {
            Fit::Stretch => Ok(both(&|d| Axis::resized(picture[d], size[d]))),
            Fit::Crop { portion } => {
                let portion = f64::from(portion);
                if !(portion > 0.0 && portion <= 4.0) {
                    return Err(invalid(
                        "portion that is cut out",
                        "above 0, at most 4",
                        portion.to_string(),
                    ));
                }
                // As in torchvision: the side that just covers gets its size, the other is cut off to whole pixels.
                let wanted = size.map(|s| (s as f64 / portion).floor().max(1.0));
                let factor = |d: usize| wanted[d] / picture[d] as f64;
                let shorter = usize::from(factor(1) > factor(0));
                let resized = |d: usize| match d == shorter {
                    true => wanted[d] as usize,
                    false => {
                        let length = wanted[shorter] * picture[d] as f64 / picture[shorter] as f64;
                        (length as usize).max(1)
                    }
                };
                Ok(both(&|d| {
                    let resized = resized(d);
                    let middle = (resized as f64 - size[d] as f64) / 2.0;
                    let first = middle.round_ties_even() as isize;
                    Axis { first, out: size[d], ..Axis::resized(picture[d], resized) }
                }))
            }
            Fit::Letterbox { .. } => {
                let factor = |d: usize| size[d] as f64 / picture[d] as f64;
                let factor = factor(0).min(factor(1));
                Ok(both(&|d| {
                    let resized = ((picture[d] as f64 * factor).round() as usize).clamp(1, size[d]);
                    // The odd pixel goes below and to the right.
                    let first = -(((size[d] - resized) / 2) as isize);
                    Axis { first, out: size[d], ..Axis::resized(picture[d], resized) }
                }))
            }
        }
    }

    /// Of each channel `(scale, shift)` for bytes as numbers from 0 to 1.
    pub fn normalise(&self) -> Vec<(f32, f32)> {
        self.mean.iter().zip(&self.std).map(|(m, s)| (1.0 / s, -m / s)).collect()
    }

    /// What the network reads of `pictures` `[n, h, w]` (u32, red in the lowest byte): `[n, h, w, c]`.
    ///
    /// # Errors
    /// Those of [`axes`](Self::axes), and [`Error::Graph`] for what are no pictures.
    pub fn append(&self, g: &mut Graph, pictures: ValueId, dtype: DType) -> Result<ValueId> {
        let [rows, columns] = match g.shape(pictures)[..] {
            [_, h, w] => self.axes([h, w])?,
            _ => [Axis::whole(1), Axis::whole(1)],
        };
        let outside = match (self.size, self.fit) {
            (None, _) | (_, Fit::Stretch) => Outside::Edge,
            (_, Fit::Crop { .. }) => Outside::Fill(0),
            (_, Fit::Letterbox { fill }) => Outside::Fill((fill * 255.0).round().clamp(0.0, 255.0) as u8),
        };
        g.scoped("preprocess", |g| {
            let axes = [&rows, &columns];
            let x = g.picture_resample(pictures, axes, self.filter, outside, &self.normalise(), dtype)?;
            self.polarity(g, x)
        })
    }

    /// `x` `[n, h, w, c]`, normalised, with the polarity that the network wants: inverted where the border is bright if
    /// it reads light ink on dark.
    ///
    /// # Errors
    /// [`Error::Graph`] if `x` is no feature map.
    pub fn polarity(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        if self.light_on_dark { light_on_dark(g, x) } else { Ok(x) }
    }
}

/// Inverts what has a bright border.
fn light_on_dark(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let border = g.border_mean(x)?;
    // 1 on a dark border, −1 on a bright one.
    let bright = Expr::binary(Binary::Max, Expr::unary(Unary::Sign, Expr::input(1)), Expr::Const(0.0));
    let twice = Expr::binary(Binary::Mul, Expr::Const(2.0), bright);
    let sign = Expr::binary(Binary::Sub, Expr::Const(1.0), twice);
    g.elementwise(Expr::binary(Binary::Mul, Expr::input(0), sign), &[x, border])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::vision::Filter;

    fn axes(size: Option<[usize; 2]>, fit: Fit, picture: [usize; 2]) -> [Axis; 2] {
        let preprocess = Preprocess {
            size,
            multiple: 8,
            fit,
            filter: Filter::Bilinear,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            light_on_dark: false,
        };
        preprocess.axes(picture).unwrap()
    }

    #[test]
    fn the_middle_is_cut_out_as_in_torchvision() {
        // Resize(256), CenterCrop(224) of 640 × 427 (w × h): resized to 383 × 256, first column round(79.5) = 80.
        let [rows, columns] = axes(Some([224, 224]), Fit::Crop { portion: 0.875 }, [427, 640]);
        assert_eq!((rows.resized, rows.first, rows.out), (256, 16, 224));
        assert_eq!((columns.resized, columns.first, columns.out), (383, 80, 224));
    }

    #[test]
    fn a_letterbox_holds_all_of_it() {
        let [rows, columns] = axes(Some([64, 64]), Fit::Letterbox { fill: 0.5 }, [30, 100]);
        assert_eq!((rows.resized, rows.first), (19, -22));
        assert_eq!((columns.resized, columns.first), (64, 0));
        assert_eq!(columns.to_picture(64.0), 100.0);
        assert_eq!(rows.to_picture(22.0), 0.0);
        assert!((rows.to_picture(41.0) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn pictures_as_they_come_are_padded_below_and_right() {
        let [rows, columns] = axes(None, Fit::Stretch, [16, 17]);
        assert!(rows.is_identity());
        assert_eq!((columns.resized, columns.out), (17, 24));
    }
}
