//! Who owns whom, and what follows from a change. Pure: the collector feeds it and does what it says.
//!
//! Upstream: `pkg/controller/garbagecollector/graph_builder.go`; its rules for a single object are in [`judge`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::base::{Gvr, Object, OwnerReference};

/// Finalizer of an object whose dependents are deleted before it.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are kept when it goes.
pub const ORPHAN: &str = "orphan";

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Whether the object with this UID is to be deleted, or its own waiting for dependents is over.
    Attempt(String),
    /// The object with this UID goes and its dependents stay.
    Orphan(String),
    /// The first UID names the second as an owner that lives in another namespace.
    Report(String, String),
}

/// What all objects of a resource have in common, kept once.
#[derive(Clone, Debug)]
pub struct Type {
    /// Group, version and plural.
    pub gvr: Arc<Gvr>,
    /// `apiVersion`.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
}

/// What the graph knows of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `plural.group` and version of the resource it was seen in.
    pub gvr: Arc<Gvr>,
    /// `apiVersion`.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace, `""` for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its owner references.
    pub owners: Vec<OwnerReference>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is being deleted and waits for its dependents to go.
    pub deleting_dependents: bool,
    /// Whether it is being deleted and its dependents are to be kept.
    pub orphaning: bool,
}

impl Node {
    /// What the graph keeps of an object.
    pub fn new(of: &Type, object: &Object) -> Self {
        let (deleting, finalizers) = (object.is_deleting(), object.finalizers());
        let Type { gvr, api_version, kind } = of.clone();
        Self {
            gvr,
            api_version,
            kind,
            namespace: object.namespace().into(),
            name: object.name().into(),
            owners: object.owner_references(),
            deleting,
            deleting_dependents: deleting && finalizers.contains(&FOREGROUND),
            orphaning: deleting && finalizers.contains(&ORPHAN),
        }
    }

    fn reference(&self, owner: &str) -> Option<&OwnerReference> {
        self.owners.iter().find(|reference| reference.uid == owner)
    }

    /// Whether a reference says of this node what is true.
    fn matches(&self, reference: &OwnerReference) -> bool {
        *self.api_version == *reference.api_version && *self.kind == *reference.kind && self.name == reference.name
    }
}

/// The owner graph of all objects, by UID.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
    /// Owner to dependents; owners may be unknown.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// What is known of an object.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name this one as an owner, by UID.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&str, &Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.as_str(), self.nodes.get(uid)?)))
    }

    /// The dependents that an object in foreground deletion waits for.
    pub fn blocking_dependents(&self, uid: &str) -> impl Iterator<Item = (&str, &Node)> {
        self.dependents(uid)
            .filter(move |(_, node)| node.reference(uid).is_some_and(|reference| reference.block_owner_deletion))
    }

    /// All objects seen in a resource, by UID.
    pub fn of(&self, group: &str, resource: &str) -> Vec<String> {
        let here = |node: &Node| node.gvr.group == group && node.gvr.resource == resource;
        self.nodes.iter().filter(|(_, node)| here(node)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes in an object that is there; what is to be looked at because of it.
    pub fn observe(&mut self, uid: &str, node: Node) -> Vec<Work> {
        let mut work = Vec::new();
        let old = self.nodes.insert(uid.to_owned(), node);
        let node = &self.nodes[uid];
        let old_owners = old.as_ref().map(|old| old.owners.as_slice()).unwrap_or_default();
        for reference in &node.owners {
            self.dependents.entry(reference.uid.clone()).or_default().insert(uid.to_owned());
            if old_owners.iter().any(|old| old == reference) {
                continue;
            }
            match self.nodes.get(&reference.uid) {
                None => work.push(Work::Attempt(uid.to_owned())),
                Some(owner) => work.extend(suspicious(uid, node, reference, owner)),
            }
        }
        for old in old_owners {
            let now = node.reference(&old.uid);
            if now.is_none()
                && let Some(dependents) = self.dependents.get_mut(&old.uid)
            {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&old.uid);
                }
            }
            let unblocked = old.block_owner_deletion && !now.is_some_and(|now| now.block_owner_deletion);
            if unblocked && self.nodes.get(&old.uid).is_some_and(|owner| owner.deleting_dependents) {
                work.push(Work::Attempt(old.uid.clone()));
            }
        }
        if old.is_none() {
            for (dependent, child) in self.dependents(uid) {
                if let Some(reference) = child.reference(uid) {
                    work.extend(suspicious(dependent, child, reference, node));
                }
            }
        }
        if node.orphaning && !old.as_ref().is_some_and(|old| old.orphaning) {
            work.push(Work::Orphan(uid.to_owned()));
        }
        if node.deleting_dependents && !old.as_ref().is_some_and(|old| old.deleting_dependents) {
            work.extend(self.dependents(uid).map(|(dependent, _)| Work::Attempt(dependent.to_owned())));
            work.push(Work::Attempt(uid.to_owned()));
        }
        work
    }

    /// Takes in that an object is gone; what is to be looked at because of it.
    pub fn forget(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: Vec<_> = self.dependents(uid).map(|(dependent, _)| Work::Attempt(dependent.to_owned())).collect();
        for reference in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&reference.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&reference.uid);
                }
            }
            if self.nodes.get(&reference.uid).is_some_and(|owner| owner.deleting_dependents) {
                work.push(Work::Attempt(reference.uid.clone()));
            }
        }
        work
    }
}

/// What is to be looked at where a reference names a living owner by wrong coordinates.
fn suspicious(uid: &str, node: &Node, reference: &OwnerReference, owner: &Node) -> Vec<Work> {
    let mut work = Vec::new();
    let elsewhere = !owner.namespace.is_empty() && owner.namespace != node.namespace;
    if elsewhere {
        work.push(Work::Report(uid.to_owned(), reference.uid.clone()));
    }
    if elsewhere || !owner.matches(reference) {
        work.push(Work::Attempt(uid.to_owned()));
    }
    work
}

/// What an owner reference turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// The owner is there.
    Solid,
    /// It is not.
    Dangling,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays, without the references to these UIDs.
    Strip(Vec<String>),
    /// It is deleted; `unblock` first takes `blockOwnerDeletion` from its references, lest a circle waits for itself.
    Delete {
        /// `propagationPolicy`.
        propagation: &'static str,
        /// Whether its references are unblocked first.
        unblock: bool,
    },
}

/// What becomes of an object that has owner references (`attemptToDeleteItem` in `garbagecollector.go`).
pub fn judge(owners: &[(&str, OwnerState)], dependents: &[&Node], finalizers: &[&str]) -> Verdict {
    let any = |state| owners.iter().any(|(_, other)| *other == state);
    let not_solid = || owners.iter().filter(|(_, state)| *state != OwnerState::Solid);
    if owners.is_empty() {
        Verdict::Keep
    } else if any(OwnerState::Solid) {
        let stale: Vec<_> = not_solid().map(|(uid, _)| (*uid).to_owned()).collect();
        if stale.is_empty() { Verdict::Keep } else { Verdict::Strip(stale) }
    } else if any(OwnerState::Waiting) && !dependents.is_empty() {
        let unblock = dependents.iter().any(|dependent| dependent.deleting_dependents);
        Verdict::Delete { propagation: "Foreground", unblock }
    } else {
        let propagation = if finalizers.contains(&ORPHAN) {
            "Orphan"
        } else if finalizers.contains(&FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        Verdict::Delete { propagation, unblock: false }
    }
}

#[cfg(test)]
mod tests;
