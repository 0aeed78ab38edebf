//! Writes out loops whose number of turns is known, and register tiles.
//!
//! A tile only stays in registers when every index into it is a constant, and
//! not every driver unrolls a loop or splits an array to get there: on Mesa's
//! software adapter a rolled tile runs at a tenth of the speed. So a kernel marks
//!
//! ```wgsl
//! var sum: array<array<f32, 4>, PIXELS>; // #registers
//! for (var p = 0u; p < PIXELS; p++) { // #unroll
//!     sum[p][2] += 1.0;
//! }
//! ```
//!
//! which is valid as it stands. When it is specialised, marked loops are replaced
//! by their turns and marked arrays by a variable for each element, `sum_0_2` …
//!
//! An array marked `// #values` instead is given each of its elements once: these are no variables but `let`s, of which
//! drivers have less to compile.
//!
//! A loop marked `// #once NAME` has one turn where the const NAME is true, and is replaced by it: drivers keep apart what a loop
//! holds and what stands around it, even if it never turns.
//!
//! A function marked `// #inline` is replaced by the expression that it returns, wherever it is called: its arguments may have to be
//! constants there, which WGSL knows of no function.

use std::collections::HashSet;

/// Writes out the marked functions, then the marked loops, then the marked arrays. Bounds and indices are
/// made of literals, `const`s of the source whose values are literals, `+`, `*`, `/`, `%` and parentheses.
pub fn unroll(source: &str) -> Result<String, String> {
    registers(loops(source, &once(&inline(source)?)?, 0)?)
}

/// `source` with every marked function written where it was called, and no longer defined.
///
/// ```wgsl
/// fn share(held: V, lane: u32) -> V { // #inline
///     return subgroupBroadcast(held, lane);
/// }
/// ```
fn inline(source: &str) -> Result<String, String> {
    let mut text = source.to_owned();
    while let Some(marker) = text.find(INLINE) {
        let start = text[..marker].rfind('\n').map_or(0, |i| i + 1);
        let header = text[start..marker].trim().to_owned();
        let fail = || format!("cannot inline `{header}`");
        let (name, rest) =
            header.strip_prefix("fn ").and_then(|rest| rest.split_once('(')).ok_or_else(fail)?;
        let (parameters, _) = rest.split_once(')').filter(|_| is_word(name)).ok_or_else(fail)?;
        let parameters: Option<Vec<&str>> =
            parameters.split(", ").map(|p| p.split_once(": ").map(|(name, _)| name)).collect();
        let parameters = parameters.ok_or_else(fail)?;
        let body = &text[marker + INLINE.len()..];
        let length = closing_brace(body).ok_or_else(fail)?;
        let value = body[..length].trim().strip_prefix("return ").and_then(|v| v.strip_suffix(';'));
        // Two statements, or a call of itself, would be written out without an end.
        let value = value.filter(|v| !v.contains(';') && find_word(v, name).is_none()).ok_or_else(fail)?;
        let others = [&text[..start], &body[length + 1..]].concat();
        text = replace_calls(&others, name, &parameters, value, 0).ok_or_else(fail)?;
    }
    Ok(text)
}

/// `text` with the calls of a function replaced by what it returns.
fn replace_calls(text: &str, name: &str, parameters: &[&str], value: &str, depth: usize) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find_word(rest, name) {
        let after = &rest[at + name.len()..];
        let Some(inside) = after.strip_prefix('(') else {
            result.push_str(&rest[..at + name.len()]);
            rest = after;
            continue;
        };
        result.push_str(&rest[..at]);
        let (arguments, length) = arguments(inside)?;
        if arguments.len() != parameters.len() || depth > DEEPEST {
            return None;
        }
        // Words that no kernel has stand for the parameters, lest an argument have the name of one.
        let place = |i: usize| format!("_argument_{i}_");
        let mut call = value.to_owned();
        for (i, parameter) in parameters.iter().enumerate() {
            call = substitute(&call, parameter, &place(i));
        }
        for (i, argument) in arguments.iter().enumerate() {
            let argument = replace_calls(argument, name, parameters, value, depth + 1)?;
            call = substitute(&call, &place(i), &format!("({argument})"));
            if result.len() + call.len() > LONGEST {
                return None;
            }
        }
        result.push_str(&format!("({call})"));
        rest = &inside[length..];
    }
    result.push_str(rest);
    Some(result)
}

