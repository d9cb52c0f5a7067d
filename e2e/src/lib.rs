//! Scenarios are written once, against a [`World`], and run on each [`Target`].
//!
//! A scenario does not know where it runs: what differs between targets (where the client comes from, whose time it is, what
//! there is behind it) is in `target` and nowhere else. It gets a namespace of its own, waits for conditions with a deadline,
//! and on failure the report holds what was in that namespace. [`scenarios::ALL`] is the list; the tests and the program
//! `e2e` run it through [`runner`].

pub mod cli;
mod dump;
pub mod fidelity;
pub mod migration;
pub mod progress;
pub mod report;
pub mod runner;
pub mod scenarios;
pub mod setup;
pub mod target;
pub mod world;

pub use self::{
    scenarios::{Feature, Scenario},
    target::Target,
    world::World,
};

/// The example of the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The example of the guide for controllers runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guides/controller-test.md")]
struct ControllerTest;
