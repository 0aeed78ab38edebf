//! Troubles that are planted in a device, so that tests meet them at every place where a real device can make them.

use std::sync::{Mutex, PoisonError};

use super::Gpu;

/// What befalls a device. For tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is gone, between two calls of wgpu.
    Loss,
    /// It refuses what is asked for next, for want of memory, and goes on.
    NoMemory,
    /// It does not answer for as long as is waited.
    Silence,
}

/// The next trouble, and how many of its places come before it.
#[derive(Default)]
pub(super) struct Planted(Mutex<Option<(Trouble, u64)>>);

impl Planted {
    /// One of the places of a trouble; whether it comes here.
    fn comes(&self, trouble: Trouble) -> bool {
        let mut planted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *planted {
            Some((next, 0)) if *next == trouble => {
                *planted = None;
                true
            }
            Some((next, before)) if *next == trouble => {
                *before -= 1;
                false
            }
            _ => false,
        }
    }
}

impl Gpu {
    /// Lets trouble come at the place that follows this many others: calls of wgpu that make, submit or wait for something.
    /// For tests.
    #[doc(hidden)]
    pub fn plant_trouble(&self, trouble: Trouble, after: u64) {
        *self.0.trouble.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((trouble, after));
    }

    /// Takes back a trouble that has not come, and gives the number of places that were still before it. For tests.
    #[doc(hidden)]
    pub fn spare_trouble(&self) -> Option<u64> {
        self.0.trouble.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, before)| before)
    }

    /// A place where the device may be lost.
    pub(super) fn meet_loss(&self) {
        if self.0.trouble.comes(Trouble::Loss) {
            self.0.device.destroy();
        }
    }

    /// A place where something is asked for: the device may be lost, or have no memory for it.
    pub(super) fn refuses(&self) -> bool {
        self.meet_loss();
        self.0.trouble.comes(Trouble::NoMemory)
    }

    /// A place where an answer is waited for: whether none comes.
    pub(super) fn is_silent(&self) -> bool {
        self.meet_loss();
        self.0.trouble.comes(Trouble::Silence)
    }
}
