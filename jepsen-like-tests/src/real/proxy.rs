//! The network between real nodes: one listener a node, through which its peers come, and faults for every pair and direction.
//!
//! **What it is.** A node advertises its listener here instead of its own port. Who calls is read from the first words of a peer
//! connection, so that every ordered pair of nodes has a link of its own: delayed, cut (bytes wait, as under a lost route, and arrive after
//! it heals), or reset.
//!
//! **Owns** the links. **Must never** change a byte, or forward one out of order within a connection. **Read next**: [`super::nemesis`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Length of the first words on a peer connection, and where in them the caller's id lies (little endian).
const HELLO_BYTES: usize = 64;
const HELLO_FROM: usize = 40;
/// Pieces on their way through a delayed link; a full one is back pressure, as a full pipe is.
const PIECES_MAX: usize = 1024;
const PIECE_BYTES: usize = 64 << 10;

/// What one direction between two nodes does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Nothing passes.
    pub cut: bool,
    /// Each piece comes so much later.
    pub delay: Duration,
    /// And up to so much more, drawn anew for each piece; order is kept.
    pub jitter: Duration,
    /// Connections made under a smaller number are reset.
    pub epoch: u64,
}

/// An ordered pair of nodes.
pub type Pair = (u64, u64);

/// The link of strangers: nothing is ever done to it, and it never ends.
static UNTOUCHED: LazyLock<watch::Sender<Link>> = LazyLock::new(watch::Sender::default);

/// The links between all pairs; a cheap handle.
#[derive(Clone)]
pub struct Links(Arc<BTreeMap<Pair, watch::Sender<Link>>>);

impl Links {
    fn new(nodes: &[u64]) -> Self {
        let pairs = nodes.iter().flat_map(|&a| nodes.iter().filter(move |&&b| b != a).map(move |&b| (a, b)));
        Self(Arc::new(pairs.map(|pair| (pair, watch::Sender::default())).collect()))
    }

    /// All ordered pairs.
    pub fn pairs(&self) -> Vec<Pair> {
        self.0.keys().copied().collect()
    }

    /// Changes one direction.
    pub fn change(&self, pair: Pair, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.0.get(&pair) {
            link.send_modify(change);
        }
    }

    /// Cuts one direction.
    pub fn cut(&self, pair: Pair) {
        self.change(pair, |link| link.cut = true);
    }

    /// Cuts both directions between every node of one side and every node of the other.
    pub fn split(&self, one: &[u64], other: &[u64]) {
        for &a in one {
            for &b in other {
                self.cut((a, b));
                self.cut((b, a));
            }
        }
    }

    /// Every link as it should be.
    pub fn heal(&self) {
        for link in self.0.values() {
            link.send_modify(|link| *link = Link { epoch: link.epoch, ..Link::default() });
        }
    }

    fn watch(&self, pair: Pair) -> watch::Receiver<Link> {
        match self.0.get(&pair) {
            Some(link) => link.subscribe(),
            None => UNTOUCHED.subscribe(),
        }
    }
}

/// The listeners of all nodes; dropped, they and all connections end.
pub struct Proxy {
    links: Links,
    addresses: BTreeMap<u64, SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens for every node on a free port of loopback; `nodes` are ids with the addresses they really listen on.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(nodes: &[(u64, String)]) -> io::Result<Self> {
        let ids: Vec<u64> = nodes.iter().map(|(id, _)| *id).collect();
        let links = Links::new(&ids);
        let (mut addresses, mut tasks) = (BTreeMap::new(), JoinSet::new());
        for (id, address) in nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.insert(*id, listener.local_addr()?);
            tasks.spawn(listen(listener, *id, address.clone(), links.clone()));
        }
        Ok(Self { links, addresses, _tasks: tasks })
    }

    /// Where the peers of a node come.
    pub fn address(&self, node: u64) -> Option<SocketAddr> {
        self.addresses.get(&node).copied()
    }

    /// The links.
    pub fn links(&self) -> &Links {
        &self.links
    }
}

async fn listen(listener: TcpListener, to: u64, address: String, links: Links) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Out of sockets, or the caller is gone already: the next one may do better.
        let Ok((caller, _)) = listener.accept().await else { continue };
        let (address, links) = (address.clone(), links.clone());
        connections.spawn(async move {
            if let Err(error) = carry(caller, to, &address, &links).await {
                tracing::debug!(to, %error, "a peer connection ended");
            }
        });
    }
}

