//! The kinds of Agent Sandbox in version v1alpha1, which is still served and deprecated.
//!
//! For clusters whose controller is older than v0.5.0. What did not change is [`v1beta1`](crate::v1beta1)'s own.

mod claim;
mod sandbox;
mod template;
mod warm_pool;

pub use self::{
    claim::{SandboxClaim, SandboxClaimSpec},
    sandbox::{Sandbox, SandboxSpec, SandboxStatus},
    template::{SandboxTemplate, SandboxTemplateSpec},
    warm_pool::{SandboxWarmPool, SandboxWarmPoolSpec, SandboxWarmPoolStatus},
};
