//! Every bound of the simulator, by name, with its reason.
//!
//! **Owns** the numbers. **Must never** be looser than Stripe where Stripe's bound is documented: an adapter that passes here has
//! to pass there. **Read next**: [`crate::Config`].

use std::time::Duration;

/// Bytes of one request's body: fifty metadata pairs at their longest, percent-encoded, with room to spare.
pub const BODY_BYTES: usize = 256 << 10;
/// Fields in one request; metadata alone may have fifty.
pub const FIELDS_MAX: usize = 128;
/// Connections at once; further ones wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take over its headers.
pub const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take over its body.
pub const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long shutdown waits for calls under way.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// Characters of an idempotency key (Stripe's bound).
pub const KEY_CHARS_MAX: usize = 255;
/// After this long a key is forgotten, unless configured (Stripe prunes keys that are at least 24 hours old).
pub const FORGET_KEYS_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Pairs of metadata on one object (Stripe's bound).
pub const METADATA_PAIRS_MAX: usize = 50;
/// Characters of a metadata key (Stripe's bound).
pub const METADATA_KEY_CHARS_MAX: usize = 40;
/// Characters of a metadata value (Stripe's bound).
pub const METADATA_VALUE_CHARS_MAX: usize = 500;
/// Characters of a description.
pub const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Characters of a return URL.
pub const URL_CHARS_MAX: usize = 2_048;
/// Largest amount, in the currency's smallest unit (Stripe's eight digits).
pub const AMOUNT_MAX: u64 = 99_999_999;
/// Objects in one page of a list (Stripe's bound).
pub const PAGE_MAX: usize = 100;
/// Objects in one page when nobody said (Stripe's default).
pub const PAGE_DEFAULT: usize = 10;
/// Characters of a search query.
pub const QUERY_CHARS_MAX: usize = 2_000;
/// Objects of one kind; ids count in 32 bits.
pub const OBJECTS_MAX: usize = u32::MAX as usize;

/// Bytes of one line of the journal. A line holds at most an intent, a charge, a refund and one kept answer.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Intents rendered at once for the whole book, so that a large book does not stop the calls beside it.
pub const BOOK_CHUNK: usize = 1_000;

/// Webhook lanes: events of one intent share one, and so keep their order unless told otherwise.
pub const WEBHOOK_LANES: usize = 16;
/// Events waiting for delivery in all lanes and retries; further ones are given up, and said so in the summary.
pub const WEBHOOKS_WAITING_MAX: usize = 200_000;
/// How long a receiver may take over one delivery.
pub const WEBHOOK_WITHIN: Duration = Duration::from_secs(10);
/// Attempts at one delivery.
pub const WEBHOOK_ATTEMPTS: u32 = 8;
/// The pause after the first failed attempt; it doubles after each.
pub const WEBHOOK_RETRY: Duration = Duration::from_millis(500);
/// The longest pause between attempts.
pub const WEBHOOK_RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest delay or latency that may be ordered.
pub const DELAY_MS_MAX: u64 = 24 * 3_600 * 1_000;

const _: () = assert!(METADATA_PAIRS_MAX + 32 <= FIELDS_MAX);
const _: () = assert!(METADATA_PAIRS_MAX * (METADATA_KEY_CHARS_MAX + METADATA_VALUE_CHARS_MAX) * 3 <= BODY_BYTES);
const _: () = assert!(BODY_BYTES * 2 <= LINE_BYTES_MAX);
