//! Tries to break Holdfast: simulation from a seed, faults, workloads, histories and checkers.
//!
//! **Owns** everything that presses on the product. **Must never** be imported by product code, nor reach past the seams
//! and the public API. **Read next**: [`sim`] (one run), [`faults`] (its plan), [`workload`] (its clients), [`checkers`].

pub mod bad;
pub mod checkers;
pub mod corpus;
pub mod faults;
pub mod history;
pub mod net;
pub mod readout;
pub mod real;
pub mod shrink;
pub mod sim;
pub mod sometimes;
pub mod workload;
pub mod world;

/// An error with its causes, outermost first.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}
