//! Who may be a peer: members, from addresses that are trusted, on the disk that the others know.

#![expect(clippy::disallowed_methods, reason = "raw connections are what the nodes are compared with")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Cluster, PATIENCE, disk_of, tuning};
use crate::extremes::{
    BULK, CONTROL, HEARTBEAT, PING, SNAPSHOT_READ, append_knowing, connect, frame, hello, hello_of_run, hello_on,
    log_id, until_frame, vote,
};
use ledger_raft::limits::{GREETINGS_PER_SOURCE_MAX, PEER_CONNECTIONS_PER_LANE_MAX};
use ledger_raft::{AddressPolicy, DiskId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the listener answers to a hello: its refusal, 0 for a welcome; none when it closes at once.
async fn answer(addr: &str, hello: &[u8]) -> Option<u8> {
    let answered = async {
        let mut io = TcpStream::connect(addr).await?;
        io.write_all(hello).await?;
        let mut welcome = [0; 24];
        io.read_exact(&mut welcome).await?;
        Ok::<_, io::Error>(welcome[8])
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("answered or closed").ok()
}

#[tokio::test]
async fn a_node_that_is_no_member_is_refused_by_name() {
    let c = Cluster::start(3, tuning()).await;
    let addr = &c.addrs[&NodeId(1)];
    assert_eq!(answer(addr, &hello(c.cluster, 2, 1, CONTROL)).await, Some(0), "a member");
    assert_eq!(answer(addr, &hello(c.cluster, 4, 1, CONTROL)).await, Some(6), "nobody knows node 4");
    assert_eq!(answer(addr, &hello(c.cluster, 1, 1, CONTROL)).await, Some(6), "node 1 is no peer of its own");
}

/// Everything else of it is right: cluster, incarnation, id and address.
#[tokio::test]
async fn a_member_on_another_disk_is_no_peer_of_anybody() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    let addr = &c.addrs[&NodeId(1)];
    let other = DiskId([99; 16]);
    assert_eq!(answer(addr, &hello_on(other, c.cluster, 2, 1, CONTROL)).await, Some(5));
    // The node itself, with an empty directory: it gets a disk id of its own.
    c.kill(2);
    c.disks.insert(2, ledger_raft::disk::SimDisk::new(9));
    c.disk_ids.insert(2, other);
    c.up(2).await;
    // Its port refused connections while it was down, and that is the answer until it is dialled again.
    let refused = async |from: u64, to: u64| {
        let (node, peer) = (c.nodes[&from].node.clone(), c.addrs[&NodeId(to)].clone());
        loop {
            let asked = node.ask_peer(NodeId(to), &peer, "x".into(), PATIENCE).await.expect_err("refused");
            if asked.to_string().contains("on another disk") {
                return;
            }
            assert!(asked.to_string().contains("refused"), "{asked}");
            tokio::task::yield_now().await;
        }
    };
    for (from, to) in [(2, 1), (1, 2)] {
        tokio::time::timeout(PATIENCE, refused(from, to)).await.expect("refused for its disk");
    }
    // Its vote would make it two of three.
    c.kill(3);
    let status = c.nodes[&2].group.status();
    assert!(status.leader.is_none() && status.voters.is_empty(), "{status:?}");
    // Back on the disk it had.
    c.kill(2);
    c.up(3).await;
    let at = c.propose(b"the others went on").await;
    c.agree(at.index).await;
}

#[tokio::test]
async fn a_connection_from_outside_of_the_trusted_networks_is_closed_unread() {
    let mut c = Cluster::start(3, tuning()).await;
    let nobody: AddressPolicy = Arc::new(|_| Err("it is in no trusted network".to_owned()));
    c.kill(1);
    c.policies.insert(1, nobody);
    c.up(1).await;
    let addr = &c.addrs[&NodeId(1)];
    assert_eq!(answer(addr, &hello(c.cluster, 2, 1, CONTROL)).await, None);
}

/// Connections that send nothing take no member's place, and are few at any time.
#[tokio::test]
async fn silent_connections_are_few_and_members_connect_beside_them() {
    let mut c = Cluster::start(3, tuning()).await;
    let at = c.propose(b"first").await;
    c.agree(at.index).await;
    c.kill(3);
    let addr = c.addrs[&NodeId(1)].clone();
    let mut silent = Vec::new();
    let mut most = 0;
    for _ in 0..10 * GREETINGS_PER_SOURCE_MAX {
        silent.push(TcpStream::connect(&addr).await.expect("it listens"));
        most = most.max(c.nodes[&1].node.peer_connections().0);
    }
    assert!(most <= GREETINGS_PER_SOURCE_MAX, "{most} connections that say nothing");
    // What was opened first is closed; nothing was sent on it.
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(PATIENCE, silent[0].read(&mut byte)).await.expect("closed");
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    c.up(3).await;
    let at = c.propose(b"beside them").await;
    c.agree(at.index).await;
}

/// A member that connects again and again replaces its own connections, whatever it leaves open.
#[tokio::test]
async fn member_s_connections_for_a_lane_are_bounded() {
    let c = Cluster::start(2, tuning()).await;
    let addr = &c.addrs[&NodeId(1)];
    let mut open = Vec::new();
    for _ in 0..5 * PEER_CONNECTIONS_PER_LANE_MAX {
        open.push(connect(addr, c.cluster, 2, 1, BULK).await.expect("welcomed"));
        let (_, members) = c.nodes[&1].node.peer_connections();
        assert!(members <= 2 * PEER_CONNECTIONS_PER_LANE_MAX, "{members} of one member");
    }
    let at = c.propose(b"goes on").await;
    c.agree(at.index).await;
}

#[tokio::test]
async fn a_question_on_the_other_lane_closes_the_connection() {
    let c = Cluster::start(2, tuning()).await;
    let addr = &c.addrs[&NodeId(1)];
    let read = frame(SNAPSHOT_READ, 7, &[0; 20]);
    for (lane, answered) in [(CONTROL, false), (BULK, true)] {
        let mut io = connect(addr, c.cluster, 2, 1, lane).await.expect("the node listens");
        io.write_all(&read).await.expect("sent");
        let got = tokio::time::timeout(PATIENCE, until_frame(&mut io, 7)).await.expect("answered or closed");
        assert_eq!(got, answered, "lane {lane}");
    }
}

/// One frame would otherwise mark a whole replica damaged, durably.
#[tokio::test]
async fn what_a_leader_remembers_counts_while_it_leads() {
    let c = Cluster::start(3, tuning()).await;
    c.propose(b"first").await;
    let old = c.leader().await;
    let to = old % 3 + 1;
    // It declines until a quorum has answered what it remembers of it.
    let transferred =
        async { while c.nodes[&old].group.transfer_leader(NodeId(to), Duration::from_millis(200)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, transferred).await.expect("transferred");
    let at = c.propose(b"of the next leader").await;
    c.agree(at.index).await;
    let third = (1..=3).find(|id| *id != old && *id != to).expect("the third");
    let term = at.term - 1;
    // Each says that the third has acknowledged more than anybody has.
    let remembers = async |leader, term| {
        let by = [[third, term, term, 1 << 40]];
        let body = append_knowing(&by, &vote(term, leader, 1), &log_id(term, 1), &log_id(term, 1), 0, &[]);
        let mut io = connect(&c.addrs[&NodeId(third)], c.cluster, leader, third, CONTROL).await.expect("welcomed");
        io.write_all(&frame(HEARTBEAT, 7, &body)).await.expect("sent");
        assert!(until_frame(&mut io, 7).await, "answered");
    };
    remembers(old, term).await;
    assert_eq!(c.nodes[&third].group.status().stopped, None, "that leader is over");
    let at = c.propose(b"last").await;
    c.agree(at.index).await;
    remembers(to, term + 1).await;
    let marked = |why: &String| why.contains("the disk went back");
    c.until(third, "is marked damaged", |s| s.stopped.as_ref().is_some_and(marked)).await;
}

/// A member comes back on a new disk: what the old one says arrives nowhere from then on.
#[tokio::test]
async fn a_disk_that_was_replaced_is_closed_at_once_and_refused_by_name() {
    let c = Cluster::start(3, tuning()).await;
    c.propose(b"first").await;
    let addr = &c.addrs[&NodeId(1)];
    let mut old = connect(addr, c.cluster, 2, 1, CONTROL).await.expect("welcomed");
    let node = c.nodes[&1].node.clone();
    node.ask_peer(NodeId(2), &c.addrs[&NodeId(2)], "x".into(), PATIENCE).await.expect("its disk");
    assert!(node.hears_peer(NodeId(2)));
    let new = DiskId([99; 16]);
    node.replace_peer_disk(NodeId(2), new);
    assert!(!node.hears_peer(NodeId(2)), "this node's own connection is closed, too");
    let closed = tokio::time::timeout(PATIENCE, until_frame(&mut old, u64::MAX)).await.expect("closed");
    assert!(!closed, "no frame is answered");
    assert_eq!(answer(addr, &hello(c.cluster, 2, 1, CONTROL)).await, Some(5), "the old disk");
    assert_eq!(answer(addr, &hello_on(new, c.cluster, 2, 1, CONTROL)).await, Some(0), "the new one");
    let asked = node.ask_peer(NodeId(2), &c.addrs[&NodeId(2)], "x".into(), PATIENCE).await.expect_err("refused");
    assert!(asked.to_string().contains("on another disk"), "{asked}");
}

#[tokio::test]
async fn two_processes_of_one_node_are_noticed_and_named() {
    let mut c = Cluster::start(3, tuning()).await;
    c.kill(2);
    let addr = c.addrs[&NodeId(1)].clone();
    let process = async |run: u64| {
        let mut io = TcpStream::connect(&addr).await.expect("it listens");
        let hello = hello_of_run(run, disk_of(NodeId(2)), c.cluster, 2, 1, CONTROL);
        io.write_all(&hello).await.expect("sent");
        let mut welcome = [0; 64];
        io.read_exact(&mut welcome[..24]).await.expect("answered");
        assert_eq!(welcome[8], 0, "a member");
        io
    };
    let (mut first, mut second) = (process(71).await, process(72).await);
    assert_eq!(c.nodes[&1].node.twins(), [], "a restart looks like this");
    let noticed = async {
        loop {
            first.write_all(&frame(PING, 0, b"")).await.expect("it is not refused");
            second.write_all(&frame(PING, 0, b"")).await.expect("it is not refused");
            if let [twin] = &c.nodes[&1].node.twins()[..] {
                return twin.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let twin = tokio::time::timeout(PATIENCE, noticed).await.expect("noticed");
    assert_eq!((twin.node, twin.newer.0, twin.older.0), (NodeId(2), 72, 71));
    assert_eq!(twin.older.1, first.local_addr().expect("an address"));
}
