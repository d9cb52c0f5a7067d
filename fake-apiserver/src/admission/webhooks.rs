//! Which webhooks are to be called about a request, what they are sent, and what their answers mean.
//!
//! Upstream: `apiserver/pkg/admission/plugin/webhook` (`generic/webhook.go`, `request/admissionreview.go`,
//! `errors/statuserror.go`). Calling them is somebody else's affair.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    View,
    matching::{Address, Asked},
    policies::matches_conditions,
};
use crate::base::{
    Status,
    status::go_quote,
    value::{flag, get, has, int, items, text, texts},
};

/// What webhooks are not asked about, as they could lock everybody out.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// One webhook of a configuration.
#[derive(Clone, Debug)]
pub struct Hook {
    spec: Value,
    mutating: bool,
}

/// A webhook that is to be called.
#[derive(Clone, Debug)]
pub struct Call {
    /// The `AdmissionReview`.
    pub review: Value,
    /// The resource whose version the objects in it have.
    pub seen_as: Address,
}

/// What a webhook says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Operations of a JSON patch, `null` for none.
    pub patch: Value,
    /// What the caller is warned of.
    pub warnings: Vec<String>,
    /// Why the request is refused, if it is.
    pub refusal: Option<Status>,
}

/// The webhooks of all configurations, in the order of their names, that may be asked about a resource.
pub fn hooks(view: View<'_>, mutating: bool, group: &str, resource: &str) -> Vec<Hook> {
    if group == "admissionregistration.k8s.io" && EXEMPT.contains(&resource) {
        return Vec::new();
    }
    let bucket = if mutating {
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
    } else {
        "validatingwebhookconfigurations.admissionregistration.k8s.io"
    };
    let configurations = view.list(bucket, "");
    let hooks = configurations.iter().flat_map(|configuration| items(configuration.as_value(), "webhooks"));
    hooks.map(|spec| Hook { spec: spec.clone(), mutating }).collect()
}

impl Hook {
    /// Its name.
    pub fn name(&self) -> &str {
        text(&self.spec, "name")
    }

    /// Where it is.
    pub fn client_config(&self) -> &Value {
        get(&self.spec, "clientConfig")
    }

    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(int(&self.spec, "timeoutSeconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(10))
    }

    /// Whether the request passes where the webhook cannot be asked.
    pub fn fails_open(&self) -> bool {
        text(&self.spec, "failurePolicy") == "Ignore"
    }

    /// Whether it wants to see what later webhooks changed.
    pub fn may_be_called_again(&self) -> bool {
        text(&self.spec, "reinvocationPolicy") == "IfNeeded"
    }

    /// What it is to be sent; `None` where the request is not its affair.
    ///
    /// # Errors
    /// 404 for a namespace that is not there, 403 where its conditions fail.
    pub fn call(&self, asked: Asked<'_>, view: View<'_>, uid: &str) -> Result<Option<Call>, Status> {
        let by_namespace = asked.by_namespace(get(&self.spec, "namespaceSelector"), view);
        let by_object = asked.by_object(get(&self.spec, "objectSelector"));
        if matches!(by_namespace, Ok(false)) || matches!(by_object, Ok(false)) {
            return Ok(None);
        }
        let Some(seen_as) = asked.by_rules(items(&self.spec, "rules"), text(&self.spec, "matchPolicy")) else {
            return Ok(None);
        };
        by_namespace?;
        by_object?;
        let (object, old) = asked.objects(seen_as)?;
        let mut request = asked.review(seen_as);
        let conditions = items(&self.spec, "matchConditions");
        if !conditions.is_empty() {
            let values =
                [("object", &object), ("oldObject", &old), ("request", &request), ("namespaceObject", &Value::Null)];
            match matches_conditions(conditions, &asked.bindings(&values)) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if self.fails_open() => return Ok(None),
                Err(why) => {
                    let attributes = asked.attributes;
                    return Err(Status::forbidden(attributes.group, attributes.resource, attributes.name, &why));
                }
            }
        }
        request["uid"] = uid.into();
        request["object"] = object;
        request["oldObject"] = old;
        let api_version = format!("admission.k8s.io/{}", self.version());
        let review = json!({"kind": "AdmissionReview", "apiVersion": api_version, "request": request});
        Ok(Some(Call { review, seen_as: seen_as.clone() }))
    }

    /// The version of `AdmissionReview` that it speaks: the first of its list that this server knows.
    fn version(&self) -> &str {
        let versions = texts(&self.spec, "admissionReviewVersions");
        versions.into_iter().find(|version| ["v1", "v1beta1"].contains(version)).unwrap_or("v1")
    }

    /// What its answer means.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn read(&self, uid: &str, review: &Value) -> Result<Answer, String> {
        let response = get(review, "response");
        if !response.is_object() {
            return Err("webhook response was absent".into());
        }
        let (patch, patch_type) = (text(response, "patch"), get(response, "patchType"));
        if self.version() == "v1" {
            let got = text(response, "uid");
            if got != uid {
                return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(got)));
            }
            let (api_version, kind) = (text(review, "apiVersion"), text(review, "kind"));
            if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
                let wanted = "admission.k8s.io/v1, Kind=AdmissionReview";
                return Err(format!("expected webhook response of {wanted}, got {api_version}, Kind={kind}"));
            }
            match (self.mutating, patch.is_empty(), patch_type) {
                (true, false, Value::Null) => {
                    return Err("webhook returned response.patch but not response.patchType".into());
                }
                (true, true, Value::String(_)) => {
                    return Err("webhook returned response.patchType but not response.patch".into());
                }
                (true, false, Value::String(kind)) if kind.is_empty() => {
                    return Err("webhook returned invalid response.patchType of \"\"".into());
                }
                (false, false, _) => return Err("validating webhook may not return response.patch".into()),
                (false, _, Value::String(_)) => {
                    return Err("validating webhook may not return response.patchType".into());
                }
                _ => {}
            }
        }
        let warnings = texts(response, "warnings").into_iter().map(str::to_owned).collect();
        if !flag(response, "allowed") {
            let refusal = Some(self.refusal(get(response, "status")));
            return Ok(Answer { warnings, refusal, ..Answer::default() });
        }
        let patch = if patch.is_empty() || !self.mutating { Value::Null } else { decode(patch)? };
        Ok(Answer { patch, warnings, refusal: None })
    }

    /// Upstream's `ToStatusErr`.
    fn refusal(&self, result: &Value) -> Status {
        let denied = format!("admission webhook {} denied the request", go_quote(self.name()));
        let code = int(result, "code").filter(|code| (400..600).contains(code)).unwrap_or(400);
        let (message, reason) = (text(result, "message"), text(result, "reason"));
        let message = match (message, reason) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let mut status = Status::received(u16::try_from(code).unwrap_or(400), reason, message);
        let details = get(result, "details");
        for cause in items(details, "causes") {
            status = status.with_cause(text(cause, "reason"), text(cause, "message"), text(cause, "field"));
        }
        if has(result, "details") {
            let shown = status.details.get_or_insert_default();
            shown.name = text(details, "name").into();
            shown.group = text(details, "group").into();
            shown.kind = text(details, "kind").into();
        }
        status
    }
}

/// A patch is JSON in base64.
fn decode(patch: &str) -> Result<Value, String> {
    use base64::Engine;
    let wrong = |why: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch).map_err(|why| wrong(&why))?;
    serde_json::from_slice(&bytes).map_err(|why| wrong(&why))
}
