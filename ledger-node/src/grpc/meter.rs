//! Calls, their unread answers and their unfinished requests, as the port's gate counts them.
//!
//! **What it is.** A layer around the services. A call begins with its headers and ends when the
//! body of its answer is dropped; a connection with a call under way keeps its place. Each part of
//! an answer counts as buffered until HTTP/2 has written it, and so does the beginning of a message
//! until the whole of it came. A stream makes no more answers while much of them is unread.
//!
//! **Owns** when a call begins and ends, and the bounds of one stream. **Must never** look into a
//! message, or cost a command anything: the parts are frames. **Read next**: [`super::connection`],
//! [`super::request`], [`service::port`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Ready, ready as at_once};
use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use ledger_proto::{Cause, NotNow, status};
use service::{Buffered, Call, CallsFull, Place};
use tower::{Layer, Service};

use super::connection::Caller;
use super::request::Incoming;
use crate::limits::{PART_BYTES, RETRY_OVERLOADED_MS, UNREAD_PER_STREAM};

/// HTTP/2 gets an answer in slices of at most so many bytes.
const SLICE_BYTES: usize = UNREAD_PER_STREAM / 2;

/// Meters the calls of every service behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeterLayer;

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;
    fn layer(&self, inner: S) -> Meter<S> {
        Meter { inner }
    }
}

/// See [`MeterLayer`].
#[derive(Debug, Clone)]
pub(super) struct Meter<S> {
    inner: S,
}

/// tonic's body, of requests and of answers.
type Bytestream = tonic::body::Body;

impl<S> Service<Request<Bytestream>> for Meter<S>
where
    S: Service<Request<Bytestream>, Response = Response<Bytestream>>,
    S::Future: Send + 'static,
{
    type Response = Response<Metered<Bytestream>>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Self::Response, S::Error>>, BoxFuture<'static, Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Bytestream>) -> Self::Future {
        let Some(place) = request.extensions().get::<Caller>().map(|caller| caller.place.clone()) else {
            // Of no connection: in tests.
            let answered = |answer: Response<Bytestream>| answer.map(|body| Metered::new(body, None, None));
            return Either::Right(self.inner.call(request).map(move |answer| answer.map(answered)).boxed());
        };
        match place.call() {
            Ok(call) => {
                let request = request.map(|body| Bytestream::new(Incoming::new(body, place.clone())));
                let answered =
                    |answer: Response<Bytestream>| answer.map(|body| Metered::new(body, Some(place), Some(call)));
                Either::Right(self.inner.call(request).map(move |answer| answer.map(answered)).boxed())
            }
            Err(full) => {
                let refused = too_many(full).into_http::<Bytestream>();
                Either::Left(at_once(Ok(refused.map(|body| Metered::new(body, Some(place), None)))))
            }
        }
    }
}

fn too_many(full: CallsFull) -> tonic::Status {
    let whose = if full.of_source { "of this address" } else { "on this node" };
    let why = format!("{} calls {whose} are under way, which is the most; wait for some of them", full.most);
    status::not_now(NotNow::new(Cause::RateLimited, why, RETRY_OVERLOADED_MS))
}

/// The body of an answer.
pub(super) struct Metered<B> {
    body: B,
    /// The end of a part, of which HTTP/2 has the beginning.
    rest: Option<Rest>,
    place: Option<Place>,
    /// Ends with the body.
    _call: Option<Call>,
    stream: Arc<StreamMeter>,
}

impl<B> Metered<B> {
    fn new(body: B, place: Option<Place>, call: Option<Call>) -> Self {
        Self { body, rest: None, place, _call: call, stream: Arc::default() }
    }
}

/// What of a part HTTP/2 does not have yet.
struct Rest {
    bytes: Bytes,
    buffered: Option<Buffered>,
}

impl<B> Metered<B> {
    /// The beginning of a part. HTTP/2 lets a part go when all of it was written, so that a long one
    /// would look as if its peer took nothing.
    fn first_slice(&mut self, mut bytes: Bytes) -> Bytes {
        let first = bytes.split_to(bytes.len().min(SLICE_BYTES));
        if !bytes.is_empty() {
            let buffered = self.place.as_ref().map(|place| place.buffer(bytes.len()));
            self.rest = Some(Rest { bytes, buffered });
        }
        self.counted(first)
    }

