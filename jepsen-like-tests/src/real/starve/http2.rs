//! HTTP/2 by hand: what a client may send that no client library would.
//!
//! **Owns** the bytes of these frames. **Must never** be a client: it keeps no state of a connection. **Read next**: [`super::attack`].

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;

/// Of `SETTINGS` and `PING`: it answers one.
pub(super) const ACK: u8 = 1;
/// Of `DATA` and `HEADERS`: the stream ends with it.
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Longest frame that a node sends to who asked for no longer ones.
const FRAME_BYTES_MAX: usize = 16 << 10;
const HEAD_BYTES: usize = 9;

/// A frame as it came; what `DATA` carried is not kept.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a connection begins with. `window`: what each stream may send to us before we take any of it.
pub(super) fn preface(window: u32) -> Vec<u8> {
    let initial_window_size = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &initial_window_size)].concat()
}

/// A whole gRPC call of a method with an empty message.
pub(super) fn call(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    // Literals without indexing: lengths are below 127 and fit one byte.
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let headers: Vec<u8> =
        fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
    [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// The next frame.
///
/// # Errors
/// The connection ended, or sends what no node sends.
pub(super) async fn next_frame(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut head = [0; HEAD_BYTES];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await?;
    Ok(Frame { kind: head[3], flags: head[4], payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let bytes = [frame(PING, ACK, 0, &[7; 8]), call(1, "/a"), vec![0]].concat();
        let mut io = &bytes[..];
        let kinds = [(PING, ACK, 8), (HEADERS, END_HEADERS, 104), (DATA, END_STREAM, 5)];
        for (kind, flags, length) in kinds {
            let frame = next_frame(&mut io).await.expect("a frame");
            assert_eq!((frame.kind, frame.flags, frame.payload.len()), (kind, flags, length));
        }
        assert!(next_frame(&mut io).await.is_err(), "half a frame");
        let mut long = &frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX + 1])[..];
        assert!(next_frame(&mut long).await.is_err());
    }
}
