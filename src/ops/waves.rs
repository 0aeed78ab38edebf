//! How long a device takes for the workgroups of a product, by a model: what decides between ways to divide it where nothing was
//! measured.
//!
//! A device is a number of units, each of which computes a few workgroups of a kind at a time. Those that are left when all units
//! have had the same number take as long as a full turn, with most of the device idle: two workgroups a unit for three units' worth
//! of work are a quarter lost, and a division of larger parts that comes out even is quicker than one of the best that does not.
//!
//! Times are counted in operations that a unit does in the time at its full rate. Measured on an NVIDIA H200, whose 132 units do
//! 1.6 TFLOP/s each in cooperative matrices, and 0.29 in f32.

use crate::target::{DeviceClass, Target};

/// What is known of workgroups of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// How many a unit computes at a time.
    pub at_a_time: usize,
    /// What share of the full rate it reaches with so many.
    pub rate: f64,
}

/// Units of a device; none where a product is computed number by number.
pub fn units(target: &Target) -> Option<usize> {
    match target.class {
        DeviceClass::Discrete => Some(128),
        DeviceClass::Integrated => Some(32),
        DeviceClass::Cpu => None,
    }
}

impl Pace {
    /// Time of so many workgroups on so many units, where one takes `operations`, at the full rate of those of a kind.
    pub fn time(&self, units: usize, workgroups: usize, operations: f64) -> f64 {
        let turn = units * self.at_a_time;
        let (turns, rest) = (workgroups / turn, workgroups % turn);
        let last = match rest.div_ceil(units) {
            0 => 0.0,
            n => self.alone().max(n as f64),
        };
        ((turns * self.at_a_time) as f64 + last) * operations / self.rate
    }

    /// How much longer one workgroup takes alone than its share of the time of many: it waits for memory and barriers with nothing
    /// else to do, small ones the most.
    fn alone(&self) -> f64 {
        match self.at_a_time {
            1 => 1.0,
            n => 1.2 + 0.1 * n as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_out_even_costs_a_turn() {
        let pace = Pace { at_a_time: 2, rate: 0.5 };
        let time = |workgroups| pace.time(10, workgroups, 1.0);
        assert_eq!(time(20), 4.0);
        assert_eq!(time(15), 4.0, "as long as if all units had two");
        assert_eq!(time(10), 2.8, "one alone takes more than half");
        assert_eq!(time(1), 2.8);
        assert_eq!(time(21), 4.0 + 2.8);
        assert_eq!(time(0), 0.0);
        let single = Pace { at_a_time: 1, rate: 1.0 };
        assert_eq!([10, 11, 20].map(|n| single.time(10, n, 1.0)), [1.0, 2.0, 2.0]);
    }
}
