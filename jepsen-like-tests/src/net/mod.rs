//! The simulated network: the node's `Net` seam, the clients' dialling, and the hands of the faults on both.
//!
//! **What it is.** All connections of a run in one place ([`wire`]) under simulated time, and streams over them ([`stream`]).
//!
//! **Owns** the handles. **Must never** reach a real socket. **Read next**: [`wire`].

mod stream;
mod wire;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ledger_raft::seam::{BoxIo, Net, NetListener};

use crate::sim::trace::Trace;
use stream::{Listener, Stream};
pub use wire::Weather;
use wire::Wire;

thread_local! {
    static CLIENTS: RefCell<Option<SimNet>> = const { RefCell::new(None) };
}

/// All connections of a run; clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Wire>>);

impl Network {
    /// A network of hosts, by name; every name resolves to its host.
    pub fn new(seed: u64, names: Vec<String>, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Wire::new(seed, names, trace))))
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seam of one host.
    pub fn of(&self, host: usize) -> SimNet {
        SimNet { net: self.clone(), host }
    }

    /// Time goes on, and what is due arrives.
    pub fn tick(&self, now: Duration) {
        self.lock().tick(now);
    }

    /// Nothing passes from one host to another; reasons are counted, and the last one to go opens the link.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        self.lock().cut(from, to, cut);
    }

    /// Everything between two hosts waits, and then all of it arrives.
    pub fn hold(&self, a: usize, b: usize, hold: bool) {
        self.lock().hold(a, b, hold);
    }

    /// The weather from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().set_weather(weather);
    }

    /// Every connection between two hosts breaks. Says how many there were.
    pub fn reset_between(&self, a: usize, b: usize) -> usize {
        self.lock().reset_between(a, b)
    }

    /// A host's process is gone: silently (no power), or with its connections reset.
    pub fn down(&self, host: usize, silent: bool) {
        self.lock().down(host, silent);
    }

    /// A host is there again.
    pub fn up(&self, host: usize) {
        self.lock().up(host);
    }
}

/// Sockets of one host.
#[derive(Clone)]
pub struct SimNet {
    net: Network,
    host: usize,
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    let bad = || io::Error::new(ErrorKind::InvalidInput, format!("{addr:?} is no host:port"));
    let (host, port) = addr.rsplit_once(':').ok_or_else(bad)?;
    Ok((host, port.parse().map_err(|_| bad())?))
}

#[async_trait]
impl Net for SimNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        let (_, port) = split(addr)?;
        let port = self.net.lock().listen(self.host, port)?;
        Ok(Box::new(Listener { net: self.net.clone(), host: self.host, port }))
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        let (name, port) = split(addr)?;
        let stream = {
            let mut wire = self.net.lock();
            let to = wire.host_of(name).ok_or_else(|| io::Error::new(ErrorKind::NotFound, name.to_owned()))?;
            let id = wire.dial(self.host, to, port);
            Stream::new(self.net.clone(), id, 0)
        };
        stream.established().await?;
        Ok(Box::new(stream))
    }
}

/// From now on [`dial`] on this thread dials from this host.
pub(crate) fn clients_are_at(net: Option<SimNet>) {
    CLIENTS.set(net);
}

/// A connection from the clients' host to `host:port`.
///
/// # Errors
/// As TCP would; also outside of a run.
pub async fn dial(addr: &str) -> io::Result<BoxIo> {
    let net = CLIENTS.with_borrow(Clone::clone);
    net.ok_or_else(|| io::Error::new(ErrorKind::NotConnected, "no simulation runs on this thread"))?.connect(addr).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Polls a future while simulated time goes on; none if it is not done by then.
    fn within<F: Future>(net: &Network, ms: std::ops::Range<u64>, future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        for now in ms {
            net.tick(Duration::from_millis(now));
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(done);
            }
        }
        None
    }

    fn network() -> Network {
        Network::new(3, vec!["a".into(), "b".into()], Trace::new(false))
    }

    async fn connected(net: &Network) -> (BoxIo, BoxIo) {
        let mut listener = net.of(1).listen("0.0.0.0:7").await.expect("free");
        let a = net.of(0);
        let (dialled, accepted) = tokio::join!(a.connect("b:7"), listener.accept());
        (dialled.expect("connected"), accepted.expect("accepted").0)
    }

    #[test]
    fn bytes_arrive_in_order_and_then_the_end() {
        let net = network();
        let (mut a, mut b) = within(&net, 0..100, connected(&net)).expect("connected");
        let told: Vec<u8> = (0..200u8).collect();
        let talk = async {
            for part in told.chunks(7) {
                a.write_all(part).await.unwrap();
            }
            drop(a);
            let mut heard = Vec::new();
            b.read_to_end(&mut heard).await.unwrap();
            heard
        };
        assert_eq!(within(&net, 100..400, talk), Some((0..200u8).collect()));
    }

    #[test]
    fn nobody_listens() {
        let net = network();
        let refused = within(&net, 0..100, net.of(0).connect("b:8")).expect("answered").err().map(|e| e.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    }

    #[test]
    fn a_cut_keeps_bytes_until_it_is_mended_and_the_other_way_works() {
        let net = network();
        let (mut a, mut b) = within(&net, 0..100, connected(&net)).expect("connected");
        net.cut(0, 1, true);
        let mut byte = [0];
        assert!(within(&net, 100..120, a.write_all(b"x")).expect("taken").is_ok());
        assert!(within(&net, 120..1_000, b.read_exact(&mut byte)).is_none(), "it passed a cut link");
        assert!(within(&net, 1_000..1_050, b.write_all(b"y")).expect("taken").is_ok());
        assert!(within(&net, 1_050..1_100, a.read_exact(&mut byte)).expect("the other way works").is_ok());
        net.cut(0, 1, false);
        assert!(within(&net, 1_100..4_000, b.read_exact(&mut byte)).expect("sent again").is_ok());
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_killed_process_resets_and_one_without_power_is_silent_until_it_is_back() {
        let net = network();
        let (mut a, b) = within(&net, 0..100, connected(&net)).expect("connected");
        net.down(1, true);
        std::mem::forget(b);
        let mut byte = [0];
        assert!(within(&net, 100..200, a.write_all(b"x")).expect("taken").is_ok());
        assert!(within(&net, 200..3_000, a.read_exact(&mut byte)).is_none(), "the dead spoke");
        net.up(1);
        let read = within(&net, 3_000..6_000, a.read_exact(&mut byte)).expect("its kernel knows no such connection");
        assert_eq!(read.err().map(|e| e.kind()), Some(ErrorKind::ConnectionReset));

        let net = network();
        let (mut a, b) = within(&net, 0..100, connected(&net)).expect("connected");
        net.down(1, false);
        std::mem::forget(b);
        let read = within(&net, 100..200, a.read_exact(&mut byte)).expect("reset");
        assert_eq!(read.err().map(|e| e.kind()), Some(ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_writer_waits_for_a_reader() {
        let net = network();
        let (mut a, mut b) = within(&net, 0..100, connected(&net)).expect("connected");
        let much = vec![7; 2 * wire::WINDOW_BYTES];
        assert!(within(&net, 100..300, a.write_all(&much)).is_none(), "twice the window was taken");
        let mut heard = vec![0; 100];
        assert!(within(&net, 300..400, b.read_exact(&mut heard)).expect("read").is_ok());
    }
}
