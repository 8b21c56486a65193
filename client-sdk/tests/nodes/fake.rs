//! Fake nodes: the service over in-memory connections, answering by a script and remembering what it was sent.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use client_sdk::{Client, Command, Connector, Io, LedgerTime, Position, ReservationId, Settled, Status};
use futures::Stream;
use ledger_core::outcome::Brief;
use ledger_proto::framed::ledger_server::{Ledger, LedgerServer};
use ledger_proto::reply::{At, Reply};
use ledger_proto::{Answers, Calls, DecodedCall, OneCall, v1};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

/// What a node does with one call.
pub(crate) enum Act {
    Answer(Reply),
    /// Says nothing, ever.
    Silence,
    /// Cuts the connection without an answer.
    Cut,
}

pub(crate) type Script = Arc<dyn Fn(&str, usize, &Command) -> Act + Send + Sync>;
pub(crate) type WatchScript =
    Arc<dyn Fn(usize, v1::WatchRequest) -> Vec<Result<v1::WatchFrame, tonic::Status>> + Send + Sync>;

/// What all fake nodes share.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) watch: Arc<Mutex<Option<WatchScript>>>,
    /// `(node, command)` in the order they came.
    pub(crate) calls: Arc<Mutex<Vec<(String, Command)>>>,
    pub(crate) frames: Arc<AtomicUsize>,
    pub(crate) reads: Arc<AtomicUsize>,
    /// Nodes of the calls that asked for stale offers.
    pub(crate) stale: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) routings: Arc<AtomicUsize>,
    /// Nodes that were dialled, in order.
    pub(crate) dials: Arc<Mutex<Vec<String>>>,
    pub(crate) leader: Arc<Mutex<u64>>,
    down: Arc<Mutex<HashMap<String, bool>>>,
    cuts: Arc<Mutex<HashMap<String, Vec<Arc<tokio::sync::Notify>>>>>,
    servers: Arc<Mutex<HashMap<String, mpsc::Sender<io::Result<Wire>>>>>,
}

pub(crate) const NODES: [&str; 3] = ["n1:1", "n2:1", "n3:1"];

/// Holds a reservation.
pub(crate) fn held() -> Reply {
    let deadline = LedgerTime(2_000);
    let brief = Brief { status: Status::Held, deadline, reserved_at: LedgerTime(1_000), replayed: false };
    Reply::Ok(Settled::Reservation(brief))
}

pub(crate) fn id_of(command: &Command) -> ReservationId {
    match command {
        Command::Reserve { id, .. } | Command::Confirm { id, .. } | Command::Release { id } | Command::Fence { id } => {
            *id
        }
        other => panic!("{other:?} has no id"),
    }
}

impl Net {
    /// Three nodes, of which the first leads; they answer by the script (node, how many calls came before, command).
    pub(crate) fn new(script: impl Fn(&str, usize, &Command) -> Act + Send + Sync + 'static) -> Self {
        let net = Self {
            script: Arc::new(Mutex::new(Arc::new(script))),
            watch: Arc::default(),
            calls: Arc::default(),
            frames: Arc::default(),
            reads: Arc::default(),
            stale: Arc::default(),
            routings: Arc::default(),
            dials: Arc::default(),
            leader: Arc::new(Mutex::new(1)),
            down: Arc::default(),
            cuts: Arc::default(),
            servers: Arc::default(),
        };
        for node in NODES {
            net.start(node);
        }
        net
    }
    pub(crate) fn start(&self, node: &'static str) {
        let (tx, rx) = mpsc::channel(64);
        self.servers.lock().unwrap().insert(node.to_owned(), tx);
        let service = LedgerServer::new(Fake { node, net: self.clone() });
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(rx)),
        );
    }
    pub(crate) fn set_down(&self, node: &str, down: bool) {
        self.down.lock().unwrap().insert(node.to_owned(), down);
        if down {
            self.cut(node);
        }
    }
    /// Breaks all connections to the node.
    pub(crate) fn cut(&self, node: &str) {
        for cut in self.cuts.lock().unwrap().remove(node).unwrap_or_default() {
            cut.notify_one();
        }
    }
    pub(crate) fn connector(&self) -> Connector {
        let net = self.clone();
        Arc::new(move |uri| {
            let net = net.clone();
            Box::pin(async move {
                let node = uri.authority().unwrap().to_string();
                net.dials.lock().unwrap().push(node.clone());
                if net.down.lock().unwrap().get(&node).copied().unwrap_or(false) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let server = net.servers.lock().unwrap().get(&node).cloned();
                let server = server.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(1 << 20);
                let (outer, inner) = tokio::io::duplex(1 << 20);
                let cut = Arc::new(tokio::sync::Notify::new());
                net.cuts.lock().unwrap().entry(node).or_default().push(cut.clone());
                tokio::spawn(pipe(far, inner, cut));
                server.send(Ok(Wire(outer))).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
                Ok(Box::new(near) as Box<dyn Io>)
            })
        })
    }
    pub(crate) async fn client(&self) -> Client {
        Client::builder().endpoints(NODES).connector(self.connector()).seed(7).connect().await.unwrap()
    }
    pub(crate) fn calls(&self) -> Vec<(String, Command)> {
        self.calls.lock().unwrap().clone()
    }
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::SeqCst)
    }
}

/// Carries bytes until it is cut.
async fn pipe(mut far: DuplexStream, mut inner: DuplexStream, cut: Arc<tokio::sync::Notify>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut far, &mut inner) => {}
        () = cut.notified() => {}
    }
}

/// A connection as the server sees it.
pub(crate) struct Wire(DuplexStream);

