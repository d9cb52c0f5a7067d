//! Policies of admission and their bindings: which of them a request meets, and with which parameters.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy/generic` (`policy_dispatcher.go`, `policy_matcher.go`). A policy holds from
//! the write that makes it on; upstream takes a moment.

pub mod mutating;
pub mod validating;

use std::sync::Arc;

use serde_json::Value;

use super::{
    View,
    matching::{Address, Asked, Kept},
};
use crate::{
    base::{
        Stored,
        selector::LabelSelector,
        value::{at, get, has, text},
    },
    schema::{Answer, Bindings},
};

/// What may not be guarded by policies, which could lock themselves in.
const EXEMPT: [&str; 4] = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// A policy and a binding that a request meets, with one set of parameters.
struct Invocation<'a> {
    policy: Arc<Stored>,
    binding: Arc<Stored>,
    /// What the request looks like to the policy.
    seen_as: &'a Address,
    /// `null` where the binding wants none.
    params: Value,
}

/// A policy, or one of its bindings, that cannot be asked.
struct Broken {
    policy: Arc<Stored>,
    binding: Option<Arc<Stored>>,
    why: String,
}

fn spec(stored: &Stored) -> &Value {
    stored.get("spec").unwrap_or(&Value::Null)
}

fn fails_closed(policy: &Stored) -> bool {
    text(spec(policy), "failurePolicy") != "Ignore"
}

/// What a request meets, in the order of names: of policies kept in one bucket, with bindings in another.
fn met<'a>(
    asked: &'a Asked<'_>,
    view: View<'_>,
    policies: &str,
    bindings: &str,
) -> Vec<Result<Invocation<'a>, Broken>> {
    let attributes = asked.attributes;
    if attributes.group == "admissionregistration.k8s.io" && EXEMPT.contains(&attributes.resource) {
        return Vec::new();
    }
    let policies = view.list(policies, "");
    let all = if policies.is_empty() { Vec::new() } else { view.list(bindings, "") };
    let mut met = Vec::new();
    for policy in &policies {
        let bound = |binding: &&Arc<Stored>| binding.str_at(&["spec", "policyName"]) == policy.name();
        let mut bindings = all.iter().filter(bound).peekable();
        if bindings.peek().is_none() {
            continue;
        }
        let spec_of_policy = spec(policy);
        let broken = |binding: Option<&Arc<Stored>>, why: String| {
            Err(Broken { policy: policy.clone(), binding: binding.cloned(), why })
        };
        let seen_as = match asked.by_resources(get(spec_of_policy, "matchConstraints"), view) {
            Ok(None) => continue,
            Ok(Some(seen_as)) => seen_as,
            Err(error) => {
                met.push(broken(None, format!("failed to configure policy: {}", error.message)));
                continue;
            }
        };
        let kind = get(spec_of_policy, "paramKind");
        let kept = match has(spec_of_policy, "paramKind") {
            false => None,
            true => match (asked.request.find_kind)(text(kind, "apiVersion"), text(kind, "kind")) {
                Some(found) => Some(found),
                None => {
                    let (api_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
                    let message = format!(
                        "failed to configure policy: failed to find resource referenced by paramKind: '{api_version}, \
                         Kind={kind}'"
                    );
                    met.push(broken(None, message));
                    continue;
                }
            },
        };
        for binding in bindings {
            let found = match asked.by_resources(get(spec(binding), "matchResources"), view) {
                Ok(None) => continue,
                Ok(Some(_)) => collect(kept.as_ref(), get(spec(binding), "paramRef"), *asked, view),
                Err(error) => Err(error.message),
            };
            match found {
                Ok(found) => met.extend(found.into_iter().map(|params| {
                    Ok(Invocation { policy: policy.clone(), binding: binding.clone(), seen_as, params })
                })),
                Err(why) => met.push(broken(Some(binding), format!("failed to configure binding: {why}"))),
            }
        }
    }
    met
}

/// The parameters that a binding finds: one `null` where it wants none, nothing where the policy is to be passed over.
fn collect(kind: Option<&Kept>, reference: &Value, asked: Asked<'_>, view: View<'_>) -> Result<Vec<Value>, String> {
    let (Some(Kept { bucket, namespaced }), true) = (kind, reference.is_object()) else { return Ok(vec![Value::Null]) };
    let (name, own) = (text(reference, "name"), text(reference, "namespace"));
    let namespace = match (namespaced, own) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") => asked.namespace(),
        (true, own) => own,
    };
    if *namespaced && namespace.is_empty() {
        return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
    }
    let shown = |stored: &Stored| stored.unpacked().into_value();
    let found: Vec<Value> = if name.is_empty() {
        let selector = LabelSelector::from_value(Some(get(reference, "selector")))?;
        let all = view.list(bucket, namespace);
        all.iter().filter(|stored| selector.matches_object(stored)).map(|stored| shown(stored)).collect()
    } else {
        view.get(bucket, namespace, name).iter().map(|stored| shown(stored)).collect()
    };
    if found.is_empty() && text(reference, "parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}

/// What CEL sees of the namespace: upstream's `CreateNamespaceObject`.
pub(super) fn namespace_object(asked: Asked<'_>, view: View<'_>) -> Value {
    let attributes = asked.attributes;
    let found = match attributes.namespace {
        "" => None,
        name => view.get("namespaces", "", name),
    };
    let Some(found) = found else { return Value::Null };
    let mut object = found.object().clone();
    for key in ["apiVersion", "kind"] {
        object.remove(key);
    }
    object.metadata_mut().remove("managedFields");
    object.metadata_mut().remove("ownerReferences");
    object.into_value()
}

/// Whether all conditions hold (`plugin/webhook/matchconditions`): one that does not outweighs those that fail.
///
/// # Errors
/// What the conditions that fail say.
pub(super) fn matches_conditions(conditions: &[Value], bindings: &Bindings) -> Result<bool, String> {
    let mut errors: Vec<String> = Vec::new();
    for condition in conditions {
        match bindings.evaluate(at(condition, &["expression"]).as_str().unwrap_or_default()) {
            Ok(Answer::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}
