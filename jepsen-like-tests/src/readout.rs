//! How a run begins and how it is read out: init, connections, and the final reads that the checkers judge.
//!
//! **Owns** nothing but questions. **Must never** change what it reads: unknown answers are resolved by reading, not by a fence.
//! **Read next**: [`crate::checkers`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client_sdk::{Client, IdView, Outcome, ReservationId, Status};
use hyper_util::rt::TokioIo;
use ledger_proto::v1;
use ledger_proto::v1::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::history::{FinalDigest, FinalId, FinalStock, Op};
use crate::sim::{CLIENT_PORT, Setting};
use crate::workload::{self, Journal};

/// Tries of each final read before the run counts as not converged.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(100);

type Failure = Box<dyn std::error::Error>;

fn addr(node: usize) -> String {
    format!("n{}:{CLIENT_PORT}", node + 1)
}

async fn dial(uri: Uri) -> std::io::Result<TokioIo<turmoil::net::TcpStream>> {
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let dialled = tokio::time::timeout(Duration::from_secs(1), turmoil::net::TcpStream::connect(host)).await;
    dialled.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?.map(TokioIo::new)
}

async fn admin(node: usize) -> Result<AdminClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{}", addr(node)))?.timeout(Duration::from_secs(5));
    let channel = endpoint.connect_with_connector(tower::service_fn(dial)).await?;
    Ok(AdminClient::new(channel))
}

/// `cluster init`, repeated until it is done: that must be safe.
pub async fn init_cluster(nodes: usize) -> Result<(), Failure> {
    let members: Vec<_> =
        (0..nodes).map(|n| v1::Member { node: n as u64 + 1, client: addr(n), ..v1::Member::default() }).collect();
    let mut last = String::new();
    for _ in 0..TRIES {
        let request = v1::InitRequest { members: members.clone(), shards: 2, replicas: 0 };
        let done = match admin(0).await {
            Ok(mut admin) => admin.init(request).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("the cluster was never initialised: {last}").into())
}

/// The SDK over the simulated network.
pub async fn connect(nodes: usize, seed: u64) -> Result<Client, Failure> {
    let mut last = None;
    for _ in 0..TRIES {
        let builder = Client::builder().endpoints((0..nodes).map(addr)).seed(seed).connector(Arc::new(|uri: Uri| {
            Box::pin(async move { Ok(Box::new(dial(uri).await?.into_inner()) as Box<dyn client_sdk::Io>) })
        }));
        match builder.connect().await {
            Ok(client) => return Ok(client),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("no client: {last:?}").into())
}

/// Reads out everything the checkers judge.
pub async fn read_out(client: &Client, setting: Setting, journal: &Journal) -> Result<(), Failure> {
    let ids: BTreeSet<String> = journal
        .lock()
        .expect("one thread")
        .events
        .iter()
        .filter_map(|e| match &e.op {
            Op::Reserve { id, .. } => Some(id.clone()),
            _ => None,
        })
        .collect();
    let mut finals = Vec::with_capacity(ids.len());
    for id in ids {
        finals.push(read_id(client, &id).await?);
    }
    let stock = read_stock(setting).await?;
    let mut digests = Vec::new();
    let mut findings = Vec::new();
    for node in 0..setting.nodes {
        let mut admin = admin(node).await?;
        for one in admin.digests(v1::DigestsRequest {}).await?.into_inner().digests {
            let value = one.value.iter().map(|b| format!("{b:02x}")).collect();
            digests.push(FinalDigest { node: node as u64 + 1, shard: one.shard, index: one.index, value });
        }
        for finding in admin.audit(v1::AuditRequest {}).await?.into_inner().findings {
            findings.push(format!("node {}: {}: {}", node + 1, finding.invariant, finding.what));
        }
    }
    let mut run = journal.lock().expect("one thread");
    (run.ids, run.stock, run.digests, run.findings) = (finals, stock, digests, findings);
    Ok(())
}

async fn read_id(client: &Client, text: &str) -> Result<FinalId, Failure> {
    let id: ReservationId = text.parse()?;
    let mut last = String::new();
    for _ in 0..TRIES {
        match client.reservation(id).await {
            Outcome::Ok(answered) => {
                let (state, sold) = match answered.value {
                    IdView::Reservation(r) => {
                        let state = match r.status {
                            Status::Held => "held",
                            Status::Confirmed => "confirmed",
                            Status::Released => "released",
                            Status::Expired => "expired",
                        };
                        (state, r.lines.iter().map(|l| u64::from(l.sold)).sum())
                    }
                    IdView::Refused(_) => ("refused", 0),
                    IdView::Fenced => ("fenced", 0),
                    IdView::Unknown => ("unknown", 0),
                    IdView::Forgotten => ("forgotten", 0),
                    IdView::SlotElsewhere => ("slot elsewhere", 0),
                };
                return Ok(FinalId { id: text.to_owned(), state: state.to_owned(), sold });
            }
            other => last = format!("{other:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{text} cannot be read: {last}").into())
}

/// Every node's own view of every product, once they all have applied the same; what they say last if they never do.
async fn read_stock(setting: Setting) -> Result<Vec<FinalStock>, Failure> {
    let mut stock = Vec::new();
    for _ in 0..TRIES {
        stock.clear();
        let mut positions = BTreeSet::new();
        for node in 0..setting.nodes {
            for (product, position) in read_stock_of(setting, node).await? {
                positions.insert((product.sku.clone(), position));
                stock.push(product);
            }
        }
        if positions.len() == setting.load.products {
            return Ok(stock);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(stock)
}

async fn read_stock_of(setting: Setting, node: usize) -> Result<Vec<(FinalStock, u64)>, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{}", addr(node)))?.timeout(Duration::from_secs(5));
    let channel = endpoint.connect_with_connector(tower::service_fn(dial)).await?;
    let mut ledger = v1::ledger_client::LedgerClient::new(channel);
    let mut found = Vec::new();
    for sku in workload::products(setting.load) {
        let request = v1::GetProductRequest { sku: sku.to_string(), consistency: v1::Consistency::Stale.into() };
        let answer = ledger.get_product(request).await?.into_inner();
        let product = answer.product.ok_or_else(|| format!("node {} does not know {sku}", node + 1))?;
        let position = answer.as_of.and_then(|a| a.position).map_or(0, |p| p.index);
        let sum = |f: fn(&v1::Balance) -> u64| product.offers.iter().filter_map(|o| o.balance.as_ref()).map(f).sum();
        let stock = FinalStock {
            node: node as u64 + 1,
            sku: product.sku.clone(),
            received: product.received,
            adjusted: product.adjusted,
            available: sum(|b| b.available),
            held: sum(|b| b.held),
            sold: sum(|b| b.sold),
        };
        found.push((stock, position));
    }
    Ok(found)
}
