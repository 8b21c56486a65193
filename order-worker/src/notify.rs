//! Telling buyers and shops how an order ended.
//!
//! **What it is.** A trait with two ways: [`smtp`] and signed [`webhook`]s that carry CloudEvents. At least once: each message has a
//! key that its receiver can drop doubles by.
//!
//! **Owns** what is told. **Must never** delay a sale: it has a queue, a bulkhead and a breaker of its own.

pub mod smtp;
pub mod templates;
pub mod webhook;

use async_trait::async_trait;
use client_sdk::Contact;
use ledger_core::order::{Ending, Money};
use ledger_core::{Line, ReservationId};

use crate::payment::Failure;

/// What is to be told, and to whom.
#[derive(Debug, Clone)]
pub struct Message {
    /// The same for every sending of the same message.
    pub key: String,
    /// The order.
    pub order: ReservationId,
    /// How it ended.
    pub ending: Ending,
    /// What was (to be) paid.
    pub amount: Money,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// The reservation a late payment was given instead.
    pub linked: Option<ReservationId>,
    /// Whom.
    pub contact: Contact,
}

/// A way to tell.
#[async_trait]
pub trait Notifier: Send + Sync + 'static {
    /// Sends. [`Failure::No`] is final; what may work later is anything else.
    async fn send(&self, message: &Message) -> Result<(), Failure>;
}

/// Tells nobody; for shops that follow the ledger's feed instead.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

#[async_trait]
impl Notifier for Nobody {
    async fn send(&self, _message: &Message) -> Result<(), Failure> {
        Ok(())
    }
}

/// Several ways, one after the other; the first that fails is tried again with all of them, which the keys make harmless.
pub struct Each(pub Vec<Box<dyn Notifier>>);

#[async_trait]
impl Notifier for Each {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        for way in &self.0 {
            way.send(message).await?;
        }
        Ok(())
    }
}