/// Carries one connection until either end, or its link, ends it.
async fn carry(mut caller: TcpStream, to: u64, address: &str, links: &Links) -> io::Result<()> {
    let mut hello = [0; HELLO_BYTES];
    caller.read_exact(&mut hello).await?;
    let mut id = [0; 8];
    id.copy_from_slice(&hello[HELLO_FROM..HELLO_FROM + 8]);
    let from = u64::from_le_bytes(id);
    let (there, back) = (links.watch((from, to)), links.watch((to, from)));
    // A lost route loses the call, too: the caller waits and gives up.
    passes(&mut there.clone()).await?;
    passes(&mut back.clone()).await?;
    let mut callee = TcpStream::connect(address).await?;
    caller.set_nodelay(true)?;
    callee.set_nodelay(true)?;
    callee.write_all(&hello).await?;
    let (caller_read, caller_write) = caller.into_split();
    let (callee_read, callee_write) = callee.into_split();
    tokio::select! {
        ended = pump(caller_read, callee_write, there) => ended,
        ended = pump(callee_read, caller_write, back) => ended,
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Waits until the link lets something through.
async fn passes(link: &mut watch::Receiver<Link>) -> io::Result<Link> {
    Ok(*link.wait_for(|link| !link.cut).await.map_err(|_| reset())?)
}

/// One direction of one connection.
async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, link: watch::Receiver<Link>) -> io::Result<()> {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    let mut watched = link.clone();
    let born = watched.borrow_and_update().epoch;
    tokio::select! {
        ended = take(from, pieces, link.clone()) => ended,
        ended = give(to, arriving, link) => ended,
        _ = watched.wait_for(|link| link.epoch != born) => Err(reset()),
    }
}

async fn take(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    mut link: watch::Receiver<Link>,
) -> io::Result<()> {
    let mut last = Instant::now();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let Link { delay, jitter, .. } = *link.borrow_and_update();
        let more = rand::rng().random_range(0..=jitter.as_micros() as u64);
        last = last.max(Instant::now() + delay + Duration::from_micros(more));
        pieces.send((last, buffer[..read].to_vec())).await.map_err(|_| reset())?;
    }
}

async fn give(
    mut to: OwnedWriteHalf,
    mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut link: watch::Receiver<Link>,
) -> io::Result<()> {
    while let Some((at, piece)) = arriving.recv().await {
        tokio::time::sleep_until(at).await;
        passes(&mut link).await?;
        to.write_all(&piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A "node" that answers every byte with itself.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn call(proxy: &Proxy, from: u64, to: u64) -> TcpStream {
        let mut stream = TcpStream::connect(proxy.address(to).unwrap()).await.unwrap();
        let mut hello = [7; HELLO_BYTES];
        hello[HELLO_FROM..HELLO_FROM + 8].copy_from_slice(&from.to_le_bytes());
        stream.write_all(&hello).await.unwrap();
        stream
    }

    async fn two() -> Proxy {
        Proxy::start(&[(1, echo().await), (2, echo().await)]).await.unwrap()
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_and_a_cut_link_holds_them_until_it_heals() {
        let proxy = two().await;
        let mut stream = call(&proxy, 1, 2).await;
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello[0], 7);
        proxy.links().cut((1, 2));
        stream.write_all(b"later").await.unwrap();
        let mut late = [0; 5];
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut late)).await;
        assert!(early.is_err(), "it passed a cut link");
        proxy.links().heal();
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"later");
    }

    #[tokio::test]
    async fn one_direction_is_cut_and_the_other_pair_is_not() {
        let nodes = [(1, echo().await), (2, echo().await), (3, echo().await)];
        let proxy = Proxy::start(&nodes).await.unwrap();
        proxy.links().cut((2, 1));
        let mut unanswered = call(&proxy, 1, 2).await;
        let mut hello = [0; HELLO_BYTES];
        let early = tokio::time::timeout(Duration::from_millis(50), unanswered.read_exact(&mut hello)).await;
        assert!(early.is_err(), "the way back is cut");
        let mut other = call(&proxy, 3, 2).await;
        other.read_exact(&mut hello).await.unwrap();
        let mut stranger = call(&proxy, 9, 2).await;
        stranger.read_exact(&mut hello).await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_ends_connections_and_new_ones_pass() {
        let proxy = two().await;
        let mut stream = call(&proxy, 1, 2).await;
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).await.unwrap();
        proxy.links().change((1, 2), |link| link.epoch += 1);
        assert_eq!(stream.read(&mut hello).await.unwrap_or(0), 0);
        let mut again = call(&proxy, 1, 2).await;
        again.read_exact(&mut hello).await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_link_delays() {
        let proxy = two().await;
        proxy.links().change((1, 2), |link| link.delay = Duration::from_millis(80));
        let began = Instant::now();
        let mut stream = call(&proxy, 1, 2).await;
        stream.write_all(b"x").await.unwrap();
        let mut back = [0; HELLO_BYTES + 1];
        stream.read_exact(&mut back).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    }
}
