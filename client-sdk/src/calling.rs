//! A call in progress.
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ledger_core::Command;
use ledger_proto::Invalid;

use crate::client::Client;
use crate::outcome::Outcome;
use crate::write::Read;

/// A call in progress; resolves to its [`Outcome`].
#[must_use = "futures do nothing unless polled"]
pub struct Calling<T> {
    _of: PhantomData<T>,
}
impl<T> Calling<T> {
    pub(crate) fn invalid(_invalid: Invalid) -> Self {
        todo!()
    }
    pub(crate) fn new(_client: Client, _command: Command, _deadline: Duration, _read: Read<T>) -> Self {
        todo!()
    }
}
impl<T> Future for Calling<T> {
    type Output = Outcome<T>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        todo!()
    }
}
