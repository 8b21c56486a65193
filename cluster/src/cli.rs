//! The command line of `ledgerctl`: every verb, its flags, and help that teaches.
//!
//! **Owns** names and defaults of flags. **Must never** do anything. **Read next**: [`crate::commands`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

mod bench;
mod data_dir;
mod log;
mod node;
mod orders;

pub use bench::{BenchArgs, Shape};
pub use data_dir::{DataDirVerb, MovedArgs};
pub use log::{LogListArgs, LogShowArgs, LogVerb};
pub use node::{NodeVerb, RejoinArgs};
pub use orders::{ByHandArgs, DlqVerb, ExplainArgs, OrderVerb, OrdersArgs, QueueVerb};

const EXAMPLES: &str = "\
Examples:
  ledgerctl demo                                     a flash sale on three nodes, the leader killed, the books audited
  ledgerctl dev                                      a cluster on this machine until Ctrl-C
  ledgerctl --endpoints 127.0.0.1:7101 status        nodes, shards, leaders, lag, digests
  ledgerctl product create mug --units 100 --ref first-delivery
  ledgerctl sale create black-friday --sku mug=50 --per-key-max 2
  ledgerctl reserve mug=1 --buyer alice              prints the id before it asks
  ledgerctl audit                                    recompute the promises on the live cluster

