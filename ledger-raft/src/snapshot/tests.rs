//! Snapshot files: written, read back, crashed at every operation, spoilt.

use super::*;
use crate::disk::{CrashPoint, SimDisk};
use crate::types::log_id;

fn head(index: u64) -> SnapshotHead {
    SnapshotHead {
        cluster: [1; 16],
        incarnation: 1,
        group: 4,
        last: log_id(2, index),
        stamp_ms: 77,
        membership: StoredMembership::default(),
    }
}

fn store(disk: &SimDisk) -> SnapshotStore {
    disk.create_dir_all(Path::new("/s")).unwrap();
    SnapshotStore::open(Arc::new(disk.clone()), Path::new("/s"), [1; 16], GroupId(4)).unwrap()
}

fn content(f: &SnapshotFile) -> Vec<u8> {
    let mut b = Vec::new();
    f.body().read_to_end(&mut b).unwrap();
    b
}

#[test]
fn what_is_written_is_read_and_the_newest_two_are_kept() {
    let disk = SimDisk::new(1);
    let s = store(&disk);
    for (i, len) in [(10, 0), (20, 1), (30, SNAPSHOT_CHUNK_BYTES), (40, 3 * SNAPSHOT_CHUNK_BYTES + 5)] {
        let body: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let f = s.create(&head(i), |w| w.write_all(&body), |_| Ok(())).unwrap();
        assert_eq!(content(&f), body);
    }
    disk.crash(1);
    let s = store(&disk);
    let kept: Vec<u64> = lock(&s.files).iter().map(|f| f.head.last.index).collect();
    assert_eq!(kept, [30, 40]);
    assert_eq!(s.newest().unwrap().head, head(40));
    assert_eq!(s.covered(), 30);
}

/// A receive that was given up may go on writing when the next one has begun, also one of a store that came after.
#[test]
fn two_receives_of_one_snapshot_share_no_file() {
    let disk = SimDisk::new(1);
    let names = Arc::new(AtomicU64::new(0));
    let (sender, s) = (store(&SimDisk::new(2)), store(&disk).named_by(names.clone()));
    let sent = sender.create(&head(10), |w| w.write_all(b"state"), |_| Ok(())).unwrap();
    let offer = Offer { last: sent.head.last, bytes: sent.bytes };
    let (given_up, next) = (s.receive(&offer).unwrap(), s.receive(&offer).unwrap());
    let of_another = store(&disk).named_by(names).receive(&offer).unwrap();
    let paths: std::collections::BTreeSet<_> = [&given_up, &next, &of_another].map(|i| i.tmp.path.clone()).into();
    assert_eq!(paths.len(), 3, "{paths:?}");
}

#[test]
fn a_snapshot_that_does_not_read_back_is_never_used() {
    let disk = SimDisk::new(1);
    let s = store(&disk);
    s.create(&head(10), |w| w.write_all(b"old"), |_| Ok(())).unwrap();
    let refuses = |bytes: &mut dyn Read| {
        let mut read = Vec::new();
        bytes.read_to_end(&mut read)?;
        assert_eq!(read, b"new");
        Err(malformed("state"))
    };
    let refused = s.create(&head(20), |w| w.write_all(b"new"), refuses).unwrap_err();
    assert!(refused.to_string().contains("does not read back"), "{refused}");
    for s in [&s, &store(&disk)] {
        assert_eq!((s.newest().unwrap().head.last.index, s.covered()), (10, 10));
    }
    // Checksums are read even where the checker stops early.
    let short = |_: &mut dyn Read| {
        let file = disk.files().into_iter().find(|file| file.extension().is_some_and(|e| e == "tmp")).unwrap();
        disk.flip_bit(&file, disk.content(&file).unwrap().len() as u64 - 60, 1)
    };
    assert!(s.create(&head(20), |w| w.write_all(&[1; 1000]), short).is_err());
    let newest = s.create(&head(20), |w| w.write_all(b"new"), |_| Ok(())).unwrap();
    assert_eq!(newest.head, head(20));
    s.set_aside(&newest).unwrap();
    for s in [&s, &store(&disk)] {
        assert_eq!((s.newest().unwrap().head.last.index, s.covered()), (10, 10));
    }
}

/// What a repair brings may be older than what is here, and is the only one that counts.
#[test]
fn a_snapshot_that_replaces_all_others_stays_when_it_is_the_oldest() {
    let (from, disk) = (SimDisk::new(1), SimDisk::new(2));
    let given = store(&from).create(&head(10), |w| w.write_all(b"right"), |_| Ok(())).unwrap();
    let s = store(&disk);
    for i in [20, 30] {
        s.create(&head(i), |w| w.write_all(b"wrong"), |_| Ok(())).unwrap();
    }
    let incoming = s.receive(&Offer { last: given.head.last, bytes: given.bytes }).unwrap();
    incoming.put(0, &given.range(0, given.bytes as usize).unwrap()).unwrap();
    let received = s.received(incoming).unwrap();
    s.place_only(&received).unwrap();
    for s in [&s, &store(&disk)] {
        assert_eq!(lock(&s.files).iter().map(|f| f.head.last.index).collect::<Vec<_>>(), [10]);
        assert_eq!(content(&s.newest().unwrap()), b"right");
    }
}

