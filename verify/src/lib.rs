//! # qexact-verify
//!
//! Holds kernels against the reference, and both against recordings of real runtimes.

pub mod analyze;
pub mod bench;
pub mod case;
pub mod check;
pub mod embedded;
pub mod exhaust;
pub mod explain;
pub mod fill;
pub mod guard;
pub mod inspect;
pub mod network;
mod other_rules;
pub mod render;
pub mod vectors;
