//! The Holdfast client.
//!
//! **What it is.** [`Client`] finds the leader of a product's shard, joins concurrent calls into batches, retries with the same
//! id until the deadline, and answers every verb with one [`Outcome`].
//!
//! **Owns** routing, batching, retries, deadlines and the feed. **Must never** invent or swap ids, or report *unknown* as *no*.
//! **Read next**: [`Client`], [`Outcome`].

mod builder;
mod client;
mod outcome;
mod given;
mod write;
mod read;
mod watch;
mod calling;
mod doubt;
mod many;
mod lane;
mod node;
mod routes;
mod dial;
mod chance;
pub mod limits;

pub use builder::{Builder, ConnectError};
pub use calling::Calling;
pub use client::Client;
pub use dial::{Connector, Io};
pub use given::{Given, Mint};
pub use outcome::*;
pub use read::{OfHistory, OfOffer, OfProduct, OfProducts, OfReservation, OfSales, ReadOf, Subject, Told};
pub use watch::{Cursor, Happened, Happenings, Watch, WatchEnded};
pub use write::{
    Adjust, Allot, Arrange, Confirm, Extend, Receive, Release, Reserve, Resolve, ReturnUnits, Submit,
};

pub use ledger_core::change::{Change, ChangeKind, LineChange};
pub use ledger_core::command::{Command, LimitKeys, Lines};
pub use ledger_core::outcome::{Balance, Bound, SoldOut, Status};
pub use ledger_core::view::{IdView, LineView, OfferView, ProductView, ReservationView};
pub use ledger_core::{
    InvalidValue, LedgerTime, LimitKey, Line, OfferKey, Policy, Position, Price, Quantity, Reason, Reference, Refusal,
    ReservationId, SaleId, Settled, Sku, Slot, Units,
};
pub use ledger_proto::{Cause, Invalid, Why, v1};