/// A start with an old build must not take the snapshots from the new one, nor an error that
/// passes.
#[test]
fn only_rotten_snapshots_are_set_aside() {
    let disk = SimDisk::new(1);
    store(&disk).create(&head(10), |w| w.write_all(b"old"), |_| Ok(())).unwrap();
    let name = PathBuf::from("/s").join(final_name(4, &log_id(2, 20)));
    let mut newer = head(20).to_bytes().to_vec();
    newer[8] = 2;
    let file = disk.open(&name, true).unwrap();
    file.write_at(0, &newer).unwrap();
    file.sync().unwrap();
    for _ in 0..2 {
        let s = store(&disk);
        assert!(s.unsupported().unwrap().contains("snapshot format 2 is not known here"));
        assert_eq!(s.newest().unwrap().head.last.index, 10);
        assert_eq!(disk.content(&name).as_deref(), Some(&newer[..]));
    }
    disk.remove(&name).unwrap();
    let before = disk.ops();
    assert_eq!(store(&disk).unsupported(), None);
    let ops = disk.ops() - before;
    for n in 1..=ops {
        let disk = disk.fork();
        disk.fail_at(Some(disk.ops() + n));
        let opened = SnapshotStore::open(Arc::new(disk.clone()), Path::new("/s"), [1; 16], GroupId(4));
        assert!(opened.is_err(), "operation {n} of {ops}");
        assert_eq!(store(&disk).newest().unwrap().head.last.index, 10, "operation {n} of {ops}");
    }
}

/// A build that takes long may end when its replica was given another state.
#[test]
fn a_store_of_a_replica_that_is_over_puts_nothing_in_place() {
    let disk = SimDisk::new(1);
    let s = store(&disk);
    s.create(&head(10), |w| w.write_all(b"old"), |_| Ok(())).unwrap();
    let retires = |w: &mut dyn Write| {
        s.retire()?;
        w.write_all(b"discarded")
    };
    assert!(s.create(&head(20), retires, |_| Ok(())).is_err());
    assert_eq!(store(&disk).newest().unwrap().head.last.index, 10);
    assert_eq!(disk.files().len(), 1, "{:?}", disk.files());
}

#[test]
fn a_rotten_newest_falls_back_to_the_older_one() {
    let disk = SimDisk::new(1);
    let s = store(&disk);
    for i in [10, 20] {
        s.create(&head(i), |w| w.write_all(&[7; 100_000]), |_| Ok(())).unwrap();
    }
    let name = PathBuf::from("/s").join(final_name(4, &log_id(2, 20)));
    let len = disk.content(&name).unwrap().len() as u64;
    // Every region: header, chunk head, chunk, trailer.
    for at in [3, 40, 120, 5_000, len - 5] {
        let disk = disk.fork();
        disk.flip_bit(&name, at, 2).unwrap();
        let s = store(&disk);
        assert_eq!(s.newest().unwrap().head.last.index, 10, "byte {at}");
    }
}

#[test]
fn a_crash_at_any_point_of_writing_leaves_the_old_one() {
    let disk = SimDisk::new(1);
    let s = store(&disk);
    s.create(&head(10), |w| w.write_all(b"old"), |_| Ok(())).unwrap();
    let before = disk.ops();
    s.create(&head(20), |w| w.write_all(&[9; 600_000]), |_| Ok(())).unwrap();
    let ops = disk.ops() - before;
    for n in 1..=ops {
        for point in [CrashPoint::During(before + n), CrashPoint::After(before + n)] {
            let disk = SimDisk::new(n);
            let s = store(&disk);
            s.create(&head(10), |w| w.write_all(b"old"), |_| Ok(())).unwrap();
            disk.stop_at(Some(point));
            let made = s.create(&head(20), |w| w.write_all(&[9; 600_000]), |_| Ok(()));
            assert!(made.is_err(), "the power went, so nobody heard of success: {point:?}");
            disk.crash(n);
            let newest = store(&disk).newest().unwrap();
            let index = newest.head.last.index;
            assert_eq!(content(&newest).len(), if index == 20 { 600_000 } else { 3 }, "{point:?}");
        }
    }
}

#[test]
fn the_header_and_trailer_are_frozen() {
    let h = head(0x55).to_bytes();
    assert_eq!(&h[..16], b"HFSNAP\r\n\x01\0\0\0\x5c\0\0\0");
    assert_eq!(h.len(), 16 + 0x5c + 4);
    assert_eq!(h[16..48], [&[1u8; 16][..], &[1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]].concat());
    let e = end_bytes(3, 1);
    assert_eq!(&e[..24], b"HFSNEND\n\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
}
