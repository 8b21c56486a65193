//! Whatever fails, wherever: a consumer that drops doubles by id sees every event exactly once, in order per product.
//!
//! The world is a feed, a broker and a disk in memory, under paused time. Everything that crosses a boundary is a numbered step (before a message
//! arrives, after it has; before a verdict is heard, after; before the cursor is stored, after), and each kind of fault is made at each step in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use client_sdk::{
    Balance, Change, ChangeKind, Cursor, Happened, Happenings, LedgerTime, OfferKey, Position, Sku, Slot, WatchEnded,
};
use event_bridge::bridge::{Bridge, Ended, Feed};
use event_bridge::broker::{Broker, BrokerError, Link, Verdict};
use event_bridge::cursor::{CursorError, CursorStore};
use event_bridge::event::{Counted, Event, Filter, Renderer};
use event_bridge::limits;
use event_bridge::telling::Telling;
use event_bridge::window::{Checkpoint, Outgoing, Ticket};
use futures::StreamExt as _;
use futures::stream;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{Notify, watch};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process dies: nothing in memory is left.
    Crash,
    /// The connection breaks.
    Disconnect,
    /// A message is not taken.
    Refuse,
    /// A message is taken by one queue and refused by another.
    RefuseHalf,
    /// The broker says nothing more on this connection.
    Silence,
    /// The disk does not take the cursor.
    DiskFull,
}

const FAULTS: [Fault; 6] =
    [Fault::Crash, Fault::Disconnect, Fault::Refuse, Fault::RefuseHalf, Fault::Silence, Fault::DiskFull];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    BeforeArrival,
    AfterArrival,
    BeforeVerdict,
    AfterVerdict,
    BeforeStore,
    AfterStore,
}

/// Which faults are made.
#[derive(Debug, Clone, Copy)]
enum Plan {
    None,
    /// This one, at this step.
    At(Fault, usize),
    /// Any, one in so many steps; refusals too, or not.
    Random {
        one_in: u64,
        refusals: bool,
    },
}

struct World {
    frames: Vec<Happenings>,
    plan: Plan,
    inner: Mutex<Inner>,
    crash: Notify,
    last_stored: watch::Sender<usize>,
}

struct Inner {
    chance: StdRng,
    steps: usize,
    made: usize,
    /// Ids as the queue has them.
    queue: Vec<String>,
    stored: Option<Checkpoint>,
}

fn cursor(frame: usize) -> Cursor {
    Cursor::from_bytes(vec![frame as u8])
}
fn frame_of(cursor: &Cursor) -> usize {
    usize::from(cursor.as_bytes()[0])
}

fn happened(sku: &str, index: u64, place: u16) -> Happened {
    let position = Position { incarnation: 1, shard: 1, term: 1, index, place };
    let offer = OfferKey { sku: Sku::new(sku).expect("sku"), sale: None };
    let kind = ChangeKind::SaleStarted { offer, balance: Balance { available: 1, held: 0, sold: 0 } };
    let change = Change { place, previous_on_products: Default::default(), previous_on_reservation: None, kind };
    Happened { position, time: LedgerTime(1_000 + index), change }
}

/// Frames of entries with several changes each; frames end inside entries, and one is empty.
fn frames() -> Vec<Happenings> {
    let skus = ["shirt", "mug", "shirt", "shoe", "shirt", "mug", "shirt"];
    let changes: Vec<Happened> =
        (0..20).map(|n| happened(skus[n % skus.len()], 10 + n as u64 / 3, (n % 2) as u16)).collect();
    let parts = [&changes[..7], &changes[7..8], &[], &changes[8..16], &changes[16..]];
    let frame = |(n, part): (usize, &&[Happened])| {
        let shard_times = BTreeMap::from([(1, LedgerTime(2_000))]);
        Happenings { changes: part.to_vec(), cursor: cursor(n + 1), shard_times }
    };
    parts.iter().enumerate().map(frame).collect()
}

fn renderer() -> Renderer {
    Renderer { source: "/holdfast/test".into(), filter: Filter::default() }
}

/// All events of the feed, each with its frame.
fn events(frames: &[Happenings]) -> Vec<(usize, Event)> {
    let mut counted = Counted::default();
    let changes = frames.iter().enumerate().flat_map(|(n, frame)| frame.changes.iter().map(move |change| (n, change)));
    let event = |(n, change)| (n, renderer().event(change, &mut counted).expect("publishable").expect("not filtered"));
    changes.map(event).collect()
}

