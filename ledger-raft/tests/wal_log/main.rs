//! The write-ahead log, seen from outside.
//!
//! `crash`: at every write and sync · `rot`: a bit in every block · `bounds`: space, strangers, sizes · `carry`: size · `real`: files.

mod bounds;
mod carry;
mod crash;
mod model;
mod real;
mod rot;