Endpoints come from --endpoints, else HOLDFAST_ENDPOINTS, else ~/.config/holdfast/context.toml (endpoints = [\"host:7101\"]).
Data goes to stdout, everything else to stderr. Exit: 0 done · 1 refused · 2 usage · 3 unknown whether it happened.";

/// The operator's hand on a Holdfast cluster.
#[derive(Debug, Parser)]
#[command(name = "ledgerctl", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// host:port of the nodes' client ports, comma-separated; some of them suffice.
    #[arg(long, global = true, env = "HOLDFAST_ENDPOINTS", value_delimiter = ',', value_name = "HOST:PORT")]
    pub endpoints: Vec<String>,
    /// How data is printed.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Do not ask before a change.
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// A flash sale from start to audited end: three nodes, a crowd, a killed leader.
    Demo(DemoArgs),
    /// A three-node cluster on this machine, kept running until Ctrl-C.
    Dev(DevArgs),
    /// Make running, empty nodes one cluster.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Nodes, shards, leaders, lag, and whether the replicas' digests agree.
    Status,
    /// Products: create, show, list, close, open.
    #[command(subcommand)]
    Product(ProductVerb),
    /// Sales: create, show, list, end.
    #[command(subcommand)]
    Sale(SaleVerb),
    /// Add units to an offer.
    Receive(ReceiveArgs),
    /// Correct an offer's available units, up or down.
    Adjust(AdjustArgs),
    /// Claim units for a buyer; prints the id before it asks.
    Reserve(ReserveArgs),
    /// Sell a live hold.
    Confirm(IdArgs),
    /// Give a live hold back.
    Release(IdArgs),
    /// Move a live hold's deadline.
    Extend(ExtendArgs),
    /// Tell what became of an id, or make sure that it never executes.
    Resolve(IdArgs),
    /// Reservations: show.
    #[command(subcommand)]
    Reservation(ReservationVerb),
    /// Orders: list, show, explain, redrive, close, refund.
    #[command(subcommand)]
    Order(OrderVerb),
    /// The workers' queues: stats.
    #[command(subcommand)]
    Queue(QueueVerb),
    /// Dead letters (parked orders): list.
    #[command(subcommand)]
    Dlq(DlqVerb),
    /// Create products and receive their units from a CSV file.
    Import(ImportArgs),
    /// Follow the feed of changes.
    Watch(WatchArgs),
    /// Recompute the promises on the live cluster, from every node and from history.
    Audit(AuditArgs),
    /// Hand a shard's leadership to another replica.
    TransferLeader(TransferArgs),
    /// Build a snapshot of a shard on one node now.
    Snapshot(SnapshotArgs),
    /// The log of a stopped node, entry by entry: list, show. Reads the data directory, and changes nothing.
    #[command(subcommand)]
    Log(LogVerb),
    /// Members: bring one back that lost its data directory.
    #[command(subcommand)]
    Node(NodeVerb),
    /// The data directory of a stopped node: record that it was moved.
    #[command(subcommand)]
    DataDir(DataDirVerb),
    /// Measure a cluster: open or closed loop, histograms, CPU per operation.
    Bench(BenchArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
    /// Run an order worker in this process (used by demo and bench; its parent holds its stdin).
    #[command(hide = true, disable_help_flag = true)]
    Worker {
        /// As `order-worker run` takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a payment provider for tests in this process (used by demo and bench; its parent holds its stdin).
    #[command(hide = true, disable_help_flag = true)]
    Provider {
        /// As `payment-sim` takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a node in this process (used by demo and dev; its parent holds its stdin).
    #[command(hide = true, disable_help_flag = true)]
    RunNode {
        /// As `ledger-node` takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// `cluster …`
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Make running, empty nodes one cluster. Safe to repeat with the same members.
    #[command(after_help = "Example:\n  ledgerctl cluster init --members 1=host1:7101,2=host2:7101,3=host3:7101")]
    Init {
        /// ID=HOST:PORT of each node's client port, as the other hosts reach it.
        #[arg(long, required = true, value_delimiter = ',', value_name = "ID=HOST:PORT", value_parser = member)]
        members: Vec<(u64, String)>,
        /// Shards to spread the products over; 0: one a node.
        #[arg(long, default_value_t = 0)]
        shards: u32,
        /// Replicas of each shard; 0: three, or five from five nodes on.
        #[arg(long, default_value_t = 0)]
        replicas: u32,
        /// Make the cluster though nodes' clocks differ from this machine's.
        #[arg(long)]
        accept_clock: bool,
    },
    /// Ledger time and the nodes' clocks.
    #[command(subcommand)]
    Clock(ClockVerb),
    /// How long what has ended is remembered, in all shards.
    #[command(subcommand)]
    Settings(SettingsVerb),
}

/// `cluster clock …`
#[derive(Debug, Subcommand)]
pub enum ClockVerb {
    /// Let ledger time go on from where the clocks of a quorum jumped to. It never goes back: holds whose deadline the jump passes end.
    Accept,
}

/// `cluster settings …`
#[derive(Debug, Subcommand)]
pub enum SettingsVerb {
    /// What is set, and whether every shard has it.
    Show,
    /// Change some of it in every shard; what is not named stays. Safe to repeat.
    #[command(after_help = "Example:\n  ledgerctl cluster settings set --retain-sold 45d --remembered-max 5000000")]
    Set(SettingsArgs),
}

/// What is remembered for how long.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SettingsArgs {
    /// Confirmed reservations, from their confirmation: the window for returns; as 30d.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub retain_sold: Option<Duration>,
    /// Released and expired reservations, from their end.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub retain_ended: Option<Duration>,
    /// Refusals and fences.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub retain_refused: Option<Duration>,
    /// Most ids of one shard that are neither live nor sold; the oldest are forgotten first.
    #[arg(long)]
    pub remembered_max: Option<u64>,
}

/// What an offer allows, as flags.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyArgs {
    /// Units that one limit key (buyer) may hold and have bought.
    #[arg(long)]
    pub per_key_max: Option<u32>,
    /// Fewest units of one reservation.
    #[arg(long)]
    pub per_order_min: Option<u32>,
    /// Most units of one reservation.
    #[arg(long)]
    pub per_order_max: Option<u32>,
    /// Hold time when the caller names none, as 10m.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub hold: Option<Duration>,
    /// Longest hold time a caller may name.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub hold_max: Option<Duration>,
    /// StockLow is told when availability falls to this.
    #[arg(long)]
    pub low_stock: Option<u64>,
    /// A price note; the ledger does not compute with it.
    #[arg(long)]
    pub price: Option<String>,
}

/// `product …`
#[derive(Debug, Subcommand)]
pub enum ProductVerb {
    /// Create a product, and receive its first units. Safe to repeat.
    #[command(after_help = "Example:\n  ledgerctl product create mug --units 100 --ref first-delivery --low-stock 10")]
    Create {
        /// The new product.
        sku: String,
        /// Units to receive at once.
        #[arg(long, requires = "reference")]
        units: Option<i64>,
        /// Reference of that delivery: unique per product, makes it safe to repeat.
        #[arg(long = "ref", value_name = "REF")]
        reference: Option<String>,
        /// What its plain offer allows.
        #[command(flatten)]
        policy: PolicyArgs,
    },
    /// Delete a product. It must have no units and no sale, and no reservation or refusal that is remembered may refer to it.
    #[command(after_help = "\
Units: `ledgerctl stock adjust SKU -N`. Sales: `ledgerctl sale end`; the offer of an ended sale is removed when the last
reservation of it is forgotten. Reservations: their retention (`ledgerctl cluster settings show`).")]
    Delete {
        /// Which product.
        sku: String,
    },
    /// One product with all its offers.
    Show {
        /// Which product.
        sku: String,
    },
    /// All products.
    List,
    /// Close an offer: no new reservations; live holds go on.
    Close(OfferArgs),
    /// Open an offer again.
    Open(OfferArgs),
}

/// One offer.
#[derive(Debug, Args)]
pub struct OfferArgs {
    /// The product.
    pub sku: String,
    /// The sale; absent: the plain offer.
    #[arg(long)]
    pub sale: Option<String>,
}

/// `sale …`
#[derive(Debug, Subcommand)]
pub enum SaleVerb {
    /// Put products on sale: an offer for each, with units moved from the plain offer. Safe to repeat.
    #[command(after_help = "\
Examples:
  ledgerctl sale create black-friday --sku mug=50 --sku plate=20 --per-key-max 2 --opens 2026-11-27T09:00:00Z --lasts 24h
  ledgerctl sale create black-friday --csv sale.csv          columns: sku,units")]
    Create {
        /// The sale's id.
        sale: String,
        /// SKU=UNITS: units move from the plain offer into the sale. May be repeated.
        #[arg(long = "sku", value_name = "SKU=UNITS", value_parser = sku_units)]
        skus: Vec<(String, i64)>,
        /// The same as a file with columns sku and units.
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
        /// First instant at which it takes reservations (RFC 3339); absent: at once.
        #[arg(long, value_parser = timestamp)]
        opens: Option<u64>,
        /// First instant at which it no longer does; absent: never.
        #[arg(long, value_parser = timestamp, conflicts_with = "lasts")]
        closes: Option<u64>,
        /// How long it lasts, from --opens or from now (name --opens too if the command is to be safe to repeat).
        #[arg(long, value_parser = humantime::parse_duration)]
        lasts: Option<Duration>,
        /// What its offers allow.
        #[command(flatten)]
        policy: PolicyArgs,
    },
    /// One sale's offers.
    Show {
        /// Which sale.
        sale: String,
    },
    /// All sales.
    List,
    /// End a sale for good: its available units go back to the plain offers.
    End {
        /// Which sale.
        sale: String,
    },
}

/// `receive`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ledgerctl receive mug 100 --ref delivery-2026-11-21")]
pub struct ReceiveArgs {
    /// Where to.
    #[command(flatten)]
    pub offer: OfferArgs,
    /// How many.
    #[arg(allow_negative_numbers = true)]
    pub units: i64,
    /// Unique per product; makes it safe to repeat.
    #[arg(long = "ref", required = true, value_name = "REF")]
    pub reference: String,
}

/// `adjust`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ledgerctl adjust mug -2 --reason \"broken in the warehouse\" --ref count-2026-11-21"
)]
pub struct AdjustArgs {
    /// Where.
    #[command(flatten)]
    pub offer: OfferArgs,
    /// Signed difference.
    #[arg(allow_negative_numbers = true)]
    pub delta: i64,
    /// Why; kept in history.
    #[arg(long, required = true)]
    pub reason: String,
    /// Unique per product; makes it safe to repeat.
    #[arg(long = "ref", required = true, value_name = "REF")]
    pub reference: String,
    /// Only if the offer is still at this version (see: product show).
    #[arg(long)]
    pub expect_version: Option<u64>,
}

/// `reserve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ledgerctl reserve mug=1 --buyer alice --hold 10m
  ledgerctl reserve shoe=1 --sale black-friday --buyer alice --key card:4711
  ledgerctl reserve mug=1 --buyer alice --id 0192…      ask again about the same reservation: no second effect")]
pub struct ReserveArgs {
    /// SKU=UNITS; several lines are all or nothing and must live in one slot.
    #[arg(required = true, value_name = "SKU=UNITS", value_parser = sku_units)]
    pub lines: Vec<(String, i64)>,
    /// The buyer: the first key that limits count by.
    #[arg(long)]
    pub buyer: String,
    /// Further limit keys.
    #[arg(long = "key")]
    pub keys: Vec<String>,
    /// From this sale; absent: the plain offers.
    #[arg(long)]
    pub sale: Option<String>,
    /// How long to hold the units; absent: the offer's default.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub hold: Option<Duration>,
    /// The id of an earlier try; absent: a new one is minted and printed before asking.
    #[arg(long, value_parser = reservation_id)]
    pub id: Option<client_sdk::ReservationId>,
}

/// One reservation.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The reservation's id.
    #[arg(value_parser = reservation_id)]
    pub id: client_sdk::ReservationId,
}

