//! A call in progress: one try on the hot path, then patience.
//!
//! **What it is.** [`Calling`] queues its command on the leader's lane and waits for the answer, without an allocation. Only when that
//! does not settle it, a boxed [`pursue`] takes over: follows leaders, waits, and asks again with the same id until the deadline.
//!
//! **Owns** when to try again, and what is in doubt. **Must never** report *unknown* as *no*: once an attempt may have reached the log, only an
//! answer that rules out its effect is definite. **Read next**: [`crate::doubt`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use ledger_core::{Command, Settled, Slot};
use ledger_proto::reply::{At as WireAt, Reply, Why};
use ledger_proto::{Cause, Invalid, calls};
use tokio::time::Instant;

use crate::chance;
use crate::client::Client;
use crate::doubt::rules_out_effect;
use crate::lane::{Landed, NotQueued, Ticket};
use crate::limits;
use crate::outcome::{Answered, At, NotNow, Outcome, Refused, Unknown};
use crate::write::Read;

/// A call in progress; resolves to its [`Outcome`]. Dropping it gives up waiting; whether it happens is then not known here.
#[must_use = "futures do nothing unless polled"]
pub struct Calling<T> {
    state: State,
    read: Option<Read<T>>,
}

enum State {
    Invalid(Invalid),
    Start { client: Client, command: Command, deadline: Duration },
    First { client: Client, command: Command, until: Instant, ticket: Ticket },
    Pursuing(BoxFuture<'static, (Outcome<Settled>, Command)>),
    Done,
}

impl<T> Calling<T> {
    pub(crate) fn invalid(invalid: Invalid) -> Self {
        Self { state: State::Invalid(invalid), read: None }
    }
    pub(crate) fn new(client: Client, command: Command, deadline: Duration, read: Read<T>) -> Self {
        match calls::check(&command) {
            Ok(()) => Self { state: State::Start { client, command, deadline }, read: Some(read) },
            Err(invalid) => Self::invalid(invalid),
        }
    }
    fn settle(&self, command: &Command, outcome: Outcome<Settled>) -> Outcome<T> {
        match (outcome, self.read) {
            (Outcome::Ok(Answered { value, at }), Some(read)) => match read(command, value) {
                Some(value) => Outcome::Ok(Answered { value, at }),
                None => Outcome::Unknown(Unknown {
                    message: "the node answered with what does not belong to the verb".into(),
                }),
            },
            (Outcome::Refused(refused), _) => Outcome::Refused(refused),
            (Outcome::NotNow(not_now), _) => Outcome::NotNow(not_now),
            (Outcome::Unknown(unknown), _) => Outcome::Unknown(unknown),
            (Outcome::Ok(_), None) => unreachable!("a call that was sent has its reader"),
        }
    }
}

// No field is pinned in place: the boxed future is pinned by its box.
impl<T> Unpin for Calling<T> {}

impl<T> Future for Calling<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        loop {
            match &mut self.state {
                State::First { ticket, .. } => {
                    let landed = std::task::ready!(ticket.poll(cx));
                    let State::First { client, command, until, .. } = std::mem::replace(&mut self.state, State::Done)
                    else {
                        unreachable!("matched above")
                    };
                    match landed {
                        Landed::Answer(Reply::Ok(value), at) => {
                            return Poll::Ready(self.settle(&command, ok(value, at)));
                        }
                        Landed::Answer(Reply::Refused(why), at) => {
                            return Poll::Ready(self.settle(&command, refused(why, at)));
                        }
                        other => self.state = State::Pursuing(Box::pin(pursue(client, command, until, Some(other)))),
                    }
                }
                State::Pursuing(pursuing) => {
                    let (outcome, command) = std::task::ready!(pursuing.as_mut().poll(cx));
                    self.state = State::Done;
                    return Poll::Ready(self.settle(&command, outcome));
                }
                State::Start { .. } | State::Invalid(_) | State::Done => {
                    match std::mem::replace(&mut self.state, State::Done) {
                        State::Start { client, command, deadline } => self.state = start(client, command, deadline),
                        State::Invalid(invalid) => {
                            return Poll::Ready(Outcome::Refused(Refused { why: invalid.into(), at: None }));
                        }
                        _ => panic!("a call was polled after it was answered"),
                    }
                }
            }
        }
    }
}

