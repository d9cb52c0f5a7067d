//! ValidatingAdmissionPolicy.
//!
//! Upstream: `apiserver/pkg/admission/plugin/policy/validating` (`dispatcher.go`, `validator.go`).

use serde_json::Value;

use super::{
    super::{View, matching::Asked},
    Broken, Invocation, fails_closed, matches_conditions, met, namespace_object, spec,
};
use crate::{
    base::{
        Object, Status, Stored,
        value::{items, text, texts},
    },
    schema::{Answer, Bindings},
};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";

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

fn shown(policy: &Stored, binding: Option<&Stored>) -> String {
    let policy = format!("ValidatingAdmissionPolicy '{}'", policy.name());
    match binding {
        Some(binding) => format!("{policy} with binding '{}'", binding.name()),
        None => policy,
    }
}

/// Judges a request by the policies that are bound to it; warnings go to `warn`.
///
/// # Errors
/// What the first policy that refuses says, with the code of its reason.
pub fn validate(asked: Asked<'_>, view: View<'_>, warn: &mut Vec<String>) -> Result<(), Status> {
    let mut denials: Vec<(String, Denial)> = Vec::new();
    for invocation in met(&asked, view, POLICIES, BINDINGS) {
        let invocation = match invocation {
            Ok(invocation) => invocation,
            Err(Broken { policy, binding, why }) => {
                if fails_closed(&policy) {
                    denials.push((shown(&policy, binding.as_deref()), Denial::plain(why)));
                }
                continue;
            }
        };
        let name = shown(&invocation.policy, Some(&invocation.binding));
        let actions = texts(spec(&invocation.binding), "validationActions");
        let verdict = evaluate(asked, &invocation, view)?;
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

#[derive(Default)]
struct Verdict {
    denials: Vec<Denial>,
    broken_annotations: Vec<Denial>,
}

fn evaluate(asked: Asked<'_>, invocation: &Invocation<'_>, view: View<'_>) -> Result<Verdict, Status> {
    let Invocation { policy, seen_as, params, .. } = invocation;
    let (spec, fails) = (spec(policy), fails_closed(policy));
    let broken = |message: String| if fails { vec![Denial::plain(message)] } else { Vec::new() };
    let (object, old) = asked.objects(seen_as)?;
    let request = asked.review(seen_as);
    let mut values = vec![("object", &object), ("oldObject", &old), ("request", &request), ("params", params)];
    // upstream shows conditions no namespace
    let conditions = [values.as_slice(), &[("namespaceObject", &Value::Null)]].concat();
    match matches_conditions(items(spec, "matchConditions"), &asked.bindings(&conditions)) {
        Ok(true) => {}
        Ok(false) => return Ok(Verdict::default()),
        Err(why) => return Ok(Verdict { denials: broken(why), ..Verdict::default() }),
    }
    let namespace = namespace_object(asked, view);
    values.push(("namespaceObject", &namespace));
    let mut bindings = asked.bindings(&values);
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
