//! The write pipeline: decode, record ownership, admit, prepare, validate, commit; retried when somebody else was faster.
//!
//! The order of the steps is upstream's (`k8s.io/apiserver/pkg/endpoints/handlers` and `pkg/registry/rest`): it shows in
//! who owns a field and in which error comes first.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::{
    Body, Caller, Patch, Registry, Resource, Target,
    convert::Asked,
    decode,
    hooks::Question,
    identity::{
        already_exists, check_name, check_preconditions, drop_repeated_owners, modified, take_finalizers,
        take_namespace,
    },
    reviews::user_info,
    subresource::scale_errors,
};
use crate::{
    admission::{self, Attributes, Operation},
    base::{FieldError, Object, Status, Stored, patch, status::go_quote},
    fields::{self, Writer},
    kinds,
    store::{Change, Entry},
};

/// How often a write without a version of its own is tried again when another one came first.
const RETRIES: usize = 10;

/// How often a generated name is drawn again when it is taken.
const NAME_TRIES: usize = 8;

/// Letters of a generated suffix, and the longest prefix that leaves room for them.
const SUFFIX: usize = 5;
const LONGEST_PREFIX: usize = 63 - SUFFIX;

/// Kinds that a PUT creates where they are not (upstream's `AllowCreateOnUpdate`).
const CREATED_BY_UPDATE: &[&str] = &[
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "leases.coordination.k8s.io",
    "limitranges",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "services",
];

