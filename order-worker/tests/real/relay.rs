//! Stands before a node's client port, and sees the calls of orders go by.
//!
//! **What it is.** The Ledger service as the worker uses it. Streams are passed on frame by frame as their bytes are; a frame with a call that counts waits at the
//! call's boundary first, and so does the frame with its answer. The routing names the relay as the node.
//! **Owns** the names of the ledger's calls. **Must never** serve what no worker asks for: that would go unseen.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use client_sdk::Client;
use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use ledger_core::order::{Fact, Report, WorkClass};
use ledger_core::{Command, Settled, Slot};
use ledger_proto::framed::ledger_client::LedgerClient;
use ledger_proto::framed::ledger_server::{Ledger, LedgerServer};
use ledger_proto::v1::orders_client::OrdersClient;
use ledger_proto::v1::orders_server::{Orders, OrdersServer};
use ledger_proto::{Answers, Calls, OneCall, Reply, v1};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::observer::{Observer, Side};

type Frames = Pin<Box<dyn Stream<Item = Result<Answers, Status>> + Send>>;

pub(crate) struct Relay {
    observer: Arc<Observer>,
    node: LedgerClient<Channel>,
    /// Looks at the node beside the relay.
    client: Client,
    address: String,
    /// One frame at a time, from its arrival until it is answered: what is there to be claimed when a claim comes is what it finds.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A call that was passed on.
struct Asked {
    name: &'static str,
    answered: oneshot::Sender<()>,
}

/// Serves a relay before the node at `node`; its address, and what serves it.
pub(crate) async fn serve(
    observer: &Arc<Observer>,
    node: &str,
    client: &Client,
) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let reads = Reads(OrdersClient::connect(format!("http://{node}")).await.expect("the node listens"));
    let node = LedgerClient::connect(format!("http://{node}")).await.expect("the node listens");
    let relay = Relay {
        observer: Arc::clone(observer),
        node,
        client: client.clone(),
        address: address.clone(),
        turn: Arc::default(),
    };
    let server = tonic::transport::Server::builder().add_service(LedgerServer::new(relay));
    let server = server.add_service(OrdersServer::new(reads));
    let serving = tokio::spawn(async move {
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
    });
    (address, serving)
}

fn claim(class: WorkClass) -> &'static str {
    match class {
        WorkClass::Money => "claim money",
        WorkClass::Mail => "claim mail",
    }
}

/// The name of a call.
fn name(command: &Command) -> &'static str {
    match command {
        Command::ClaimOrders { class, .. } => claim(*class),
        Command::Heartbeat { .. } => "heartbeat",
        Command::RecordFact { fact: Fact::Paid { .. }, .. } => "fact paid",
        Command::RecordFact { fact: Fact::Refunded { .. }, .. } => "fact refunded",
        Command::ReportOrder { report, .. } => match report {
            Report::Intent { .. } => "report intent",
            Report::AwaitBuyer { .. } => "report await",
            Report::Unpaid { .. } => "report unpaid",
            Report::Notified => "report notified",
            Report::Retry { .. } => "report retry",
            Report::GiveBack { .. } => "report give back",
            Report::Park { .. } => "report park",
        },
        other => panic!("a worker does not say {other:?}"),
    }
}

/// Whether an answer says that something was done. A claim that found nothing is no step of an order.
fn done(reply: &Reply) -> bool {
    match reply {
        Reply::Ok(Settled::Claimed(orders)) => !orders.is_empty(),
        Reply::Ok(_) => true,
        _ => false,
    }
}

/// Whether a call is a step of an order: a claim is one when something is there to be claimed.
async fn counts(client: &Client, command: &Command) -> bool {
    let Command::ClaimOrders { slot, class, .. } = command else { return true };
    let slot: Slot = *slot;
    let ready = client.queue_of(slot).stale().await.ok().map(|stats| stats.ready);
    ready.is_some_and(|ready| ready[usize::from(*class == WorkClass::Mail)] > 0)
}

fn gone() -> Status {
    Status::unavailable("whoever called is dead")
}

#[tonic::async_trait]
impl Ledger for Relay {
    type SubmitStreamStream = Frames;
    type WatchStream = tokio_stream::Empty<Result<v1::WatchFrame, Status>>;

