//! Numbers for people.

/// A number of bytes: `3.0 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// The bytes that a text says: `900MiB`, `6GB`, `6 G`, `123456`. Prefixes are powers of 1024 with an `i` and of 1000 without.
///
/// # Errors
/// What was expected, for any other text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = text[end..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let base: f64 = if unit.ends_with('i') { 1024.0 } else { 1000.0 };
    let power = match unit.trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("\"{text}\" is no number of bytes, as 6GB, 900MiB or 123456")),
    };
    let number: f64 = text[..end].parse().map_err(|_| format!("\"{text}\" does not begin with a number"))?;
    Ok((number * base.powi(power)) as u64)
}

/// A large number with an SI prefix and three digits: `si(1.234e9, "FLOP")` is `1.23 GFLOP`.
pub fn si(n: f64, unit: &str) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = n;
    let mut prefix = 0;
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    format!("{} {}{unit}", three_digits(value), PREFIXES[prefix])
}

/// A time: `1.23 s`, `45.6 ms`, `789 µs`.
pub fn seconds(s: f64) -> String {
    match s {
        _ if s >= 0.9995 => format!("{} s", three_digits(s)),
        _ if s >= 0.9995e-3 => format!("{} ms", three_digits(s * 1e3)),
        _ => format!("{} µs", three_digits(s * 1e6)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with its thousands apart: `1,476,849`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read() {
        for (text, wanted) in [("0", 0), ("123456", 123_456), ("900MiB", 900 << 20), ("6GB", 6_000_000_000)] {
            assert_eq!(parse_bytes(text), Ok(wanted), "{text}");
        }
        assert_eq!(parse_bytes(" 1.5 gib "), Ok(3 << 29));
        for text in ["", "GB", "-1", "6 elephants", "1.2.3M", "6iGB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_three_digits_across_the_steps() {
        assert_eq!(
            [0, 1023, 1024, 1048575, 3 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "3.0 GiB"]
        );
        assert_eq!(
            [0.0, 999.4, 999.6, 1.234e9, 5e17].map(|n| si(n, "X")),
            ["0.00 X", "999 X", "1.00 kX", "1.23 GX", "500 PX"]
        );
        assert_eq!(
            [2.0, 0.9996, 0.0456, 1e-3, 5e-5].map(seconds),
            ["2.00 s", "1.00 s", "45.6 ms", "1.00 ms", "50.0 µs"]
        );
        assert_eq!([0, 999, 1000, 1476849].map(thousands), ["0", "999", "1,000", "1,476,849"]);
    }
}
