//! Who may do what, as far as the registry has a say: the policy kept in step with the stored roles and bindings, the
//! rights that a write needs beyond its verb, and the roles that every cluster starts with.
//!
//! Upstream: `pkg/registry/rbac/*/policybased/storage.go` (no role may give more than its writer has),
//! `withAuthorization` in `k8s.io/apiserver/pkg/endpoints/handlers/update.go` and `pkg/registry/rbac/rest/storage_rbac.go`.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, MutexGuard},
};

use serde_json::{Value, json};

use super::{Caller, FieldValidation, Registry, Resource, Target, builtin, decode};
use crate::{
    access::{self, Attributes, Grant, Place, Policy, Rule, What, bootstrap},
    base::{Gvr, Object, Status, User, status::go_quote, user::MASTERS},
    fields::{self, Writer},
    store::Entry,
};

/// The field manager of the first objects, and of the controller that fills roles with the rules of others.
const SERVER: &str = "kube-apiserver";
const GATHERER: &str = "clusterrole-aggregation-controller";

/// The first roles and bindings with defaults and owners, made once per process; UIDs and times are each cluster's own.
static FIRST: LazyLock<Vec<(Gvr, Object)>> = LazyLock::new(first_objects);

fn first_objects() -> Vec<(Gvr, Object)> {
    let (catalog, caller) = (builtin::catalog(), Caller { validation: FieldValidation::Ignore, ..Caller::default() });
    let objects = bootstrap::objects();
    let gathered = bootstrap::gathered(&objects);
    let own = |(plural, object): &(&'static str, Object)| {
        let resource = catalog.find(access::GROUP, "v1", plural).expect("the kinds of access control are built in");
        let mut made = decode::decode(resource, &catalog, &caller, object.clone().into())?;
        let version = resource.api_version();
        let writer = |manager| Writer {
            manager,
            api_version: &version,
            subresource: "",
            reset: &[],
            now: jiff::Timestamp::UNIX_EPOCH,
            versions: None,
        };
        fields::track(None, &mut made, resource.schema(), &writer(SERVER));
        if let Some(rules) = gathered.get(object.name()).filter(|_| *plural == "clusterroles") {
            let mut applied = Object::new(&version, &resource.kind, "", object.name());
            applied.set("rules", json!(rules));
            made = fields::apply(Some(&made), &applied, resource.schema(), &writer(GATHERER), true)?;
        }
        made.pack();
        Ok::<_, Status>((resource.gvr.clone(), made))
    };
    objects.iter().map(|object| own(object).expect("the first roles are well-formed")).collect()
}

