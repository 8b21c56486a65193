//! The worker as a process, against a real ledger, a real provider and real sinks: killed at every
//! step; its mails over TLS; its page of metrics; beside idle connections; what it seals to
//! a reply key.

mod killed;
mod lane;
mod mail_sink;
mod metrics;
mod observer;
mod provider;
mod relay;
mod reply_key;
mod smtp_tls;
mod starved;
