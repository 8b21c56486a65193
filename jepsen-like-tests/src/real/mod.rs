//! Presses on real processes, or on somebody's own cluster: the same clients, journal and checkers as the simulation, real disks and sockets.
//!
//! **What it is.** [`round`](mod@round) is one short run under one kind of fault; [`campaign`] is many of them, for an hour or a night. Our own nodes run in
//! [`node`] mode of this executable: what `ledger-node` serves, on a [`disk`] that really loses what was not synced, with a clock that can be set
//! wrong, their peers behind a [`proxy`].
//!
//! **Owns** nothing but the joining of these. **Must never** call a run good whose clients hardly got anything done: it proves nothing.
//! **Read next**: [`round`](mod@round), [`nemesis`].

pub mod campaign;
pub mod disk;
pub mod failover;
pub mod field;
pub mod knobs;
mod losses;
pub mod nemesis;
pub mod node;
pub mod proxy;
pub mod round;
pub mod starve;

pub use campaign::{Campaign, Row};
pub use nemesis::Nemesis;
pub use round::{Given, Round, RoundReport, round};

/// Why a run could not be carried out. It says nothing about the ledger.
#[derive(Debug, thiserror::Error)]
pub enum RealError {
    /// A process or its place.
    #[error("the local cluster")]
    Cluster(#[from] cluster::dev_cluster::DevClusterError),
    /// The system.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Faults of ours on somebody else's nodes.
    #[error(
        "these nodes are not ours: their processes and links cannot be harmed; hint: --nemesis program --fault-program PATH"
    )]
    NotOurs,
    /// Somebody else's stock, or that of an earlier run.
    #[error("product {sku} exists already: the journal of this run could not explain its stock; hint: a fresh cluster")]
    NotEmpty {
        /// Which.
        sku: String,
    },
    /// A node whose disk lost something did not say so, or was not repaired.
    #[error("node {node}, which {what}, was not repaired within {within:?}: its log names the damage {noticed} times and the end of a repair {repaired} times, see {}", log.display())]
    NotRepaired {
        /// Which.
        node: u64,
        /// What its disk lost.
        what: String,
        /// For how long it was waited for.
        within: std::time::Duration,
        /// Lines that name the damage.
        noticed: usize,
        /// Lines that say that a replica is repaired.
        repaired: usize,
        /// Its log.
        log: std::path::PathBuf,
    },
    /// Nothing to call.
    #[error("no program was given; hint: --fault-program PATH, called with `inject` and `heal`")]
    NoProgram,
    /// The tester's program said no.
    #[error("the fault program failed: {what}")]
    Program {
        /// What it ended with.
        what: String,
    },
    /// The clients' side.
    #[error("{what}: {why}")]
    Clients {
        /// What was tried.
        what: &'static str,
        /// Why not.
        why: String,
    },
}