impl World {
    fn new(plan: Plan, seed: u64) -> Arc<Self> {
        let inner = Inner { chance: StdRng::seed_from_u64(seed), steps: 0, made: 0, queue: Vec::new(), stored: None };
        let last_stored = watch::Sender::new(0);
        Arc::new(Self { frames: frames(), plan, inner: Mutex::new(inner), crash: Notify::new(), last_stored })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().expect("nobody panicked"))
    }

    /// Counts a step; the fault to be made there, if one makes sense there. A crash never returns.
    async fn step(&self, step: Step) -> Option<Fault> {
        let fault = self.with(|inner| {
            let n = inner.steps;
            inner.steps += 1;
            let fault = match self.plan {
                Plan::None => None,
                Plan::At(fault, at) => (n == at).then_some(fault),
                Plan::Random { one_in, refusals } => {
                    let fault = FAULTS[inner.chance.next_u64() as usize % FAULTS.len()];
                    let refused = matches!(fault, Fault::Refuse | Fault::RefuseHalf);
                    (inner.chance.next_u64() % one_in == 0 && (refusals || !refused)).then_some(fault)
                }
            };
            let sensible = |fault: &Fault| match fault {
                Fault::Crash => true,
                Fault::Disconnect => !matches!(step, Step::BeforeStore | Step::AfterStore),
                Fault::Refuse | Fault::RefuseHalf => step == Step::BeforeArrival,
                Fault::Silence => step == Step::BeforeVerdict,
                Fault::DiskFull => step == Step::BeforeStore,
            };
            let fault = fault.filter(sensible);
            inner.made += usize::from(fault.is_some());
            fault
        });
        if fault == Some(Fault::Crash) {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
        fault
    }

    fn feed(&self, from: usize) -> Feed {
        let frames: Vec<_> = self.frames[from..].iter().cloned().map(Ok).collect();
        stream::iter(frames).chain(stream::pending()).boxed()
    }

    fn bridge(self: &Arc<Self>, per_slot: usize, feed: impl FnOnce(usize) -> Feed) -> Bridge {
        let start = self.with(|inner| inner.stored.clone()).unwrap_or_default();
        let from = if start.cursor == Cursor::oldest() { 0 } else { frame_of(&start.cursor) };
        Bridge {
            feed: feed(from),
            renderer: renderer(),
            counted: start.counted,
            broker: Arc::new(FakeBroker(self.clone())),
            store: Arc::new(FakeStore(self.clone())),
            telling: Arc::new(Telling::default()),
            unconfirmed: 8,
            unconfirmed_per_slot: per_slot,
            shutdown_within: Duration::from_secs(5),
            seed: 1,
        }
    }

    /// Runs bridges, one after the other died, until the last cursor is stored and the last bridge was told to stop.
    async fn run(self: &Arc<Self>, per_slot: usize) {
        let all = self.frames.len();
        let mut last = self.last_stored.subscribe();
        for life in 0.. {
            assert!(life < 1_000, "it never comes to an end");
            let (stop, stopped) = watch::channel(false);
            let bridge = self.bridge(per_slot, |from| self.feed(from));
            let stopping = async {
                last.wait_for(|frame| *frame == all).await.expect("the world lives");
                stop.send_replace(true);
                std::future::pending::<()>().await;
            };
            let late = tokio::time::sleep(Duration::from_secs(3_600));
            tokio::select! {
                ended = bridge.run(stopped) => return ended.expect("it was told to stop"),
                () = self.crash.notified() => {}
                () = stopping => {}
                () = late => panic!("nothing is stored any more; {:?}", self.with(|inner| inner.queue.clone())),
            }
        }
    }

    /// What a consumer that drops doubles makes of the queue.
    fn check(&self) {
        let expected = events(&self.frames);
        let queue = self.with(|inner| inner.queue.clone());
        let mut seen = BTreeSet::new();
        let first: Vec<&String> = queue.iter().filter(|id| seen.insert(id.as_str())).collect();
        assert_eq!(first.len(), expected.len(), "every event, and nothing else: {first:?}");
        assert!(self.misplaced().is_empty(), "out of order: {:?}, {first:?}", self.misplaced());
        let stored = self.with(|inner| inner.stored.clone()).expect("a cursor is stored");
        assert_eq!(frame_of(&stored.cursor), self.frames.len());
    }

    /// The products whose events, doubles dropped, are not in the feed's order.
    fn misplaced(&self) -> BTreeSet<Slot> {
        let expected = events(&self.frames);
        let queue = self.with(|inner| inner.queue.clone());
        let mut seen = BTreeSet::new();
        let first: Vec<&String> = queue.iter().filter(|id| seen.insert(id.as_str())).collect();
        let lane_of: BTreeMap<&str, Slot> = expected.iter().map(|(_, event)| (event.id.as_str(), event.lane)).collect();
        let in_order = |lane: &Slot| {
            let of_feed = expected.iter().filter(|(_, event)| event.lane == *lane).map(|(_, event)| &event.id);
            of_feed.eq(first.iter().copied().filter(|id| lane_of[id.as_str()] == *lane))
        };
        lane_of.values().copied().filter(|lane| !in_order(lane)).collect()
    }
}

