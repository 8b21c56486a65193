//! Connections to nodes.
//!
//! **Owns** how a node is dialled: names resolved anew each time, no delay, windows, keepalive. **Must never** keep a resolved address.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use ledger_proto::limits as wire;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

use crate::backoff::DialGate;
use crate::builder::ConnectError;
use crate::limits;

/// What a connector gives: a byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens a byte stream to a node's address; the seam for simulated networks.
pub type Connector = Arc<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// How nodes are dialled.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) connector: Connector,
    pub(crate) user_agent: String,
}

/// How many bytes a node may send before they are read: on one stream, and on all of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    stream: u32,
    connection: u32,
}

impl Windows {
    /// Of calls: whole frames of answers.
    pub(crate) const CALLS: Self =
        Self { stream: wire::STREAM_WINDOW_BYTES, connection: wire::CONNECTION_WINDOW_BYTES };
    /// Of watches: a frame and the next of each. A consumer that pauses holds no more.
    pub(crate) const WATCHES: Self =
        Self { stream: limits::WATCH_STREAM_WINDOW, connection: limits::WATCH_CONNECTION_WINDOW };
}

/// TCP without delay; the name is resolved anew at each connect.
pub(crate) fn tcp() -> Connector {
    Arc::new(|uri: Uri| {
        Box::pin(async move {
            let no_address = || io::Error::new(io::ErrorKind::InvalidInput, "the address needs host and port");
            let host = uri.host().ok_or_else(no_address)?.trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().ok_or_else(no_address)?;
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// The URI of `host:port`.
pub(crate) fn uri(address: &str) -> Result<Uri, ConnectError> {
    let bad = || ConnectError::BadEndpoint { endpoint: address.to_owned() };
    let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri: Uri = text.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(bad());
    }
    Ok(uri)
}

/// `host:port` of an endpoint as given.
pub(crate) fn address(endpoint: &str) -> Result<String, ConnectError> {
    let uri = uri(endpoint)?;
    Ok(uri.authority().map(|authority| authority.to_string()).unwrap_or_default())
}

impl Dial {
    /// A client that connects when it is first used, and again after the connection broke, as its
    /// gate allows.
    pub(crate) fn channel(
        &self,
        address: &str,
        gate: &Arc<DialGate>,
        windows: Windows,
    ) -> Result<Channel, ConnectError> {
        let bad = |_| ConnectError::BadEndpoint { endpoint: address.to_owned() };
        let (connector, gate) = (self.connector.clone(), gate.clone());
        Ok(Endpoint::from(uri(address)?)
            .user_agent(self.user_agent.as_str())
            .map_err(bad)?
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .initial_stream_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .http2_keep_alive_interval(limits::KEEPALIVE_EVERY)
            .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
                let connecting = gate.dial().map(|()| connector(uri));
                async move {
                    match connecting {
                        Ok(connecting) => connecting.await.map(TokioIo::new),
                        Err(left) => {
                            Err(io::Error::other(format!("the node did not answer; dialled again in {left:?}")))
                        }
                    }
                }
            })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_host_and_port() {
        assert_eq!(address("localhost:7000").unwrap(), "localhost:7000");
        assert_eq!(address("http://[::1]:7000").unwrap(), "[::1]:7000");
        for bad in ["", "localhost", "https://a:1", "a b:1", ":7000", "a:70000"] {
            assert!(address(bad).is_err(), "{bad:?} was taken");
        }
    }
}
