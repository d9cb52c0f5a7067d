//! Admission: what the cluster adds to an object, or refuses, between decoding and storing. Sees (old, new, user, verb) and
//! a read-only view of other objects; never stores.
//!
//! The order is upstream's default: plugins that change the object first, then those that only look.

mod builtin;

use std::sync::Arc;

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
    /// Name, `""` if the server is to invent it.
    pub name: &'a str,
    /// The object as stored, if it exists.
    pub old: Option<&'a Object>,
}

/// A read-only view of other objects, by bucket, namespace and name.
pub type View<'a> = &'a dyn Fn(&str, &str, &str) -> Option<Arc<Stored>>;

/// Admits a create or update: may change the object.
///
/// # Errors
/// 403 with upstream's text where a plugin refuses.
pub fn admit(attributes: &Attributes<'_>, object: &mut Object, view: View<'_>, ids: &Ids) -> Result<(), Status> {
    builtin::namespace_lifecycle(attributes, view)?;
    if attributes.subresource.is_empty() && attributes.group.is_empty() {
        match attributes.resource {
            "pods" if attributes.operation == Operation::Create => {
                builtin::service_account(attributes, object, view, ids)?;
                builtin::default_tolerations(object);
                builtin::priority(object, view)?;
                builtin::runtime_class(attributes, object, view)?;
            }
            "persistentvolumeclaims" if attributes.operation == Operation::Create => {
                builtin::claim_protection(object);
                builtin::default_storage_class(object, view);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Admits a deletion.
///
/// # Errors
/// 403 for namespaces that may not go.
pub fn admit_deletion(attributes: &Attributes<'_>) -> Result<(), Status> {
    builtin::immortal_namespaces(attributes)
}
