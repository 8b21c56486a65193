//! `bench --catch-up`: a follower stays down until the log it needs is gone, and catches up by snapshot under load.
//!
//! **Owns** the three measurements: quiet, one node down, catching up. **Must never** call it caught up by log: the leader must have
//! purged what the follower needs first. **Read next**: [`super`].

use std::time::{Duration, Instant};

use client_sdk::v1;

use crate::cli::BenchArgs;
use crate::dev_cluster::{DevCluster, NodeProgram};
use crate::limits;
use crate::link::{ClusterLink, connect};
use crate::output::{Failure, Outcome};

use super::report::RunDoc;
use super::{Load, audit, measure, refused, reserve};

/// Snapshots often and keeps little log, so that a short absence needs a snapshot.
const TUNING: [&str; 2] = ["--raft-snapshot-every-entries=500", "--raft-keep-entries=100"];

/// Runs the three measurements.
pub(super) async fn run(args: &BenchArgs, load: &Load) -> Outcome<Vec<RunDoc>> {
    let dir = tempfile::Builder::new().prefix("holdfast-bench-").tempdir().map_err(refused)?;
    let program = NodeProgram::this().map_err(refused)?;
    let told: Vec<_> = TUNING.map(str::to_owned).into_iter().chain(reserve(args)).collect();
    let mut cluster = DevCluster::start(program, dir.path(), 3, args.shards, &told).await.map_err(refused)?;
    let runs = tokio::select! {
        runs = phases(&mut cluster, load) => runs,
        _ = tokio::signal::ctrl_c() => Err(refused("interrupted; all nodes were ended")),
    };
    cluster.stop_all().await;
    runs
}

async fn phases(cluster: &mut DevCluster, load: &Load) -> Outcome<Vec<RunDoc>> {
    let endpoints = cluster.endpoints();
    let quiet = measure(&endpoints, &Load { feature: "quiet", ..load.clone() }, true).await?;
    let shard = 1;
    let leader = cluster.leader_of(shard).await.ok_or_else(|| refused("the shard has no leader"))?;
    let follower = cluster.nodes().iter().map(|n| n.id).find(|id| *id != leader).unwrap_or(leader);
    let had = applied(cluster, follower, shard).await?.applied_index;
    cluster.kill(follower).map_err(refused)?;
    let others: Vec<String> = cluster.nodes().iter().filter(|n| n.id != follower).map(|n| n.client.clone()).collect();
    let down = measure(&others, &Load { feature: "one node dead", ..load.clone() }, false).await?;
    let purged = applied(cluster, leader, shard).await?.purged_index;
    if purged <= had {
        let why = format!("the leader has purged up to {purged} only, the follower has {had}: no snapshot is needed");
        return Err(Failure::refused(why).hint("ledgerctl bench --catch-up --seconds 20"));
    }
    cluster.spawn(follower).map_err(refused)?;
    let began = Instant::now();
    let target = applied(cluster, leader, shard).await?.applied_index;
    let load = Load { feature: "catching up", ..load.clone() };
    let (mut catching, caught) =
        tokio::try_join!(measure(&others, &load, false), caught_up(cluster, follower, shard, had, target))?;
    eprintln!(
        "  node {follower} was {} entries behind and had caught up {:.1} s after its start, by the snapshot at {}",
        target - had,
        (caught.0 - began).as_secs_f64(),
        caught.1
    );
    // While a member was down or behind nothing could be asked of all: now they are, about everything that the three phases wrote.
    let client = connect(&endpoints).await?;
    let link = ClusterLink::new(&endpoints)?.with_members().await?;
    (catching.findings, _) = audit(&link, &client, &[], false).await?;
    client.close().await;
    catching.audit_holds = catching.findings.is_empty();
    Ok(vec![quiet, down, catching])
}

async fn applied(cluster: &DevCluster, node: u64, shard: u32) -> Outcome<v1::ShardStatus> {
    let link = cluster.node(node).map_err(refused)?.link();
    let status = link.status().await.map_err(|e| refused(crate::link::brief(&e)))?;
    status
        .shards
        .into_iter()
        .find(|s| s.shard == shard)
        .ok_or_else(|| refused(format!("node {node} has no shard {shard}")))
}

/// Waits until the node, which had applied up to `had`, has applied up to `target` by a newer snapshot; when that was, and which snapshot.
/// A node may say what it has applied a moment before it says which snapshot that came by.
async fn caught_up(cluster: &DevCluster, node: u64, shard: u32, had: u64, target: u64) -> Outcome<(Instant, u64)> {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let status = applied(cluster, node, shard).await;
        if let Ok(status) = &status
            && status.applied_index >= target
            && status.snapshot_index > had
        {
            return Ok((Instant::now(), status.snapshot_index));
        }
        if Instant::now() >= until {
            let is = status.map_or_else(
                |silent| silent.to_string(),
                |at| format!("it has applied {}, its snapshot is at {}", at.applied_index, at.snapshot_index),
            );
            let what =
                format!("node {node}, which had {had}, did not reach {target} by a snapshot within two minutes: {is}");
            return Err(refused(what));
        }
        tokio::time::sleep(limits::POLL).await;
    }
}
