//! Right bytes of each kind, and a few that are cut or flipped.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jepsen_like_tests::workload::hostile_message;
use ledger_core::Command;
use ledger_proto::Calls;
use ledger_proto::frames::Frame as _;
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::Disk;
use ledger_raft::wal::{Wal, WalConfig, WalEntry, WalIdentity};
use ledger_raft::{GroupId, NodeId};

/// Writes them all below `seeds`.
pub(crate) fn write(seeds: &Path) {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let dir = seeds.join(target);
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join(name), bytes).expect("a file");
    };
    let many = |target: &str, all: &[Vec<u8>]| {
        for (n, bytes) in all.iter().enumerate() {
            put(target, &format!("right-{n:02}"), bytes);
        }
        if let Some(bytes) = all.iter().max_by_key(|bytes| bytes.len().min(1 << 14)) {
            put(target, "cut", &bytes[..bytes.len() * 2 / 3]);
            let mut flipped = bytes.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0x10;
            put(target, "flipped", &flipped);
        }
        put(target, "empty", b"");
    };
    let frames: Vec<Vec<u8>> =
        (0..300).map(|seed| hostile_message(seed, "CallFrame")).filter(|frame| frame.len() < 2_000).take(20).collect();
    many("client_frames", &frames);
    let commands = commands();
    let parts: Vec<&[Command]> = commands.chunks(12).collect();
    let mut entries = Vec::new();
    let mut snapshots = Vec::new();
    let mut histories = Vec::new();
    for parts in parts.chunks(4) {
        let made = ledger_core::fuzzing::seeds(parts);
        entries.push(made.entries);
        snapshots.push(made.snapshot);
        histories.push(history(&made.records));
    }
    many("entries", &entries[..entries.len().min(16)]);
    many("snapshot", &snapshots[..snapshots.len().min(3)]);
    many("history", &histories[..histories.len().min(8)]);
    many("peer_frames", &ledger_raft::fuzzing::peer_seeds());
    many("wal", &[log(), Vec::from(&log()[..4_096])]);
    many("http_bodies", &HTTP.map(|body| body.as_bytes().to_vec()));
    many(
        "identity",
        &[IDENTITY.as_bytes().to_vec(), IDENTITY.replace("\"node\":1", "\"node\":18446744073709551615").into_bytes()],
    );
    put("identity", "unknown-format", IDENTITY.replace("\"format\":2", "\"format\":99").as_bytes());
}

/// Commands that the wire accepts, of every verb.
fn commands() -> Vec<Command> {
    let frames = (0..2_000).map(|seed| Calls::from_message(hostile_message(seed, "CallFrame").into()));
    let calls = frames.filter_map(|frame| frame.decode().ok()).flatten();
    calls
        .filter_map(|call| call.command.ok())
        .filter(|command| format!("{command:?}").len() < 2_000)
        .take(800)
        .collect()
}

/// A note without gaps, and records.
fn history(records: &[(u64, Bytes)]) -> Vec<u8> {
    let note = ledger_node::history::store::Note::default().encode();
    let mut bytes = (note.len() as u16).to_le_bytes().to_vec();
    bytes.extend(note);
    for (index, record) in records {
        bytes.extend((*index as u32).to_le_bytes());
        bytes.extend((record.len() as u16).to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

/// The first segment of a log with a vote and some entries of two groups, without the zeroes behind.
fn log() -> Vec<u8> {
    let disk = Arc::new(SimDisk::new(1));
    let dir = Path::new("/wal");
    disk.create_dir_all(dir).expect("a simulated disk");
    let identity = WalIdentity { cluster: [7; 16], incarnation: 1, node: NodeId(1) };
    let config = WalConfig { segment_bytes: 32 << 10, low_space_bytes: 0, ..WalConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let wal = Wal::open(disk.clone(), dir.to_path_buf(), identity, config).await.expect("a new log");
        for group in [1, 2] {
            let group = wal.group(GroupId(group));
            group.save_vote(Bytes::from_static(b"a vote")).await.expect("saved");
            let entry = |index| WalEntry {
                index,
                head: Bytes::from_static(b"head"),
                data: Bytes::from(vec![index as u8; 300]),
            };
            group.append((1..=8).map(entry).collect(), Box::new(|_| {})).expect("taken");
            group.save_vote(Bytes::from_static(b"another")).await.expect("saved");
            group.truncate_after(Some(6)).await.expect("cut");
        }
        wal.close().await;
    });
    let mut segments: Vec<_> = disk.files().into_iter().filter_map(|path| disk.content(&path)).collect();
    segments
        .iter_mut()
        .for_each(|bytes| bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |n| n + 1)));
    segments.into_iter().max_by_key(Vec::len).expect("a segment")
}

const HTTP: [&str; 12] = [
    r#"{"lines":[{"sku":"mug","quantity":1}]}"#,
    r#"{"id":"018bcfe5-687b-7abc-bfff-ffffffffffff","lines":[{"sku":"mug","sale":"flash","quantity":1000000}],"keys":["anna","card"],"hold_ms":604800000}"#,
    r#"{"lines":[{"sku":"mug","quantity":9223372036854775807}],"hold_ms":18446744073709551615}"#,
    r#"{"lines":[{"sku":"mug","quantity":-1}],"keys":["a","b","c","d","e"]}"#,
    r#"{"replaces_ms":1767225600000,"hold_ms":60000}"#,
    r#"{"lines":[{"sku":"mug","quantity":1}],"reference":"r-1"}"#,
    r#"{"reference":"\u0000\ud83d\ude00"}"#,
    r#"{"sku":"mug","policy":{"open":true,"per_key_max":2,"per_order_min":1,"per_order_max":4,"hold_ms_default":1000,"hold_ms_max":2000,"low_stock_at":5,"price":"9.99"}}"#,
    r#"{"sku":"{q}a","policy":{"opens_at_ms":18446744073709551615,"closes_at_ms":0}}"#,
    r#"{"units":281474976710656,"reference":"r-2","sale":""}"#,
    r#"{"delta":-281474976710656,"reason":"counted","reference":"r-3","expected_version":7}"#,
    r#"[[[[[[[[[[[[[[[[[[[[[[[[{"a":1e309}]]]]]]]]]]]]]]]]]]]]]]]]"#,
];

const IDENTITY: &str = concat!(
    r#"{"format":2,"cluster":[7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7],"incarnation":1,"node":1,"ports":{"client":7101,"http":7102,"peer":7103},"#,
    r#""initiator":true,"members":[{"node":1,"client":"a:7101","peer":"a:7103","http":"a:7102"}],"disks":{"1":[9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9]},"shards":2,"replicas":3}"#
);
