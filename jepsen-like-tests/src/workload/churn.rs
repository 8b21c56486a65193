//! Many holds that end in one instant, and a herd that wants the units in the very next one.
//!
//! **Owns** the waves. **Must never** sweep: only time ends these holds. **Read next**: [`super::brink`].

use std::time::Duration;

use client_sdk::{Command, LimitKey, Outcome, Settled};
use rand::RngExt;

use super::journal::{Journalled, Want, key_of};
use super::now_ms;
use super::stocked::plain;
use crate::history::answer::{Telling, Told, of_outcome};
use crate::history::{Offer, Op};

/// What a reserve in a batch settled.
struct InBatch(Settled);

impl Telling for InBatch {
    fn told(&self) -> Told {
        match &self.0 {
            Settled::Reservation(brief) => Told::Reservation {
                state: brief.status.into(),
                deadline_ms: brief.deadline.0,
                reserved_at_ms: brief.reserved_at.0,
            },
            other => panic!("a reserve was answered with {other:?}"),
        }
    }
    fn replayed(&self) -> bool {
        matches!(&self.0, Settled::Reservation(brief) if brief.replayed)
    }
}

/// A batch of holds under one deadline; when it comes, as many at once again. Some of the first are released before.
pub(super) async fn wave(asking: &mut Journalled<'_>) {
    let sku = plain(asking.load)[0].clone();
    let offer = Offer::plain(sku);
    let hold_ms = [40, 120, 400, asking.load.hold_ms_max][asking.rng.random_range(0..4)];
    let held = batch(asking, &offer, hold_ms).await;
    if let Some(first) = held.first()
        && asking.rng.random_bool(0.3)
    {
        let _told = asking.release(first.0).await;
    }
    let Some((_, deadline)) = held.last() else { return };
    let left = deadline.saturating_sub(asking.client.ledger_time().0);
    let late = asking.rng.random_range(0..4);
    tokio::time::sleep(Duration::from_millis((left + late).saturating_sub(3))).await;
    batch(asking, &offer, hold_ms).await;
}

async fn batch(asking: &mut Journalled<'_>, offer: &Offer, hold_ms: u64) -> Vec<(client_sdk::ReservationId, u64)> {
    let n = asking.rng.random_range(3..=12);
    let wants: Vec<Want> = (0..n).map(|_| Want { hold_ms: Some(hold_ms), ..asking.want(offer, 1) }).collect();
    let commands = wants.iter().map(command).collect();
    let asked_ms = now_ms();
    let within = Duration::from_millis(asking.load.deadline_ms);
    let outcomes = asking.client.submit_many(commands, within).await;
    let mut held = Vec::new();
    for (want, outcome) in wants.into_iter().zip(outcomes) {
        let outcome: Outcome<InBatch> = outcome.map(InBatch);
        let answer = of_outcome(&outcome, false);
        if let Some(InBatch(Settled::Reservation(brief))) = outcome.ok() {
            held.push((want.id, brief.deadline.0));
        }
        let op = Op::Reserve { id: want.id.to_string(), lines: want.lines, keys: want.keys, hold_ms: want.hold_ms };
        asking.note(op, asked_ms, answer);
    }
    held
}

fn command(want: &Want) -> Command {
    let line = |line: &crate::history::Line| client_sdk::Line {
        offer: key_of(&line.offer),
        quantity: client_sdk::Quantity::new(line.quantity.into()).expect("our own"),
    };
    Command::Reserve {
        id: want.id,
        keys: want.keys.iter().map(|key| LimitKey::new(key).expect("our own")).collect(),
        lines: want.lines.iter().map(line).collect(),
        hold_ms: want.hold_ms,
    }
}
