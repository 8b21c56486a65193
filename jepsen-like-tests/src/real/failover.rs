//! How long a shard gives no answers when its leader is killed, and whether a disk that stalls costs it its leader.
//!
//! **What it is.** Real processes without a proxy (a killed one refuses connections), their default settings, and an open loop of reservations through
//! the client SDK: each call has a moment when it is due, however late those before it are, and is measured from then.
//!
//! **Owns** the measurement. **Must never** be part of a test: it is a figure of the machine that it runs on. **Read next**: `jepsen failover --help`.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client_sdk::{Client, Outcome, Policy, Sku};
use cluster::dev_cluster::{DevCluster, NodeProgram};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::RealError;
use super::knobs::Knobs;
use crate::faults::Disks;

/// The shard that is measured.
const SHARD: u32 = 1;
const SKU: &str = "failover";
const UNITS: i64 = 100_000_000;
/// Longer than any measurement: nothing expires within it.
const HOLD: Duration = Duration::from_secs(24 * 3_600);
/// A call without an answer by then counts as not answered.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Calls run for so long before the first fault, and behind the last one.
const CALM: Duration = Duration::from_secs(3);
/// How often the leaders' terms are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is done to the nodes.
#[derive(Debug, Clone)]
pub enum Blow {
    /// The leader is killed so many times, and started again a while later.
    Kill {
        /// How often.
        times: u32,
        /// From one kill to the next.
        every: Duration,
        /// From a kill to the start.
        down: Duration,
    },
    /// Syncs stall again and again.
    Stall {
        /// Whose.
        of: Disks,
        /// For how long.
        stall: Duration,
        /// From one stall to the next.
        every: Duration,
        /// Over how long.
        lasts: Duration,
    },
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Milliseconds from when each call was due to its answer; none: it had no definite answer in time.
    pub took_ms: Vec<Option<u64>>,
    /// The longest time without a successful answer around each kill, milliseconds.
    pub silences_ms: Vec<u64>,
    /// Elections of the shard that were seen.
    pub elections: u64,
    /// Successful reservations, those without a definite answer, and the units that the ledger says are held.
    pub held: (u64, u64, u64),
}

/// The value that this share of the values stays at or below.
pub fn quantile(values: &[u64], share: f64) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied()
}

impl Figures {
    /// The share of the calls that were answered within this time of when they were due.
    pub fn answered_within(&self, ms: u64) -> f64 {
        let in_time = self.took_ms.iter().flatten().filter(|took| **took <= ms).count();
        in_time as f64 / self.took_ms.len().max(1) as f64
    }

    /// Whether the ledger holds what was answered, and at most what may have been.
    pub fn stock_is_right(&self) -> bool {
        let (ok, unknown, held) = self.held;
        (ok..=ok + unknown).contains(&held)
    }
}

/// What the calls have come to so far.
#[derive(Default)]
struct Calls {
    took_ms: Vec<Option<u64>>,
    ok_at: Vec<Instant>,
    unknown: u64,
}

type Shared = Arc<Mutex<Calls>>;

fn lock(calls: &Shared) -> std::sync::MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks `rate` times a second until `stop`.
async fn press(client: Client, sku: Sku, rate: u32, calls: Shared, mut stop: watch::Receiver<bool>) {
    let mut due = interval(Duration::from_secs(1) / rate.max(1));
    // Calls that are late are still made: those behind them must not look quicker for it.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = JoinSet::new();
    loop {
        let due = tokio::select! {
            biased;
            _ = stop.changed() => break,
            due = due.tick() => due,
        };
        let (client, sku, calls) = (client.clone(), sku.clone(), calls.clone());
        asked.spawn(async move {
            let id = client.mint_for(&sku);
            let outcome =
                client.reserve(id, format!("buyer-{id}")).line(&sku, 1).hold_for(HOLD).deadline(CALL_WITHIN).await;
            let now = Instant::now();
            let mut calls = lock(&calls);
            let definite = matches!(outcome, Outcome::Ok(_) | Outcome::Refused(_));
            calls.took_ms.push(definite.then(|| (now - due).as_millis() as u64));
            match outcome {
                Outcome::Ok(_) => calls.ok_at.push(now),
                Outcome::Unknown(_) => calls.unknown += 1,
                Outcome::Refused(_) | Outcome::NotNow(_) => {}
            }
        });
        while asked.try_join_next().is_some() {}
    }
    while asked.join_next().await.is_some() {}
}

