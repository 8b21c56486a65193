//! One client takes what it can get; the others are served all the same.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use common::{Cluster, PATIENCE, Shape, create, in_memory, mint, receive, reserve};
use ledger_node::access::Network;
use ledger_node::limits::{RETRY_WATCHES_MS, WATCHES_PER_CONNECTION};
use ledger_proto::{Calls, Cause, OneCall, Reply, Why, status, v1};
use ledger_raft::seam::{BoxIo, Net, NetListener};
use ledger_raft::seam_real::TcpNet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// What a node at that limit takes: 42 connections over gRPC and 21 over HTTP, half of them from
/// one source.
const DESCRIPTORS: u64 = 512;
/// Streams that the scarce network accepts at once: what gRPC and its untrusted pool may take, and
/// some.
const STREAMS: usize = 130;

/// More than that: the rest waits to be accepted.
const IDLE: usize = STREAMS + 50;
/// Long for a loaded machine, and less than pings take to find that a silent client is none.
const SOON: Duration = Duration::from_secs(10);

/// TCP of a process with few descriptors.
struct ScarceNet {
    open: Arc<AtomicUsize>,
}

struct ScarceListener {
    inner: Box<dyn NetListener>,
    open: Arc<AtomicUsize>,
}

struct ScarceIo {
    inner: BoxIo,
    open: Arc<AtomicUsize>,
}

impl Drop for ScarceIo {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Net for ScarceNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn NetListener>> {
        Ok(Box::new(ScarceListener { inner: TcpNet.listen(addr).await?, open: self.open.clone() }))
    }
    async fn connect(&self, addr: &str) -> io::Result<BoxIo> {
        TcpNet.connect(addr).await
    }
}

#[async_trait]
impl NetListener for ScarceListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, SocketAddr)> {
        // EMFILE: what waits to be accepted stays where it is.
        if self.open.load(Ordering::SeqCst) >= STREAMS {
            return Err(io::Error::from_raw_os_error(24));
        }
        let (inner, from) = self.inner.accept().await?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok((Box::new(ScarceIo { inner, open: self.open.clone() }), from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl AsyncRead for ScarceIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for ScarceIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// One node with few descriptors that trusts 127.0.0.1 alone, and a product on it.
async fn node() -> Cluster {
    let cluster = Cluster::of(Shape { nodes: 1, shards: 1, replicas: 1 }, |_, config, seams| {
        in_memory(seams, 1);
        seams.raft.net = Arc::new(ScarceNet { open: Arc::default() });
        seams.descriptors = Some(DESCRIPTORS);
        config.trusted = vec!["127.0.0.1/32".parse::<Network>().expect("a network")];
    })
    .await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 10, "r1")).await;
    cluster
}

async fn connect_from(from: [u8; 4], to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("loopback has many addresses");
    socket.connect(to.parse().expect("an address")).await.expect("the node listens")
}

async fn in_time<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A reservation over a connection of its own.
async fn sell(cluster: &Cluster, n: u64) {
    let call = reserve("shoe", mint("shoe", n), 60_000);
    let calls = Calls::of(0, [(n, &call)]).expect("a call");
    let answers = timeout(SOON, async { cluster.grpc(0).await.submit_batch(calls).await }).await;
    let answers = answers
        .expect("a reservation is answered soon")
        .expect("answered")
        .into_inner()
        .decode()
        .expect("a frame of ours");
    assert!(matches!(answers[0].reply, Reply::Ok(_)), "{:?}", answers[0]);
}

/// How many of these connections the node ends, until it has ended so many.
async fn ended(connections: Vec<TcpStream>, wanted: usize) {
    let ends = connections.into_iter().map(|mut io| {
        Box::pin(async move {
            // Its end, or a reset: bytes of a preface may lie there unread.
            drop(io.read_to_end(&mut Vec::new()).await);
        })
    });
    let mut ends = futures::stream::FuturesUnordered::from_iter(ends);
    for n in 0..wanted {
        in_time(&format!("end {n} of {wanted}"), futures::StreamExt::next(&mut ends)).await;
    }
}

/// Connections that the node closed for a reason.
async fn closed(cluster: &Cluster, port: &str, reason: &str) -> u64 {
    let page = in_time("/metrics", cluster.get(0, "/metrics")).await.text;
    let name = "holdfast_connections_closed_total{";
    let counts = page.lines().filter(|line| {
        line.starts_with(name)
            && line.contains(&format!("port=\"{port}\""))
            && line.contains(&format!("reason=\"{reason}\""))
    });
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[tokio::test]
async fn idle_connections_beyond_the_descriptors_seller_still_served() {
    let cluster = node().await;
    let address = cluster.client_addr(0);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect_from([127, 0, 0, 1], &address).await);
    }
    sell(&cluster, 1).await;
    assert!(closed(&cluster, "client", "replaced").await > 0, "the seller waited until the first bytes were late");
    // One source has half of the places.
    ended(idle, IDLE - 21).await;
    sell(&cluster, 2).await;
}

