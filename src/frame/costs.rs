//! How long the launches of a run take, for those who divide runs.

use super::Bindings;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::profile::Profile;
use crate::target::DeviceClass;

/// Seconds that each launch of a run takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    launches: Vec<f64>,
    speed: Speed,
}

/// How fast a device is, roughly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes read and written a second.
    pub bytes: f64,
    /// Seconds of a launch that does nothing.
    pub launch: f64,
}

impl Speed {
    /// Of a slow device of the class, at what this crate's kernels reach: slices become shorter than asked for rather than
    /// longer.
    pub fn of(class: DeviceClass) -> Speed {
        match class {
            DeviceClass::Discrete => Speed { flops: 2e12, bytes: 100e9, launch: 10e-6 },
            DeviceClass::Integrated => Speed { flops: 200e9, bytes: 20e9, launch: 20e-6 },
            DeviceClass::Cpu => Speed { flops: 10e9, bytes: 2e9, launch: 50e-6 },
        }
    }
}

impl Costs {
    /// From what a device of the plan's class can do: operations and bytes of each launch, whichever takes longer.
    pub fn predicted(plan: &Plan) -> Costs {
        Self::at(plan, Speed::of(plan.target.class))
    }

    /// The same for a device whose speed is known.
    pub fn at(plan: &Plan, speed: Speed) -> Costs {
        let launches = plan.run.iter();
        let launches = launches.map(|launch| speed.seconds(launch.flops, launch.bytes)).collect();
        Costs { launches, speed }
    }

    /// From timestamps: [`Network::profile`](crate::Network::profile), made once, while a program starts. It runs the network,
    /// so write to its states afterwards.
    pub fn measured(profile: &Profile) -> Costs {
        let launches: Vec<f64> = profile.rows.iter().map(|row| row.seconds.max(0.0)).collect();
        let bytes: u64 = profile.rows.iter().map(|row| row.bytes).sum();
        let flops: u64 = profile.rows.iter().map(|row| row.flops).sum();
        let least = |all: f64, one: f64| if one > 0.0 { all.min(one) } else { all };
        // The whole run's bytes a second: less than a launch reaches that does nothing but move them.
        let seconds = profile.seconds().max(1e-9);
        let speed = Speed {
            flops: (flops as f64 / seconds).max(1.0),
            bytes: (bytes as f64 / seconds).max(1.0),
            launch: launches.iter().copied().fold(1.0, least),
        };
        Costs { launches, speed }
    }

    /// Of a whole run, without textures at its ends.
    pub fn seconds(&self) -> f64 {
        self.launches.iter().sum()
    }

    /// Of each launch that the bindings record.
    pub(super) fn of(&self, bindings: &Bindings) -> Result<Vec<f64>> {
        let inner = &bindings.0;
        if self.launches.len() != inner.launches {
            return Err(Error::Invalid {
                what: "costs of a run".to_owned(),
                expected: format!("those of the network that is bound, of {} launches", inner.launches),
                found: format!("{} launches", self.launches.len()),
            });
        }
        let moved = |at: usize| self.speed.seconds(0, inner.bytes[at]);
        let cost =
            |(at, launch): (usize, &Option<usize>)| launch.map_or_else(|| moved(at), |i| self.launches[i]);
        Ok(inner.launch.iter().enumerate().map(cost).collect())
    }
}

impl Speed {
    fn seconds(&self, flops: u64, bytes: u64) -> f64 {
        self.launch + (flops as f64 / self.flops).max(bytes as f64 / self.bytes)
    }
}
