//! What a verb means: the only room that reads and writes objects by Kubernetes' rules. Knows no URLs, headers, sockets or
//! tasks.

mod access;
mod builtin;
mod catalog;
mod convert;
mod crd;
mod decode;
mod delete;
mod guard;
mod hooks;
mod identity;
mod read;
mod reviews;
mod services;
mod signer;
mod subresource;
mod tokens;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use serde_json::Value;

pub use self::{
    catalog::{Catalog, Column, Custom, Group, Resource, Scale, Subresource},
    hooks::{CallWebhook, WebhookCall, WebhookClient},
    read::Watcher,
    tokens::{AUDIENCE, Known},
};
pub use crate::base::User;
use crate::{
    access::Policy,
    base::{Converter, Gvr, Key, Object, Status, Stored, limits},
    clock::Clock,
    ids::Ids,
    rule::{Call, Rules, Verdict},
    store::{Entry, Store},
};

/// The API of a cluster; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    clock: Clock,
    ids: Ids,
    rules: Rules,
    catalog: Mutex<Arc<Catalog>>,
    customs: Mutex<crd::Customs>,
    policy: Mutex<Policy>,
    /// Bearer tokens that were named at the start, and whom they stand for.
    tokens: Mutex<BTreeMap<String, User>>,
    /// Signs the tokens of service accounts; made when the first is asked for.
    signer: OnceLock<signer::Signer>,
    /// By namespace and name of the service that a definition names.
    converters: Mutex<BTreeMap<(String, String), Converter>>,
    /// Who calls webhooks.
    webhooks: OnceLock<WebhookClient>,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Namespace, `""` for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Name, `""` for the collection.
    pub name: String,
    /// Subresource, `""` for the object itself.
    pub subresource: String,
}

/// Who asks, and how.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The authenticated user.
    pub user: User,
    /// Whether the user's rights count: they do at the HTTP doors, and not for the cluster's own controllers.
    pub guarded: bool,
    /// Field manager: `?fieldManager=`, else the User-Agent up to its first `/`.
    pub manager: String,
    /// `?dryRun=All`: do everything but store.
    pub dry_run: bool,
    /// `?fieldValidation=`.
    pub validation: FieldValidation,
    /// What the answer warns of.
    pub warnings: Warnings,
    /// Paths of members that stand twice in the text of a patch.
    pub duplicates: Vec<String>,
}

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped with a warning; the default.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

/// Warnings of one request, in order, each once; clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a warning.
    pub fn add(&self, text: impl Into<String>) {
        let (mut list, text) = (self.0.lock().expect("no panic under this lock"), text.into());
        if !list.contains(&text) {
            list.push(text);
        }
    }

    /// The warnings so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic under this lock"))
    }
}

/// A parsed request body.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The JSON value.
    pub value: Value,
    /// Paths of members that stood there twice.
    pub duplicates: Vec<String>,
}

impl From<Object> for Body {
    fn from(mut object: Object) -> Self {
        object.unpack();
        Self { value: object.into_value(), duplicates: Vec::new() }
    }
}

/// Options of list and watch, as the query has them; the registry checks them.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `limit`, 0 for no limit.
    pub limit: i64,
    /// `continue`.
    pub continue_token: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `allowWatchBookmarks`.
    pub allow_bookmarks: bool,
}

/// A list, or a page of one.
#[derive(Clone, Debug)]
pub struct List {
    /// The objects, in the order of their keys.
    pub items: Vec<Arc<Stored>>,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    /// `metadata.continue`, `""` on the last page.
    pub continue_token: String,
    /// `metadata.remainingItemCount`.
    pub remaining: Option<u64>,
}

/// What a watch hands out.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// An object appeared (or came to match the selector).
    Added(Arc<Stored>),
    /// An object changed.
    Modified(Arc<Stored>),
    /// An object went (or ceased to match the selector).
    Deleted(Arc<Stored>),
    /// Everything up to this revision has been handed out; `true` after the initial events.
    Bookmark(u64, bool),
    /// The watch ends with an error.
    Error(Status),
}

/// A patch.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `application/json-patch+json`: the operations, checked for their form by the registry.
    Json(Value),
    /// `application/merge-patch+json`.
    Merge(Value),
    /// `application/strategic-merge-patch+json`.
    Strategic(Value),
    /// `application/apply-patch+yaml`; `force` takes fields from other managers.
    Apply {
        /// The configuration.
        body: Body,
        /// `?force=true`.
        force: bool,
    },
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
    /// `propagationPolicy`, as sent.
    pub propagation: Option<String>,
    /// `orphanDependents`.
    pub orphan_dependents: Option<bool>,
}

