//! Which requests a policy, a binding or a webhook is about: rules and selectors.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook/predicates` and `plugin/policy/matching`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Attributes, Operation, View};
use crate::{
    base::{
        Gvr, Object, Status, User,
        access::{Authorize, Place},
        names,
        selector::LabelSelector,
        value::{get, has, items, text, texts},
    },
    schema::{Bindings, Schema},
};

/// A resource and the kind of what is sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The resource.
    pub gvr: Gvr,
    /// `apiVersion` of what is sent; a subresource may have another than the resource.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
}

/// Where the objects of a kind are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The bucket.
    pub bucket: Arc<str>,
    /// Whether they live in namespaces.
    pub namespaced: bool,
}

/// What of a request only policies and webhooks look at.
pub struct Request<'a> {
    /// Where it was sent to.
    pub address: Address,
    /// Resources that show the same objects in other versions or groups.
    pub equivalents: Vec<Address>,
    /// `userInfo`.
    pub user: Value,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`.
    pub options: Value,
    /// An object as another of its resources shows it.
    pub convert: &'a dyn Fn(&Object, &Address) -> Result<Object, Status>,
    /// The schema of a resource's objects, where it has one.
    pub schema_of: &'a dyn Fn(&Address) -> Option<Arc<Schema>>,
    /// What a value is as an object of a resource, with defaults; unknown members are an error.
    pub read: &'a dyn Fn(Value, &Address) -> Result<Object, Status>,
    /// Who asks.
    pub who: &'a User,
    /// What users may do.
    pub authorize: Authorize,
    /// Where the objects of a kind are kept.
    pub find_kind: &'a dyn Fn(&str, &str) -> Option<Kept>,
}

impl Address {
    fn resource(&self) -> Value {
        json!({"group": self.gvr.group, "version": self.gvr.version, "resource": self.gvr.resource})
    }

    fn kind(&self) -> Value {
        let (group, version) = names::split_api_version(&self.api_version);
        json!({"group": group, "version": version, "kind": self.kind})
    }
}

/// A request on its way, with the object as it stands; `None` where it is deleted.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What other plugins see, too.
    pub attributes: &'a Attributes<'a>,
    /// What they do not.
    pub request: &'a Request<'a>,
    /// The object.
    pub object: Option<&'a Object>,
}

impl Asked<'_> {
    /// Upstream's namespace of a request: a namespace is in itself.
    pub(super) fn namespace(&self) -> &str {
        let Attributes { group, resource, namespace, name, .. } = *self.attributes;
        if group.is_empty() && resource == "namespaces" { name } else { namespace }
    }

    pub(super) fn operation(&self) -> &'static str {
        match self.attributes.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }

    /// An `AdmissionRequest` without UID and objects, as a resource sees it.
    pub(super) fn review(&self, seen_as: &Address) -> Value {
        let Attributes { subresource, name, .. } = *self.attributes;
        let request = self.request;
        let mut review = json!({
            "kind": seen_as.kind(),
            "resource": seen_as.resource(),
            "requestKind": request.address.kind(),
            "requestResource": request.address.resource(),
            "operation": self.operation(),
            "userInfo": request.user,
            "dryRun": request.dry_run,
            "options": request.options,
        });
        let texts = [
            ("subResource", subresource),
            ("requestSubResource", subresource),
            ("name", name),
            ("namespace", self.namespace()),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            review[key] = text.into();
        }
        review
    }

    /// New and old object as a resource shows them, `null` where there is none.
    pub(super) fn objects(&self, seen_as: &Address) -> Result<(Value, Value), Status> {
        let show = |object: Option<&Object>| -> Result<Value, Status> {
            let Some(object) = object else { return Ok(Value::Null) };
            let same = seen_as.gvr == self.request.address.gvr;
            let mut object = if same { object.clone() } else { (self.request.convert)(object, seen_as)? };
            object.unpack();
            Ok(object.into_value())
        };
        Ok((show(self.object)?, show(self.attributes.old)?))
    }

    /// What expressions see: these values, and the authorizer.
    pub(super) fn bindings(&self, values: &[(&str, &Value)]) -> Bindings {
        let Attributes { group, resource, subresource, name, .. } = *self.attributes;
        let place = Place { group, resource, subresource, namespace: self.namespace(), name };
        let mut bindings = Bindings::new(values);
        bindings.authorizer(self.request.authorize.clone(), self.request.who.clone(), place);
        bindings
    }

    fn in_scope(&self, rule: &Value) -> bool {
        let cluster = self.attributes.namespace.is_empty();
        match text(rule, "scope") {
            "" | "*" => true,
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => false,
        }
    }

    fn matches_rule(&self, rule: &Value, gvr: &Gvr) -> bool {
        let one = |key: &str, asked: &str| texts(rule, key).iter().any(|item| *item == "*" || *item == asked);
        let subresource = self.attributes.subresource;
        let names_it = |resource: &&str| {
            let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
            (name == "*" || name == gvr.resource) && (sub == "*" || sub == subresource)
        };
        self.in_scope(rule)
            && one("operations", self.operation())
            && one("apiGroups", &gvr.group)
            && one("apiVersions", &gvr.version)
            && texts(rule, "resources").iter().any(names_it)
    }

    /// What the request looks like to the first of the rules that it matches.
    pub(super) fn by_rules<'r>(&'r self, rules: &[Value], policy: &str) -> Option<&'r Address> {
        let named = |rule: &Value| {
            let names = texts(rule, "resourceNames");
            names.is_empty() || names.contains(&self.attributes.name)
        };
        let own = &self.request.address;
        if rules.iter().any(|rule| self.matches_rule(rule, &own.gvr) && named(rule)) {
            return Some(own);
        }
        if policy != "Equivalent" {
            return None;
        }
        let equivalents = || self.request.equivalents.iter();
        rules.iter().find_map(|rule| equivalents().find(|other| self.matches_rule(rule, &other.gvr) && named(rule)))
    }

    /// Whether the labels of the request's namespace are selected.
    ///
    /// # Errors
    /// 404 where there is no such namespace, which counts only if everything else matches.
    pub(super) fn by_namespace(&self, selector: &Value, view: View<'_>) -> Result<bool, Status> {
        let namespace = self.namespace();
        let is_namespace = self.attributes.resource == "namespaces";
        if namespace.is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = parse(selector)?;
        if selector.is_empty() {
            return Ok(true);
        }
        if is_namespace
            && self.attributes.subresource.is_empty()
            && let Some(object) = self.object
        {
            return Ok(selector.matches_object(object));
        }
        let found = view.get("namespaces", "", namespace);
        let found = found.ok_or_else(|| Status::not_found("", "namespaces", namespace))?;
        Ok(selector.matches_object(found.object()))
    }

    /// Whether the labels of the new or the old object are selected.
    pub(super) fn by_object(&self, selector: &Value) -> Result<bool, Status> {
        let selector = parse(selector)?;
        let selects = |object: Option<&Object>| object.is_some_and(|object| selector.matches_object(object));
        Ok(selector.is_empty() || selects(self.object) || selects(self.attributes.old))
    }

    /// Upstream's `Matcher.Matches` for the `MatchResources` of a policy or binding.
    pub(super) fn by_resources<'r>(&'r self, resources: &Value, view: View<'_>) -> Result<Option<&'r Address>, Status> {
        let by_namespace = self.by_namespace(get(resources, "namespaceSelector"), view);
        let by_object = self.by_object(get(resources, "objectSelector"));
        if matches!(by_namespace, Ok(false)) || matches!(by_object, Ok(false)) {
            return Ok(None);
        }
        let policy = text(resources, "matchPolicy");
        if self.by_rules(items(resources, "excludeResourceRules"), policy).is_some() {
            return Ok(None);
        }
        let rules = items(resources, "resourceRules");
        let matched = if rules.is_empty() { Some(&self.request.address) } else { self.by_rules(rules, policy) };
        if matched.is_some() {
            by_namespace?;
            by_object?;
        }
        Ok(matched)
    }
}

fn parse(selector: &Value) -> Result<LabelSelector, Status> {
    // an absent selector selects everything here
    let absent = !has(selector, "matchLabels") && !has(selector, "matchExpressions");
    let selector = if absent { None } else { Some(selector) };
    match selector {
        None => Ok(LabelSelector::default()),
        Some(_) => LabelSelector::from_value(selector).map_err(Status::internal),
    }
}