/// `extend`
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// Which.
    #[command(flatten)]
    pub id: IdArgs,
    /// From now.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// The deadline it replaces, in ledger time (ms); absent: as read just before.
    #[arg(long)]
    pub replaces_ms: Option<u64>,
}

/// `reservation …`
#[derive(Debug, Subcommand)]
pub enum ReservationVerb {
    /// What is known of a reservation id.
    Show(IdArgs),
}

/// `import`
#[derive(Debug, Args)]
#[command(after_help = "\
The file: a header line, then one product a line. Columns: sku and units are needed; name, price, low_stock, per_key_max,
per_order_max and hold may be there. The whole file is checked before anything is sent, and every error names its line.

Each line is received under the reference FILE-NAME:LINE, so importing the same file again adds nothing. Append to a file, do
not reorder it; give a new delivery a new file name or --batch.

Example:
  ledgerctl import catalog.csv --batch 2026-11-21")]
pub struct ImportArgs {
    /// The CSV file.
    pub file: PathBuf,
    /// The name that references are made of, instead of the file's name.
    #[arg(long)]
    pub batch: Option<String>,
    /// Only check the file.
    #[arg(long)]
    pub check: bool,
}

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only what happens from now on; otherwise from the oldest change that is kept.
    #[arg(long)]
    pub from_now: bool,
    /// Only these products; may be repeated.
    #[arg(long = "sku")]
    pub skus: Vec<String>,
    /// End after so many changes.
    #[arg(long)]
    pub max: Option<u64>,
}

