//! Every bound of the core, named, with its reason.
//!
//! What replicas must agree on is a constant here or goes through the log; it is never configuration.

/// Slots that SKUs hash into. Twelve bits: they fit the `rand_a` field of a UUIDv7.
pub const SLOTS: u16 = 4_096;
/// Longest SKU in bytes. Long enough for GTIN plus variant, short enough to keep in every record.
pub const SKU_BYTES_MAX: usize = 64;
/// Longest sale id in bytes.
pub const SALE_ID_BYTES_MAX: usize = 48;
/// Longest limit key in bytes (an account id, an address hash, a card fingerprint, …).
pub const LIMIT_KEY_BYTES_MAX: usize = 64;
/// Limit keys one reservation may carry.
pub const LIMIT_KEYS_MAX: usize = 4;
/// Longest reference of a receive, adjust, return or allot.
pub const REFERENCE_BYTES_MAX: usize = 64;
/// Longest free-text reason (adjustments, closings).
pub const REASON_BYTES_MAX: usize = 128;
/// Longest opaque price note on an offer.
pub const PRICE_BYTES_MAX: usize = 64;
/// Longest name of a worker.
pub const WORKER_ID_BYTES_MAX: usize = 64;
/// Longest id of a payment provider (Stripe's have at most 255, in practice below 70).
pub const PROVIDER_ID_BYTES_MAX: usize = 128;
/// Most minor units one order may cost: exact in every language's doubles.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;
/// Most bytes of one sealed content (a token or an address, with the overhead of sealing).
pub const SEALED_BYTES_MAX: usize = 1_024;
/// Longest secret a client is given to act at the provider.
pub const SECRET_BYTES_MAX: usize = 512;
/// Payments one order may have: more than a provider ever reports for one. The last place is for
/// one of the order's own amount.
pub const PAYMENTS_MAX: usize = 16;
/// Orders one claim may ask for.
pub const CLAIM_MAX: u32 = 1_000;
/// Shortest and longest lease.
pub const LEASE_MS_MIN: u64 = 100;
/// See [`LEASE_MS_MIN`].
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// Longest time a worker may put an order off.
pub const DELAY_MS_MAX: u64 = 24 * 3_600_000;
/// Leases of one step that may end without a report before the order is parked.
pub const LEASES_LOST_MAX: u32 = 20;
/// Leases and delays swept by one entry; claims never wait for it.
pub const WAKES_PER_ENTRY_MAX: usize = 4_096;
/// Every so many orders given to workers, the suspect lane goes first.
pub const SUSPECTS_EVERY: u64 = 16;
/// Bytes of content after which a claim is answered with what it has: an answer stays far below a frame of the wire.
pub const CLAIMED_BYTES_MAX: usize = 1 << 20;
/// Orders that all claims of one entry may give: with sealed content and a change each, an entry's answers and its record stay bounded.
pub const CLAIMED_PER_ENTRY_MAX: usize = 16_384;
/// Orders too near to their payment deadline that all claims of one entry put aside; and as many
/// may be taken back for claims that need less time. The claims of the next entry go on.
pub const LATE_PER_ENTRY_MAX: usize = 4_096;
/// Claims of one order: what would be claimed once more is parked, so that no epoch is ever given twice.
pub const EPOCH_MAX: u32 = u32::MAX;
/// Late payments of one entry that may be given stock anew, and orders placed whose payments came before them: each tells of all its lines twice,
/// or of all its payments. More are *not now*.
pub const LINKED_PER_ENTRY_MAX: usize = 2_048;
/// The latest ledger time: what the time of an id can say, with room for ids that lie ahead and for one minted after them (the year 10,889). A later
/// stamp counts as this one, so that every deadline lies after the time at which it is set.
pub const LEDGER_TIME_MAX: u64 = (1 << 48) - 1 - ID_AHEAD_MS_MAX - 1;
/// When to ask again about an order whose hold is due and not swept: an entry or two later.
pub const SWEEP_RETRY_MS: u64 = 10;
/// Orders that one page of a listing looks at.
pub const ORDERS_LOOKED_AT_MAX: usize = 65_536;
/// Offers one product may be in at a time, the plain one included. That of an ended sale goes when nothing refers to it any more.
pub const OFFERS_PER_PRODUCT_MAX: usize = 1_024;
/// Offers of a shard.
pub const OFFERS_MAX: usize = 1 << 21;
/// Ended offers removed by one entry, and closed ones whose counts end.
pub const OFFERS_REMOVED_PER_ENTRY_MAX: usize = 256;
/// Lines one reservation may have after summing.
pub const LINES_MAX: usize = 16;
/// Units one line may ask for.
pub const QUANTITY_MAX: u32 = 1_000_000;
/// Units one product may ever hold; leaves room so that no sum of offers can overflow a `u64`.
pub const UNITS_MAX: u64 = 1 << 48;
/// Units one product may ever have received: sums of what came and went fit an `i64`.
pub const UNITS_EVER_MAX: u64 = 1 << 62;
/// Longest hold, whatever a policy says: one week.
pub const HOLD_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Shortest hold.
pub const HOLD_MS_MIN: u64 = 1;
/// Hold given when neither caller nor policy names one: ten minutes.
pub const HOLD_MS_DEFAULT: u64 = 10 * 60_000;
/// Commands one entry may carry. One sync and one wake-up is shared by that many.
pub const COMMANDS_PER_ENTRY_MAX: usize = 8_192;
/// Bytes one encoded entry may have; the decoder refuses more before it allocates.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Expired holds swept by one entry; verdicts never wait for the sweep.
pub const EXPIRED_PER_ENTRY_MAX: usize = 4_096;
/// Holds that may be due and not swept; above it new holds are *not now*, since whole entries of
/// holds that end at once are more than an entry sweeps, and orders wait for the sweep of their
/// holds. More than a shard's holds at a mass expiry, which sells on at once; swept by 256 entries.
pub const HOLDS_DUE_MAX: usize = 1 << 20;
/// `forgotten_to` never rises above ledger time minus this: younger ids are always remembered.
pub const FORGET_GUARD_MS: u64 = 10_000;
/// Ids whose time lies further ahead of ledger time than this are refused as *not now*.
pub const ID_AHEAD_MS_MAX: u64 = 10_000;
/// Sale windows opened and closed by one entry; verdicts ask the policy and never wait for it.
pub const EDGES_PER_ENTRY_MAX: usize = 1_024;
/// Ids forgotten by one entry because their time is over, and again because the cap presses: more than one entry can add.
pub const FORGOTTEN_PER_ENTRY_MAX: usize = 16_384;
/// An idle shard forgets what is past its time so much later at most: one tick for all of that instead of one each.
pub const FORGOTTEN_LATE_MS: u64 = 10_000;
/// Places looked at by one entry to drop the limit counters of ended sales.
pub const COUNTS_DROPPED_PER_ENTRY_MAX: u32 = 4_096;
/// Whatever the settings say, what has ended is remembered this long: ids may lie ahead by [`ID_AHEAD_MS_MAX`], forgetting must stay
/// [`FORGET_GUARD_MS`] behind, and the memory's clock is two seconds coarse.
pub const RETAIN_MS_MIN: u64 = ID_AHEAD_MS_MAX + FORGET_GUARD_MS + 2_048;
/// An idle shard's time moves on so many times while it remembers what it forgets first.
pub const IDLE_TICKS_PER_RETENTION: u64 = 4;
/// References of receive, adjust and allot that a shard remembers: 28 bytes each, so a gigabyte at most. Beyond it the oldest is
/// forgotten before its time.
pub const REFERENCES_MAX: usize = 1 << 25;
/// How long a reference of receive, adjust and allot is remembered: a yearly stocktaking that is repeated by mistake is still known.
pub const REFERENCE_KEPT_MS: u64 = 400 * 24 * 3_600_000;
/// No younger reference is forgotten because there are [`REFERENCES_MAX`]: the new one is *not now*.
pub const REFERENCE_KEPT_MS_MIN: u64 = 30 * 24 * 3_600_000;
/// Returns of one reservation: each is looked through for the reference of the next.
pub const RETURNS_PER_RESERVATION_MAX: usize = 256;
/// Products of a shard.
pub const PRODUCTS_MAX: usize = 1 << 20;
/// Ids known by payments alone, of which money must still go back or be given to an order. A fact about money is never forgotten, so a
/// new one waits until operators have decided about others.
pub const UNKNOWN_PAYMENTS_MAX: usize = 65_536;
/// Orders that are not done. A new one waits until workers or operators have brought others to their end.
pub const ORDERS_OPEN_MAX: u64 = 8_000_000;
/// When to ask again for what one of these bounds refused: somebody must act first.
pub const RECORDS_RETRY_MS: u64 = 60_000;
/// Bytes of a record at which its entry decides no further command: they are *not now*. Some commands cause hundreds of times their own bytes: a payment in a hundred
/// bytes sells sixteen lines. Even a full sweep of holds of [`LINES_MAX`] lines with the longest names stays below it.
pub const RECORD_FULL_BYTES: usize = 28 << 20;
/// Bytes of one record of changes: a full one and what its last command added.
pub const RECORD_BYTES_MAX: usize = 32 << 20;
/// Most bytes of one offer's key in a record: two texts, their lengths, and whether there is a second.
const OFFER_KEY_BYTES: usize = 1 + SKU_BYTES_MAX + 1 + 1 + SALE_ID_BYTES_MAX;
/// Most bytes of a link: index and place.
const LINK_BYTES: usize = 9 + 3;
/// Most bytes of a change that names a reservation, its lines and links aside: place, number, id, deadline, counts of lines, a text.
const CHANGE_BYTES: usize = 3 + 1 + 16 + 9 + 2 + 1 + PROVIDER_ID_BYTES_MAX + 3 * 9;
/// Most bytes of a line in a change, with its balance and the link on its product.
const LINE_CHANGE_BYTES: usize = OFFER_KEY_BYTES + 5 + 3 * 9 + LINK_BYTES;
/// Most bytes of the end of a hold: its lines, and what its order makes of it.
const HOLD_END_BYTES: usize = 3 * (CHANGE_BYTES + 2 * LINK_BYTES) + LINES_MAX * LINE_CHANGE_BYTES;
/// Most bytes of what passing time causes in one entry: holds that end, orders parked with theirs, windows that open and close.
const SWEEP_BYTES: usize = (EXPIRED_PER_ENTRY_MAX + WAKES_PER_ENTRY_MAX) * HOLD_END_BYTES
    + (2 * EDGES_PER_ENTRY_MAX + OFFERS_REMOVED_PER_ENTRY_MAX) * (CHANGE_BYTES + LINK_BYTES + OFFER_KEY_BYTES);
