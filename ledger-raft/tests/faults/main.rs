//! Replicas that end, lose power or hear nonsense, and the cluster that goes on.

#[path = "../common/mod.rs"]
mod common;

mod extremes;
mod install_crash;
mod reinstall;
mod stopped;
mod upkeep;
