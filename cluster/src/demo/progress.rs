//! What one sees while the crowd is there: a moving line on a terminal, plain lines elsewhere.
//!
//! **Owns** the ticker. **Must never** be in the way: it reads stale and gives up quickly. **Read next**: [`super::journal`].

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client_sdk::Outcome;
use indicatif::{ProgressBar, ProgressStyle};

use super::crowd::Place;
use crate::output::{grouped, micros};

pub(super) async fn tick(place: Arc<Place>, hot_shard: u32, began: Instant) {
    let terminal = std::io::stderr().is_terminal();
    let period = if terminal { Duration::from_millis(200) } else { Duration::from_secs(1) };
    let bar = terminal.then(|| {
        let style =
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        ProgressBar::new_spinner().with_style(style)
    });
    let mut before = 0;
    let mut every = tokio::time::interval(period);
    every.tick().await;
    loop {
        every.tick().await;
        let sale = place.hot.sale.as_ref().map_or("", client_sdk::SaleId::as_str);
        let stock = place.client.offer(&place.hot.sku, sale).deadline(Duration::from_millis(200)).await;
        let units = match stock {
            Outcome::Ok(answered) => answered.value.map(|o| (o.balance.available, o.balance.held, o.balance.sold)),
            _ => None,
        };
        let units =
            units.map_or("units: no answer".into(), |(a, h, s)| format!("available {a:>3}, held {h:>3}, sold {s:>3}"));
        let glance = place.journal.glance();
        let rate = (glance.answers - before) as f64 / period.as_secs_f64();
        before = glance.answers;
        let route = place.client.routing().shards.into_iter().find(|s| s.shard == hot_shard);
        let leader = route.filter(|r| r.leader > 0).map_or("-".to_owned(), |r| r.leader.to_string());
        let line = format!(
            "{:>5.1} s  {units} · {:>7}/s answers · p50 {} p99 {} · {} buyers waiting · leader {leader}",
            began.elapsed().as_secs_f64(),
            grouped(rate as u64),
            micros(glance.p50),
            micros(glance.p99),
            grouped(place.waiting.load(Ordering::Relaxed)),
        );
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }
}
