#![doc = include_str!("../README.md")]
//!
//! # Where to look
//! - [`AgentSandboxClient`]: create, get, list, watch, delete; wait, suspend, resume, expire; exec and logs.
//! - [`v1beta1`]: the types. They are kube-rs types: `kube::Api<Sandbox>`, its watcher and its reflector take them.
//! - [`v1alpha1`]: the same of clusters from before v0.5.0.
//! - [`conditions`] and [`keys`]: what the controllers write, by name.
//! - [`crds`]: the CustomResourceDefinitions as values.
#![deny(missing_docs)]

pub mod conditions;
pub mod crds;
mod error;
mod exec;
pub mod keys;
mod open_enum;
mod sandboxes;
mod schema;
pub mod v1alpha1;
pub mod v1beta1;

pub use self::{
    error::{Error, ExecError, LastSeen, SandboxName, WaitError},
    exec::{ExecOptions, ExecOutput},
    sandboxes::AgentSandboxClient,
};
