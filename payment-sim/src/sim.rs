//! The simulator's middle: the shelf, the dice, and one call from decision to the disk.
//!
//! **Owns** the order of things in a call: its key is looked up, the rules decide, the entry goes to the book together with the key
//! and the answer, all under one lock; then it waits for the disk. **Must never** answer before. **Read next**: [`crate::rules`],
//! [`crate::http::call`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;

use crate::behaviour::dice::Dice;
use crate::behaviour::{Delivery, Fate, Kept};
use crate::book::keys::Known;
use crate::book::records::{Delivered, DeliveryEnd, Entry, Event, EventKind, Intent, KeptAnswer, KeyUse, Refund};
use crate::book::shelf::{Broken, Locked, Shelf, Ticket};
use crate::book::{Book, Place};
use crate::clock::Clock;
use crate::ids::{EventId, Id, RequestId};
use crate::params::{Ask, Expand};
use crate::refusal::Refusal;
use crate::rules::{self, Decided};
use crate::webhooks::{Letter, Webhooks};
use crate::wire::{self, EventView, IntentView, RefundView};

/// Everything a call needs.
pub(crate) struct Sim {
    pub(crate) shelf: Shelf,
    pub(crate) dice: Dice,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) webhooks: Option<Arc<Webhooks>>,
    pub(crate) api_key: Option<String>,
    pub(crate) forget_keys_ms: i64,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
    /// Of this start, so that request ids differ between starts.
    pub(crate) start: u32,
    pub(crate) requests: AtomicU32,
}

/// An idempotency key and what it was sent with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: Box<str>,
    /// Fingerprint of endpoint and parameters.
    pub(crate) print: u64,
}

/// An answer, on disk.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// It was given before, under the same key.
    pub(crate) replayed: bool,
    /// Seconds to come back in.
    pub(crate) retry_after: Option<u32>,
    /// What Stripe's clients are told about trying again.
    pub(crate) should_retry: Option<bool>,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            body: wire::refusal(&refusal),
            replayed: false,
            retry_after: refusal.retry_after,
            should_retry: refusal.should_retry,
        }
    }
}

impl Answer {
    /// An object.
    pub(crate) fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, body, replayed: false, retry_after: None, should_retry: None }
    }
}

/// What a change told, when it is not an answer yet.
enum Told {
    Intent(Intent),
    Refund(Refund),
    /// An object with others inside.
    Body(Vec<u8>),
    Refused(Box<Refusal>),
    /// It was told before, and is in this line.
    Before(Place),
}

/// A call that holds its key while it waits to begin.
pub(crate) struct Waiting {
    sim: Arc<Sim>,
    key: Box<str>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.sim.shelf.lock().book.keys.end(&self.key);
    }
}

