//! `ledgerctl data-dir`: a stopped node's data directory, as a whole.
//!
//! **Owns** what is printed of it. **Must never** touch a directory in use. **Read next**:
//! [`ledger_node::data_dir`].

use ledger_node::data_dir::{self, DataDirError};
use serde::Serialize;

use crate::cli::{DataDirVerb, MovedArgs};
use crate::output::{Failure, Outcome, Printer};

#[derive(Debug, Serialize)]
struct MovedDoc {
    node: u64,
    /// What of its place was another one; absent: it lies where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<&'static str>,
}

/// Runs a verb of `data-dir`.
///
/// # Errors
/// [`Failure`]: the directory is in use, damaged, or not a node's.
pub(super) fn run(verb: DataDirVerb, printer: Printer) -> Outcome {
    let DataDirVerb::Moved(MovedArgs { data_dir, original_is_retired: _ }) = verb;
    let moved = data_dir::moved(&data_dir).map_err(|why| match why {
        DataDirError::InUse { .. } => Failure::refused(why.to_string()).hint("stop that node first"),
        why => Failure::refused(why.to_string()),
    })?;
    if let Some(damage) = moved.damage {
        let why = format!(
            "the directory of node {} is damaged, and nobody can vouch for it any more: {damage}; nothing was changed",
            moved.node
        );
        return Err(Failure::refused(why).hint(
            "start it where peers can repair it, or copy the original again and run this before the first start of the copy",
        ));
    }
    let doc = MovedDoc { node: moved.node, difference: moved.difference };
    printer.print(&doc, |doc| match doc.difference {
        Some(difference) => format!("node {}: its directory has {difference}, and belongs here from now on", doc.node),
        None => format!("node {}: its directory lies where it was; nothing was changed", doc.node),
    })
}
