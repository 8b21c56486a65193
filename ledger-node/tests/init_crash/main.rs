//! `cluster init` and `node rejoin` with the power going at every write and sync of a node's disk: repeating the command ends it.
//!
//! The node that is asked first, or one that is asked to join, loses power at its n-th disk operation, for every n up to where a quiet init
//! ends: before it is done, or after it was done and before anybody hears of it. What was not synced is lost or torn. It comes back, and the operator repeats the command through one node after the other.

mod rejoin;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use hyper_util::rt::TokioIo;
use ledger_node::config::{NodeConfig, Port};
use ledger_proto::v1;
use ledger_proto::v1::admin_client::AdminClient;
use ledger_raft::disk::sim::CrashPoint;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use world::{EPOCH_MS, NodeWorld};

const NODES: usize = 3;
const CLIENT_PORT: u16 = 7101;
/// A node that lost power is down for so long.
const DOWN: Duration = Duration::from_millis(300);
/// One call of the operator.
const WITHIN: Duration = Duration::from_secs(4);
/// Simulated time within which the cluster must stand.
const BOUND: Duration = Duration::from_secs(120);

fn config(name: &str) -> NodeConfig {
    let port = |port: u16| Port {
        listen: format!("{}:{port}", Ipv4Addr::UNSPECIFIED),
        advertise: Some(format!("{name}:{port}")),
    };
    let mut config = NodeConfig {
        data_dir: "/data".into(),
        client: port(CLIENT_PORT),
        http: port(7102),
        peer: port(7103),
        trusted: vec!["0.0.0.0/0".parse().expect("a network")],
        insecure: true,
        ..NodeConfig::default()
    };
    config.raft.segment_bytes = 64 << 10;
    config.raft.low_space_bytes = 0;
    config
}

fn address(node: usize) -> String {
    format!("n{}:{CLIENT_PORT}", node + 1)
}

async fn admin(node: usize) -> Result<AdminClient<Channel>, String> {
    let dial = |uri: Uri| async move {
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        turmoil::net::TcpStream::connect(host).await.map(TokioIo::new)
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", address(node))).expect("an address").timeout(WITHIN);
    let channel = tokio::time::timeout(WITHIN, endpoint.connect_with_connector(tower::service_fn(dial))).await;
    let channel = channel.map_err(|_| "it does not answer".to_owned())?.map_err(|e| e.to_string())?;
    Ok(AdminClient::new(channel))
}

/// What the operator saw.
#[derive(Default)]
struct Seen {
    /// A refusal that repeating does not mend.
    refused: Option<String>,
    clusters: BTreeSet<Vec<u8>>,
    tries: usize,
}

/// Repeats init, through one node after the other, until it is done; then waits until every node serves.
async fn operate(first: usize, seen: Rc<RefCell<Seen>>) -> turmoil::Result {
    let members: Vec<_> =
        (0..NODES).map(|n| v1::Member { node: n as u64 + 1, client: address(n), ..v1::Member::default() }).collect();
    let request = v1::InitRequest { members, shards: 1, replicas: 0 };
    loop {
        let through = (first + seen.borrow().tries) % NODES;
        seen.borrow_mut().tries += 1;
        if let Ok(mut admin) = admin(through).await {
            match admin.init(request.clone()).await {
                Ok(done) => {
                    seen.borrow_mut().clusters.insert(done.into_inner().cluster.to_vec());
                    break;
                }
                Err(no) if matches!(no.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
                    seen.borrow_mut().refused = Some(format!("through node {}: {}", through + 1, no.message()));
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    all_serve(&seen).await;
    Ok(())
}

/// Waits until every node serves, and leads or follows in each shard.
async fn all_serve(seen: &Rc<RefCell<Seen>>) {
    for node in 0..NODES {
        loop {
            if let Ok(mut admin) = admin(node).await
                && let Ok(status) = admin.node_status(v1::NodeStatusRequest {}).await
            {
                let status = status.into_inner();
                let well = |s: &v1::ShardStatus| s.stopped.is_empty() && s.leader != 0;
                let whole = status.unrepaired.is_empty() && status.shards.len() == 1;
                if status.state == "serving" && whole && status.shards.iter().all(well) {
                    seen.borrow_mut().clusters.insert(status.cluster.to_vec());
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn simulation(worlds: &[NodeWorld]) -> turmoil::Sim<'static> {
    let mut sim = turmoil::Builder::new()
        .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .rng_seed(1)
        .simulation_duration(BOUND * 2)
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(2))
        .tcp_capacity(1 << 14)
        .build();
    for world in worlds {
        let world = world.clone();
        sim.host(world.name.clone(), move || {
            let (config, seams) = (config(&world.name), world.seams());
            async move {
                // Without power it may not even start; it is started again.
                if let Ok(mut node) = ledger_node::serve(config, seams).await {
                    node.wait().await;
                }
                Ok(())
            }
        });
    }
    sim
}

/// One init in which the victim loses power; answers how many disk operations the victim did until the cluster stood.
fn init(first: usize, victim: usize, power: Option<CrashPoint>) -> u64 {
    let what = format!("through node {}, power of node {} goes {power:?}", first + 1, victim + 1);
    let worlds: Vec<NodeWorld> = (0..NODES).map(NodeWorld::new).collect();
    worlds[victim].disk.stop_at(power);
    let mut sim = simulation(&worlds);
    let seen = Rc::new(RefCell::new(Seen::default()));
    sim.client("operator", operate(first, seen.clone()));
    until_done(&what, &mut sim, &worlds[victim], &seen, |_| {});
    worlds[victim].disk.ops()
}

/// Steps until the operator is done: a victim whose power went is down for a while, and comes back
/// with what it had synced. `each_step` is done after each step.
fn until_done(
    what: &str,
    sim: &mut turmoil::Sim<'static>,
    victim: &NodeWorld,
    seen: &RefCell<Seen>,
    mut each_step: impl FnMut(&mut turmoil::Sim<'static>),
) {
    let mut back_at = None;
    loop {
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        each_step(sim);
        if victim.disk.stopped() {
            sim.crash(victim.name.as_str());
            victim.disk.crash(victim.disk.ops());
            back_at = Some(sim.elapsed() + DOWN);
        }
        if back_at.is_some_and(|at| at <= sim.elapsed()) {
            sim.bounce(victim.name.as_str());
            back_at = None;
        }
        assert!(sim.elapsed() < BOUND, "{what}: not done after {BOUND:?} and {} tries", seen.borrow().tries);
    }
    let seen = seen.borrow();
    assert_eq!(seen.refused, None, "{what}");
    assert_eq!(seen.clusters.len(), 1, "{what}: {:?}", seen.clusters);
}

/// Sweeps a victim's operations one by one.
fn sweep(first: usize, victim: usize) {
    let ops = init(first, victim, None);
    assert!(ops > 20, "a node's init is {ops} disk operations?");
    for op in 1..=ops {
        init(first, victim, Some(CrashPoint::During(op)));
        init(first, victim, Some(CrashPoint::After(op)));
    }
}

#[test]
fn the_node_that_is_asked_may_lose_power_anywhere() {
    sweep(0, 0);
}

#[test]
fn a_node_that_joins_may_lose_power_anywhere() {
    sweep(0, 2);
}
