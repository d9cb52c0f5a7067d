//! Sandboxes on Kubernetes and Docker behind one contract, coding agents in them, and the HTTP API in front.
//!
//! # Where to look
//! - [`SandboxProvider`] and [`Sandbox`]: the contract, and the types that cross it.
//! - [`AgentSandboxProvider`]: sandboxes on Kubernetes; [`DockerProvider`]: on a Docker Engine.
//! - [`Error`] and [`Code`]: what goes wrong, each with the code and the HTTP status that clients know.
//! - [`agent`]: agents in sandboxes, and the streams that tell of them.
//! - [`Application`]: all of it behind an HTTP service; [`serve`] is the program. [`settings`] and [`selection`]: which provider.
//! - [`store`] and [`records`]: what the application remembers, in one file.
#![deny(missing_docs)]

pub mod agent;
mod application;
mod audit;
pub mod config;
mod contract;
mod docker;
mod embedded;
mod error;
mod http;
mod kubernetes;
mod labels;
mod listener;
mod log;
mod machine;
mod paths;
pub mod records;
pub mod selection;
pub mod serve;
pub mod settings;
mod shape;
pub mod store;
mod streams;
mod tmux;
mod tracker;

pub use self::{
    application::{Application, Setup, connect},
    contract::{
        CleanupFilter, ExecEnd, ExecHandle, ExecOptions, ExecOutput, ExecStream, HealthCheck, HealthRow, Sandbox,
        SandboxConfig, SandboxEvent, SandboxInfo, SandboxMetrics, SandboxProvider, SandboxStatus, StopReason,
        TmuxSession, VolumeMount,
    },
    docker::{DockerOptions, DockerProvider},
    error::{Code, Error},
    http::{Auth, Clusters, DEFAULT_RATE},
    kubernetes::{AgentSandboxProvider, KubernetesOptions, NetworkAccess, WarmPool, Workspace},
    tracker::Clock,
};