fn start(client: Client, command: Command, deadline: Duration) -> State {
    let now = Instant::now();
    let until = chance::after(now, deadline);
    match first_try(&client, &command, now, until) {
        Some(ticket) => State::First { client, command, until, ticket },
        None => State::Pursuing(Box::pin(pursue(client, command, until, None))),
    }
}

/// Queues the command on the leader's lane, if the leader is known and reachable.
#[inline]
pub(crate) fn first_try(client: &Client, command: &Command, now: Instant, until: Instant) -> Option<Ticket> {
    let slot = command.slot()?;
    if client.is_closed() {
        return None;
    }
    let queued = client.routes().with_leader(slot, |leader| {
        leader.lane().queue(command, within(now, until), until.min(now + limits::PATIENCE))
    });
    queued?.ok()
}

fn within(now: Instant, until: Instant) -> u32 {
    u32::try_from((until - now).as_millis()).unwrap_or(u32::MAX).max(1)
}

pub(crate) fn at(at: WireAt) -> At {
    At { position: at.position, time: at.time, stale: false, age: None }
}
pub(crate) fn ok(value: Settled, when: Option<WireAt>) -> Outcome<Settled> {
    Outcome::Ok(Answered { value, at: when.map(at) })
}
pub(crate) fn refused(why: Why, when: Option<WireAt>) -> Outcome<Settled> {
    Outcome::Refused(Refused { why, at: when.map(at) })
}

/// What is known of a call that is not settled yet.
struct Pursuit {
    tries: u32,
    hints: u32,
    /// Some attempt may have reached the log, or may still.
    in_doubt: bool,
    last: NotNow,
}

/// What to do after an attempt.
enum Next {
    Settled(Outcome<Settled>),
    /// Try again after this long, or as soon as the routing changes.
    Again(Duration),
}

/// Follows leaders, waits, and asks again with the same id, until it is settled or the deadline has passed.
pub(crate) async fn pursue(
    client: Client,
    mut command: Command,
    until: Instant,
    first: Option<Landed>,
) -> (Outcome<Settled>, Command) {
    let nowhere = NotNow {
        cause: Cause::Unreachable,
        message: "no node of the shard could be reached; nothing was sent".into(),
        retry_after: limits::BACKOFF_MAX,
    };
    let mut pursuit = Pursuit { tries: 0, hints: 0, in_doubt: false, last: nowhere };
    let mut landed = first.map(Ok);
    loop {
        let mut routing = client.routes().changed();
        let next = match landed.take() {
            Some(landed) => pursuit.after(&client, &command, landed),
            None => Next::Again(Duration::ZERO),
        };
        let pause = match next {
            Next::Settled(outcome) => return (outcome, command),
            Next::Again(pause) => pause,
        };
        if Instant::now() + pause >= until || client.is_closed() {
            return (pursuit.give_up(client.is_closed()), command);
        }
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = routing.changed() => {}
            }
        }
        if ledger_core::bad!("id-reminted-on-retry")
            && pursuit.in_doubt
            && let Command::Reserve { id, .. } = &mut command
        {
            *id = ledger_core::ReservationId::from_parts(id.slot(), id.time_ms(), client.routes().chance.draw());
        }
        landed = Some(attempt(&client, &command, until, pursuit.tries).await);
        pursuit.tries += 1;
    }
}

async fn attempt(client: &Client, command: &Command, until: Instant, tries: u32) -> Result<Landed, NotQueued> {
    let now = Instant::now();
    let lane = client.routes().with(command.slot(), tries, |node| node.lane().clone()).ok_or(NotQueued::Down)?;
    match lane.queue(command, within(now, until), until.min(now + limits::PATIENCE)) {
        Ok(mut ticket) => Ok(std::future::poll_fn(|cx| ticket.poll(cx)).await),
        Err(NotQueued::Full) => {
            let _ = tokio::time::timeout_at(until, lane.room()).await;
            Err(NotQueued::Full)
        }
        Err(other) => Err(other),
    }
}

