//! Where the time of a run goes.

use crate::plan::Dispatch;

/// Time of one dispatch.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Path of the operation in the network.
    pub label: String,
    pub kernel: &'static str,
    pub variant: String,
    pub seconds: f64,
    pub flops: u64,
    pub bytes: u64,
}

impl Row {
    pub(crate) fn new(dispatch: &Dispatch, seconds: f64) -> Self {
        Row {
            label: dispatch.label.clone(),
            kernel: dispatch.shader.kernel.name,
            variant: dispatch.shader.kernel.variant(),
            seconds,
            flops: dispatch.flops,
            bytes: dispatch.bytes,
        }
    }
}

/// Times of all dispatches of a run, in order.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Profile {
    pub rows: Vec<Row>,
    /// Of a run with timestamps, from its submissions to their ends, seconds.
    pub wall: f64,
    /// Of a run without, measured between those with.
    pub plain_wall: f64,
}

impl Profile {
    /// What the timestamps add to a run, as a part of it.
    pub fn overhead(&self) -> f64 {
        self.wall / self.plain_wall - 1.0
    }

    pub fn seconds(&self) -> f64 {
        self.rows.iter().map(|r| r.seconds).sum()
    }

    /// Sums by kernel: name, launches, seconds, operations, bytes; slowest first.
    pub fn by_kernel(&self) -> Vec<(&'static str, usize, f64, u64, u64)> {
        let mut sums: Vec<(&'static str, usize, f64, u64, u64)> = Vec::new();
        for row in &self.rows {
            let at = sums.iter().position(|s| s.0 == row.kernel).unwrap_or_else(|| {
                sums.push((row.kernel, 0, 0.0, 0, 0));
                sums.len() - 1
            });
            let sum = &mut sums[at];
            sum.1 += 1;
            sum.2 += row.seconds;
            sum.3 += row.flops;
            sum.4 += row.bytes;
        }
        sums.sort_by(|a, b| b.2.total_cmp(&a.2));
        sums
    }
}
