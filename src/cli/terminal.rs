//! Pictures as a terminal takes them: whole, where it says that it shows pictures, else as characters of two pixels.

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

/// How a picture reaches a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Kitty's graphics protocol.
    Kitty,
    /// iTerm2's inline images.
    Inline,
    /// Characters of two pixels, in 24 bits of colour each.
    TrueColour,
    /// The same in xterm's 256 colours.
    Palette,
}

/// Of the picture that takes the place of the one before it; any number that nobody else is likely to use.
const KITTY_ID: u32 = 0x6171_7561;
/// Most characters of kitty's protocol in one piece.
const KITTY_PIECE: usize = 4096;
/// Its upper half in the colour of characters, its lower half in that of what is behind them.
const HALF_BLOCK: char = '▀';

impl Way {
    /// What the environment says of the terminal. To ask it is to wait for an answer that some never give.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Way {
        let says = |name: &str, words: &[&str]| {
            variable(name).is_some_and(|value| words.iter().any(|word| value.contains(word)))
        };
        let kitty = says("TERM", &["kitty", "ghostty"]) || says("TERM_PROGRAM", &["ghostty", "WezTerm"]);
        let inline = ["iTerm", "mintty", "rio", "WarpTerminal"];
        let inline =
            says("TERM_PROGRAM", &inline) || says("LC_TERMINAL", &inline) || says("KONSOLE_VERSION", &[""]);
        match (variable("TMUX").is_none(), kitty, inline) {
            (true, true, _) => Way::Kitty,
            (true, false, true) => Way::Inline,
            _ if says("COLORTERM", &["truecolor", "24bit"]) => Way::TrueColour,
            _ => Way::Palette,
        }
    }

    /// Writes a picture of so many columns; returns how many lines it takes.
    pub fn write(self, out: &mut impl Write, picture: &RgbImage, columns: u32) -> io::Result<u32> {
        let (width, height) = picture.dimensions();
        // A character is about twice as high as it is wide.
        let pixels = (u64::from(height) * u64::from(columns)).div_ceil(width.max(1).into()).max(1) as u32;
        let lines = pixels.div_ceil(2);
        match self {
            Way::Kitty => kitty(out, picture, columns, lines)?,
            Way::Inline => inline(out, picture, columns, lines)?,
            Way::TrueColour | Way::Palette => {
                let small = imageops::resize(picture, columns, pixels, FilterType::CatmullRom);
                blocks(out, &small, self == Way::TrueColour)?;
            }
        }
        out.flush()?;
        Ok(lines)
    }
}

/// <https://sw.kovidgoyal.net/kitty/graphics-protocol/>. A picture of the same number is taken away first; no answer is wanted.
fn kitty(out: &mut impl Write, picture: &RgbImage, columns: u32, lines: u32) -> io::Result<()> {
    let text = BASE64_STANDARD.encode(picture.as_raw());
    let (width, height) = picture.dimensions();
    write!(out, "\x1b_Ga=T,q=2,f=24,i={KITTY_ID},s={width},v={height},c={columns},r={lines},")?;
    let mut pieces = text.as_bytes().chunks(KITTY_PIECE).peekable();
    while let Some(piece) = pieces.next() {
        write!(out, "m={};", u8::from(pieces.peek().is_some()))?;
        out.write_all(piece)?;
        out.write_all(if pieces.peek().is_some() { b"\x1b\\\x1b_G" } else { b"\x1b\\\n" })?;
    }
    Ok(())
}

/// <https://iterm2.com/documentation-images.html>.
fn inline(out: &mut impl Write, picture: &RgbImage, columns: u32, lines: u32) -> io::Result<()> {
    let mut file = io::Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).map_err(io::Error::other)?;
    let file = file.into_inner();
    write!(out, "\x1b]1337;File=inline=1;preserveAspectRatio=1;size={};", file.len())?;
    writeln!(out, "width={columns};height={lines}:{}\x07", BASE64_STANDARD.encode(file))
}

fn blocks(out: &mut impl Write, picture: &RgbImage, true_colour: bool) -> io::Result<()> {
    let colour = |pixel: &Rgb<u8>| match pixel.0 {
        [r, g, b] if true_colour => format!("2;{r};{g};{b}"),
        rgb => format!("5;{}", nearest(rgb)),
    };
    for y in (0..picture.height()).step_by(2) {
        for x in 0..picture.width() {
            write!(out, "\x1b[38;{}", colour(picture.get_pixel(x, y)))?;
            match picture.get_pixel_checked(x, y + 1) {
                Some(below) => write!(out, ";48;{}m{HALF_BLOCK}", colour(below))?,
                None => write!(out, "m{HALF_BLOCK}")?,
            }
        }
        writeln!(out, "\x1b[0m")?;
    }
    Ok(())
}

