//! What is counted, and the page that Prometheus reads.
//!
//! **What it is.** One recorder a node, not the process's global one: several nodes in one process must not mix. Counters on the hot
//! path are added up per frame and stored once; what others know already (doors, shards, the log) is read when the page is asked for.
//!
//! **Owns** names, labels and buckets. **Must never** cost an allocation per command, or put an id or a SKU into a label.
//! **Read next**: [`crate::http`], which serves it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger_core::command::Verb;
use ledger_core::outcome::{Bound, Outcome};
use ledger_proto::{DecodedCall, Reply};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use service::Kind;
use service::port::{CloseReason, PortGate};

use crate::digest::DigestCounts;
use crate::door::Answer;
use crate::feed::distance::WatchDistance;
use crate::node::{Node, NodeState};

/// Buckets of latencies, in seconds: fine around what is promised.
const SECONDS: &[f64] = &[
    0.0002, 0.0004, 0.0006, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Buckets of commands per entry: from one caller alone to the fullest entry.
const ENTRY_COMMANDS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0];
const _: () = assert!(ledger_core::limits::COMMANDS_PER_ENTRY_MAX == 8_192);

/// The verbs that callers use, by their published names.
const VERBS: [(Verb, &str); 20] = [
    (Verb::Reserve, "reserve"),
    (Verb::Extend, "extend"),
    (Verb::Confirm, "confirm"),
    (Verb::Release, "release"),
    (Verb::Fence, "fence"),
    (Verb::Return, "return"),
    (Verb::CreateProduct, "create_product"),
    (Verb::DeleteProduct, "delete_product"),
    (Verb::PutOffer, "put_offer"),
    (Verb::SetOpen, "set_open"),
    (Verb::EndSale, "end_sale"),
    (Verb::Receive, "receive"),
    (Verb::Adjust, "adjust"),
    (Verb::Allot, "allot"),
    (Verb::PlaceOrder, "place_order"),
    (Verb::ClaimOrders, "claim_orders"),
    (Verb::Heartbeat, "heartbeat"),
    (Verb::ReportOrder, "report_order"),
    (Verb::RecordFact, "record_fact"),
    (Verb::OrderByHand, "order_by_hand"),
];
/// Place of calls that are no command in the counts by verb.
const INVALID: usize = VERBS.len();

/// Answers of one frame by what they said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Settled.
    pub ok: u64,
    /// Refused.
    pub refused: u64,
    /// Not now.
    pub not_now: u64,
    /// Unknown.
    pub unknown: u64,
}

impl Outcomes {
    /// Counts an answer of a door.
    pub fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Outcome(Outcome::Ok(_)) => self.ok += 1,
            Answer::Outcome(Outcome::Refused(_)) | Answer::Invalid(_) => self.refused += 1,
            Answer::Outcome(Outcome::NotNow(_)) | Answer::NotNow(_) => self.not_now += 1,
            Answer::Unknown(_) => self.unknown += 1,
        }
    }
    /// Counts a reply.
    pub fn count_reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Ok(_) => self.ok += 1,
            Reply::Refused(_) => self.refused += 1,
            Reply::NotNow(_) => self.not_now += 1,
            Reply::Unknown(_) => self.unknown += 1,
        }
    }
}

/// The metrics of one node.
pub struct NodeMetrics {
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    received: Vec<Counter>,
    ok: Counter,
    refused: Counter,
    not_now: Counter,
    unknown: Counter,
    /// From the arrival of a frame to an answer of it, sampled.
    pub submit_seconds: Histogram,
    /// Commands of each entry that was proposed here.
    pub entry_commands: Histogram,
    /// HTTP requests.
    pub http_seconds: Histogram,
    /// Watches open now.
    pub watches: Gauge,
    /// Watches that ended because nobody took their frames.
    pub watches_unread: Counter,
    /// Watches beyond the bounds.
    pub watches_refused: Counter,
    /// Reads put off as a host sent too many control frames.
    pub control_waits: Counter,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()))
}

