//! A profile as other programs show it: a trace in Chrome's JSON, which Perfetto and `chrome://tracing` open, and a
//! flame chart as SVG, which every browser opens.
//!
//! Both nest launches by the parts of their labels: `down.0.conv` lies within `down.0`, that within `down`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::profile::{Profile, Row};
use crate::units;

/// Launches that share the first parts of their labels.
struct Frame<'a> {
    name: &'a str,
    /// Seconds, counted from the first launch.
    start: f64,
    seconds: f64,
    launches: Vec<&'a Row>,
    frames: Vec<Frame<'a>>,
}

impl<'a> Frame<'a> {
    fn new(name: &'a str, start: f64) -> Self {
        Frame { name, start, seconds: 0.0, launches: Vec::new(), frames: Vec::new() }
    }

    /// All launches, one after the other. With `merge` a frame takes in all of its name wherever they ran, else only those
    /// without others between.
    fn of(name: &'a str, profile: &'a Profile, merge: bool) -> Self {
        let mut root = Frame::new(name, 0.0);
        for row in &profile.rows {
            let at = root.seconds;
            root.insert(row.label.split('.').chain([row.kernel]), row, at, merge);
        }
        root
    }

    fn insert(&mut self, mut path: impl Iterator<Item = &'a str>, row: &'a Row, at: f64, merge: bool) {
        self.seconds += row.seconds;
        let Some(name) = path.next() else {
            self.launches.push(row);
            return;
        };
        let place = match merge {
            true => self.frames.iter().position(|frame| frame.name == name),
            false => self.frames.len().checked_sub(1).filter(|&last| {
                let last = &self.frames[last];
                // A launch is an event of its own.
                last.name == name && last.launches.is_empty()
            }),
        };
        let place = place.unwrap_or_else(|| {
            self.frames.push(Frame::new(name, at));
            self.frames.len() - 1
        });
        // Not generic in the depth: the iterator is the same all the way down.
        let path: &mut dyn Iterator<Item = &'a str> = &mut path;
        self.frames[place].insert_rest(path, row, at, merge);
    }

    fn insert_rest(&mut self, path: &mut dyn Iterator<Item = &'a str>, row: &'a Row, at: f64, merge: bool) {
        self.insert(path, row, at, merge);
    }

    fn depth(&self) -> usize {
        1 + self.frames.iter().map(Frame::depth).max().unwrap_or(0)
    }
}

