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
