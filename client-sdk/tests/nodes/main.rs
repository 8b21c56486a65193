//! The client against fake nodes over in-memory connections, in paused time.

mod fake;
mod riding_out;
mod sharing;
