//! Between v1alpha1 and v1beta1, as the controller's webhook converts.
//!
//! A cluster whose controller is v0.5.0 or newer converts by itself; the client converts for older ones, so that a
//! program knows one version only. Both work on JSON, not on the types: what this crate does not name is kept.
//!
//! What v1beta1 cannot say is kept whole in an annotation when an object is made newer, and given back when it is made
//! older. What v1alpha1 cannot say is lost: a node's name, a claim's own volume claims.
//!
//! The rules are upstream's: `api/v1alpha1/sandbox_conversion.go`, `extensions/api/v1alpha1/*_conversion.go`.

use serde_json::{Map, Value, json};

use crate::{v1alpha1, v1beta1};

mod go;
mod quantity;

/// Prefix of the pools that stand for a template without a pool.
const SHADOW_POOL: &str = "shadow-pool-";

/// The annotation by which a template keeps its policy in v1alpha1.
const POLICY: &str = "api.agents.x-k8s.io/v1beta1-volume-claim-templates-policy";

/// A version of the API.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::conversion::Version;
///
/// assert!(Version::V1alpha1 < Version::V1beta1);
/// assert_eq!(Version::V1beta1.to_string(), "v1beta1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The only one before v0.5.0 of the controller.
    V1alpha1,
    /// The one that this crate speaks where it can.
    V1beta1,
}

impl Version {
    /// As in an `apiVersion`.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(agent_sandbox_sdk::conversion::Version::V1alpha1.as_str(), "v1alpha1");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1alpha1 => "v1alpha1",
            Self::V1beta1 => "v1beta1",
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an object was not converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionError {
    /// It is not of one of the four kinds in one of the two versions.
    #[error("{kind:?} of {api_version:?} is no Agent Sandbox kind")]
    UnknownKind {
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },

    /// A template's policy annotation holds no policy.
    #[error("invalid VolumeClaimTemplatesPolicy annotation value: {value:?}")]
    BadPolicy {
        /// What it holds.
        value: String,
    },

    /// The annotation that keeps the older object holds no such object.
    #[error("failed to unmarshal v1alpha1 {kind} state: {why}")]
    BadState {
        /// The kind.
        kind: String,
        /// Why, without the object's values: they may be secret.
        why: String,
    },

    /// The object does not fit the type of its kind.
    #[error("the object is no {kind}: {why}")]
    BadObject {
        /// The kind.
        kind: String,
        /// Why, without the object's values: they may be secret.
        why: String,
    },
}

impl ConversionError {
    pub(crate) fn bad_object(kind: &str, error: &serde_json::Error) -> Self {
        Self::BadObject { kind: kind.into(), why: without_values(error) }
    }
}

/// A parser's words, but for the value that it stumbled over.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(", expected ") {
        Some((_, wanted)) => format!("expected {wanted}"),
        None => text,
    }
}

/// Converts an object, as JSON, to a version. One that is of that version already comes back as it is.
///
/// # Errors
/// [`ConversionError`]; the webhook fails then, too.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::conversion::{Version, convert};
/// use serde_json::json;
///
/// let old = json!({"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a"},
///     "spec": {"replicas": 0, "podTemplate": {"spec": {"containers": []}}}});
/// let new = convert(old, Version::V1beta1)?;
/// assert_eq!(new["spec"]["operatingMode"], "Suspended");
/// # Ok::<(), agent_sandbox_sdk::conversion::ConversionError>(())
/// ```
pub fn convert(object: Value, to: Version) -> Result<Value, ConversionError> {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let wanted_group = match kind.as_str() {
        "Sandbox" => "agents.x-k8s.io",
        "SandboxTemplate" | "SandboxClaim" | "SandboxWarmPool" => "extensions.agents.x-k8s.io",
        _ => "",
    };
    let from = match api_version.split_once('/') {
        Some((group, "v1alpha1")) if group == wanted_group => Version::V1alpha1,
        Some((group, "v1beta1")) if group == wanted_group => Version::V1beta1,
        _ => return Err(ConversionError::UnknownKind { api_version, kind }),
    };
    let mut object = object;
    if from == to {
        return Ok(object);
    }
    as_go_writes(&kind, &mut object);
    match to {
        Version::V1beta1 => to_newer(&kind, &mut object)?,
        Version::V1alpha1 => to_older(&kind, &mut object)?,
    }
    object["apiVersion"] = format!("{wanted_group}/{to}").into();
    Ok(object)
}

/// The annotation that keeps the older object.
fn state_key(kind: &str) -> String {
    format!("api.agents.x-k8s.io/v1alpha1-{}-state", kind.to_lowercase())
}