impl Registry {
    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.0.policy.lock().expect("no panic under this lock")
    }

    /// Whether a request is allowed, and why.
    ///
    /// # Errors
    /// The reason of a refusal, often `""`.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Result<Grant, String> {
        if attributes.user.is_in(MASTERS) {
            return Ok(Grant::Master);
        }
        self.policy().authorize(attributes)
    }

    /// Lets a request pass that is allowed.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub fn permit(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.authorize(attributes).map(drop).map_err(|reason| attributes.refusal(&reason))
    }

    /// The rules that a user has in a namespace, and what could not be found out.
    pub(super) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Option<String>) {
        self.policy().rules_for(user, namespace)
    }

    /// Keeps the policy in step with a role or binding that was just written.
    pub(super) fn note_policy(&self, resource: &Resource, entry: &Entry) {
        let (namespace, name) = (entry.value.namespace(), entry.value.name());
        let mut policy = self.policy();
        // Read under the lock: of two writers at a time, the last one here sees what the last one there wrote.
        let now = self.look(&resource.bucket, namespace, name);
        policy.put(&resource.gvr.resource, namespace, name, now.as_deref().map(|stored| stored.object()));
    }

    /// Refuses a role or binding that gives more than its writer has, unless the writer may escalate or bind.
    ///
    /// # Errors
    /// 403 with what is lacking; 404 for a binding to a role that is not there.
    pub(super) fn check_rights_given(
        &self,
        target: &Target,
        caller: &Caller,
        new: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let (gvr, user, namespace) = (&target.resource.gvr, &caller.user, target.namespace.as_str());
        let free = !caller.guarded || user.is_in(MASTERS);
        if gvr.group != access::GROUP || free || old.is_some_and(|old| only_collection_fields(new, old)) {
            return Ok(());
        }
        let policy = self.policy();
        let may = |verb, group, resource, name| {
            let place = Place { group, resource, subresource: "", namespace, name };
            policy.authorize(&Attributes { user, verb, what: What::Resource(place) }).is_ok()
        };
        let refuse = |why: &str| Status::forbidden(&gvr.group, &gvr.resource, new.name(), why);
        if gvr.resource.ends_with("roles") {
            if may("escalate", &gvr.group, &gvr.resource, &target.name) {
                return Ok(());
            }
            policy.confirm(user, namespace, &Rule::of_role(new)).map_err(|why| refuse(&why))?;
            let gathers = |role: &Object| {
                let selectors = role.at(&["aggregationRule", "clusterRoleSelectors"]);
                selectors.and_then(Value::as_array).is_some_and(|selectors| !selectors.is_empty())
            };
            if (gathers(new) || old.is_some_and(gathers))
                && policy.confirm(user, namespace, &*access::FULL_AUTHORITY).is_err()
            {
                return Err(refuse("must have cluster-admin privileges to use the aggregationRule"));
            }
            return Ok(());
        }
        let text = |key: &str| new.str_at(&["roleRef", key]);
        let (kind, name) = (text("kind"), text("name"));
        let resource = match kind {
            "ClusterRole" => "clusterroles",
            _ => "roles",
        };
        if matches!(kind, "Role" | "ClusterRole") && may("bind", text("apiGroup"), resource, name) {
            return Ok(());
        }
        let rules = policy.role(kind, name, namespace).map_err(|missing| missing.status(&gvr.resource))?;
        policy.confirm(user, namespace, &rules).map_err(|why| refuse(&why))
    }

    /// Refuses the approval or signature of a request for a certificate to those who may not give it for its signer
    /// (`plugin/pkg/admission/certificates/{approval,signing}` and `pkg/certauthorization`).
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub(super) fn check_signer(
        &self,
        target: &Target,
        caller: &Caller,
        new: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        const CERTIFICATES: &str = "certificates.k8s.io";
        let (gvr, user, Some(old)) = (&target.resource.gvr, &caller.user, old) else { return Ok(()) };
        if gvr.group != CERTIFICATES || gvr.resource != "certificatesigningrequests" || !caller.guarded {
            return Ok(());
        }
        let verb = match target.subresource.as_str() {
            "approval" => "approve",
            "status" if old.get("status") != new.get("status") => "sign",
            _ => return Ok(()),
        };
        let signer = old.str_at(&["spec", "signerName"]);
        let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
        let may = |name: &str| {
            let place = Place { group: CERTIFICATES, resource: "signers", name, ..Place::default() };
            self.authorize(&Attributes { user, verb, what: What::Resource(place) }).is_ok()
        };
        if may(signer) || may(&domain) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {}", go_quote(signer));
        Err(Status::forbidden(CERTIFICATES, &gvr.resource, new.name(), &why))
    }

    /// Refuses a write that turns out to create its object to those who may not create it.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub(super) fn check_creation(&self, target: &Target, caller: &Caller) -> Result<(), Status> {
        if !caller.guarded || target.name.is_empty() {
            return Ok(()); // a POST was judged as a creation at the door
        }
        let Target { resource, namespace, name, subresource } = target;
        let place =
            Place { group: &resource.gvr.group, resource: &resource.gvr.resource, subresource, namespace, name };
        self.permit(&Attributes { user: &caller.user, verb: "create", what: What::Resource(place) })
    }

    /// Makes the roles and bindings that every cluster starts with.
    pub fn make_first_roles(&self) {
        let now = self.clock().now_text();
        for (gvr, object) in FIRST.iter() {
            let mut object = object.clone();
            object.unpack();
            let metadata = object.metadata_mut();
            metadata.insert("uid".into(), self.ids().uid().into());
            metadata.insert("creationTimestamp".into(), now.clone().into());
            for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                entry["time"] = now.clone().into();
            }
            let target = self.target(gvr, object.namespace(), object.name(), "");
            let target = target.expect("the kinds of access control are built in");
            // A role of that name is there already where somebody calls this twice.
            let _ = self.put(&target, None, object);
        }
    }
}

/// Whether a change is one that garbage collection needs, and no other. Upstream's `IsOnlyMutatingGCFields`.
fn only_collection_fields(new: &Object, old: &Object) -> bool {
    let rest = |object: &Object| -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
        let copy = |map: Option<&serde_json::Map<String, Value>>, without: &[&str]| {
            let members = map.into_iter().flatten().filter(|(key, _)| !without.contains(&key.as_str()));
            members.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let fields = ["ownerReferences", "finalizers", "selfLink", "managedFields"];
        (copy(Some(object.as_map()), &["metadata"]), copy(object.metadata(), &fields))
    };
    rest(new) == rest(old)
}
