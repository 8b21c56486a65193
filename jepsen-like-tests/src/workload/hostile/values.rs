//! Messages made from their descriptors: mostly plausible, often at a limit or one beyond it, sometimes absurd.
//!
//! **What it is.** [`Maker::message`] sets the fields of any message by reflection. What a field's name tells (a time, an id, a SKU) chooses among
//! values that get far; a field with a name that nothing is known of still gets every extreme of its type. So a new field or verb is tried as soon
//! as it is in a `.proto` file.
//!
//! **Owns** the extremes. **Must never** name another client's product or id: what the ledger does with these must not count against the others.
//! **Read next**: [`super::mangle`].

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger_core::limits as core;
use ledger_core::types::{ReservationId, Sku, Slot};
use ledger_proto::limits as wire;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// Products of hostile clients alone. Three of them are in one slot.
pub(super) const SKUS: [&str; 6] = ["hostile-0", "hostile-1", "hostile-2", "{hostile}a", "{hostile}b", "{hostile}c"];
/// Their sale.
pub(super) const SALE: &str = "hostile-sale";
/// Messages within messages.
const DEPTH_MAX: u32 = 8;
/// Values of one field that are remembered out of answers.
const SEEN_MAX: usize = 24;
/// Numbers of elements at and around the limits of lists: keys, lines after and before summing.
const COUNTS: [usize; 11] = [
    0,
    core::LIMIT_KEYS_MAX,
    core::LIMIT_KEYS_MAX + 1,
    core::LINES_MAX - 1,
    core::LINES_MAX,
    core::LINES_MAX + 1,
    wire::LINES_PER_CALL_MAX - 1,
    wire::LINES_PER_CALL_MAX,
    wire::LINES_PER_CALL_MAX + 1,
    200,
    1_001,
];
/// Lengths at and around the limits of texts and bytes.
const LENGTHS: [usize; 12] = [
    0,
    1,
    core::SALE_ID_BYTES_MAX,
    core::SKU_BYTES_MAX,
    core::SKU_BYTES_MAX + 1,
    core::REASON_BYTES_MAX,
    core::REASON_BYTES_MAX + 1,
    core::SECRET_BYTES_MAX + 1,
    core::SEALED_BYTES_MAX,
    core::SEALED_BYTES_MAX + 1,
    wire::CURSOR_BYTES_MAX + 1,
    70_000,
];
/// Numbers at which something may turn over; each is tried with its neighbours.
const EDGES: [u64; 16] = [
    0,
    1,
    16,
    100,
    1_000,
    4_096,
    8_192,
    core::QUANTITY_MAX as u64,
    u32::MAX as u64 / 2,
    u32::MAX as u64,
    core::UNITS_MAX,
    core::AMOUNT_MAX,
    core::UNITS_EVER_MAX,
    i64::MAX as u64,
    u64::MAX / 2 + 2,
    u64::MAX,
];
/// Milliseconds at and around the bounds of holds, leases and delays.
const SPANS: [u64; 9] = [
    1,
    30,
    core::LEASE_MS_MIN,
    250,
    1_000,
    core::ID_AHEAD_MS_MAX,
    core::LEASE_MS_MAX,
    core::DELAY_MS_MAX,
    core::HOLD_MS_MAX,
];
const ODD_TEXTS: [&str; 16] = [
    "",
    " ",
    "\0",
    "a\0b",
    "a b",
    "e\u{301}",
    "\u{202e}detcefni",
    "\u{feff}bom",
    "👩‍👩‍👧‍👦",
    "{",
    "{}",
    "{}x",
    "../../etc/passwd",
    "%00%2f",
    "<script>",
    "'; DROP TABLE",
];

/// What answers taught: values of fields by name, so that epochs, cursors, deadlines and versions are real ones.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_name: BTreeMap<String, Vec<Value>>,
    /// The newest ledger time.
    pub(super) time_ms: u64,
}

impl Seen {
    /// Nothing yet, at a ledger time.
    pub(super) fn at(time_ms: u64) -> Self {
        Self { time_ms, ..Self::default() }
    }