/// The nearest colour of xterm's palette behind the first 16, which users change: a cube of six levels a side, then 24 greys.
fn nearest(rgb: [u8; 3]) -> u8 {
    let level = |i: u8| if i == 0 { 0 } else { 55 + 40 * i };
    let grey = |i: u8| 8 + 10 * i;
    let closest = |of: &dyn Fn(u8) -> u8, count: u8, to: u8| {
        (0..count).min_by_key(|&i| of(i).abs_diff(to)).expect("there is one")
    };
    let sides = rgb.map(|c| closest(&level, 6, c));
    let mean = rgb.iter().map(|&c| u16::from(c)).sum::<u16>() / 3;
    let shade = closest(&grey, 24, mean as u8);
    let off = |of: [u8; 3]| -> u32 { of.iter().zip(rgb).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum() };
    match off([grey(shade); 3]) < off(sides.map(level)) {
        true => 232 + shade,
        false => 16 + 36 * sides[0] + 6 * sides[1] + sides[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(way: Way, picture: &RgbImage, columns: u32) -> (String, u32) {
        let mut out = Vec::new();
        let lines = way.write(&mut out, picture, columns).unwrap();
        (String::from_utf8(out).unwrap(), lines)
    }

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x * 3, y * 5, 255 - x].map(|c| c as u8)))
    }

    /// Of the palette behind the first 16.
    fn colour(index: u8) -> [u8; 3] {
        let level = |i: u8| [0, 95, 135, 175, 215, 255][usize::from(i)];
        match index {
            232.. => [8 + 10 * (index - 232); 3],
            _ => [(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6].map(level),
        }
    }

    #[test]
    fn no_colour_of_the_palette_is_nearer() {
        let off = |a: [u8; 3], b: [u8; 3]| -> u32 {
            a.iter().zip(b).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
        };
        let steps = || (0..=255u8).step_by(15);
        for rgb in steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| [r, g, b]))) {
            let least = (16..=255).map(|i| off(colour(i), rgb)).min().unwrap();
            assert_eq!(off(colour(nearest(rgb)), rgb), least, "{rgb:?}");
        }
        for index in 16..=255 {
            assert_eq!(colour(nearest(colour(index))), colour(index));
        }
    }

    #[test]
    fn two_pixels_are_a_character() {
        let mut picture = RgbImage::new(1, 3);
        picture.put_pixel(0, 0, Rgb([255, 0, 0]));
        picture.put_pixel(0, 1, Rgb([0, 0, 255]));
        let (text, lines) = written(Way::TrueColour, &picture, 1);
        assert_eq!(text, "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\n\x1b[38;2;0;0;0m▀\x1b[0m\n");
        assert_eq!(lines, 2);
        assert_eq!(
            written(Way::Palette, &picture, 1).0,
            "\x1b[38;5;196;48;5;21m▀\x1b[0m\n\x1b[38;5;16m▀\x1b[0m\n"
        );
    }

    #[test]
    fn as_many_lines_as_are_said() {
        for (width, height, columns) in [(7, 5, 7), (7, 5, 3), (1, 9, 1), (9, 1, 4), (64, 64, 20)] {
            for way in [Way::TrueColour, Way::Palette] {
                let (text, lines) = written(way, &picture(width, height), columns);
                assert_eq!(text.lines().count(), lines as usize);
                assert!(text.lines().all(|line| line.matches(HALF_BLOCK).count() == columns as usize));
            }
        }
    }

    #[test]
    fn kitty_gets_every_pixel_in_pieces() {
        let picture = picture(64, 33);
        let (text, lines) = written(Way::Kitty, &picture, 32);
        assert_eq!(lines, 9);
        let pieces: Vec<&str> = text.trim_end().split_terminator("\x1b\\").collect();
        assert!(pieces[0].starts_with("\x1b_Ga=T,") && pieces[0].contains(",s=64,v=33,c=32,r=9,m=1;"));
        let (last, others) = pieces.split_last().unwrap();
        assert!(last.contains("m=0;") && others.iter().all(|piece| piece.contains("m=1;")));
        let data: String = pieces.iter().map(|piece| piece.split_once(';').unwrap().1).collect();
        assert_eq!(BASE64_STANDARD.decode(data).unwrap(), *picture.as_raw());
        assert!(pieces.iter().all(|piece| piece.split_once(';').unwrap().1.len() <= KITTY_PIECE));
    }

    #[test]
    fn others_get_a_file() {
        let picture = picture(9, 4);
        let (text, _) = written(Way::Inline, &picture, 9);
        let data = text.strip_suffix("\x07\n").unwrap().split_once(':').unwrap().1;
        let file = BASE64_STANDARD.decode(data).unwrap();
        assert!(text.contains(&format!("size={};width=9;height=2:", file.len())));
        assert_eq!(image::load_from_memory(&file).unwrap().to_rgb8(), picture);
    }

    #[test]
    fn terminals_are_known_by_their_variables() {
        let of = |variables: &[(&str, &str)]| {
            Way::of(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("TERM", "xterm-kitty")]), Way::Kitty);
        assert_eq!(of(&[("TERM_PROGRAM", "iTerm.app")]), Way::Inline);
        assert_eq!(of(&[("KONSOLE_VERSION", "230804")]), Way::Inline);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]), Way::TrueColour);
        assert_eq!(of(&[("TERM", "xterm-kitty"), ("TMUX", "default,7,0")]), Way::Palette);
        assert_eq!(of(&[]), Way::Palette);
    }
}
