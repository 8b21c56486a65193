//! Plain calls to nodes one can name: what an operator and an auditor need and the SDK hides on purpose.
//!
//! **Owns** one channel a node, admin calls, reads from exactly that node. **Must never** change stock: commands go through
//! the SDK. **Read next**: [`crate::commands`].

use std::time::{Duration, Instant};

use client_sdk::{Client, ConnectError, NotOk, v1};
use ledger_proto::v1::admin_client::AdminClient;
use ledger_proto::v1::ledger_client::LedgerClient;
use tonic::transport::{Channel, Endpoint};

use crate::limits;
use crate::output::{Failure, Outcome};

/// One node, by the address of its client port.
#[derive(Clone)]
pub struct NodeLink {
    /// `host:port`.
    pub address: String,
    channel: Channel,
}

impl NodeLink {
    /// A lazily connected link.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an address that is none.
    pub fn new(address: &str) -> Outcome<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| Failure::usage(format!("{address:?} is not host:port: {e}")))?
            .connect_timeout(limits::CONNECT_WITHIN)
            .tcp_nodelay(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(Self { address: address.to_owned(), channel: endpoint.connect_lazy() })
    }
    /// The ledger service of this node.
    pub fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
    /// The admin service of this node.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }
    /// The node's status.
    ///
    /// # Errors
    /// The transport's or the node's word.
    pub async fn status(&self) -> Result<v1::NodeStatusResponse, tonic::Status> {
        timed(limits::TRY_WITHIN, self.admin().node_status(v1::NodeStatusRequest {})).await
    }
}

/// Awaits a call at most so long.
///
/// # Errors
/// The call's, or `DeadlineExceeded`.
pub async fn timed<T>(
    within: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!("no answer within {within:?}"))),
    }
}

/// All nodes an operator named.
#[derive(Clone)]
pub struct ClusterLink {
    /// In the order they were named.
    pub nodes: Vec<NodeLink>,
}

impl ClusterLink {
    /// Links to all of them.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an address that is none, or no address.
    pub fn new(endpoints: &[String]) -> Outcome<Self> {
        let nodes = endpoints.iter().map(|e| NodeLink::new(e)).collect::<Outcome<Vec<_>>>()?;
        if nodes.is_empty() {
            return Err(Failure::usage("no endpoints"));
        }
        Ok(Self { nodes })
    }

    /// Links to all members, found by asking the named nodes in turn.
    ///
    /// # Errors
    /// [`Failure::Refused`] when none answers.
    pub async fn with_members(self) -> Outcome<Self> {
        let routing = self
            .ask("the members", async |node: &NodeLink| {
                timed(limits::TRY_WITHIN, node.ledger().get_routing(v1::GetRoutingRequest {})).await
            })
            .await?;
        if routing.nodes.is_empty() {
            return Ok(self);
        }
        let mut members: Vec<(u64, String)> = routing.nodes.into_iter().map(|n| (n.node, n.client)).collect();
        members.sort();
        Self::new(&members.into_iter().map(|(_, address)| address).collect::<Vec<_>>())
    }

    /// A read: the first node that answers wins; asked again until [`limits::COMMAND_WITHIN`].
    ///
    /// # Errors
    /// [`Failure::Refused`] with the last node's word (a read changes nothing, so it is never unknown).
    pub async fn ask<T>(&self, what: &str, call: impl AsyncFn(&NodeLink) -> Result<T, tonic::Status>) -> Outcome<T> {
        let until = Instant::now() + limits::COMMAND_WITHIN;
        loop {
            let mut last = String::from("no nodes");
            for node in &self.nodes {
                match call(node).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) if is_final(&status) => {
                        return Err(Failure::refused(format!("{what}: {}", status.message())));
                    }
                    Err(status) => last = format!("{}: {}", node.address, brief(&status)),
                }
            }
            if Instant::now() >= until {
                return Err(Failure::refused(format!("{what}: no node answers (last: {last})"))
                    .hint("ledgerctl status   (are the nodes up, and is --endpoints right?)"));
            }
            tokio::time::sleep(limits::RETRY_PAUSE_MAX).await;
        }
    }
}

/// A client of the SDK on these endpoints, patient enough for a failover.
///
/// # Errors
/// [`Failure::Usage`] for a bad address, [`Failure::Refused`] when no node answers.
pub async fn connect(endpoints: &[String]) -> Outcome<Client> {
    let builder = Client::builder().endpoints(endpoints.iter().cloned()).deadline(limits::COMMAND_WITHIN);
    builder.user_agent("ledgerctl").connect().await.map_err(|e| match e {
        ConnectError::BadEndpoint { .. } | ConnectError::NoEndpoint => Failure::usage(e.to_string()),
        ConnectError::Unreachable { .. } => {
            Failure::refused(e.to_string()).hint("ledgerctl status   (are the nodes up, and is --endpoints right?)")
        }
    })
}

/// The SDK's word as an exit: no and not now are refusals, unknown stays unknown.
impl From<NotOk> for Failure {
    fn from(not_ok: NotOk) -> Self {
        match not_ok {
            NotOk::Refused(refused) => Self::refused(refused.why.to_string()),
            NotOk::NotNow(not_now) => Self::refused(format!("nothing happened: {not_now}"))
                .hint("ledgerctl status; then repeat the command, it is safe to repeat"),
            NotOk::Unknown(unknown) => Self::unknown(unknown.to_string())
                .hint("repeat the command with the same id or reference: it has no second effect"),
        }
    }
}

/// Whether asking again, or another node, would be answered the same.
pub(crate) fn is_final(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition
            | Code::AlreadyExists
    )
}

/// A status in one line: its code and the innermost reason.
pub fn brief(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    format!("{:?}: {reason}", status.code())
}