fn to_newer(kind: &str, object: &mut Value) -> Result<(), ConversionError> {
    take_annotation(object, &state_key(kind));
    let state = object.to_string();
    match kind {
        "Sandbox" => {
            let suspended = take(object, "spec", "replicas").and_then(|replicas| replicas.as_i64()) == Some(0);
            let mode = if suspended { "Suspended" } else { "Running" };
            put(object, "spec", "operatingMode", mode.into());
            take(object, "status", "replicas");
            drop_empty_status(object);
        }
        "SandboxTemplate" => {
            if let Some(policy) = take_annotation(object, POLICY) {
                let value = policy.as_str().unwrap_or_default().to_owned();
                if !["Allowed", "Disallowed", "Overrides"].contains(&value.as_str()) {
                    return Err(ConversionError::BadPolicy { value });
                }
                put(object, "spec", "volumeClaimTemplatesPolicy", policy);
            }
        }
        "SandboxClaim" => {
            let template = take(object, "spec", "sandboxTemplateRef").unwrap_or_default();
            let policy = take(object, "spec", "warmpool").unwrap_or_default();
            let sandbox = object["status"]["sandbox"]["name"].as_str().unwrap_or_default();
            let own = object["metadata"]["name"].as_str().unwrap_or_default();
            let pool = match named_pool(&policy) {
                Some(pool) => pool.to_owned(),
                None if !sandbox.is_empty() && sandbox != own => pool_of_member(sandbox).to_owned(),
                None => format!("{SHADOW_POOL}{}", template["name"].as_str().unwrap_or_default()),
            };
            put(object, "spec", "warmPoolRef", json!({"name": pool}));
        }
        _ => {}
    }
    put_annotation(object, &state_key(kind), state.into());
    Ok(())
}

fn to_older(kind: &str, object: &mut Value) -> Result<(), ConversionError> {
    let state = match take_annotation(object, &state_key(kind)) {
        Some(state) if matches!(kind, "Sandbox" | "SandboxClaim") => {
            let text = state.as_str().unwrap_or_default();
            let read = serde_json::from_str::<Option<Map<String, Value>>>(text);
            let read =
                read.map_err(|error| ConversionError::BadState { kind: kind.into(), why: without_values(&error) })?;
            Some(Value::Object(read.unwrap_or_default()))
        }
        _ => None,
    };
    match kind {
        "Sandbox" => {
            let mode = take(object, "spec", "operatingMode").unwrap_or_default();
            let desired = i64::from(mode != "Suspended");
            let (mut replicas, mut current) = (Value::from(desired), Value::from(desired));
            if let Some(state) = state {
                let wanted = &state["spec"]["replicas"];
                if mode == "Running" && *wanted != 0 {
                    replicas = wanted.clone();
                }
                current = state["status"]["replicas"].clone();
            }
            if replicas.is_null() {
                take(object, "spec", "replicas");
            } else {
                put(object, "spec", "replicas", replicas);
            }
            take(object, "status", "nodeName");
            drop_empty_status(object);
            if !current.is_null() && current != 0 {
                put(object, "status", "replicas", current);
            }
        }
        "SandboxTemplate" => {
            take_annotation(object, POLICY);
            match take(object, "spec", "volumeClaimTemplatesPolicy") {
                Some(policy) if policy != "" => put_annotation(object, POLICY, policy),
                _ => {}
            }
        }
        "SandboxWarmPool" => {
            if object["spec"]["replicas"].is_null() {
                put(object, "spec", "replicas", 1.into());
            }
            take(object, "status", "observedGeneration");
        }
        "SandboxClaim" => {
            let pool = take(object, "spec", "warmPoolRef").unwrap_or_default();
            let pool = pool["name"].as_str().unwrap_or_default().to_owned();
            take(object, "spec", "volumeClaimTemplates");
            let (template, policy) = older_wish(&pool, state.as_ref(), object);
            let template = if template.is_empty() { json!({}) } else { json!({"name": template}) };
            put(object, "spec", "sandboxTemplateRef", template);
            match policy {
                Some(policy) => put(object, "spec", "warmpool", policy.into()),
                None => drop(take(object, "spec", "warmpool")),
            }
        }
        _ => {}
    }
    Ok(())
}

/// What a claim for a pool asks for in v1alpha1: a template and, unless it was never said, which pool.
fn older_wish(pool: &str, state: Option<&Value>, claim: &Value) -> (String, Option<String>) {
    let Some(state) = state else {
        return match pool.strip_prefix(SHADOW_POOL) {
            Some(template) => (template.into(), Some("default".into())),
            None => (pool.into(), Some(pool.into())),
        };
    };
    let template = state["spec"]["sandboxTemplateRef"]["name"].as_str().unwrap_or_default();
    let policy = &state["spec"]["warmpool"];
    let expected = named_pool(policy).unwrap_or(template);
    let sandbox = claim["status"]["sandbox"]["name"].as_str().unwrap_or_default();
    let as_it_was = pool == expected
        || pool.strip_prefix(SHADOW_POOL) == Some(expected)
        || (!sandbox.is_empty() && (pool == sandbox || pool == pool_of_member(sandbox)));
    let policy = if as_it_was { policy.as_str().map(str::to_owned) } else { Some(pool.to_owned()) };
    (template.into(), policy)
}

