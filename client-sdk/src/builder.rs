//! How a client is made.
//!
//! **Owns** the settings and their defaults. **Must never** hand out a client that does not know where anything is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::BreakerNumbers;
use crate::chance::Chance;
use crate::client::Client;
use crate::dial::{self, Connector, Dial};
use crate::limits;
use crate::routes::Routes;

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
#[must_use = "a client is made by `connect`"]
pub struct Builder {
    endpoints: Vec<String>,
    deadline: Duration,
    streams: usize,
    seed: Option<u64>,
    breaker: BreakerNumbers,
    dial: Dial,
}

impl Default for Builder {
    fn default() -> Self {
        let user_agent = concat!("holdfast-client/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            endpoints: Vec::new(),
            deadline: limits::DEADLINE_DEFAULT,
            streams: 1,
            seed: None,
            breaker: limits::STOCK_BREAKER,
            dial: Dial { connector: dial::tcp(), user_agent },
        }
    }
}

impl Builder {
    /// Addresses (`host:port`) of some of the cluster's nodes; the others are learnt from them.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }
    /// Deadline of calls that name none; 2 seconds otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
    /// Streams per node that calls are spread over; 1 otherwise. More than one breaks up batches: measure first.
    pub fn streams_per_node(mut self, streams: usize) -> Self {
        self.streams = streams.clamp(1, limits::STREAMS_MAX);
        self
    }
    /// Seeds what chance the client needs (ids, jitter), for simulations; from the system otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
    /// When reads of stock that may fall back ([`crate::ReadOf::or_stale`]) stop asking the leader, and for how long.
    pub fn stock_breaker(mut self, settings: BreakerNumbers) -> Self {
        self.breaker = settings;
        self
    }
    /// Named in the `user-agent` header.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.dial.user_agent = name.into();
        self
    }
    /// How byte streams to nodes are opened; TCP otherwise. For simulated networks, and the place where TLS will be.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.dial.connector = connector;
        self
    }
    /// Connects and learns the routing.
    ///
    /// # Errors
    /// [`ConnectError`] when an address is malformed, or no node answers with the cluster's routing within five seconds.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        if self.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let seeds = self.endpoints.iter().map(|endpoint| dial::address(endpoint)).collect::<Result<Vec<_>, _>>()?;
        let chance = Arc::new(Chance::new(self.seed));
        let routes = Routes::new(seeds, self.dial, self.streams, chance);
        let until = Instant::now() + limits::CONNECT_DEADLINE;
        let mut tries = 0;
        while let Err(last) = routes.refresh().await {
            let pause = routes.chance.pause(limits::REFRESH_PAUSE, limits::BACKOFF_MAX, tries);
            if Instant::now() + pause >= until {
                routes.shut();
                return Err(ConnectError::Unreachable { endpoints: self.endpoints, last });
            }
            tokio::time::sleep(pause).await;
            tries += 1;
        }
        Ok(Client::new(routes, self.deadline, self.breaker))
    }
}
