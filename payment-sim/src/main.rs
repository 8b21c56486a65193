//! The binary `payment-sim`.
//!
//! **Owns** the allocator. **Must never** do what [`payment_sim::process`] should. **Read next**: [`payment_sim::process`].

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    payment_sim::process::run(payment_sim::process::Flags::parse())
}