/// The pool that an older claim names; `none` and `default` are no names.
fn named_pool(policy: &Value) -> Option<&str> {
    policy.as_str().filter(|policy| !["", "none", "default"].contains(policy))
}

/// A pool's sandboxes are called after it, with a suffix.
fn pool_of_member(sandbox: &str) -> &str {
    sandbox.rsplit_once('-').map_or(sandbox, |(pool, _)| pool)
}

fn take(object: &mut Value, part: &str, key: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(key)
}

fn put(object: &mut Value, part: &str, key: &str, value: Value) {
    object[part][key] = value;
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let taken = annotations.remove(key);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    taken
}

fn put_annotation(object: &mut Value, key: &str, value: Value) {
    object["metadata"]["annotations"][key] = value;
}

fn drop_empty_status(object: &mut Value) {
    if object["status"].as_object().is_some_and(Map::is_empty) {
        take_part(object, "status");
    }
}

fn take_part(object: &mut Value, part: &str) {
    if let Some(members) = object.as_object_mut() {
        members.remove(part);
    }
}

/// The webhook reads objects into Go types and writes them out again: some members are then always there, others never
/// empty.
fn as_go_writes(kind: &str, object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        match kind {
            "Sandbox" | "SandboxTemplate" => {
                let template = spec.entry("podTemplate").or_insert_with(|| json!({}));
                template["metadata"] = tidy(template["metadata"].take());
                go::encode(&mut template["spec"], "podTemplate");
                if let Some(policy) = spec.get_mut("networkPolicy") {
                    go::encode(policy, "networkPolicy");
                }
            }
            "SandboxClaim" => {
                let more = spec.remove("additionalPodMetadata").unwrap_or_default();
                spec.insert("additionalPodMetadata".into(), tidy(more));
                for variable in spec.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                    if variable["containerName"] == "" {
                        variable.as_object_mut().and_then(|variable| variable.remove("containerName"));
                    }
                }
                if let Some(lifecycle) = spec.get_mut("lifecycle").and_then(Value::as_object_mut) {
                    go::encode_time(lifecycle, "shutdownTime");
                    lifecycle.retain(|_, value| !value.is_null() && value != "");
                }
            }
            _ => {}
        }
        for claim in spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten() {
            claim["metadata"] = tidy(claim["metadata"].take());
            if claim["spec"].is_null() {
                claim["spec"] = json!({});
            }
            go::encode(&mut claim["spec"], go::VOLUME_CLAIM_SPEC);
        }
        go::encode_time(spec, "shutdownTime");
        spec.retain(|_, value| !value.is_null() && value != "" && !value.as_array().is_some_and(Vec::is_empty));
    }
    if kind != "SandboxTemplate"
        && let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
    {
        // Counters are plain numbers: a 0 is nothing.
        status.retain(|_, value| *value != 0);
        let sandbox = status.remove("sandbox");
        let rest = tidy(Value::Object(std::mem::take(status)));
        *status = rest.as_object().cloned().unwrap_or_default();
        status.extend(sandbox.map(|sandbox| ("sandbox".to_owned(), sandbox)));
    }
    match kind {
        "SandboxWarmPool" if !object["status"].is_object() => object["status"] = json!({}),
        "SandboxClaim" if object["status"].is_object() => {
            let status = &mut object["status"];
            status["sandbox"] = tidy(status["sandbox"].take());
            let nothing = json!({"sandbox": {}});
            if *status == nothing {
                take_part(object, "status");
            }
        }
        "Sandbox" => drop_empty_status(object),
        _ => {}
    }
    if object["status"].is_null() {
        take_part(object, "status");
    }
}

/// An object without empty members; `{}` for nothing.
fn tidy(value: Value) -> Value {
    let Value::Object(mut members) = value else { return json!({}) };
    members.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    });
    Value::Object(members)
}

/// The typed form, both ways, for one kind.
macro_rules! typed {
    ($($kind:ident),+) => {$(
        impl TryFrom<v1alpha1::$kind> for v1beta1::$kind {
            type Error = ConversionError;

            fn try_from(older: v1alpha1::$kind) -> Result<Self, ConversionError> {
                through_json(&older, stringify!($kind), Version::V1beta1)
            }
        }

        impl TryFrom<v1beta1::$kind> for v1alpha1::$kind {
            type Error = ConversionError;

            fn try_from(newer: v1beta1::$kind) -> Result<Self, ConversionError> {
                through_json(&newer, stringify!($kind), Version::V1alpha1)
            }
        }
    )+};
}
typed!(Sandbox, SandboxTemplate, SandboxClaim, SandboxWarmPool);

fn through_json<T: serde::de::DeserializeOwned>(
    object: &impl serde::Serialize,
    kind: &str,
    to: Version,
) -> Result<T, ConversionError> {
    let bad = |error| ConversionError::bad_object(kind, &error);
    let converted = convert(serde_json::to_value(object).map_err(bad)?, to)?;
    serde_json::from_value(converted).map_err(bad)
}

#[cfg(test)]
mod tests;
