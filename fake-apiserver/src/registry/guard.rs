//! What policies are asked about a write: the request as an `AdmissionReview` shows it.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    Caller, Registry, Resource,
    convert::{self, Convert},
    decode,
    hooks::Question,
    reviews::user_info,
    subresource::scale_of,
    write,
};
use crate::{
    admission::{
        Address, Asked, Kept, Operation, Request, View,
        policies::{mutating, validating},
    },
    base::{Object, Status, Stored, access::Authorize, names},
};

impl Registry {
    /// Judges a write by policies and validating webhooks; `object` is what is sent, `None` where it is deleted.
    ///
    /// # Errors
    /// What the first that refuses says.
    pub(super) async fn guard(&self, question: Question<'_>, object: Option<&Object>) -> Result<(), Status> {
        // a generated name is known by now
        let known = object.map_or("", |object| object.name());
        let name = if question.name.is_empty() { known } else { question.name };
        let question = Question { name, ..question };
        if question.target.subresource == "scale" {
            // what stands behind it is the registry's affair: a client sends and sees a Scale
            let scale = |object: &Object| scale_of(&question.target.resource, object);
            let (old, new) = (question.old.map(scale), object.map(scale));
            return self.ask_all(Question { old: old.as_ref(), ..question }, new.as_ref()).await;
        }
        self.ask_all(question, object).await
    }

    async fn ask_all(&self, question: Question<'_>, object: Option<&Object>) -> Result<(), Status> {
        let mut warnings = Vec::new();
        let judge = |asked: Asked<'_>, view: View<'_>| {
            warnings.clear();
            validating::validate(asked, view, &mut warnings)
        };
        let verdict = self.with_asked(question, object, judge).await;
        warnings.into_iter().for_each(|warning| question.caller.warnings.add(warning));
        verdict?;
        self.ask_webhooks(question, object).await
    }

    /// Lets the mutating policies change an object; in a second round only those of `only`.
    ///
    /// # Errors
    /// What those that fail say.
    pub(super) async fn mutate_by_policies(
        &self,
        question: Question<'_>,
        object: &mut Object,
        only: Option<&BTreeSet<mutating::Key>>,
    ) -> Result<(bool, BTreeSet<mutating::Key>), Status> {
        if !self.with_view(mutating::any) {
            return Ok((false, BTreeSet::new()));
        }
        let call = |asked: Asked<'_>, view: View<'_>| mutating::mutate(asked, view, only);
        let made = self.with_asked(question, Some(object), call).await?;
        if made.mutated {
            *object = made.object;
            object.pack(); // as every object on its way is
        }
        Ok((made.mutated, made.again))
    }

    /// Calls what is to judge a request, with the request as policies and webhooks see it; more than once where a webhook
    /// has to convert the object for them.
    pub(super) async fn with_asked<T: Send>(
        &self,
        question: Question<'_>,
        object: Option<&Object>,
        mut call: impl FnMut(Asked<'_>, View<'_>) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        let step = |convert: &Convert<'_>| self.with_asked_by(question, object, convert, &mut call);
        self.converting(&question.target.resource, step).await
    }

    fn with_asked_by<T>(
        &self,
        question: Question<'_>,
        object: Option<&Object>,
        by: &Convert<'_>,
        call: impl FnOnce(Asked<'_>, View<'_>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let Question { target, caller, operation, name, old } = question;
        let attributes = &write::attributes(target, (operation, name), old);
        let catalog = self.catalog();
        let shows_same =
            |other: &&Arc<Resource>| other.bucket == target.resource.bucket && other.gvr != target.resource.gvr;
        let equivalents = || catalog.all().filter(shows_same);
        let convert = |object: &Object, address: &Address| -> Result<Object, Status> {
            match catalog.all().find(|other| other.bucket == target.resource.bucket && other.gvr == address.gvr) {
                Some(other) if ["", "status"].contains(&target.subresource.as_str()) => {
                    Ok(convert::view(other, &Arc::new(Stored::new(object.clone())), by)?.object().clone())
                }
                Some(_) | None => Ok(object.clone()),
            }
        };
        let shown_as = |address: &Address| {
            catalog.all().find(|other| other.bucket == target.resource.bucket && other.gvr == address.gvr)
        };
        let schema_of = |address: &Address| {
            let plain = ["", "status"].contains(&target.subresource.as_str());
            shown_as(address).filter(|_| plain).map(|resource| resource.schema().clone())
        };
        let read = |value: Value, address: &Address| -> Result<Object, Status> {
            let resource = shown_as(address).unwrap_or(&target.resource);
            decode::made(resource, value).map_err(|why| {
                let status = Status::internal(&why);
                Status { message: format!("Internal error occurred: {why}"), ..status }
            })
        };
        let registry = self.clone();
        let authorize: Authorize =
            Arc::new(move |attributes| registry.authorize(attributes).map(|grant| grant.to_string()));
        let find_kind = |api_version: &str, kind: &str| {
            let (group, version) = names::split_api_version(api_version);
            let found = catalog.find_kind(group, version, kind)?;
            Some(Kept { bucket: found.bucket.clone(), namespaced: found.namespaced })
        };
        let sees = |resource: &Arc<Resource>| address(resource, &target.subresource);
        let request = Request {
            address: sees(&target.resource).ok_or_else(Status::no_such_resource)?,
            equivalents: equivalents().filter_map(sees).collect(),
            user: user_info(&caller.user),
            dry_run: caller.dry_run,
            options: options(operation, caller),
            convert: &convert,
            schema_of: &schema_of,
            read: &read,
            who: &caller.user,
            authorize,
            find_kind: &find_kind,
        };
        self.with_view(|view| call(Asked { attributes, request: &request, object }, view))
    }
}

/// A resource, and what is sent to it or to its subresource; `None` where it has no such subresource.
fn address(resource: &Arc<Resource>, subresource: &str) -> Option<Address> {
    let (gvr, own) = (resource.gvr.clone(), resource.api_version());
    if subresource.is_empty() {
        return Some(Address { gvr, api_version: own, kind: resource.kind.clone() });
    }
    let found = resource.subresources.get(subresource)?;
    let api_version = if found.version.is_empty() { own } else { names::api_version(&found.group, &found.version) };
    Some(Address { gvr, api_version, kind: found.kind.clone() })
}

fn options(operation: Operation, caller: &Caller) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if caller.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if operation != Operation::Delete && !caller.manager.is_empty() {
        options["fieldManager"] = caller.manager.as_str().into();
    }
    options
}
