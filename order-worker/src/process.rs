//! A worker as a process: arguments, secrets from files, adapters, logging, signals.
//!
//! **Owns** the process. **Must never** print or log a secret, or exit by itself. **Read next**: [`crate::engine`].

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgMatches};
use client_sdk::OpeningKeys;
use service::{ConnectionBounds, PortGate, serve_http};
use settings::private_files;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::engine::{Deps, Engine};
use crate::http::{self, Http};
use crate::ledger::Ledger;
use crate::limits::{
    DESCRIPTORS_KEPT, METRICS_CONNECTIONS_MAX, WEBHOOK_CONNECTIONS_MAX, WEBHOOK_CONNECTIONS_PER_SOURCE,
};
use crate::notify::templates::Templates;
use crate::notify::{Each, Notifier, smtp, webhook};
use crate::payment::stripe;
use crate::seams::Seams;

/// All TLS of the process is done by one provider of cryptography.
pub(crate) fn one_crypto_provider() {
    // Refused when there is one already, which is then this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The arguments of `run`: `--config`, `--print-config`, and one for each key of the configuration.
pub fn arguments() -> Vec<Arg> {
    settings::arguments::<WorkerConfig>()
}

/// Runs a worker with parsed [`arguments`] until it is told to stop or cannot go on.
pub fn run(matches: &ArgMatches) -> ExitCode {
    private_files::for_this_process();
    let config = match settings::load::<WorkerConfig>(matches) {
        Ok(config) => config,
        Err(code) => return code,
    };
    config.logs.start();
    let live = || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.context("the runtime cannot be started")?.block_on(live(config))
    };
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A file's only line.
fn secret(path: &Path) -> anyhow::Result<String> {
    let text = private_files::read_key_file(path)?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty", path.display());
    Ok(text.trim().to_owned())
}

/// The keys of a key file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn opening_keys(path: &Path) -> anyhow::Result<OpeningKeys> {
    let keys = OpeningKeys::from_text(&secret(path)?).with_context(|| format!("in {}", path.display()))?;
    anyhow::ensure!(!keys.is_empty(), "{} holds no key; `order-worker keys new` makes one", path.display());
    Ok(keys)
}

/// Puts the engine's parts together.
///
/// # Errors
/// A file that is missing or not what it should be; nothing was connected to yet.
pub fn deps(config: &WorkerConfig, ledger: Arc<dyn Ledger>, seams: Seams) -> anyhow::Result<Deps> {
    let timeout = config.engine.call_timeout;
    let missing = |key: &str| format!("`{key}` is not set; `order-worker run --help` tells of it");
    let key_file = config.keys_file.as_ref().with_context(|| missing("keys_file"))?;
    let secret_key = config.payment_secret_key_file.as_ref().with_context(|| missing("payment.secret_key_file"))?;
    let provider = stripe::Stripe::new(stripe::Settings {
        url: config.payment_url.clone(),
        secret_key: secret(secret_key)?,
        mode: config.payment_mode,
        methods: config.payment_methods.clone(),
        return_url: config.payment_return_url.clone(),
        timeout,
    })?;
    let notifier = notifier(config, &seams, timeout)?;
    Ok(Deps::new(ledger, Arc::new(provider), notifier, opening_keys(key_file)?, seams, config.engine.clone()))
}

fn notifier(config: &WorkerConfig, seams: &Seams, timeout: Duration) -> anyhow::Result<Arc<dyn Notifier>> {
    let mut ways: Vec<Box<dyn Notifier>> = Vec::new();
    if config.smtp_on {
        let credentials = match (&config.smtp_user, &config.smtp_password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret(file)?)),
            _ => None,
        };
        let settings = smtp::Settings {
            host: config.smtp_host.clone(),
            port: config.smtp_port,
            tls: config.smtp_tls,
            ca_file: config.smtp_ca_file.clone(),
            credentials,
            from: config.smtp_from.clone(),
            timeout,
        };
        ways.push(Box::new(smtp::Smtp::new(settings, Templates::load(config.templates_dir.as_deref())?)?));
    }
    if let (true, Some(file)) = (config.webhook_on, &config.webhook_secret_file) {
        let settings = webhook::Settings {
            url: config.webhook_url.clone(),
            from_contact: config.webhook_from_contact,
            secret: secret(file)?,
            source: config.webhook_source.clone(),
            timeout,
        };
        ways.push(Box::new(webhook::Webhook::new(settings, seams.clone())?));
    }
    if ways.is_empty() {
        tracing::warn!("neither `smtp.on` nor `webhook.on`: buyers are told by nobody");
    }
    Ok(Arc::new(Each(ways)))
}

/// Connections to the port of webhooks: the provider, mail and the ledger need descriptors as well.
fn webhook_bounds(descriptors: u64) -> ConnectionBounds {
    let share = descriptors.saturating_sub(DESCRIPTORS_KEPT) / 2;
    let all = usize::try_from(share).unwrap_or(usize::MAX).clamp(1, WEBHOOK_CONNECTIONS_MAX);
    ConnectionBounds { per_source: all.min(WEBHOOK_CONNECTIONS_PER_SOURCE), ..ConnectionBounds::of(all) }
}

/// Listens on both ports; serves until `stop`.
async fn listen(
    config: &WorkerConfig,
    http: Http,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let bind =
        async |address: &str| TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"));
    let (hooks, health) = (bind(&config.http_listen).await?, bind(&config.metrics_listen).await?);
    tracing::info!(metrics = %health.local_addr()?, http = %hooks.local_addr()?, "listening");
    // Webhooks are known by their signature, and who may ask for health is the listening address's
    // to say.
    let gate = |port, bounds| PortGate::new(port, bounds, |_| true);
    let hooks_gate = gate("webhooks", webhook_bounds(service::descriptors::raise()));
    let health_gate = gate("metrics", ConnectionBounds::of(METRICS_CONNECTIONS_MAX).with_probes());
    let hooks = serve_http(http::webhooks(http.clone()), hooks, hooks_gate, stop.clone().cancelled_owned());
    let health = serve_http(http::health(http), health, health_gate, stop.cancelled_owned());
    Ok(async move {
        tokio::join!(hooks, health);
    })
}

async fn live(config: WorkerConfig) -> anyhow::Result<()> {
    let seams = Seams::real();
    let ledger = crate::ledger_sdk::connect(&config, &seams).await?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be listened to")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("signals cannot be listened to")?;
    let deps = Arc::new(deps(&config, ledger, seams)?);
    let webhook_secrets = match &config.payment_webhook_secrets_file {
        Some(file) => secret(file)?.lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect(),
        None => Vec::new(),
    };
    let stop = CancellationToken::new();
    let served = listen(&config, Http::new(Arc::clone(&deps), webhook_secrets), stop.clone()).await?;
    let mut served = tokio::spawn(served);
    let engine = Engine::start(Arc::clone(&deps));
    let mut upkeep = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            ended = &mut served => {
                engine.shutdown(config.shutdown_within).await;
                anyhow::bail!("the HTTP listener ended: {ended:?}");
            }
            _ = terminate.recv() => break,
            _ = interrupted.recv() => break,
            _ = upkeep.tick() => deps.metrics.upkeep(),
        }
    }
    tracing::info!(in_flight = deps.in_flight(), "asked to stop: no more claims");
    engine.shutdown(config.shutdown_within).await;
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), served).await;
    tracing::info!("stopped");
    Ok(())
}
