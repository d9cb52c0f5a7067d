//! Scenarios are written once, against a [`World`], and run on each [`Target`].
//!
//! A scenario does not know where it runs: what differs between targets (where the client comes from, whose time it is)
//! is in `target.rs` and nowhere else. It gets a namespace of its own, waits for conditions with a deadline, and on
//! failure the report holds what was in that namespace.

pub mod claims;
mod dump;
pub mod lifecycle;
mod target;
pub mod warm_pools;
mod world;

pub use self::{target::Target, world::World};

/// The example of the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