impl Registry {
    /// Creates an object, or posts to a subresource (`binding`, `eviction`).
    ///
    /// # Errors
    /// 400 for a body that does not fit, 409 for a name that is taken, 422 for wrong fields, 403 from admission.
    pub async fn create(&self, target: &Target, caller: &Caller, body: Body) -> Result<Arc<Stored>, Status> {
        if !target.subresource.is_empty() {
            return self.post_subresource(target, caller, body).await;
        }
        let resource = &target.resource;
        if !resource.serves("", "get") {
            return self.review(target, caller, body).await;
        }
        let mut object = decode::decode(resource, &self.catalog(), caller, body)?;
        take_namespace(target, &mut object)?;
        if !caller.dry_run && !object.resource_version().is_empty() {
            return Err(Status::unexpected("resourceVersion should not be set on objects to be created"));
        }
        for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            object.metadata_mut().remove(key); // nobody's to set, and so nobody's to own
        }
        drop_repeated_owners(caller, &mut object);
        let writer = self.writer(target, caller, object.api_version().to_owned());
        self.track(resource, None, &mut object, &writer).await;
        self.await_default_account(target, &object).await;
        self.insert(target, caller, object).await
    }

    /// Admits, prepares, validates and stores a new object whose ownership is recorded.
    async fn insert(&self, target: &Target, caller: &Caller, mut object: Object) -> Result<Arc<Stored>, Status> {
        let resource = &target.resource;
        let asked = object.name().to_owned();
        self.admit(target, Operation::Create, None, &mut object)?;
        let question = Question { target, caller, operation: Operation::Create, name: &asked, old: None };
        self.mutate(question, &mut object).await?;
        take_namespace(target, &mut object)?;
        self.check_rights_given(target, caller, &object, None)?;
        let generated = object.name().is_empty() && !object.generate_name().is_empty();
        for attempt in 1.. {
            let mut named = if generated { object.clone() } else { std::mem::take(&mut object) };
            if generated {
                let prefix: String = named.generate_name().chars().take(LONGEST_PREFIX).collect();
                let name = format!("{prefix}{}", self.ids().suffix(SUFFIX));
                named.metadata_mut().insert("name".into(), name.into());
            }
            self.prepare_create(target, caller.dry_run, &mut named)?;
            name_requester(target, caller, &mut named);
            self.validate(target, caller, &named, None)?;
            self.judge(question, &named).await?;
            self.check_creation(target, caller)?;
            let target = Target { name: named.name().into(), ..target.clone() };
            if caller.dry_run {
                if let Some(entry) = self.0.store.get(&target.key()).1 {
                    return Err(already_exists(&target, Some(&entry.value)));
                }
                let stored = Arc::new(Stored::new(self.to_storage(resource, named).await?));
                return self.view(resource, &stored).await;
            }
            match self.put(&target, None, self.to_storage(resource, named).await?) {
                Ok(entry) => return self.view(resource, &entry.value).await,
                Err(()) if generated && attempt < NAME_TRIES => {}
                Err(()) => {
                    let there = self.0.store.get(&target.key()).1;
                    return Err(already_exists(&target, there.as_ref().map(|entry| &*entry.value)));
                }
            }
        }
        unreachable!("the loop returns at its last try")
    }

    /// Replaces an object, or its status; `true` if that created it.
    ///
    /// # Errors
    /// As [`Registry::create`]; 404 where there is no such object, 409 for a version that is no longer the newest.
    pub async fn update(&self, target: &Target, caller: &Caller, body: Body) -> Result<(Arc<Stored>, bool), Status> {
        let resource = &target.resource;
        if target.subresource == "scale" {
            return self.update_scale(target, caller, body).await;
        }
        let mut object = decode::decode(resource, &self.catalog(), caller, body)?;
        take_namespace(target, &mut object)?;
        check_name(target, &object)?;
        drop_repeated_owners(caller, &mut object);
        for _ in 0..RETRIES {
            let Some(live) = self.0.store.get(&target.key()).1 else {
                let allowed = target.subresource.is_empty() && CREATED_BY_UPDATE.contains(&&*resource.bucket);
                if !allowed || !object.resource_version().is_empty() {
                    return Err(target.not_found());
                }
                let writer = self.writer(target, caller, object.api_version().to_owned());
                let mut object = object.clone();
                self.track(resource, None, &mut object, &writer).await;
                return self.insert(target, caller, object).await.map(|stored| (stored, true));
            };
            let mut new = object.clone();
            let shown = self.view(resource, &live.value).await?.unfolded();
            check_preconditions(target, &shown, &new)?;
            let writer = self.writer(target, caller, new.api_version().to_owned());
            self.track(resource, Some(&shown), &mut new, &writer).await;
            if let Some(stored) = self.replace(target, caller, &live, new).await? {
                return Ok((stored, false));
            }
        }
        Err(modified(target))
    }

    /// Patches an object, or its status; `true` if that created it.
    ///
    /// # Errors
    /// As [`Registry::update`]; 422 for a patch that does not fit the object, 409 for fields that another manager owns.
    pub async fn patch(&self, target: &Target, caller: &Caller, patch: Patch) -> Result<(Arc<Stored>, bool), Status> {
        if target.subresource == "scale" {
            return self.patch_scale(target, caller, patch).await;
        }
        for _ in 0..RETRIES {
            let live = self.0.store.get(&target.key()).1;
            let new = match (&patch, &live) {
                (Patch::Apply { body, force }, live) => {
                    self.applied(target, caller, live.as_ref(), body.clone(), *force).await?
                }
                (Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_), Some(live)) => {
                    self.patched(target, caller, live, &patch).await?
                }
                (Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_), None) => return Err(target.not_found()),
            };
            let Some(live) = live else {
                return self.insert(target, caller, new).await.map(|stored| (stored, true));
            };
            if let Some(stored) = self.replace(target, caller, &live, new).await? {
                return Ok((stored, false));
            }
        }
        Err(modified(target))
    }

    /// What a JSON, merge or strategic merge patch makes of the live object, with ownership recorded.
    async fn patched(&self, target: &Target, caller: &Caller, live: &Entry, patch: &Patch) -> Result<Object, Status> {
        let resource = &target.resource;
        let shown = self.view(resource, &live.value).await?.unfolded();
        let mut new = self.patch_object(resource, caller, &shown.unpacked(), patch)?;
        take_namespace(target, &mut new)?;
        check_name(target, &new)?;
        drop_repeated_owners(caller, &mut new);
        let writer = self.writer(target, caller, new.api_version().to_owned());
        self.track(resource, Some(&shown), &mut new, &writer).await;
        Ok(new)
    }

    /// Carries out a patch and decodes what it made.
    pub(super) fn patch_object(
        &self,
        resource: &Resource,
        caller: &Caller,
        shown: &Object,
        patch: &Patch,
    ) -> Result<Object, Status> {
        let before = shown.to_value();
        let after = match patch {
            Patch::Json(operations) => {
                let after = patch::json(&before, operations)?;
                let unknown = patch::unknown_members(operations);
                let texts = unknown.iter().map(|path| format!("json patch unknown field {}", go_quote(path)));
                decode::tell(caller, texts.collect()).map_err(|text| {
                    let shown = operations.to_string().into();
                    Status::invalid("", "", "", &[FieldError::invalid("patch", &shown, &text)])
                })?;
                after
            }
            Patch::Merge(changes) => {
                let mut after = before;
                patch::merge(&mut after, changes)?;
                after
            }
            Patch::Strategic(changes) => fields::strategic(&before, changes, resource.schema())?,
            Patch::Apply { .. } => unreachable!("applies have their own way"),
        };
        let strategic = matches!(patch, Patch::Strategic(_));
        if resource.custom.is_some()
            && let Some(object) = Object::from_value(after.clone())
            && !object.kind().is_empty()
        {
            decode::check_custom_type(resource, &object)?;
        }
        let duplicates = if matches!(patch, Patch::Json(_)) { Vec::new() } else { caller.duplicates.clone() };
        let body = Body { value: after, duplicates };
        decode::decode(resource, &self.catalog(), caller, body).map_err(|error| {
            // What a patch made is shown, with the reason alone: upstream decodes it without its usual preface.
            let why = error.message.split_once(&format!("cannot be handled as a {}: ", resource.kind));
            let why = why.map_or(error.message.as_str(), |(_, why)| why);
            let why = if strategic { decode::unconvertible(why) } else { why.to_owned() };
            Status::invalid("", "", "", &[FieldError::invalid("patch", &patched_text(shown, patch).into(), &why)])
        })
    }

    /// What server-side apply makes of the live object (or of nothing).
    async fn applied(
        &self,
        target: &Target,
        caller: &Caller,
        live: Option<&Entry>,
        body: Body,
        force: bool,
    ) -> Result<Object, Status> {
        let resource = &target.resource;
        let applied = decode::applied(caller, body)?;
        if live.is_none() && !target.subresource.is_empty() {
            return Err(target.not_found());
        }
        let shown = match live {
            Some(live) => Some(self.view(resource, &live.value).await?.unfolded()),
            None => None,
        };
        let writer = self.writer(target, caller, resource.api_version());
        let live = shown.as_deref().map(Stored::object);
        let mut new = self.merge_applied(resource, live, &applied, &writer, force).await?;
        take_namespace(target, &mut new)?;
        check_name(target, &new)?;
        if resource.custom.is_some() {
            decode::read_metadata(&mut new);
        }
        decode::default_applied(resource, &mut new);
        drop_repeated_owners(caller, &mut new);
        Ok(new)
    }

    /// Carries out an update whose ownership is recorded; `None` where another write came first and the whole is to be
    /// tried again.
    pub(super) async fn replace(
        &self,
        target: &Target,
        caller: &Caller,
        live: &Entry,
        mut new: Object,
    ) -> Result<Option<Arc<Stored>>, Status> {
        let resource = &target.resource;
        let old = self.view(resource, &live.value).await?.unfolded();
        if let Some(text) = Some(new.resource_version()).filter(|text| !text.is_empty()) {
            let asked: u64 = text.parse().map_err(|_| {
                Status::unexpected(format!("strconv.ParseUint: parsing {}: invalid syntax", go_quote(text)))
            })?;
            if asked != live.revision && asked != 0 {
                return Err(modified(target));
            }
        }
        let unconditional = new.resource_version().is_empty() || new.resource_version() == "0";
        let rules = kinds::rules(&resource.gvr.group, &resource.kind);
        if unconditional && (resource.custom.is_some() || !rules.unconditional) {
            let error = FieldError::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
            return Err(Status::invalid(&resource.gvr.group, &resource.gvr.resource, &target.name, &[error]));
        }
        new.metadata_mut().insert("resourceVersion".into(), live.revision.to_string().into());
        self.admit(target, Operation::Update, Some(&old), &mut new)?;
        let question =
            Question { target, caller, operation: Operation::Update, name: &target.name, old: Some(old.object()) };
        if target.subresource != "scale" {
            self.mutate(question, &mut new).await?;
        }
        self.check_rights_given(target, caller, &new, Some(&old))?;
        self.prepare_update(target, &mut new, &old);
        if target.subresource.is_empty() {
            self.allocate(resource, &mut new, Some(&old), caller.dry_run)?;
        }
        self.validate(target, caller, &new, Some(&old))?;
        self.judge(question, &new).await?;
        new.pack(); // as the old one is, so that the two can be compared
        fields::keep_times(&old, &mut new);
        if new == *old.object() && resource.is_stored_version() {
            return Ok(Some(old));
        }
        let gone = goes_with_last_finalizer(resource, &new);
        let new = self.to_storage(resource, new).await?;
        if new == *live.value.object() {
            return Ok(Some(old)); // it may differ in the stored version alone
        }
        if gone || caller.dry_run {
            if gone && !caller.dry_run && !self.remove(target, live, new.clone()) {
                return Ok(None);
            }
            return self.view(resource, &Arc::new(Stored::new(new))).await.map(Some);
        }
        match self.put(target, Some(live.revision), new) {
            Ok(entry) => self.view(resource, &entry.value).await.map(Some),
            Err(()) => Ok(None), // a version that the request names is found to be old at the next try
        }
    }

    /// Stores an object, which is in the stored version, under the target's key; `Err` where the key's revision is not
    /// the expected one.
    pub(super) fn put(&self, target: &Target, expected: Option<u64>, mut object: Object) -> Result<Entry, ()> {
        let resource = &target.resource;
        let stamp = move |revision: u64| {
            object.metadata_mut().insert("resourceVersion".into(), revision.to_string().into());
            Stored::new(object)
        };
        let entry = self.0.store.commit(&target.key(), expected, Change::Put(Box::new(stamp))).map_err(|_| ())?;
        self.after_write(resource, &entry, false);
        Ok(entry)
    }

    /// Removes an object; `last` is what its watchers see. `false` where another write came first.
    pub(super) fn remove(&self, target: &Target, live: &Entry, last: Object) -> bool {
        let stamp = move |revision: u64| {
            let mut last = last;
            last.metadata_mut().insert("resourceVersion".into(), revision.to_string().into());
            Stored::new(last)
        };
        match self.0.store.commit(&target.key(), Some(live.revision), Change::Delete(Box::new(stamp))) {
            Ok(entry) => {
                self.after_write(&target.resource, &entry, true);
                true
            }
            Err(_) => false,
        }
    }

    /// The default service account of a new namespace may be a moment late: a pod that needs it waits. Upstream's admission
    /// looks ten times, 100 to 200 ms apart (`getServiceAccount` in plugin/pkg/admission/serviceaccount); one that goes has
    /// been refused by then.
    async fn await_default_account(&self, target: &Target, object: &Object) {
        let gvr = &target.resource.gvr;
        if !gvr.group.is_empty() || gvr.resource != "pods" || !target.subresource.is_empty() {
            return;
        }
        let (namespace, account) = (target.namespace.as_str(), object.str_at(&["spec", "serviceAccountName"]));
        let lives = self.look("namespaces", "", namespace).is_some_and(|namespace| !namespace.is_deleting());
        if !matches!(account, "" | "default") || !lives {
            return;
        }
        for _ in 0..9 {
            if self.look("serviceaccounts", namespace, "default").is_some() {
                return;
            }
            self.clock().sleep(std::time::Duration::from_millis(150)).await;
        }
    }

    /// Calls admission with a view of the stored objects.
    pub(super) fn with_view<T>(&self, call: impl FnOnce(admission::View<'_>) -> T) -> T {
        let get = |bucket: &str, namespace: &str, name: &str| self.look(bucket, namespace, name);
        let list = |bucket: &str, namespace: &str| -> Vec<Arc<Stored>> {
            let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
            self.0.store.list(bucket, namespace).1.into_iter().map(|entry| entry.value).collect()
        };
        call(admission::View { get: &get, list: &list })
    }

    pub(super) fn admit(
        &self,
        target: &Target,
        operation: Operation,
        old: Option<&Object>,
        object: &mut Object,
    ) -> Result<(), Status> {
        let name = object.name().to_owned();
        let attributes = attributes(target, (operation, &name), old);
        self.with_view(|view| admission::admit(&attributes, object, view, self.ids()))
    }

    /// What admission says of an object that the kind's own rules allow; then the quotas are charged.
    async fn judge(&self, question: Question<'_>, object: &Object) -> Result<(), Status> {
        let Question { target, caller, operation, name, old } = question;
        let attributes = attributes(target, (operation, name), old);
        self.check_signer(target, caller, object, old)?;
        let mut warnings = Vec::new();
        let verdict = self.with_view(|view| admission::validate(&attributes, object, view, &mut warnings));
        warnings.into_iter().for_each(|warning| caller.warnings.add(warning));
        verdict?;
        self.guard(question, Some(object)).await?;
        self.charge(&attributes, object, caller.dry_run).await
    }

    /// Writes what an object uses into the status of the quotas that count it, as upstream's admission does.
    async fn charge(&self, attributes: &Attributes<'_>, object: &Object, dry_run: bool) -> Result<(), Status> {
        let mut charged: Vec<String> = Vec::new();
        for _ in 0..RETRIES {
            let charges = self.with_view(|view| admission::charges(attributes, object, view, self.clock().now()))?;
            if dry_run {
                return Ok(());
            }
            let mut all = true;
            for charge in charges {
                let name = charge.quota.name().to_owned();
                if charged.contains(&name) {
                    continue; // in the try before
                }
                if self.write_usage(charge).await? {
                    charged.push(name);
                } else {
                    all = false;
                }
            }
            if all {
                return Ok(());
            }
        }
        Err(Status::conflict("", "resourcequotas", "", "the quotas of the namespace change too fast"))
    }

    /// Writes a quota's use; `false` where another write came first. Boxed, as it is a write within a write.
    fn write_usage(&self, charge: admission::Charge) -> BoxFuture<'_, Result<bool, Status>> {
        Box::pin(self.write_usage_now(charge))
    }

    async fn write_usage_now(&self, charge: admission::Charge) -> Result<bool, Status> {
        let admission::Charge { quota, used } = charge;
        let resource = self.catalog().find("", "v1", "resourcequotas").ok_or_else(Status::no_such_resource)?.clone();
        let target = Target {
            resource,
            namespace: quota.namespace().into(),
            name: quota.name().into(),
            subresource: "status".into(),
        };
        let caller = Caller { manager: "kube-apiserver".into(), ..Caller::default() };
        let live = self.0.store.get(&target.key()).1;
        let Some(live) = live.filter(|live| live.value.resource_version() == quota.resource_version()) else {
            return Ok(false);
        };
        let mut new = quota.object().clone();
        let used: serde_json::Map<_, _> =
            used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
        new.set_at(&["status", "used"], Value::Object(used));
        let writer = self.writer(&target, &caller, new.api_version().to_owned());
        fields::track(Some(&quota), &mut new, target.resource.schema(), &writer.borrowed());
        Ok(self.replace(&target, &caller, &live, new).await?.is_some())
    }

    /// What the server, not the client, says of a new object (`rest.BeforeCreate`).
    fn prepare_create(&self, target: &Target, dry_run: bool, object: &mut Object) -> Result<(), Status> {
        let resource = &target.resource;
        let (now, uid) = (self.clock().now_text(), self.ids().uid());
        let metadata = object.metadata_mut();
        metadata.insert("creationTimestamp".into(), now.into());
        metadata.insert("uid".into(), uid.into());
        if resource.custom.is_some() {
            metadata.insert("generation".into(), 1.into());
            if resource.has_status() {
                object.remove("status");
            }
            return Ok(());
        }
        let rules = kinds::rules(&resource.gvr.group, &resource.kind);
        (rules.prepare_create)(object);
        stamp_conditions(object, &self.clock().now_text());
        if rules.generation {
            object.metadata_mut().insert("generation".into(), 1.into());
        }
        self.allocate(resource, object, None, dry_run)
    }

    /// What the server, not the client, says of a changed object (`rest.BeforeUpdate`).
    fn prepare_update(&self, target: &Target, new: &mut Object, old: &Object) {
        let resource = &target.resource;
        for key in ["generation", "creationTimestamp", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            match old.metadata().and_then(|metadata| metadata.get(key)) {
                Some(value) => _ = new.metadata_mut().insert(key.into(), value.clone()),
                None if key.starts_with("deletion") => {} // for validation to refuse
                None => _ = new.metadata_mut().remove(key),
            }
        }
        if new.uid().is_empty() {
            new.metadata_mut().insert("uid".into(), old.uid().into());
        }
        if target.subresource == "finalize" {
            take_finalizers(new, old);
            return;
        }
        let (counts, annotations_count) = if resource.custom.is_some() {
            prepare_custom_update(resource, &target.subresource, new, old);
            (true, false)
        } else {
            let rules = kinds::rules(&resource.gvr.group, &resource.kind);
            (rules.prepare_update)(new, old, &target.subresource);
            if !target.subresource.is_empty() {
                (rules.stamp)(new, old, &self.clock().now_text());
            }
            (rules.generation, rules.annotations_count)
        };
        if counts && ["", "ephemeralcontainers", "resize", "scale"].contains(&target.subresource.as_str()) {
            let annotations = |object: &Object| object.at(&["metadata", "annotations"]).cloned();
            let annotated = annotations_count && annotations(new) != annotations(old);
            if annotated || !spec_equal(resource, new, old) {
                new.metadata_mut().insert("generation".into(), (old.generation() + 1).into());
            }
        }
    }

    fn validate(&self, target: &Target, caller: &Caller, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        let resource = &target.resource;
        if resource.custom.is_some() {
            decode::check_custom_type(resource, new)?;
        }
        let rules = kinds::rules(&resource.gvr.group, &resource.kind);
        let mut errors = match old {
            None => kinds::validate_create(rules, new, resource.namespaced),
            Some(old) => kinds::validate_update(rules, new, old, resource.namespaced, &target.subresource),
        };
        if resource.custom.is_some() {
            let old = old.map(Object::to_value);
            let scale = scale_errors(resource, new, &target.subresource);
            let found = resource.schema().validate_with(&new.to_value(), old.as_ref(), &errors, scale);
            errors.extend(found);
        }
        if !errors.is_empty() {
            // upstream has one kind of events inside, which is the core group's
            let event = resource.kind == "Event" && resource.custom.is_none();
            let group = if event { "" } else { &resource.gvr.group };
            return Err(Status::invalid(group, &resource.kind, new.name(), &errors));
        }
        if resource.custom.is_some() {
            for warning in kinds::meta::finalizer_warnings(new, old) {
                caller.warnings.add(warning);
            }
        }
        if target.subresource.is_empty() {
            (rules.warnings)(new, old).into_iter().for_each(|warning| caller.warnings.add(warning));
        }
        Ok(())
    }

    pub(super) fn writer(&self, target: &Target, caller: &Caller, api_version: String) -> OwnedWriter {
        let asked = Arc::default();
        OwnedWriter {
            manager: caller.manager.clone(),
            api_version,
            subresource: target.subresource.clone(),
            reset: reset_paths(&target.resource, &target.subresource),
            now: self.clock().now(),
            versions: self.versions(&target.resource, &asked),
            asked,
        }
    }
}

