//! The server through its doors: what a client sees, over memory and over HTTPS.

mod access;
mod bad_input;
mod cli;
mod documents;
mod doors;
mod raw;
mod webhooks;
mod workloads;
