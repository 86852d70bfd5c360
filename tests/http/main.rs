//! The HTTP pieces as a user sees them.

#![cfg(feature = "full")]
#![allow(unreachable_pub, reason = "modules of one binary")]

#[path = "../support/mod.rs"]
mod support;

mod body;
mod cache;
mod over_a_wire;
mod replay;
mod replay_memory;
mod respond;
mod server_side;
mod take_over;