impl Pursuit {
    fn after(&mut self, client: &Client, command: &Command, landed: Result<Landed, NotQueued>) -> Next {
        let routes = client.routes();
        match landed {
            Ok(Landed::Answer(Reply::Ok(value), at)) => Next::Settled(ok(value, at)),
            Ok(Landed::Answer(Reply::Refused(why), at)) => {
                if self.in_doubt && !rules_out_effect(command, &why) {
                    let message =
                        format!("an earlier attempt is in doubt, and the last answer ({why}) does not settle it");
                    return Next::Settled(Outcome::Unknown(Unknown { message }));
                }
                Next::Settled(refused(why, at))
            }
            Ok(Landed::Answer(Reply::NotNow(told), _)) => self.not_now(client, command.slot(), told),
            Ok(Landed::Answer(Reply::Unknown(_), _)) => {
                self.in_doubt = true;
                Next::Again(self.pause(client))
            }
            Ok(Landed::Broken { sent }) => {
                self.in_doubt |= sent;
                routes.heard.want_routing();
                Next::Again(self.pause(client))
            }
            Ok(Landed::Late { sent }) => {
                self.in_doubt |= sent;
                routes.heard.want_routing();
                // It has waited long enough; another node may be better. The first try is past, so that the leader may be passed by.
                self.tries = self.tries.max(2);
                Next::Again(Duration::ZERO)
            }
            Err(NotQueued::Full) => {
                self.last = local(Cause::Overloaded, "too many calls of this client wait for answers");
                Next::Again(Duration::ZERO)
            }
            Err(NotQueued::Down) => {
                routes.heard.want_routing();
                Next::Again(self.pause(client))
            }
            Err(NotQueued::Unsendable) => {
                let invalid = Invalid::new("verb", "is not for callers");
                Next::Settled(refused(invalid.into(), None))
            }
        }
    }

    fn pause(&self, client: &Client) -> Duration {
        client.routes().chance.pause(limits::BACKOFF_MIN, limits::BACKOFF_MAX, self.tries)
    }

    fn not_now(&mut self, client: &Client, slot: Option<Slot>, told: ledger_proto::NotNow) -> Next {
        let routes = client.routes();
        let after = chance::retry_after(told.retry_ms);
        let pause = match (told.cause, &told.leader, slot) {
            (Cause::NotLeader, Some(leader), Some(slot)) => {
                routes.hint(slot, leader);
                self.hints += 1;
                if self.hints <= limits::HINTS_MAX { Duration::ZERO } else { self.pause(client) }
            }
            (
                Cause::NotLeader
                | Cause::SlotElsewhere
                | Cause::NotServing
                | Cause::NoQuorum
                | Cause::ClockUnsure
                | Cause::ClockJumped
                | Cause::Diverged,
                ..,
            ) => {
                routes.heard.want_routing();
                self.pause(client).max(after.min(limits::BACKOFF_MAX))
            }
            _ => self.pause(client).max(after),
        };
        let ledger_proto::NotNow { cause, message, .. } = told;
        self.last = NotNow { cause, message, retry_after: after };
        Next::Again(pause)
    }

    fn give_up(self, closed: bool) -> Outcome<Settled> {
        if self.in_doubt && !ledger_core::bad!("unknown-as-not-now") {
            let message = "the deadline passed while an attempt was in doubt".into();
            return Outcome::Unknown(Unknown { message });
        }
        if closed {
            return Outcome::NotNow(local(Cause::NotServing, "the client was closed"));
        }
        Outcome::NotNow(self.last)
    }
}

fn local(cause: Cause, message: &str) -> NotNow {
    NotNow { cause, message: message.into(), retry_after: limits::BACKOFF_MAX }
}