/// `audit`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 every promise holds, 1 one is broken, 3 nothing is wrong in what was seen, but not everything could be
looked at (a node that does not answer, a replica that does not follow, replicas that were not compared).")]
pub struct AuditArgs {
    /// Skip the recomputation from history (it reads every change that is kept).
    #[arg(long)]
    pub no_history: bool,
    /// The longest it may take; what was not looked at by then is named. Without it the audit goes on for as long as it makes progress.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub within: Option<Duration>,
}

/// `transfer-leader`
#[derive(Debug, Args)]
pub struct TransferArgs {
    /// Which shard.
    #[arg(long)]
    pub shard: u32,
    /// To which node.
    #[arg(long)]
    pub to: u64,
}

/// `snapshot`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Which shard.
    #[arg(long)]
    pub shard: u32,
    /// On which node; absent: on all.
    #[arg(long)]
    pub node: Option<u64>,
}

/// `demo`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  ledgerctl demo                              10,000 buyers for 50 units, one kill -9 of the leader
  ledgerctl demo --kills 2                    the leader of the hot shard is killed twice
  ledgerctl demo --catalog mine.csv --hot mug --units 20 --buyers 5000

The exit code says whether the audit held.")]
pub struct DemoArgs {
    /// A catalog of your own (see: ledgerctl import --help).
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
    /// The hot product; absent: the catalog's first.
    #[arg(long, value_name = "SKU")]
    pub hot: Option<String>,
    /// Units of the hot product in the sale; absent: what the catalog says, 50 at most.
    #[arg(long)]
    pub units: Option<u32>,
    /// Buyers who want the hot product, all at once.
    #[arg(long, default_value_t = 10_000)]
    pub buyers: usize,
    /// Shoppers who buy the other products at the same time.
    #[arg(long, default_value_t = 200)]
    pub shoppers: usize,
    /// Customers who place orders that workers bring to the payment provider, which turns slow and fails for a while; 0: none.
    #[arg(long, default_value_t = 300)]
    pub orders: usize,
    /// How often somebody is killed with SIGKILL in the middle of it.
    #[arg(long, default_value_t = 1)]
    pub kills: u32,
    /// Who is killed.
    #[arg(long, value_enum, default_value = "leader")]
    pub victim: Victim,
    /// Seeds the crowd's choices.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Keep the directory with logs and journal even if all is well.
    #[arg(long)]
    pub keep: bool,
}