impl NodeMetrics {
    /// All at zero.
    pub fn new() -> Self {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS).and_then(
                |b| b.set_buckets_for_metric(Matcher::Full("holdfast_entry_commands".to_owned()), ENTRY_COMMANDS),
            );
        let recorder = match builder {
            Ok(builder) => builder.build_recorder(),
            // Only an empty list is refused, and these are not.
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        let counter = |name: &'static str, label: &'static str, value: &'static str| {
            recorder.register_counter(&Key::from_parts(name, vec![Label::new(label, value)]), &metadata())
        };
        let verbs = VERBS.iter().map(|&(_, name)| name).chain(["invalid"]);
        let received = verbs.map(|verb| counter("holdfast_commands_received_total", "verb", verb)).collect();
        let answer = |outcome| counter("holdfast_answers_total", "outcome", outcome);
        let (ok, refused, not_now, unknown) = (answer("ok"), answer("refused"), answer("not_now"), answer("unknown"));
        let histogram = |name: &'static str| recorder.register_histogram(&Key::from_name(name), &metadata());
        let submit_seconds = histogram("holdfast_submit_seconds");
        let entry_commands = histogram("holdfast_entry_commands");
        let http_seconds = histogram("holdfast_http_seconds");
        let watches = recorder.register_gauge(&Key::from_name("holdfast_watches"), &metadata());
        let total = |name: &'static str| recorder.register_counter(&Key::from_name(name), &metadata());
        let watches_unread = total("holdfast_watches_unread_total");
        let watches_refused = total("holdfast_watches_refused_total");
        let control_waits = total("holdfast_control_frame_waits_total");
        let page = recorder.handle();
        Self {
            recorder,
            page,
            received,
            ok,
            refused,
            not_now,
            unknown,
            submit_seconds,
            entry_commands,
            http_seconds,
            watches,
            watches_unread,
            watches_refused,
            control_waits,
        }
    }

    /// Calls came in.
    pub fn received(&self, calls: &[DecodedCall]) {
        let mut counts = [0u64; VERBS.len() + 1];
        for call in calls {
            let verb = call.command.as_ref().ok().map(ledger_core::Command::verb);
            let place = verb.and_then(|verb| VERBS.iter().position(|&(known, _)| known == verb));
            counts[place.unwrap_or(INVALID)] += 1;
        }
        for (counter, count) in self.received.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }

    /// Answers went out.
    pub fn answered(&self, outcomes: &Outcomes) {
        let each = [
            (&self.ok, outcomes.ok),
            (&self.refused, outcomes.refused),
            (&self.not_now, outcomes.not_now),
            (&self.unknown, outcomes.unknown),
        ];
        for (counter, count) in each.into_iter().filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }

    /// Folds the histograms' samples together, so that they do not pile up between two readings of the page.
    pub fn upkeep(&self) {
        self.page.run_upkeep();
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, String)], value: f64) {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, value.clone())).collect();
        self.recorder.register_gauge(&Key::from_parts(name, labels), &metadata()).set(value);
    }

    fn total(&self, name: &'static str, labels: &[(&'static str, String)], value: u64) {
        let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, value.clone())).collect();
        self.recorder.register_counter(&Key::from_parts(name, labels), &metadata()).absolute(value);
    }

    /// The page, with what the node knows now.
    pub fn render(&self, node: &Node) -> String {
        let status = node.status();
        self.gauge("holdfast_serving", &[], f64::from(u8::from(node.state() == NodeState::Serving)));
        self.total("holdfast_wal_syncs_total", &[], status.wal_syncs);
        let log = status.log.unwrap_or_default();
        self.gauge("holdfast_wal_bytes", &[], log.bytes as f64);
        self.gauge("holdfast_wal_live_bytes", &[], log.live_bytes as f64);
        self.total("holdfast_wal_carried_bytes_total", &[], log.carried_bytes);
        self.gauge("holdfast_wal_pinning_group", &[], log.pinning_group.map_or(-1.0, f64::from));
        self.gauge("holdfast_disk_free_bytes", &[], status.disk_free_bytes as f64);
        self.gauge("holdfast_memory_used_bytes", &[], node.memory.used() as f64);
        self.gauge("holdfast_memory_max_bytes", &[], node.memory.max().unwrap_or_default() as f64);
        self.gauge("holdfast_history_fits_seconds", &[], status.history_fits_ms as f64 / 1e3);
        self.gauge("holdfast_resident_bytes", &[], status.rss_bytes as f64);
        self.total("holdfast_cpu_milliseconds_total", &[], status.cpu_ms);
        self.gauge("holdfast_meta_apply_halted", &[], f64::from(u8::from(!status.meta_apply_halted.is_empty())));
        self.total("holdfast_meta_entries_refused_total", &[], status.meta_entries_refused);
        let (greeting, members) = node.running().map(|running| running.raft.peer_connections()).unwrap_or_default();
        for (kind, count) in [("greeting", greeting), ("member", members)] {
            self.gauge("holdfast_peer_connections", &[("kind", kind.to_owned())], count as f64);
        }
        let twins = node.running().map(|running| running.raft.twins().len()).unwrap_or_default();
        self.gauge("holdfast_peer_twins", &[], twins as f64);
        self.gauge("holdfast_descriptors_limit", &[], node.seams().descriptors.unwrap_or_default() as f64);
        node.gates.all().into_iter().for_each(|gate| self.connections(gate));
        self.digests(node.digest_counts());
        let audits = node.audits();
        self.total("holdfast_audits_total", &[], audits.run());
        self.total("holdfast_audit_findings_total", &[], audits.findings());
        self.gauge("holdfast_audit_lock_longest_seconds", &[], audits.longest_lock_us() as f64 / 1e6);
        for shard in &status.shards {
            self.shard_status(shard);
        }
        for shard in node.shards() {
            let diverged = f64::from(u8::from(node.digest_counts().diverged(&shard)));
            self.gauge("holdfast_shard_diverged", &[("shard", shard.id().to_string())], diverged);
            self.shard(&shard);
        }
        self.page.run_upkeep();
        in_order(&self.page.render())
    }

    fn connections(&self, gate: &PortGate) {
        let port = ("port", gate.port().to_owned());
        for (kind, name) in [(Kind::Trusted, "trusted"), (Kind::Untrusted, "untrusted"), (Kind::Probe, "probe")] {
            self.gauge("holdfast_connections", &[port.clone(), ("kind", name.to_owned())], gate.open(kind) as f64);
        }
        self.gauge("holdfast_buffered_bytes", std::slice::from_ref(&port), gate.buffered() as f64);
        for reason in CloseReason::ALL {
            let labels = [port.clone(), ("reason", reason.label().to_owned())];
            self.total("holdfast_connections_closed_total", &labels, gate.closed(reason));
        }
    }

    fn digests(&self, counts: &DigestCounts) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (result, counter) in [
            ("equal", &counts.equal),
            ("different", &counts.different),
            ("nothing_shared", &counts.nothing_shared),
            ("unanswered", &counts.unanswered),
        ] {
            self.total("holdfast_digest_comparisons_total", &[("result", result.to_owned())], load(counter));
        }
        self.total("holdfast_digest_no_majority_total", &[], load(&counts.no_majority));
        self.total("holdfast_replicas_outvoted_total", &[], load(&counts.outvoted));
        self.total("holdfast_replicas_reinstalled_total", &[], load(&counts.reinstalled));
    }

    fn shard_status(&self, status: &ledger_proto::v1::ShardStatus) {
        let of = |role: Option<&str>| {
            let mut labels = vec![("shard", status.shard.to_string())];
            labels.extend(role.map(|role| ("role", role.to_owned())));
            labels
        };
        for role in ["leader", "follower", "candidate", "learner", "stopped"] {
            self.gauge("holdfast_shard_role", &of(Some(role)), f64::from(u8::from(status.role == role)));
        }
        self.gauge("holdfast_shard_term", &of(None), status.term as f64);
        self.gauge("holdfast_shard_applied_index", &of(None), status.applied_index as f64);
        self.gauge("holdfast_shard_committed_index", &of(None), status.committed_index as f64);
        self.gauge("holdfast_shard_snapshot_index", &of(None), status.snapshot_index as f64);
        self.gauge("holdfast_shard_clock_sure", &of(None), f64::from(u8::from(status.clock_sure)));
        self.gauge("holdfast_shard_clock_ahead_seconds", &of(None), status.clock_ahead_ms as f64 / 1e3);
        let jump = status.clock_jump_ms.unwrap_or(0) as f64 / 1e3;
        self.gauge("holdfast_shard_clock_jump_seconds", &of(None), jump);
        self.gauge("holdfast_shard_stopped", &of(None), f64::from(u8::from(!status.stopped.is_empty())));
        self.gauge("holdfast_shard_apply_halted", &of(None), f64::from(u8::from(!status.apply_halted.is_empty())));
        self.total("holdfast_entries_refused_total", &of(None), status.entries_refused);
        let failing = f64::from(u8::from(!status.snapshot_failure.is_empty()));
        self.gauge("holdfast_shard_snapshot_failing", &of(None), failing);
        if let Some(totals) = &status.totals {
            let held = totals.balance.unwrap_or_default();
            self.gauge("holdfast_live_holds", &of(None), totals.live as f64);
            self.gauge("holdfast_remembered_ids", &of(None), totals.remembered as f64);
            self.gauge("holdfast_units_available", &of(None), held.available as f64);
            self.gauge("holdfast_units_held", &of(None), held.held as f64);
            self.gauge("holdfast_units_sold", &of(None), held.sold as f64);
        }
    }

    fn shard(&self, shard: &crate::shard::Shard) {
        let labels = [("shard", shard.id().to_string())];
        let counts = shard.door().counts();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.gauge("holdfast_door_waiting", &labels, load(&counts.waiting) as f64);
        self.total("holdfast_entries_total", &labels, load(&counts.entries));
        self.total("holdfast_entry_commands_total", &labels, load(&counts.commands));
        self.total("holdfast_overloaded_total", &labels, load(&counts.overloaded));
        self.total("holdfast_unencodable_total", &labels, load(&counts.unencodable));
        self.total("holdfast_expired_waiting_total", &labels, load(&counts.expired_waiting));
        self.total("holdfast_expired_in_flight_total", &labels, load(&counts.expired_in_flight));
        self.total("holdfast_memory_full_total", &labels, load(&counts.memory_full));
        for (kind, bytes) in shard.with_ledger(|ledger| ledger.memory_use()).by_kind() {
            let labels = [("shard", shard.id().to_string()), ("kind", kind.to_owned())];
            self.gauge("holdfast_memory_bytes", &labels, bytes as f64);
        }
        for (kind, count, most) in shard.with_ledger(|ledger| ledger.records()) {
            let kind = match kind {
                Bound::Products => "products",
                Bound::Offers => "offers",
                Bound::References => "references",
                Bound::UnknownPayments => "unknown_payments",
                Bound::OpenOrders => "open_orders",
                Bound::UnitsPerProduct
                | Bound::OffersPerProduct
                | Bound::ReturnsPerReservation
                | Bound::PaymentsPerOrder => continue,
            };
            let labels = [("shard", shard.id().to_string()), ("kind", kind.to_owned())];
            self.gauge("holdfast_records", &labels, count as f64);
            self.gauge("holdfast_records_max", &labels, most as f64);
        }
        let history = shard.history().coverage(shard.id());
        let behind = history.applied.saturating_sub(history.written);
        self.gauge("holdfast_history_behind_entries", &labels, behind as f64);
        self.gauge("holdfast_history_backlog_bytes", &labels, history.backlog_bytes as f64);
        self.gauge("holdfast_history_gapped", &labels, f64::from(u8::from(history.is_gapped())));
        self.gauge("holdfast_history_kept_seconds", &labels, history.kept_ms as f64 / 1e3);
        let left = WatchDistance::of(shard.feed(), &history).map_or(history.kept_ms, |distance| distance.left_ms);
        self.gauge("holdfast_watch_history_left_seconds", &labels, left as f64 / 1e3);
        self.gauge("holdfast_feed_watchers", &labels, shard.feed().watchers() as f64);
    }
}

