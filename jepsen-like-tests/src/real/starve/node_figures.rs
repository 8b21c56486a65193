//! What the nodes say of themselves, and the system of them.
//!
//! **Owns** these readings. **Must never** change anything. **Read next**: [`super`].

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use cluster::dev_cluster::DevNode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A page of a node's HTTP port is waited for so long.
pub(super) const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Counters whose growth is of interest, by their whole name with labels.
const COUNTERS: [&str; 4] = [
    "holdfast_connections_closed_total",
    "holdfast_watches_unread_total",
    "holdfast_watches_refused_total",
    "holdfast_control_frame_waits_total",
];
const CPU: &str = "holdfast_cpu_milliseconds_total";

/// What a node's page of metrics says.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    /// What it closed and refused.
    pub(super) closed: BTreeMap<String, u64>,
    /// CPU time of its process.
    pub(super) cpu_ms: u64,
}

fn metrics_of(page: &str) -> Metrics {
    let mut metrics = Metrics::default();
    for (name, value) in page.lines().filter_map(|line| line.rsplit_once(' ')) {
        let Ok(value) = value.parse::<f64>() else { continue };
        if name == CPU {
            metrics.cpu_ms = value as u64;
        } else if COUNTERS.iter().any(|counter| name == *counter || name.starts_with(&format!("{counter}{{"))) {
            metrics.closed.insert(short(name), value as u64);
        }
    }
    metrics
}

/// `holdfast_connections_closed_total{port="http",reason="full"}` as `http full`.
fn short(name: &str) -> String {
    match name.split_once('{') {
        Some((_, labels)) => labels.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" "),
        None => name.trim_start_matches("holdfast_").trim_end_matches("_total").replace('_', " "),
    }
}

/// Asks a node's HTTP port for a page.
///
/// # Errors
/// It did not come, not whole, or not in time.
pub(super) async fn page(node: &DevNode, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let asked = async {
        let mut io = TcpStream::connect(&node.http).await?;
        io.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        io.read_to_string(&mut answer).await?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(answer),
            false => Err(io::Error::other(answer.lines().next().unwrap_or("nothing").to_owned())),
        }
    };
    timeout(PAGE_WITHIN, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A node's metrics.
///
/// # Errors
/// As [`page`].
pub(super) async fn metrics(node: &DevNode) -> io::Result<Metrics> {
    Ok(metrics_of(&page(node, "/metrics").await?))
}

/// Memory of a process, bytes.
pub(super) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_metrics_is_read() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP x\nholdfast_connections_closed_total{port=\"http\",reason=\"full\"} 7\n\
                    holdfast_watches_unread_total 3\nholdfast_watches 9\nholdfast_cpu_milliseconds_total 1500\n";
        let metrics = metrics_of(page);
        let closed = [("http full".to_owned(), 7), ("watches unread".to_owned(), 3)];
        assert_eq!((metrics.closed, metrics.cpu_ms), (BTreeMap::from(closed), 1_500));
    }
}
