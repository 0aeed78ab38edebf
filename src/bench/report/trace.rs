//! Results as a trace in Chrome's format, for Perfetto: a track with what each row did, and one with the kernels of one of
//! its runs. When what happened is not kept, so all lies end to end.

use serde_json::{Value, json};

use crate::bench::record::{Results, Row};

/// Numbers of the tracks.
const ROWS: u32 = 1;
const KERNELS: u32 = 2;

/// The trace as JSON.
pub fn render(results: &Results) -> String {
    let mut events = vec![
        named("process_name", ROWS, &results.machine.adapter.name),
        named("thread_name", ROWS, "rows"),
        named("thread_name", KERNELS, "kernels of one run"),
    ];
    let mut at = 0.0;
    for row in &results.rows {
        let end = at + parts(row).iter().map(|(_, seconds)| seconds).sum::<f64>();
        events.push(slice(&row.id, ROWS, at, end - at, json!({"status": row.status, "reason": row.reason})));
        let mut part = at;
        for (name, seconds) in parts(row) {
            events.push(slice(name, ROWS, part, seconds, json!({})));
            part += seconds;
        }
        let mut kernel = at;
        for k in &row.kernels {
            let arguments =
                json!({"launches": k.launches, "flops": k.flops, "bytes": k.bytes, "share": k.share});
            events.push(slice(&k.kernel, KERNELS, kernel, k.seconds, arguments));
            kernel += k.seconds;
        }
        at = end.max(kernel);
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
}

/// What a row did, in its order.
fn parts(row: &Row) -> Vec<(&'static str, f64)> {
    let mut parts = Vec::new();
    if let Some(start) = row.start {
        parts.extend([
            ("plan", start.plan),
            ("compile", start.compile),
            ("load", start.load),
            ("first run", start.first_run),
        ]);
    }
    if let Some(times) = &row.times {
        let runs = f64::from(times.runs_per_sample);
        parts.push(("samples", times.wall_samples.iter().sum::<f64>() * runs));
    }
    parts
}

fn named(what: &str, track: u32, name: &str) -> Value {
    json!({"name": what, "ph": "M", "pid": 1, "tid": track, "args": {"name": name}})
}

/// Times in seconds; traces have microseconds.
fn slice(name: &str, track: u32, at: f64, seconds: f64, arguments: Value) -> Value {
    json!({"name": name, "ph": "X", "pid": 1, "tid": track, "ts": at * 1e6, "dur": seconds * 1e6, "args": arguments})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::synthetic::{self, Device, Noise};

    #[test]
    fn slices_of_a_track_nest_and_do_not_overlap() {
        let results = synthetic::results(Device::Discrete, 1, Noise::default());
        let trace: Value = serde_json::from_str(&render(&results)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
        let of = |track: u32| events.iter().filter(move |e| e["ph"] == "X" && e["tid"] == track);
        let rows: Vec<_> = of(ROWS).filter(|e| results.rows.iter().any(|r| e["name"] == r.id)).collect();
        assert_eq!(rows.len(), results.rows.len());
        for pair in rows.windows(2) {
            assert!(number(pair[0], "ts") + number(pair[0], "dur") <= number(pair[1], "ts") + 1e-3);
        }
        let kernels: Vec<_> = of(KERNELS).collect();
        assert_eq!(kernels.len(), results.rows.iter().map(|row| row.kernels.len()).sum::<usize>());
        for pair in kernels.windows(2) {
            assert!(number(pair[0], "ts") + number(pair[0], "dur") <= number(pair[1], "ts") + 1e-3);
        }
    }
}
