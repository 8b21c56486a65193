//! Replicas that end, lose power hear nonsense or have wrong clocks, and the cluster that goes on.

#[path = "../common/mod.rs"]
mod common;

mod clock_jump;
mod extremes;
mod install_crash;
mod lost_log;
mod newer_snapshot;
mod peer_port;
mod reinstall;
mod stopped;
mod upkeep;
