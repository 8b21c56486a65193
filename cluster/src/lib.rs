//! `ledgerctl`: the operator's hand on a Holdfast cluster, with the demo and the bench.
//!
//! **Owns** the command line, node processes on loopback ([`dev_cluster`]), catalogs, the books that recompute stock from the
//! feed ([`books`]), the demo and the bench. **Must never** change anything without saying what it will change.
//! **Read next**: [`cli`], [`commands`], [`demo`].

pub mod bench;
pub use auditor as books;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod context;
pub mod demo;
pub mod dev_cluster;
pub mod documents;
pub mod limits;
pub mod link;
pub mod node_mode;
pub mod output;
mod shop;
