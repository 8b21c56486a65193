//! What the cluster intends can be changed: the settings of all shards, and where a member is reached.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::time::Duration;

use common::{Cluster, PATIENCE, config, create, receive};
use ledger_core::types::{LedgerTime, ShardSettings};
use ledger_core::{Command, Outcome};
use ledger_node::limits::{REMEMBERED_MIN, RETAIN_MS_MIN};
use ledger_node::{NodeSeams, NodeState, RunningNode, serve};
use ledger_proto::v1;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

const HOUR: u64 = 3_600_000;

/// The settings that a shard's log gives it, in order.
async fn configured(cluster: &Cluster, node: usize, shard: u32) -> Vec<ShardSettings> {
    let replica = cluster.node(node).shard(shard).expect("a replica");
    let to = replica.applied().borrow().position.index;
    let entries = replica.group().read_entries(1, to, 64 << 20).await.expect("nothing is purged");
    let commands = entries.into_iter().flat_map(|(_, stamp, bytes)| {
        ledger_core::codec::decode_entry(LedgerTime(stamp), &bytes).expect("an entry").commands
    });
    let settings = commands.filter_map(|command| match command {
        Command::Configure { settings } => Some(settings),
        _ => None,
    });
    settings.collect()
}

/// Waits until every shard on a node has the settings of a generation.
async fn in_force(cluster: &Cluster, node: usize, generation: u64) -> v1::GetSettingsResponse {
    let until = Instant::now() + PATIENCE;
    loop {
        // Not now while there is an election.
        let told = cluster.node(node).settings().await;
        if let Ok(told) = &told
            && told.generation >= generation
            && told.shards.len() == cluster.node(node).shards().len()
            && told.shards.iter().all(|shard| shard.generation >= generation)
        {
            return told.clone();
        }
        assert!(Instant::now() < until, "{told:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn settings_set_through_any_node_reach_the_log_of_every_shard_and_outlive_restarts() {
    let mut cluster = Cluster::start(2, |_, _, _| {}).await;
    let before = in_force(&cluster, 0, 1).await;
    let default = ShardSettings::default();
    assert_eq!(before.settings.expect("settings").remembered_max, default.remembered_max);

    // Each node is asked, so that at least two of them do not lead the meta group. Two at once: neither change is lost.
    let (mut one, mut two, mut three) = (cluster.admin(0).await, cluster.admin(1).await, cluster.admin(2).await);
    let sold = v1::SetSettingsRequest { retain_sold_ms: Some(50 * HOUR), ..Default::default() };
    let refused = v1::SetSettingsRequest { retain_refused_ms: Some(2 * HOUR), ..Default::default() };
    let max = v1::SetSettingsRequest { remembered_max: Some(123_456), ..Default::default() };
    let all = tokio::join!(one.set_settings(sold), two.set_settings(refused), three.set_settings(max));
    let all = [all.0, all.1, all.2].map(|set| set.expect("set").into_inner());
    assert!(all.iter().all(|set| set.changed), "{all:?}");
    let generation = all.iter().map(|set| set.generation).max().expect("three");
    assert_eq!(generation, before.generation + 3);
    let wanted = ShardSettings {
        retain_sold_ms: 50 * HOUR,
        retain_refused_ms: 2 * HOUR,
        remembered_max: 123_456,
        ..default.clone()
    };
    for node in 0..3 {
        let told = in_force(&cluster, node, generation).await.settings.expect("settings");
        assert_eq!((told.retain_sold_ms, told.retain_refused_ms), (wanted.retain_sold_ms, wanted.retain_refused_ms));
        for shard in 1..=2 {
            let configured = configured(&cluster, node, shard).await;
            assert_eq!(configured.first(), Some(&default), "shard {shard} began with the defaults");
            assert_eq!(configured.last(), Some(&wanted), "shard {shard} on node {node}: {configured:?}");
        }
    }
    // Again is no change and no generation.
    let again = one.set_settings(max).await.expect("set").into_inner();
    assert_eq!((again.changed, again.generation), (false, generation));

    cluster.stop_all().await;
    for node in 0..3 {
        cluster.restart_later(node).await;
    }
    let told = in_force(&cluster, 1, generation).await;
    assert_eq!((told.generation, told.settings.expect("settings").remembered_max), (generation, 123_456));
}

#[tokio::test]
async fn settings_out_of_bounds_or_over_another_generation_are_refused_and_change_nothing() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    let before = in_force(&cluster, 0, 1).await;
    let mut admin = cluster.admin(2).await;
    for bad in [
        v1::SetSettingsRequest::default(),
        v1::SetSettingsRequest { retain_sold_ms: Some(RETAIN_MS_MIN - 1), ..Default::default() },
        v1::SetSettingsRequest { retain_ended_ms: Some(u64::MAX), ..Default::default() },
        v1::SetSettingsRequest { remembered_max: Some(REMEMBERED_MIN - 1), ..Default::default() },
    ] {
        let refused = admin.set_settings(bad).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}: {refused}");
    }
    let old = v1::SetSettingsRequest {
        remembered_max: Some(REMEMBERED_MIN),
        expected_generation: Some(before.generation + 1),
        ..Default::default()
    };
    let refused = admin.set_settings(old).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(in_force(&cluster, 1, 1).await, before);
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// Starts a node again on other ports.
async fn moved(cluster: &Cluster, node: usize) -> RunningNode {
    let mut config = config(cluster.dirs[node].path());
    (config.client.listen, config.http.listen, config.peer.listen) = (free_address(), free_address(), free_address());
    serve(config, NodeSeams::real()).await.expect("the node starts elsewhere")
}

/// Waits until a node's routing and its groups' memberships know where another one is.
async fn known(cluster: &Cluster, at: usize, of: usize) {
    let running = cluster.nodes[of].as_ref().expect("it runs");
    let (client, http) = (running.client_addr().to_string(), running.http_addr().to_string());
    let (peer, id) = (running.peer_addr().to_string(), ledger_raft::NodeId(of as u64 + 1));
    let until = Instant::now() + PATIENCE;
    loop {
        let routing = cluster.node(at).routing();
        let route = routing.nodes.iter().find(|route| route.node == id.0);
        let routed = route.is_some_and(|route| route.client == client && route.http == http);
        let shards = cluster.node(at).shards();
        let voters = shards.iter().map(|shard| shard.status().voters.get(&id).cloned());
        if routed && !shards.is_empty() && voters.clone().all(|known| known.as_ref() == Some(&peer)) {
            return;
        }
        assert!(Instant::now() < until, "{peer}: {route:?}, {:?}", voters.collect::<Vec<_>>());
        sleep(Duration::from_millis(20)).await;
    }
}

async fn catches_up(cluster: &Cluster, node: usize, name: &str, reference: &str) {
    assert!(matches!(cluster.ask(receive(name, 1, reference)).await, Outcome::Ok(_)));
    let (_, replica) = cluster.leader(1).await;
    let index = replica.applied().borrow().position.index;
    cluster.applied(node, 1, index).await;
}

#[tokio::test]
async fn a_member_that_is_restarted_elsewhere_is_found_by_everybody_also_after_a_restart_of_all() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    // One after the other, until nobody is where the stamps say.
    let mut elsewhere = Vec::new();
    for node in [2, 1, 0] {
        cluster.stop(node).await;
        let running = moved(&cluster, node).await;
        elsewhere.push((node, running.client_addr(), running.http_addr(), running.peer_addr()));
        cluster.nodes[node] = Some(running);
        for at in 0..3 {
            known(&cluster, at, node).await;
        }
        catches_up(&cluster, node, "shoe", &format!("moved-{node}")).await;
    }
    // All at once, where they are now: the addresses of the stamps lead nowhere.
    cluster.stop_all().await;
    for (node, client, http, peer) in elsewhere {
        let mut config = config(cluster.dirs[node].path());
        (config.client.listen, config.http.listen, config.peer.listen) =
            (client.to_string(), http.to_string(), peer.to_string());
        cluster.nodes[node] = Some(serve(config, NodeSeams::real()).await.expect("the node starts again"));
    }
    for node in 0..3 {
        let mut state = cluster.node(node).watch_state();
        let serving = timeout(PATIENCE, state.wait_for(|state| *state == NodeState::Serving)).await;
        serving.expect("it serves in time").expect("it lives");
    }
    for node in 0..3 {
        catches_up(&cluster, node, "shoe", &format!("again-{node}")).await;
    }
}