    async fn submit_stream(&self, request: Request<Streaming<Calls>>) -> Result<Response<Frames>, Status> {
        let mut calls = request.into_inner();
        let (pass_on, passed_on) = mpsc::channel(16);
        let asked: Arc<Mutex<HashMap<u64, Asked>>> = Arc::default();
        let (observer, client, notes) = (Arc::clone(&self.observer), self.client.clone(), Arc::clone(&asked));
        let turn = Arc::clone(&self.turn);
        // Dropped with the answers: the worker is gone.
        let (worker, mut worker_gone) = oneshot::channel::<()>();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = calls.message().await {
                let _turn = turn.lock().await;
                let mut answers = Vec::new();
                if observer.watches() {
                    for call in frame.decode().expect("a frame of calls") {
                        let command = call.command.expect("a valid call");
                        let (answered, answer) = oneshot::channel();
                        let note = Asked { name: name(&command), answered };
                        notes.lock().expect("nobody panicked").insert(call.tag, note);
                        answers.push(answer);
                        if counts(&client, &command).await && observer.pass(name(&command), Side::Before).await.is_err()
                        {
                            return;
                        }
                    }
                }
                if pass_on.send(frame).await.is_err() {
                    return;
                }
                tokio::select! {
                    _ = join_all(answers) => {}
                    _ = &mut worker_gone => return,
                }
            }
        });
        let answers = self.node.clone().submit_stream(ReceiverStream::new(passed_on)).await?.into_inner();
        let observer = Arc::clone(&self.observer);
        let back = answers.then(move |frame| {
            let _ = &worker;
            let (observer, asked) = (Arc::clone(&observer), Arc::clone(&asked));
            async move {
                let frame = frame?;
                for answer in frame.decode().expect("a frame of answers") {
                    let Some(note) = asked.lock().expect("nobody panicked").remove(&answer.tag) else { continue };
                    // Nobody waits when the worker is dead.
                    let _ = note.answered.send(());
                    if done(&answer.reply) {
                        observer.pass(note.name, Side::After).await.map_err(|_| gone())?;
                    }
                }
                Ok(frame)
            }
        });
        Ok(Response::new(back.boxed()))
    }

    async fn get_routing(&self, request: Request<v1::GetRoutingRequest>) -> Result<Response<v1::Routing>, Status> {
        let mut answer = self.node.clone().get_routing(request.into_inner()).await?;
        answer.get_mut().nodes.iter_mut().for_each(|node| node.client.clone_from(&self.address));
        Ok(answer)
    }

    async fn submit(&self, _: Request<OneCall>) -> Result<Response<Answers>, Status> {
        unreachable!("workers use the stream")
    }
    async fn submit_batch(&self, _: Request<Calls>) -> Result<Response<Answers>, Status> {
        unreachable!("workers use the stream")
    }
    async fn get_product(&self, _: Request<v1::GetProductRequest>) -> Result<Response<v1::GetProductResponse>, Status> {
        unreachable!("workers do not read products")
    }
    async fn get_offers(&self, _: Request<v1::GetOffersRequest>) -> Result<Response<v1::GetOffersResponse>, Status> {
        unreachable!("workers do not read offers")
    }
    async fn list_products(
        &self,
        _: Request<v1::ListProductsRequest>,
    ) -> Result<Response<v1::ListProductsResponse>, Status> {
        unreachable!("workers do not read products")
    }
    async fn list_sales(&self, _: Request<v1::ListSalesRequest>) -> Result<Response<v1::ListSalesResponse>, Status> {
        unreachable!("workers do not read sales")
    }
    async fn get_reservation(
        &self,
        _: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        unreachable!("workers do not read reservations")
    }
    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        unreachable!("workers do not read history")
    }
    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unreachable!("workers do not follow the feed")
    }
}

/// Reads of orders change nothing, and go through.
struct Reads(OrdersClient<Channel>);

#[tonic::async_trait]
impl Orders for Reads {
    async fn get_order(&self, asked: Request<v1::GetOrderRequest>) -> Result<Response<v1::GetOrderResponse>, Status> {
        self.0.clone().get_order(asked.into_inner()).await
    }
    async fn list_orders(
        &self,
        asked: Request<v1::ListOrdersRequest>,
    ) -> Result<Response<v1::ListOrdersResponse>, Status> {
        self.0.clone().list_orders(asked.into_inner()).await
    }
    async fn get_queue(&self, asked: Request<v1::GetQueueRequest>) -> Result<Response<v1::GetQueueResponse>, Status> {
        self.0.clone().get_queue(asked.into_inner()).await
    }
}
