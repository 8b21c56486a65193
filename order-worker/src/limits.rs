//! Every bound of the worker, named, with its reason. What an operator may want to change is configuration instead.

use std::time::Duration;

/// Actions one run of one order may take. A sound run takes below ten; this ends a provider's contradictions.
pub const ACTIONS_PER_RUN_MAX: u32 = 48;
/// Intents one order may have had: a new one only follows one that was cancelled by somebody else.
pub const GENERATIONS_MAX: u32 = 5;
/// Pauses between reports that the ledger did not take yet.
pub const REPORT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// See [`REPORT_PAUSE_MIN`].
pub const REPORT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Asks of one report; past its lease a report is of no use, and a fact is found again by the next worker.
pub const REPORT_TRIES_MAX: u32 = 64;
/// Longest answer of a provider that is read.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest body of a webhook that is taken.
pub const WEBHOOK_BYTES_MAX: usize = 1 << 20;
/// A body of a webhook must have come so soon.
pub const WEBHOOK_BODY_WITHIN: Duration = Duration::from_secs(10);
/// Webhooks on their way to the ledger at once; beyond them the provider is asked to send again.
pub const WEBHOOKS_AT_ONCE: usize = 64;
/// Connections to the port of webhooks, less where descriptors are few; beyond them one that does
/// nothing gives way.
pub const WEBHOOK_CONNECTIONS_MAX: usize = 256;
/// ... of one source: a provider sends from several, and a proxy before the worker needs no more.
pub const WEBHOOK_CONNECTIONS_PER_SOURCE: usize = 64;
/// Connections to the port of health and metrics.
pub const METRICS_CONNECTIONS_MAX: usize = 32;
/// Descriptors for the provider, mail, the ledger, files and the port of health and metrics.
pub const DESCRIPTORS_KEPT: u64 = 192;
/// Age at which a webhook's signature is refused, as Stripe's own libraries do.
pub const SIGNATURE_TOLERANCE_S: u64 = 300;
/// When the credentials are refused, orders wait this long.
pub const CONFIG_PAUSE: Duration = Duration::from_secs(30);
/// How long the worker waits for a probe to end before it looks again whether it may send one.
pub const PROBE_LOOK: Duration = Duration::from_secs(1);
/// Longest time that a provider can make the worker wait by its `Retry-After`.
pub const PROVIDER_RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
// All connections to the port of health and metrics fit into what is kept, and 64 others.
const _: () = assert!(METRICS_CONNECTIONS_MAX + service::limits::HTTP_PROBE_PLACES + 64 <= DESCRIPTORS_KEPT as usize);
/// The ledger takes an order back for so long, and a quarter more that spreads a crowd.
const _: () = assert!(PROVIDER_RETRY_AFTER_MAX.as_millis() as u64 / 4 * 5 <= ledger_core::limits::DELAY_MS_MAX);
/// Longest reason the ledger takes.
pub const REASON_BYTES_MAX: usize = ledger_core::limits::REASON_BYTES_MAX;
