//! Admission: what the cluster adds to an object, or refuses, between decoding and storing. Sees (old, new, user, verb) and
//! a read-only view of other objects; never stores.
//!
//! The order is upstream's default (`pkg/kubeapiserver/options/plugins.go`): plugins that change the object come first
//! ([`admit`]); when the kind's own rules have judged it, those that only look ([`validate`]); last the quotas
//! ([`charges`]).

mod builtin;
mod limits;
mod matching;
mod pod_security;
pub mod policies;
pub mod quota;
pub mod webhooks;

use std::sync::Arc;

pub use self::{
    builtin::topology_of,
    matching::{Address, Asked, Kept, Request},
    quota::{Charge, charges},
};
use crate::{
    base::{Object, Status, Stored},
    ids::Ids,
};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object or of one of its subresources.
    Update,
    /// A deletion.
    Delete,
}

/// One request, as admission sees it.
pub struct Attributes<'a> {
    /// What is being done.
    pub operation: Operation,
    /// API group of the resource.
    pub group: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// Subresource, `""` for the object itself.
    pub subresource: &'a str,
    /// Namespace, `""` for cluster-scoped resources.
    pub namespace: &'a str,
    /// Name in the request, `""` if the server is to invent it.
    pub name: &'a str,
    /// The object as stored, if it exists.
    pub old: Option<&'a Object>,
}

impl Attributes<'_> {
    /// The name that a refusal shows (`extractResourceName` in `k8s.io/apiserver/pkg/admission/errors.go`).
    fn shown_name<'a>(&'a self, object: &'a Object) -> &'a str {
        let names = [self.name, object.name(), object.generate_name()];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown")
    }
}

/// Finds the object of a bucket, namespace and name.
pub type Find<'a> = &'a dyn Fn(&str, &str, &str) -> Option<Arc<Stored>>;

/// A read-only view of other objects.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The object of a bucket, namespace and name.
    pub get: Find<'a>,
    /// The objects of a bucket, in a namespace or (`""`) in all, in the order of their keys.
    pub list: &'a dyn Fn(&str, &str) -> Vec<Arc<Stored>>,
}

impl View<'_> {
    fn get(&self, bucket: &str, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        (self.get)(bucket, namespace, name)
    }

    fn list(&self, bucket: &str, namespace: &str) -> Vec<Arc<Stored>> {
        (self.list)(bucket, namespace)
    }
}

/// Admits a create or update: may change the object.
///
/// # Errors
/// 403 with upstream's text where a plugin refuses.
pub fn admit(attributes: &Attributes<'_>, object: &mut Object, view: View<'_>, ids: &Ids) -> Result<(), Status> {
    builtin::namespace_lifecycle(attributes, object, view)?;
    let create = attributes.operation == Operation::Create;
    match (attributes.group, attributes.resource, attributes.subresource) {
        ("", "pods", "") if create => {
            limits::fill(attributes, object, view);
            builtin::service_account(attributes, object, view, ids)?;
            builtin::priority(attributes, object, view)?;
            builtin::default_tolerations(object);
            builtin::runtime_class(attributes, object, view)?;
            builtin::pod_topology_labels(object, view);
        }
        ("", "pods", "") => {
            builtin::keep_priority(object, attributes.old);
            builtin::default_tolerations(object);
        }
        ("", "pods", "resize") => limits::fill(attributes, object, view),
        ("", "persistentvolumeclaims", "") if create => {
            builtin::default_storage_class(object, view);
            builtin::protect(object, "kubernetes.io/pvc-protection");
        }
        ("", "persistentvolumes", "") if create => builtin::protect(object, "kubernetes.io/pv-protection"),
        ("storage.k8s.io", "volumeattributesclasses", "") if create => {
            builtin::protect(object, "kubernetes.io/vac-protection");
        }
        ("networking.k8s.io", "ingresses", "") if create => builtin::default_ingress_class(object, view),
        _ => {}
    }
    Ok(())
}

/// Judges a create or update that the kind's own rules allow; warnings go to `warn`.
///
/// # Errors
/// 403 with upstream's text where a plugin refuses, 422 for a namespace with wrong labels.
pub fn validate(
    attributes: &Attributes<'_>,
    object: &Object,
    view: View<'_>,
    warn: &mut Vec<String>,
) -> Result<(), Status> {
    limits::check(attributes, object, view)?;
    builtin::certificate_subject(attributes, object)?;
    pod_security::validate(attributes, object, view, warn)?;
    builtin::one_default_priority(attributes, object, view)?;
    builtin::claim_resize(attributes, object, view)?;
    builtin::overhead_of_class(attributes, object, view)?;
    builtin::pod_resize(attributes, object, view)
}

/// Admits a deletion.
///
/// # Errors
/// 403 for namespaces that may not go.
pub fn admit_deletion(attributes: &Attributes<'_>) -> Result<(), Status> {
    builtin::immortal_namespaces(attributes)
}
