//! The same log on real files, with its writer on a thread.

use std::sync::Arc;

use bytes::Bytes;
use ledger_raft::disk::RealDisk;
use ledger_raft::wal::{Wal, WalConfig, WalError};

use crate::model::{GROUPS, append, config, entry, identity, observe};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

fn smoke(disk: RealDisk) {
    let home = tempfile::tempdir().expect("directory");
    let dir = home.path().join("wal");
    let config = WalConfig { segment_bytes: 1 << 20, ..config() };
    let open = || Wal::open(Arc::new(disk.clone()), dir.clone(), identity(), config.clone());
    runtime().block_on(async {
        let wal = open().await.expect("open");
        assert!(matches!(open().await.err(), Some(WalError::Locked { .. })));
        let mut answers = Vec::new();
        for index in 1..=300u64 {
            for id in GROUPS {
                answers.push(append(&wal.group(id), vec![entry(index, 7, 4000)]));
            }
            if index % 50 == 0 {
                wal.group(GROUPS[0]).purge(index - 20, Bytes::from(format!("id {}", index - 20))).await.expect("purge");
            }
        }
        for answer in answers {
            answer.await.expect("answered").expect("durable");
        }
        wal.group(GROUPS[2]).save_vote(Bytes::from_static(b"v")).await.expect("vote");
        let before: Vec<_> = GROUPS.iter().map(|g| observe(&wal.group(*g))).collect();
        wal.close().await;
        let wal = open().await.expect("open again");
        assert_eq!(wal.damage(), []);
        let after: Vec<_> = GROUPS.iter().map(|g| observe(&wal.group(*g))).collect();
        assert_eq!(before, after);
        assert_eq!(after[0].entries.len(), 20);
        wal.close().await;
    });
}

#[test]
fn works_direct_where_the_file_system_can() {
    smoke(RealDisk::new());
}

#[test]
fn works_buffered() {
    smoke(RealDisk::buffered());
}
