//! Agents in sandboxes: started, followed, stopped, their plans answered; and the streams that tell of them.
//!
//! [`AgentService`] is the door. A start is a [`Run`](crate::records::Run), a record that says how far it is; one driver owns a
//! run and takes it from state to state. What it does in the sandbox at each state can be done again, and every change of run,
//! task, agent, session and stream is one transaction of the store. So a killed application, a lost connection and a replaced
//! pod are the same case: go on from what is recorded.
//!
//! The agent itself runs detached in the sandbox and prints to a file there, which the driver reads from the byte that the
//! store has it at. Nothing is read twice, nothing is lost with a connection.

mod config;
mod credentials;
mod driver;
mod follow;
mod protocol;
mod remote;
mod service;
mod streams;

pub use self::{
    config::AgentConfig,
    service::{AgentService, PendingPlan, Recovered, StartAgent},
    streams::Streams,
};
