//! The flags of `bench`.
//!
//! **Owns** names and defaults of its flags. **Must never** do anything. **Read next**: [`crate::bench`].

use std::time::Duration;

use clap::Args;

/// What a bench sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// 500 callers, one reservation a message, 16 streams, no batching.
    A1,
    /// 500 tasks through the SDK's auto-batching.
    A2,
    /// 16 streams, batches of 100.
    B,
    /// One stream, batches of 8,190.
    C,
    /// A lone caller through the SDK.
    D,
    /// Unary gRPC, 500 callers.
    E,
    /// HTTP/JSON, 500 connections.
    F,
    /// Linearizable stock reads, 500 callers.
    G,
    /// Stale stock reads on followers, 500 callers.
    GStale,
    /// Orders accepted, two commands each in one batch (reserve, then place): 16 streams, batches of 100 orders, no workers.
    OrdersAccepted,
    /// Orders accepted, one command each (reserve and queue at once): 16 streams, batches of 100 orders, no workers.
    OrdersPlaced,
    /// Orders from reserve to the buyer's notification, through order workers and payment-sim; 1,000 unfinished at a time.
    Orders,
    /// Reservations (open loop) and orders while the provider is well, three seconds slow, down, and back.
    OrdersOutage,
}

impl Shape {
    /// Whether it leaves orders, so that it needs a cluster of its own.
    pub fn has_orders(self) -> bool {
        matches!(self, Self::OrdersAccepted | Self::OrdersPlaced | Self::Orders | Self::OrdersOutage)
    }
}

/// `bench`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  ledgerctl bench --spawn --shape a2                    a cluster of its own, 10 s, closed loop
  ledgerctl bench --spawn --shape a1,a2,b,d -o json
  ledgerctl --endpoints … bench --shape a2 --rate 50000 open loop: latency counts from when a call was due
  ledgerctl bench --spawn --shape b --feature-cost      what limits, expiry and watchers cost, in one run
  ledgerctl bench --spawn --shape orders                reserve, pay, confirm, notify: workers and a provider of its own
  ledgerctl bench --spawn --shape orders-outage         does stock stay fast, and is every order paid once, while the provider fails?

Shapes with orders need --spawn: on a cluster of yours workers would find orders that they cannot open, or pay yours at a simulator.
Products named bench-… are created and filled; every run ends with an audit that nothing oversold.")]
pub struct BenchArgs {
    /// What to send; several run one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "a2")]
    pub shape: Vec<Shape>,
    /// Start a cluster of its own for the run.
    #[arg(long)]
    pub spawn: bool,
    /// Instead of a shape: keep a follower down until the log it needs is gone, and measure while it catches up by snapshot.
    #[arg(long, conflicts_with_all = ["spawn", "feature_cost"])]
    pub catch_up: bool,
    /// Shards of that cluster; one hot product is one shard.
    #[arg(long, default_value_t = 1)]
    pub shards: u32,
    /// Bytes of memory each node of that cluster reserves before it starts, as an operator would before a sale. Not set: 1 GiB, and
    /// more for each second of the shapes that pile up most: 64 MiB in b and c, 128 MiB in those that only pile up orders; 3 GiB at most.
    #[arg(long)]
    pub memory_reserve: Option<u64>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Seconds before it that do not count.
    #[arg(long, default_value_t = 1)]
    pub warmup: u64,
    /// Products the load is spread over.
    #[arg(long, default_value_t = 1)]
    pub products: usize,
    /// Operations a second (open loop); absent: closed loop, and 5,000 reservations in shape orders-outage.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Callers, instead of the shape's; in shape orders: unfinished orders at a time.
    #[arg(long)]
    pub callers: Option<usize>,
    /// Order workers (shapes orders and orders-outage).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub workers: u64,
    /// Orders of which each worker runs the payment at once, and as many of which it tells; absent: 256 in shape orders, whose provider
    /// answers in a millisecond, else the worker's own numbers.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub concurrency: Option<u64>,
    /// Orders a second in shape orders-outage.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub order_rate: u64,
    /// Seconds for which the provider is well, slow, and down in shape orders-outage.
    #[arg(long, value_parser = three_times, default_value = "15,20,60", value_name = "WELL,SLOW,DOWN")]
    pub phases: [u64; 3],
    /// Batches in flight a stream (shapes b and c, orders-accepted, orders-placed).
    #[arg(long, default_value_t = 1)]
    pub in_flight: usize,
    /// Give every product a limit per key, so that every reservation is counted by its buyer.
    #[arg(long)]
    pub keys: bool,
    /// Hold time, as 2s, to have expiry in the measurement; absent: ten minutes.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub hold: Option<Duration>,
    /// Watchers of the feed that read along.
    #[arg(long, default_value_t = 0)]
    pub watchers: usize,
    /// Measure the shape plain, then with each feature switched on.
    #[arg(long)]
    pub feature_cost: bool,
    /// Threads of the client; 1 is best on two cores.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// Three numbers of seconds.
fn three_times(text: &str) -> Result<[u64; 3], String> {
    let seconds = text.split(',').map(|part| part.trim().parse().ok().filter(|seconds| *seconds > 0));
    let seconds: Option<Vec<u64>> = seconds.collect();
    seconds
        .and_then(|seconds| <[u64; 3]>::try_from(seconds).ok())
        .ok_or_else(|| "three numbers of seconds above zero are needed, as 15,20,60".to_owned())
}
