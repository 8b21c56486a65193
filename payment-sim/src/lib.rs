//! A payment provider for tests and demonstrations.
//!
//! **What it is.** An HTTP server that speaks enough of Stripe's API for Stripe's own client libraries (payment intents, refunds,
//! events, idempotency keys, signed webhooks), keeps its book on disk, and misbehaves on order: slow, failing, silent after it has
//! charged. Its book can be compared with the ledger's.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = payment_sim::serve(payment_sim::Config::new("/tmp/payments")).await?;
//! println!("{}", provider.url());
//! provider.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Owns** intents, charges, refunds and what happened to them. **Must never** know of the ledger or of orders: it is another
//! company's computer. Must never answer a call before its book holds what the call did. **Read next**: `rules`, `book`,
//! `http::call`.

pub mod behaviour;
mod book;
pub mod clock;
mod config;
mod form;
mod http;
mod ids;
pub mod limits;
mod methods;
mod params;
pub mod process;
mod refusal;
mod rules;
mod serve;
mod sim;
mod webhooks;
mod wire;

pub use behaviour::{BadBehaviour, Behaviour, Manners, Operation};
pub use book::journal::OpenError;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Config, WebhookTo};
pub use serve::{Running, StartError, serve};
pub use webhooks::BadAddress;
