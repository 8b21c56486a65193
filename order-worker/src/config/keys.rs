//! The table of all configuration keys: one row gives the flag, the variable, the file's key and its line in `--print-config`.
//!
//! **Owns** names, parsing and printing of values. **Must never** check values against each other.
//! **Read next**: [`settings::Settings::validate`].

use std::time::Duration;

use settings::keys::{DAY, HOUR, MS, listening, quoted, some_text, web};
use settings::{
    Key, duration_key, file_key, key, list_key, log_filter_key, log_format_key, number_key, switch_key, text_key,
};

use super::WorkerConfig;
use crate::notify::smtp::TlsMode;
use crate::payment::Mode;

/// All keys, grouped by table; those without a table come first, as TOML wants it.
pub(super) const KEYS: &[Key<WorkerConfig>] = &[
    list_key!(
        "nodes",
        nodes,
        "Client ports of nodes, as node-1:7101,node-2:7101; the rest of the cluster is found through them."
    ),
    text_key!(
        "name",
        name,
        some_text,
        some,
        "What leases and explanations call this worker; not set: order-worker and a random number."
    ),
    file_key!(
        "keys_file",
        keys_file,
        "File of private keys that open sealed payment tokens and contacts; `order-worker keys new` makes them."
    ),
    duration_key!(
        "lease",
        engine.lease,
        Duration::from_secs(1),
        HOUR,
        "How long an order is claimed for; renewed while it runs."
    ),
    duration_key!(
        "attempt",
        engine.attempt,
        MS,
        HOUR,
        "What one attempt to pay needs; orders whose payment deadline is nearer are left."
    ),
    number_key!("claim_max", engine.claim_max: u32, 1, u64::from(ledger_core::limits::CLAIM_MAX), "Orders one claim asks for at most."),
    duration_key!(
        "shutdown_within",
        shutdown_within,
        MS,
        HOUR,
        "How long a graceful shutdown may take before what runs is given back."
    ),
    number_key!("concurrency.money", engine.concurrency[0]: usize, 1, 100_000, "Orders whose payment runs at once."),
    number_key!("concurrency.mail", engine.concurrency[1]: usize, 1, 100_000, "Orders whose notification runs at once."),
    duration_key!("poll.min", engine.poll_min, MS, DAY, "Pause when the queue is empty, at first."),
    duration_key!("poll.max", engine.poll_max, MS, DAY, "Pause when the queue is empty, at last."),
    duration_key!(
        "call.timeout",
        engine.call_timeout,
        MS,
        HOUR,
        "Longest call of the payment provider, relay or receiver."
    ),
    number_key!("call.tries", engine.steps.tries_max: u32, 0, 100, "Further tries of a failed call within one run of an order."),
    duration_key!("call.pause_1", engine.try_pauses[0], MS, HOUR, "Pause before the second try."),
    duration_key!("call.pause_2", engine.try_pauses[1], MS, HOUR, "Pause before the third try."),
    duration_key!("call.pause_3", engine.try_pauses[2], MS, HOUR, "Pause before all further tries."),
    duration_key!(
        "call.rate_wait",
        engine.steps.rate_wait_max,
        MS,
        HOUR,
        "Longest wait within a run when the provider says to come back later."
    ),
    number_key!("retry.attempts", engine.steps.attempts_max: u32, 1, 10_000, "Runs of one step before the order is parked (or released, when nothing is pending)."),
    duration_key!(
        "retry.min",
        engine.steps.retry_min,
        MS,
        DAY,
        "Pause before the second run of a step; doubles with each."
    ),
    duration_key!("retry.max", engine.steps.retry_max, MS, DAY, "Longest pause between runs."),
    duration_key!(
        "retry.pay_max",
        engine.steps.pay_retry_max,
        MS,
        DAY,
        "Longest pause between attempts to pay, while stock is held."
    ),
    number_key!("breaker.failures", engine.breaker.failures: usize, 1, 100_000, "A dependency is left alone after so many failures ..."),
    duration_key!("breaker.window", engine.breaker.window, MS, DAY, "... within this time ..."),
    duration_key!("breaker.open", engine.breaker.open_for, MS, DAY, "... for so long, before one call probes."),
    text_key!(
        "http.listen",
        http_listen,
        listening,
        "Webhooks of the provider listen here: the one port that others than operators must reach."
    ),
    text_key!("metrics.listen", metrics_listen, listening, "Where /livez, /readyz and /metrics are served."),
    text_key!("payment.url", payment_url, web, "Base address of the payment provider's API."),
    file_key!("payment.secret_key_file", payment_secret_key_file, "File with the provider's secret key."),
    file_key!(
        "payment.webhook_secrets_file",
        payment_webhook_secrets_file,
        "File with the signing secrets of the provider's webhooks, one a line; not set: webhooks are refused."
    ),
    key!(
        "payment.mode",
        "charge: confirming charges. authorise: confirming authorises and a capture charges, so that what comes too late is voided, not refunded.",
        |c, v| {
            c.payment_mode = match v {
                "charge" => Mode::Charge,
                "authorise" => Mode::AuthoriseThenCapture,
                _ => return Err("charge or authorise".into()),
            };
            Ok(())
        },
        |c| {
            quoted(match c.payment_mode {
                Mode::Charge => "charge",
                Mode::AuthoriseThenCapture => "authorise",
            })
        }
    ),
    list_key!("payment.methods", payment_methods, "Kinds of payment methods, as card,sepa_debit."),
    text_key!(
        "payment.return_url",
        payment_return_url,
        web,
        some,
        "Where buyers come back to after acting at their bank."
    ),
    switch_key!("smtp.on", smtp_on, "Tell buyers by mail."),
    text_key!("smtp.host", smtp_host, some_text, "The relay's host name."),
    number_key!("smtp.port", smtp_port: u16, 1, 65_535, "The relay's port: 25, 587 (starttls), 465 (tls)."),
    key!(
        "smtp.tls",
        "none, starttls or tls.",
        |c, v| {
            c.smtp_tls = match v {
                "none" => TlsMode::None,
                "starttls" => TlsMode::StartTls,
                "tls" => TlsMode::Tls,
                _ => return Err("none, starttls or tls".into()),
            };
            Ok(())
        },
        |c| {
            quoted(match c.smtp_tls {
                TlsMode::None => "none",
                TlsMode::StartTls => "starttls",
                TlsMode::Tls => "tls",
            })
        }
    ),
    file_key!(
        "smtp.ca_file",
        smtp_ca_file,
        "File of certificates (PEM) of the only authorities the relay's certificate may come from; not set: those the system trusts."
    ),
    text_key!("smtp.user", smtp_user, some_text, some, "User at the relay; not set: none is named."),
    file_key!("smtp.password_file", smtp_password_file, "File with the password at the relay."),
    text_key!("smtp.from", smtp_from, some_text, "Sender, as Shop <orders@shop.example>."),
    file_key!(
        "smtp.templates",
        templates_dir,
        "Directory of texts over the built-in ones: ENDING.LANGUAGE.txt, as sold.de.txt."
    ),
    switch_key!("webhook.on", webhook_on, "Tell shops by signed webhooks (CloudEvents)."),
    text_key!("webhook.url", webhook_url, web, some, "Where webhooks go."),
    switch_key!(
        "webhook.from_contact",
        webhook_from_contact,
        "Let contacts name addresses of their own; only if whoever seals contacts is trusted, since the worker connects to them."
    ),
    file_key!("webhook.secret_file", webhook_secret_file, "File with the secret that signatures are made with."),
    text_key!("webhook.source", webhook_source, some_text, "`source` of the events."),
    log_format_key!(),
    log_filter_key!("Which log lines, as `info,order_worker=debug`."),
];
