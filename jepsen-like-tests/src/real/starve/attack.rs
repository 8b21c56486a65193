//! What one host does to the nodes: idle connections, watches that it never reads, pings, keys that were chosen to collide.
//!
//! **What it is.** A process of its own, from an address of its own, with a low priority: on one
//! machine with the nodes it must not take CPU that they would have had elsewhere. It finds its keys
//! first and writes a line, begins at the next line of its stdin, and ends with its stdin. It reports
//! what it did as JSON lines.
//!
//! **Owns** these connections and their counts. **Must never** connect to anything but loopback. **Read next**: [`super::attack_process`].

use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use client_sdk::{Command, LimitKey, LimitKeys, Line, Lines, Mint as _, OfferKey, Quantity, ReservationId, Sku};
use ledger_proto::framed::ledger_client::LedgerClient;
use ledger_proto::{Calls, Reply};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::http2::{self, ACK, END_STREAM, HEADERS, PING, SETTINGS};
use super::keys::CollidingKeys;

/// Watches on one connection, fewer than a node takes.
const WATCHES_PER_CONNECTION: usize = 250;
/// Ping floods of one node at once. Every other one reads what the node answers; the others never do.
const PING_FLOODS: usize = 4;
/// Pings of one write.
const PINGS_AT_ONCE: usize = 512;
/// A flood that can write nothing for so long begins again.
const PINGS_STALLED: Duration = Duration::from_secs(1);
/// From the end of a connection to the next.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// A connection that takes longer is given up and tried again.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Frames of reservations a second.
const FRAMES_PER_SECOND: u32 = 10;
/// Colliding keys of one reservation.
const KEYS_PER_RESERVATION: usize = ledger_core::limits::LIMIT_KEYS_MAX;
/// A frame without an answer by then is counted as one without.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// How often the counts are printed.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Where a node is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Its port for gRPC.
    pub client: SocketAddr,
    /// Its port for HTTP.
    pub http: SocketAddr,
    /// Its port for the other nodes.
    pub peer: SocketAddr,
}

/// What is done to the nodes, and how fast.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttackPlan {
    /// All nodes.
    pub nodes: Vec<NodeAddresses>,
    /// Of these, the one that colliding keys are sent to.
    pub leader: usize,
    /// The address that it comes from.
    pub from: IpAddr,
    /// Idle connections to each port of each node.
    pub idle: usize,
    /// How many that a port closed are opened again, a second.
    pub reopened_per_second: u32,
    /// Watches asked of each node.
    pub watches: usize,
    /// How many that a node refused or ended are asked for again, a second.
    pub watches_again_per_second: u32,
    /// Pings a second to each node; 0: as many as it takes.
    pub pings_per_second: u64,
    /// Colliding keys a second, in reservations of four.
    pub keys_per_second: u32,
    /// For so many seconds there have to be keys.
    pub keys_for_seconds: u32,
    /// By how much its priority is lowered.
    pub niceness: i32,
    /// The product that those reservations take.
    pub sku: String,
    /// How long they hold.
    pub hold_ms: u64,
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttackCounts {
    /// Idle connections that were opened to the ports for gRPC; reopened ones again.
    pub idle_client: u64,
    /// ... for HTTP.
    pub idle_http: u64,
    /// ... for the other nodes.
    pub idle_peer: u64,
    /// Watches asked for; again after a refusal or an end.
    pub watches_asked: u64,
    /// Watches that began.
    pub watches_begun: u64,
    /// Watches refused or ended by an answer.
    pub watches_ended: u64,
    /// Pings sent.
    pub pings: u64,
    /// Connections of ping floods.
    pub ping_connections: u64,
    /// Colliding keys that reservations took.
    pub keys: u64,
    /// Reservations with such keys that had another answer, or none.
    pub reservations_failed: u64,
}

#[derive(Default)]
struct Counters {
    idle: [AtomicU64; 3],
    watches_asked: AtomicU64,
    watches_begun: AtomicU64,
    watches_ended: AtomicU64,
    pings: AtomicU64,
    ping_connections: AtomicU64,
    keys: AtomicU64,
    reservations_failed: AtomicU64,
}

impl Counters {
    fn read(&self) -> AttackCounts {
        let [idle_client, idle_http, idle_peer] = [0, 1, 2].map(|port: usize| self.idle[port].load(Relaxed));
        AttackCounts {
            idle_client,
            idle_http,
            idle_peer,
            watches_asked: self.watches_asked.load(Relaxed),
            watches_begun: self.watches_begun.load(Relaxed),
            watches_ended: self.watches_ended.load(Relaxed),
            pings: self.pings.load(Relaxed),
            ping_connections: self.ping_connections.load(Relaxed),
            keys: self.keys.load(Relaxed),
            reservations_failed: self.reservations_failed.load(Relaxed),
        }
    }
}

/// How often something may be done again; who waits longest is next.
struct Pace(Mutex<Interval>);

