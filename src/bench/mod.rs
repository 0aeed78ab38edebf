//! Benchmarks: how fast a device runs networks, how close to its limits that is, and whether the answers are right.
//!
//! A run measures the device's [limits](record::Roof), then one case after the other: the case is checked against a
//! reference first, timed only if it is right, in several visits, and becomes a [row](record::Row) of [results](record::Results), which
//! are written, drawn and compared.

pub mod canary;
pub mod case;
pub mod check;
pub mod clock;
pub mod compare;
mod computed;
pub mod exit;
pub mod floor;
pub mod given;
pub mod hashed;
pub mod host;
pub mod machine;
pub mod network;
pub mod patterns;
pub mod peers;
pub mod random;
pub mod record;
pub mod replays;
pub mod report;
pub mod roof;
pub mod run;
mod series;
pub mod statistics;
pub mod stop;
pub mod synthetic;
pub mod timeline;
pub mod verdict;
mod visits;
pub mod workloads;
