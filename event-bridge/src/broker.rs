//! The mouth towards a broker: messages in order, verdicts in any order.
//!
//! **Owns** nothing. **Must never** say that a message was taken before the broker answers for it. **Read next**: [`crate::amqp`].

use async_trait::async_trait;

use crate::window::{Outgoing, Ticket};

/// Why a connection could not be made, or is no longer good. What was in flight on it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokerError(pub String);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The broker answers for it.
    Confirmed,
    /// It was not taken, or not by every queue.
    Refused,
}

/// A broker that can be connected to, again and again.
#[async_trait]
pub trait Broker: Send + Sync {
    /// A new connection, with what messages go to made sure of.
    async fn connect(&self) -> Result<Box<dyn Link>, BrokerError>;
}

/// One connection.
#[async_trait]
pub trait Link: Send {
    /// Hands messages over, in order. After an error some of them may have arrived.
    async fn publish(&mut self, batch: Vec<Outgoing>) -> Result<(), BrokerError>;
    /// The next verdict about any message of this connection; an error once the connection is gone. Nothing is lost when the future is dropped.
    async fn verdict(&mut self) -> Result<(Ticket, Verdict), BrokerError>;
    /// Says goodbye.
    async fn close(self: Box<Self>);
}
