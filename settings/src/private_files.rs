//! Files that belong to one user: what the programs write, and the secrets that they read.
//!
//! **Owns** the modes of files and the check of key files. **Must never** print what is in one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// What others may do with a file or directory.
const OTHERS: u32 = 0o077;
/// Longest key file that is read: some hundred keys.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// From now on this process makes directories of mode 0700 and files of mode 0600, also where
/// libraries make them. Programs call it before anything else.
pub fn for_this_process() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Takes away what others may do with a directory; whether they might do something.
///
/// # Errors
/// It is not this user's, or there is none.
pub fn narrow(dir: &Path) -> io::Result<bool> {
    let mode = fs::metadata(dir)?.mode();
    if mode & OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(dir, Permissions::from_mode(mode & 0o7700)).map(|()| true)
}

/// Writes a file that only this user may read, in the place of any other.
///
/// # Errors
/// The disk's.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // One that was there keeps its mode when it is opened.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Adds a line to a key file, which is made if there is none. What it holds stays.
///
/// # Errors
/// [`KeyFileError`], as [`read_key_file`].
pub fn add_to_key_file(path: &Path, line: &str) -> Result<(), KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(io)?;
    check(path, &file)?;
    file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or change it.
    #[error(
        "{} has mode {mode:03o}, so that others may read or change it; hint: chmod 600 {}, \
         in a Kubernetes secret's volume: defaultMode: 0400",
        path.display(),
        path.display()
    )]
    Wide {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is neither this user's nor root's.
    #[error("{} belongs to user {owner}, who may change it; hint: chown it to this program's user", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// It is longer than any key file.
    #[error("{} is longer than {KEY_FILE_BYTES_MAX} bytes", path.display())]
    Long {
        /// Which.
        path: PathBuf,
    },
}

/// The text of a file that holds a secret, if nobody else could have read or written it.
///
/// # Errors
/// [`KeyFileError`], with what to do.
pub fn read_key_file(path: &Path) -> Result<String, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    check(path, &file)?;
    let mut text = String::new();
    let read = file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if read as u64 > KEY_FILE_BYTES_MAX {
        return Err(KeyFileError::Long { path: path.to_owned() });
    }
    Ok(text)
}

/// Asks the open file, so that nothing is read but what was checked.
fn check(path: &Path, file: &File) -> Result<(), KeyFileError> {
    let found = file.metadata().map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if mode & OTHERS != 0 {
        return Err(KeyFileError::Wide { path: path.to_owned(), mode });
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(KeyFileError::Foreign { path: path.to_owned(), owner });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn key_file_that_others_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        write(&path, "s3cret\n").expect("written");
        assert_eq!((mode(&path), read_key_file(&path).expect("one's own")), (0o600, "s3cret\n".to_owned()));
        for wide in [0o640, 0o604, 0o620, 0o644, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).expect("set");
            let refused = read_key_file(&path).expect_err("wide").to_string();
            assert!(refused.contains("chmod 600") && refused.contains(&format!("{wide:03o}")), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
            assert!(add_to_key_file(&path, "more").is_err());
        }
        write(&path, "other").expect("written");
        assert_eq!(mode(&path), 0o600, "a file that was there is narrowed");
        assert!(matches!(read_key_file(&dir.path().join("none")), Err(KeyFileError::Io { .. })));
        write(&path, &"x".repeat(KEY_FILE_BYTES_MAX as usize + 1)).expect("written");
        assert!(matches!(read_key_file(&path), Err(KeyFileError::Long { .. })));
    }

    #[test]
    fn keys_are_added_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        add_to_key_file(&path, "one").expect("made");
        add_to_key_file(&path, "two").expect("added");
        assert_eq!((mode(&path), read_key_file(&path).expect("one's own")), (0o600, "one\ntwo\n".to_owned()));
    }

    #[test]
    fn directory_is_narrowed_once() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set");
        assert!(narrow(dir.path()).expect("one's own"));
        assert_eq!(mode(dir.path()), 0o700);
        assert!(!narrow(dir.path()).expect("one's own"));
    }
}
