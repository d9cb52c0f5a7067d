//! Who may do what: roles and bindings, and the question whether they allow a request. Pure: it is told of every role and
//! binding that is written, and answers without looking anywhere.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation`.

pub mod bootstrap;
mod policy;
mod rules;

pub use self::{
    policy::{Grant, Policy, RoleMissing},
    rules::{FULL_AUTHORITY, Rule, gather, missing, selectors},
};
pub use crate::base::access::{Attributes, Place, What};

/// The group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod tests;
