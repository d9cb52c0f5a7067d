//! MutatingAdmissionPolicy: expressions that make what is merged into an object, or a JSON patch of it.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy/mutating` (`dispatcher.go`, `reinvocationcontext.go`,
//! `patch/json_patch.go`, `patch/smd.go`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{View, matching::Asked},
    Broken, Invocation, fails_closed, matches_conditions, met, namespace_object, spec,
};
use crate::{
    base::{
        Object, Status, Stored,
        patch::{self, Failed},
        status::go_quote,
        value::{at, get, items, text},
    },
    fields,
    schema::Bindings,
};

const POLICIES: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";

/// A policy, a binding, and the namespace and name of its parameters.
pub type Key = (String, String, String);

/// What the policies made of an object.
#[derive(Debug)]
pub struct Mutated {
    /// The object.
    pub object: Object,
    /// Whether a mutation was carried out, be it one that changes nothing.
    pub mutated: bool,
    /// Those that want to see what others change after them.
    pub again: BTreeSet<Key>,
}

/// Whether there is any policy.
pub fn any(view: View<'_>) -> bool {
    !view.list(POLICIES, "").is_empty()
}

/// Lets the policies that are bound to a request change its object; in a second round only those of `only`.
///
/// # Errors
/// 403 with what each policy that fails says, 500 where a patch makes something that is no object of the kind.
pub fn mutate(asked: Asked<'_>, view: View<'_>, only: Option<&BTreeSet<Key>>) -> Result<Mutated, Status> {
    let mut mutated =
        Mutated { object: asked.object.cloned().unwrap_or_default(), mutated: false, again: BTreeSet::new() };
    let mut failures: Vec<(String, &'static str)> = Vec::new();
    let mut invocations = Vec::new();
    for met in met(&asked, view, POLICIES, BINDINGS) {
        match met {
            Ok(invocation) => invocations.push(invocation),
            Err(Broken { policy, binding, why }) if fails_closed(&policy) => {
                failures.push((denied(&policy, binding.as_deref(), &why), "Forbidden"));
            }
            Err(_) => {}
        }
    }
    for invocation in &invocations {
        let key = key(invocation);
        let mut troubles = Vec::new();
        let its_turn = only.is_none_or(|only| only.contains(&key));
        let invoked = invoke(asked, view, invocation, its_turn, &mut mutated, &mut troubles)?;
        if invoked && text(spec(&invocation.policy), "reinvocationPolicy") == "IfNeeded" {
            mutated.again.insert(key);
        }
        if fails_closed(&invocation.policy) {
            let said = |why: String| (denied(&invocation.policy, Some(&invocation.binding), &why), "Invalid");
            failures.extend(troubles.into_iter().map(said));
        }
    }
    match failures.first() {
        None => Ok(mutated),
        Some((first, reason)) => Err(refusal(asked, first, reason, &failures)),
    }
}

fn denied(policy: &Stored, binding: Option<&Stored>, why: &str) -> String {
    match binding {
        Some(binding) => {
            format!("policy '{}' with binding '{}' denied request: {why}", policy.name(), binding.name())
        }
        None => format!("policy {} denied request: {why}", go_quote(policy.name())),
    }
}

fn refusal(asked: Asked<'_>, first: &str, reason: &'static str, failures: &[(String, &'static str)]) -> Status {
    let attributes = asked.attributes;
    let nothing = Object::default();
    let shown = attributes.shown_name(asked.object.unwrap_or(&nothing)).to_owned();
    let mut status = Status::forbidden(attributes.group, attributes.resource, &shown, first);
    status.reason = reason;
    status.message = first.to_owned();
    failures.iter().fold(status, |status, (message, _)| status.with_cause("", message, ""))
}

fn key(invocation: &Invocation<'_>) -> Key {
    let part = |name: &str| at(&invocation.params, &["metadata", name]).as_str().unwrap_or_default().to_owned();
    let params = format!("{}/{}", part("namespace"), part("name"));
    (invocation.policy.name().to_owned(), invocation.binding.name().to_owned(), params)
}

/// What one mutation makes of an object: nothing where a `test` of its patch does not hold, `Err` with what is wrong with it.
type Made = Result<Option<Value>, String>;

/// Carries out the mutations of a policy; `false` where its conditions do not hold, or it is not its turn. What goes wrong is
/// told in `troubles`; a mutation that fails does not keep those after it from being carried out.
fn invoke(
    asked: Asked<'_>,
    view: View<'_>,
    invocation: &Invocation<'_>,
    its_turn: bool,
    mutated: &mut Mutated,
    troubles: &mut Vec<String>,
) -> Result<bool, Status> {
    let Invocation { policy, seen_as, params, .. } = invocation;
    let spec = spec(policy);
    let current = mutated.object.clone();
    let asked = Asked { object: Some(&current), ..asked };
    let (mut object, old) = asked.objects(seen_as)?;
    let request = asked.review(seen_as);
    let nothing = Value::Null;
    let fixed = [("oldObject", &old), ("request", &request), ("params", params)];
    let conditions = [fixed.as_slice(), &[("object", &object), ("namespaceObject", &nothing)]].concat();
    match matches_conditions(items(spec, "matchConditions"), &asked.bindings(&conditions)) {
        Ok(true) if its_turn => {}
        Ok(_) => return Ok(false),
        Err(why) => {
            troubles.push(why);
            return Ok(false);
        }
    }
    let namespace = namespace_object(asked, view);
    for mutation in items(spec, "mutations") {
        let values = [fixed.as_slice(), &[("object", &object), ("namespaceObject", &namespace)]].concat();
        let mut bindings = asked.bindings(&values);
        for variable in items(spec, "variables") {
            bindings.define(text(variable, "name"), text(variable, "expression"));
        }
        let made = match text(mutation, "patchType") {
            "JSONPatch" => patched(&bindings, text(get(mutation, "jsonPatch"), "expression"), &object),
            _ => {
                let expression = text(get(mutation, "applyConfiguration"), "expression");
                merged(asked, invocation, &bindings, expression, &object)
            }
        };
        match made {
            Ok(made) => {
                mutated.mutated = true;
                if let Some(made) = made {
                    object = (asked.request.read)(made, seen_as)?.into_value();
                }
            }
            Err(why) => troubles.push(why),
        }
    }
    let object = Object::from_value(object).unwrap_or_default();
    let own = &asked.request.address;
    mutated.object = if seen_as.gvr == own.gvr { object } else { (asked.request.convert)(&object, own)? };
    Ok(true)
}

fn patched(bindings: &Bindings, expression: &str, object: &Value) -> Made {
    let operations = bindings.make_operations(expression)?;
    match patch::json_operations(object, &operations) {
        Ok(patched) => Ok(Some(patched)),
        Err(Failed::Test) => Ok(None),
        Err(Failed::Operation(why)) => Err(format!("JSON Patch: {why}")),
    }
}

fn merged(
    asked: Asked<'_>,
    invocation: &Invocation<'_>,
    bindings: &Bindings,
    expression: &str,
    object: &Value,
) -> Made {
    let made = bindings.make_object(expression)?;
    let address = invocation.seen_as;
    let schema = (asked.request.schema_of)(address);
    let schema =
        schema.ok_or_else(|| format!("Resource kind {}, Kind={} not found", address.api_version, address.kind))?;
    let live = Object::from_value(object.clone()).unwrap_or_default();
    let merged = fields::overlay(&live, made, &schema).map_err(|why| format!("error applying patch: {why}"))?;
    Ok(Some(merged.into_value()))
}
