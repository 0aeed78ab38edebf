//! Contact sheets: many small pictures as one, each with its label.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::draw::{self, Canvas, INK, LINE, QUIET};

/// Where the pictures of a sheet are, in pixels. Enough to cut them out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Pictures on the sheet, in rows from the top left.
    pub count: u32,
    pub columns: u32,
    /// Width and height of one picture before it was enlarged.
    pub picture: [u32; 2],
    /// How many times it is enlarged: odd, so that the pixels can be told again.
    pub scale: u32,
    /// Top left corner of the first.
    pub origin: [u32; 2],
    /// From one to the next, across and down.
    pub pitch: [u32; 2],
}

/// What is wanted of one cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    pub picture: &'a RgbImage,
    pub label: &'a str,
}

const MARGIN: u32 = 28;
const GAP: u32 = 12;
/// Side that small pictures are enlarged to, about.
const SIDE: u32 = 96;

/// Columns that suit `count` pictures of `kinds` labels: a word in one row,
/// an alphabet in rows of twelve.
pub fn columns(kinds: usize, count: usize) -> usize {
    const WIDEST: usize = 12;
    match kinds {
        0 | 1 => ((count as f64).sqrt().ceil() as usize).clamp(1, WIDEST),
        2..=WIDEST => kinds,
        _ => (6..=WIDEST).rev().find(|c| kinds.is_multiple_of(*c)).unwrap_or(WIDEST),
    }
}

/// Draws a sheet. All pictures must be of one size; `caption` stands below, in one line.
///
/// # Panics
/// If there are no cells or no columns.
pub fn draw(cells: &[Cell], columns: usize, caption: &str) -> (RgbImage, Layout) {
    assert!(!cells.is_empty() && columns > 0, "{} cells in {columns} columns", cells.len());
    let columns = columns.min(cells.len()) as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let (width, height) = cells[0].picture.dimensions();
    let scale = (SIDE / width.max(height)).max(1);
    let scale = if scale.is_multiple_of(2) { scale - 1 } else { scale };
    let [cell_width, cell_height] = [width * scale, height * scale];
    let label_scale = if cell_width >= 64 { 2 } else { 1 };
    let label_gap = 4 * label_scale;
    let pitch = [cell_width + GAP, cell_height + label_gap + draw::text_height(label_scale) + GAP * 3 / 2];
    let layout = Layout {
        count: cells.len() as u32,
        columns,
        picture: [width, height],
        scale,
        origin: [MARGIN, MARGIN],
        pitch,
    };
    let wide = columns * pitch[0] - GAP;
    let high = rows * pitch[1] - GAP * 3 / 2;
    let (caption_gap, caption_scale) = (MARGIN / 2, 1);
    let below = if caption.is_empty() { 0 } else { 2 * caption_gap + draw::text_height(caption_scale) };
    let caption_width = draw::text_width(caption, caption_scale);
    let mut canvas = Canvas::new(wide.max(caption_width) + 2 * MARGIN, high + below + 2 * MARGIN);
    for (i, cell) in (0..).zip(cells) {
        let [x, y] = layout.corner(i);
        canvas.picture(x, y, scale, cell.picture);
        let y = y + cell_height + label_gap;
        canvas.text_centred(x + cell_width / 2, y, label_scale, INK, cell.label);
    }
    if !caption.is_empty() {
        let y = MARGIN + high + caption_gap;
        canvas.rectangle(MARGIN, y, wide.max(caption_width), 1, LINE);
        canvas.text(MARGIN, y + caption_gap, caption_scale, QUIET, caption);
    }
    (canvas.0, layout)
}

impl Layout {
    fn corner(&self, i: u32) -> [u32; 2] {
        let [column, row] = [i % self.columns, i / self.columns];
        [self.origin[0] + column * self.pitch[0], self.origin[1] + row * self.pitch[1]]
    }

    /// The pictures of a sheet, at their own size; `None` if the sheet is not as the layout says.
    pub fn cut(&self, sheet: &RgbImage) -> Option<Vec<RgbImage>> {
        let Layout { count, columns, picture: [width, height], scale, .. } = *self;
        if count == 0 || columns == 0 || scale == 0 || width == 0 || height == 0 {
            return None;
        }
        let far = |i: u32, axis: usize| -> Option<u32> {
            let side = self.picture[axis].checked_mul(scale)?;
            self.pitch[axis].checked_mul(i)?.checked_add(self.origin[axis])?.checked_add(side)
        };
        let last = [columns.min(count) - 1, (count - 1) / columns];
        if far(last[0], 0)? > sheet.width() || far(last[1], 1)? > sheet.height() {
            return None;
        }
        let cut = |i| {
            let [x0, y0] = self.corner(i);
            let middle = |v: u32| v * scale + scale / 2;
            RgbImage::from_fn(width, height, |x, y| *sheet.get_pixel(x0 + middle(x), y0 + middle(y)))
        };
        Some((0..count).map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn pictures_come_back_from_a_sheet_unchanged() {
        for (count, columns, size) in [(1, 1, [32, 32]), (8, 8, [32, 32]), (7, 3, [5, 9]), (2, 4, [200, 97])]
        {
            let pictures: Vec<RgbImage> = (0..count)
                .map(|i: u32| {
                    RgbImage::from_fn(size[0], size[1], |x, y| {
                        Rgb([(x * 37 + y * 11 + i) as u8, (x * y) as u8, (255 - x) as u8])
                    })
                })
                .collect();
            let cells: Vec<Cell> = pictures.iter().map(|picture| Cell { picture, label: "Ω" }).collect();
            let (sheet, layout) = draw(&cells, columns, "a caption");
            assert!(layout.cut(&sheet).unwrap() == pictures, "{count} in {columns} columns");
        }
    }

    #[test]
    fn a_layout_of_another_sheet_is_refused() {
        let picture = RgbImage::new(8, 8);
        let cells = [Cell { picture: &picture, label: "" }; 4];
        let (sheet, layout) = draw(&cells, 2, "");
        let refused = |change: fn(&mut Layout)| {
            let mut layout = layout.clone();
            change(&mut layout);
            layout.cut(&sheet).is_none()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|l| l.count = 5), "one row too many");
        assert!(refused(|l| l.columns = 0));
        assert!(refused(|l| l.picture = [99, 8]));
        assert!(refused(|l| l.scale = u32::MAX));
        assert!(refused(|l| l.pitch = [u32::MAX; 2]));
    }

    #[test]
    fn words_stay_in_one_row() {
        assert_eq!(
            [(1, 1), (8, 8), (8, 24), (36, 36), (1, 10)].map(|(k, n)| columns(k, n)),
            [1, 8, 8, 12, 4]
        );
    }
}