/// Chrome's trace format. Launches are laid end to end: what lies between them is not measured.
pub fn trace(name: &str, device: &str, profile: &Profile) -> Value {
    let mut events = vec![
        json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": device}}),
        json!({"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "launches"}}),
    ];
    push_events(&Frame::of(name, profile, false), &mut events);
    json!({"displayTimeUnit": "ms", "traceEvents": events})
}

fn push_events(frame: &Frame, events: &mut Vec<Value>) {
    let mut event = json!({
        "ph": "X", "pid": 1, "tid": 1, "name": frame.name, "cat": "layer",
        "ts": frame.start * 1e6, "dur": frame.seconds * 1e6,
    });
    if let [row] = frame.launches[..] {
        event["cat"] = "launch".into();
        event["args"] =
            json!({"layer": row.label, "variant": row.variant, "flops": row.flops, "bytes": row.bytes});
    }
    events.push(event);
    frame.frames.iter().for_each(|inner| push_events(inner, events));
}

const WIDTH: f64 = 1200.0;
const LINE: f64 = 18.0;
/// Of a letter, about.
const LETTER: f64 = 6.6;
/// Frames that are narrower than this, in pixels, are left out.
const NARROWEST: f64 = 0.3;

/// A flame chart, the whole on top: as wide as it takes time, frames of one name together.
pub fn flame(name: &str, device: &str, profile: &Profile) -> String {
    let root = Frame::of(name, profile, true);
    let height = LINE * (root.depth() as f64 + 1.0) + 8.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fffdf8\"/>\n"
    );
    let title =
        format!("{name} on {device}: {}, {} launches", units::seconds(root.seconds), profile.rows.len());
    let _ = writeln!(text, "<text x=\"4\" y=\"13\" fill=\"#4a463e\">{}</text>", escaped(&title));
    let scale = if root.seconds > 0.0 { WIDTH / root.seconds } else { 0.0 };
    draw(&mut text, &root, root.seconds, scale, 0.0, LINE);
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, frame: &Frame, whole: f64, scale: f64, x: f64, y: f64) {
    let width = frame.seconds * scale;
    if width < NARROWEST {
        return;
    }
    let (share, name) = (100.0 * frame.seconds / whole, escaped(frame.name));
    let time = units::seconds(frame.seconds);
    let _ = write!(text, "<g><title>{name}: {time}, {share:.1} %");
    if !frame.launches.is_empty() {
        let flops: u64 = frame.launches.iter().map(|row| row.flops).sum();
        let rate = units::si(flops as f64 / frame.seconds, "FLOP/s");
        let _ = write!(text, ", {} launches, {rate}", frame.launches.len());
    }
    let _ = write!(
        text,
        "</title><rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" fill=\"{}\" stroke=\"#fffdf8\"/>",
        LINE - 1.0,
        colour(frame.name)
    );
    let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
    if letters > 2 {
        let shown: String = frame.name.chars().take(letters).collect();
        let _ = write!(text, "<text x=\"{:.2}\" y=\"{}\">{}</text>", x + 3.0, y + 13.0, escaped(&shown));
    }
    text.push_str("</g>\n");
    let mut x = x;
    for inner in &frame.frames {
        draw(text, inner, whole, scale, x, y + LINE);
        x += inner.seconds * scale;
    }
}

/// A warm one that a name always has.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    format!("hsl({},{}%,{}%)", 20 + hash % 190, 35 + (hash >> 8) % 25, 70 + (hash >> 16) % 14)
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // No control character may stand in XML, escaped or not.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let row = |label: &str, milliseconds: f64| Row {
            label: label.to_owned(),
            kernel: "conv2d_rows",
            variant: "tile=4".to_owned(),
            seconds: milliseconds * 1e-3,
            flops: 1_000_000,
            bytes: 1000,
        };
        let rows = vec![row("a.x", 1.0), row("a.y<1>", 2.0), row("b", 3.0), row("a.x", 4.0), row("a.x", 5.0)];
        Profile { rows, wall: 0.016, plain_wall: 0.015 }
    }

    #[test]
    fn a_trace_nests_and_adds_up() {
        let trace = trace("net", "device", &profile());
        let events = trace["traceEvents"].as_array().unwrap();
        let spans: Vec<(&str, f64, f64)> = events
            .iter()
            .filter(|e| e["ph"] == "X")
            .map(|e| (e["name"].as_str().unwrap(), e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()))
            .collect();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(spans[0].0 == "net" && close(spans[0].2, 15_000.0), "{spans:?}");
        // What ran before b and after it are two spans.
        let a: Vec<_> = spans.iter().filter(|s| s.0 == "a").collect();
        assert!(
            a.len() == 2 && close(a[0].2, 3000.0) && close(a[1].1, 6000.0) && close(a[1].2, 9000.0),
            "{a:?}"
        );
        let launches: Vec<_> = events.iter().filter(|e| e["cat"] == "launch").collect();
        assert_eq!(launches.len(), 5);
        assert_eq!(launches[1]["args"]["layer"], "a.y<1>");
        // Launches are end to end.
        let mut at = 0.0;
        for launch in launches {
            assert!(close(launch["ts"].as_f64().unwrap(), at), "{launch}");
            at += launch["dur"].as_f64().unwrap();
        }
    }

    #[test]
    fn a_flame_chart_is_whole_and_safe() {
        let svg = flame("a & b", "device", &profile());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(
            svg.contains("a &amp; b") && svg.contains("y&lt;1&gt;: 2.00 ms") && !svg.contains("<1>"),
            "{svg}"
        );
        // Both a's are one frame, and the three launches of a.x.
        assert_eq!(svg.matches("<title>a: 12.0 ms, 80.0 %").count(), 1, "{svg}");
        assert!(svg.contains("conv2d_rows: 10.0 ms, 66.7 %, 3 launches, 300 MFLOP/s"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let empty = Profile { rows: Vec::new(), wall: 0.0, plain_wall: 0.0 };
        assert!(flame("x", "y", &empty).contains("</svg>"));
        assert_eq!(trace("x", "y", &empty)["traceEvents"].as_array().unwrap().len(), 3);
    }
}