/// A request for a certificate says who made it.
fn name_requester(target: &Target, caller: &Caller, object: &mut Object) {
    if target.resource.kind != "CertificateSigningRequest" || target.resource.custom.is_some() {
        return;
    }
    for (key, value) in user_info(&caller.user).as_object().into_iter().flatten() {
        object.set_at(&["spec", key], value.clone());
    }
}

/// What a new object says of itself begins now: its phase and conditions without a time get one.
fn stamp_conditions(object: &mut Object, now: &str) {
    let Some(status) = object.as_map_mut().get_mut("status").and_then(Value::as_object_mut) else { return };
    if status.get("lastPhaseTransitionTime") == Some(&Value::Null) {
        status.insert("lastPhaseTransitionTime".into(), now.into());
    }
    let conditions = status.get_mut("conditions");
    for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        if condition.get("lastTransitionTime") == Some(&Value::Null) {
            condition.insert("lastTransitionTime".into(), now.into());
        }
    }
}

/// A request as admission sees it; `asked` is what is done, and the name in the request.
pub(super) fn attributes<'a>(
    target: &'a Target,
    asked: (Operation, &'a str),
    old: Option<&'a Object>,
) -> Attributes<'a> {
    Attributes {
        operation: asked.0,
        group: &target.resource.gvr.group,
        resource: &target.resource.gvr.resource,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: asked.1,
        old,
    }
}