impl Pace {
    fn of(per_second: u32) -> Arc<Self> {
        let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Arc::new(Self(Mutex::new(ticks)))
    }
    async fn turn(&self) {
        self.0.lock().await.tick().await;
    }
}

async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    timeout(CONNECT_WITHIN, socket.connect(to)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Runs the attack of the plan that the first line of stdin has, from the second line on, until stdin closes.
pub fn run() -> ExitCode {
    match attack() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn attack() -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line)?;
    let plan: AttackPlan = serde_json::from_str(&line)?;
    let all = plan.nodes.iter().flat_map(|node| [node.client, node.http, node.peer]);
    if let Some(elsewhere) = all.clone().find(|address| !address.ip().is_loopback()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{elsewhere} is not on this machine")));
    }
    let wanted = plan.keys_per_second as usize * plan.keys_for_seconds as usize;
    let keys: Vec<String> = CollidingKeys::default().take(wanted).collect();
    // Not before it has its keys: what is slow then is only not measured yet.
    rustix::process::nice(plan.niceness)?;
    println!("ready");
    line.clear();
    stdin.read_line(&mut line)?;
    drop(stdin);
    std::thread::spawn(|| {
        let mut rest = [0; 64];
        while matches!(io::stdin().read(&mut rest), Ok(1..)) {}
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let counters = Arc::new(Counters::default());
        begin(&plan, keys, &counters);
        let mut ticks = interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            let mut out = io::stdout().lock();
            writeln!(out, "{}", serde_json::to_string(&counters.read())?)?;
            out.flush()?;
        }
    })
}

fn begin(plan: &AttackPlan, keys: Vec<String>, counters: &Arc<Counters>) {
    let from = plan.from;
    for node in &plan.nodes {
        for (port, to) in [node.client, node.http, node.peer].into_iter().enumerate() {
            let pace = Pace::of(plan.reopened_per_second);
            for _ in 0..plan.idle {
                tokio::spawn(stay_idle(from, to, port, pace.clone(), counters.clone()));
            }
        }
        let pace = Pace::of(plan.watches_again_per_second);
        for first in (0..plan.watches).step_by(WATCHES_PER_CONNECTION) {
            let count = WATCHES_PER_CONNECTION.min(plan.watches - first);
            tokio::spawn(leave_unread(from, node.client, count, pace.clone(), counters.clone()));
        }
        for flood in 0..PING_FLOODS {
            let per_second = plan.pings_per_second.div_ceil(PING_FLOODS as u64);
            tokio::spawn(flood_with_pings(from, node.client, flood % 2 == 0, per_second, counters.clone()));
        }
    }
    if plan.keys_per_second > 0 {
        tokio::spawn(reserve_with(keys, plan.clone(), counters.clone()));
    }
}

/// One connection that sends nothing, and is opened again when it is closed.
async fn stay_idle(from: IpAddr, to: SocketAddr, port: usize, pace: Arc<Pace>, counters: Arc<Counters>) {
    loop {
        if let Ok(mut io) = connect(from, to).await {
            counters.idle[port].fetch_add(1, Relaxed);
            // Whatever comes, it says nothing.
            let mut buf = [0; 64];
            while matches!(io.read(&mut buf).await, Ok(1..)) {}
        }
        pace.turn().await;
    }
}

/// One connection with many watches from the oldest change kept, whose windows stay closed. It answers pings: it lives.
async fn leave_unread(from: IpAddr, to: SocketAddr, count: usize, pace: Arc<Pace>, counters: Arc<Counters>) {
    loop {
        if let Ok(io) = connect(from, to).await {
            let ended = watch_unread(io, count, &pace, &counters).await;
            tracing::debug!(?ended, "a connection with watches ended");
        }
        pace.turn().await;
    }
}