/// All have new addresses at once: nobody knows where anybody is.
#[tokio::test]
async fn members_that_all_moved_at_once_find_each_other_by_hints_and_need_none_later() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(_)));
    cluster.stop_all().await;
    let ports: Vec<[String; 3]> = (0..3).map(|_| [free_address(), free_address(), free_address()]).collect();
    let start = async |cluster: &mut Cluster, node: usize, hints: bool| {
        let mut config = config(cluster.dirs[node].path());
        let [client, http, peer] = ports[node].clone();
        (config.client.listen, config.http.listen, config.peer.listen) = (client, http, peer);
        let others = (0..3).filter(|other| *other != node && hints);
        config.peer_hints = others.map(|other| (other as u64 + 1, ports[other][2].clone())).collect();
        cluster.nodes[node] = Some(serve(config, NodeSeams::real()).await.expect("the node starts"));
    };
    for node in 0..3 {
        start(&mut cluster, node, false).await;
    }
    // Without them the nodes say what to do.
    let until = Instant::now() + PATIENCE;
    while !cluster.node(0).waiting_for().is_some_and(|what| what.contains("peer.hints")) {
        assert!(Instant::now() < until, "{:?}", cluster.node(0).waiting_for());
        sleep(Duration::from_millis(20)).await;
    }
    for hints in [true, false] {
        cluster.stop_all().await;
        for node in 0..3 {
            start(&mut cluster, node, hints).await;
        }
        for node in 0..3 {
            for at in 0..3 {
                known(&cluster, at, node).await;
            }
            catches_up(&cluster, node, "shoe", &format!("{hints}-{node}")).await;
        }
    }
}
