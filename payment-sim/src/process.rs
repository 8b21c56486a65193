//! The simulator as a process: flags, logging, signals.
//!
//! **Owns** flags and what the help teaches. **Must never** do what [`crate::serve()`] should. **Read next**: [`crate::Config`].

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};

use crate::behaviour::{Behaviour, Hang, Manners, Operation, Outage, WebhookManners};
use crate::{Config, SystemClock, WebhookTo, limits};

const TEACHES: &str = "\
How to begin:
  payment-sim --data-dir /tmp/payments
  curl -u sk_test_any: http://127.0.0.1:12111/v1/payment_intents -H 'Idempotency-Key: order-1' \\
    -d amount=4900 -d currency=eur -d payment_method=pm_card_visa -d confirm=true -d 'metadata[order]=1'
  curl http://127.0.0.1:12111/sim/book/summary

Stripe's own libraries work when their API base is this address (Python: stripe.api_base = \"http://127.0.0.1:12111\").

Payment methods: pm_card_visa pays; pm_card_visa_chargeDeclined, pm_card_chargeDeclinedInsufficientFunds and others are declined;
pm_card_authenticationRequired needs the buyer (POST /sim/intents/{id}/authenticate?outcome=ok|fail); pm_sim_processing takes its
time (POST /sim/intents/{id}/settle?outcome=ok|fail).

Misbehaviour can be changed while it runs; what is left out behaves well:
  curl -X PUT http://127.0.0.1:12111/sim/behaviour -H 'Content-Type: application/json' \\
    -d '{\"operations\":{\"confirm\":{\"charge_then_hang_rate\":0.1,\"latency_ms\":3000}},\"webhooks\":{\"duplicate_rate\":0.5}}'
  curl -X PUT http://127.0.0.1:12111/sim/behaviour -H 'Content-Type: application/json' -d '{}'

Exit codes: 0 stopped as asked, 1 could not start or its book cannot be written, 2 bad usage.";

/// A payment provider for tests: speaks enough of Stripe's API, keeps its book on disk, and misbehaves on order.
#[derive(Parser)]
#[command(version, after_help = TEACHES)]
pub struct Flags {
    /// Where to listen; port 0 takes a free one. Only an address given here may be other than the loopback.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12111")]
    listen: SocketAddr,
    /// Where the book is kept (payments.journal).
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The one API key accepted; without it any that begins with sk_test_ is.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// After this long an idempotency key is forgotten.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    forget_keys_after: Duration,
    /// Answer without syncing the book: a killed process loses nothing, a power cut may.
    #[arg(long)]
    no_sync: bool,
    /// Decides all chance, and the ids of a new book.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Threads that serve; one is the cheapest.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    #[command(flatten)]
    calls: Calls,
    #[command(flatten)]
    webhooks: Webhooks,
}

#[derive(Args)]
#[command(next_help_heading = "Misbehaviour of calls")]
struct Calls {
    /// What follows holds for these operations only: create, confirm, capture, cancel, refund, retrieve, list, search.
    #[arg(long, value_name = "OPERATIONS", value_delimiter = ',', value_parser = operation)]
    only: Vec<Operation>,
    /// Passes before anything is done.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    /// Up to so much more.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_jitter_ms: u64,
    /// Passes between doing and answering.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    answer_latency_ms: u64,
    /// Chance of a 500 before anything is done.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    error_rate: f64,
    /// That 500 came from in front of the endpoint: its idempotency key may be tried again.
    #[arg(long)]
    error_not_kept: bool,
    /// Chance of a 500 after it was done.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    charge_then_error_rate: f64,
    /// Chance of no answer after it was done.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    charge_then_hang_rate: f64,
    /// How there is no answer: `never`, or `close` the connection.
    #[arg(long, value_name = "HOW", default_value = "never", value_parser = hang)]
    hang: Hang,
    /// Chance that a payment that would succeed is declined.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    decline_rate: f64,
    /// Nothing is served: `refuse` with 503, `close` connections, or `hang`.
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = outage)]
    outage: Outage,
    /// Chance of a 429.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    too_many_rate: f64,
    /// The Retry-After of a 429.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    retry_after_s: u32,
    /// Search finds an intent only so long after it was made.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    search_lag_ms: u64,
}