/// Most bytes of what one command causes: a full claim, or a late payment that sells every line anew, each running low and out.
const COMMAND_BYTES: usize = CLAIM_MAX as usize * (CHANGE_BYTES + WORKER_ID_BYTES_MAX + LINK_BYTES)
    + 3 * HOLD_END_BYTES
    + 3 * LINES_MAX * (CHANGE_BYTES + LINK_BYTES + OFFER_KEY_BYTES);
/// Ranges of slots one ownership entry may name: every second slot.
pub const SLOT_RANGES_MAX: usize = 2_048;
/// Bytes of one frame of a snapshot; each carries its own checksum.
pub const SNAPSHOT_FRAME_BYTES_MAX: usize = 1 << 20;
/// The state digest is taken at every such index...
pub const DIGEST_EVERY: u64 = 1_024;
/// ... and whenever ledger time passes a multiple of this: quiet replicas share recent digests, too.
pub const DIGEST_EVERY_MS: u64 = 5_000;
/// Digests kept for comparison.
pub const DIGESTS_KEPT: usize = 64;
/// Bytes of the table that one pass of an audit of a frozen view fills: larger ones mean fewer passes over the records.
pub const AUDIT_TABLE_BYTES: usize = 160 << 20;
/// Bytes that such an audit takes beside the view: its table, sums of every product, two bits of every offer, and some for findings.
pub const AUDIT_BYTES_MAX: usize = 256 << 20;
/// Newest behaviour of `apply` that this build knows.
pub const BEHAVIOUR_VERSION_MAX: u16 = 1;
/// Default retention of confirmed reservations (their return window): thirty days.
pub const RETAIN_SOLD_MS_DEFAULT: u64 = 30 * 24 * 3_600_000;
/// Default retention of released and expired reservations: one day.
pub const RETAIN_ENDED_MS_DEFAULT: u64 = 24 * 3_600_000;
/// Default retention of refusals and fences: one hour.
pub const RETAIN_REFUSED_MS_DEFAULT: u64 = 3_600_000;
/// Default cap on remembered ids of one shard that are neither live nor sold in their return window.
pub const REMEMBERED_MAX_DEFAULT: u64 = 20_000_000;

const _: () = assert!(FORGOTTEN_PER_ENTRY_MAX >= COMMANDS_PER_ENTRY_MAX + EXPIRED_PER_ENTRY_MAX);
const _: () = assert!(RECORD_BYTES_MAX >= 8 * ENTRY_BYTES_MAX);
const _: () = assert!(SWEEP_BYTES < RECORD_FULL_BYTES);
const _: () = assert!(RECORD_FULL_BYTES + COMMAND_BYTES <= RECORD_BYTES_MAX);
const _: () = assert!(
    AUDIT_TABLE_BYTES + PRODUCTS_MAX * crate::audit::frozen::PRODUCT_BYTES + OFFERS_MAX / 4 + (16 << 20)
        <= AUDIT_BYTES_MAX
);
const _: () = assert!(LEDGER_TIME_MAX + ID_AHEAD_MS_MAX < 1 << 48);
const _: () = assert!(SLOTS == 1 << 12);
const _: () = assert!(ID_AHEAD_MS_MAX <= FORGET_GUARD_MS);
const _: () = assert!(LINES_MAX as u64 * QUANTITY_MAX as u64 <= UNITS_MAX);
