//! The server through its doors: what a client sees, over memory and over HTTPS.

mod bad_input;
mod cli;
mod doors;
mod raw;