struct FakeBroker(Arc<World>);

struct FakeLink {
    world: Arc<World>,
    alive: bool,
    in_flight: Vec<(Ticket, Verdict)>,
}

fn gone() -> BrokerError {
    BrokerError("the connection is gone".into())
}

#[async_trait]
impl Broker for FakeBroker {
    async fn connect(&self) -> Result<Box<dyn Link>, BrokerError> {
        match self.0.step(Step::Connect).await {
            Some(_) => Err(gone()),
            None => Ok(Box::new(FakeLink { world: self.0.clone(), alive: true, in_flight: Vec::new() })),
        }
    }
}

impl FakeLink {
    fn broken<T>(&mut self) -> Result<T, BrokerError> {
        self.alive = false;
        Err(gone())
    }
}

#[async_trait]
impl Link for FakeLink {
    async fn publish(&mut self, batch: Vec<Outgoing>) -> Result<(), BrokerError> {
        for out in batch {
            let fault = match self.alive {
                true => self.world.step(Step::BeforeArrival).await,
                false => return Err(gone()),
            };
            if fault == Some(Fault::Disconnect) {
                return self.broken();
            }
            if fault != Some(Fault::Refuse) {
                self.world.with(|inner| inner.queue.push(out.event.id.clone()));
            }
            let refused = matches!(fault, Some(Fault::Refuse | Fault::RefuseHalf));
            self.in_flight.push((out.ticket, if refused { Verdict::Refused } else { Verdict::Confirmed }));
            if self.world.step(Step::AfterArrival).await.is_some() {
                return self.broken();
            }
        }
        Ok(())
    }

    async fn verdict(&mut self) -> Result<(Ticket, Verdict), BrokerError> {
        if !self.alive {
            return Err(gone());
        }
        // A broker takes its time; the future may be dropped here, and nothing has happened yet.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.in_flight.is_empty() {
            return std::future::pending().await;
        }
        match self.world.step(Step::BeforeVerdict).await {
            Some(Fault::Silence) => return std::future::pending().await,
            Some(_) => return self.broken(),
            None => {}
        }
        // In any order.
        let which = self.world.with(|inner| inner.chance.next_u64() as usize) % self.in_flight.len();
        let verdict = self.in_flight.swap_remove(which);
        self.alive = self.world.step(Step::AfterVerdict).await.is_none();
        Ok(verdict)
    }

    async fn close(self: Box<Self>) {}
}

struct FakeStore(Arc<World>);

#[async_trait]
impl CursorStore for FakeStore {
    async fn put(&self, checkpoint: Checkpoint) -> Result<(), CursorError> {
        if self.0.step(Step::BeforeStore).await.is_some() {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(CursorError::Io { path: "cursor".into(), source });
        }
        let frame = frame_of(&checkpoint.cursor);
        let queue: BTreeSet<String> = self.0.with(|inner| inner.queue.iter().cloned().collect());
        for (_, event) in events(&self.0.frames).iter().filter(|(n, _)| *n < frame) {
            assert!(queue.contains(&event.id), "the cursor is past {}, which the broker does not have", event.id);
        }
        self.0.with(|inner| inner.stored = Some(checkpoint));
        self.0.step(Step::AfterStore).await;
        self.0.last_stored.send_replace(frame);
        Ok(())
    }
}

/// A crash between storing and telling that it is stored leaves nobody who tells: the next life begins at the end and stores nothing.
fn told(world: &World) {
    let stored = world.with(|inner| inner.stored.as_ref().map(|stored| frame_of(&stored.cursor)));
    world.last_stored.send_replace(stored.unwrap_or(0));
}

async fn survives(plan: Plan, seed: u64, per_slot: usize) -> usize {
    let world = World::new(plan, seed);
    let watched = world.clone();
    let telling = async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told(&watched);
        }
    };
    tokio::select! {
        () = world.run(per_slot) => {}
        () = telling => {}
    }
    world.check();
    world.with(|inner| if matches!(plan, Plan::None) { inner.steps } else { inner.made })
}

#[tokio::test(start_paused = true)]
async fn without_faults_every_event_is_sent_once() {
    let world = World::new(Plan::None, 1);
    world.run(1).await;
    world.check();
    assert_eq!(world.with(|inner| inner.queue.len()), events(&world.frames).len());
}

