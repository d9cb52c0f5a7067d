#![doc = include_str!("../README.md")]
//!
//! # Where to look
//! - [`AgentSandboxClient`]: what one does with sandboxes: create, wait, suspend, resume, expire; exec, copy, ports and
//!   logs.
//! - [`Objects`]: what one does with objects of any of the four kinds, on clusters of any age.
//! - [`informer`]: a view of objects that keeps itself up to date.
//! - [`kubeconfig`]: which cluster, and what is wrong if there is none.
//! - [`health`] and [`validation`]: what is wrong with a cluster, and with an object.
//! - [`builders`]: the short way to an object that the server takes.
//! - [`v1beta1`]: the types. They are kube-rs types: `kube::Api<Sandbox>`, its watcher and its reflector take them.
//! - [`v1alpha1`] and [`conversion`]: the same of clusters from before v0.5.0, and the way between the two.
//! - [`conditions`] and [`keys`]: what the controllers write, by name.
//! - [`crds`]: the CustomResourceDefinitions as values.
#![deny(missing_docs)]

pub mod builders;
pub mod conditions;
pub mod conversion;
mod copy;
pub mod crds;
mod error;
mod exec;
pub mod health;
pub mod informer;
pub mod keys;
pub mod kubeconfig;
mod objects;
mod open_enum;
mod ports;
mod retry;
mod sandboxes;
mod schema;
mod utf8;
pub mod v1alpha1;
pub mod v1beta1;
pub mod validation;
mod waiting;

pub use self::{
    error::{
        CallError, CopyError, Error, ExecError, LastSeen, LogsError, ObjectName, Partial, PortError, Quote, WaitError,
    },
    exec::{ExecEnd, ExecOptions, ExecOutput, Execution, Output, Signal, TerminalSize},
    objects::{Kind, Objects},
    ports::{PortForward, PortStream},
    sandboxes::AgentSandboxClient,
    utf8::Utf8Decoder,
};