/// A [`Writer`] that owns its texts.
pub(super) struct OwnedWriter {
    manager: String,
    api_version: String,
    subresource: String,
    reset: &'static [&'static [&'static str]],
    now: jiff::Timestamp,
    versions: Option<fields::Versions>,
    /// What a webhook that converts said to this writer.
    asked: Arc<Asked>,
}

impl OwnedWriter {
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    pub(super) fn borrowed(&self) -> Writer<'_> {
        Writer {
            manager: &self.manager,
            api_version: &self.api_version,
            subresource: &self.subresource,
            reset: self.reset,
            now: self.now,
            versions: self.versions.as_ref(),
        }
    }
}

/// What a door does not write, and so gives no ownership of (upstream's `GetResetFields`).
fn reset_paths(resource: &Resource, subresource: &str) -> &'static [&'static [&'static str]] {
    match (subresource, resource.custom.is_some()) {
        (door, false) if resource.kind == "CertificateSigningRequest" => match door {
            "status" => &[&["spec"], &["status", "conditions"]],
            "approval" => &[&["spec"], &["status", "certificate"]],
            _ => &[&["spec"], &["status"]],
        },
        ("status", true) => &[&["spec"], &["metadata"]],
        ("status", false) => match resource.kind.as_str() {
            "Pod" => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
            "Namespace" | "Node" | "Service" | "PersistentVolume" | "PersistentVolumeClaim" => &[&["spec"]],
            "CustomResourceDefinition" => &[&["spec"], &["metadata"]],
            _ => &[&["spec"], &["metadata", "labels"]],
        },
        _ if resource.has_status() => &[&["status"]],
        _ => &[],
    }
}

