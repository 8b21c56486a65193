//! Every bound of the wire, named, with its reason.
//!
//! What the ledger itself bounds (names, quantities, lines) is in [`ledger_core::limits`].

/// Bytes of one message, frames included. As large as the largest entry: a full frame becomes one entry.
pub const FRAME_BYTES_MAX: usize = ledger_core::limits::ENTRY_BYTES_MAX;
/// Bytes of one answer message. An answer may be larger than its call (texts for people), so frames of answers get more room.
pub const ANSWER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Calls one frame may carry: one frame fits one entry.
pub const CALLS_PER_FRAME_MAX: usize = ledger_core::limits::COMMANDS_PER_ENTRY_MAX;
/// Bytes of one call: more than twice the largest valid one. It bounds what a call makes its
/// decoder allocate: an empty field takes 2 bytes of a message, and up to 56 once it is read.
pub const CALL_BYTES_MAX: usize = 32 << 10;
/// Lines one call may carry. Those of the same offer are summed as the call is read; the sums keep the ledger's bound on lines.
pub const LINES_PER_CALL_MAX: usize = 64;
/// Bytes of one request that is no frame of calls: more than the largest read and the largest watch
/// take. It bounds what a request makes its decoder allocate, as [`CALL_BYTES_MAX`] does for a
/// call.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Items of a page when the caller names no number.
pub const PAGE_DEFAULT: usize = 100;
/// Most items of a page.
pub const PAGE_MAX: usize = 1_000;
/// Offers one `GetOffers` may ask for: the answer stays far below [`ANSWER_BYTES_MAX`].
pub const OFFERS_PER_READ_MAX: usize = 1_000;
/// Products one watch may be narrowed to.
pub const SKUS_PER_WATCH_MAX: usize = 1_000;
/// Bytes of a feed cursor: 33 for each of at most 256 shards, with room.
pub const CURSOR_BYTES_MAX: usize = 16 << 10;
/// HTTP/2 stream window: a full frame and its successor are under way without waiting for a window update.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 connection window: two full streams.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

const _: () = assert!(LINES_PER_CALL_MAX >= ledger_core::limits::LINES_MAX);
const _: () = {
    use ledger_core::limits as core;
    // Text or bytes, and up to three keys, lengths or numbers of at most ten bytes beside each.
    let lines = LINES_PER_CALL_MAX * (core::SKU_BYTES_MAX + core::SALE_ID_BYTES_MAX + 30);
    let keys = core::LIMIT_KEYS_MAX * (core::LIMIT_KEY_BYTES_MAX + 30);
    let order = 2 * core::SEALED_BYTES_MAX + core::SECRET_BYTES_MAX + 4 * core::PROVIDER_ID_BYTES_MAX + 512;
    assert!(2 * (lines + keys + order) <= CALL_BYTES_MAX);
};
const _: () = {
    use ledger_core::limits as core;
    let offers = OFFERS_PER_READ_MAX * (core::SKU_BYTES_MAX + core::SALE_ID_BYTES_MAX + 10);
    let watch = SKUS_PER_WATCH_MAX * (core::SKU_BYTES_MAX + 10) + CURSOR_BYTES_MAX;
    assert!(offers + 1_024 <= REQUEST_BYTES_MAX && watch + 1_024 <= REQUEST_BYTES_MAX);
};
const _: () = assert!(PAGE_DEFAULT <= PAGE_MAX);
const _: () = assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);
const _: () = assert!(STREAM_WINDOW_BYTES as usize >= 2 * FRAME_BYTES_MAX);

/// The page size for what a caller asked.
pub fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE_DEFAULT,
        n => n.min(PAGE_MAX),
    }
}
