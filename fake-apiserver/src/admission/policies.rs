//! ValidatingAdmissionPolicy and its bindings.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy` (`validating/dispatcher.go`, `validating/validator.go`,
//! `generic/policy_dispatcher.go`). A policy holds from the write that makes it on; upstream takes a moment.

use serde_json::Value;

use super::{
    View,
    matching::{Address, Asked, Kept},
};
use crate::{
    base::{
        Object, Status, Stored,
        selector::LabelSelector,
        value::{at, get, has, items, text, texts},
    },
    schema::{Answer, Bindings},
};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";

/// What may not be guarded by policies, which could lock themselves in.
const EXEMPT: [&str; 4] = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Bytes of a computed message; a longer one is not shown. Upstream's `MaxEvaluatedMessageExpressionSizeBytes`.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// Why a request is refused.
struct Denial {
    message: String,
    reason: &'static str,
}

impl Denial {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), reason: "" }
    }
}

/// Judges a request by the policies that are bound to it; warnings go to `warn`.
///
/// # Errors
/// What the first policy that refuses says, with the code of its reason.
pub fn validate(asked: Asked<'_>, view: View<'_>, warn: &mut Vec<String>) -> Result<(), Status> {
    let attributes = asked.attributes;
    if attributes.group == "admissionregistration.k8s.io" && EXEMPT.contains(&attributes.resource) {
        return Ok(());
    }
    let mut denials: Vec<(String, Denial)> = Vec::new();
    let policies = view.list(POLICIES, "");
    let bindings = if policies.is_empty() { Vec::new() } else { view.list(BINDINGS, "") };
    for policy in &policies {
        let spec = policy.get("spec").unwrap_or(&Value::Null);
        let bound = |binding: &&std::sync::Arc<Stored>| binding.str_at(&["spec", "policyName"]) == policy.name();
        let mut bindings = bindings.iter().filter(bound).peekable();
        if bindings.peek().is_none() {
            continue;
        }
        let fails = text(spec, "failurePolicy") != "Ignore";
        let of_policy = format!("ValidatingAdmissionPolicy '{}'", policy.name());
        let seen_as = match asked.by_resources(get(spec, "matchConstraints"), view) {
            Ok(None) => continue,
            Ok(Some(seen_as)) => seen_as,
            Err(error) => {
                if fails {
                    let message = format!("failed to configure policy: {}", error.message);
                    denials.push((of_policy, Denial::plain(message)));
                }
                continue;
            }
        };
        let kind = get(spec, "paramKind");
        let params = match has(spec, "paramKind") {
            false => None,
            true => match (asked.request.find_kind)(text(kind, "apiVersion"), text(kind, "kind")) {
                Some(found) => Some(found),
                None => {
                    if fails {
                        let (api_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
                        let message = format!(
                            "failed to configure policy: failed to find resource referenced by paramKind: '{api_version}, \
                             Kind={kind}'"
                        );
                        denials.push((of_policy, Denial::plain(message)));
                    }
                    continue;
                }
            },
        };
        for binding in bindings {
            let name = format!("{of_policy} with binding '{}'", binding.name());
            let binding = binding.get("spec").unwrap_or(&Value::Null);
            let found = match asked.by_resources(get(binding, "matchResources"), view) {
                Ok(None) => continue,
                Ok(Some(_)) => collect(params.as_ref(), get(binding, "paramRef"), asked, view),
                Err(error) => Err(error.message),
            };
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    if fails {
                        denials.push((name, Denial::plain(format!("failed to configure binding: {why}"))));
                    }
                    continue;
                }
            };
            let actions = texts(binding, "validationActions");
            for params in &found {
                let verdict = evaluate(asked, spec, seen_as, params, view)?;
                for denial in verdict.denials {
                    if actions.contains(&"Warn") {
                        warn.push(format!("Validation failed for {name}: {}", denial.message));
                    }
                    if actions.contains(&"Deny") {
                        denials.push((name.clone(), denial));
                    }
                }
                denials.extend(verdict.broken_annotations.into_iter().map(|denial| (name.clone(), denial)));
            }
        }
    }
    let Some((name, denial)) = denials.into_iter().next() else { return Ok(()) };
    Err(refusal(asked, &name, &denial))
}

fn refusal(asked: Asked<'_>, name: &str, denial: &Denial) -> Status {
    let message = format!("{name} denied request: {}", denial.message);
    let attributes = asked.attributes;
    let nothing = Object::default();
    let shown = attributes.shown_name(asked.object.unwrap_or(&nothing)).to_owned();
    let mut status = Status::forbidden(attributes.group, attributes.resource, &shown, &message);
    (status.code, status.reason) = match denial.reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    status.with_cause("", &message, "")
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

#[derive(Default)]
struct Verdict {
    denials: Vec<Denial>,
    broken_annotations: Vec<Denial>,
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

fn evaluate(
    asked: Asked<'_>,
    spec: &Value,
    seen_as: &Address,
    params: &Value,
    view: View<'_>,
) -> Result<Verdict, Status> {
    let fails = text(spec, "failurePolicy") != "Ignore";
    let broken = |message: String| if fails { vec![Denial::plain(message)] } else { Vec::new() };
    let (object, old) = asked.objects(seen_as)?;
    let request = asked.review(seen_as);
    let mut values = vec![("object", &object), ("oldObject", &old), ("request", &request), ("params", params)];
    // upstream shows conditions no namespace
    let conditions = [values.as_slice(), &[("namespaceObject", &Value::Null)]].concat();
    match matches_conditions(items(spec, "matchConditions"), &Bindings::new(&conditions)) {
        Ok(true) => {}
        Ok(false) => return Ok(Verdict::default()),
        Err(why) => return Ok(Verdict { denials: broken(why), ..Verdict::default() }),
    }
    let namespace = namespace_object(asked, view);
    values.push(("namespaceObject", &namespace));
    let mut bindings = Bindings::new(&values);
    for variable in items(spec, "variables") {
        bindings.define(text(variable, "name"), text(variable, "expression"));
    }
    let mut verdict = Verdict::default();
    for validation in items(spec, "validations") {
        let source = text(validation, "expression");
        match bindings.evaluate(source) {
            Ok(Answer::Bool(true)) => {}
            Ok(_) => {
                let reason = match text(validation, "reason") {
                    "Forbidden" => "Forbidden",
                    "Unauthorized" => "Unauthorized",
                    "RequestEntityTooLarge" => "RequestEntityTooLarge",
                    _ => "Invalid",
                };
                verdict.denials.push(Denial { message: message(validation, &bindings), reason });
            }
            Err(why) => verdict.denials.extend(broken(why)),
        }
    }
    for annotation in items(spec, "auditAnnotations") {
        // Nobody reads the audit log here: what is left of annotations is that they may fail.
        if let Err(why) = bindings.evaluate(text(annotation, "valueExpression").trim()) {
            verdict.broken_annotations.extend(broken(why));
        }
    }
    Ok(verdict)
}

/// Upstream's order: what `messageExpression` gives, `message`, the expression itself.
fn message(validation: &Value, bindings: &Bindings) -> String {
    let computed = match text(validation, "messageExpression") {
        "" => None,
        source => match bindings.evaluate(source) {
            Ok(Answer::Text(text)) => Some(text.trim().to_owned()),
            Ok(_) | Err(_) => None,
        },
    };
    let fit = |text: &String| !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
    computed.filter(fit).unwrap_or_else(|| match text(validation, "message") {
        "" => format!("failed expression: {}", text(validation, "expression").trim()),
        message => message.trim().to_owned(),
    })
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