/// A custom object's status is written only through its own door, and the rest only through the main one.
fn prepare_custom_update(resource: &Resource, subresource: &str, new: &mut Object, old: &Object) {
    if !resource.has_status() {
        return;
    }
    if subresource == "status" {
        let managed = new.metadata().and_then(|metadata| metadata.get("managedFields")).cloned();
        let (status, version) = (new.remove("status"), new.resource_version().to_owned());
        *new = old.clone();
        match status {
            Some(status) => new.set("status", status),
            None => {
                new.remove("status");
            }
        }
        match managed {
            Some(managed) => new.metadata_mut().insert("managedFields".into(), managed),
            None => new.metadata_mut().remove("managedFields"),
        };
        new.metadata_mut().insert("resourceVersion".into(), version.into());
    } else {
        match old.get("status") {
            Some(status) => new.set("status", status.clone()),
            None => {
                new.remove("status");
            }
        }
    }
}

/// Whether an update leaves everything that counts for `metadata.generation` as it is.
fn spec_equal<'a>(resource: &Resource, new: &'a Object, old: &'a Object) -> bool {
    let ignores_status = resource.has_status() || resource.custom.is_none();
    let counts = |key: &str| key != "metadata" && !(ignores_status && key == "status");
    let members = |object: &'a Object| object.as_map().iter().filter(|(key, _)| counts(key));
    members(new).eq(members(old))
}

/// Whether this update takes the last thing away that a deletion waits for.
fn goes_with_last_finalizer(resource: &Resource, new: &Object) -> bool {
    let grace = new.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
    let spec_finalizers = new.at(&["spec", "finalizers"]).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let namespace = &*resource.bucket == "namespaces";
    new.is_deleting() && new.finalizers().is_empty() && grace == 0 && (!namespace || spec_finalizers)
}

/// What a patch makes of an object, in the form in which upstream shows what cannot be decoded.
fn patched_text(shown: &Object, patch: &Patch) -> String {
    let mut after = shown.to_value();
    match patch {
        Patch::Json(operations) => {
            let after = patch::json(&after, operations).unwrap_or_default();
            patch::go_text(&after, &patch::opened_by_json(operations))
        }
        Patch::Merge(changes) => {
            let _ = patch::merge(&mut after, changes); // it has been carried out once already
            patch::go_text(&after, &patch::opened_by_merge(changes))
        }
        Patch::Strategic(changes) => patch::go_map(changes),
        Patch::Apply { .. } => after.to_string(),
    }
}
