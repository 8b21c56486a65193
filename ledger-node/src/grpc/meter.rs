//! Calls and their unread answers, as the port's gate counts them.
//!
//! **What it is.** A layer around the services. A call begins with its headers and ends when the
//! body of its answer is dropped; a connection with a call under way keeps its place. Each part of
//! an answer counts as unread until HTTP/2 has written it. A stream makes no more while much of it
//! is unread.
//!
//! **Owns** when a call begins and ends, and the bound of one stream. **Must never** look into a
//! message, or cost a command anything: the parts are frames. **Read next**: [`super::connection`],
//! [`service::port`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{FutureExt as _, Map};
use futures::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use service::{Call, Place, Unread};
use tower::{Layer, Service};

use super::connection::Caller;
use crate::limits::UNREAD_PER_STREAM;

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

type Answered<B, E> = Result<Response<Metered<B>>, E>;

impl<S, A, B> Service<Request<A>> for Meter<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<Metered<B>>;
    type Error = S::Error;
    type Future = Map<S::Future, Box<dyn FnOnce(Result<Response<B>, S::Error>) -> Answered<B, S::Error> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let place = request.extensions().get::<Caller>().map(|caller| caller.place.clone());
        let call = place.as_ref().map(Place::call);
        let answered = move |answer: Result<Response<B>, S::Error>| {
            answer.map(|answer| answer.map(|body| Metered::new(body, place, call)))
        };
        self.inner.call(request).map(Box::new(answered))
    }
}

/// The body of an answer.
pub(super) struct Metered<B> {
    body: B,
    place: Option<Place>,
    /// Ends with the body.
    _call: Option<Call>,
    stream: Arc<StreamMeter>,
}

impl<B> Metered<B> {
    fn new(body: B, place: Option<Place>, call: Option<Call>) -> Self {
        Self { body, place, _call: call, stream: Arc::default() }
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
    _unread: Option<Unread>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let before = self.stream.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
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
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let counted = |bytes: Bytes| {
            if bytes.is_empty() {
                return bytes;
            }
            this.stream.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
            let unread = this.place.as_ref().map(|place| place.unread(bytes.len()));
            Bytes::from_owner(Part { bytes, stream: this.stream.clone(), _unread: unread })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
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

    use service::{ConnectionBounds, PortGate};

    use super::*;

    /// Parts without an end.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; UNREAD_PER_STREAM / 2])))))
        }
    }

    #[tokio::test]
    async fn stream_makes_no_more_while_its_caller_does_not_read() {
        let gate = PortGate::new("test", ConnectionBounds::of(4), |_| true);
        let place = gate.admit(IpAddr::from([127, 0, 0, 1])).expect("there is room");
        let call = place.call();
        let mut body = Metered::new(Endless, Some(place), Some(call));
        let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let first = next().await;
        let second = next().await;
        assert_eq!(gate.unread(), UNREAD_PER_STREAM);
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
        assert_eq!(gate.unread(), UNREAD_PER_STREAM);
        drop((second, third));
        assert_eq!(gate.unread(), 0);
    }
}
