//! The book on disk: one line of JSON an entry, appended, never changed.
//!
//! **Owns** the format of lines and what a damaged file means. A line is
//! `{"crc":"0a1b2c3d","n":17,"entry":{…}}`; the checksum is CRC-32C of what follows its comma, up to the line's end. Lines are
//! numbered without gaps. A last line without its end was being written when the process died, was never answered for, and is cut.
//! Anything else that is wrong is damage, and the file is refused by name: guessing about money helps nobody.
//! **Must never** cut what ended in a newline. **Read next**: [`super::shelf`].

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Deserialize;

use super::records::{Entry, Opened};
use super::{Book, Place};
use crate::limits::LINE_BYTES_MAX;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "payments.journal";
/// Of the format.
pub(crate) const VERSION: u32 = 1;

const HEAD: &[u8] = b"{\"crc\":\"";
/// Bytes before what the checksum covers: the head, eight digits, a quotation mark and a comma.
const COVERED_FROM: usize = HEAD.len() + 10;

/// Why a book cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system says no.
    #[error("{path}")]
    Io {
        /// Of the file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process keeps this book.
    #[error("{path} is in use by another process; give each its own data directory")]
    InUse {
        /// Of the file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("{path} is damaged at line {line} (byte {offset}): {what}; restore it, or begin a new data directory")]
    Damaged {
        /// Of the file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Of the line's first byte.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// An open journal and what it held.
pub(crate) struct Opening {
    pub(crate) book: Book,
    /// For appending; holds the lock.
    pub(crate) file: File,
    /// Bytes in the file.
    pub(crate) length: u64,
    /// Lines in the file.
    pub(crate) lines: u64,
}

/// Opens the journal in `dir`, or begins one salted with `salt`, and reads it.
pub(crate) fn open(dir: &Path, salt: u32, now_ms: i64) -> Result<Opening, OpenError> {
    let path = dir.join(FILE);
    let io = |source| OpenError::Io { path: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse { path: path.clone() }),
        Err(errno) => return Err(io(errno.into())),
    }
    let (mut book, mut length, mut lines) = replay(&path, &mut file)?;
    if file.metadata().map_err(io)?.len() != length {
        file.set_len(length).map_err(io)?;
    }
    if lines == 0 {
        let opened = Opened { version: VERSION, salt };
        let entry = Entry { at_ms: now_ms, opened: Some(opened), ..Entry::default() };
        let mut line = Vec::new();
        let place = append(&mut line, 0, 0, &entry).map_err(io)?;
        file.write_all(&line).map_err(io)?;
        book.apply(entry, place);
        (length, lines) = (line.len() as u64, 1);
    }
    file.sync_all().map_err(io)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
    Ok(Opening { book, file, length, lines })
}

/// Reads the whole file: the book, the bytes that are whole lines, and how many lines.
fn replay(path: &Path, file: &mut File) -> Result<(Book, u64, u64), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut book, mut offset, mut lines) = (Book::default(), 0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        io::Read::take(&mut reader, LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(io)?;
        let damaged = |what| OpenError::Damaged { path: path.to_owned(), line: lines + 1, offset, what };
        if line.len() > LINE_BYTES_MAX {
            return Err(damaged(format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok((book, offset, lines));
        };
        let entry = decode(text, lines).map_err(damaged)?;
        if (lines == 0) != entry.opened.is_some() {
            return Err(damaged("only the first line opens the book".to_owned()));
        }
        if let Some(opened) = entry.opened.filter(|o| o.version != VERSION) {
            return Err(damaged(format!("its version is {}, not {VERSION}", opened.version)));
        }
        book.check(&entry).map_err(damaged)?;
        book.apply(entry, Place { offset, bytes: line.len() as u32 });
        offset += line.len() as u64;
        lines += 1;
    }
}

/// Appends line `n` to `bytes`, which will lie at `base` in the file.
pub(crate) fn append(bytes: &mut Vec<u8>, base: u64, n: u64, entry: &Entry) -> io::Result<Place> {
    let start = bytes.len();
    bytes.extend_from_slice(HEAD);
    bytes.extend_from_slice(b"00000000\",");
    write!(bytes, "\"n\":{n},\"entry\":")?;
    serde_json::to_writer(&mut *bytes, entry)?;
    bytes.push(b'}');
    let line = &mut bytes[start..];
    let crc = crc32c::crc32c(&line[COVERED_FROM..]);
    write!(&mut line[HEAD.len()..HEAD.len() + 8], "{crc:08x}")?;
    bytes.push(b'\n');
    Ok(Place { offset: base + start as u64, bytes: (bytes.len() - start) as u32 })
}

/// Reads line `n`, without its newline.
fn decode(line: &[u8], n: u64) -> Result<Entry, String> {
    let line = checked(line)?;
    if line.n == n { Ok(line.entry) } else { Err(format!("it is numbered {}, not {n}", line.n)) }
}

/// Reads a line, without its newline, whose place vouches for its number.
pub(crate) fn decode_any(line: &[u8]) -> Result<Entry, String> {
    checked(line).map(|line| line.entry)
}

#[derive(Deserialize)]
struct Line {
    n: u64,
    entry: Entry,
}

fn checked(line: &[u8]) -> Result<Line, String> {
    if line.len() < COVERED_FROM || !line.starts_with(HEAD) || &line[COVERED_FROM - 2..COVERED_FROM] != b"\"," {
        return Err("it does not begin with a checksum".to_owned());
    }
    let digits = str::from_utf8(&line[HEAD.len()..HEAD.len() + 8]).unwrap_or_default();
    if u32::from_str_radix(digits, 16) != Ok(crc32c::crc32c(&line[COVERED_FROM..])) {
        return Err("its checksum does not fit".to_owned());
    }
    serde_json::from_slice(line).map_err(|e| format!("it cannot be read: {e}"))
}
