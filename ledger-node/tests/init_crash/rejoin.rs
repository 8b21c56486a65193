//! `node rejoin` with the power going: whichever of the three nodes loses it, and wherever, a repeat brings the member back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ledger_proto::v1;
use ledger_raft::disk::sim::CrashPoint;
use tonic::Code;

use super::world::NodeWorld;
use super::{NODES, Seen, admin, all_serve, operate, simulation, until_done};

/// The node that comes back.
const BACK: usize = 1;
/// Of its first operations, which stamp it and begin its log, each is tried; of those of the repair, some.
const EACH: u64 = 40;
const FURTHER: u64 = 5;

/// How far the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The cluster is being made.
    Init,
    /// It stands.
    Stands,
    /// The directory of the node is empty.
    Emptied,
}

/// Repeats the command through the other members in turn until it is done, and the node is repaired.
async fn bring_back(stage: Rc<Cell<Stage>>, seen: Rc<RefCell<Seen>>) -> turmoil::Result {
    operate(0, seen.clone()).await?;
    stage.set(Stage::Stands);
    while stage.get() != Stage::Emptied {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let member = v1::Member { node: BACK as u64 + 1, ..v1::Member::default() };
    loop {
        let through = if seen.borrow().tries.is_multiple_of(2) { 0 } else { 2 };
        seen.borrow_mut().tries += 1;
        if let Ok(mut admin) = admin(through).await {
            match admin.rejoin(v1::RejoinRequest { members: vec![member.clone()] }).await {
                Ok(_) => break,
                Err(no) if matches!(no.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
                    // A member that has just lost power is damaged or starting: it is waited for.
                    let waits = no.message().contains("if they have just started");
                    if !waits {
                        seen.borrow_mut().refused = Some(format!("through node {}: {}", through + 1, no.message()));
                        return Ok(());
                    }
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    all_serve(&seen).await;
    Ok(())
}

/// One rejoin in which the victim loses power; answers how many disk operations the victim did from the moment at which the directory was
/// empty until the node was repaired.
fn rejoin(victim: usize, power: Option<fn(u64) -> CrashPoint>, op: u64) -> u64 {
    let what = format!("power of node {} goes at {:?}", victim + 1, power.map(|point| point(op)));
    let worlds: Vec<NodeWorld> = (0..NODES).map(NodeWorld::new).collect();
    let mut sim = simulation(&worlds);
    let (stage, seen) = (Rc::new(Cell::new(Stage::Init)), Rc::new(RefCell::new(Seen::default())));
    sim.client("operator", bring_back(stage.clone(), seen.clone()));
    let disk = &worlds[victim].disk;
    let mut began = 0;
    until_done(&what, &mut sim, &worlds[victim], &seen, |sim| {
        if stage.get() == Stage::Stands {
            sim.crash(worlds[BACK].name.as_str());
            worlds[BACK].empty();
            began = disk.ops();
            disk.stop_at(power.map(|point| point(began + op)));
            sim.bounce(worlds[BACK].name.as_str());
            stage.set(Stage::Emptied);
        }
    });
    disk.ops() - began
}

/// Sweeps a victim's operations one by one.
fn sweep(victim: usize) {
    let ops = rejoin(victim, None, 0);
    assert!(ops > 4, "a rejoin is {ops} disk operations of node {}?", victim + 1);
    for op in (1..=ops).filter(|op| *op <= EACH || op % FURTHER == 0) {
        rejoin(victim, Some(if op % 2 == 0 { CrashPoint::During } else { CrashPoint::After }), op);
    }
}

#[test]
fn the_node_that_comes_back_may_lose_power_anywhere() {
    sweep(BACK);
}

#[test]
fn the_member_that_is_asked_may_lose_power_anywhere() {
    sweep(0);
}

#[test]
fn another_member_may_lose_power_anywhere() {
    sweep(2);
}
