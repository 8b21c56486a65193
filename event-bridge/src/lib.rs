//! The Holdfast feed, published as CloudEvents to a broker.
//!
//! **What it is.** Every change of the ledger becomes one message, at least once and in order per product, whatever becomes of the
//! broker, the nodes or this process. [`window`] decides what may be sent and how far all is confirmed; [`bridge`] is the loop around it.
//!
//! ```text
//!   client-sdk Watch ──frames──▶ event (CloudEvents) ──▶ window ──▶ Link (AMQP 0.9.1, publisher confirms)
//!                                                          │ all before it confirmed
//!                                                          ▼
//!                                                     cursor file
//! ```
//!
//! **Owns** event ids, routing keys, the stored cursor. **Must never** store a cursor past a message that was not confirmed, or send two
//! changes of one product at the same time unless it was told to.
//! **Read next**: [`bridge::Bridge`], [`window::Window`].

pub mod amqp;
pub mod bridge;
pub mod broker;
pub mod config;
pub mod cursor;
pub mod event;
pub mod limits;
pub mod process;
pub mod telling;
pub mod window;
