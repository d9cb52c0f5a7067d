//! What applications see of the provider crate, one module for each part.

mod agent_faults;
mod agents;
mod agents_in_pods;
mod contract;
mod docker;
mod engine;
mod errors;
mod http;
mod kubernetes;
mod local;
mod streams;
