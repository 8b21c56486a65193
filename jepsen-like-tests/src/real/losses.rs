//! A stopped node's directory loses something: files, the end of one, everything since a copy, or its place.
//!
//! **Owns** what is done to the files, and how the node's log names it afterwards. **Must never** touch a directory whose node runs.
//! **Read next**: [`super::nemesis`].

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a directory loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The log's directory.
    Log,
    /// The log's newest segment.
    NewestSegment,
    /// The second half of the log's newest segment.
    HalfOfNewestSegment,
    /// Its place: it becomes a copy of itself.
    Place,
}

impl Loss {
    pub(super) const ALL: [Self; 4] = [Self::Log, Self::NewestSegment, Self::HalfOfNewestSegment, Self::Place];

    /// For people.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Log => "lost its log",
            Self::NewestSegment => "lost the newest segment of its log",
            Self::HalfOfNewestSegment => "lost half of the newest segment of its log",
            Self::Place => "was copied to another place",
        }
    }
}

/// A line of a node's log at the end of a repair.
pub(super) const REPAIRED: &str = "the damaged replica is repaired and votes again";
/// A line of a node's log that says so when it starts after any [`Loss`].
pub(super) const DAMAGED: &str = "the log is damaged";
/// ... and after [`restore`], once another node has answered.
pub(super) const WENT_BACK: &str = "the disk went back";

/// Takes something from a directory.
pub(super) fn lose(data_dir: &Path, loss: Loss) -> io::Result<()> {
    let wal = data_dir.join("wal");
    match loss {
        Loss::Log => fs::remove_dir_all(&wal),
        Loss::NewestSegment => fs::remove_file(newest_segment(&wal)?),
        Loss::HalfOfNewestSegment => {
            let file = fs::File::options().write(true).open(newest_segment(&wal)?)?;
            file.set_len(file.metadata()?.len() / 2)
        }
        Loss::Place => {
            let original = data_dir.with_extension("original");
            fs::rename(data_dir, &original)?;
            copy(&original, data_dir)?;
            fs::remove_dir_all(&original)
        }
    }
}

/// A copy of a directory, to be given to [`restore`].
pub(super) fn keep(data_dir: &Path) -> io::Result<PathBuf> {
    let kept = data_dir.with_extension("older");
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    copy(data_dir, &kept)?;
    Ok(kept)
}

/// Sets a directory back to what it was, as a restored volume: files keep their identity, so that nothing in it says so.
pub(super) fn restore(data_dir: &Path, kept: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let path = entry?.path();
        let older = kept.join(path.file_name().unwrap_or_default());
        match (path.is_dir(), older.exists()) {
            (true, true) => restore(&path, &older)?,
            (true, false) => fs::remove_dir_all(&path)?,
            (false, true) => {
                let mut from = fs::File::open(&older)?;
                let mut to = fs::File::options().write(true).truncate(true).open(&path)?;
                io::copy(&mut from, &mut to)?;
                to.sync_all()?;
            }
            (false, false) => fs::remove_file(&path)?,
        }
    }
    for entry in fs::read_dir(kept)? {
        let older = entry?.path();
        let path = data_dir.join(older.file_name().unwrap_or_default());
        if !path.exists() {
            copy(&older, &path)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The segment that was begun last: its number lies behind the magic of its header.
fn newest_segment(wal: &Path) -> io::Result<PathBuf> {
    let begun = |path: PathBuf| {
        let mut head = [0; 8];
        io::Read::read_exact(&mut fs::File::open(&path).ok()?, &mut head).ok()?;
        let generation = u32::from_le_bytes(*head.last_chunk()?);
        (generation > 0).then_some((generation, path))
    };
    let files = fs::read_dir(wal)?.filter_map(|entry| Some(entry.ok()?.path()));
    let segments = files.filter(|path| path.extension() == Some(OsStr::new("seg")));
    let newest = segments.filter_map(begun).max().map(|(_, path)| path);
    newest.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no segment of the log was begun"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(wal: &Path, name: &str, generation: u32) {
        let mut bytes = b"HFWL".to_vec();
        bytes.extend(generation.to_le_bytes());
        bytes.resize(100, 0);
        fs::write(wal.join(name), bytes).unwrap();
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        fs::create_dir_all(data_dir.join("wal")).unwrap();
        segment(&data_dir.join("wal"), "000001.seg", 7);
        segment(&data_dir.join("wal"), "000002.seg", 9);
        segment(&data_dir.join("wal"), "000003.seg", 0);
        fs::write(data_dir.join("holdfast.identity"), b"identity").unwrap();
        (dir, data_dir)
    }

    #[test]
    fn what_is_lost_is_lost_and_the_rest_stays() {
        for loss in Loss::ALL {
            let (_dir, data_dir) = directory();
            let newest = data_dir.join("wal/000002.seg");
            let inode =
                || std::os::unix::fs::MetadataExt::ino(&fs::metadata(data_dir.join("holdfast.identity")).unwrap());
            let before = inode();
            lose(&data_dir, loss).unwrap();
            assert_eq!(data_dir.join("wal").exists(), loss != Loss::Log);
            assert_eq!(data_dir.join("wal/000001.seg").exists(), loss != Loss::Log);
            match loss {
                Loss::Log | Loss::NewestSegment => assert!(!newest.exists()),
                Loss::HalfOfNewestSegment => assert_eq!(fs::metadata(&newest).unwrap().len(), 50),
                Loss::Place => assert_ne!(inode(), before),
            }
        }
    }

    #[test]
    fn a_restored_directory_is_as_it_was_at_its_place() {
        let (_dir, data_dir) = directory();
        let identity = data_dir.join("holdfast.identity");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&identity).unwrap());
        let before = inode();
        let kept = keep(&data_dir).unwrap();
        fs::write(&identity, b"later and longer").unwrap();
        fs::remove_file(data_dir.join("wal/000001.seg")).unwrap();
        segment(&data_dir.join("wal"), "000004.seg", 10);
        fs::create_dir_all(data_dir.join("snapshots")).unwrap();
        restore(&data_dir, &kept).unwrap();
        assert_eq!(fs::read(&identity).unwrap(), b"identity");
        assert_eq!(inode(), before);
        let mut names: Vec<_> = fs::read_dir(data_dir.join("wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["000001.seg", "000002.seg", "000003.seg"]);
        assert!(!data_dir.join("snapshots").exists());
    }
}
