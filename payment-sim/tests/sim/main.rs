//! The simulator as its callers see it, over HTTP.

mod api;
mod behaviour;
mod book;
mod client;
mod idempotency;
mod webhooks;