#[derive(Args)]
#[command(next_help_heading = "Webhooks")]
struct Webhooks {
    /// Where events are delivered to (http://host:port/path).
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    webhook_url: Option<String>,
    /// What deliveries are signed with.
    #[arg(long, value_name = "SECRET", requires = "webhook_url")]
    webhook_secret: Option<String>,
    /// Attempts at one delivery.
    #[arg(long, value_name = "N", default_value_t = limits::WEBHOOK_ATTEMPTS, value_parser = clap::value_parser!(u32).range(1..=64))]
    webhook_attempts: u32,
    /// The pause after the first failed attempt; it doubles after each.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    webhook_retry_ms: u64,
    /// Deliver nothing.
    #[arg(long)]
    webhooks_off: bool,
    /// Chance that an event is never delivered.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    webhook_drop_rate: f64,
    /// Chance that an event is delivered twice.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    webhook_duplicate_rate: f64,
    /// Chance that an event is held back, so that later ones overtake it.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    webhook_reorder_rate: f64,
    /// For how long at most.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    webhook_reorder_ms: u64,
    /// How late every event is.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    webhook_delay_ms: u64,
    /// Up to so much more.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    webhook_delay_jitter_ms: u64,
}

fn operation(text: &str) -> Result<Operation, String> {
    let known = Operation::ALL.into_iter().find(|operation| operation.name() == text);
    known.ok_or_else(|| format!("one of {}", Operation::ALL.map(Operation::name).join(", ")))
}

fn hang(text: &str) -> Result<Hang, &'static str> {
    match text {
        "never" => Ok(Hang::Never),
        "close" => Ok(Hang::Close),
        _ => Err("never or close"),
    }
}

fn outage(text: &str) -> Result<Outage, &'static str> {
    match text {
        "none" => Ok(Outage::None),
        "refuse" => Ok(Outage::Refuse),
        "close" => Ok(Outage::Close),
        "hang" => Ok(Outage::Hang),
        _ => Err("none, refuse, close or hang"),
    }
}

impl Flags {
    fn config(self) -> Config {
        let Self { calls, webhooks, .. } = self;
        let manners = Manners {
            outage: calls.outage,
            too_many_rate: calls.too_many_rate,
            retry_after_s: calls.retry_after_s,
            latency_ms: calls.latency_ms,
            latency_jitter_ms: calls.latency_jitter_ms,
            answer_latency_ms: calls.answer_latency_ms,
            error_rate: calls.error_rate,
            error_kept: !calls.error_not_kept,
            charge_then_error_rate: calls.charge_then_error_rate,
            charge_then_hang_rate: calls.charge_then_hang_rate,
            hang: calls.hang,
            decline_rate: calls.decline_rate,
        };
        let mut behaviour = Behaviour { search_lag_ms: calls.search_lag_ms, ..Behaviour::default() };
        if calls.only.is_empty() {
            behaviour.everywhere = manners;
        } else {
            behaviour.operations = calls.only.into_iter().map(|operation| (operation, manners.clone())).collect();
        }
        behaviour.webhooks = WebhookManners {
            off: webhooks.webhooks_off,
            drop_rate: webhooks.webhook_drop_rate,
            duplicate_rate: webhooks.webhook_duplicate_rate,
            reorder_rate: webhooks.webhook_reorder_rate,
            // Left at nothing where nothing is held back, so that a flag nobody gave is no misbehaviour.
            reorder_ms: if webhooks.webhook_reorder_rate + webhooks.webhook_duplicate_rate > 0.0 {
                webhooks.webhook_reorder_ms
            } else {
                0
            },
            delay_ms: webhooks.webhook_delay_ms,
            delay_jitter_ms: webhooks.webhook_delay_jitter_ms,
        };
        let webhook = webhooks.webhook_url.zip(webhooks.webhook_secret).map(|(url, secret)| WebhookTo {
            attempts: webhooks.webhook_attempts,
            retry: Duration::from_millis(webhooks.webhook_retry_ms),
            ..WebhookTo::new(url, secret)
        });
        Config {
            listen: self.listen,
            data_dir: self.data_dir,
            api_key: self.api_key,
            forget_keys_after: self.forget_keys_after,
            no_sync: self.no_sync,
            seed: self.seed,
            behaviour,
            webhook,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Runs a simulator until it is told to stop or its book cannot be written.
pub fn run(flags: Flags) -> ExitCode {
    tracing_subscriber::fmt()
        // To complain about a line that cannot be written would panic.
        .log_internal_errors(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let mut builder = if flags.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(usize::from(flags.threads));
        builder
    };
    let outcome = match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(live(flags.config())),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("payment-sim: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn live(config: Config) -> Result<ExitCode, Box<dyn Error>> {
    if !config.listen.ip().is_loopback() {
        tracing::warn!(address = %config.listen, "listens beyond this machine; anybody who reaches it can misbehave it");
    }
    let running = crate::serve(config).await?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on {}", running.url())?;
        out.flush()?;
    }
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let code = tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| ExitCode::SUCCESS)?,
        _ = terminated.recv() => ExitCode::SUCCESS,
        () = running.broken() => ExitCode::FAILURE,
    };
    running.shutdown().await;
    Ok(code)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
