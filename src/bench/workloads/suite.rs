//! Which cases make a suite, in the order in which they are measured: what tells most for its time comes first, so that a
//! time limit cuts off what matters least.

use std::fmt;
use std::str::FromStr;

use super::kernels::{kernels, large};
use super::pictures::{Letters, StableDiffusion};
use super::published::{Kind, Published};
use crate::bench::case::{Case, Label};
use crate::bench::network::NetworkCase;
use crate::bench::record::Group;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Networks of moderate size, one picture at a time, and one kernel of each family.
    Quick,
    /// Those, all of diffusion, and every kernel.
    Standard,
    /// That with larger batches, and kernels at sizes that fill a large GPU.
    Full,
    /// Kernels alone.
    Kernels,
}

impl Suite {
    pub const ALL: [Suite; 4] = [Suite::Quick, Suite::Standard, Suite::Full, Suite::Kernels];

    pub fn name(self) -> &'static str {
        match self {
            Suite::Quick => "quick",
            Suite::Standard => "standard",
            Suite::Full => "full",
            Suite::Kernels => "kernels",
        }
    }

    /// Seconds that it may take unless asked otherwise.
    pub fn time_limit(self) -> Option<f64> {
        match self {
            Suite::Quick | Suite::Kernels => Some(90.0),
            Suite::Standard => Some(120.0),
            Suite::Full => None,
        }
    }

    /// Seconds of sampling that a row may take unless asked otherwise.
    pub fn row_limit(self) -> f64 {
        match self {
            Suite::Quick | Suite::Kernels => 1.0,
            Suite::Standard => 2.0,
            Suite::Full => 5.0,
        }
    }

    /// Pictures at a time unless asked otherwise.
    pub fn batches(self) -> &'static [u32] {
        match self {
            Suite::Full => &[1, 4, 16],
            _ => &[1],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Suite::ALL.into_iter().find(|suite| suite.name() == text).ok_or_else(|| Error::Unknown {
            what: "suite",
            found: text.to_owned(),
            expected: Suite::ALL.map(Suite::name).join(" "),
        })
    }
}

/// What everybody compares.
const FIRST: [&str; 3] = ["mobilenet_v2", "resnet50", "efficientnet_b0"];
/// What makes the quick suite whole.
const THEN: [&str; 4] = ["ddpm", "text", "ssdlite", "rrdb"];
/// Networks that the standard suite adds.
const HEAVY: [&str; 3] = ["unet_32", "decoder_32", "unet_64"];

/// The cases of a suite.
pub fn cases(suite: Suite, dtypes: &[DType], batches: &[u32]) -> Vec<Box<dyn Case>> {
    let mut all: Vec<Box<dyn Case>> = Vec::new();
    if suite == Suite::Kernels {
        dtypes.iter().for_each(|&dtype| all.extend(kernels(dtype)));
        return all;
    }
    let networks = |all: &mut Vec<Box<dyn Case>>, names: &[&str]| {
        for &dtype in dtypes {
            let batched = batches.iter().flat_map(|&batch| names.iter().map(move |name| (name, batch)));
            all.extend(batched.map(|(name, batch)| published(name, dtype, batch)));
        }
    };
    networks(&mut all, &FIRST);
    for &dtype in dtypes {
        let kernels = kernels(dtype);
        match suite {
            Suite::Quick => all.extend(first_of_each_family(kernels)),
            _ => all.extend(kernels),
        }
    }
    networks(&mut all, &THEN);
    all.extend(dtypes.iter().map(|&dtype| Box::new(Letters::new(dtype)) as Box<dyn Case>));
    if suite == Suite::Full {
        dtypes.iter().for_each(|&dtype| all.extend(large(dtype)));
    }
    if suite != Suite::Quick {
        networks(&mut all, &HEAVY);
        all.extend(dtypes.iter().map(|&dtype| Box::new(StableDiffusion::new(dtype)) as Box<dyn Case>));
    }
    all
}

fn published(name: &str, dtype: DType, batch: u32) -> Box<dyn Case> {
    let reference = Published::find(name);
    let group = match reference.kind {
        Kind::Vision => Group::Network,
        _ => Group::Diffusion,
    };
    let label = Label { group, name: name.to_owned(), title: reference.title.to_owned(), dtype, batch };
    Box::new(NetworkCase::new(label, move |contents| reference.make(contents, batch as usize, dtype)))
}

fn first_of_each_family(kernels: Vec<Box<dyn Case>>) -> impl Iterator<Item = Box<dyn Case>> {
    let mut last = String::new();
    kernels.into_iter().filter(move |case| {
        let name = &case.label().name;
        let family = name.split('/').next().unwrap_or(name).to_owned();
        let is_first = family != last;
        last = family;
        is_first
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::target::Target;

    #[test]
    fn ids_are_unique_and_every_case_can_be_planned() {
        for suite in Suite::ALL {
            assert_eq!(suite.name().parse::<Suite>().unwrap(), suite);
            let mut ids = HashSet::new();
            for case in cases(suite, &[DType::F32, DType::F16], &[1, 2]) {
                let id = case.label().id();
                let estimate = case.estimate(&Target::typical());
                let estimate = estimate.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert!(estimate.bytes > 0 && estimate.launches > 0, "{id}: {estimate:?}");
                assert!(ids.insert(id.clone()), "{id} twice in {suite}");
            }
        }
        assert!("slow".parse::<Suite>().is_err());
    }
}