/// What stands between commas up to the parenthesis that closes one already opened, and the bytes with that.
fn arguments(text: &str) -> Option<(Vec<&str>, usize)> {
    let mut depth = 0;
    let mut start = 0;
    let mut found = Vec::new();
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' if depth == 0 => {
                found.push(text[start..i].trim());
                return Some((found, i + 1));
            }
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    None
}

/// `source` with every loop of one turn replaced by that.
fn once(source: &str) -> Result<String, String> {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(marker) = rest.find(ONCE) {
        let start = rest[..marker].rfind('\n').map_or(0, |i| i + 1);
        let header = rest[start..marker].trim();
        let fail = || format!("cannot write `{header}` out once");
        let body = &rest[marker + ONCE.len()..];
        let line = body.find('\n').ok_or_else(fail)?;
        let name = body[..line].trim();
        let given = |value: &str| source.contains(&format!("const {name}: bool = {value};"));
        let first = header
            .strip_prefix("for (")
            .and_then(|h| h.split_once(';'))
            .map(|(first, _)| first.replacen("var ", "let ", 1));
        let first =
            first.filter(|_| header.ends_with('{') && given("true") != given("false")).ok_or_else(fail)?;
        result.push_str(&rest[..start]);
        result.push_str(&if given("true") { format!("{{ {first};") } else { header.to_owned() });
        rest = &body[line..];
    }
    result.push_str(rest);
    Ok(result)
}

const INLINE: &str = "// #inline";
const UNROLL: &str = "// #unroll";
const REGISTERS: &str = "// #registers";
const VALUES: &str = "// #values";
const ONCE: &str = "// #once";

/// Bytes of a kernel that is written out; the longest of this crate has a tenth of that.
const LONGEST: usize = 4 << 20;
/// Loops within loops, and parentheses within parentheses.
const DEEPEST: usize = 32;

