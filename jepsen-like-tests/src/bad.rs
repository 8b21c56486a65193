//! The known-bad builds: what is wrong in each, and who ought to notice.
//!
//! **What it is.** A build with `--cfg holdfast_known_bad` has a switch at each of these places in the product; `jepsen mutation-test` throws
//! one after the other and looks for a seed that finds it. In any other build none of them exists.
//!
//! **Owns** the list. **Must never** be needed by the product. **Read next**: `docs/testing.md`, known-bad builds.

/// One wrong thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad {
    /// Its name, as the product asks for it.
    pub name: &'static str,
    /// What is wrong.
    pub what: &'static str,
}

/// All of them.
pub const ALL: [Bad; 45] = [
    Bad { name: "ack-before-sync", what: "the log says durable before it has synced" },
    Bad { name: "vote-not-durable", what: "a vote is kept in memory only" },
    Bad { name: "rotten-as-torn", what: "a rotten round of the log is cut off like a torn one" },
    Bad { name: "log-never-carried", what: "a quiet group's few entries keep every segment of the log" },
    Bad {
        name: "carried-entry-lost",
        what: "segments are given up though the entries carried out of them were not written",
    },
    Bad { name: "leader-alone", what: "a leader answers in the stead of its followers" },
    Bad { name: "clock-quorum-ignored", what: "a leader stamps by its own clock alone" },
    Bad { name: "clock-jump-unchecked", what: "a new leader follows a quorum of clocks however far they jumped" },
    Bad { name: "expire-by-wall-clock", what: "each replica asks its own clock what has expired" },
    Bad { name: "sweep-after-verdict", what: "commands are judged before time has passed" },
    Bad { name: "forget-ids-after-restart", what: "a snapshot read back has forgotten its ids" },
    Bad { name: "snapshot-without-counts", what: "a snapshot read back has forgotten what limits counted as bought" },
    Bad { name: "limit-outside-apply", what: "limits are looked at once for all commands of an entry" },
    Bad { name: "reference-forgotten-early", what: "a reference of a delivery is remembered for a second" },
    Bad { name: "ended-offer-removed-early", what: "the offer of an ended sale goes though reservations name it" },
    Bad { name: "count-dropped-while-held", what: "a limit drops all holds of a key when one of them expires" },
    Bad { name: "forgotten-bound-off-by-one", what: "the id that was forgotten last may execute again" },
    Bad { name: "apply-twice", what: "a batch is applied twice, past the memory of references" },
    Bad { name: "lose-batch-tail", what: "followers lose the last command of a batch" },
    Bad { name: "stale-read-as-linearizable", what: "a linearizable read is answered without asking a quorum" },
    Bad { name: "history-record-skipped", what: "now and then a record is missing in feed and history" },
    Bad { name: "history-gap-forgotten", what: "a node forgets what history misses behind a peer's snapshot" },
    Bad { name: "unknown-as-not-now", what: "the SDK says that nothing happened when it does not know" },
    Bad { name: "id-reminted-on-retry", what: "the SDK retries under a new id" },
    Bad { name: "refused-id-not-remembered", what: "a refused id may execute later" },
    Bad { name: "undecodable-entry-aborts", what: "a committed entry that cannot be decoded ends the process" },
    Bad {
        name: "entry-bounds-unchecked",
        what: "lines of one offer are not summed, and nobody counts them before they are logged",
    },
    Bad { name: "park-before-sweep", what: "a lease lost too often parks its order before the due hold is swept" },
    Bad { name: "early-payment-takes-id", what: "a payment that comes before its order takes the order's id" },
    Bad { name: "cursor-beyond-end-waits", what: "a watch behind the feed's end waits instead of being told so" },
    Bad { name: "entry-above-log-bound", what: "entries larger than the log takes are proposed" },
    Bad { name: "order-outlives-hold", what: "an order that nobody claimed outlives its hold" },
    Bad { name: "follower-skips-claims", what: "followers do not apply claims of orders" },
    Bad { name: "answer-dropped", what: "the last answer of an entry is not in the frame" },
    Bad { name: "cross-site-taken", what: "a page of another site may write over HTTP" },
    Bad { name: "peer-not-asked", what: "anybody from anywhere may be a peer" },
    Bad { name: "disk-id-unchecked", what: "a member may join and connect on any disk" },
    Bad { name: "memory-of-others-ignored", what: "what others remember of a replica is not held against its disk" },
    Bad { name: "reverted-follower-accepted", what: "a leader goes on with a member that lacks what it acknowledged" },
    Bad { name: "damage-not-recorded", what: "damage found while a replica runs is forgotten by a restart" },
    Bad { name: "copied-directory-accepted", what: "a copy of a directory counts as the original" },
    Bad { name: "repair-without-all-voters", what: "a damaged replica is repaired by those that answer" },
    Bad { name: "shard-begun-twice", what: "a node whose log is gone begins its shards anew and votes in them" },
    Bad { name: "rejoined-disk-believed", what: "a node that came back on an empty disk counts as whole" },
    Bad { name: "invalid-as-internal", what: "invalid input is answered as a fault of the node" },
];

/// Whether this build has the switches.
pub const fn is_known_bad_build() -> bool {
    cfg!(holdfast_known_bad)
}

/// Switches one wrong thing on in this thread, and any other off; an empty name is none.
///
/// # Panics
/// On a name that is not of the list, or on any in a build without the switches: the run would prove nothing.
pub fn set(name: &str) {
    let bad = ALL.iter().find(|bad| bad.name == name);
    assert!(name.is_empty() || bad.is_some(), "no wrong thing is called {name:?}");
    assert!(name.is_empty() || is_known_bad_build(), "{name:?} cannot be switched on: this is not a known-bad build");
    #[cfg(holdfast_known_bad)]
    {
        let name = bad.map_or("", |bad| bad.name);
        ledger_core::bad::set(name);
        ledger_raft::bad::set(name);
    }
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
            if entry.is_dir() {
                sources(&entry, found);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                found.push(entry);
            }
        }
    }

    /// Names asked for as `bad!("…")` or `bad::is("…")`.
    fn asked_in(text: &str) -> Vec<String> {
        let after = |mark: &'static str| text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
        after("bad!(\"").chain(after("bad::is(\"")).map(str::to_owned).collect()
    }

    #[test]
    fn the_list_and_the_places_in_the_product_agree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
        let mut files = Vec::new();
        for krate in ["ledger-core", "ledger-proto", "ledger-raft", "ledger-node", "client-sdk"] {
            sources(&root.join(krate).join("src"), &mut files);
        }
        files.retain(|file| !file.ends_with("src/bad.rs"));
        let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("readable"));
        let asked: BTreeSet<String> = texts.flat_map(|text| asked_in(&text)).collect();
        assert_eq!(asked, ALL.iter().map(|bad| bad.name.to_owned()).collect());
    }
}
