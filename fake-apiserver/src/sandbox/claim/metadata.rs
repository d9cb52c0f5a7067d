//! The labels and annotations that claims may add to their pods (`validateAdditionalPodMetadata`, `mergePodMetadata`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    super::keys::{CLAIM_UID, CREATED_BY, SAFE_TO_EVICT, TEMPLATE_REF_HASH},
    error::quoted,
};
use crate::base::{
    Object,
    names::{label_value, qualified_name},
};

/// Labels or annotations.
pub(super) type Strings = BTreeMap<String, String>;

/// Domains whose annotations a claim cannot set.
const RESTRICTED: [&str; 3] = ["kubernetes.io", "k8s.io", "agents.x-k8s.io"];

/// Labels and annotations of a pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodMetadata {
    pub(super) labels: Strings,
    pub(super) annotations: Strings,
}

impl PodMetadata {
    /// What stands at a path.
    pub(super) fn at(object: &Object, path: &[&str]) -> Self {
        let metadata = object.at(path);
        let strings = |member: &str| {
            let map = metadata.and_then(|metadata| metadata.get(member)).and_then(Value::as_object);
            let texts =
                map.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into())));
            texts.collect()
        };
        Self { labels: strings("labels"), annotations: strings("annotations") }
    }

    /// What a template or Sandbox gives its pod.
    pub(super) fn of_pods(object: &Object) -> Self {
        Self::at(object, &["spec", "podTemplate", "metadata"])
    }

    /// What a claim adds.
    pub(super) fn added_by(claim: &Object) -> Self {
        Self::at(claim, &["spec", "additionalPodMetadata"])
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }

    /// The merge patch from one to the other; empty if they are the same. Go drops empty maps, so they vanish whole.
    pub(super) fn patch_to(&self, new: &Self) -> Map<String, Value> {
        let maps = [("labels", &self.labels, &new.labels), ("annotations", &self.annotations, &new.annotations)];
        maps.into_iter().filter_map(|(member, old, new)| Some((member.to_owned(), patch(old, new)?))).collect()
    }

    /// As JSON.
    pub(super) fn to_value(&self) -> Value {
        let maps = [("labels", &self.labels), ("annotations", &self.annotations)];
        let filled = maps.into_iter().filter(|(_, map)| !map.is_empty());
        Value::Object(filled.map(|(member, map)| (member.to_owned(), json(map))).collect())
    }
}

fn json(map: &Strings) -> Value {
    map.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
}

/// The merge patch from one map to another, `None` if they are the same.
pub(super) fn patch(old: &Strings, new: &Strings) -> Option<Value> {
    if old == new {
        return None;
    }
    if new.is_empty() {
        return Some(Value::Null);
    }
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let set = set.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    Some(removed.chain(set).collect::<Map<_, _>>().into())
}

/// Whether a domain is one of these or below one of them.
fn is_within(domain: &str, domains: &[impl AsRef<str>]) -> bool {
    domains
        .iter()
        .map(AsRef::as_ref)
        .any(|known: &str| domain == known || domain.strip_suffix(known).is_some_and(|rest| rest.ends_with('.')))
}

fn validate_one(key: &str, value: &str, allowed: Option<&[String]>) -> Result<(), String> {
    let is_label = allowed.is_some();
    let complaints = qualified_name(key);
    if !complaints.is_empty() {
        let kind = if is_label { "label" } else { "annotation" };
        return Err(format!("invalid {kind} key: {}: {}", quoted(key), complaints.join("; ")));
    }
    if is_label && key.eq_ignore_ascii_case("app") && value.eq_ignore_ascii_case("sandbox-router") {
        let (key, value) = (quoted(key), quoted(value));
        return Err(format!("restricted system label value: {key}={value} is not allowed in AdditionalPodMetadata"));
    }
    let domain = key.split_once('/').map(|(domain, _)| domain.to_lowercase());
    let Some(allowed) = allowed else {
        if key != SAFE_TO_EVICT && is_within(&domain.unwrap_or_default(), &RESTRICTED) {
            let key = quoted(key);
            return Err(format!("restricted system domain: {key} is not allowed in AdditionalPodMetadata"));
        }
        return Ok(());
    };
    let Some(domain) = domain else {
        return Err(format!(
            "label {} must have a domain prefix (e.g. 'sandbox.users.io/my-label') to prevent opting into unintended \
             policy domains",
            quoted(key)
        ));
    };
    if !is_within(&domain, allowed) {
        return Err(format!("label domain {} is not in the allowlist", quoted(&domain)));
    }
    let complaints = label_value(value);
    if !complaints.is_empty() {
        return Err(format!(
            "invalid label value: {} does not match allowed pattern: {}",
            quoted(value),
            complaints.join("; ")
        ));
    }
    Ok(())
}

/// Checks what a claim adds; labels must be of the allowed domains.
///
/// # Errors
/// What may not be, in words.
pub(super) fn validate(added: &PodMetadata, allowed: &[String]) -> Result<(), String> {
    for (key, value) in &added.labels {
        validate_one(key, value, Some(allowed))
            .map_err(|error| format!("failed to validate label {}: {error}", quoted(key)))?;
    }
    for (key, value) in &added.annotations {
        validate_one(key, value, None)
            .map_err(|error| format!("failed to validate annotation {}: {error}", quoted(key)))?;
    }
    Ok(())
}

/// The claim's mark on labels: its UID, and which client made it.
pub(super) fn mark(labels: &mut Strings, claim: &Object) {
    labels.insert(CLAIM_UID.into(), claim.uid().into());
    mark_created_by(labels, claim);
}

/// Which client made the claim, or nobody known.
pub(super) fn mark_created_by(labels: &mut Strings, claim: &Object) {
    match claim.label(CREATED_BY).filter(|by| !by.is_empty()) {
        Some(by) => labels.insert(CREATED_BY.into(), by.into()),
        None => labels.remove(CREATED_BY),
    };
}

/// What a claim's pod gets: what stands in `base`, the claim's mark, the template's hash if it is known, and what the
/// claim adds.
///
/// # Errors
/// If the claim wants another value for what is there already.
pub(super) fn for_claim(mut base: PodMetadata, claim: &Object, hash: &str) -> Result<PodMetadata, String> {
    mark(&mut base.labels, claim);
    if !hash.is_empty() {
        base.labels.insert(TEMPLATE_REF_HASH.into(), hash.into());
    }
    let added = PodMetadata::added_by(claim);
    for (what, there, wanted) in
        [("label", &base.labels, &added.labels), ("annotation", &base.annotations, &added.annotations)]
    {
        for (key, value) in wanted {
            if let Some(old) = there.get(key).filter(|old| *old != value) {
                let (key, old, value) = (quoted(key), quoted(old), quoted(value));
                return Err(format!(
                    "metadata override conflict: {what} {key} is defined in template with value {old}, but claim \
                     requests {value}"
                ));
            }
        }
    }
    base.labels.extend(added.labels);
    base.annotations.extend(added.annotations);
    Ok(base)
}
