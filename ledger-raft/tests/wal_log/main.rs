//! The write-ahead log, seen from outside.
//!
//! `crash`: at every write and sync · `rot`: a bit in every block · `bounds`: space, strangers, sizes · `real`: files.

mod bounds;
mod crash;
mod model;
mod real;
mod rot;
