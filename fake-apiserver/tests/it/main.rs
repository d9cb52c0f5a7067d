//! The server through its doors: what a client sees, over memory and over HTTPS.

mod access;
mod bad_input;
mod cli;
mod conversion;
mod documents;
mod doors;
mod faults;
mod fuzz;
mod hook_server;
mod kube_rs;
mod ports;
mod raw;
mod storms;
mod transcripts;
mod webhooks;
mod workloads;
