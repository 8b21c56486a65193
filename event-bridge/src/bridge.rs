//! The loop: frames in, messages out, verdicts back, cursor down.
//!
//! **What it is.** One task. It waits for the first of: a verdict, a frame (while there is room), a connection, a stored cursor, a pause that is
//! over, the word to stop. What to send and how far all is confirmed is the [`Window`]'s to say.
//! **Owns** reconnecting, pauses, when the cursor is stored, how it ends. **Must never** give up on a broker, or skip a frame.
//! **Read next**: [`crate::window`], [`crate::process`].

use std::sync::Arc;
use std::time::Duration;

use client_sdk::{Happenings, LedgerTime, WatchEnded};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::{Broker, BrokerError, Link, Verdict};
use crate::cursor::{CursorError, CursorStore};
use crate::event::{Counted, Renderer, Unpublishable};
use crate::limits;
use crate::telling::Telling;
use crate::window::{Checkpoint, Ticket, Window};

/// Frames of the feed, from where the cursor was.
pub type Feed = BoxStream<'static, Result<Happenings, WatchEnded>>;

/// Why the bridge ended by itself. What was confirmed before is in the stored cursor.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// What follows the cursor is gone; nobody but an operator may choose to go on without it.
    #[error(
        "{0}; hint: what was dropped in between cannot be published any more. Let consumers read the present state, then choose: \
         `event-bridge reset --yes`, and `event-bridge run --from oldest` (all that is still kept, some of it again) or `--from now`"
    )]
    CutOff(String),
    /// No node goes on where the stored cursor ends.
    #[error(
        "{0}; hint: the nodes keep another history than the one that was published, as after a restore. Let consumers read the present \
         state, then choose: `event-bridge reset --yes`, and `event-bridge run --from oldest` or `--from now`"
    )]
    NotContinuous(String),
    /// The feed refuses.
    #[error("the feed ended: {0}")]
    Feed(WatchEnded),
    /// The feed's client is gone.
    #[error("the feed ended without a word")]
    FeedGone,
    /// Going on would skip a change.
    #[error(transparent)]
    Unpublishable(#[from] Unpublishable),
    /// At the end the cursor could not be stored: the next run publishes again what was confirmed since the last one.
    #[error("the cursor could not be stored")]
    NotStored(#[source] CursorError),
}

impl From<WatchEnded> for Ended {
    fn from(why: WatchEnded) -> Self {
        match why {
            WatchEnded::CutOff(_) => Self::CutOff(why.to_string()),
            WatchEnded::NotContinuous(_) => Self::NotContinuous(why.to_string()),
            other => Self::Feed(other),
        }
    }
}

/// What the bridge is made of.
pub struct Bridge {
    /// Where events come from.
    pub feed: Feed,
    /// What they look like.
    pub renderer: Renderer,
    /// Ids go on from here.
    pub counted: Counted,
    /// Where they go.
    pub broker: Arc<dyn Broker>,
    /// Where the cursor is kept.
    pub store: Arc<dyn CursorStore>,
    /// What is told of it.
    pub telling: Arc<Telling>,
    /// Most messages unconfirmed.
    pub unconfirmed: usize,
    /// ... of one slot.
    pub unconfirmed_per_slot: usize,
    /// How long it waits for confirms when told to stop.
    pub shutdown_within: Duration,
    /// Seeds the jitter of pauses.
    pub seed: u64,
}

enum State {
    Connecting(BoxFuture<'static, Result<Box<dyn Link>, BrokerError>>),
    Up(Box<dyn Link>),
}

/// The bridge while it runs.
struct Running {
    renderer: Renderer,
    counted: Counted,
    broker: Arc<dyn Broker>,
    store: Arc<dyn CursorStore>,
    telling: Arc<Telling>,
    window: Window,
    state: State,
    chance: StdRng,
    /// Connections that failed, or ended before anything was confirmed, since the last confirm.
    failures: u32,
    /// Messages refused since the last confirm.
    refusals: u32,
    /// Nothing is sent before.
    hold_until: Instant,
    /// When something was last sent or answered while messages were unconfirmed.
    moved: Instant,
    /// Settled and not stored.
    unstored: Option<Checkpoint>,
    storing: Option<(Checkpoint, BoxFuture<'static, Result<(), CursorError>>)>,
    store_at: Instant,
}

enum Happening {
    Stop,
    Stored(Result<(), CursorError>),
    Verdict(Result<(Ticket, Verdict), BrokerError>),
    Connected(Result<Box<dyn Link>, BrokerError>),
    Frame(Option<Result<Happenings, WatchEnded>>),
    Time,
}

impl Bridge {
    /// Runs until told to stop, or until it cannot go on. Then waits for confirms a bounded time, and stores the cursor.
    ///
    /// # Errors
    /// [`Ended`]: it was not told to stop.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), Ended> {
        let Self { mut feed, renderer, counted, broker, store, telling, shutdown_within, .. } = self;
        let now = Instant::now();
        let state = connecting(broker.clone(), Duration::ZERO);
        let window = Window::new(self.unconfirmed, self.unconfirmed_per_slot);
        let chance = StdRng::seed_from_u64(self.seed);
        let (failures, refusals, unstored, storing) = (0, 0, None, None);
        let (hold_until, moved, store_at) = (now, now, now);
        let mut running = Running {
            renderer,
            counted,
            broker,
            store,
            telling,
            window,
            state,
            chance,
            failures,
            refusals,
            hold_until,
            moved,
            unstored,
            storing,
            store_at,
        };
        let mut end: Option<(Instant, Result<(), Ended>)> = None;
        loop {
            running.send().await;
            running.settle();
            let deadline = end.as_ref().map(|(deadline, _)| *deadline);
            if deadline.is_some_and(|deadline| running.window.waiting() == 0 || Instant::now() >= deadline) {
                break;
            }
            let why = match running.next(&mut feed, &mut stop, deadline).await {
                Happening::Stop => Some(Ok(())),
                Happening::Frame(frame) => running.admit(frame).err().map(Err),
                other => {
                    running.hear(other);
                    None
                }
            };
            if let Some(why) = why {
                tracing::info!(unconfirmed = running.window.waiting(), "ending: waiting for confirms");
                end = Some((Instant::now() + shutdown_within, why));
            }
        }
        running.finish().await.and(end.map_or(Ok(()), |(_, why)| why))
    }
}

fn connecting(broker: Arc<dyn Broker>, pause: Duration) -> State {
    State::Connecting(Box::pin(async move {
        tokio::time::sleep(pause).await;
        let within = timeout(limits::CONNECT_WITHIN, broker.connect()).await;
        within.unwrap_or_else(|_| Err(BrokerError(format!("no connection within {:?}", limits::CONNECT_WITHIN))))
    }))
}

impl Running {
    /// Sends what may be sent.
    async fn send(&mut self) {
        let State::Up(link) = &mut self.state else { return };
        if Instant::now() < self.hold_until {
            return;
        }
        let batch = self.window.take();
        if batch.is_empty() {
            return;
        }
        if self.window.in_flight() == batch.len() {
            self.moved = Instant::now();
        }
        self.telling.sent(batch.len(), batch.iter().filter(|out| out.again).count());
        let sent = timeout(limits::PUBLISH_WITHIN, link.publish(batch)).await;
        let late = || Err(BrokerError(format!("the broker took no message for {:?}", limits::PUBLISH_WITHIN)));
        if let Err(why) = sent.unwrap_or_else(|_| late()) {
            self.lost(&why);
        }
    }

    /// Takes the checkpoint that confirms have reached, and begins to store it when it is time.
    fn settle(&mut self) {
        if let Some(checkpoint) = self.window.settled() {
            self.telling.settled(checkpoint.through);
            self.unstored = Some(checkpoint);
        }
        self.telling.waiting(self.window.waiting(), self.window.in_flight(), self.window.oldest());
        if self.storing.is_none()
            && Instant::now() >= self.store_at
            && let Some(checkpoint) = self.unstored.take()
        {
            let (store, to_store) = (self.store.clone(), checkpoint.clone());
            self.storing = Some((checkpoint, Box::pin(async move { store.put(to_store).await })));
            self.store_at = Instant::now() + limits::STORE_EVERY;
        }
    }

    /// Waits for the first thing to happen.
    async fn next(
        &mut self,
        feed: &mut Feed,
        stop: &mut watch::Receiver<bool>,
        deadline: Option<Instant>,
    ) -> Happening {
        let held = Instant::now() < self.hold_until;
        let times = [
            deadline,
            held.then_some(self.hold_until),
            (self.unstored.is_some() && self.storing.is_none()).then_some(self.store_at),
            self.patience(),
        ];
        let wake = times.into_iter().flatten().min();
        let (connecting, link) = match &mut self.state {
            State::Connecting(connecting) => (Some(connecting), None),
            State::Up(link) => (None, Some(link)),
        };
        let more = link.is_some() && !held && self.window.may_send();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop), if deadline.is_none() => Happening::Stop,
            stored = some(self.storing.as_mut().map(|(_, storing)| storing)) => Happening::Stored(stored),
            verdict = some(link.map(|link| link.verdict())) => Happening::Verdict(verdict),
            link = some(connecting) => Happening::Connected(link),
            frame = feed.next(), if deadline.is_none() && self.window.has_room() => Happening::Frame(frame),
            () = some(wake.map(sleep_until)) => Happening::Time,
            () = std::future::ready(()), if more => Happening::Time,
        }
    }

    /// Until when the broker may stay silent about messages in flight.
    fn patience(&self) -> Option<Instant> {
        (self.window.in_flight() > 0 && matches!(self.state, State::Up(_)))
            .then_some(self.moved + limits::CONFIRM_WITHIN)
    }

    fn hear(&mut self, happening: Happening) {
        match happening {
            Happening::Stop | Happening::Frame(_) => {}
            Happening::Stored(stored) => self.stored(stored),
            Happening::Verdict(Ok((ticket, verdict))) => self.verdict(ticket, verdict),
            Happening::Verdict(Err(why)) | Happening::Connected(Err(why)) => self.lost(&why),
            Happening::Connected(Ok(link)) => {
                tracing::info!("connected to the broker");
                self.telling.connected(true);
                self.state = State::Up(link);
            }
            Happening::Time => {
                if self.patience().is_some_and(|until| Instant::now() >= until) {
                    self.lost(&BrokerError(format!("no confirm for {:?}", limits::CONFIRM_WITHIN)));
                }
            }
        }
    }

    fn verdict(&mut self, ticket: Ticket, verdict: Verdict) {
        self.moved = Instant::now();
        match verdict {
            Verdict::Confirmed => {
                (self.failures, self.refusals) = (0, 0);
                self.window.confirmed(ticket);
                self.telling.confirmed();
            }
            Verdict::Refused => {
                self.window.refused(ticket);
                self.telling.refused();
                let pause = self.pause(self.refusals);
                if self.refusals == 0 {
                    tracing::warn!(?pause, "the broker refused a message (is a queue full?); sending it again");
                }
                self.refusals = self.refusals.saturating_add(1);
                self.hold_until = self.moved + pause;
            }
        }
    }

    /// The connection is gone, or did not come about.
    fn lost(&mut self, why: &BrokerError) {
        let pause = self.pause(self.failures);
        tracing::warn!(%why, ?pause, unconfirmed = self.window.in_flight(), "no connection to the broker; trying again");
        self.failures = self.failures.saturating_add(1);
        self.window.disconnected();
        self.telling.connected(false);
        self.state = connecting(self.broker.clone(), pause);
    }

    fn stored(&mut self, stored: Result<(), CursorError>) {
        let Some((checkpoint, _)) = self.storing.take() else { return };
        match stored {
            Ok(()) => self.telling.stored(),
            Err(why) => {
                tracing::warn!(%why, "the cursor was not stored; trying again");
                self.unstored.get_or_insert(checkpoint);
            }
        }
    }

    fn admit(&mut self, frame: Option<Result<Happenings, WatchEnded>>) -> Result<(), Ended> {
        let Happenings { changes, cursor, shard_times } = frame.ok_or(Ended::FeedGone)??;
        // The first frame of a stream says where it begins, and nothing of how current it is.
        if changes.is_empty() && shard_times.is_empty() {
            return Ok(());
        }
        // In a frame without changes: how current the slowest shard is.
        let through = shard_times.values().min().copied();
        let through = changes.iter().map(|happened| happened.time).max().or(through).unwrap_or(LedgerTime(0));
        self.telling.heard(changes.len(), through);
        let mut events = Vec::with_capacity(changes.len());
        for happened in &changes {
            events.extend(self.renderer.event(happened, &mut self.counted)?);
        }
        self.window.admit(events, Checkpoint { cursor, counted: self.counted.clone(), through });
        Ok(())
    }

    /// From the upper half of what is doubled each time.
    fn pause(&mut self, tries: u32) -> Duration {
        let whole = limits::BACKOFF_MIN.saturating_mul(1 << tries.min(16)).min(limits::BACKOFF_MAX);
        let half = whole.as_micros() as u64 / 2;
        Duration::from_micros(half + self.chance.next_u64() % (half + 1))
    }

    /// Stores what is settled, and closes the connection.
    async fn finish(mut self) -> Result<(), Ended> {
        if let Some((checkpoint, storing)) = self.storing.take()
            && storing.await.is_err()
        {
            self.unstored.get_or_insert(checkpoint);
        }
        let stored = match self.unstored.take() {
            Some(checkpoint) => self.store.put(checkpoint).await,
            None => Ok(()),
        };
        if let State::Up(link) = self.state {
            drop(timeout(limits::LINK_LOOK, link.close()).await);
        }
        tracing::info!(
            unconfirmed = self.window.waiting(),
            "ended; what is unconfirmed is published again by the next run"
        );
        stored.map_err(Ended::NotStored)
    }
}

/// What the future gives, or nothing ever.
async fn some<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
