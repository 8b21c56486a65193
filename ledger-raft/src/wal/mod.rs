//! One write-ahead log for all groups of a node.
