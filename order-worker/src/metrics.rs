//! What is counted, and the page that Prometheus reads.
//!
//! **Owns** names, labels and buckets. **Must never** put an id, an address or an amount into a label.

use std::time::Duration;

use ledger_core::LedgerTime;
use ledger_core::order::{QueueStats, Step, WorkClass};
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::breaker::Standing;
use crate::engine::Deps;
use crate::step::Call;

/// Buckets of calls over the internet, in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];

/// The metrics of one worker.
pub struct WorkerMetrics {
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()))
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|&(key, value)| Label::new(key, value)).collect::<Vec<_>>())
}

/// A class's word.
pub fn class_word(class: WorkClass) -> &'static str {
    match class {
        WorkClass::Money => "money",
        WorkClass::Mail => "mail",
    }
}

fn step_word(step: Step) -> &'static str {
    match step {
        Step::Pay => "pay",
        Step::Settle => "settle",
        Step::Refund => "refund",
        Step::Notify => "notify",
    }
}

impl WorkerMetrics {
    /// All at zero.
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS);
        let recorder = match builder {
            Ok(builder) => builder.build_recorder(),
            // Only an empty list is refused, and this one is not.
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        let page = recorder.handle();
        Self { recorder, page }
    }
    fn count(&self, name: &'static str, labels: &[(&'static str, &'static str)], by: u64) {
        self.recorder.register_counter(&key(name, labels), &metadata()).increment(by);
    }
    fn gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)], value: f64) {
        self.recorder.register_gauge(&key(name, labels), &metadata()).set(value);
    }
    /// Orders were claimed.
    pub fn claimed(&self, class: WorkClass, orders: usize) {
        self.count("holdfast_worker_claimed_total", &[("class", class_word(class))], orders as u64);
    }
    /// A run ended.
    pub fn ended(&self, step: Step, outcome: &'static str) {
        self.count("holdfast_worker_runs_total", &[("step", step_word(step)), ("outcome", outcome)], 1);
    }
    /// A dependency was called.
    pub fn called(&self, call: Call, outcome: &'static str, took: Duration) {
        let labels = [("call", call.word()), ("outcome", outcome)];
        self.recorder.register_histogram(&key("holdfast_worker_call_seconds", &labels), &metadata()).record(took);
    }
    /// A webhook came in.
    pub fn webhook(&self, outcome: &'static str) {
        self.count("holdfast_worker_webhooks_total", &[("outcome", outcome)], 1);
    }
    /// Folds the histograms' samples together, so that they do not pile up between two readings of the page.
    pub fn upkeep(&self) {
        self.page.run_upkeep();
    }

    /// The page, with how the worker stands now, and the ledger's queues where it tells.
    pub fn render(&self, deps: &Deps, queues: Option<(QueueStats, LedgerTime)>) -> String {
        self.gauge("holdfast_worker_in_flight", &[], deps.in_flight() as f64);
        for class in [WorkClass::Money, WorkClass::Mail] {
            let open = match deps.breaker(class).standing() {
                Standing::Closed => 0.0,
                Standing::HalfOpen { .. } => 0.5,
                Standing::Open(_) => 1.0,
            };
            self.gauge("holdfast_worker_breaker_open", &[("class", class_word(class))], open);
        }
        if let Some((stats, now)) = queues {
            self.queues(&stats, now);
        }
        self.page.render()
    }

    fn queues(&self, stats: &QueueStats, now: LedgerTime) {
        for (at, class) in [WorkClass::Money, WorkClass::Mail].into_iter().enumerate() {
            let labels = [("class", class_word(class))];
            let age_ms = stats.oldest_ready[at].map_or(0, |since| now.0.saturating_sub(since.0));
            self.gauge("holdfast_orders_ready", &labels, stats.ready[at] as f64);
            self.gauge("holdfast_orders_oldest_ready_age_seconds", &labels, age_ms as f64 / 1e3);
        }
        let numbers = [
            ("holdfast_orders_suspect", stats.suspects),
            ("holdfast_orders_delayed", stats.delayed),
            ("holdfast_orders_leased", stats.leased),
            ("holdfast_orders_awaiting_buyer", stats.awaiting),
            ("holdfast_orders_parked", stats.parked),
            ("holdfast_orders_open", stats.open),
        ];
        numbers.into_iter().for_each(|(name, value)| self.gauge(name, &[], value as f64));
    }
}
