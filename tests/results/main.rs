//! Results of benchmarks: what is told of them, without measuring any.

mod comparison;
mod error_rates;
mod files;
mod ledger;
mod program;
