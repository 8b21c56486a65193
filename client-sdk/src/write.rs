//! The verbs that change something, as builders that are awaited.
//!
//! **Owns** one builder a verb. **Must never** send anything before it is awaited, nor answer invalid input with anything but
//! `Refused(Invalid)`. **Read next**: [`crate::Outcome`].

use std::future::IntoFuture;
use std::time::Duration;

use ledger_core::command::{Command, LimitKeys, Lines};
use ledger_core::outcome::Fenced;
use ledger_core::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reason, Reference, ReservationId, SaleId, Settled, Sku,
    Units,
};
use ledger_proto::Invalid;

use crate::calling::Calling;
use crate::client::Client;
use crate::given::Given;
use crate::outcome::{OfferSettled, Reservation, Resolved, Returned, Stocked};

/// What is common to all verbs: whom to ask, until when, and the first thing found wrong with the input.
pub(crate) struct Ask {
    pub(crate) client: Client,
    pub(crate) deadline: Option<Duration>,
    invalid: Option<Invalid>,
}

impl Ask {
    pub(crate) fn new(client: &Client) -> Self {
        Self { client: client.clone(), deadline: None, invalid: None }
    }
    pub(crate) fn take<T>(&mut self, field: &'static str, value: Result<T, ledger_core::InvalidValue>) -> Option<T> {
        value.map_err(|error| self.wrong(field, error.to_string())).ok()
    }
    pub(crate) fn wrong(&mut self, field: &'static str, why: impl Into<String>) {
        self.invalid.get_or_insert_with(|| Invalid::new(field, why));
    }
    pub(crate) fn line(&mut self, sku: impl Given<Sku>, sale: Option<Option<SaleId>>, quantity: i64) -> Option<Line> {
        let sku = self.take("lines.sku", sku.given())?;
        let quantity = self.take("lines.quantity", Quantity::new(quantity))?;
        Some(Line { offer: OfferKey { sku, sale: sale? }, quantity })
    }
    pub(crate) fn offer(&mut self, sku: impl Given<Sku>) -> Option<OfferKey> {
        let sku = self.take("sku", sku.given())?;
        Some(OfferKey { sku, sale: None })
    }
    pub(crate) fn sale(&mut self, offer: &mut Option<OfferKey>, sale: impl Given<SaleId>) {
        let sale = self.take("sale", sale.given());
        if let Some(offer) = offer {
            offer.sale = sale;
        }
    }
    pub(crate) fn finish<T>(self, command: Option<Command>, read: Read<T>) -> Calling<T> {
        let deadline = self.deadline.unwrap_or(self.client.deadline());
        match (self.invalid, command) {
            (Some(invalid), _) => Calling::invalid(invalid),
            (None, None) => Calling::invalid(Invalid::new("call", "the input is not complete")),
            (None, Some(command)) => Calling::new(self.client, command, deadline, read),
        }
    }
}

/// Reads what was settled as the verb's value; `None` when a node answers with what does not belong to the verb.
pub(crate) type Read<T> = fn(&Command, Settled) -> Option<T>;

