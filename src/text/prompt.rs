//! How prompts are written: words in brackets weigh more or less.
//!
//! ```text
//! (word)        1.1 times, once more for each pair
//! [word]        1 / 1.1 times
//! (word:1.3)    1.3 times
//! \( \) \[ \]   the brackets themselves
//! BREAK         what follows begins a new chunk
//! ```
//!
//! The syntax of AUTOMATIC1111's web UI, which most prompts in circulation are written in.

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text { text: String, weight: f32 },
    Break,
}

/// What a pair of round brackets multiplies by, and a pair of square ones divides by.
const STEP: f32 = 1.1;

/// Takes a prompt apart. Brackets that are not closed count to the end.
pub fn pieces(prompt: &str) -> Vec<Piece> {
    let mut texts: Vec<(String, f32)> = Vec::new();
    // Where brackets were opened, in `texts`.
    let (mut round, mut square): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rest = prompt;
    let multiply = |texts: &mut Vec<(String, f32)>, from: usize, by: f32| {
        texts[from..].iter_mut().for_each(|(_, weight)| *weight *= by);
    };
    let mut open = String::new();
    let flush = |open: &mut String, texts: &mut Vec<(String, f32)>| {
        if !open.is_empty() {
            texts.push((std::mem::take(open), 1.0));
        }
    };
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if rest.starts_with(['(', ')', '[', ']', '\\']) => {
                open.push_str(&rest[..1]);
                rest = &rest[1..];
            }
            '(' | '[' => {
                flush(&mut open, &mut texts);
                if c == '(' { &mut round } else { &mut square }.push(texts.len());
            }
            ':' if !round.is_empty() => match weight(rest) {
                Some((by, after)) => {
                    flush(&mut open, &mut texts);
                    multiply(&mut texts, round.pop().unwrap_or(0), by);
                    rest = after;
                }
                None => open.push(c),
            },
            ')' | ']' => {
                flush(&mut open, &mut texts);
                match if c == ')' { &mut round } else { &mut square }.pop() {
                    Some(from) => multiply(&mut texts, from, if c == ')' { STEP } else { 1.0 / STEP }),
                    None => open.push(c),
                }
            }
            _ => open.push(c),
        }
    }
    flush(&mut open, &mut texts);
    for from in round {
        multiply(&mut texts, from, STEP);
    }
    for from in square {
        multiply(&mut texts, from, 1.0 / STEP);
    }
    texts.into_iter().flat_map(|(text, weight)| broken(&text, weight)).collect()
}

/// `1.3)` and what follows it.
fn weight(text: &str) -> Option<(f32, &str)> {
    let (number, after) = text.split_once(')')?;
    let number = number.trim();
    let plain = number.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
    let number: f32 = number.parse().ok().filter(|n: &f32| plain && n.is_finite())?;
    Some((number, after))
}

/// A text parted where a word of its own says `BREAK`.
fn broken(text: &str, weight: f32) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut words = Vec::new();
    let push = |words: &mut Vec<&str>, pieces: &mut Vec<Piece>| {
        let text = words.concat();
        if !text.trim().is_empty() {
            pieces.push(Piece::Text { text, weight });
        }
        words.clear();
    };
    for word in text.split_inclusive(char::is_whitespace) {
        match word.trim_end() {
            "BREAK" => {
                push(&mut words, &mut pieces);
                pieces.push(Piece::Break);
            }
            _ => words.push(word),
        }
    }
    push(&mut words, &mut pieces);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(prompt: &str) -> Vec<(String, f32)> {
        let plain = |piece| match piece {
            Piece::Text { text, weight } => (text, (weight * 1000.0).round() / 1000.0),
            Piece::Break => ("BREAK".to_owned(), 0.0),
        };
        pieces(prompt).into_iter().map(plain).collect()
    }

    #[test]
    fn brackets_weigh() {
        let is = |prompt: &str, expected: &[(&str, f32)]| {
            let expected: Vec<(String, f32)> = expected.iter().map(|(t, w)| ((*t).to_owned(), *w)).collect();
            assert_eq!(texts(prompt), expected, "{prompt}");
        };
        is("a cat", &[("a cat", 1.0)]);
        is("a (red) cat", &[("a ", 1.0), ("red", 1.1), (" cat", 1.0)]);
        is("a ((red)) cat", &[("a ", 1.0), ("red", 1.21), (" cat", 1.0)]);
        is("a (red:1.5) [cat]", &[("a ", 1.0), ("red", 1.5), ("cat", 0.909)]);
        is("(a (red:1.5) cat)", &[("a ", 1.1), ("red", 1.65), (" cat", 1.1)]);
        is(r"a \(red\) cat", &[("a (red) cat", 1.0)]);
        is("a (red cat", &[("a ", 1.0), ("red cat", 1.1)]);
        is("a red) cat", &[("a red", 1.0), (") cat", 1.0)]);
        is("at 5:30 (it is 6:30)", &[("at 5:30 ", 1.0), ("it is 6", 30.0)]);
        is("(3:4 format:)", &[("3:4 format:", 1.1)]);
        is("one BREAK two", &[("one ", 1.0), ("BREAK", 0.0), ("two", 1.0)]);
        is("UNBREAKABLE", &[("UNBREAKABLE", 1.0)]);
        is("", &[]);
        is("()", &[]);
        is("(a:-0.5)", &[("a", -0.5)]);
        is("(a:nan)", &[("a:nan", 1.1)]);
    }

    #[test]
    fn nothing_makes_it_fall() {
        for prompt in
            ["\\", "(((", "]]]", "(:", "(:)", ":1.0)", "(a:1.0", "\\(", "(é:2)", "(🎈:1.2) [[", "BREAK BREAK"]
        {
            for piece in pieces(prompt) {
                if let Piece::Text { weight, .. } = piece {
                    assert!(weight.is_finite(), "{prompt}");
                }
            }
        }
    }
}