    /// Remembers a value of a field, unless it names another client's product or reservation.
    pub(super) fn keep(&mut self, name: &str, value: Value) {
        if !is_own(name, &value) {
            return;
        }
        let values = self.by_name.entry(name.to_owned()).or_default();
        if values.len() >= SEEN_MAX {
            values.remove(0);
        }
        values.push(value);
    }

    /// Takes in an answer.
    pub(super) fn learn(&mut self, answer: &DynamicMessage) {
        for (field, value) in answer.fields() {
            self.learn_value(field.name(), value);
        }
    }

    fn learn_value(&mut self, name: &str, value: &Value) {
        match value {
            Value::Message(inner) => {
                if name == "next" || name == "position" {
                    self.keep("before", value.clone());
                }
                self.learn(inner);
            }
            Value::List(values) => values.iter().take(8).for_each(|value| self.learn_value(name, value)),
            Value::Map(_) => {}
            Value::U64(at) if name == "time_ms" => self.time_ms = self.time_ms.max(*at),
            other => self.keep(alias(name), other.clone()),
        }
    }

    fn of(&self, name: &str) -> &[Value] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Whether a value may be used again: products and ids of other clients are not.
fn is_own(name: &str, value: &Value) -> bool {
    match value {
        Value::String(sku) if matches!(name, "sku" | "skus") => sku.contains("hostile"),
        Value::Bytes(id) if id.len() == 16 => id[8..].starts_with(&ID_MARK),
        _ => true,
    }
}

/// What is answered under one name and asked under another.
fn alias(name: &str) -> &str {
    match name {
        "deadline_ms" => "replaces_ms",
        "version" => "expected_version",
        "next" => "after",
        other => other,
    }
}

/// Makes messages.
pub(super) struct Maker<'a> {
    pub(super) rng: &'a mut SmallRng,
    pub(super) seen: &'a mut Seen,
}