async fn watch_unread(io: TcpStream, count: usize, pace: &Pace, counters: &Counters) -> io::Result<()> {
    const WATCH: &str = "/holdfast.v1.Ledger/Watch";
    let (mut reads, mut writes) = io.into_split();
    let mut stream = 1;
    let mut watch = || {
        stream += 2;
        counters.watches_asked.fetch_add(1, Relaxed);
        http2::call(stream - 2, WATCH)
    };
    let mut bytes = http2::preface(0);
    (0..count).for_each(|_| bytes.extend(watch()));
    writes.write_all(&bytes).await?;
    let mut missing = 0;
    // One frame at a time, kept over whatever else happens meanwhile.
    let (frames, mut coming) = tokio::sync::mpsc::channel(64);
    let reading = async move {
        loop {
            let frame = http2::next_frame(&mut reads).await;
            let last = frame.is_err();
            if frames.send(frame).await.is_err() || last {
                return;
            }
        }
    };
    let driving = async {
        loop {
            let frame = tokio::select! {
                frame = coming.recv() => frame,
                () = pace.turn(), if missing > 0 => {
                    missing -= 1;
                    writes.write_all(&watch()).await?;
                    continue;
                }
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame?;
            match (frame.kind, frame.flags & END_STREAM) {
                (HEADERS, 0) => drop(counters.watches_begun.fetch_add(1, Relaxed)),
                (HEADERS, _) => {
                    counters.watches_ended.fetch_add(1, Relaxed);
                    missing += 1;
                }
                // Their END_STREAM is ACK.
                (SETTINGS, 0) => writes.write_all(&http2::frame(SETTINGS, ACK, 0, &[])).await?,
                (PING, 0) => writes.write_all(&http2::frame(PING, ACK, 0, &frame.payload)).await?,
                _ => {}
            }
        }
    };
    tokio::join!(reading, driving).1
}

/// One connection after the other that sends pings, `per_second` or as fast as it can.
async fn flood_with_pings(from: IpAddr, to: SocketAddr, reads: bool, per_second: u64, counters: Arc<Counters>) {
    loop {
        if let Ok(io) = connect(from, to).await {
            counters.ping_connections.fetch_add(1, Relaxed);
            let ended = ping(io, reads, per_second, &counters).await;
            tracing::debug!(?ended, "a ping flood ended");
        }
        sleep(REOPEN_PAUSE).await;
    }
}

async fn ping(io: TcpStream, reads: bool, per_second: u64, counters: &Counters) -> io::Result<()> {
    let (mut answers, mut writes) = io.into_split();
    // A call, so that the connection keeps its place.
    writes.write_all(&[http2::preface(1 << 16), http2::call(1, "/holdfast.v1.Ledger/GetRouting")].concat()).await?;
    let pings = http2::frame(PING, 0, 0, b"starving").repeat(PINGS_AT_ONCE);
    let began = Instant::now();
    let writing = async {
        let mut sent = 0;
        loop {
            timeout(PINGS_STALLED, writes.write_all(&pings)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            counters.pings.fetch_add(PINGS_AT_ONCE as u64, Relaxed);
            sent += PINGS_AT_ONCE as u64;
            match per_second {
                0 => tokio::task::yield_now().await,
                _ => tokio::time::sleep_until(began + Duration::from_secs(sent) / per_second as u32).await,
            }
        }
    };
    let reading = async {
        let mut buf = vec![0; 64 << 10];
        if !reads {
            std::future::pending::<()>().await;
        }
        loop {
            if answers.read(&mut buf).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
    }
}

/// Reservations with the keys, a frame of them at a time, until there are no more keys.
async fn reserve_with(keys: Vec<String>, plan: AttackPlan, counters: Arc<Counters>) {
    let per_frame = (plan.keys_per_second / FRAMES_PER_SECOND).max(1) as usize;
    let mut frames = interval(Duration::from_secs(1) / FRAMES_PER_SECOND);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (from, to) = (plan.from, plan.nodes[plan.leader].client);
    let connector = tower::service_fn(move |_: http::Uri| async move {
        Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(connect(from, to).await?))
    });
    let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("a socket's address is one");
    let mut client = LedgerClient::new(endpoint.connect_with_connector_lazy(connector));
    for keys in keys.chunks(per_frame) {
        frames.tick().await;
        let commands: Vec<Command> = keys.chunks(KEYS_PER_RESERVATION).map(|keys| reservation(keys, &plan)).collect();
        let reserved = reserve(&mut client, &commands).await;
        let (done, failed) = (reserved.min(commands.len()), commands.len().saturating_sub(reserved));
        // The last one may have fewer.
        counters.keys.fetch_add((done * KEYS_PER_RESERVATION).min(keys.len()) as u64, Relaxed);
        counters.reservations_failed.fetch_add(failed as u64, Relaxed);
    }
}

fn reservation(keys: &[String], plan: &AttackPlan) -> Command {
    let sku = Sku::new(&plan.sku).expect("the plan names a product");
    let keys: LimitKeys = keys.iter().map(|key| LimitKey::new(key).expect("letters")).collect();
    let id = ReservationId::mint_for(&sku);
    let line = Line { offer: OfferKey { sku, sale: None }, quantity: Quantity::new(1).expect("one") };
    Command::Reserve { id, keys, lines: Lines::from_iter([line]), hold_ms: Some(plan.hold_ms) }
}

/// How many of them were reserved.
async fn reserve(client: &mut LedgerClient<Channel>, commands: &[Command]) -> usize {
    let Some(calls) = Calls::of(FRAME_WITHIN.as_millis() as u32, (0..).zip(commands)) else { return 0 };
    let answers = match timeout(FRAME_WITHIN, client.submit_batch(calls)).await {
        Ok(Ok(answers)) => answers.into_inner().decode().unwrap_or_default(),
        _ => Vec::new(),
    };
    answers.iter().filter(|answer| matches!(answer.reply, Reply::Ok(_))).count()
}
