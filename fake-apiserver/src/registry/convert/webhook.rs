//! Conversion webhooks over the network: what they are sent, and what of an answer is refused.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{failed, restore, type_text};
use crate::{
    base::{
        Object,
        names::split_api_version,
        status::{go_quote, json_kind},
        value::{items, text},
    },
    kinds,
    registry::Registry,
};

/// How long a webhook may take for one review.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The group of what is sent.
const GROUP: &str = "apiextensions.k8s.io";

/// A conversion webhook, as a definition names it.
#[derive(Debug)]
pub(in super::super) struct Webhook {
    /// The definition's name, by which a rule knows it.
    name: String,
    config: Value,
    /// `apiVersion` of the reviews: the first of the definition's that the server knows.
    review: Option<String>,
}

impl Webhook {
    /// The webhook of a definition's spec.
    pub(super) fn new(spec: &Value) -> Self {
        let webhook = &spec["conversion"]["webhook"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let versions = items(webhook, "conversionReviewVersions").iter().filter_map(Value::as_str);
        let mut known = versions.filter(|version| ["v1", "v1beta1"].contains(version));
        Self {
            name: format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"])),
            config: webhook["clientConfig"].clone(),
            review: known.next().map(|version| format!("{GROUP}/{version}")),
        }
    }

    /// Asks for the conversion of objects of one version: for each what it became, or the message of the error.
    pub(super) async fn convert(
        &self,
        registry: &Registry,
        objects: &[Object],
        to: &str,
    ) -> Vec<Result<Object, String>> {
        match self.ask(registry, objects, to).await {
            Ok(converted) => objects.iter().zip(converted).map(|(old, new)| check(old, new, to)).collect(),
            Err(why) => objects.iter().map(|object| Err(why.say(object))).collect(),
        }
    }

    async fn ask(&self, registry: &Registry, objects: &[Object], to: &str) -> Result<Vec<Value>, Why> {
        let review =
            self.review.as_deref().ok_or_else(|| Why::Plain("no supported conversion review versions".into()))?;
        let uid = registry.ids().uid();
        let sent: Vec<Value> = objects.iter().map(without_version).collect();
        let body = json!({
            "kind": "ConversionReview",
            "apiVersion": review,
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": sent},
            "response": {"uid": "", "convertedObjects": null, "result": {"metadata": {}}},
        });
        let answer = registry.call_webhook(&self.name, &self.config, TIMEOUT, body).await.map_err(Why::Failed)?;
        let converted = read(answer, review, &uid).map_err(Why::Failed)?;
        if converted.len() == objects.len() {
            Ok(converted)
        } else {
            Err(Why::Plain(format!("returned {} objects, expected {}", converted.len(), objects.len())))
        }
    }
}

/// Why a webhook gave no objects at all.
enum Why {
    /// It could not be asked, or refused.
    Failed(String),
    /// What is said of its answer.
    Plain(String),
}

impl Why {
    fn say(&self, object: &Object) -> String {
        match self {
            Self::Failed(why) => failed(object, why),
            Self::Plain(why) => format!("conversion webhook for {} {why}", type_text(object)),
        }
    }
}

/// A stored object knows its version only once it is stored.
fn without_version(object: &Object) -> Value {
    let mut object = object.clone();
    object.metadata_mut().remove("resourceVersion");
    object.into_value()
}

/// The objects of an answer.
fn read(mut answer: Value, review: &str, uid: &str) -> Result<Vec<Value>, String> {
    let (version, kind) = (text(&answer, "apiVersion").to_owned(), text(&answer, "kind").to_owned());
    let is_strict = review.ends_with("/v1");
    if !version.is_empty() && !kind.is_empty() && (version != review || kind != "ConversionReview") {
        let (_, given) = split_api_version(&version);
        let (_, wanted) = split_api_version(review);
        let is_known = ["v1", "v1beta1"].contains(&given) && version.starts_with(GROUP) && kind == "ConversionReview";
        return Err(match is_known {
            true => format!("converting ({given}.{kind}) to ({wanted}.ConversionReview): unknown conversion"),
            false => format!(
                "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
                go_quote(&kind),
                go_quote(&version)
            ),
        });
    }
    if is_strict && (version != review || kind != "ConversionReview") {
        let slash = if version.is_empty() { "/" } else { "" };
        return Err(format!(
            "expected webhook response of {review}, Kind=ConversionReview, got {version}{slash}, Kind={kind}"
        ));
    }
    let mut response = answer["response"].take();
    if response.is_null() {
        return Err("no response provided".into());
    }
    if is_strict && text(&response, "uid") != uid {
        let given = text(&response, "uid");
        return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(given)));
    }
    let result = &response["result"];
    match (text(result, "status"), text(result, "message")) {
        ("Success", _) => Ok(match response["convertedObjects"].take() {
            Value::Array(objects) => objects,
            _ => Vec::new(),
        }),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// What a webhook made of an object, if it may have.
fn check(old: &Object, new: Value, to: &str) -> Result<Object, String> {
    let kind = type_text(old);
    let shown = new.to_string();
    let is = json_kind(&new);
    let Some(new) = Object::from_value(new) else {
        return Err(format!("json: cannot unmarshal {is} into Go value of type map[string]interface {{}}"));
    };
    if new.kind().is_empty() {
        return Err(format!("Object 'Kind' is missing in '{shown}'"));
    }
    let invalid = |why: String| format!("conversion webhook for {kind} returned invalid object{why}");
    if new.api_version() != to {
        let given = new.api_version();
        return Err(invalid(format!(" at index 0: invalid groupVersion (expected {to}, received {given})")));
    }
    if new.kind() != old.kind() {
        return Err(invalid(format!(" at index 0: invalid kind (expected {}, received {})", old.kind(), new.kind())));
    }
    let same = [
        ("name", old.name(), new.name()),
        ("namespace", old.namespace(), new.namespace()),
        ("UID", old.uid(), new.uid()),
    ];
    for (what, old, new) in same {
        if old != new {
            return Err(invalid(format!(": must have the same {what}: {old} != {new}")));
        }
    }
    check_metadata(old, &new)
        .and_then(|()| restore(old, new))
        .map_err(|why| format!("conversion webhook for {kind} returned invalid metadata: {why}"))
}

/// Labels and annotations must be such.
fn check_metadata(old: &Object, new: &Object) -> Result<(), String> {
    for key in ["labels", "annotations"] {
        let given = new.at(&["metadata", key]).unwrap_or(&Value::Null);
        if given.is_null() {
            continue;
        }
        let Some(members) = given.as_object() else {
            return Err(format!("invalid metadata.{key} of type {} in converted object", go_type(given)));
        };
        if let Some((name, value)) = members.iter().find(|(_, value)| !value.is_string()) {
            let is = go_type(value);
            return Err(format!("metadata.{key}[{name}] must be a string, but is {is} in converted object"));
        }
        if old.at(&["metadata", key]) == Some(given) {
            continue;
        }
        let errors = match key {
            "labels" => kinds::meta::label_errors("metadata.labels", given),
            _ => kinds::meta::annotation_errors("metadata.annotation", given),
        };
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        match texts.as_slice() {
            [] => {}
            [only] => return Err(only.clone()),
            all => return Err(format!("[{}]", all.join(", "))),
        }
    }
    Ok(())
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
