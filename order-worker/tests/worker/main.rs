//! The worker against a simple ledger and a provider with a book, in paused time.

mod binary;
mod cut;
mod engine;
mod fake_ledger;
mod fake_provider;
mod stripe_sim;
mod telling;
mod trio;
mod webhooks;
mod world;
