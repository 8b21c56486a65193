//! What one round of the log costs on this machine: direct against buffered writes, in the same run.
//!
//! `cargo run --release -p ledger-raft --example wal_bench [directory] [rounds]`. Rounds of both kinds take turns, so that
//! a slow spell of the machine hits both. Numbers are microseconds from `append` to its callback.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use ledger_raft::disk::RealDisk;
use ledger_raft::wal::{GroupLog, Wal, WalConfig, WalEntry, WalIdentity};
use ledger_raft::{GroupId, NodeId};
use tokio::time::Instant;

const SIZES: [usize; 2] = [4 << 10, 64 << 10];

struct Lane {
    name: &'static str,
    group: GroupLog,
    next: u64,
    micros: [Vec<f64>; SIZES.len()],
}

impl Lane {
    fn round(&mut self, size: usize) -> f64 {
        // The stamps and the record header leave room for this much in a round of that many bytes.
        let data = Bytes::from(vec![b'x'; size * 488 / 512 - 28]);
        let entry = WalEntry { index: self.next, head: Bytes::new(), data };
        self.next += 1;
        let (done, answer) = mpsc::channel();
        let begun = Instant::now();
        let done = Box::new(move |result| {
            // The receiver waits right below.
            let _ = done.send(result);
        });
        self.group.append(vec![entry], done).expect("append");
        answer.recv().expect("answered").expect("durable");
        begun.elapsed().as_secs_f64() * 1e6
    }
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let home = args.next().map_or_else(std::env::temp_dir, PathBuf::from).join("wal_bench");
    let rounds: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let identity = WalIdentity { cluster: [1; 16], incarnation: 1, node: NodeId(1) };
    let (mut lanes, mut logs) = (Vec::new(), Vec::new());
    for (name, disk) in [("direct", RealDisk::new()), ("buffered", RealDisk::buffered())] {
        let dir = home.join(name);
        let wal = Wal::open(Arc::new(disk), dir, identity, WalConfig::default()).await.expect("open");
        let group = wal.group(GroupId(1));
        let next = group.state().last_index.map_or(1, |l| l + 1);
        lanes.push(Lane { name, group, next, micros: [Vec::new(), Vec::new()] });
        logs.push(wal);
    }
    for turn in 0..rounds + 50 {
        for lane in &mut lanes {
            for (i, size) in SIZES.into_iter().enumerate() {
                let micros = lane.round(size);
                if turn >= 50 {
                    lane.micros[i].push(micros);
                }
            }
        }
        if turn % 200 == 199 {
            for lane in &lanes {
                lane.group.purge(lane.next - 10, Bytes::new()).await.expect("purge");
            }
        }
    }
    println!("{rounds} rounds each, µs");
    println!("{:<10} {:>10} {:>10} {:>10} {:>10}", "writes", "round", "p50", "p99", "max");
    for lane in &mut lanes {
        for (i, size) in SIZES.into_iter().enumerate() {
            lane.micros[i].sort_by(f64::total_cmp);
            let m = &lane.micros[i];
            let kib = format!("{} KiB", size >> 10);
            println!("{:<10} {kib:>10} {:>10.0} {:>10.0} {:>10.0}", lane.name, at(m, 0.5), at(m, 0.99), at(m, 1.0));
        }
    }
    for wal in logs {
        wal.close().await;
    }
    if let Err(e) = std::fs::remove_dir_all(&home) {
        eprintln!("{} stays: {e}", home.display());
    }
}
