//! One file an area of verbs; each says what it will do, does it through the SDK, and prints a document.
//!
//! **Owns** the way from a parsed command line to its outcome. **Must never** print data anywhere but stdout.
//! **Read next**: [`crate::cli`], then any of these.

mod audit;
mod clock;
mod cluster;
mod data_dir;
mod dev;
mod import;
mod log;
mod node;
mod orders;
mod product;
mod reservation;
mod sale;
mod settings;
mod stock;
mod watch;

pub(crate) use audit::wait_caught_up;
pub use audit::{AuditDoc, audit_cluster};
pub(crate) use import::bad_file;
pub use import::{ImportDoc, import_lines};
pub(crate) use orders::phase_named;
pub(crate) use product::all_products;
pub(crate) use sale::shard_of;
pub use sale::{SalePlan, create_sale};

use client_sdk::{Client, OfferKey, SaleId, Sku};

use crate::cli::{Cli, ClockVerb, ClusterVerb, Verb};
use crate::link::{ClusterLink, connect};
use crate::output::{Failure, Outcome, Printer};

/// What a command has at hand.
pub struct Desk {
    /// Where the cluster is.
    pub endpoints: Vec<String>,
    /// How to print, and whether to ask.
    pub printer: Printer,
}

impl Desk {
    async fn client(&self) -> Outcome<Client> {
        connect(&self.endpoints).await
    }
    fn link(&self) -> Outcome<ClusterLink> {
        ClusterLink::new(&self.endpoints)
    }
}

/// Runs a parsed command line.
///
/// # Errors
/// [`Failure`], which decides the exit code.
pub async fn run(cli: Cli) -> Outcome {
    let printer = Printer { format: cli.output, yes: cli.yes };
    crate::context::check_variables(::settings::process_environment())?;
    let environment = |name: &str| std::env::var(name).ok();
    let desk = || crate::context::endpoints(&cli.endpoints, environment).map(|endpoints| Desk { endpoints, printer });
    match cli.command {
        Verb::Demo(args) => crate::demo::run(args, printer).await,
        Verb::Dev(args) => dev::run(args, printer).await,
        Verb::Bench(args) if args.spawn || args.catch_up => crate::bench::run(args, Vec::new(), printer).await,
        Verb::Bench(args) => crate::bench::run(args, desk()?.endpoints, printer).await,
        Verb::Cluster(ClusterVerb::Init { members, shards, replicas, accept_clock }) => {
            clock::compare(&members, accept_clock).await?;
            cluster::init(members, shards, replicas, &cli.endpoints, printer).await
        }
        Verb::Cluster(ClusterVerb::Clock(ClockVerb::Accept)) => clock::accept(&desk()?).await,
        Verb::Cluster(ClusterVerb::Settings(verb)) => settings::run(&desk()?, verb).await,
        Verb::Status => cluster::status(&desk()?).await,
        Verb::TransferLeader(args) => cluster::transfer(&desk()?, args).await,
        Verb::Log(verb) => log::run(verb, printer),
        Verb::Node(verb) => node::run(&desk()?, verb).await,
        Verb::DataDir(verb) => data_dir::run(verb, printer),
        Verb::Snapshot(args) => cluster::snapshot(&desk()?, args).await,
        Verb::Product(verb) => product::run(&desk()?, verb).await,
        Verb::Sale(verb) => sale::run(&desk()?, verb).await,
        Verb::Receive(args) => stock::receive(&desk()?, args).await,
        Verb::Adjust(args) => stock::adjust(&desk()?, args).await,
        Verb::Reserve(args) => reservation::reserve(&desk()?, args).await,
        Verb::Confirm(args) => reservation::confirm(&desk()?, args).await,
        Verb::Release(args) => reservation::release(&desk()?, args).await,
        Verb::Extend(args) => reservation::extend(&desk()?, args).await,
        Verb::Resolve(args) => reservation::resolve(&desk()?, args).await,
        Verb::Reservation(verb) => reservation::run(&desk()?, verb).await,
        Verb::Order(verb) => orders::run(&desk()?, verb).await,
        Verb::Queue(verb) => orders::queue(&desk()?, verb).await,
        Verb::Dlq(verb) => orders::dlq(&desk()?, verb).await,
        Verb::Import(args) if args.check => import::check(&args, printer),
        Verb::Import(args) => import::run(&desk()?, args).await,
        Verb::Watch(args) => watch::run(&desk()?, args).await,
        Verb::Audit(args) => audit::run(&desk()?, args).await,
        Verb::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut <Cli as clap::CommandFactory>::command(),
                "ledgerctl",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Verb::Version => {
            let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
            printer.print(&version, |_| format!("ledgerctl {}", env!("CARGO_PKG_VERSION")))
        }
        Verb::RunNode { .. } | Verb::Worker { .. } | Verb::Provider { .. } => {
            Err(Failure::usage("node mode takes a process of its own"))
        }
    }
}

fn offer_key(sku: &str, sale: Option<&str>) -> Outcome<OfferKey> {
    let invalid = |e: client_sdk::InvalidValue| Failure::usage(e.to_string());
    let sale = sale.map(SaleId::new).transpose().map_err(invalid)?;
    Ok(OfferKey { sku: Sku::new(sku).map_err(invalid)?, sale })
}

fn offer_name(offer: &OfferKey) -> String {
    match &offer.sale {
        Some(sale) => format!("{} in sale {sale}", offer.sku),
        None => offer.sku.to_string(),
    }
}

fn policy_of(args: &crate::cli::PolicyArgs) -> Outcome<client_sdk::Policy> {
    let mut policy = client_sdk::Policy { per_key_max: args.per_key_max, ..client_sdk::Policy::default() };
    policy.per_order_min = args.per_order_min.unwrap_or(policy.per_order_min);
    policy.per_order_max = args.per_order_max.unwrap_or(policy.per_order_max);
    policy.hold_ms_max = args.hold_max.map_or(policy.hold_ms_max, |d| d.as_millis() as u64);
    policy.hold_ms_default = args.hold.map_or(policy.hold_ms_default, |d| d.as_millis() as u64).min(policy.hold_ms_max);
    policy.low_stock_at = args.low_stock.unwrap_or(0);
    let invalid = |e: client_sdk::InvalidValue| Failure::usage(e.to_string());
    policy.price = args.price.as_deref().map(client_sdk::Price::new).transpose().map_err(invalid)?;
    policy.validate().map_err(invalid)?;
    Ok(policy)
}
