//! What a built-in kind asks beyond its schema: defaults, validation, what a client may not write, what it can be selected
//! by, and how it prints. Pure functions over (old, new); no store, no clock.
//!
//! [`rules`] finds a kind's [`Rules`]; [`validate_create`] and [`validate_update`] add what every object must satisfy.
//! Upstream: `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`, `pkg/registry/*/*/strategy.go`, `pkg/printers`.

use jiff::Timestamp;
use serde_json::Value;

use crate::base::{
    FieldError, Object,
    names::{self, NameCheck},
    selector::FieldSelector,
};

mod admission;
mod autoscalers;
mod budgets;
mod certificates;
mod core;
mod cron;
mod data;
mod definition;
mod events;
mod jobs;
pub mod meta;
mod namespaces;
mod others;
mod pod;
mod print;
mod quotas;
mod roles;
mod service;
mod storage;
mod table;
mod util;
mod warnings;
mod workloads;

pub use self::{
    autoscalers::convert_autoscaler,
    certificates::organizations,
    cron::Schedule,
    definition::approval,
    events::convert_event,
    pod::{qos_class, resources},
    print::age,
    service::choose_families,
};

/// A field that objects can be selected by, and its value in an object.
pub type Selectable = (&'static str, fn(&Object) -> String);

/// The rules of one built-in kind.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How an object may be named.
    pub name: NameCheck,
    /// Fills in defaults, as upstream's `SetDefaults_*` do; runs on each decoded object.
    pub default: fn(&mut Object),
    /// Upstream's `PrepareForCreate`: resets what a client may not set.
    pub prepare_create: fn(&mut Object),
    /// Upstream's `PrepareForUpdate`, for a write through `subresource` (`""` for the object itself).
    pub prepare_update: fn(new: &mut Object, old: &Object, subresource: &str),
    /// Gives what was written through a subresource the time of the write, where it has none.
    pub stamp: fn(new: &mut Object, old: &Object, now: &str),
    /// Validation on create, of all but the metadata; [`validate_create`] does both.
    pub validate: fn(&Object) -> Vec<FieldError>,
    /// Validation on update through `subresource`, of all but the metadata; [`validate_update`] does both.
    pub validate_update: fn(new: &Object, old: &Object, subresource: &str) -> Vec<FieldError>,
    /// What the answer to a create (no `old`) or update warns of.
    pub warnings: fn(new: &Object, old: Option<&Object>) -> Vec<String>,
    /// Field selectors besides `metadata.name` and `metadata.namespace`: the label and the value of an object.
    pub selectable: &'static [Selectable],
    /// How a field label that the kind does not have is told of.
    pub unknown_label: fn(&str) -> String,
    /// Whether `metadata.generation` counts changes of the spec (of everything but metadata and status where there is
    /// no spec).
    pub generation: bool,
    /// Whether it counts changed annotations too.
    pub annotations_count: bool,
    /// Whether finalizers without a `/` must be Kubernetes' own: so for built-in kinds; custom ones get a warning.
    pub standard_finalizers: bool,
    /// Whether an update judges the object anew as a create does, so that upstream tells its errors once more.
    pub revalidates: bool,
    /// How often an update judges the metadata as a create does, besides what [`Self::revalidates`] asks for.
    pub rejudges_metadata: u8,
    /// Whether the kind judges the change of metadata itself, once all kinds' rules have done so.
    pub judges_change: bool,
    /// Whether an update may leave out the resource version (upstream's `AllowUnconditionalUpdate`).
    pub unconditional: bool,
    /// Cells of server-side printing, in the order of the resource's columns.
    pub cells: fn(&Object, Timestamp) -> Vec<Value>,
}

fn plain_label(label: &str) -> String {
    format!(
        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        crate::base::status::go_quote(label)
    )
}

fn unsupported_label(label: &str) -> String {
    format!("field label not supported: {label}")
}

/// Custom kinds, and what all kinds have in common.
const PLAIN: Rules = Rules {
    name: names::name_is_subdomain,
    default: |_| {},
    prepare_create: |_| {},
    prepare_update: |_, _, _| {},
    stamp: |_, _, _| {},
    validate: |_| Vec::new(),
    validate_update: |_, _, _| Vec::new(),
    warnings: |_, _| Vec::new(),
    selectable: &[],
    unknown_label: plain_label,
    generation: false,
    annotations_count: false,
    standard_finalizers: false,
    revalidates: false,
    rejudges_metadata: 0,
    judges_change: true,
    unconditional: true,
    cells: print::name_and_age,
};

