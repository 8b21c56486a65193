//! Runs the golden scripts: one behaviour a file, commands in a small language, the printed answers under `---`.
//!
//! Every entry of every script is also checked against the model, the twin, the feed and the audit ([`model::beside`]).
//! `UPDATE_SCRIPTS=1 cargo test -p ledger-core --test scripts` rewrites the expected text: read every line of the
//! difference against the contract before keeping it.
//!
//! **Owns** the runner. **Must never** accept a script without a reason in a comment. **Read next**: [`language`], `scripts/`.

mod language;
mod model;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use language::parse::{Read, Spoken};
use language::{Names, START_MS, orders as print_orders, print};
use ledger_core::view::IdView;
use ledger_core::{Command, OfferKey, Sku, Slot, limits};
use model::beside::Beside;

/// Scripts the suite must at least have found: an empty directory must not pass.
const SCRIPTS_MIN: usize = 60;
/// Entries that one `sweep` may take.
const SWEEPS_MAX: usize = 1_000;

struct Runner {
    names: Names,
    shard: Beside,
}

impl Runner {
    fn new() -> Self {
        let mut runner = Self { names: Names::default(), shard: Beside::new() };
        let all = vec![(Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"))];
        runner.shard.apply(START_MS, vec![Command::OwnSlots { generation: 1, ranges: all }]);
        runner
    }

    /// Runs the commands of one block; what it printed.
    fn block(&mut self, lines: &[&str]) -> String {
        let mut text = String::new();
        let mut batch: Option<Vec<Command>> = None;
        for line in lines.iter().map(|l| l.split(" #").next().expect("a part").trim()).filter(|l| !l.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            match self.names.understand(line) {
                Spoken::Silent => {}
                Spoken::BatchBegins => assert!(batch.replace(Vec::new()).is_none(), "a batch in a batch"),
                Spoken::BatchEnds => self.propose(batch.take().expect("a batch was begun"), &mut text),
                Spoken::Command(command) => match &mut batch {
                    Some(batch) => batch.push(command),
                    None => self.propose(vec![command], &mut text),
                },
                Spoken::Read(read) => self.read(read, &mut text),
            }
        }
        assert!(batch.is_none(), "a batch without its end");
        text
    }

    fn propose(&mut self, commands: Vec<Command>, text: &mut String) {
        let many = commands.len() > 1;
        let (applied, record) = self.shard.apply(self.names.now(), commands);
        for (place, outcome) in applied.outcomes.iter().enumerate() {
            let place = if many { format!("{place} ") } else { String::new() };
            let _ = writeln!(text, "{place}{}", print::outcome(&self.names, outcome));
        }
        if let Some(record) = record {
            *text += &print::record(&self.names, &record, many);
        }
    }

    fn read(&mut self, read: Read, text: &mut String) {
        let line = match read {
            Read::Offer(offer) => self.offer(&offer),
            Read::Product(sku) => self.product(&sku),
            Read::Products(after, max) => {
                let found = self.shard.ledger.products(after.as_ref(), max);
                found.iter().map(|p| p.sku.to_string()).collect::<Vec<_>>().join(" ")
            }
            Read::Sales(sale) => {
                let found = self.shard.ledger.sales(sale.as_ref(), None, 100);
                found.iter().map(print::offer_view).collect::<Vec<_>>().join("\n")
            }
            Read::Id(id) => {
                let view = self.shard.ledger.id(id);
                let view = if let IdView::Reservation(mut r) = view {
                    r.keys.sort();
                    IdView::Reservation(r)
                } else {
                    view
                };
                print::id_view(&self.names, id, &view)
            }
            Read::ForgottenTo(slot) => match self.shard.ledger.forgotten_to(slot) {
                0 => "nothing forgotten".to_string(),
                t => format!("forgotten to {}", print::instant(ledger_core::LedgerTime(t))),
            },
            Read::NextDue => match self.shard.ledger.next_due() {
                Some(t) => format!("next due {}", print::instant(t)),
                None => "nothing due".to_string(),
            },
            Read::Totals => print::totals(&self.shard.ledger.totals()),
            Read::Owned => {
                let (generation, ranges) = self.shard.ledger.owned_slots();
                let ranges: Vec<_> = ranges.iter().map(|(a, b)| format!("{}..{}", a.get(), b.get())).collect();
                format!("generation {generation}: {}", ranges.join(" "))
            }
            Read::Thaw => {
                self.shard.thaw();
                "thawed".to_string()
            }
            Read::Sweep => self.sweep(),
            Read::Order(id) => match self.shard.ledger.order(id) {
                Some(view) => print_orders::view(&self.names, &view),
                None => format!("{}: no such order", self.names.name(id)),
            },
            Read::Orders(phase) => {
                let page = self.shard.ledger.orders(phase, None, 100);
                let briefs = page.orders.iter().map(|o| format!("{} {:?}", self.names.name(o.id), o.brief.phase));
                let briefs = briefs.collect::<Vec<_>>().join(", ");
                if briefs.is_empty() { "no orders".to_string() } else { briefs }
            }
            Read::Parked => {
                let parked = self.shard.ledger.parked(None, 100);
                parked.iter().map(|o| print_orders::view(&self.names, o)).collect::<Vec<_>>().join("\n")
            }
            Read::Queue => print_orders::stats(&self.shard.ledger.queue_stats()),
        };
        let _ = writeln!(text, "{}", line.trim_end());
    }

    fn offer(&self, offer: &OfferKey) -> String {
        self.shard.ledger.offer(offer).map_or("no such offer".to_string(), |v| print::offer_view(&v))
    }

    fn product(&self, sku: &Sku) -> String {
        self.shard.ledger.product(sku).map_or("no such product".to_string(), |v| print::product_view(&v))
    }

    fn sweep(&mut self) -> String {
        let mut entries = 0;
        while self.shard.feed.unswept() > 0 {
            entries += 1;
            assert!(entries <= SWEEPS_MAX, "sweeping does not end");
            self.shard.apply(self.names.now(), vec![Command::Tick]);
        }
        format!("swept in {entries} entries")
    }
}

/// The input of each block: lines up to `---`. What follows up to an empty line or the end is expected text, which is
/// compared as a whole with the script printed anew.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut input = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "---" {
            input.push(line);
            continue;
        }
        lines.by_ref().take_while(|l| !l.is_empty()).for_each(drop);
        blocks.push(std::mem::take(&mut input));
    }
    assert!(input.iter().all(|l| l.trim().is_empty()), "commands without `---` at the end");
    blocks
}

