//! What Holdfast's programs share as servers: who gets a connection, for how long, and how HTTP is
//! served on it.
//!
//! **What it is.** [`gate`] decides about connections and does no I/O. [`port`] applies its
//! decisions to one listening port. [`guarded`] is the accepted stream, which closes itself in
//! time. [`listener`] serves HTTP/1.1 over such streams.
//!
//! **Owns** the rules that keep one client from taking what the others need. **Must never** know
//! one program's routes or keys.
//! **Read next**: [`gate`], then [`port`].

pub mod descriptors;
pub mod gate;
pub mod guarded;
pub mod limits;
pub mod listener;
pub mod port;

pub use gate::{CallsFull, ConnectionBounds, Kind, Source};
pub use listener::serve_http;
pub use port::{Accept, Buffered, Call, Place, PortGate};
