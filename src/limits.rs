//! Bounds on what a model of strangers may make this machine do.
//!
//! Each is checked before what it bounds is allocated, read or launched; what goes beyond is [`Error::Bound`], which names
//! the bound, what was found and how it is raised. `SECURITY.md` says what is promised of files, and how that is tested.

use std::cell::Cell;
use std::str::FromStr;
use std::sync::RwLock;

use crate::error::{Error, Result};
use crate::units;

/// Something that has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Bytes of a file that is mapped: weights, models, values beside models. Mapping takes none of them into memory.
    File,
    /// Bytes of a file that is read into memory and of a header: configurations, vocabularies, names of tensors.
    Text,
    /// Tensors in a file.
    Tensors,
    /// Nodes of a model's file, and values of a graph.
    Nodes,
    /// Outputs of a graph.
    Outputs,
    /// Operations of one run, as [`Plan::flops`](crate::Plan::flops) counts them.
    Flops,
    /// Bytes on the device while a network is loaded or run, [`Plan::peak_bytes`](crate::Plan::peak_bytes).
    Device,
    /// Pixels of a picture that is decoded.
    Pixels,
}

/// How a bound is called, what it is if nobody says, and what it counts.
const BOUNDS: [(Bound, &str, u64, &str); 8] = [
    (Bound::File, "file", 256 << 30, "the file's size"),
    (Bound::Text, "text", 64 << 20, "what is read into memory"),
    (Bound::Tensors, "tensors", 1 << 18, "the number of tensors"),
    (Bound::Nodes, "nodes", 1 << 18, "the number of nodes"),
    (Bound::Outputs, "outputs", 1 << 12, "the number of outputs"),
    (Bound::Flops, "flops", 1_000_000_000_000_000, "the operations of a run"),
    (Bound::Device, "device", 256 << 30, "memory of the device"),
    (Bound::Pixels, "pixels", 1 << 26, "the number of pixels"),
];

impl Bound {
    /// Its name in [`Limits`] that are read from text.
    pub fn name(self) -> &'static str {
        BOUNDS[self as usize].1
    }

    pub(crate) fn counts(self) -> &'static str {
        BOUNDS[self as usize].3
    }

    pub(crate) fn show(self, value: u64) -> String {
        match self {
            Bound::File | Bound::Text | Bound::Device => units::bytes(value),
            Bound::Flops => units::si(value as f64, "FLOP"),
            _ => units::thousands(value),
        }
    }
}

/// What each [`Bound`] is; read from text as `flops=20T,file=8GiB`, where what is not named stays as it is by default.
///
/// What is opened and planned is held to the limits that hold then: those of [`Limits::within`] on its thread, else those that were
/// [installed](Limits::install) for the process, else the default.
///
/// ```
/// use aquatint::{Error, Limits, Weights, limits::Bound};
///
/// let limits: Limits = "file=1GiB,tensors=1000".parse()?;
/// assert_eq!(limits.of(Bound::Tensors), 1000);
/// match limits.within(|| Weights::open("model.safetensors")) {
///     Ok(weights) => println!("{} tensors", weights.names().len()),
///     Err(Error::Bound { bound, .. }) => println!("more than we want to read: {}", bound.name()),
///     Err(error) => println!("{error}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([u64; BOUNDS.len()]);

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

static INSTALLED: RwLock<Limits> = RwLock::new(Limits::DEFAULT);

thread_local! {
    static WITHIN: Cell<Option<Limits>> = const { Cell::new(None) };
}

impl Limits {
    /// What holds if nobody says otherwise: models that are published today are below, with room.
    pub const DEFAULT: Limits = {
        let mut values = [0; BOUNDS.len()];
        let mut i = 0;
        while i < BOUNDS.len() {
            assert!(BOUNDS[i].0 as usize == i, "each bound stands in its own place");
            values[i] = BOUNDS[i].2;
            i += 1;
        }
        Limits(values)
    };

    pub fn of(&self, bound: Bound) -> u64 {
        self.0[bound as usize]
    }