    /// The next slice of the part that HTTP/2 has the beginning of.
    fn rest_slice(&mut self) -> Option<Bytes> {
        let rest = self.rest.as_mut()?;
        let slice = rest.bytes.split_to(rest.bytes.len().min(SLICE_BYTES));
        if let Some(buffered) = &mut rest.buffered {
            buffered.shrink(slice.len());
        }
        if rest.bytes.is_empty() {
            self.rest = None;
        }
        Some(self.counted(slice))
    }

    fn counted(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let counted = bytes.len() + PART_BYTES;
        self.stream.bytes.fetch_add(counted, Ordering::AcqRel);
        let buffered = self.place.as_ref().map(|place| place.buffer(counted));
        Bytes::from_owner(Part { bytes, stream: self.stream.clone(), _buffered: buffered })
    }
}

/// What of one stream is unread.
#[derive(Default)]
struct StreamMeter {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

/// A part of an answer that HTTP/2 has not written yet.
struct Part {
    bytes: Bytes,
    stream: Arc<StreamMeter>,
    _buffered: Option<Buffered>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let before = self.stream.bytes.fetch_sub(self.bytes.len() + PART_BYTES, Ordering::AcqRel);
        if before >= UNREAD_PER_STREAM {
            self.stream.waker.wake();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.stream.bytes.load(Ordering::Acquire) >= UNREAD_PER_STREAM {
            this.stream.waker.register(cx.waker());
            // It may have been written just now.
            if this.stream.bytes.load(Ordering::Acquire) >= UNREAD_PER_STREAM {
                return Poll::Pending;
            }
        }
        if let Some(slice) = this.rest_slice() {
            return Poll::Ready(Some(Ok(Frame::data(slice))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| this.first_slice(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.as_ref().map_or(0, |rest| rest.bytes.len() as u64));
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use service::limits::BUFFERED_WITHIN;
    use service::{ConnectionBounds, PortGate};

    use super::*;

    /// Parts without an end.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; UNREAD_PER_STREAM / 2 - PART_BYTES])))))
        }
    }

    /// One part.
    struct Whole(Option<Bytes>);

    impl Body for Whole {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.take().map(Frame::data).map(Ok))
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_none()
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
        }
    }

    #[tokio::test]
    async fn stream_makes_no_more_while_its_caller_does_not_read() {
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let place = gate.admit(IpAddr::from([127, 0, 0, 1])).expect("there is room");
        let call = place.call().expect("there is room");
        let mut body = Metered::new(Endless, Some(place), Some(call));
        let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let first = next().await;
        let second = next().await;
        assert_eq!(gate.buffered(), UNREAD_PER_STREAM);
        let mut third = Box::pin(next());
        assert!(futures::poll!(third.as_mut()).is_pending(), "two parts are unread");
        // As HTTP/2 writes it: in slices, the last of which lets it go.
        let mut written = first.expect("a part").expect("no error").into_data().expect("data");
        let rest = written.split_off(10);
        drop(written);
        assert!(futures::poll!(third.as_mut()).is_pending(), "half of it is written");
        let waiting = tokio::spawn(async move { drop(rest) });
        let third = third.await;
        waiting.await.expect("it ends");
        assert_eq!(gate.buffered(), UNREAD_PER_STREAM);
        drop((second, third));
        assert_eq!(gate.buffered(), 0);
    }

    /// A peer that takes a long answer slowly and steadily.
    #[tokio::test(start_paused = true)]
    async fn answer_taken_slowly_is_progress_all_the_time() {
        const ANSWER: usize = 8 << 20;
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let place = gate.admit(IpAddr::from([127, 0, 0, 1])).expect("there is room");
        let answer = Whole(Some(Bytes::from(vec![7; ANSWER])));
        let mut body = Metered::new(answer, Some(place.clone()), None);
        assert_eq!(body.size_hint().exact(), Some(ANSWER as u64));
        let mut taken = 0;
        while !body.is_end_stream() {
            let slice = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let slice = slice.expect("more of it").expect("no error").into_data().expect("data");
            assert!(gate.buffered() >= ANSWER - taken, "what HTTP/2 does not have yet counts, too");
            assert_eq!(body.size_hint().exact(), Some((ANSWER - taken - slice.len()) as u64));
            tokio::time::advance(BUFFERED_WITHIN / 2).await;
            assert!(slice.iter().all(|byte| *byte == 7));
            taken += slice.len();
            drop(slice);
            tokio::time::advance(BUFFERED_WITHIN / 2).await;
            assert!(!place.is_stuck(), "after {taken} bytes");
        }
        assert_eq!((taken, gate.buffered()), (ANSWER, 0));
    }
}