impl tonic::transport::server::Connected for Wire {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}
impl tokio::io::AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}
impl tokio::io::AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Fake {
    node: &'static str,
    net: Net,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

impl Fake {
    /// Plays the script; false when the connection is to be cut.
    fn play(&self, calls: Vec<DecodedCall>, answers: &mut Answers) -> bool {
        for call in calls {
            let command = call.command.unwrap();
            let before = {
                let mut all = self.net.calls.lock().unwrap();
                all.push((self.node.to_owned(), command.clone()));
                all.len() - 1
            };
            let script = self.net.script.lock().unwrap().clone();
            match script(self.node, before, &command) {
                Act::Answer(reply) => {
                    let position = Position { incarnation: 1, shard: 1, term: 1, index: before as u64 + 1, place: 0 };
                    let at = matches!(reply, Reply::Ok(_) | Reply::Refused(_));
                    let at = at.then_some(At { position, time: LedgerTime(1_000_000) });
                    answers.entry(at).reply(call.tag, 0, &reply);
                }
                Act::Silence => {}
                Act::Cut => return false,
            }
        }
        true
    }
}

#[tonic::async_trait]
impl Ledger for Fake {
    type SubmitStreamStream = Streamed<Answers>;
    type WatchStream = Streamed<v1::WatchFrame>;

    async fn submit(&self, request: Request<OneCall>) -> Result<Response<Answers>, tonic::Status> {
        let mut answers = Answers::new();
        self.play(vec![request.into_inner().decode().unwrap()], &mut answers);
        Ok(Response::new(answers))
    }
    async fn submit_batch(&self, request: Request<Calls>) -> Result<Response<Answers>, tonic::Status> {
        let mut answers = Answers::new();
        self.play(request.into_inner().decode().unwrap(), &mut answers);
        Ok(Response::new(answers))
    }
    async fn submit_stream(
        &self,
        request: Request<Streaming<Calls>>,
    ) -> Result<Response<Self::SubmitStreamStream>, tonic::Status> {
        let fake = Self { node: self.node, net: self.net.clone() };
        let cut = AtomicBool::new(false);
        let answers = request.into_inner().map_while(move |frame| {
            if cut.load(Ordering::SeqCst) {
                return None;
            }
            fake.net.frames.fetch_add(1, Ordering::SeqCst);
            let mut answers = Answers::new();
            if !fake.play(frame.ok()?.decode().unwrap(), &mut answers) {
                cut.store(true, Ordering::SeqCst);
                fake.net.cut(fake.node);
                return None;
            }
            Some(Ok(answers))
        });
        Ok(Response::new(Box::pin(answers)))
    }
    async fn get_product(
        &self,
        _: Request<v1::GetProductRequest>,
    ) -> Result<Response<v1::GetProductResponse>, tonic::Status> {
        Ok(Response::new(v1::GetProductResponse::default()))
    }
    async fn get_offers(
        &self,
        request: Request<v1::GetOffersRequest>,
    ) -> Result<Response<v1::GetOffersResponse>, tonic::Status> {
        self.net.reads.fetch_add(1, Ordering::SeqCst);
        let stale = request.get_ref().consistency() == v1::Consistency::Stale;
        if stale {
            self.net.stale.lock().unwrap().push(self.node);
        }
        let one = |offer| {
            let policy = v1::Policy { open: true, ..Default::default() };
            let balance = v1::Balance { available: 5, held: 0, sold: 0 };
            let view = v1::OfferView {
                offer: Some(offer),
                policy: Some(policy),
                balance: Some(balance),
                ..Default::default()
            };
            let age_ms = stale.then_some(40);
            let as_of = v1::AsOf { position: Some(v1::Position::default()), time_ms: 9, age_ms };
            v1::get_offers_response::One { offer: Some(view), as_of: Some(as_of) }
        };
        let offers = request.into_inner().offers.into_iter().map(one).collect();
        Ok(Response::new(v1::GetOffersResponse { offers }))
    }
    async fn list_products(
        &self,
        _: Request<v1::ListProductsRequest>,
    ) -> Result<Response<v1::ListProductsResponse>, tonic::Status> {
        Ok(Response::new(v1::ListProductsResponse::default()))
    }
    async fn list_sales(
        &self,
        _: Request<v1::ListSalesRequest>,
    ) -> Result<Response<v1::ListSalesResponse>, tonic::Status> {
        Ok(Response::new(v1::ListSalesResponse::default()))
    }
    async fn get_reservation(
        &self,
        _: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, tonic::Status> {
        let not_now = ledger_proto::NotNow::not_leader(None);
        Err(ledger_proto::status::not_now(not_now))
    }
    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, tonic::Status> {
        Err(ledger_proto::status::invalid(ledger_proto::Invalid::new("of", "missing")))
    }
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, tonic::Status> {
        let before = self.net.reads.fetch_add(1, Ordering::SeqCst);
        let script = self.net.watch.lock().unwrap().clone().unwrap();
        let frames = script(before, request.into_inner());
        Ok(Response::new(Box::pin(tokio_stream::iter(frames))))
    }
    async fn get_routing(&self, _: Request<v1::GetRoutingRequest>) -> Result<Response<v1::Routing>, tonic::Status> {
        self.net.routings.fetch_add(1, Ordering::SeqCst);
        let slots = vec![v1::SlotRange { from: 0, to: 4_095 }];
        let leader = *self.net.leader.lock().unwrap();
        let shard = v1::ShardRoute { shard: 1, slots, leader, replicas: vec![1, 2, 3] };
        let node = |(n, client): (usize, &&str)| v1::NodeRoute {
            node: n as u64 + 1,
            client: (*client).to_owned(),
            http: String::new(),
        };
        let nodes = NODES.iter().enumerate().map(node).collect();
        let routing = v1::Routing { shards: vec![shard], nodes, time_ms: 1_000_000, ..Default::default() };
        Ok(Response::new(routing))
    }
}
