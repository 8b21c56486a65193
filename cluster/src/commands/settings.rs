//! `ledgerctl cluster settings show|set`: how long what has ended is remembered, and how much of it, in all shards.
//!
//! **What it is.** The cluster keeps one set of them; each shard takes it through its log. *show* asks every member, so that it can say which
//! shards have them; *set* compares-and-sets what was shown, then waits until every shard has it.
//! **Owns** these two verbs. **Must never** report settings as in force that a shard has not taken. **Read next**: [`super::cluster`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use client_sdk::v1;
use serde::Serialize;

use super::Desk;
use crate::cli::{SettingsArgs, SettingsVerb};
use crate::limits;
use crate::link::{ClusterLink, NodeLink, brief, is_final, timed};
use crate::output::{Failure, Outcome, grouped, table, text, unit};

/// What the cluster has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SettingsDoc {
    retain_sold_ms: u64,
    retain_ended_ms: u64,
    retain_refused_ms: u64,
    remembered_max: u64,
    /// Of the placement that carries them: what `set` compares with.
    generation: u64,
    /// Shards in which they are in force.
    in_force: BTreeSet<u32>,
    /// Shards that have not taken them yet, or did not answer.
    not_yet: BTreeSet<u32>,
}

const NAMES: [(&str, &str); 4] = [
    ("retain sold", "confirmed reservations: the return window"),
    ("retain ended", "released and expired reservations"),
    ("retain refused", "refusals and fences"),
    ("remembered max", "ids of one shard that are neither live nor sold"),
];

impl SettingsDoc {
    fn values(&self) -> [u64; 4] {
        [self.retain_sold_ms, self.retain_ended_ms, self.retain_refused_ms, self.remembered_max]
    }
}

fn value(place: usize, n: u64) -> String {
    if place == 3 { grouped(n) } else { humantime::format_duration(Duration::from_millis(n)).to_string() }
}

pub(super) async fn run(desk: &Desk, verb: SettingsVerb) -> Outcome {
    let link = desk.link()?.with_members().await?;
    let present = look(&link).await?;
    match verb {
        SettingsVerb::Show => desk.printer.print(&present, to_text),
        SettingsVerb::Set(args) => set(desk, &link, &present, &args).await,
    }
}

/// What all members say, put together.
async fn look(link: &ClusterLink) -> Outcome<SettingsDoc> {
    let routing = link
        .ask("the shards", async |node: &NodeLink| {
            timed(limits::TRY_WITHIN, node.ledger().get_routing(v1::GetRoutingRequest {})).await
        })
        .await?;
    let each = link.nodes.iter().map(async |node| {
        let answer = timed(limits::TRY_WITHIN, node.admin().get_settings(v1::GetSettingsRequest {})).await;
        answer.map_err(|status| format!("{}: {}", node.address, brief(&status)))
    });
    let mut newest: Option<v1::GetSettingsResponse> = None;
    let mut has: BTreeMap<u32, u64> = BTreeMap::new();
    let mut last = String::from("no nodes");
    for answer in futures::future::join_all(each).await {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                last = why;
                continue;
            }
        };
        for shard in &answer.shards {
            let known = has.entry(shard.shard).or_default();
            *known = shard.generation.max(*known);
        }
        if newest.as_ref().is_none_or(|n| n.generation < answer.generation) {
            newest = Some(answer);
        }
    }
    let Some((settings, generation)) = newest.and_then(|n| Some((n.settings?, n.generation))) else {
        return Err(
            Failure::refused(format!("no node answers with the settings (last: {last})")).hint("ledgerctl status")
        );
    };
    let shards = routing.shards.iter().map(|route| route.shard);
    let (in_force, not_yet) = shards.partition(|shard| has.get(shard).is_some_and(|&known| known >= generation));
    let v1::ShardSettings { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max } = settings;
    Ok(SettingsDoc {
        retain_sold_ms,
        retain_ended_ms,
        retain_refused_ms,
        remembered_max,
        generation,
        in_force,
        not_yet,
    })
}

fn to_text(settings: &SettingsDoc) -> String {
    let rows = NAMES.iter().zip(settings.values()).enumerate();
    let rows = rows.map(|(place, ((name, what), n))| [text(*name), unit(value(place, n)), text(*what)]);
    let all = |shards: &BTreeSet<u32>| shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut out = table(["SETTING", "VALUE", "OF"], rows);
    out.push_str(&format!("\n\nin force in shards {}", all(&settings.in_force)));
    if !settings.not_yet.is_empty() {
        out.push_str(&format!("; not known to be in force in shards {}", all(&settings.not_yet)));
    }
    out
}

