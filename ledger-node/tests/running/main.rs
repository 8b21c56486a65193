//! Clusters that run, and what may come over them: nodes without a replica, full disks, a replica that differs, half an init.

#[path = "../common/mod.rs"]
#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

mod cut_off;
mod diverged;
mod ended;
mod five_nodes;
mod init;
mod lost_log;
mod low_space;
mod readiness;
mod rejoin;
mod through;