/// The longest pause between two successful answers that touches `from..to`.
fn longest_silence(ok_at: &[Instant], from: Instant, to: Instant) -> Duration {
    let mut sorted: Vec<Instant> = ok_at.to_vec();
    sorted.sort_unstable();
    let before = sorted.iter().rev().find(|at| **at < from).copied().unwrap_or(from);
    let during = sorted.iter().copied().filter(|at| (from..to).contains(at));
    let ends = std::iter::once(before).chain(during).chain([to]).collect::<Vec<_>>();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Measures on three nodes of our own below `dir`.
///
/// # Errors
/// When the nodes do not come up, or come back.
pub async fn measure(dir: &Path, rate: u32, blow: &Blow) -> Result<Figures, RealError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| RealError::Io { what, source }
    };
    let clients = |what, why: String| RealError::Clients { what, why };
    let program = NodeProgram::this().map_err(io("find this executable"))?;
    let mut cluster = DevCluster::start(program, dir, 3, 1, &[]).await?;
    let client = Client::connect(cluster.endpoints()).await.map_err(|e| clients("connect", e.to_string()))?;
    let sku = Sku::new(SKU).map_err(|e| clients("name the product", e.to_string()))?;
    let open = async {
        client
            .create_product(&sku, Policy { hold_ms_max: HOLD.as_millis() as u64, ..Policy::default() })
            .await
            .into_result()?;
        client.receive(&sku, UNITS, "the lot").await.into_result()
    };
    open.await.map_err(|e| clients("stock the product", e.to_string()))?;

    let (calls, stop) = (Shared::default(), watch::Sender::new(false));
    let pressing = tokio::spawn(press(client.clone(), sku.clone(), rate, calls.clone(), stop.subscribe()));
    sleep(CALM).await;
    let mut figures = Figures::default();
    match blow {
        Blow::Kill { times, every, down } => {
            let mut spans = Vec::new();
            for _ in 0..*times {
                let Some(leader) = cluster.leader_of(SHARD).await else {
                    return Err(clients("find the leader", "no node leads the shard".into()));
                };
                let from = Instant::now();
                cluster.kill(leader)?;
                sleep_until(from + *down).await;
                cluster.spawn(leader)?;
                cluster.wait_up(leader).await?;
                cluster.wait_led().await?;
                sleep_until(from + *every).await;
                spans.push((from, Instant::now()));
            }
            figures.elections = u64::from(*times);
            sleep(CALM).await;
            let ok_at = lock(&calls).ok_at.clone();
            let silence = |(from, to): &(Instant, Instant)| longest_silence(&ok_at, *from, *to).as_millis() as u64;
            figures.silences_ms = spans.iter().map(silence).collect();
        }
        Blow::Stall { of, stall, every, lasts } => {
            figures.elections = stalls(&cluster, *of, *stall, *every, *lasts).await?;
            sleep(CALM).await;
        }
    }
    stop.send_replace(true);
    pressing.await.map_err(|e| clients("ask", e.to_string()))?;
    let read = client.product(&sku).await.into_result().map_err(|e| clients("read the product", e.to_string()))?;
    let held = read.iter().flat_map(|product| &product.offers).map(|offer| offer.balance.held).sum();
    let done = std::mem::take(&mut *lock(&calls));
    figures.held = (done.ok_at.len() as u64, done.unknown, held);
    figures.took_ms = done.took_ms;
    client.close().await;
    cluster.stop_all().await;
    Ok(figures)
}

/// Stalls syncs for as long as it lasts; tells how often the shard got another leader.
async fn stalls(
    cluster: &DevCluster,
    of: Disks,
    stall: Duration,
    every: Duration,
    lasts: Duration,
) -> Result<u64, RealError> {
    let (began, mut next) = (Instant::now(), Instant::now());
    let (mut term, mut elections) = (None, 0);
    while began.elapsed() < lasts {
        let mut leaders = Vec::new();
        for node in cluster.nodes() {
            let status = node.link().status().await.map(|status| status.shards).unwrap_or_default();
            leaders.extend(
                status.into_iter().filter(|s| s.shard == SHARD && s.role == "leader").map(|s| (s.term, node.id)),
            );
        }
        let Some((now, leader)) = leaders.into_iter().max() else { continue };
        elections += u64::from(term.is_some_and(|term| term != now));
        term = Some(now);
        if Instant::now() >= next {
            next += every;
            let struck = cluster.nodes().iter().filter(|node| match of {
                Disks::Leader => node.id == leader,
                Disks::Follower => node.id == leader % 3 + 1,
                Disks::Followers => node.id != leader,
            });
            let files: Vec<_> = struck.map(|node| Knobs::file_beside(&node.data_dir())).collect();
            for (sync_ms, lasts) in [(stall.as_millis() as u64, stall), (0, Duration::ZERO)] {
                for file in &files {
                    let knobs = Knobs { sync_ms, ..Knobs::default() };
                    knobs.write(file).map_err(|source| RealError::Io { what: "stall a disk".into(), source })?;
                }
                sleep(lasts).await;
            }
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(elections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_begins_with_the_last_answer_before_it() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let answers = [at(10), at(90), at(700), at(710), at(1_500)];
        assert_eq!(longest_silence(&answers, at(100), at(1_000)), Duration::from_millis(610));
        assert_eq!(longest_silence(&answers, at(705), at(1_000)), Duration::from_millis(290), "nothing more came");
        assert_eq!(longest_silence(&[], at(0), at(50)), Duration::from_millis(50));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.5), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn calls_without_an_answer_are_not_answered_in_time() {
        let figures =
            Figures { took_ms: vec![Some(5), Some(1_001), None, Some(1_000)], held: (3, 1, 4), ..Figures::default() };
        assert!((figures.answered_within(1_000) - 0.5).abs() < f64::EPSILON);
        assert!(figures.stock_is_right());
        assert!(!Figures { held: (3, 1, 5), ..figures }.stock_is_right());
    }
}
