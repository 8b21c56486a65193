//! Replicas that end, lose power or hear nonsense, and the cluster that goes on.

#[path = "../common/mod.rs"]
mod common;

mod extremes;
mod install_crash;
mod lost_log;
mod newer_snapshot;
mod peer_port;
mod reinstall;
mod stopped;
mod upkeep;
