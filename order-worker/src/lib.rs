//! Order workers: they claim orders from the ledger and run them.
//!
//! **What it is.** A pure function says what follows from what ([`step`]); an engine claims, performs and reports ([`engine`]); adapters
//! speak to the payment provider ([`payment`]) and to buyers ([`notify`]); an HTTP listener takes the provider's webhooks ([`http`]).
//!
//! **Owns** payment and notification. **Must never** keep state of its own that a crash would lose.
//! **Read next**: [`step`], then [`engine`].

pub mod limits;
pub mod seams;

pub mod payment;
pub mod step;

pub use client_sdk::breaker;
pub mod ledger;
pub mod metrics;
pub mod notify;

pub mod engine;

pub mod config;
pub mod http;
pub mod ledger_sdk;
pub mod process;
