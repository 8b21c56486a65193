//! The body of a request: how much of a message came that is not whole yet, and how long ago.
//!
//! **What it is.** gRPC writes five bytes before each message, the last four of which are its
//! length. tonic keeps what came until the message is whole, and gives HTTP/2's window back at once:
//! without a bound each stream of a connection could have a whole frame but its last byte here.
//!
//! **Owns** the count of such bytes. **Must never** count a message that is whole, or look into one.
//! **Read next**: [`super::meter`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use service::{Buffered, Place};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::limits::REQUEST_GOES_ON_WITHIN;

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Where in a stream of messages the bytes that came end.
#[derive(Debug, Default)]
struct Progress {
    head: [u8; HEAD],
    /// Bytes of the head that came.
    headed: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Bytes of it that came, with its head; 0: the bytes end where a message does.
    begun: usize,
}

impl Progress {
    /// More bytes came.
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = if self.headed < HEAD { HEAD - self.headed } else { self.left };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            self.begun += now.len();
            if self.headed < HEAD {
                self.head[self.headed..self.headed + now.len()].copy_from_slice(now);
                self.headed += now.len();
                if self.headed == HEAD {
                    let [_, length @ ..] = self.head;
                    self.left = u32::from_be_bytes(length) as usize;
                }
            } else {
                self.left -= now.len();
            }
            if self.headed == HEAD && self.left == 0 {
                *self = Self::default();
            }
        }
    }
}

/// The body of a request of a connection.
pub(super) struct Incoming<B> {
    body: B,
    connection: Place,
    at: Progress,
    /// The message that began.
    begun: Option<Buffered>,
    /// When it must have gone on.
    due: Option<Pin<Box<Sleep>>>,
}

impl<B> Incoming<B> {
    pub(super) fn new(body: B, connection: Place) -> Self {
        Self { body, connection, at: Progress::default(), begun: None, due: None }
    }

    fn came(&mut self, bytes: &[u8]) {
        let before = self.at.begun;
        self.at.pass(bytes);
        let now = self.at.begun;
        match &mut self.begun {
            _ if now == 0 => self.begun = None,
            Some(begun) if now == before + bytes.len() => begun.grow(bytes.len()),
            // Another message than before.
            begun => *begun = Some(self.connection.buffer(now)),
        }
        if self.begun.is_some() {
            let due = Instant::now() + REQUEST_GOES_ON_WITHIN;
            match &mut self.due {
                Some(sleep) => sleep.as_mut().reset(due),
                none => *none = Some(Box::pin(sleep(REQUEST_GOES_ON_WITHIN))),
            }
        }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Incoming<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let late = this.begun.is_some() && this.due.as_mut().is_some_and(|due| due.as_mut().poll(cx).is_ready());
            return match late {
                true => {
                    this.begun = None;
                    let within = REQUEST_GOES_ON_WITHIN.as_secs();
                    let why = format!("nothing of a message that had begun came within {within} s; send it again");
                    Poll::Ready(Some(Err(Status::aborted(why))))
                }
                false => Poll::Pending,
            };
        };
        if let Some(bytes) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.came(&bytes.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use proptest::prelude::*;
    use service::{ConnectionBounds, PortGate};
    use tokio::sync::mpsc;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(HEAD + length, 7);
        bytes
    }

    proptest! {
        /// However the bytes are cut: what counts is what came behind the last whole message.
        #[test]
        fn bytes_behind_the_last_whole_message_count(
            lengths in prop::collection::vec(0_usize..40, 1..6),
            cuts in prop::collection::vec(1_usize..30, 1..60),
        ) {
            let (mut stream, mut ends) = (Vec::new(), vec![0]);
            for length in lengths {
                stream.extend(message(length));
                ends.push(stream.len());
            }
            let (mut at, mut passed) = (Progress::default(), 0);
            for cut in cuts {
                let next = stream.len().min(passed + cut);
                at.pass(&stream[passed..next]);
                passed = next;
                let whole = *ends.iter().rfind(|end| **end <= passed).expect("the first is 0");
                prop_assert_eq!(at.begun, passed - whole);
            }
        }
    }

    /// A body that is fed by hand.
    struct Fed(mpsc::UnboundedReceiver<Bytes>);

    impl Body for Fed {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn body() -> (Arc<PortGate>, mpsc::UnboundedSender<Bytes>, Incoming<Fed>) {
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let place = gate.admit(IpAddr::from([127, 0, 0, 1])).expect("there is room");
        let (feed, fed) = mpsc::unbounded_channel();
        (gate, feed, Incoming::new(Fed(fed), place))
    }

    async fn next(body: &mut Incoming<Fed>) -> Option<Result<Frame<Bytes>, Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn message_that_does_not_go_on_ends_its_request_and_one_that_does_is_taken() {
        let (gate, feed, mut body) = body();
        let whole = message(1_000);
        let began = Instant::now();
        for part in whole.chunks(100) {
            tokio::time::advance(REQUEST_GOES_ON_WITHIN / 2).await;
            feed.send(Bytes::copy_from_slice(part)).expect("taken");
            next(&mut body).await.expect("a frame").expect("in time");
        }
        assert!(began.elapsed() > 2 * REQUEST_GOES_ON_WITHIN);
        assert_eq!(gate.buffered(), 0, "it is whole");
        // No time is set between two messages.
        let day = std::time::Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, next(&mut body)).await.is_err());

        feed.send(Bytes::copy_from_slice(&whole[..900])).expect("taken");
        next(&mut body).await.expect("a frame").expect("in time");
        assert_eq!(gate.buffered(), 900);
        let began = Instant::now();
        let why = next(&mut body).await.expect("its end").expect_err("late");
        assert_eq!((began.elapsed(), why.code()), (REQUEST_GOES_ON_WITHIN, tonic::Code::Aborted));
        assert_eq!(gate.buffered(), 0);
    }

    #[tokio::test]
    async fn unfinished_message_counts_until_it_is_whole_or_its_request_ends() {
        let (gate, feed, mut body) = body();
        let bytes = [message(10), message(20), message(30)].concat();
        let mut send = async |bytes: &[u8], counted: usize| {
            feed.send(Bytes::copy_from_slice(bytes)).expect("taken");
            next(&mut body).await.expect("a frame").expect("no error");
            assert_eq!(gate.buffered(), counted);
        };
        send(&bytes[..3], 3).await;
        send(&bytes[3..12], 12).await;
        // The end of the first and the beginning of the second.
        send(&bytes[12..20], 5).await;
        send(&bytes[20..40], 0).await;
        send(&bytes[40..60], 20).await;
        drop(body);
        assert_eq!(gate.buffered(), 0);
    }
}
