//! Results for people and for other programs: each form a file.

mod cells;
mod colour;
pub mod comparison;
pub mod csv;
pub mod html;
pub mod json;
pub mod junit;
pub mod ledger;
pub mod markdown;
mod plots;
pub mod table;
pub mod trace;
