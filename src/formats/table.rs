//! A table drawn as a picture, with small pictures below its columns.

use image::RgbImage;

use super::draw::{self, Canvas, INK, LINE, QUIET};
use super::sheet::Cell;

/// What is drawn. The first column names the rows; the others have pictures of their own.
#[derive(Clone, Debug, Default)]
pub struct Table<'a> {
    pub title: String,
    /// Stands below the title.
    pub subtitle: String,
    /// One for each column, the first too.
    pub header: Vec<String>,
    /// Long cells are broken into lines.
    pub rows: Vec<Vec<String>>,
    /// For each column but the first: a line that says what the pictures are, and the pictures.
    pub samples: Vec<(String, Vec<Cell<'a>>)>,
    /// Stands at the very bottom.
    pub footnote: String,
}

const MARGIN: u32 = 36;
/// Between columns, and twice what is above and below the text of a row.
const GAP: u32 = 28;
const TEXT: u32 = 2;
const TITLE: u32 = 3;
const SMALL: u32 = 1;
/// Longest line of a cell, characters.
const WIDEST: usize = 34;
const LINE_HEIGHT: u32 = draw::text_height(TEXT) + 6;
/// How many times sample pictures are enlarged.
const SAMPLE_SCALE: u32 = 2;
const SAMPLE_GAP: u32 = 8;

/// Breaks text at spaces (not at those of no break) into lines of at most `width` characters, longer words apart.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// Width of the widest line.
fn widest(lines: &[String], scale: u32) -> u32 {
    lines.iter().map(|line| draw::text_width(line, scale)).max().unwrap_or(0)
}

impl Table<'_> {
    pub fn draw(&self) -> RgbImage {
        let rows: Vec<Vec<Vec<String>>> =
            self.rows.iter().map(|row| row.iter().map(|cell| wrap(cell, WIDEST)).collect()).collect();
        let columns = self.header.len();
        let mut widths: Vec<u32> = self.header.iter().map(|h| draw::text_width(h, TEXT)).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(widest(cell, TEXT));
            }
        }
        // Columns of the same kind look the same.
        if let Some(widest) = widths.iter().skip(1).max().copied() {
            widths[1..].fill(widest);
        }
        let caption_width =
            draw::text_width(&self.subtitle, SMALL).max(draw::text_width(&self.footnote, SMALL));
        let title_width = draw::text_width(&self.title, TITLE).max(caption_width);
        let gaps = GAP * (columns as u32 - 1);
        let table_width = widths.iter().sum::<u32>() + gaps;
        if let Some(last) = widths.last_mut() {
            *last += title_width.saturating_sub(table_width);
        }
        let table_width = widths.iter().sum::<u32>() + gaps;

        let height_of = |row: &Vec<Vec<String>>| {
            row.iter().map(Vec::len).max().unwrap_or(1) as u32 * LINE_HEIGHT + GAP / 2
        };
        let head = MARGIN + draw::text_height(TITLE) + 14 + draw::text_height(SMALL) + GAP;
        let header_height = LINE_HEIGHT + GAP / 2 + 4;
        let body: u32 = rows.iter().map(height_of).sum();
        let strips: Vec<Strip> = self
            .samples
            .iter()
            .zip(&widths[1..])
            .map(|((_, cells), width)| Strip::new(cells, *width))
            .collect();
        let samples = match strips.iter().map(|s| s.height).max() {
            None | Some(0) => 0,
            Some(height) => height + LINE_HEIGHT + GAP,
        };
        let foot = if self.footnote.is_empty() { 0 } else { GAP + draw::text_height(SMALL) };
        let height = head + header_height + body + samples + foot + MARGIN;

        let mut canvas = Canvas::new(table_width + 2 * MARGIN, height);
        canvas.text(MARGIN, MARGIN, TITLE, INK, &self.title);
        let below_title = MARGIN + draw::text_height(TITLE) + 14;
        canvas.text(MARGIN, below_title, SMALL, QUIET, &self.subtitle);

        let lefts: Vec<u32> = widths
            .iter()
            .scan(MARGIN, |x, width| {
                let left = *x;
                *x += width + GAP;
                Some(left)
            })
            .collect();
        let mut y = head;
        for (text, x) in self.header.iter().zip(&lefts) {
            canvas.text(*x, y, TEXT, INK, text);
        }
        let rule = y + header_height - GAP / 4 - 4;
        canvas.rectangle(MARGIN, rule, table_width, 2, QUIET);
        y += header_height;
        for row in &rows {
            for (i, (cell, x)) in row.iter().zip(&lefts).enumerate() {
                let colour = if i == 0 { QUIET } else { INK };
                for (line, text) in (0..).zip(cell) {
                    canvas.text(*x, y + GAP / 4 + line * LINE_HEIGHT, TEXT, colour, text);
                }
            }
            y += height_of(row);
            canvas.rectangle(MARGIN, y, table_width, 1, LINE);
        }
        if samples > 0 {
            y += GAP;
            for ((strip, (title, cells)), x) in strips.iter().zip(&self.samples).zip(&lefts[1..]) {
                canvas.text(*x, y, SMALL, QUIET, title);
                strip.draw(&mut canvas, *x, y + LINE_HEIGHT, cells);
            }
            y += samples - GAP;
        }
        if !self.footnote.is_empty() {
            canvas.text(MARGIN, y + GAP, SMALL, QUIET, &self.footnote);
        }
        canvas.0
    }
}