#[tokio::test(start_paused = true)]
async fn each_fault_at_each_step_is_survived() {
    for per_slot in [1, 3] {
        let steps = survives(Plan::None, 1, per_slot).await;
        assert!(steps > 80, "only {steps} steps");
        for fault in FAULTS {
            if per_slot > 1 && matches!(fault, Fault::Refuse | Fault::RefuseHalf) {
                continue; // What a wider lane gives up.
            }
            let mut made = 0;
            for at in 0..steps {
                made += survives(Plan::At(fault, at), 1, per_slot).await;
            }
            assert!(made > 0, "{fault:?} was never made");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_faults_are_survived() {
    for seed in 0..150 {
        println!("seed {seed}");
        survives(Plan::Random { one_in: 12, refusals: true }, seed, 1).await;
        survives(Plan::Random { one_in: 12, refusals: false }, seed, 4).await;
    }
}

/// Why `window.unconfirmed_per_product` is 1 unless somebody chooses otherwise. What follows a refused message is in the queue before the refusal is heard, so
/// whatever is done about a refusal is too late for order: nothing is lost, and with one in flight nothing follows.
#[tokio::test(start_paused = true)]
async fn only_one_in_flight_keeps_order_when_a_message_is_refused() {
    for (per_slot, keeps) in [(1, true), (2, false), (3, false)] {
        let steps = survives(Plan::None, 1, per_slot).await;
        let mut misplaced = 0;
        for at in 0..steps {
            let world = World::new(Plan::At(Fault::Refuse, at), 1);
            world.run(per_slot).await;
            let all: BTreeSet<String> = world.with(|inner| inner.queue.iter().cloned().collect());
            assert_eq!(all.len(), events(&world.frames).len(), "every event arrives at least once");
            misplaced += usize::from(!world.misplaced().is_empty());
        }
        assert_eq!(misplaced == 0, keeps, "{per_slot} in flight: out of order after {misplaced} of {steps} refusals");
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_was_cut_off_ends_it_with_what_to_do_and_with_the_cursor_stored() {
    let ended = ended_by(WatchEnded::CutOff("shard 1 keeps changes from index 70 on".into())).await;
    assert!(matches!(ended, Ended::CutOff(_)), "{ended}");
    says_what_to_do(&ended, "index 70");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_does_not_go_on_behind_the_cursor_ends_it_with_what_to_do_and_with_the_cursor_stored() {
    let ended = ended_by(WatchEnded::NotContinuous("record 9 of shard 1 does not continue the cursor".into())).await;
    assert!(matches!(ended, Ended::NotContinuous(_)), "{ended}");
    says_what_to_do(&ended, "record 9");
}

/// All frames are published and stored; then the feed ends.
async fn ended_by(why: WatchEnded) -> Ended {
    let world = World::new(Plan::None, 1);
    let frames: Vec<_> = world.frames.iter().cloned().map(Ok).collect();
    let feed = stream::iter(frames).chain(stream::iter([Err(why)])).chain(stream::pending()).boxed();
    let (_stop, stopped) = watch::channel(false);
    let ended = world.bridge(1, |_| feed).run(stopped).await.expect_err("it cannot go on");
    world.check();
    ended
}

fn says_what_to_do(ended: &Ended, what: &str) {
    let text = ended.to_string();
    let hints = [what, "event-bridge reset --yes", "--from oldest", "--from now"];
    assert!(hints.iter().all(|hint| text.contains(hint)), "{text}");
}

struct NoBroker;

#[async_trait]
impl Broker for NoBroker {
    async fn connect(&self) -> Result<Box<dyn Link>, BrokerError> {
        Err(BrokerError("connection refused".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_the_feed_waits_and_the_end_is_bounded() {
    let world = World::new(Plan::None, 1);
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let endless = stream::iter(0_u64..).map(move |n| {
        counter.fetch_add(1, Ordering::SeqCst);
        let changes = (0..100).map(|place| happened("shirt", 10 + n, place)).collect();
        Ok(Happenings { changes, cursor: cursor(1), shard_times: BTreeMap::new() })
    });
    let (stop, stopped) = watch::channel(false);
    let mut bridge = world.bridge(1, |_| endless.boxed());
    bridge.broker = Arc::new(NoBroker);
    let telling = bridge.telling.clone();
    let running = tokio::spawn(bridge.run(stopped));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(taken.load(Ordering::SeqCst), limits::WAITING_EVENTS.div_ceil(100));
    assert!(telling.lag().expect("the feed was heard") >= Duration::from_secs(600), "{:?}", telling.lag());
    let asked = tokio::time::Instant::now();
    stop.send_replace(true);
    running.await.expect("no panic").expect("told to stop");
    assert_eq!(asked.elapsed(), Duration::from_secs(5), "it waited for confirms as long as it may");
    assert!(world.with(|inner| inner.stored.is_none()), "nothing was confirmed, so no cursor is stored");
}