/// Values of a rendered page by name and labels, for tests and `/readyz`.
pub fn values(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

/// The page with its families and series sorted by name, so that the same numbers give the same page. The exporter
/// keeps them in maps of random order.
fn in_order(page: &str) -> String {
    // The buckets of one histogram stay as they are, from the smallest bound up.
    let series = |line: &str| {
        let name = line.rsplit_once(' ').map_or(line, |(name, _)| name);
        let bound = name.find("{le=").or_else(|| name.find(",le="));
        bound.map_or(name, |at| &name[..at]).to_owned()
    };
    let family = |text: &str| {
        let (mut heads, mut lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        lines.sort_by_key(|line| series(line));
        heads.append(&mut lines);
        heads.join("\n")
    };
    let mut families: Vec<String> = page.split("\n\n").filter(|text| !text.is_empty()).map(family).collect();
    families.sort();
    families.iter().fold(String::with_capacity(page.len()), |page, family| page + family + "\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_in_one_process_do_not_mix() {
        let (one, two) = (NodeMetrics::new(), NodeMetrics::new());
        one.answered(&Outcomes { ok: 3, refused: 1, ..Outcomes::default() });
        one.submit_seconds.record(0.003);
        let (page, other) = (one.page.render(), two.page.render());
        assert_eq!(values(&page).get("holdfast_answers_total{outcome=\"ok\"}"), Some(&3.0), "{page}");
        assert_eq!(values(&other).get("holdfast_answers_total{outcome=\"ok\"}"), Some(&0.0), "{other}");
        assert_eq!(values(&page).get("holdfast_submit_seconds_bucket{le=\"0.003\"}"), Some(&1.0), "{page}");
    }

    #[test]
    fn every_verb_has_a_place_of_its_own() {
        for (place, (verb, name)) in VERBS.iter().enumerate() {
            assert_eq!(VERBS.iter().position(|(other, _)| other == verb), Some(place), "{name}");
        }
    }

    #[test]
    fn a_page_is_sorted_and_buckets_keep_their_order() {
        let page = "# TYPE b counter\nb{role=\"2\"} 1\nb{role=\"1\"} 3\n\n# TYPE a histogram\na_bucket{le=\"0.5\"} 1\n\
                    a_bucket{le=\"+Inf\"} 2\na_sum 1.5\na_count 2\n\n";
        let sorted = "# TYPE a histogram\na_bucket{le=\"0.5\"} 1\na_bucket{le=\"+Inf\"} 2\na_count 2\na_sum 1.5\n\n\
                      # TYPE b counter\nb{role=\"1\"} 3\nb{role=\"2\"} 1\n\n";
        assert_eq!(in_order(page), sorted);
    }
}