impl Sim {
    /// The next request's id.
    pub(crate) fn request_id(&self) -> RequestId {
        Id::new(self.start, self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Holds `key` while its call waits to begin.
    ///
    /// # Errors
    /// The key is held, or was used for something else. A key with an answer is no error here: the answer comes when it is run.
    pub(crate) fn hold(self: &Arc<Self>, key: &Key) -> Result<Waiting, Refusal> {
        let mut locked = self.shelf.lock();
        match locked.book.keys.known(&key.text, key.print, self.clock.now_ms(), self.forget_keys_ms) {
            Known::OtherParameters => Err(Refusal::other_parameters(&key.text)),
            Known::InUse => Err(Refusal::key_in_use(&key.text)),
            Known::Answered(_) => Ok(Waiting { sim: self.clone(), key: key.text.clone() }),
            Known::Not => {
                locked.book.keys.begin(&key.text, key.print);
                Ok(Waiting { sim: self.clone(), key: key.text.clone() })
            }
        }
    }

    /// Runs one call that may change the book, and returns when what it did is on disk. `held`: the caller holds the key.
    pub(crate) async fn run(
        &self,
        ask: &Ask,
        expand: Expand,
        key: Option<Key>,
        held: Option<Waiting>,
        fate: Fate,
    ) -> Result<Answer, Refusal> {
        let now_ms = self.clock.now_ms();
        let (told, ticket) = {
            let mut locked = self.shelf.lock();
            locked.check()?;
            let known = key
                .as_ref()
                .map_or(Known::Not, |key| locked.book.keys.known(&key.text, key.print, now_ms, self.forget_keys_ms));
            match (known, &key) {
                (Known::Answered(place), _) => (Told::Before(place), locked.ticket(place)),
                (Known::OtherParameters, Some(key)) => return Err(Refusal::other_parameters(&key.text)),
                (Known::InUse, Some(key)) if held.is_none() => return Err(Refusal::key_in_use(&key.text)),
                _ => {
                    let decided = match fate.error {
                        Some(kept) => Err(Refusal::unwell(kept == Kept::Yes)),
                        None => rules::decide(&locked.book, ask, now_ms, fate.declined),
                    };
                    let then = Then { expand, error: fate.then_error, key };
                    self.put(&mut locked, decided, then, now_ms)?
                }
            }
        };
        drop(held);
        ticket.on_disk().await?;
        self.answer(told)
    }

    /// What the world does to an intent: a buyer who authenticates, a bank that makes up its mind.
    pub(crate) async fn happen(
        &self,
        decide: impl FnOnce(&Book, i64) -> Result<Decided, Refusal>,
    ) -> Result<Answer, Refusal> {
        let now_ms = self.clock.now_ms();
        let (told, ticket) = {
            let mut locked = self.shelf.lock();
            locked.check()?;
            let decided = decide(&locked.book, now_ms);
            self.put(&mut locked, decided, Then::default(), now_ms)?
        };
        ticket.on_disk().await?;
        self.answer(told)
    }

    /// Puts what was decided into the book.
    fn put(
        &self,
        locked: &mut Locked,
        decided: Result<Decided, Refusal>,
        then: Then,
        now_ms: i64,
    ) -> Result<(Told, Ticket), Refusal> {
        let mut entry = Entry { at_ms: now_ms, ..Entry::default() };
        let told = match decided {
            Err(refusal) if !refusal.kept || then.key.is_none() => return Err(refusal),
            Err(refusal) => Told::Refused(Box::new(refusal)),
            Ok(decided) => {
                let (.., first) = locked.book.next();
                entry.events = events(&decided.events, first, self.webhooks.is_some());
                let told = told(&locked.book, &decided, &then);
                (entry.intent, entry.charge, entry.refund) = (decided.intent, decided.charge, decided.refund);
                told
            }
        };
        entry.key = then.key.map(|key| key_use(key, &told));
        let letters = self.letters(&locked.book, &entry);
        let (_, ticket) = self.shelf.put(locked, entry)?;
        for letter in letters {
            self.post(locked, letter, &ticket)?;
        }
        Ok((told, ticket))
    }

    /// The events of `entry` as they will be delivered.
    fn letters(&self, book: &Book, entry: &Entry) -> Vec<Letter> {
        if self.webhooks.is_none() || entry.events.is_empty() {
            return Vec::new();
        }
        let of = entry.intent.as_ref().map(|intent| intent.id);
        let of = of.or_else(|| entry.charge.as_ref().map(|charge| charge.intent));
        let lane = of.unwrap_or_else(|| book.next().0).number();
        let views = entry.events.iter().filter_map(|event| Some((event.id, EventView::new(*event, entry)?)));
        views.map(|(event, view)| Letter { event, lane, payload: wire::json(&view).into() }).collect()
    }

    /// Hands a letter to the webhooks, unless the behaviour in effect loses it.
    fn post(&self, locked: &mut Locked, letter: Letter, ticket: &Ticket) -> Result<(), Broken> {
        let Some(webhooks) = &self.webhooks else { return Ok(()) };
        let event = letter.event;
        let taken = match self.dice.event() {
            Delivery::Never => false,
            Delivery::After { ms, again_ms } => webhooks.post(letter, ticket.clone(), ms, again_ms),
        };
        if taken { Ok(()) } else { self.delivered(locked, event, 0, None, DeliveryEnd::Dropped) }
    }

    /// Notes how a delivery went.
    pub(crate) fn delivered(
        &self,
        locked: &mut Locked,
        event: EventId,
        attempt: u32,
        status: Option<u16>,
        end: DeliveryEnd,
    ) -> Result<(), Broken> {
        let delivered = Some(Delivered { event, attempt, status, end });
        let entry = Entry { at_ms: self.clock.now_ms(), delivered, ..Entry::default() };
        // Nobody waits for it: were it lost, the event would be delivered once more.
        self.shelf.put(locked, entry).map(|_| ())
    }

    /// Posts again what the last process did not get delivered.
    pub(crate) fn post_unsettled(&self) -> std::io::Result<()> {
        let mut locked = self.shelf.lock();
        let unsettled: Vec<Place> = {
            let mut places: Vec<_> = locked.book.events().iter().filter(|e| !e.settled).map(|e| e.place).collect();
            places.dedup();
            places
        };
        for place in unsettled {
            let entry = self.shelf.read(place)?;
            for letter in self.letters(&locked.book, &entry) {
                let settled = locked.book.event(letter.event).is_none_or(|row| row.settled);
                if !settled {
                    self.post(&mut locked, letter, &Ticket::none()).map_err(std::io::Error::other)?;
                }
            }
        }
        Ok(())
    }

    fn answer(&self, told: Told) -> Result<Answer, Refusal> {
        match told {
            Told::Intent(intent) => Ok(Answer::ok(wire::json(&IntentView::new(&intent, None)))),
            Told::Refund(refund) => Ok(Answer::ok(wire::json(&RefundView::new(&refund, None, None)))),
            Told::Body(body) => Ok(Answer::ok(body)),
            Told::Refused(refusal) => Ok((*refusal).into()),
            Told::Before(place) => self.replay(place),
        }
    }

    /// The answer kept in the line at `place`, which is on disk.
    fn replay(&self, place: Place) -> Result<Answer, Refusal> {
        let lost = |error: &dyn std::fmt::Display| {
            tracing::error!(offset = place.offset, %error, "a line of the book cannot be read back");
            Refusal::from(Broken)
        };
        let entry = self.shelf.read(place).map_err(|e| lost(&e))?;
        let (Some(key), intent, refund) = (entry.key, entry.intent, entry.refund) else {
            return Err(lost(&"it keeps no answer"));
        };
        let body = match (key.answer, intent, refund) {
            (KeptAnswer::Body(body), ..) => body.get().as_bytes().to_vec(),
            (KeptAnswer::Intent, Some(intent), _) => wire::json(&IntentView::new(&intent, None)),
            (KeptAnswer::Refund, _, Some(refund)) => wire::json(&RefundView::new(&refund, None, None)),
            _ => return Err(lost(&"it does not hold the object it answered with")),
        };
        let should_retry = (key.status >= 500).then_some(false);
        Ok(Answer { status: key.status, replayed: true, should_retry, ..Answer::ok(body) })
    }
}

/// What the answer is made with.
#[derive(Default)]
struct Then {
    expand: Expand,
    /// Answer 500 whatever was done.
    error: bool,
    key: Option<Key>,
}

fn events(kinds: &[EventKind], first: EventId, send: bool) -> Vec<Event> {
    let number = first.number() as u32;
    (number..).zip(kinds).map(|(number, kind)| Event { id: Id::new(first.salt(), number), kind: *kind, send }).collect()
}

fn told(book: &Book, decided: &Decided, then: &Then) -> Told {
    if let Some(refusal) = &decided.refused {
        return Told::Refused(Box::new(refusal.clone()));
    }
    if then.error {
        return Told::Refused(Box::new(Refusal::unwell(true)));
    }
    match (&decided.refund, &decided.intent) {
        (Some(refund), _) if then.expand.any() => {
            let row = book.intent(refund.intent).map(|row| &row.intent).filter(|_| then.expand.payment_intent);
            let charge = decided.charge.as_ref().filter(|_| then.expand.charge);
            Told::Body(wire::json(&RefundView::new(refund, row, charge)))
        }
        (Some(refund), _) => Told::Refund(refund.clone()),
        (None, Some(intent)) if then.expand.any() => {
            let charge = decided.charge.as_ref().or_else(|| intent.charge.and_then(|id| book.charge(id)));
            Told::Body(wire::json(&IntentView::new(intent, charge)))
        }
        (None, Some(intent)) => Told::Intent(intent.clone()),
        (None, None) => Told::Refused(Box::new(Refusal::unwell(true))),
    }
}

fn key_use(key: Key, told: &Told) -> KeyUse {
    let (status, answer) = match told {
        Told::Intent(_) => (200, KeptAnswer::Intent),
        Told::Refund(_) => (200, KeptAnswer::Refund),
        Told::Body(body) => (200, KeptAnswer::Body(wire::raw(body))),
        Told::Refused(refusal) => (refusal.status, KeptAnswer::Body(wire::raw(&wire::refusal(refusal)))),
        Told::Before(_) => unreachable!("an answer given before is not kept again"),
    };
    KeyUse { key: key.text, print: key.print, status, answer }
}
