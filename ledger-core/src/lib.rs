//! The stock ledger: a pure, deterministic, total state machine.
//!
//! **What it is.** `Ledger::apply(position, entry)` decides every command of an entry, in order, and
//! answers with one [`Outcome`] a command and the [`Change`]s that happened. Same log, same bytes.
//!
//! **Owns** the words of the domain (products, offers, reservations, orders, limits, ledger time), the state,
//! its codec, its digest and its audit.
//!
//! **Must never** do I/O, read a clock, draw a random number, spawn, iterate a hash map for a
//! decision, return an error from `apply`, or know about Raft or the network.
//!
//! **Read next**: [`types`] (the nouns), [`command`], [`outcome`], [`change`], then [`ledger`];
//! inside: `state` (what there is), `apply` (what is decided), `digest`, `snapshot`, `audit`.

mod apply;
mod audit;
#[doc(hidden)]
pub mod bad;
pub mod change;
pub mod codec;
pub mod command;
mod digest;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
pub mod ledger;
pub mod limits;
pub mod order;
pub mod outcome;
mod reads;
mod snapshot;
mod state;
pub mod types;
pub mod view;

pub use change::{Change, ChangeKind};
pub use command::{Command, Entry};
pub use ledger::{Applied, Ledger, Position};
pub use outcome::{NotNow, Outcome, Refusal, Settled};
pub use state::seed::IndexSeed;
pub use types::*;
