//! The verbs on orders: `order`, `queue`, `dlq`.
//!
//! **Owns** their names and flags. **Must never** do anything. **Read next**: [`crate::commands`].

use clap::{Args, Subcommand};

use super::IdArgs;

/// `order …`
#[derive(Debug, Subcommand)]
pub enum OrderVerb {
    /// Orders, shard by shard; all or those in one phase.
    List(OrdersArgs),
    /// Where one order stands: phase, next step, lease, intent, payments.
    Show(IdArgs),
    /// Every decision about one order, oldest first: position, time, what and why.
    Explain(ExplainArgs),
    /// Let workers go on with a parked order, attempts at zero.
    #[command(after_help = "Example:\n  ledgerctl order redrive 0190… --reason 'provider is back'")]
    Redrive(ByHandArgs),
    /// Give a parked order up. Nothing is moved: see to its payments first.
    Close(ByHandArgs),
    /// Give back what was paid for a sold order. Its units stay sold; bring them back by a return.
    Refund(ByHandArgs),
}

/// `order list`
#[derive(Debug, Args)]
pub struct OrdersArgs {
    /// Only orders in this phase, as queued, paying, awaiting-buyer, settling, sold, refund-due, parked, done.
    #[arg(long, value_parser = crate::commands::phase_named)]
    pub phase: Option<client_sdk::order::Phase>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    pub max: usize,
}

/// `order explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Which.
    #[command(flatten)]
    pub id: IdArgs,
    /// At most so many decisions, the newest.
    #[arg(long, default_value_t = 1_000)]
    pub max: usize,
}

/// `order redrive|close|refund`
#[derive(Debug, Args)]
pub struct ByHandArgs {
    /// Which.
    #[command(flatten)]
    pub id: IdArgs,
    /// Why; kept in history.
    #[arg(long, default_value = "by hand")]
    pub reason: String,
}

/// `queue …`
#[derive(Debug, Subcommand)]
pub enum QueueVerb {
    /// Depth and age of the queues of every shard.
    Stats,
}

/// `dlq …`
#[derive(Debug, Subcommand)]
pub enum DlqVerb {
    /// Parked orders, with why.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        max: usize,
    },
}