impl Maker<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())].clone()
    }

    /// One of these, or a neighbour.
    fn near(&mut self, of: &[u64]) -> u64 {
        let n = self.one_of(of);
        match self.rng.random_range(0..3) {
            0 => n.wrapping_sub(1),
            1 => n,
            _ => n.wrapping_add(1),
        }
    }

    /// A message with most of its fields set; of a oneof, one.
    pub(super) fn message(&mut self, of: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut made = DynamicMessage::new(of.clone());
        let chosen: Vec<u32> = of
            .oneofs()
            .filter(|oneof| !oneof.is_synthetic())
            .filter_map(|oneof| {
                let fields: Vec<u32> = oneof.fields().map(|field| field.number()).collect();
                (!self.chance(4)).then(|| self.one_of(&fields))
            })
            .collect();
        for field in of.fields() {
            let alternative = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
            let set = match alternative {
                true => chosen.contains(&field.number()),
                false if field.supports_presence() && field.kind().as_message().is_none() => self.chance(35),
                false => self.chance(92),
            };
            if set && depth < DEPTH_MAX {
                let value = self.field(&field, depth);
                made.set_field(&field, value);
            }
        }
        made
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if field.is_map() {
            let entries = (0..self.rng.random_range(0..3)).map(|n| (MapKey::U64(n), Value::U64(n)));
            let entries: std::collections::HashMap<MapKey, Value> = entries.collect();
            let whole = Value::Map(entries);
            return if whole.is_valid_for_field(field) { whole } else { Value::default_value_for_field(field) };
        }
        if !field.is_list() {
            return self.single(field, depth);
        }
        let few = self.rng.random_range(1..=3);
        let count = if self.chance(75) { few } else { self.one_of(&COUNTS) };
        if count > few || self.chance(30) {
            // A whole element again and again.
            let one = self.single(field, depth);
            return Value::List(vec![one; count]);
        }
        Value::List((0..count).map(|_| self.single(field, depth)).collect())
    }

    fn single(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let name = field.name();
        let seen = self.seen.of(name);
        if !seen.is_empty() && self.rng.random_range(0..100) < 45 {
            let value = seen[self.rng.random_range(0..seen.len())].clone();
            if value.is_valid(&field.kind()) {
                return value;
            }
        }
        match field.kind() {
            Kind::Message(of) => Value::Message(self.message(&of, depth + 1)),
            Kind::Enum(of) => {
                let numbers: Vec<i32> = of.values().map(|value| value.number()).collect();
                let odd = [-1, i32::MIN, i32::MAX, numbers.len() as i32 + 40];
                Value::EnumNumber(if self.chance(90) { self.one_of(&numbers) } else { self.one_of(&odd) })
            }
            Kind::Bool => Value::Bool(self.chance(50)),
            Kind::String => Value::String(self.text(name)),
            Kind::Bytes => Value::Bytes(self.bytes(name)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.signed()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.signed() as i32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.unsigned(name)),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.unsigned32(name)),
            // No field is one; any number will do.
            Kind::Double => Value::F64(f64::MAX),
            Kind::Float => Value::F32(f32::MIN_POSITIVE),
        }
    }

    fn signed(&mut self) -> i64 {
        match self.rng.random_range(0..10) {
            0..6 => self.rng.random_range(1..=40),
            6 => -self.rng.random_range(1..=40),
            7 => self.one_of(&[0, -1, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1]),
            8 => (self.near(&EDGES) as i64).wrapping_neg(),
            _ => self.near(&EDGES) as i64,
        }
    }

    fn unsigned(&mut self, name: &str) -> u64 {
        if name.ends_with("_ms") && !self.chance(12) {
            let span = if self.chance(60) { self.one_of(&SPANS[..5]) } else { self.near(&SPANS) };
            let instant = name.contains("_at_") || name.contains("until") || name.starts_with("replaces");
            return if instant { self.seen.time_ms.wrapping_add(span) } else { span };
        }
        if self.chance(65) { self.rng.random_range(0..=5) } else { self.near(&EDGES) }
    }

    fn unsigned32(&mut self, name: &str) -> u32 {
        if name == "slot" && self.chance(80) {
            let sku = self.sku();
            return Slot::of(&Sku::new(sku).expect("our own")).get().into();
        }
        if name == "within_ms" && self.chance(80) {
            return self.one_of(&[0, 200, 1_000, 2_500]);
        }
        if self.chance(65) { self.rng.random_range(0..=5) } else { self.near(&EDGES) as u32 }
    }

    /// One of the hostile clients' products.
    pub(super) fn sku(&mut self) -> &'static str {
        self.one_of(&SKUS)
    }

    fn text(&mut self, name: &str) -> String {
        if self.chance(14) {
            return self.odd_text();
        }
        match name {
            "sku" | "skus" => self.sku().to_owned(),
            "sale" | "from_sale" | "to_sale" => self.one_of(&["", "", "", SALE]).to_owned(),
            "currency" => self.one_of(&["EUR", "USD", "JPY", "eur", "XXXX"]).to_owned(),
            "reference" | "refund" | "payment" | "intent" => format!("{name}-{}", self.rng.random_range(0..400)),
            "worker" => self.one_of(&["w1", "w2"]).to_owned(),
            "keys" => format!("key-{}", self.rng.random_range(0..30)),
            "after" if self.chance(50) => String::new(),
            _ => self.one_of(&["", "x", "a word", "price 9.99"]).to_owned(),
        }
    }

    fn odd_text(&mut self) -> String {
        match self.rng.random_range(0..4) {
            0 => "a".repeat(self.one_of(&LENGTHS)),
            1 => "é".repeat(self.one_of(&LENGTHS[..9]) / 2),
            _ => self.one_of(&ODD_TEXTS).to_owned(),
        }
    }

    fn bytes(&mut self, name: &str) -> Bytes {
        if matches!(name, "id" | "reservation" | "linked") && !self.chance(12) {
            return self.id().into();
        }
        match self.rng.random_range(0..8) {
            0..4 if name == "payment" || name == "contact" => vec![7; self.rng.random_range(0..64)].into(),
            0..4 => Bytes::new(),
            4 => self.id().into(),
            _ => {
                let length = self.one_of(&LENGTHS);
                let mut bytes = vec![0; length];
                self.rng.fill_bytes(&mut bytes);
                bytes.into()
            }
        }
    }

    /// An id: of an own product mostly, used before by chance; of another slot, time or version now and then.
    pub(super) fn id(&mut self) -> Vec<u8> {
        let sku = self.sku();
        let slot = Slot::of(&Sku::new(sku).expect("our own"));
        let now = self.seen.time_ms;
        let time_ms = match self.rng.random_range(0..20) {
            0 => 0,
            1 => (1 << 48) - 1,
            2 => now.wrapping_add(self.near(&SPANS)),
            3 => now.saturating_sub(self.near(&SPANS)),
            // A few moments only, so that ids come again.
            _ => now - now % 500,
        };
        let slot = if self.chance(4) { Slot::new(self.rng.random_range(0..4_096)).expect("below 4,096") } else { slot };
        let random = MARK | u64::from(self.rng.random_range(0..6u32));
        let mut id = ReservationId::from_parts(slot, time_ms, random).as_bytes().to_vec();
        match self.rng.random_range(0..40) {
            0 => id[6] = 0x40 | (id[6] & 0xf),
            1 => id[8] = 0,
            2 => drop(id.pop()),
            3 => id.push(0),
            _ => {}
        }
        id
    }

    /// An id of a product that nobody has used.
    pub(super) fn fresh_id(&mut self, sku: &str) -> Bytes {
        let slot = Slot::of(&Sku::new(sku).expect("our own"));
        let random = MARK | (u64::from(self.rng.next_u32()) << 3);
        Bytes::copy_from_slice(ReservationId::from_parts(slot, self.seen.time_ms, random).as_bytes())
    }
}

