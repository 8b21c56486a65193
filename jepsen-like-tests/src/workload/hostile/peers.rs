//! The peer port, as a caller finds it that is no member but knows the cluster's id.
//!
//! **Owns** that hello, written here by hand: the product's own code would refuse to say it. **Must never** say more than a hello.
//! **Read next**: `ledger-raft/src/transport/handshake.rs`.

use std::time::Duration;

use bytes::BufMut;
use ledger_proto::v1;
use ledger_raft::limits::PEER_PROTOCOL;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::workload::{Failure, Site};

/// No plan has this node.
const OUTSIDER: u64 = 99;
const WELCOME_BYTES: usize = 24;
/// Where a welcome says why it is none, and what it says to one that is no member.
const REFUSAL_AT: usize = 8;
const NO_MEMBER: u8 = 6;
const WITHIN: Duration = Duration::from_secs(5);
/// A connection from before the end of the faults may break late.
const ATTEMPTS: usize = 3;

/// Magic 8, protocol 2, lane 1, zeroes 5, cluster 16, incarnation 8, from 8, to 8, disk 16, run 8, zeroes 4, checksum 4.
fn hello(cluster: &[u8], incarnation: u64, to: u64) -> Vec<u8> {
    let mut b = Vec::new();
    b.put_slice(b"HFPEER\r\n");
    b.put_u16_le(PEER_PROTOCOL);
    b.put_u8(1);
    b.put_bytes(0, 5);
    b.put_slice(cluster);
    [incarnation, OUTSIDER, to].into_iter().for_each(|number| b.put_u64_le(number));
    b.put_bytes(7, 16);
    b.put_u64_le(1);
    b.put_bytes(0, 4);
    let sum = crc32c::crc32c(&b);
    b.put_u32_le(sum);
    b
}

/// Greets a node's peer port; what is wrong with its answer, if anything is. No fault is active any
/// more, so a connection that breaks every time is wrong, too.
///
/// # Errors
/// When the node cannot be asked for its cluster, or cannot be reached.
pub(super) async fn greet(site: &Site, node: u64) -> Result<Option<String>, Failure> {
    let status = site.admin(node).await?.node_status(v1::NodeStatusRequest {}).await?.into_inner();
    let own = status.members.iter().find(|member| member.node == node).ok_or("it does not know itself")?;
    let mut wrong = None;
    for _ in 0..ATTEMPTS {
        let mut io = site.dial(&own.peer).await?;
        let mut welcome = [0; WELCOME_BYTES];
        let talk = async {
            io.write_all(&hello(&status.cluster, status.incarnation, node)).await?;
            io.flush().await?;
            io.read_exact(&mut welcome).await
        };
        wrong = Some(match tokio::time::timeout(WITHIN, talk).await {
            Ok(Ok(_)) if welcome[REFUSAL_AT] == NO_MEMBER => return Ok(None),
            Ok(Ok(_)) => format!("node {node} answers a peer that is no member with {}", welcome[REFUSAL_AT]),
            Ok(Err(_)) if !site.peers_direct() => return Ok(None),
            Ok(Err(error)) => format!("node {node} closes a connection of a peer that is no member: {error}"),
            Err(_) => format!("node {node} does not answer a peer that is no member"),
        });
    }
    Ok(wrong)
}