/// What `args` ask for, over what is there.
fn wanted(present: &SettingsDoc, args: &SettingsArgs) -> [u64; 4] {
    let ms = |given: Option<Duration>| given.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let given = [ms(args.retain_sold), ms(args.retain_ended), ms(args.retain_refused), args.remembered_max];
    let mut wanted = present.values();
    for (value, given) in wanted.iter_mut().zip(given) {
        *value = given.unwrap_or(*value);
    }
    wanted
}

/// One line a change, and what it costs.
fn will(present: &[u64; 4], wanted: &[u64; 4]) -> Option<String> {
    let changed: Vec<usize> = (0..4).filter(|&place| present[place] != wanted[place]).collect();
    let one = |&place: &usize| {
        format!("{} from {} to {}", NAMES[place].0, value(place, present[place]), value(place, wanted[place]))
    };
    let mut all = changed.iter().map(one).collect::<Vec<_>>().join(", ");
    if changed.iter().any(|&place| wanted[place] < present[place]) {
        all.push_str(" (what is then too old or too many is forgotten for good)");
    }
    (!changed.is_empty()).then(|| format!("in every shard, change {all}"))
}

async fn set(desk: &Desk, link: &ClusterLink, present: &SettingsDoc, args: &SettingsArgs) -> Outcome {
    let wanted = wanted(present, args);
    match will(&present.values(), &wanted) {
        Some(will) => {
            desk.printer.ask(&will)?;
            propose(link, present, wanted).await?;
        }
        None => eprintln!("they are so already"),
    }
    let until = Instant::now() + limits::COMMAND_WITHIN;
    loop {
        let now = look(link).await?;
        if now.values() != wanted {
            return Err(
                Failure::refused("somebody else has changed them since").hint("ledgerctl cluster settings show")
            );
        }
        if now.not_yet.is_empty() {
            return desk.printer.print(&now, to_text);
        }
        if Instant::now() >= until {
            let why = format!("they are set, but shards {:?} are not known to have taken them yet", now.not_yet);
            return Err(Failure::unknown(why).hint("ledgerctl cluster settings show"));
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

/// Asks the nodes in turn. After an answer that leaves it open, what is there now decides.
async fn propose(link: &ClusterLink, present: &SettingsDoc, wanted: [u64; 4]) -> Outcome {
    let [retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max] = wanted.map(Some);
    let expected_generation = Some(present.generation);
    let request = v1::SetSettingsRequest {
        retain_sold_ms,
        retain_ended_ms,
        retain_refused_ms,
        remembered_max,
        expected_generation,
    };
    let until = Instant::now() + limits::COMMAND_WITHIN;
    let mut in_doubt = false;
    loop {
        let mut last = String::from("no nodes");
        for node in &link.nodes {
            match timed(limits::COMMAND_WITHIN, node.admin().set_settings(request)).await {
                Ok(_) => return Ok(()),
                Err(status) if is_final(&status) => {
                    if in_doubt && look(link).await?.values() == wanted {
                        return Ok(());
                    }
                    return Err(Failure::refused(status.message()).hint("ledgerctl cluster settings show"));
                }
                Err(status) => {
                    in_doubt = true;
                    last = format!("{}: {}", node.address, brief(&status));
                }
            }
        }
        if Instant::now() >= until {
            return Err(Failure::unknown(format!("no node said that it is done (last: {last})"))
                .hint("ledgerctl cluster settings show; repeat the command, it is safe to repeat"));
        }
        tokio::time::sleep(limits::RETRY_PAUSE_MAX).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_changes_and_warns_of_what_is_forgotten() {
        let day = 24 * 3_600_000;
        let present = [30 * day, day, 3_600_000, 20_000_000];
        assert_eq!(will(&present, &present), None);
        let longer = [45 * day, day, 3_600_000, 20_000_000];
        let said = will(&present, &longer).expect("a change");
        assert!(said.starts_with("in every shard, change retain sold from 30days to "), "{said}");
        assert!(!said.contains("forgotten"), "{said}");
        let said = will(&present, &[30 * day, day, 60_000, 1_000_000]).expect("a change");
        assert!(said.contains("retain refused from 1h to 1m, remembered max from 20,000,000 to 1,000,000"), "{said}");
        assert!(said.contains("forgotten for good"), "{said}");
    }
}
