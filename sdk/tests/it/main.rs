//! What the crate does as a whole.

mod client;
mod crd_parity;
mod exec;
mod health;
mod informer;
mod validation;
mod versions;
