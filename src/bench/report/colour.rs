//! Colours of the page's plots. A drawing is made with stand-ins, which are then replaced by variables of the style sheet, so
//! that one drawing serves light and dark pages.

use plotters::style::RGBColor;

pub const INK: RGBColor = RGBColor(1, 1, 1);
pub const MUTED: RGBColor = RGBColor(2, 2, 2);
pub const LINE: RGBColor = RGBColor(3, 3, 3);
pub const F32: RGBColor = RGBColor(4, 4, 4);
pub const F16: RGBColor = RGBColor(5, 5, 5);
pub const BAD: RGBColor = RGBColor(6, 6, 6);

/// Parts of bars, in the order of their size; the last is for all others.
pub const PARTS: [RGBColor; 7] = [
    RGBColor(16, 16, 16),
    RGBColor(17, 17, 17),
    RGBColor(18, 18, 18),
    RGBColor(19, 19, 19),
    RGBColor(20, 20, 20),
    RGBColor(21, 21, 21),
    RGBColor(22, 22, 22),
];

/// The drawing with variables for its stand-ins.
pub fn themed(svg: &str) -> String {
    let named = [("ink", INK), ("muted", MUTED), ("line", LINE), ("f32", F32), ("f16", F16), ("bad", BAD)];
    let mut text = svg.to_owned();
    let mut replace = |colour: RGBColor, variable: &str| {
        let RGBColor(r, g, b) = colour;
        text = text.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--{variable})\""));
    };
    for (name, colour) in named {
        replace(colour, name);
    }
    for (i, colour) in PARTS.into_iter().enumerate() {
        replace(colour, &format!("part{i}"));
    }
    text
}
