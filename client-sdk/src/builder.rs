//! How a client is made.

use std::time::Duration;

use crate::client::Client;

/// Why no client could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Not an address. Write `host:port`.
    #[error("{endpoint:?} is not an address; write host:port")]
    BadEndpoint {
        /// As given.
        endpoint: String,
    },
    /// None was given.
    #[error("no endpoint was given")]
    NoEndpoint,
    /// No node answered with the cluster's routing in time.
    #[error("no node of {endpoints:?} answered in time: {last}")]
    Unreachable {
        /// Those that were asked.
        endpoints: Vec<String>,
        /// What the last one said.
        last: String,
    },
}

/// Settings of a client.
#[derive(Default)]
pub struct Builder {
    endpoints: Vec<String>,
}

impl Builder {
    /// Addresses (`host:port`) of some of the cluster's nodes; the others are learnt from them.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }
    /// Deadline of calls that name none; 2 seconds otherwise.
    pub fn deadline(self, _deadline: Duration) -> Self {
        todo!()
    }
    /// Streams per node that calls are spread over; 1 otherwise.
    pub fn streams_per_node(self, _streams: usize) -> Self {
        todo!()
    }
    /// Seeds what chance the client needs (ids, jitter), for simulations; from the system otherwise.
    pub fn seed(self, _seed: u64) -> Self {
        todo!()
    }
    /// Named in the `user-agent` header.
    pub fn user_agent(self, _name: impl Into<String>) -> Self {
        todo!()
    }
    /// Connects and learns the routing.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        todo!()
    }
}
