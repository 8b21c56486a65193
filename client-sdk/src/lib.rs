//! The Holdfast client.
//!
//! **What it is.** [`Client`] finds the leader of a product's shard, joins concurrent calls into batches, retries with the same
//! id until the deadline, and answers every verb with one [`Outcome`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use client_sdk::{Client, Outcome, Sku};
//!
//! let client = Client::connect(["node-1:7101", "node-2:7101"]).await?;
//! let id = client.mint_for(&Sku::new("shoe-42")?); // store it before asking
//! match client.reserve(id, "anna").line("shoe-42", 1).hold_for(Duration::from_secs(600)).await {
//!     Outcome::Ok(held) => println!("held until {:?}", held.value.deadline),
//!     Outcome::Refused(no) => println!("{no}"),
//!     Outcome::NotNow(later) => println!("nothing happened; {later}"),
//!     Outcome::Unknown(_) => println!("{:?}", client.resolve(id).await),
//! }
//! client.confirm(id).await.into_result()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Owns** routing, batching, retries, deadlines and the feed. **Must never** invent or swap ids, or report *unknown* as *no*.
//! **Read next**: [`Client`], [`Outcome`].

mod backoff;
pub mod breaker;
mod builder;
mod calling;
mod chance;
mod client;
mod dial;
#[cfg(feature = "documents")]
pub mod document;
mod doubt;
mod given;
mod lane;
pub mod limits;
mod many;
mod node;
mod orders;
mod outcome;
mod read;
mod routes;
pub mod seal;
mod unsent;
mod waiting;
mod watch;
mod write;

pub use builder::{Builder, ConnectError};
pub use calling::Calling;
pub use client::Client;
pub use dial::{Connector, Io};
pub use given::{Given, Mint};
pub use orders::{Claim, OnOrder, Order, PlaceOrder};
pub use outcome::*;
pub use read::{
    OfHistory, OfOffer, OfOrder, OfOrders, OfProduct, OfProducts, OfQueue, OfReservation, OfSales, ReadOf, Subject,
    Told,
};
pub use seal::{Contact, KeyId, OpeningKey, OpeningKeys, PaymentToken, SealError, SealingKey};
pub use watch::{Cursor, Happened, Happenings, Watch, WatchEnded};
pub use write::{
    Adjust, Allot, Arrange, Confirm, DeleteProduct, Extend, Receive, Release, Reserve, Resolve, ReturnUnits, Submit,
};

pub use ledger_core::change::{Change, ChangeKind, LineChange};
pub use ledger_core::command::{Command, LimitKeys, Lines};
pub use ledger_core::order;
pub use ledger_core::outcome::{Balance, Bound, SoldOut, Status};
pub use ledger_core::view::{IdView, LineView, OfferView, ProductView, ReservationView};
pub use ledger_core::{
    InvalidValue, LedgerTime, LimitKey, Line, OfferKey, Policy, Position, Price, Quantity, Reason, Reference, Refusal,
    ReservationId, SaleId, Settled, Sku, Slot, Units,
};
pub use ledger_proto::{Cause, Invalid, Why, v1};
