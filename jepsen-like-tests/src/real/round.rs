//! One run under one kind of fault: set up, press and strike, heal, read out, judge.
//!
//! **Owns** the order of these. **Must never** end a call of a client early: what it asked must be in the journal with its answer.
//! **Read next**: [`super::campaign`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_sdk::{Client, Outcome};
use tokio::sync::watch;

use super::RealError;
use super::field::Field;
use super::nemesis::{Nemesis, Striker, Struck};
use crate::checkers::{self, Violation};
use crate::history::{About, Answer, Event, Run};
use crate::readout;
use crate::workload::{self, Journal, Kind, Load};

/// Between two tries of what must succeed once all is healed.
const PAUSE: Duration = Duration::from_millis(200);
/// What was healed must serve again within this.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Whose nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Ours: so many processes and shards.
    Ours {
        /// Processes.
        nodes: u64,
        /// Shards.
        shards: u32,
    },
    /// Somebody's: ids and client addresses.
    Theirs(Vec<(u64, String)>),
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Round {
    /// The kind of fault.
    pub nemesis: Nemesis,
    /// Whose nodes.
    pub given: Given,
    /// The tester's own program.
    pub program: Option<PathBuf>,
    /// For how long clients press.
    pub lasts: Duration,
    /// Choices of victims and clients are drawn from it.
    pub seed: u64,
    /// What clients ask.
    pub load: Load,
    /// Fewer definite answers a second than this prove nothing.
    pub rate_min: f64,
}

/// Times of the run's clock between which something was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// When it struck.
    pub from_ms: u64,
    /// When it was made good.
    pub to_ms: u64,
    /// What it was.
    pub what: String,
}

/// What a round gave.
#[derive(Debug)]
pub struct RoundReport {
    /// The kind of fault.
    pub nemesis: Nemesis,
    /// Everything the clients saw.
    pub run: Run,
    /// Empty when all held.
    pub violations: Vec<Violation>,
    /// The faults.
    pub spells: Vec<Spell>,
    /// How often each kind struck.
    pub struck: BTreeMap<&'static str, u32>,
    /// For how long clients pressed.
    pub pressed: Duration,
}

/// Runs one round below `dir`.
///
/// # Errors
/// [`RealError`], when the run could not be carried out; what went wrong in the ledger is in the report.
pub async fn round(what: &Round, dir: &std::path::Path) -> Result<RoundReport, RealError> {
    let mut field = match &what.given {
        Given::Ours { nodes, shards } => Field::spawn(dir, *nodes, *shards, what.program.clone()).await?,
        Given::Theirs(nodes) => Field::given(nodes.clone(), what.program.clone()),
    };
    let clients = |what| move |why: workload::Failure| RealError::Clients { what, why: why.to_string() };
    let client = field.site().client(what.seed).await.map_err(clients("connect"))?;
    let journal: Journal = Arc::new(Mutex::new(Run { about: about(what), ..Run::default() }));
    let site = field.site().clone();
    must_be_empty(&client, load_of(what)).await?;
    let mut load = load_of(what);
    workload::set_up(&client, &site, load, &journal).await;

    let began_ms = workload::now_ms();
    load.ends_ms = began_ms + what.lasts.as_millis() as u64;
    let over = watch::Sender::new(false);
    let pressing = async {
        workload::press(&client, &site, what.seed, load, &journal).await;
        over.send_replace(true);
    };
    let mut faults = Faults::new(what.seed, what.nemesis);
    let ((), striking) = tokio::join!(pressing, faults.strike_until(&mut field, over.subscribe()));
    let pressed_ms = workload::now_ms() - began_ms;
    let healed = faults.heal_all(&mut field).await;
    striking?;
    healed?;

    let mut violations = Vec::new();
    let died = field.ended_by_themselves();
    violations.extend(died.into_iter().map(|what| violation("a node goes on", what)));
    if let Err(why) = settle_and_read(&field, &client, load, &journal).await {
        violations.push(violation("converges when faults stop", why));
    }
    let run = journal.lock().expect("never poisoned").clone();
    violations.extend(checkers::check_all(&run));
    violations.extend(lost_calls(what.nemesis, &run));
    violations.extend(too_slow(&run.events, pressed_ms, what.rate_min));
    field.stop().await;
    let Faults { spells, struck, .. } = faults;
    let pressed = Duration::from_millis(pressed_ms);
    Ok(RoundReport { nemesis: what.nemesis, run, violations, spells, struck, pressed })
}

/// Hostile clients are a kind of their own: the numbers of the other kinds are compared with each other.
fn load_of(what: &Round) -> Load {
    match what.nemesis {
        Nemesis::Hostile => what.load.of(&[Kind::Hostile, Kind::Many, Kind::Keeping, Kind::Reads]),
        _ => what.load.without(Kind::Hostile),
    }
}

/// Without a fault every well-formed call is answered.
fn lost_calls(nemesis: Nemesis, run: &Run) -> Option<Violation> {
    let hostile = run.hostile.as_ref().filter(|hostile| nemesis.is_faultless() && hostile.lost > 0)?;
    let what = format!("{} of {} hostile calls have no answer: {}", hostile.lost, hostile.asked, hostile.lost_why);
    Some(violation("every call is answered", what))
}

/// What is in the books already would count against the run.
async fn must_be_empty(client: &Client, load: Load) -> Result<(), RealError> {
    for sku in workload::products(load) {
        match client.product(&sku).await {
            Outcome::Ok(answered) if answered.value.is_none() => {}
            Outcome::Ok(_) => return Err(RealError::NotEmpty { sku }),
            other => return Err(RealError::Clients { what: "read a product", why: format!("{other:?}") }),
        }
    }
    Ok(())
}