/// `text` with every marked loop replaced by its turns, inner loops first: they are
/// written out once and then copied with the turns of the outer ones.
fn loops(source: &str, text: &str, depth: usize) -> Result<String, String> {
    if depth > DEEPEST {
        return Err(format!("has more than {DEEPEST} loops within each other"));
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(marker) = rest.find(UNROLL) {
        let start = rest[..marker].rfind('\n').map_or(0, |i| i + 1);
        let header = &rest[start..marker];
        let fail = || format!("cannot unroll `{}`", header.trim());
        let (variable, bound) = header_of(header).ok_or_else(fail)?;
        let turns = evaluate(source, bound).ok_or_else(fail)?;
        let body = &rest[marker + UNROLL.len()..];
        let length = closing_brace(body).ok_or_else(fail)?;
        result.push_str(&rest[..start]);
        let once = loops(source, &body[..length], depth + 1)?;
        let (open, close) = if declares(&once) { ("{", "}\n") } else { ("", "\n") };
        for turn in 0..turns {
            if result.len() + once.len() > LONGEST {
                return Err(format!("{}: more than {LONGEST} bytes, with {turns} turns", fail()));
            }
            result.push_str(open);
            result.push_str(&substitute(&once, variable, &format!("{turn}u")));
            result.push_str(close);
        }
        rest = &body[length + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

/// Whether names are made in a block that do not hold after it, but for those of marked arrays.
fn declares(body: &str) -> bool {
    let mut depth = 0;
    for line in body.lines() {
        let statement = line.trim_start();
        let declaration = ["let ", "var ", "const "].iter().any(|word| statement.starts_with(word));
        if depth == 0 && declaration {
            return true;
        }
        depth += line.matches('{').count();
        depth = depth.saturating_sub(line.matches('}').count());
    }
    false
}

/// Replaces every marked array by one variable, or value, for each element.
fn registers(mut text: String) -> Result<String, String> {
    while let Some((marker, mark)) =
        [REGISTERS, VALUES].iter().filter_map(|m| Some((text.find(m)?, *m))).min()
    {
        let start = text[..marker].rfind('\n').map_or(0, |i| i + 1);
        let declaration = text[start..marker].trim().to_owned();
        let fail = || format!("cannot keep `{declaration}` in registers");
        let (name, ty) = declaration
            .strip_prefix("var ")
            .and_then(|d| d.strip_suffix(';'))
            .and_then(|d| d.split_once(": "))
            .filter(|(name, _)| is_word(name))
            .ok_or_else(fail)?;
        let (element, sizes) = dimensions(&text, ty).ok_or_else(fail)?;
        let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        if count.is_none_or(|count| count > LONGEST / 64) {
            return Err(format!("{}: sizes {sizes:?}", fail()));
        }
        let mut names = vec![name.to_owned()];
        for size in &sizes {
            names = names.iter().flat_map(|n| (0..*size).map(move |i| format!("{n}_{i}"))).collect();
        }
        let used = index_elements(&text, &text[marker + mark.len()..], name, sizes.len())
            .map_err(|index| format!("{}: index {index} is not constant", fail()))?;
        let (declared, used) = match mark {
            VALUES => (String::new(), given_once(&used, &names)),
            _ => (names.iter().map(|n| format!("var {n}: {element}; ")).collect(), used),
        };
        text = format!("{}{declared}{used}", &text[..start]);
        if text.len() > LONGEST {
            return Err(format!("has more than {LONGEST} bytes with its tiles in registers"));
        }
    }
    Ok(text)
}

/// `text` in which the first statement that begins with one of `names`, the one that gives it its value, is a `let`.
fn given_once(text: &str, names: &[String]) -> String {
    let mut left: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mut result = String::with_capacity(text.len() + 4 * names.len());
    for line in text.split_inclusive('\n') {
        let statement = line.trim_start();
        let end = statement.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(statement.len());
        let given = statement[end..].starts_with(" = ") && left.remove(&statement[..end]);
        result.push_str(if given { "let " } else { "" });
        result.push_str(if given { statement } else { line });
    }
    result
}

/// Element type and sizes, outermost first, of `array<array<T, M>, N>`.
fn dimensions<'a>(source: &str, mut ty: &'a str) -> Option<(&'a str, Vec<usize>)> {
    let mut sizes = Vec::new();
    while let Some(inner) = ty.strip_prefix("array<") {
        let (element, size) = inner.strip_suffix('>')?.rsplit_once(", ")?;
        sizes.push(evaluate(source, size)?);
        ty = element;
    }
    (!sizes.is_empty()).then_some((ty, sizes))
}

/// `name[i][j]` → `name_i_j` in `text`, for `rank` indices; the error is the index that is not constant.
fn index_elements(source: &str, text: &str, name: &str, rank: usize) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find_word(rest, name) {
        result.push_str(&rest[..at]);
        result.push_str(name);
        rest = &rest[at + name.len()..];
        for _ in 0..rank {
            let end = rest.find(']').ok_or_else(|| name.to_owned())?;
            let index = rest[..end].strip_prefix('[').ok_or_else(|| name.to_owned())?;
            let value = evaluate(source, index).ok_or_else(|| index.to_owned())?;
            result.push_str(&format!("_{value}"));
            rest = &rest[end + 1..];
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// Value of an expression of literals, constants, `+`, `*`, `/`, `%` and parentheses.
fn evaluate(source: &str, expression: &str) -> Option<usize> {
    let mut rest = expression;
    let value = sum(source, &mut rest, 0)?;
    rest.trim().is_empty().then_some(value)
}

fn sum(source: &str, rest: &mut &str, depth: usize) -> Option<usize> {
    let mut value = product(source, rest, depth)?;
    while let Some(after) = rest.trim_start().strip_prefix('+') {
        *rest = after;
        value = value.checked_add(product(source, rest, depth)?)?;
    }
    Some(value)
}

fn product(source: &str, rest: &mut &str, depth: usize) -> Option<usize> {
    let mut value = factor(source, rest, depth)?;
    loop {
        let trimmed = rest.trim_start();
        let Some(operator @ ('*' | '/' | '%')) = trimmed.chars().next() else { return Some(value) };
        *rest = &trimmed[1..];
        let right = factor(source, rest, depth)?;
        value = match operator {
            '*' => value.checked_mul(right)?,
            '/' => value.checked_div(right)?,
            _ => value.checked_rem(right)?,
        };
    }
}

fn factor(source: &str, rest: &mut &str, depth: usize) -> Option<usize> {
    let text = rest.trim_start();
    if let Some(inner) = text.strip_prefix('(') {
        *rest = inner;
        let value = if depth < DEEPEST { sum(source, rest, depth + 1)? } else { return None };
        *rest = rest.trim_start().strip_prefix(')')?;
        return Some(value);
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    literal(word).or_else(|| literal(constant(source, word)?))
}

/// Variable and bound of `for (var i = 0u; i < N; i++) {`.
fn header_of(header: &str) -> Option<(&str, &str)> {
    let rest = header.trim().strip_prefix("for (var ")?;
    let (variable, rest) = rest.split_once(" = 0u; ").filter(|(variable, _)| is_word(variable))?;
    let rest = rest.strip_prefix(variable)?.strip_prefix(" < ")?;
    let (bound, rest) = rest.split_once("; ")?;
    (rest == format!("{variable}++) {{")).then_some((variable, bound))
}

fn literal(text: &str) -> Option<usize> {
    text.strip_suffix('u').unwrap_or(text).parse().ok()
}

/// The value of `const name: u32 = value;`.
fn constant<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    let definition = format!("const {name}: u32 = ");
    let line = source.lines().find(|line| line.starts_with(&definition))?;
    line[definition.len()..].split_once(';').map(|(value, _)| value)
}

/// Bytes up to the brace that closes a block already opened.
pub fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(i),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Where an identifier first stands as a word of its own.
fn find_word(text: &str, name: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|c| word(c) || c == '.') && !after.is_some_and(word)
    })
}

/// Replaces an identifier wherever it stands as a word of its own.
fn substitute(text: &str, name: &str, value: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find_word(rest, name) {
        result.push_str(&rest[..at]);
        result.push_str(value);
        rest = &rest[at + name.len()..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_loops_are_written_out() {
        let source = "const N: u32 = 2u;\nfn f() {\n    for (var p = 0u; p < N; p++) { // #unroll\n        for (var q = 0u; q < 3u; q++) { // #unroll\n            sum[p][q] += P.p * up[q];\n        }\n    }\n}\n";
        let text = unroll(source).unwrap();
        for p in 0..2 {
            for q in 0..3 {
                assert!(text.contains(&format!("sum[{p}u][{q}u] += P.p * up[{q}u];")), "{text}");
            }
        }
        assert_eq!(text.matches("sum").count(), 6);
        assert!(text.trim_end().ends_with('}') && !text.contains("for"), "{text}");
    }

    #[test]
    fn arrays_become_variables() {
        let source = "const N: u32 = 2u;\nfn f() {\n    var s: array<array<V, 3>, N>; // #registers\n    for (var p = 0u; p < 2u; p++) { // #unroll\n        s[p][1u * N] = x.s[3] + s[p][0u + 1u][3];\n    }\n}\n";
        let text = unroll(source).unwrap();
        for expected in
            ["var s_0_0: V; ", "var s_1_2: V; ", "s_0_2 = x.s[3] + s_0_1[3];", "s_1_2 = x.s[3] + s_1_1[3];"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let dynamic = source.replace("1u * N", "i");
        assert!(unroll(&dynamic).unwrap_err().contains("index i is not constant"));
    }

    #[test]
    fn values_are_given_once() {
        let source = "fn f() {\n    for (var i = 0u; i < n; i++) {\n        var s: array<V, 2>; // #values\n        for (var p = 0u; p < 2u; p++) { // #unroll\n            s[p] = load(p);\n        }\n        sum += s[0] * s[1];\n    }\n}\n";
        let text = unroll(source).unwrap();
        for expected in ["let s_0 = load(0u);", "let s_1 = load(1u);", "sum += s_0 * s_1;"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        // They hold after the loop that gives them, so that no braces stand round its turns; round those with names of their own they do.
        assert_eq!(text.matches('{').count(), 2, "{text}");
        let own = source.replace("s[p] = load(p);", "let held = load(p);\n            s[p] = held;");
        assert_eq!(unroll(&own).unwrap().matches('{').count(), 4);
    }

    #[test]
    fn functions_are_written_where_they_are_called() {
        let of = |call: &str| {
            let source = format!(
                "fn share(held: V, lane: u32) -> V {{ // #inline\n    return broadcast(held, lane) + lane;\n}}\nfn f() {{\n    {call};\n}}\n"
            );
            unroll(&source)
        };
        assert!(
            of("x = share(w[i * 2u], lane + 3u)")
                .unwrap()
                .contains("x = (broadcast((w[i * 2u]), (lane + 3u)) + (lane + 3u));")
        );
        assert!(
            of("x = share(share(held, 1u), 2u)")
                .unwrap()
                .contains("x = (broadcast(((broadcast((held), (1u)) + (1u))), (2u)) + (2u));")
        );
        let same = of("x = P.share + share_of(1u)").unwrap();
        assert!(same.contains("x = P.share + share_of(1u);") && !same.contains("fn share("), "{same}");
        assert!(of("x = share(1u)").unwrap_err().contains("cannot inline `fn share("));
        for function in [
            "fn f(x: V) -> V { // #inline\n    let y = x;\n    return y;\n}",
            "fn f(x: V) -> V { // #inline\n    return f(x);\n}",
            "fn f(x: V) -> V { // #inline\n    return x;",
            "let f = 1u; // #inline\n}",
            "// #inline",
        ] {
            assert!(unroll(function).unwrap_err().contains("cannot inline"), "{function}");
        }
        let twice = "fn f(x: u32) -> u32 { // #inline\n    return x + x;\n}\n";
        let deep = format!("{twice}{}1u{}", "f(".repeat(30), ")".repeat(30));
        assert!(unroll(&deep).unwrap_err().contains("cannot inline"));
    }

    #[test]
    fn a_loop_of_one_turn_is_its_body() {
        let of = |value: &str| {
            let source = "const ALIKE: bool = VALUE;\nfn f() {\n    for (var own = g; own < N; own += N) { // #once ALIKE\n        use(own);\n    }\n}\n";
            unroll(&source.replace("VALUE", value)).unwrap()
        };
        assert!(of("true").contains("{ let own = g;\n        use(own);\n    }"), "{}", of("true"));
        assert!(of("false").contains("for (var own = g; own < N; own += N) {\n"), "{}", of("false"));
        for source in
            ["for (var i = g; i < N; i += N) { // #once ALIKE\n}", "if (x) { // #once ALIKE\n}", "// #once"]
        {
            assert!(
                unroll(&format!("const ALIKE: bool = true;\n{source}")).is_err() != source.starts_with("for"),
                "{source}"
            );
            assert!(unroll(source).unwrap_err().contains("write"));
        }
    }

    #[test]
    fn what_cannot_be_unrolled_is_said() {
        for header in [
            "for (var i = 0u; i < M; i++) { // #unroll\n}",
            "while (true) { // #unroll\n}",
            "for (var i = 0u; i < 2u; i++) { // #unroll\n",
            "for (var  = 0u;  < 2u; ++) { // #unroll\n}",
            "for (var i = 0u; i < 4000000000u; i++) { // #unroll\nf();}",
            "for (var i = 0u; i < 18446744073709551615u + 1u; i++) { // #unroll\n}",
        ] {
            assert!(unroll(header).unwrap_err().contains("cannot unroll"));
        }
        let parentheses = format!("{}1u{}", "(".repeat(100_000), ")".repeat(100_000));
        let deep = format!("for (var i = 0u; i < {parentheses}; i++) {{ // #unroll\n}}");
        assert!(unroll(&deep).unwrap_err().contains("cannot unroll"));
        let within = "for (var i = 0u; i < 1u; i++) { // #unroll\n".repeat(40) + &"}".repeat(40);
        assert!(unroll(&within).unwrap_err().contains("loops within each other"));
        for ty in ["array<array<f32, 4000000000>, 4000000000>", "array<f32, 100000>", ""] {
            let tile = format!("var s: {ty}; // #registers\n");
            assert!(unroll(&tile).unwrap_err().contains("in registers"));
        }
        assert!(unroll("var : array<f32, 2>; // #registers\n[0]").unwrap_err().contains("in registers"));
    }
}
