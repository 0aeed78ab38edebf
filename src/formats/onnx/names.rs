//! Names of classes in a file's metadata.

/// The names of classes 0, 1, 2 … out of a dictionary, as exports of detectors have it: `{0: 'cat', 1: "dog"}`, the numbers
/// in quotes or not. `None` for anything else.
pub fn names(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    let mut names = Vec::new();
    while !rest.starts_with('}') {
        let (key, after) = match rest.chars().next()? {
            '\'' | '"' => quoted(rest)?,
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_digit())?;
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if key.parse() != Ok(names.len()) {
            return None;
        }
        let (name, after) = quoted(after.trim_start().strip_prefix(':')?.trim_start())?;
        names.push(name);
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
        if rest.len() == after.len() && !rest.starts_with('}') {
            return None;
        }
    }
    (rest == "}" && !names.is_empty()).then_some(names)
}

/// A string in quotes of either kind, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut name = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => match characters.next()?.1 {
                c @ ('\\' | '\'' | '"') => name.push(c),
                c => name.extend(['\\', c]),
            },
            c if c == quote => return Some((name, &text[at + c.len_utf8()..])),
            c => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn dictionaries_are_read_and_nothing_else() {
        let text = r#" {0: 'cat', 1: "shepherd's dog", "2": 'a \\ b, {c}', 3: '',} "#;
        assert_eq!(names(text).unwrap(), ["cat", "shepherd's dog", r"a \ b, {c}", ""]);
        for bad in [
            "",
            "{",
            "{}",
            "cat",
            "{0}",
            "{0: cat}",
            "{1: 'cat'}",
            "{0: 'cat'",
            "{0: 'cat",
            "{0: 'cat\\",
            "{0: 'é",
            "{0: 'cat' 1: 'dog'}",
            "{0: 'cat', 2: 'dog'}",
            "{0: 'cat'} x",
            "{0: 'cat',, 1: 'dog'}",
            "{-1: 'cat'}",
            "{é: 'cat'}",
            "{99999999999999999999999: 'cat'}",
        ] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }
}