fn violation(property: &'static str, what: String) -> Violation {
    Violation { property, what }
}

/// The run's clock begins at zero with this process. What our machine's own clock does is true time; of others' nothing is known.
fn about(what: &Round) -> About {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let clock_bound_ms = matches!(what.given, Given::Ours { .. }).then_some(workload::CLOCK_BOUND_MS);
    About { epoch_ms: now - workload::now_ms(), clock_bound_ms, ..workload::about(what.seed, what.load) }
}

/// A run in which hardly anything got done proves nothing.
fn too_slow(events: &[Event], pressed_ms: u64, rate_min: f64) -> Option<Violation> {
    let definite = events.iter().filter(|e| matches!(e.answer, Answer::Ok { .. } | Answer::Refused { .. })).count();
    let rate = definite as f64 * 1_000.0 / pressed_ms.max(1) as f64;
    let what =
        format!("{rate:.1} definite answers a second, at least {rate_min:.1} are needed: the run proves nothing");
    (rate < rate_min).then(|| violation("the load was worth it", what))
}

/// Waits until the nodes serve and the last hold has ended, and reads everything out.
async fn settle_and_read(field: &Field, client: &Client, load: Load, journal: &Journal) -> Result<(), String> {
    field.wait_led().await.map_err(|e| e.to_string())?;
    tokio::time::sleep(Duration::from_millis(workload::longest_hold_ms(load) + 1_000)).await;
    let until = tokio::time::Instant::now() + HEALED_WITHIN;
    loop {
        match readout::read_out(client, field.site(), load, journal).await {
            Ok(()) => return Ok(()),
            Err(why) if tokio::time::Instant::now() >= until => return Err(why.to_string()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Strikes and makes good, and remembers when.
struct Faults {
    striker: Striker,
    nemesis: Nemesis,
    active: Vec<(u64, Struck)>,
    spells: Vec<Spell>,
    struck: BTreeMap<&'static str, u32>,
}

impl Faults {
    fn new(seed: u64, nemesis: Nemesis) -> Self {
        Self { striker: Striker::new(seed), nemesis, active: Vec::new(), spells: Vec::new(), struck: BTreeMap::new() }
    }

    async fn strike_until(&mut self, field: &mut Field, mut over: watch::Receiver<bool>) -> Result<(), RealError> {
        let most = if self.nemesis == Nemesis::Mixed { 2 } else { 1 };
        loop {
            let pause = self.striker.duration(!self.active.is_empty());
            tokio::select! {
                _ = over.wait_for(|over| *over) => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if self.nemesis.is_faultless() {
                continue;
            }
            if self.active.len() >= most {
                self.heal_oldest(field).await?;
                continue;
            }
            let next = if self.nemesis == Nemesis::Mixed { self.striker.draw() } else { self.nemesis };
            let at = workload::now_ms();
            let struck = self.striker.strike(next, field).await?;
            tracing::info!(at_ms = at, "{}", struck.what);
            *self.struck.entry(next.name()).or_default() += 1;
            self.active.push((at, struck));
        }
    }

    async fn heal_oldest(&mut self, field: &mut Field) -> Result<(), RealError> {
        let (from_ms, struck) = self.active.remove(0);
        self.striker.heal(&struck, field).await?;
        self.spells.push(Spell { from_ms, to_ms: workload::now_ms(), what: struck.what });
        Ok(())
    }

    async fn heal_all(&mut self, field: &mut Field) -> Result<(), RealError> {
        while !self.active.is_empty() {
            self.heal_oldest(field).await?;
        }
        Ok(())
    }
}

impl RoundReport {
    /// Whether something was wrong at any time of an operation.
    fn during(&self, event: &Event) -> bool {
        self.spells.iter().any(|s| event.asked_ms <= s.to_ms && event.answered_ms >= s.from_ms)
    }

    /// Milliseconds that operations took: of those during a fault, or of the others. Sorted.
    pub fn took_ms(&self, during: bool) -> Vec<u64> {
        let of = self.run.events.iter().filter(|e| self.during(e) == during);
        let mut took: Vec<u64> = of.map(|e| e.answered_ms - e.asked_ms).collect();
        took.sort_unstable();
        took
    }

    /// Operations without a definite answer.
    pub fn unknowns(&self) -> usize {
        self.run.events.iter().filter(|e| matches!(e.answer, Answer::Unknown { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Op;

    fn event(asked_ms: u64, answered_ms: u64, answer: Answer) -> Event {
        Event { client: 1, op: Op::Release { id: "a".into() }, asked_ms, answered_ms, answer }
    }

    fn unknown() -> Answer {
        Answer::Unknown { why: "?".into() }
    }

    #[test]
    fn a_run_without_answers_proves_nothing() {
        let events = vec![event(0, 1, unknown()); 1_000];
        assert_eq!(too_slow(&events, 1_000, 1.0).map(|v| v.property), Some("the load was worth it"));
        assert_eq!(too_slow(&events, 1_000, 0.0), None);
    }

    #[test]
    fn what_overlaps_a_fault_took_place_during_it() {
        let events =
            vec![event(0, 5, unknown()), event(8, 11, unknown()), event(19, 40, unknown()), event(21, 22, unknown())];
        let report = RoundReport {
            nemesis: Nemesis::Kill,
            run: Run { events, ..Run::default() },
            violations: vec![],
            spells: vec![Spell { from_ms: 10, to_ms: 20, what: "x".into() }],
            struck: BTreeMap::new(),
            pressed: Duration::from_secs(1),
        };
        assert_eq!(report.took_ms(true), [3, 21]);
        assert_eq!(report.took_ms(false), [1, 5]);
        assert_eq!(report.unknowns(), 4);
    }
}