    /// The same with another value of one bound.
    pub fn with(mut self, bound: Bound, most: u64) -> Limits {
        self.0[bound as usize] = most;
        self
    }

    /// Makes these the limits of the process, on all threads that are not [within](Limits::within) others.
    pub fn install(self) {
        *INSTALLED.write().unwrap_or_else(std::sync::PoisonError::into_inner) = self;
    }

    /// Does something under these limits, on this thread; threads that it starts are not held to them.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Limits>);
        impl Drop for Restore {
            fn drop(&mut self) {
                WITHIN.set(self.0);
            }
        }
        let _restore = Restore(WITHIN.replace(Some(self)));
        work()
    }

    /// Those that hold on this thread.
    pub fn current() -> Limits {
        let installed = || *INSTALLED.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        WITHIN.get().unwrap_or_else(installed)
    }

    /// Whether `what` may have `found` of something.
    ///
    /// # Errors
    /// [`Error::Bound`] if that is more than the bound.
    pub fn check(&self, bound: Bound, what: impl FnOnce() -> String, found: u64) -> Result<()> {
        match self.of(bound) {
            most if found > most => Err(Error::Bound { what: what(), bound, found, most }),
            _ => Ok(()),
        }
    }
}

impl FromStr for Limits {
    type Err = Error;

    /// # Errors
    /// [`Error::Unknown`] for a bound that is none of these, [`Error::Invalid`] for a value that is no number.
    fn from_str(text: &str) -> Result<Limits> {
        let mut limits = Limits::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let known = BOUNDS.iter().find(|bound| bound.1 == name.trim());
            let bound = known.ok_or_else(|| Error::Unknown {
                what: "limit",
                found: word.to_owned(),
                expected: BOUNDS.map(|bound| format!("{}=N", bound.1)).join(", "),
            })?;
            let value = units::parse_bytes(value).map_err(|_| Error::Invalid {
                what: format!("the limit {name}"),
                expected: "a number, as 20000, 64MiB or 1.5T".to_owned(),
                found: format!("\"{value}\""),
            })?;
            limits = limits.with(bound.0, value);
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read() {
        let limits: Limits = "flops=1.5T, file=2GiB,,nodes=7".parse().unwrap();
        assert_eq!(limits.of(Bound::Flops), 1_500_000_000_000);
        assert_eq!((limits.of(Bound::File), limits.of(Bound::Nodes)), (2 << 30, 7));
        assert_eq!(limits.of(Bound::Text), Limits::DEFAULT.of(Bound::Text));
        assert_eq!("".parse::<Limits>().unwrap(), Limits::DEFAULT);
        assert!(matches!("flop=1".parse::<Limits>(), Err(Error::Unknown { .. })));
        for text in ["flops", "flops=", "flops=many", "flops=-1"] {
            assert!(matches!(text.parse::<Limits>(), Err(Error::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn the_innermost_limits_hold() {
        let nodes = |n| Limits::DEFAULT.with(Bound::Nodes, n);
        let now = || Limits::current().of(Bound::Nodes);
        let seen = nodes(3).within(|| {
            let inner = nodes(2).within(now);
            (inner, now(), std::thread::spawn(now).join().unwrap())
        });
        assert_eq!(seen, (2, 3, Limits::DEFAULT.of(Bound::Nodes)));
        let panicked = std::panic::catch_unwind(|| nodes(1).within(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(now(), Limits::DEFAULT.of(Bound::Nodes));
    }

    #[test]
    fn what_is_over_is_named_with_what_raises_it() {
        let limits = Limits::DEFAULT.with(Bound::Flops, 1000);
        assert!(limits.check(Bound::Flops, String::new, 1000).is_ok());
        let error = limits.check(Bound::Flops, || "a plan".to_owned(), 2_500_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a plan: the operations of a run: 2.50 MFLOP, and 1.00 kFLOP are allowed; --limits flops=2500000 raises that"
        );
    }
}
