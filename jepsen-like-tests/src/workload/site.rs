//! Where the nodes are and how they are reached, in a simulation or on a real network.
//!
//! **Owns** addresses and dialling. **Must never** hide which node was asked: stale reads and watches name theirs. **Read next**: [`super`].

use std::io;
use std::sync::Arc;

use client_sdk::{Client, Connector, Io};
use hyper_util::rt::TokioIo;
use ledger_proto::v1::admin_client::AdminClient;
use ledger_proto::v1::ledger_client::LedgerClient;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// Whatever went wrong on the way to a node.
pub type Failure = Box<dyn std::error::Error>;

/// A call to a node ends after this, whatever happens to it.
const WITHIN: Duration = Duration::from_secs(5);
/// A connection stands after this, or not.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The nodes of a run.
#[derive(Clone)]
pub struct Site {
    nodes: Vec<(u64, String)>,
    connector: Connector,
    /// Whether nothing stands between a caller and a node's peer port.
    peers_direct: bool,
}

impl Site {
    /// The simulation's nodes: hosts `n1`, `n2`, … on one client port.
    pub fn simulated(nodes: usize, port: u16) -> Self {
        Self {
            peers_direct: true,
            nodes: (1..=nodes).map(|n| (n as u64, format!("n{n}:{port}"))).collect(),
            connector: Arc::new(|uri: Uri| {
                Box::pin(async move {
                    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
                    let connecting = crate::net::dial(&host);
                    let stream = tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(timed_out)??;
                    Ok(Box::new(stream) as Box<dyn Io>)
                })
            }),
        }
    }

    /// Whether a caller reaches a node's peer port itself: a proxy between real nodes passes on nothing of
    /// one that is no node.
    pub fn peers_direct(&self) -> bool {
        self.peers_direct
    }

    /// Nodes on a real network, by id and client address; and whether their peer ports are reached
    /// without a proxy.
    pub fn real(nodes: Vec<(u64, String)>, peers_direct: bool) -> Self {
        let connector: Connector = Arc::new(|uri: Uri| {
            Box::pin(async move {
                let host = uri.authority().map(ToString::to_string).unwrap_or_default();
                let connecting = tokio::net::TcpStream::connect(host);
                let stream = tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(timed_out)??;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Io>)
            })
        });
        Self { nodes, connector, peers_direct }
    }

    /// The same site without some of its nodes, which are lost for good; counted from 0.
    pub fn only(&self, present: &[usize]) -> Self {
        Self { nodes: present.iter().map(|n| self.nodes[*n].clone()).collect(), ..self.clone() }
    }

    /// Ids and addresses.
    pub fn nodes(&self) -> &[(u64, String)] {
        &self.nodes
    }

    /// The node of a number that counts round.
    pub fn node(&self, n: usize) -> u64 {
        self.nodes[n % self.nodes.len()].0
    }

    /// A connection of bytes to an address, which may be of any port.
    ///
    /// # Errors
    /// When nobody answers there.
    pub(super) async fn dial(&self, address: &str) -> Result<Box<dyn Io>, Failure> {
        Ok((self.connector)(format!("http://{address}").parse()?).await?)
    }

    /// A channel to one node, below every service.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub(super) async fn channel(&self, node: u64) -> Result<Channel, Failure> {
        let (_, address) = self.nodes.iter().find(|(id, _)| *id == node).ok_or("no such node")?;
        let connector = self.connector.clone();
        let dial = move |uri| {
            let connecting = connector(uri);
            async move { connecting.await.map(TokioIo::new) }
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT_WITHIN);
        Ok(endpoint.timeout(WITHIN).connect_with_connector(tower::service_fn(dial)).await?)
    }

    /// A connection to the ledger of one node.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub async fn ledger(&self, node: u64) -> Result<LedgerClient<Channel>, Failure> {
        Ok(LedgerClient::new(self.channel(node).await?).max_decoding_message_size(64 << 20))
    }

    /// A connection to one node for operators.
    ///
    /// # Errors
    /// When the node cannot be reached.
    pub async fn admin(&self, node: u64) -> Result<AdminClient<Channel>, Failure> {
        Ok(AdminClient::new(self.channel(node).await?))
    }

    /// The SDK's client, drawing from a seed.
    ///
    /// # Errors
    /// When no node answers in time.
    pub async fn client(&self, seed: u64) -> Result<Client, Failure> {
        let endpoints = self.nodes.iter().map(|(_, address)| address.clone());
        Ok(Client::builder().endpoints(endpoints).seed(seed).connector(self.connector.clone()).connect().await?)
    }
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}
