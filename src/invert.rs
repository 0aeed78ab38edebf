//! Loop inversion: loops that test after a turn instead of before it.
//!
//! Mesa's software adapter runs eight threads as the lanes of vectors. Lanes that have left a loop are masked, and the loop ends
//! where its last line finds that none is left: one that tests first goes through its body once more with no lane in it. Four
//! turns take the time of five. So
//!
//! ```wgsl
//! for (var i = first; i < end; i++) {
//!     body
//! }
//! ```
//!
//! becomes, for such adapters,
//!
//! ```wgsl
//! { var i = first; if (i < end) { loop {
//!     { body }
//!     i++; if (!(i < end)) { break; }
//! } } }
//! ```
//!
//! and `while` likewise. GPUs leave a loop by a jump, and their compilers invert loops themselves.

use crate::unroll::closing_brace;

/// `source` with every loop inverted that has a condition, but for those with a `continue`, which would skip the test.
pub fn invert(source: &str) -> String {
    let mut result = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(line) = rest.find('\n').map(|end| end + 1).or((!rest.is_empty()).then_some(rest.len())) {
        let text = &rest[..line];
        let statement = text.trim_start();
        match Loop::of(&rest[text.len() - statement.len()..]) {
            Some(found) => {
                result.push_str(&text[..text.len() - statement.len()]);
                found.write(&mut result);
                rest = found.after;
            }
            None => {
                result.push_str(text);
                rest = &rest[line..];
            }
        }
    }
    result
}

struct Loop<'a> {
    first: &'a str,
    condition: &'a str,
    step: &'a str,
    body: &'a str,
    after: &'a str,
}

impl<'a> Loop<'a> {
    /// The loop that `text` begins with.
    fn of(text: &'a str) -> Option<Self> {
        let (head, parts) = match text.strip_prefix("for (") {
            Some(head) => (head, 3),
            None => (text.strip_prefix("while (")?, 1),
        };
        let end = closing_parenthesis(head)?;
        let body = head[end + 1..].trim_start().strip_prefix('{')?;
        let length = closing_brace(body)?;
        let split: Vec<&str> = head[..end].split(';').map(str::trim).collect();
        let (first, condition, step) = match (split.as_slice(), parts) {
            (&[first, condition, step], 3) => (first, condition, step),
            (&[condition], 1) => ("", condition, ""),
            _ => return None,
        };
        let (body, after) = (&body[..length], &body[length + 1..]);
        (!condition.is_empty() && !body.contains("continue;")).then_some(Loop {
            first,
            condition,
            step,
            body,
            after,
        })
    }

    fn write(&self, result: &mut String) {
        let Loop { first, condition, step, body, .. } = self;
        let [first, step] =
            [first, step].map(|s| if s.is_empty() { String::new() } else { format!("{s}; ") });
        // The body is a block of its own, so that the test sees the loop's names and not those that the body gives.
        result.push_str(&format!("{{ {first}if ({condition}) {{ loop {{ {{{}}}\n", invert(body)));
        result.push_str(&format!("{step}if (!({condition})) {{ break; }} }} }} }}"));
    }
}

/// Bytes up to the parenthesis that closes one already opened.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(i),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn loops_test_after_their_turns() {
        let source = "fn f() {\n    for (var i = g(1u); i < n; i += 2u) {\n        while (x) {\n            h(i);\n        }\n    }\n    done();\n}\n";
        assert_eq!(
            squeezed(&invert(source)),
            "fn f() { { var i = g(1u); if (i < n) { loop { { { if (x) { loop { { h(i); } if (!(x)) { break; } } } } } \
             i += 2u; if (!(i < n)) { break; } } } } done(); }"
        );
    }

    #[test]
    fn other_loops_stay() {
        for source in [
            "for (var i = 0u; i < n; i++) {\n    if (i == 3u) { continue; }\n    f(i);\n}\n",
            "for (var i = 0u; ; i++) {\n    break;\n}\n",
            "loop {\n    break;\n}\n",
            "// for (var i = 0u; i < n; i++) {\n",
            "for (var i = 0u; i < n; i++) {",
        ] {
            assert_eq!(invert(source), source);
        }
    }

    #[test]
    fn a_loop_within_one_that_stays_is_inverted() {
        let source =
            "for (var i = 0u; i < n; i++) {\n    if (i == 3u) { continue; }\n    while (x) { f(i); }\n}\n";
        assert!(invert(source).contains("if (x) { loop { { f(i); }"), "{}", invert(source));
    }
}