fn reservation(command: &Command, settled: Settled) -> Option<Reservation> {
    match (command, settled) {
        (
            Command::Reserve { id, .. }
            | Command::Extend { id, .. }
            | Command::Confirm { id, .. }
            | Command::Release { id },
            Settled::Reservation(brief),
        ) => Some(Reservation::new(*id, brief)),
        _ => None,
    }
}
fn resolved(command: &Command, settled: Settled) -> Option<Resolved> {
    match (command, settled) {
        (Command::Fence { id }, Settled::Fenced(fenced)) => Some(match fenced {
            Fenced::Never => Resolved::Never,
            Fenced::WasRefused(refusal) => Resolved::WasRefused(refusal),
            Fenced::Reservation(brief) => Resolved::Reservation(Reservation::new(*id, brief)),
        }),
        _ => None,
    }
}
fn returned(_: &Command, settled: Settled) -> Option<Returned> {
    match settled {
        Settled::Returned { units, replayed } => Some(Returned { units, replayed }),
        _ => None,
    }
}
fn offer_settled(_: &Command, settled: Settled) -> Option<OfferSettled> {
    match settled {
        Settled::Offer { version, replayed } => Some(OfferSettled { version, replayed }),
        _ => None,
    }
}
fn done(_: &Command, settled: Settled) -> Option<()> {
    (settled == Settled::Done).then_some(())
}
fn stocked(_: &Command, settled: Settled) -> Option<Stocked> {
    match settled {
        Settled::Stocked { balance, version, replayed } => Some(Stocked { balance, version, replayed }),
        _ => None,
    }
}
pub(crate) fn anything(_: &Command, settled: Settled) -> Option<Settled> {
    Some(settled)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A builder of a verb: its deadline, and being awaited.
macro_rules! verb {
    ($name:ident => $value:ty) => {
        impl $name {
            /// How long to wait and retry before the outcome is `NotNow` or `Unknown`; the client's default otherwise.
            pub fn deadline(mut self, deadline: Duration) -> Self {
                self.ask.deadline = Some(deadline);
                self
            }
        }
        impl IntoFuture for $name {
            type Output = crate::outcome::Outcome<$value>;
            type IntoFuture = Calling<$value>;
            fn into_future(self) -> Calling<$value> {
                self.call()
            }
        }
    };
}

pub(crate) use verb;

/// Claims units for a buyer. Idempotent by its id: asking again never takes units twice.
#[must_use = "nothing is sent until it is awaited"]
pub struct Reserve {
    ask: Ask,
    id: ReservationId,
    keys: LimitKeys,
    lines: Lines,
    hold_ms: Option<u64>,
}

impl Reserve {
    pub(crate) fn new(client: &Client, id: ReservationId, buyer: impl Given<LimitKey>) -> Self {
        let ask = Ask::new(client);
        Self { ask, id, keys: LimitKeys::new(), lines: Lines::new(), hold_ms: None }.key(buyer)
    }
    /// One more key that limits count by (address, card, …); up to four with the buyer's.
    pub fn key(mut self, key: impl Given<LimitKey>) -> Self {
        self.keys.extend(self.ask.take("keys", key.given()));
        self
    }
    /// So many units of the product's plain offer. Lines are all or nothing; the same offer twice is one sum.
    pub fn line(mut self, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        self.lines.extend(self.ask.line(sku, Some(None), quantity.into()));
        self
    }
    /// So many units of the product's offer in a sale.
    pub fn sale_line(mut self, sale: impl Given<SaleId>, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let sale = self.ask.take("lines.sale", sale.given()).map(Some);
        self.lines.extend(self.ask.line(sku, sale, quantity.into()));
        self
    }
    /// How long to hold the units, from ledger time on; the policy's default otherwise.
    pub fn hold_for(mut self, hold: Duration) -> Self {
        self.hold_ms = Some(millis(hold).max(1));
        self
    }
    fn call(self) -> Calling<Reservation> {
        let Self { ask, id, keys, lines, hold_ms } = self;
        ask.finish(Some(Command::Reserve { id, keys, lines, hold_ms }), reservation)
    }
}
verb!(Reserve => Reservation);

/// Sells a live hold, whole or in part; the rest becomes available.
#[must_use = "nothing is sent until it is awaited"]
pub struct Confirm {
    ask: Ask,
    id: ReservationId,
    lines: Option<Lines>,
}

impl Confirm {
    pub(crate) fn new(client: &Client, id: ReservationId) -> Self {
        Self { ask: Ask::new(client), id, lines: None }
    }
    /// Sell only so many units of the plain offer; lines not named go back.
    pub fn line(mut self, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let line = self.ask.line(sku, Some(None), quantity.into());
        self.lines.get_or_insert_default().extend(line);
        self
    }
    /// Sell only so many units of the offer in a sale.
    pub fn sale_line(mut self, sale: impl Given<SaleId>, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let sale = self.ask.take("lines.sale", sale.given()).map(Some);
        let line = self.ask.line(sku, sale, quantity.into());
        self.lines.get_or_insert_default().extend(line);
        self
    }
    fn call(self) -> Calling<Reservation> {
        self.ask.finish(Some(Command::Confirm { id: self.id, lines: self.lines }), reservation)
    }
}
verb!(Confirm => Reservation);

/// Gives a live hold back.
#[must_use = "nothing is sent until it is awaited"]
pub struct Release {
    ask: Ask,
    id: ReservationId,
}

impl Release {
    pub(crate) fn new(client: &Client, id: ReservationId) -> Self {
        Self { ask: Ask::new(client), id }
    }
    fn call(self) -> Calling<Reservation> {
        self.ask.finish(Some(Command::Release { id: self.id }), reservation)
    }
}
verb!(Release => Reservation);

/// Moves a live hold's deadline. Idempotent: it names the deadline it replaces.
#[must_use = "nothing is sent until it is awaited"]
pub struct Extend {
    ask: Ask,
    id: ReservationId,
    replaces: LedgerTime,
    hold_ms: u64,
}

impl Extend {
    pub(crate) fn new(client: &Client, id: ReservationId, replaces: LedgerTime, hold: Duration) -> Self {
        Self { ask: Ask::new(client), id, replaces, hold_ms: millis(hold) }
    }
    fn call(self) -> Calling<Reservation> {
        let Self { ask, id, replaces, hold_ms } = self;
        ask.finish(Some(Command::Extend { id, replaces, hold_ms }), reservation)
    }
}
verb!(Extend => Reservation);

/// Tells what became of an id, or makes sure that it never executes. A live hold is left alone.
#[must_use = "nothing is sent until it is awaited"]
pub struct Resolve {
    ask: Ask,
    id: ReservationId,
}

impl Resolve {
    pub(crate) fn new(client: &Client, id: ReservationId) -> Self {
        Self { ask: Ask::new(client), id }
    }
    fn call(self) -> Calling<Resolved> {
        self.ask.finish(Some(Command::Fence { id: self.id }), resolved)
    }
}
verb!(Resolve => Resolved);

/// Brings sold units back. Idempotent by its reference.
#[must_use = "nothing is sent until it is awaited"]
pub struct ReturnUnits {
    ask: Ask,
    id: ReservationId,
    reference: Option<Reference>,
    lines: Option<Lines>,
}

impl ReturnUnits {
    pub(crate) fn new(client: &Client, id: ReservationId, reference: impl Given<Reference>) -> Self {
        let mut ask = Ask::new(client);
        let reference = ask.take("reference", reference.given());
        Self { ask, id, reference, lines: None }
    }
    /// Only so many units of the plain offer; all that is still sold otherwise.
    pub fn line(mut self, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let line = self.ask.line(sku, Some(None), quantity.into());
        self.lines.get_or_insert_default().extend(line);
        self
    }
    /// Only so many units of the offer in a sale.
    pub fn sale_line(mut self, sale: impl Given<SaleId>, sku: impl Given<Sku>, quantity: impl Into<i64>) -> Self {
        let sale = self.ask.take("lines.sale", sale.given()).map(Some);
        let line = self.ask.line(sku, sale, quantity.into());
        self.lines.get_or_insert_default().extend(line);
        self
    }
    fn call(self) -> Calling<Returned> {
        let Self { ask, id, reference, lines } = self;
        ask.finish(reference.map(|reference| Command::Return { id, lines, reference }), returned)
    }
}
verb!(ReturnUnits => Returned);

/// Adds units to an offer. Idempotent by its reference.
#[must_use = "nothing is sent until it is awaited"]
pub struct Receive {
    ask: Ask,
    offer: Option<OfferKey>,
    units: Option<Units>,
    reference: Option<Reference>,
}

impl Receive {
    pub(crate) fn new(client: &Client, sku: impl Given<Sku>, units: i64, reference: impl Given<Reference>) -> Self {
        let mut ask = Ask::new(client);
        let offer = ask.offer(sku);
        let units = ask.take("units", Units::new(units));
        let reference = ask.take("reference", reference.given());
        Self { ask, offer, units, reference }
    }
    /// Into the product's offer in a sale instead of its plain one.
    pub fn sale(mut self, sale: impl Given<SaleId>) -> Self {
        self.ask.sale(&mut self.offer, sale);
        self
    }
    fn call(self) -> Calling<Stocked> {
        let Self { ask, offer, units, reference } = self;
        let command = offer.zip(units).zip(reference);
        ask.finish(command.map(|((offer, units), reference)| Command::Receive { offer, units, reference }), stocked)
    }
}
verb!(Receive => Stocked);

/// Corrects an offer's available units. Idempotent by its reference.
#[must_use = "nothing is sent until it is awaited"]
pub struct Adjust {
    ask: Ask,
    offer: Option<OfferKey>,
    delta: i64,
    reason: Option<Reason>,
    reference: Option<Reference>,
    expected_version: Option<u64>,
}

impl Adjust {
    pub(crate) fn new(
        client: &Client,
        sku: impl Given<Sku>,
        delta: i64,
        reason: impl Given<Reason>,
        reference: impl Given<Reference>,
    ) -> Self {
        let mut ask = Ask::new(client);
        let offer = ask.offer(sku);
        let reason = ask.take("reason", reason.given());
        let reference = ask.take("reference", reference.given());
        Self { ask, offer, delta, reason, reference, expected_version: None }
    }
    /// The product's offer in a sale instead of its plain one.
    pub fn sale(mut self, sale: impl Given<SaleId>) -> Self {
        self.ask.sale(&mut self.offer, sale);
        self
    }
    /// Only if the offer is still at this version.
    pub fn expected_version(mut self, version: u64) -> Self {
        self.expected_version = Some(version);
        self
    }
    fn call(self) -> Calling<Stocked> {
        let Self { ask, offer, delta, reason, reference, expected_version } = self;
        let command = offer.zip(reason).zip(reference).map(|((offer, reason), reference)| Command::Adjust {
            offer,
            delta,
            reason,
            reference,
            expected_version,
        });
        ask.finish(command, stocked)
    }
}
verb!(Adjust => Stocked);

/// Moves available units between two offers of one product. Idempotent by its reference.
#[must_use = "nothing is sent until it is awaited"]
pub struct Allot {
    ask: Ask,
    sku: Option<Sku>,
    from: Option<SaleId>,
    to: Option<SaleId>,
    units: Option<Units>,
    reference: Option<Reference>,
}

impl Allot {
    pub(crate) fn new(client: &Client, sku: impl Given<Sku>, units: i64, reference: impl Given<Reference>) -> Self {
        let mut ask = Ask::new(client);
        let sku = ask.take("sku", sku.given());
        let units = ask.take("units", Units::new(units));
        let reference = ask.take("reference", reference.given());
        Self { ask, sku, from: None, to: None, units, reference }
    }
    /// From the offer in this sale; from the plain offer otherwise.
    pub fn from_sale(mut self, sale: impl Given<SaleId>) -> Self {
        self.from = self.ask.take("from_sale", sale.given());
        self
    }
    /// To the offer in this sale; to the plain offer otherwise.
    pub fn to_sale(mut self, sale: impl Given<SaleId>) -> Self {
        self.to = self.ask.take("to_sale", sale.given());
        self
    }
    fn call(self) -> Calling<Stocked> {
        let Self { ask, sku, from, to, units, reference } = self;
        let command = sku.zip(units).zip(reference).map(|((sku, units), reference)| Command::Allot {
            sku,
            from,
            to,
            units,
            reference,
        });
        ask.finish(command, stocked)
    }
}
verb!(Allot => Stocked);

/// Creates a product, changes an offer's policy, opens, closes or ends it.
#[must_use = "nothing is sent until it is awaited"]
pub struct Arrange {
    ask: Ask,
    command: Option<Command>,
}

impl Arrange {
    pub(crate) fn create_product(client: &Client, sku: impl Given<Sku>, policy: Policy) -> Self {
        let mut ask = Ask::new(client);
        let command = ask.take("sku", sku.given()).map(|sku| Command::CreateProduct { sku, policy });
        Self { ask, command }
    }
    pub(crate) fn put_offer(client: &Client, offer: OfferKey, policy: Policy) -> Self {
        let command = Some(Command::PutOffer { offer, policy, expected_version: None });
        Self { ask: Ask::new(client), command }
    }
    pub(crate) fn set_open(client: &Client, offer: OfferKey, open: bool) -> Self {
        Self { ask: Ask::new(client), command: Some(Command::SetOpen { offer, open }) }
    }
    pub(crate) fn end_sale(client: &Client, sale: impl Given<SaleId>, sku: impl Given<Sku>) -> Self {
        let mut ask = Ask::new(client);
        let sale = ask.take("sale", sale.given());
        let sku = ask.take("sku", sku.given());
        Self { ask, command: sku.zip(sale).map(|(sku, sale)| Command::EndSale { sku, sale }) }
    }
    /// Replace exactly this version of the offer's policy (only for `put_offer`; without it the offer is created).
    pub fn expected_version(mut self, version: u64) -> Self {
        match &mut self.command {
            Some(Command::PutOffer { expected_version, .. }) => *expected_version = Some(version),
            _ => self.ask.wrong("expected_version", "only put_offer compares versions"),
        }
        self
    }
    fn call(self) -> Calling<OfferSettled> {
        self.ask.finish(self.command, offer_settled)
    }
}
verb!(Arrange => OfferSettled);

/// Deletes a product. Not idempotent in its answer: the second time there is no such product.
#[must_use = "nothing is sent until it is awaited"]
pub struct DeleteProduct {
    ask: Ask,
    sku: Option<Sku>,
}

impl DeleteProduct {
    pub(crate) fn new(client: &Client, sku: impl Given<Sku>) -> Self {
        let mut ask = Ask::new(client);
        let sku = ask.take("sku", sku.given());
        Self { ask, sku }
    }
    fn call(self) -> Calling<()> {
        self.ask.finish(self.sku.map(|sku| Command::DeleteProduct { sku }), done)
    }
}
verb!(DeleteProduct => ());

/// Any command, as it is. For imports, load generators and callers that keep commands.
#[must_use = "nothing is sent until it is awaited"]
pub struct Submit {
    ask: Ask,
    command: Command,
}

impl Submit {
    pub(crate) fn new(client: &Client, command: Command) -> Self {
        Self { ask: Ask::new(client), command }
    }
    fn call(self) -> Calling<Settled> {
        self.ask.finish(Some(self.command), anything)
    }
}
verb!(Submit => Settled);