/// The script with the text that it printed now.
fn rewritten(text: &str) -> String {
    let mut runner = Runner::new();
    let mut out = Vec::new();
    for input in blocks(text) {
        let told = input.iter().any(|l| l.trim_start().starts_with('#'));
        assert!(told, "a block without its why: {:?}", input.first());
        let printed = runner.block(&input);
        out.push(format!("{}\n---\n{printed}", input.join("\n")));
    }
    out.join("\n")
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("tests/scripts")
        .map(|e| e.expect("readable").path())
        .filter(|p| p.extension().is_some_and(|e| e == "script"))
        .collect();
    found.sort();
    found
}

/// The first place where two texts differ, with both lines.
fn difference(expected: &str, printed: &str) -> Option<String> {
    if expected == printed {
        return None;
    }
    let mut at = 1;
    let (mut old, mut new) = (expected.lines(), printed.lines());
    loop {
        match (old.next(), new.next()) {
            (Some(a), Some(b)) if a == b => at += 1,
            (None, None) => return Some("only line ends differ".to_string()),
            (a, b) => {
                return Some(format!("line {at}\n  expected: {}\n  printed:  {}", a.unwrap_or("-"), b.unwrap_or("-")));
            }
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the runner is a shell around the core: it reads and rewrites its scripts"
)]
fn scripts_print_what_is_expected() {
    let update = std::env::var("UPDATE_SCRIPTS").is_ok_and(|v| v == "1");
    let only = std::env::var("SCRIPT").ok();
    let mut failed = Vec::new();
    let found = scripts();
    assert!(found.len() >= SCRIPTS_MIN, "only {} scripts found", found.len());
    for path in &found {
        let name = path.file_stem().expect("a name").to_string_lossy().to_string();
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("readable");
        match std::panic::catch_unwind(|| rewritten(&text)) {
            Err(_) => failed.push(format!("{name}: panicked, see above")),
            Ok(printed) if update => std::fs::write(path, printed).expect("writable"),
            Ok(printed) => failed.extend(difference(&text, &printed).map(|d| format!("{name}: {d}"))),
        }
    }
    assert!(failed.is_empty(), "{} of {} scripts:\n{}", failed.len(), found.len(), failed.join("\n"));
}