/// What the ids of hostile clients have in common, for whoever reads a trace.
const MARK: u64 = 0x0bad_c0de << 32;
/// Its first bytes in an id, behind the variant's two bits.
const ID_MARK: [u8; 3] = [0x8b, 0xad, 0xc0];

#[cfg(test)]
mod tests {
    use super::super::methods;
    use super::*;
    use prost_reflect::prost::Message;
    use rand::SeedableRng;

    fn made(seed: u64, name: &str) -> DynamicMessage {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut seen = Seen::at(1_767_225_600_000);
        Maker { rng: &mut rng, seen: &mut seen }.message(&methods::message(name), 0)
    }

    #[test]
    fn a_seed_makes_the_same_message() {
        assert_eq!(made(7, "CallFrame").encode_to_vec(), made(7, "CallFrame").encode_to_vec());
    }

    #[test]
    fn every_verb_of_a_call_is_made() {
        let verbs: std::collections::BTreeSet<String> = (0..1_000)
            .flat_map(|seed| made(seed, "Call").fields().map(|(field, _)| field.name().to_owned()).collect::<Vec<_>>())
            .collect();
        for oneof in methods::message("Call").oneofs() {
            for field in oneof.fields() {
                assert!(verbs.contains(field.name()), "{} is never made: {verbs:?}", field.name());
            }
        }
    }

    #[test]
    fn one_line_comes_seventeen_times_in_some_message() {
        let lines = |seed| match made(seed, "Reserve").get_field_by_name("lines").as_deref() {
            Some(Value::List(lines)) => lines.len(),
            _ => 0,
        };
        assert!((0..2_000).any(|seed| lines(seed) == core::LINES_MAX + 1));
    }

    #[test]
    fn most_calls_are_such_as_the_wire_accepts() {
        use ledger_proto::frames::{Frame as _, OneCall};
        let accepted = |seed: &u64| {
            let call = OneCall::from_message(made(*seed, "Call").encode_to_vec().into()).decode();
            call.is_ok_and(|call| call.command.is_ok())
        };
        let accepted = (0..1_000).filter(accepted).count();
        assert!((250..900).contains(&accepted), "{accepted} of 1,000 calls get past the wire");
    }
}
