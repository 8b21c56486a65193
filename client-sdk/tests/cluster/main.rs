//! The client against real nodes in this process: the examples, and clusters where most nodes keep no replica of a shard.

mod examples;
mod far_nodes;
mod nodes;
mod orders;
