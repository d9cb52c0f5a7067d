//! What the crate does as a whole.

mod client;
mod crd_parity;
