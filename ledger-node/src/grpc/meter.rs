//! Calls as the port's gate counts them.
//!
//! **What it is.** A layer around the services: a call begins with its headers and ends when the
//! body of its answer is dropped. A connection with a call under way keeps its place.
//!
//! **Owns** when a call begins and ends. **Must never** look into a message. **Read next**:
//! [`super::connection`].

use std::task::{Context, Poll};

use futures::future::{FutureExt as _, Map};
use http::{Request, Response};
use service::Call;
use service::listener::InCall;
use tower::{Layer, Service};

use super::connection::Caller;

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

type Answered<B, E> = Result<Response<InCall<B>>, E>;

impl<S, A, B> Service<Request<A>> for Meter<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<InCall<B>>;
    type Error = S::Error;
    type Future = Map<S::Future, Box<dyn FnOnce(Result<Response<B>, S::Error>) -> Answered<B, S::Error> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let call: Option<Call> = request.extensions().get::<Caller>().map(|caller| caller.place.call());
        let answered =
            move |answer: Result<Response<B>, S::Error>| answer.map(|a| a.map(|body| InCall::new(body, call)));
        self.inner.call(request).map(Box::new(answered))
    }
}
