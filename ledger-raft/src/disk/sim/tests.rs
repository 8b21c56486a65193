//! What an observer is told, and what is left of a disk that was replaced.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{SimDisk, SimDiskChange};
use crate::seam::{Disk, DiskFile};

fn told(disk: &SimDisk) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = lines.clone();
    disk.observe(Arc::new(move |change: SimDiskChange<'_>| {
        let line = match change {
            SimDiskChange::Open { path, file } => format!("open {} {file}", path.display()),
            SimDiskChange::Write { file, offset, bytes } => format!("write {file} {offset} {bytes:?}"),
            SimDiskChange::Len { file, len } => format!("len {file} {len}"),
            SimDiskChange::Sync { file } => format!("sync {file}"),
            SimDiskChange::Rename { from, to } => format!("rename {} {}", from.display(), to.display()),
            SimDiskChange::Remove { path } => format!("remove {}", path.display()),
            SimDiskChange::SyncDir { dir } => format!("sync-dir {}", dir.display()),
        };
        heard.lock().expect("one thread").push(line);
    }));
    lines
}

#[test]
fn an_observer_is_told_of_every_change_and_of_none_that_failed() {
    let disk = SimDisk::new(1);
    let lines = told(&disk);
    let file = disk.open(Path::new("/d/a"), true).expect("created");
    file.set_len(8).expect("room");
    file.write_at(2, &[7, 8]).expect("room");
    disk.fail_at(Some(disk.ops() + 1));
    assert!(file.write_at(4, &[9]).is_err());
    file.sync().expect("synced");
    disk.rename(Path::new("/d/a"), Path::new("/d/b")).expect("there");
    disk.sync_dir(Path::new("/d")).expect("synced");
    disk.remove(Path::new("/d/b")).expect("there");
    let heard = lines.lock().expect("one thread").join("; ");
    assert_eq!(heard, "open /d/a 1; len 1 8; write 1 2 [7, 8]; sync 1; rename /d/a /d/b; sync-dir /d; remove /d/b");
}

#[test]
fn of_a_replaced_disk_nothing_is_left() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d")).expect("created");
    let lock = disk.lock_dir(Path::new("/d")).expect("free");
    let file: Arc<dyn DiskFile> = disk.open(Path::new("/d/a"), true).expect("created");
    file.write_at(0, &[1]).expect("room");
    file.sync().expect("synced");
    disk.sync_dir(Path::new("/d")).expect("synced");
    disk.wipe();
    assert!(file.len().is_err(), "a handle of the old disk works");
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new());
    assert!(!disk.exists(Path::new("/d")));
    disk.crash(3);
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new(), "a crash brought it back");
    drop(lock);
    assert!(disk.lock_dir(Path::new("/d")).is_ok());
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), true).expect("created");
    file.set_len(bytes.len() as u64).expect("room");
    file.write_at(0, bytes).expect("room");
    file.sync().expect("synced");
    disk.sync_dir(Path::new(path).parent().expect("a directory")).expect("synced");
}

#[test]
fn a_rolled_back_disk_keeps_every_place_and_a_copied_one_none() {
    let disk = SimDisk::new(1);
    write(&disk, "/d/a", b"old");
    let then = disk.fork();
    write(&disk, "/d/a", b"new");
    write(&disk, "/d/b", b"more");
    let place = |disk: &SimDisk| disk.place_of(Path::new("/d/a")).expect("there");
    let (at, handle) = (place(&disk), disk.open(Path::new("/d/a"), false).expect("there"));

    disk.restore(&then, false);
    assert_eq!(disk.content(Path::new("/d/a")).as_deref(), Some(&b"old"[..]));
    assert!(!disk.exists(Path::new("/d/b")));
    assert_eq!(place(&disk).difference(&at), None);
    assert!(handle.len().is_err(), "a handle of before works");

    disk.restore(&then, true);
    assert_eq!(disk.content(Path::new("/d/a")).as_deref(), Some(&b"old"[..]));
    assert!(place(&disk).difference(&at).is_some());
    let copied = place(&disk);
    disk.crash(3);
    assert_eq!(disk.content(Path::new("/d/a")).as_deref(), Some(&b"old"[..]), "a crash lost the copy");
    assert_eq!(place(&disk), copied);
    disk.rename(Path::new("/d/a"), Path::new("/d/c")).expect("there");
    assert_eq!(disk.place_of(Path::new("/d/c")).expect("there"), copied);
}

#[test]
fn what_is_removed_or_cut_at_rest_stays_so_over_a_crash() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/d/wal")).expect("created");
    for path in ["/d/wal/1", "/d/wal/2", "/d/wall", "/d/cut"] {
        write(&disk, path, b"bytes");
    }
    disk.remove_tree(Path::new("/d/wal"));
    disk.truncate(Path::new("/d/cut"), 2).expect("there");
    disk.crash(9);
    let names = || disk.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(names(), ["/d/cut", "/d/wall"]);
    assert!(!disk.exists(Path::new("/d/wal")));
    assert_eq!(disk.content(Path::new("/d/cut")).as_deref(), Some(&b"by"[..]));
    disk.remove_tree(Path::new("/d/cut"));
    assert_eq!(names(), ["/d/wall"]);
}
