//! A network too large for the memory there is, computed in bands of lines: exactly, since the statistics of its group
//! norms are found first, over all bands, one norm after the other. Each norm costs a pass over what lies before it.

use std::ops::Range;

use crate::engine::Network;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::passes::norms_in_parts::{group_norms, norms_in_parts};
use crate::plan::{NetworkMemory, Plan};
use crate::target::Target;
use crate::tensor::Tensor;

/// Into so many bands a map is cut, the first number that fits.
const COUNTS: [usize; 12] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128];

/// What is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    /// Lines of what the network is given.
    pub height: usize,
    /// Bands begin at multiples of this.
    pub step: usize,
    /// Lines above and below of a band that reach into it.
    pub margin: usize,
}

/// A network in bands.
#[derive(Clone, Debug)]
pub(super) struct Bands {
    /// Height of the whole.
    height: usize,
    /// Lines of a band, with those of its margins.
    lines: usize,
    margin: usize,
    /// Lines of a band without.
    own: usize,
    /// For each norm the plan that finds its statistics, then the one of the result.
    plans: Vec<Plan>,
}

impl Bands {
    /// Plans the network in as few bands as fit. `graph` makes it for so many lines.
    pub fn plan(
        target: &Target,
        whole: Whole,
        fits: impl Fn(NetworkMemory) -> bool,
        graph: impl Fn(usize) -> Result<Graph>,
    ) -> Result<Option<Bands>> {
        let Whole { height, step, .. } = whole;
        let margin = whole.margin.next_multiple_of(step);
        let mut before = usize::MAX;
        for count in COUNTS {
            let own = height.div_ceil(count).next_multiple_of(step);
            let lines = own + 2 * margin;
            if lines >= height.min(before) {
                continue;
            }
            before = lines;
            let graph = graph(lines)?;
            let last = group_norms(&graph);
            let plan = |known| Plan::compile(&norms_in_parts(&graph, known, lines)?, target);
            // The last is likely to be the largest.
            let mut plans = Vec::new();
            for known in (0..=last).rev() {
                match plan(known) {
                    Ok(plan) if fits(plan.memory()) => plans.insert(0, plan),
                    Ok(_) | Err(Error::Limit { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            if plans.len() == last + 1 {
                return Ok(Some(Bands { height, lines, margin, own, plans }));
            }
        }
        Ok(None)
    }

    /// Lines that a band is given.
    pub fn lines(&self) -> usize {
        self.lines
    }

    pub fn count(&self) -> usize {
        self.height.div_ceil(self.own)
    }

    /// What the largest of its networks takes, and what is left of those before.
    pub fn memory(&self) -> NetworkMemory {
        let all = || self.plans.iter().map(Plan::memory);
        // Those before are kept for their statistics; what they are given is shared or small.
        let peak = all().map(|m| m.peak).max().unwrap_or(0);
        NetworkMemory { held: all().map(|m| m.held).max().unwrap_or(0), peak, ports: 0 }
    }

    /// Runs all bands. `make` makes each network, `tell` gives one what it reads of the lines from the given one on,
    /// `take` has the network of the result, which of its lines count, and where in the whole the first of them is.
    pub fn run(
        &self,
        make: impl Fn(Plan) -> Result<Network>,
        tell: impl Fn(&Network, Range<usize>) -> Result<()>,
        mut take: impl FnMut(&Network, Range<usize>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut before: Vec<Network> = Vec::new();
        for (norm, plan) in self.plans.iter().enumerate() {
            let network = make(plan.clone())?;
            for (i, other) in before.iter().enumerate() {
                network.copy(&format!("statistics{i}"), other, "statistics")?;
            }
            for at in (0..self.height).step_by(self.own) {
                let end = self.height.min(at + self.own);
                let first = at.saturating_sub(self.margin).min(self.height - self.lines);
                tell(&network, first..first + self.lines)?;
                if norm + 1 < self.plans.len() {
                    let inside = |line| f32::from(u8::from((at..end).contains(&(first + line))));
                    let inside: Vec<f32> = (0..self.lines).map(inside).collect();
                    network.write("inside", &Tensor::from_f32([self.lines], &inside))?;
                    network.submit(1)?;
                } else {
                    network.submit(1)?;
                    take(&network, at - first..end - first, at)?;
                }
            }
            network.set_aside()?;
            before.push(network);
        }
        Ok(())
    }
}