/// Whom the demo kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    /// The leader of the hot shard.
    Leader,
    /// A follower of the hot shard.
    Follower,
    /// All nodes at once.
    All,
}

/// `dev`
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where data lives; absent: a temporary directory, removed at the end.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    pub nodes: u64,
    /// A catalog to import at once.
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,
}

fn member(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("write ID=HOST:PORT, as 1=host1:7101")?;
    let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or("the id is a number from 1 on")?;
    let address = crate::context::checked(address).map_err(|e| e.to_string())?;
    Ok((id, address))
}

fn sku_units(text: &str) -> Result<(String, i64), String> {
    let (sku, units) = text.rsplit_once('=').ok_or("write SKU=UNITS, as mug=2")?;
    let units = units.parse::<i64>().ok().filter(|n| *n > 0).ok_or("the units are a number from 1 on")?;
    client_sdk::Sku::new(sku).map_err(|e| e.to_string())?;
    Ok((sku.to_owned(), units))
}

fn timestamp(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "write an instant as 2026-11-27T09:00:00Z")?;
    u64::try_from(time.as_millisecond()).map_err(|_| "an instant after 1970 is wanted".into())
}

fn reservation_id(text: &str) -> Result<client_sdk::ReservationId, String> {
    text.parse().map_err(|e: client_sdk::InvalidValue| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn references_are_required() {
        for line in
            ["ledgerctl receive mug 5", "ledgerctl adjust mug -5 --reason x", "ledgerctl product create mug --units 5"]
        {
            let error = parse(line).expect_err(line);
            assert!(error.to_string().contains("--ref"), "{line}: {error}");
        }
        assert!(parse("ledgerctl adjust mug -5 --reason x --ref y").is_ok());
    }

    #[test]
    fn values_are_checked_before_anything_is_sent() {
        for line in [
            "ledgerctl reserve mug=0 --buyer a",
            "ledgerctl reserve mug --buyer a",
            "ledgerctl confirm not-an-id",
            "ledgerctl cluster init --members 0=a:1",
            "ledgerctl cluster init --members 1=a",
            "ledgerctl sale create s --sku mug=5 --opens tomorrow",
            "ledgerctl bench --shape z",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn members_and_lines_are_understood() {
        let cli = parse("ledgerctl cluster init --members 1=h1:7101,2=h2:7101 --yes").expect("good");
        let Verb::Cluster(ClusterVerb::Init { members, .. }) = cli.command else { panic!("init") };
        assert_eq!(members, [(1, "h1:7101".to_owned()), (2, "h2:7101".to_owned())]);
        let cli = parse("ledgerctl reserve a{x}=2 b{x}=1 --buyer me --hold 90s -o json").expect("good");
        let Verb::Reserve(args) = cli.command else { panic!("reserve") };
        assert_eq!(args.lines, [("a{x}".to_owned(), 2), ("b{x}".to_owned(), 1)]);
        assert_eq!(args.hold, Some(Duration::from_secs(90)));
    }

    #[test]
    fn node_arguments_pass_through() {
        let cli = parse("ledgerctl run-node --config a.toml --help").expect("good");
        let Verb::RunNode { args } = cli.command else { panic!("run-node") };
        assert_eq!(args, ["--config", "a.toml", "--help"]);
    }

    #[test]
    fn members_that_come_back_are_named_by_their_ids() {
        let cli = parse("ledgerctl node rejoin 2 4 --at 4=h9:7101 --yes").expect("good");
        let Verb::Node(NodeVerb::Rejoin(args)) = cli.command else { panic!("rejoin") };
        assert_eq!((args.nodes, args.at), (vec![2, 4], vec![(4, "h9:7101".to_owned())]));
        for bad in ["ledgerctl node rejoin", "ledgerctl node rejoin two", "ledgerctl node rejoin 2 --at h9:7101"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