/// Built-in kinds without rules of their own.
const BUILTIN: Rules = Rules { standard_finalizers: true, ..PLAIN };

/// Groups whose kinds are built in.
const BUILTIN_GROUPS: [&str; 21] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// The rules of a built-in kind; kinds without special rules get plain ones.
pub fn rules(group: &str, kind: &str) -> &'static Rules {
    static CUSTOM: Rules = PLAIN;
    static OTHER: Rules = BUILTIN;
    static VERSIONED: Rules = Rules { unconditional: false, ..BUILTIN };
    let known = table::TABLE.iter().find(|(g, k, _)| *g == group && *k == kind);
    let other = match (group, kind) {
        ("storage.k8s.io", "CSINode" | "CSIStorageCapacity" | "VolumeAttachment")
        | ("apiregistration.k8s.io", "APIService") => &VERSIONED,
        _ if BUILTIN_GROUPS.contains(&group) => &OTHER,
        _ => &CUSTOM,
    };
    known.map_or(other, |(_, _, rules)| rules)
}

/// Judges an object that is to be created: the kind's own rules, then those of all objects. Upstream's
/// `rest.BeforeCreate`.
pub fn validate_create(rules: &Rules, object: &Object, namespaced: bool) -> Vec<FieldError> {
    let mut errors = meta::validate_object_meta(object, namespaced, rules.name);
    errors.extend(meta::standard_finalizers(object, rules.standard_finalizers));
    errors.extend((rules.validate)(object));
    if errors.is_empty() {
        // Upstream judges all metadata once more here; of what has passed, only the name is judged by another rule.
        errors = meta::validate_name(object, names::path_segment);
    }
    errors
}

/// Judges a write over an object through `subresource` (`""` for the object itself). Upstream's `rest.BeforeUpdate`,
/// which judges metadata twice and shows each complaint as often among the causes.
pub fn validate_update(
    rules: &Rules,
    new: &Object,
    old: &Object,
    namespaced: bool,
    subresource: &str,
) -> Vec<FieldError> {
    let mut errors = meta::validate_object_meta(new, namespaced, names::path_segment);
    errors.extend(meta::validate_object_meta_update(new, old));
    if rules.judges_change {
        errors.extend(meta::validate_object_meta_update(new, old));
        errors.extend(meta::standard_finalizers(new, rules.standard_finalizers));
    }
    errors.extend((rules.validate_update)(new, old, subresource));
    if subresource.is_empty() {
        for _ in 0..rules.rejudges_metadata + u8::from(rules.revalidates) {
            errors.extend(meta::validate_object_meta(new, namespaced, rules.name));
            errors.extend(meta::standard_finalizers(new, rules.standard_finalizers));
        }
        if rules.revalidates {
            errors.extend((rules.validate)(new));
        }
    }
    errors
}

/// Checks that a kind has the fields that a selector names; `custom` are the JSON paths that a custom kind selects by.
///
/// # Errors
/// The text of the 400.
pub fn check_fields(rules: &Rules, selector: &FieldSelector, custom: &[String]) -> Result<(), String> {
    for requirement in selector.requirements() {
        let label = requirement.field.as_str();
        let known = matches!(label, "metadata.name" | "metadata.namespace")
            || rules.selectable.iter().any(|(known, _)| *known == label)
            || custom.iter().any(|path| path.trim_start_matches('.') == label);
        if !known {
            return Err(if custom.is_empty() {
                (rules.unknown_label)(label)
            } else {
                format!("field label not supported: {label}")
            });
        }
    }
    Ok(())
}

/// The value of a field that objects of a kind can be selected by, `""` where there is none.
pub fn field_value(rules: &Rules, object: &Object, label: &str) -> String {
    if let Some((_, value)) = rules.selectable.iter().find(|(known, _)| *known == label) {
        return value(object);
    }
    let path: Vec<&str> = label.trim_start_matches('.').split('.').collect();
    match object.at(&path) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => String::new(),
    }
}

#[cfg(test)]
mod tests;