/// What a deletion left.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// Nothing: the object is gone; the answer is a Status with its UID.
    Gone {
        /// The object as it was last.
        last: Arc<Stored>,
    },
    /// The object, waiting for finalizers or its grace period; the answer shows it.
    Waiting(Arc<Stored>),
}

/// Why a request has no answer of its own.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with an error.
    Refused(Status),
    /// A rule ended the connection.
    Lost,
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(status) => status,
            Fault::Lost => Self::unexpected("the API server was not reached: unexpected EOF"),
        }
    }
}

impl Registry {
    /// Carries a request out as the rules in force want it: late, not at all, or with an error before or after its effect.
    ///
    /// # Errors
    /// The request's own, or a rule's.
    pub async fn under_rules<T>(
        &self,
        call: &Call<'_>,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Fault> {
        match self.rules().request(call) {
            None => {}
            Some(Verdict::Delay(time)) => self.clock().sleep(time).await,
            Some(Verdict::Yield(turns)) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Some(Verdict::Compact) => self.compact(),
            Some(Verdict::Fail(status, false)) => return Err(Fault::Refused(*status)),
            Some(Verdict::Drop(false)) => return Err(Fault::Lost),
            Some(Verdict::Fail(status, true)) => {
                request.await?;
                return Err(Fault::Refused(*status));
            }
            Some(Verdict::Drop(true)) => {
                request.await?;
                return Err(Fault::Lost);
            }
        }
        Ok(request.await?)
    }

    /// The rules by which things go wrong.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// An empty cluster's API, serving the built-in kinds.
    pub fn new(clock: Clock, ids: Ids) -> Self {
        Self(Arc::new(Inner {
            store: Arc::new(Store::new(limits::EVENT_LOG)),
            rules: Rules::new(clock.clone(), ids.clone()),
            clock,
            ids,
            catalog: Mutex::new(Arc::new(builtin::catalog())),
            customs: Mutex::default(),
            policy: Mutex::default(),
            tokens: Mutex::default(),
            signer: OnceLock::new(),
            converters: Mutex::default(),
            webhooks: OnceLock::new(),
        }))
    }

    /// The resources served now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.lock().expect("no panic under this lock").clone()
    }

    /// The clock that the registry stamps times with.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Where names and UIDs come from.
    pub fn ids(&self) -> &Ids {
        &self.0.ids
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.0.store.revision()
    }

    /// Forgets all history: older watches and pages get 410 from now on, as after an etcd compaction.
    pub fn compact(&self) {
        self.0.store.compact();
    }

    /// The resources that are stored, once each, in the version they are stored in: what controllers walk.
    pub fn stored_resources(&self) -> Vec<Arc<Resource>> {
        let catalog = self.catalog();
        let mut seen = std::collections::BTreeSet::new();
        let is_stored = |resource: &Resource| match &resource.custom {
            Some(custom) => custom.storage_version == resource.gvr.version,
            None => resource.verbs.iter().any(|verb| verb == "list"),
        };
        catalog.all().filter(|resource| is_stored(resource) && seen.insert(resource.bucket.clone())).cloned().collect()
    }

    /// How many objects each of them has.
    pub fn stored_counts(&self) -> Vec<(Gvr, usize)> {
        let count = |resource: Arc<Resource>| (resource.gvr.clone(), self.0.store.count(&resource.bucket, None));
        self.stored_resources().into_iter().map(count).collect()
    }

    /// A target in the served resource of that name.
    ///
    /// # Errors
    /// 404 where no such resource is served.
    pub fn target(&self, gvr: &Gvr, namespace: &str, name: &str, subresource: &str) -> Result<Target, Status> {
        let catalog = self.catalog();
        let resource = catalog.find(&gvr.group, &gvr.version, &gvr.resource).ok_or_else(Status::no_such_resource)?;
        Ok(Target {
            resource: resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
        })
    }

    /// An object by bucket, namespace and name: the view that admission gets.
    fn look(&self, bucket: &str, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let key = Key { bucket: bucket.into(), namespace: namespace.into(), name: name.into() };
        self.0.store.get(&key).1.map(|entry| entry.value)
    }

    /// What must follow a write: definitions change what is served.
    fn after_write(&self, resource: &Resource, entry: &Entry, deleted: bool) {
        if &*resource.bucket == crd::BUCKET {
            crd::settle(self, &entry.value, deleted);
        } else if deleted && let Some(custom) = &resource.custom {
            crd::instance_gone(self, &custom.definition);
        } else if resource.gvr.group == crate::access::GROUP {
            self.note_policy(resource, entry);
        }
    }
}

impl Target {
    /// The store's key.
    fn key(&self) -> Key {
        Key { bucket: self.resource.bucket.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    fn not_found(&self) -> Status {
        Status::not_found(&self.resource.gvr.group, &self.resource.gvr.resource, &self.name)
    }
}

#[cfg(test)]
mod tests;