/// Pictures in rows that fill a width.
struct Strip {
    columns: u32,
    pitch: [u32; 2],
    height: u32,
}

impl Strip {
    fn new(cells: &[Cell], width: u32) -> Strip {
        let Some(first) = cells.first() else {
            return Strip { columns: 1, pitch: [1; 2], height: 0 };
        };
        let [w, h] = [first.picture.width(), first.picture.height()].map(|v| v * SAMPLE_SCALE);
        let pitch = [w + SAMPLE_GAP, h + 5 + draw::text_height(SMALL) + SAMPLE_GAP];
        let most = ((width + SAMPLE_GAP) / pitch[0]).max(1);
        let rows = (cells.len() as u32).div_ceil(most);
        // As even as they can be.
        let columns = (cells.len() as u32).div_ceil(rows);
        Strip { columns, pitch, height: rows * pitch[1] - SAMPLE_GAP }
    }

    fn draw(&self, canvas: &mut Canvas, x: u32, y: u32, cells: &[Cell]) {
        for (i, cell) in (0..).zip(cells) {
            let x = x + i % self.columns * self.pitch[0];
            let y = y + i / self.columns * self.pitch[1];
            canvas.picture(x, y, SAMPLE_SCALE, cell.picture);
            let [w, h] = [cell.picture.width(), cell.picture.height()].map(|v| v * SAMPLE_SCALE);
            canvas.text_centred(x + w / 2, y + h + 5, SMALL, QUIET, cell.label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible", 7), ["incomprehensible"]);
        assert_eq!(wrap("", 7), [""]);
    }

    #[test]
    fn everything_fits_on_the_picture() {
        let picture = RgbImage::new(9, 5);
        let cells = vec![Cell { picture: &picture, label: "x" }; 7];
        let mut table = Table {
            title: "a title".to_owned(),
            header: ["", "one", "two"].map(str::to_owned).to_vec(),
            rows: vec![
                ["row", "a cell that is far too long for one line of a table", "b"]
                    .map(str::to_owned)
                    .to_vec(),
            ],
            samples: vec![("some".to_owned(), cells.clone()), ("none".to_owned(), Vec::new())],
            ..Table::default()
        };
        let margin_is_clear = |picture: &RgbImage| {
            let (w, h) = picture.dimensions();
            let outside = |x, y| x < MARGIN || y < MARGIN || x >= w - MARGIN || y >= h - MARGIN;
            picture.enumerate_pixels().all(|(x, y, p)| !outside(x, y) || *p == draw::PAPER)
        };
        assert!(margin_is_clear(&table.draw()));
        table.footnote = "a footnote that is longer than the table is wide, by far, ".repeat(3);
        assert!(margin_is_clear(&table.draw()));
    }
}
