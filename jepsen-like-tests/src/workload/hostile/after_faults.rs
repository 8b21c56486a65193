//! What is sent once every fault is healed: now each call must be answered, and frames at their bounds are among them.
//!
//! **What it is.** While faults strike an answer may be lost. Afterwards a call without an answer is a stream that hangs, a lost wake-up or a
//! node that ended. Calls that change stock go to a hostile product, so no other checker sees them.
//!
//! **Owns** these calls. **Must never** be sent while a fault is in force. **Read next**: [`super::judge`], [`crate::checkers::hostile`].

use ledger_proto::limits::{CALLS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use ledger_proto::v1;
use prost_reflect::MethodDescriptor;
use prost_reflect::prost::Message;

use super::call::{self, Fate};
use super::judge::{self, Sent};
use super::values::SKUS;
use super::{methods, peers, sequences};
use crate::workload::{Failure, Site};

/// Methods of the Admin service that change nothing.
const ADMIN_READS: [&str; 2] = ["NodeStatus", "GetSettings"];

/// How a frame must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// Every call of it has an outcome.
    Decide,
    /// As a whole, with a status.
    Refuse,
    /// Either.
    Answer,
}

/// Sends to a node what it must answer now; what it did not answer, or answered wrongly.
///
/// # Errors
/// When the node cannot be reached.
pub(crate) async fn after_faults(site: &Site, node: u64) -> Result<Vec<String>, Failure> {
    let mut channel = site.channel(node).await?;
    let mut wrong: Vec<String> = peers::greet(site, node).await?.into_iter().collect();
    for (what, method, message, tags, must) in everything() {
        let streaming = method.is_server_streaming() && !method.is_client_streaming();
        let body = call::framed(&[message]);
        let answered = match call::call(&mut channel, &methods::path(&method), body, streaming).await {
            Fate::Answered(answered) => judge::judge(&Sent { method: &method, whole: true, tags: &tags }, &answered),
            Fate::Unreached(why) => Err(why),
        };
        match answered.map(|judged| judged.kind) {
            Ok("status") if must == Must::Decide => wrong.push(format!("node {node} refuses {what}")),
            Ok("ok") if must == Must::Refuse => wrong.push(format!("node {node} accepts {what}")),
            Ok(_) => {}
            Err(why) => wrong.push(format!("node {node}, all faults healed, {what}: {why}")),
        }
    }
    Ok(wrong)
}

type Sending = (String, MethodDescriptor, Vec<u8>, Vec<u64>, Must);

/// An empty message to every method that changes nothing of the cluster, and frames at each of their bounds.
fn everything() -> Vec<Sending> {
    let harmless =
        |method: &MethodDescriptor| method.parent_service().name() != "Admin" || ADMIN_READS.contains(&method.name());
    let mut all: Vec<Sending> = methods::all()
        .into_iter()
        .filter(harmless)
        .map(|method| (format!("an empty {}", method.name()), method, Vec::new(), Vec::new(), Must::Answer))
        .collect();
    let mut frame = |what: &str, bytes: Vec<u8>, tags: Vec<u64>, must: Must| {
        all.push((what.to_owned(), methods::method("SubmitBatch"), bytes, tags, must));
    };
    let [sku, ..] = SKUS;
    let receive = |tag: u64| v1::Call {
        tag,
        within_ms: 0,
        verb: Some(sequences::receive(sku, 1, "after all faults".to_owned())),
    };
    let calls = |tags: &[u64]| v1::CallFrame { calls: tags.iter().map(|tag| receive(*tag)).collect() }.encode_to_vec();
    let most: Vec<u64> = (1..=CALLS_PER_FRAME_MAX as u64).collect();
    let empty = |count: usize| [0x0a, 0].repeat(count);
    frame("two calls of one tag", calls(&[7, 7]), vec![7, 7], Must::Decide);
    frame("a frame of the most calls", calls(&most), most.clone(), Must::Decide);
    frame("a frame of one call too many", empty(CALLS_PER_FRAME_MAX + 1), Vec::new(), Must::Refuse);
    frame("a frame of the most bytes", empty(FRAME_BYTES_MAX / 2), Vec::new(), Must::Refuse);
    frame("a frame of too many bytes", empty(FRAME_BYTES_MAX / 2 + 1), Vec::new(), Must::Refuse);
    all
}
