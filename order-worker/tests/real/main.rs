//! The worker as a process, against a real ledger, a real provider and real sinks: killed at every
//! step; its mails over TLS; its page of metrics; beside idle connections.

mod killed;
mod lane;
mod mail_sink;
mod metrics;
mod observer;
mod provider;
mod relay;
mod smtp_tls;
mod starved;