#[tokio::test]
async fn untrusted_connections_hold_no_place() {
    let cluster = node().await;
    let address = cluster.client_addr(0);
    let target = address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let target = target.clone();
        async move { Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(connect_from([127, 0, 0, 2], &target).await)) }
    });
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect_with_connector(connector).await.expect("one is let in");
    let mut refused = ledger_proto::framed::ledger_client::LedgerClient::new(channel);
    let call = OneCall::of(1, 0, &reserve("shoe", mint("shoe", 9), 60_000)).expect("a call");
    let why = in_time("a refusal", refused.submit(call)).await.expect_err("it may not");
    assert!(matches!(status::reply(&why), Some(Reply::Refused(Why::PermissionDenied(_)))), "{why:?}");

    let mut others = Vec::new();
    for _ in 0..STREAMS {
        others.push(connect_from([127, 0, 0, 2], &address).await);
    }
    // A source of an untrusted network has two places, one of which is the client's above.
    ended(others, STREAMS - 1).await;
    assert!(closed(&cluster, "client", "untrusted").await >= STREAMS as u64 - 1);
    sell(&cluster, 1).await;
}

#[tokio::test]
async fn livez_answers_while_every_http_place_is_taken() {
    let cluster = node().await;
    let address = cluster.http_addr(0);
    let mut working = Vec::new();
    // All places: one source has ten of them, and those of the other are not trusted.
    for _ in 0..10 {
        let mut io = connect_from([127, 0, 0, 1], &address).await;
        let head = "POST /v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 9\r\nexpect: 100-continue\r\n\r\n";
        io.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0; 12];
        in_time("the request is under way", io.read_exact(&mut answer)).await.expect("read");
        assert_eq!(&answer, b"HTTP/1.1 100");
        working.push(io);
    }
    let lives = in_time("/livez", cluster.get(0, "/livez")).await;
    assert_eq!((lives.status, lives.headers.get("connection").map(String::as_str)), (200, Some("close")));
    assert_eq!(in_time("/metrics", cluster.get(0, "/metrics")).await.status, 200);
    let other = in_time("a read", cluster.get(0, "/v1/products")).await;
    assert_eq!((other.status, other.problem().as_str()), (503, "too-many-connections"));
    assert_eq!(other.headers.get("retry-after").map(String::as_str), Some("1"));
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers of a call, without compression.
fn headers(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

#[tokio::test]
async fn cancelled_calls_leave_other_streams_alone() {
    let cluster = node().await;
    let mut io = connect_from([127, 0, 0, 1], &cluster.client_addr(0)).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let path = "/holdfast.v1.Ledger/GetRouting";
    for n in 0..200 {
        bytes.extend(frame(HEADERS, 4, 2 * n + 1, &headers(path)));
        bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    bytes.extend(frame(HEADERS, 4, 401, &headers(path)));
    bytes.extend(frame(DATA, 1, 401, &[0; 5]));
    io.write_all(&bytes).await.expect("sent");
    loop {
        let mut head = [0; 9];
        in_time("an answer", io.read_exact(&mut head)).await.expect("the connection stays");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        in_time("a frame", io.read_exact(&mut payload)).await.expect("the connection stays");
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        assert_ne!(head[3], GOAWAY, "{payload:?}");
        if (head[3], stream) == (HEADERS, 401) {
            return;
        }
    }
}

#[tokio::test]
async fn watches_begin_with_their_cursor_and_beyond_the_bound_of_a_connection_they_are_refused() {
    let cluster = node().await;
    let mut client = cluster.grpc(0).await;
    let mut begin = async |cursor: bytes::Bytes| {
        let request = v1::WatchRequest { from_now: cursor.is_empty(), cursor, ..v1::WatchRequest::default() };
        let mut frames = in_time("a watch", client.watch(request)).await?.into_inner();
        let first = in_time("its cursor", frames.message()).await?.expect("a frame");
        assert!(first.changes.is_empty() && !first.cursor.is_empty(), "{first:?}");
        Ok::<_, tonic::Status>((frames, first.cursor))
    };
    let (first, now) = begin(bytes::Bytes::new()).await.expect("begun");
    let mut open = vec![first];
    while open.len() < WATCHES_PER_CONNECTION {
        let (frames, cursor) = begin(now.clone()).await.expect("begun");
        assert_eq!(cursor, now);
        open.push(frames);
    }
    let refused = begin(now.clone()).await.expect_err("one too many");
    let reply = status::reply(&refused);
    let limited = |why: &ledger_proto::NotNow| (why.cause, why.retry_ms) == (Cause::RateLimited, RETRY_WATCHES_MS);
    assert!(matches!(&reply, Some(Reply::NotNow(why)) if limited(why)), "{reply:?}");
    sell(&cluster, 1).await;
    // One that is closed makes room; the node learns of it a moment later.
    drop(open.pop());
    while begin(now.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}
