//! Validation of a CustomResourceDefinition, in upstream's order
//! (`apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`).

use serde_json::Value;

use super::internal;
use crate::{
    base::{FieldError, Object, names},
    schema::{self, Schema},
};

/// How many fields a version may be selected by.
const SELECTABLE: usize = 8;

/// Annotation of definitions in Kubernetes' own groups.
const APPROVED: &str = "api-approved.kubernetes.io";

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub(super) fn versions(definition: &Object) -> &[Value] {
    definition.at(&["spec", "versions"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn openapi(version: &Value) -> Option<&Value> {
    version.get("schema")?.get("openAPIV3Schema").filter(|schema| schema.is_object())
}

fn complaints(field: &str, value: &str, complaints: &[String], before: &str) -> Option<FieldError> {
    let shown = || FieldError::invalid(field, &value.into(), &format!("{before}{}", complaints.join(",")));
    (!complaints.is_empty()).then(shown)
}

fn label(field: &str, value: &str) -> Option<FieldError> {
    complaints(field, value, &names::dns1035_label(value), "")
}

/// Everything that is wrong with a definition; `old` is the one it replaces.
pub(super) fn validate(definition: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (group, plural) = (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "plural"]));
    if old.is_none() && definition.name() != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &definition.name().into(), why));
    }
    spec(definition, &mut errors);
    if let Some(old) = old {
        let paths: [&[&str]; 4] =
            [&["spec", "scope"], &["spec", "names", "kind"], &["spec", "group"], &["spec", "names", "plural"]];
        for path in &paths[if is_established(old) { 0 } else { 2 }..] {
            if definition.at(path) != old.at(path) {
                let value = definition.at(path).cloned().unwrap_or_default();
                errors.push(FieldError::invalid(&path.join("."), &value, "field is immutable"));
            }
        }
    }
    status(definition, &mut errors);
    stored_versions(definition, &mut errors);
    approval(definition, old, &mut errors);
    let preserves = |definition: &Object| definition.at(&["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true));
    if preserves(definition) && !old.is_some_and(preserves) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &Value::Bool(true), why));
    }
    errors
}

fn is_established(definition: &Object) -> bool {
    let conditions = definition.at(&["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|it| it["type"] == "Established" && it["status"] == "True")
}

fn spec(definition: &Object, errors: &mut Vec<FieldError>) {
    let group = definition.str_at(&["spec", "group"]);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if let Some(error) = complaints("spec.group", group, &names::dns1123_subdomain(group), "") {
        errors.push(error);
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    errors.extend(one_of("spec.scope", definition.str_at(&["spec", "scope"]), &["Cluster", "Namespaced"]));
    let versions = versions(definition);
    let shared = internal::SHARED.map(|member| internal::is_shared(versions, member));
    let [schema_shared, subresources_shared, columns_shared, selectable_shared] = shared;
    if !(schema_shared && versions.first().and_then(openapi).is_some()) {
        for (index, version) in versions.iter().enumerate() {
            if schema_shared || openapi(version).is_none() {
                let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
                errors.push(FieldError::required(&field, ""));
            }
        }
    }
    let preserves = definition.at(&["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true));
    if preserves && versions.iter().filter_map(openapi).any(has_default) {
        let why = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", &Value::Bool(true), why));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let (name, path) = (text(version, "name"), format!("spec.versions[{index}]"));
        unique &= seen.insert(name);
        errors.extend(label(&format!("{path}.name"), name));
        deprecation(version, &path, errors);
        if !schema_shared {
            schema(version, has_status(version), &format!("{path}.schema"), errors);
        }
        if !subresources_shared {
            subresources(version, &format!("{path}.subresources"), errors);
        }
        if !columns_shared {
            columns(version, &path, errors);
        }
        if !selectable_shared {
            // upstream judges these by a version's own schema, even where all versions share one
            let own = openapi(version).filter(|_| !schema_shared);
            let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
            selectable(version, own, why, &path, errors);
        }
    }
    let dumped = |why: &str| FieldError::invalid_shown("spec.versions", &internal::versions(definition), why);
    if !unique {
        errors.push(dumped("must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.push(dumped("must have exactly one version marked as storage version"));
    }
    if let Some(first) = versions.first().map(|version| text(version, "name")).filter(|name| !name.is_empty()) {
        errors.extend(label("spec.version", first));
    }
    for key in ["plural", "singular", "kind", "listKind"] {
        if definition.str_at(&["spec", "names", key]).is_empty() {
            errors.push(FieldError::required(&format!("spec.names.{key}"), ""));
        }
    }
    if let Some(names) = definition.at(&["spec", "names"]) {
        check_names(names, "spec.names", errors);
    }
    if let Some(first) = versions.first() {
        if schema_shared {
            schema(first, versions.iter().any(has_status), "spec.validation", errors);
        }
        if subresources_shared {
            subresources(first, "spec.subresources", errors);
        }
        if columns_shared {
            columns(first, "spec", errors);
        }
        if selectable_shared {
            let own = openapi(first).filter(|_| schema_shared);
            selectable(first, own, "may only be set when validations.schema is included", "spec", errors);
        }
    }
    conversion(definition, preserves, errors);
}

fn one_of(field: &str, value: &str, known: &[&str]) -> Option<FieldError> {
    match value {
        "" => Some(FieldError::required(field, "")),
        value if known.contains(&value) => None,
        value => Some(FieldError::not_supported(field, &value.into(), known)),
    }
}

fn has_status(version: &Value) -> bool {
    version.get("subresources").and_then(|it| it.get("status")).is_some_and(Value::is_object)
}

fn has_default(schema: &Value) -> bool {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    let map = |key: &str| schema.get(key).and_then(Value::as_object).into_iter().flatten().map(|(_, value)| value);
    let one = |key: &str| schema.get(key).filter(|value| value.is_object()).into_iter();
    schema.get("default").is_some_and(|value| !value.is_null())
        || ["allOf", "anyOf", "oneOf"].into_iter().flat_map(list).any(has_default)
        || map("properties").any(has_default)
        || ["items", "not", "additionalProperties"].into_iter().flat_map(one).any(has_default)
}

fn deprecation(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let mut fail = |why: &str| {
        errors.push(FieldError::invalid(&format!("{path}.deprecationWarning"), &warning.into(), why));
    };
    if version["deprecated"] != true {
        return fail("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        fail("must be <= 256 characters long");
    }
    if warning.is_empty() {
        fail("must not be an empty string");
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        fail(&format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"));
    }
}

fn schema(version: &Value, with_status: bool, path: &str, errors: &mut Vec<FieldError>) {
    const ALLOWED: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                           MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties \
                           ExternalDocs Example XPreserveUnknownFields XValidations]";
    let Some(schema) = openapi(version) else { return };
    let path = format!("{path}.openAPIV3Schema");
    if with_status && let Some(root) = schema.as_object() {
        match internal::unfit_with_status(root) {
            Some("Type") => {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                           enabled";
                errors.push(FieldError::invalid(&format!("{path}.type"), &text(schema, "type").into(), why));
            }
            Some(_) => {
                let why = format!(
                    "only {ALLOWED} fields are allowed at the root of the schema if the status subresource is enabled"
                );
                errors.push(FieldError::invalid_shown(&path, &internal::schema(schema), &why));
            }
            None => {}
        }
    }
    if let Err(found) = Schema::structural(schema, &path) {
        errors.extend(found);
    }
}

fn json_path(field: &str, path: &str) -> Option<FieldError> {
    let why = "must be a simple json path starting with .";
    (!path.starts_with('.')).then(|| FieldError::invalid(field, &path.into(), why))
}

fn subresources(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = version.get("subresources").and_then(|it| it.get("scale")).filter(|it| it.is_object()) else {
        return;
    };
    for (key, roots) in [
        ("specReplicasPath", [".spec."].as_slice()),
        ("statusReplicasPath", &[".status."]),
        ("labelSelectorPath", &[".spec.", ".status."]),
    ] {
        let (field, value) = (format!("{path}.scale.{key}"), text(scale, key));
        if value.is_empty() {
            if roots.len() == 1 {
                errors.push(FieldError::required(&field, ""));
            }
        } else if let Some(error) = json_path(&field, value) {
            errors.push(error);
        } else if !roots.iter().any(|root| value.starts_with(root)) {
            let why = match roots {
                [root] => format!("should be a json path under {}", root.trim_end_matches('.')),
                _ => "should be a json path under either .spec or .status".to_owned(),
            };
            errors.push(FieldError::invalid(&field, &value.into(), &why));
        }
    }
}

fn columns(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, column) in items(version, "additionalPrinterColumns") {
        let at = |member: &str| format!("{path}.additionalPrinterColumns[{index}].{member}");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(&at("name"), ""));
        }
        let (kind, must) = (text(column, "type"), format!("must be one of {}", COLUMN_TYPES.join(",")));
        if kind.is_empty() {
            errors.push(FieldError::required(&at("type"), &must));
        } else if !COLUMN_TYPES.contains(&kind) {
            errors.push(FieldError::invalid(&at("type"), &kind.into(), &must));
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let must = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(&at("format"), &format.into(), &must));
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(&at("JSONPath"), "")),
            path => errors.extend(json_path(&at("JSONPath"), path)),
        }
    }
}

fn selectable(version: &Value, schema: Option<&Value>, why: &str, path: &str, errors: &mut Vec<FieldError>) {
    let list = format!("{path}.selectableFields");
    if items(version, "selectableFields").next().is_none() {
        return;
    }
    let Some(schema) = schema.and_then(Value::as_object) else {
        return errors.push(FieldError::invalid(&list, &"".into(), why));
    };
    let mut seen = std::collections::BTreeSet::new();
    for (index, field) in items(version, "selectableFields") {
        let (at, path) = (format!("{list}[{index}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        let (normal, found) = match schema::field_path(schema, path, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(&at, &path.into(), &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if normal == "metadata" || normal.starts_with("metadata.") {
            errors.push(FieldError::invalid(&at, &path.into(), "must not point to fields in metadata"));
        }
        let kind = found.and_then(|found| found.get("type")).and_then(Value::as_str).unwrap_or_default();
        if !["string", "boolean", "integer"].contains(&kind) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(FieldError::invalid(&at, &path.into(), why));
        }
        if !seen.insert(normal) {
            errors.push(FieldError::duplicate(&at, &path.into()));
        }
    }
    if seen.len() > SELECTABLE {
        errors.push(FieldError::too_many(&list, seen.len(), SELECTABLE));
    }
}

fn check_names(names: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    for key in ["plural", "singular"] {
        errors.extend(label(&at(key), text(names, key)).filter(|_| !text(names, key).is_empty()));
    }
    for key in ["kind", "listKind"] {
        let value = text(names, key);
        let found = names::dns1035_label(&value.to_lowercase());
        let before = "may have mixed case, but should otherwise match: ";
        errors.extend(complaints(&at(key), value, &found, before).filter(|_| !value.is_empty()));
    }
    for (index, name) in items(names, "shortNames") {
        errors.extend(label(&at(&format!("shortNames[{index}]")), name.as_str().unwrap_or_default()));
    }
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&at("listKind"), &list_kind.into(), why));
    }
    for (index, name) in items(names, "categories") {
        errors.extend(label(&at(&format!("categories[{index}]")), name.as_str().unwrap_or_default()));
    }
}

fn conversion(definition: &Object, preserves: bool, errors: &mut Vec<FieldError>) {
    let Some(conversion) = definition.at(&["spec", "conversion"]) else { return };
    let at = |member: &str| format!("spec.conversion.{member}");
    let strategy = text(conversion, "strategy");
    if strategy != "None" && preserves {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(&at("strategy"), &strategy.into(), why));
    }
    errors.extend(one_of(&at("strategy"), strategy, &["None", "Webhook"]));
    let webhook = conversion.get("webhook").cloned().unwrap_or_default();
    let client = webhook.get("clientConfig").filter(|client| client.is_object());
    let reviews: Vec<&str> = items(&webhook, "conversionReviewVersions").filter_map(|(_, it)| it.as_str()).collect();
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(FieldError::forbidden(&at("webhookClientConfig"), why));
        }
        if !reviews.is_empty() {
            errors.push(FieldError::forbidden(&at("conversionReviewVersions"), why));
        }
        return;
    }
    match client {
        None => {
            errors.push(FieldError::required(&at("webhookClientConfig"), "required when strategy is set to Webhook"));
        }
        Some(client) => {
            let url = client.get("url").and_then(Value::as_str);
            let service = client.get("service").filter(|service| service.is_object());
            match (url, service) {
                (Some(url), None) => webhook_url(&at("webhookClientConfig.url"), url, errors),
                (None, Some(service)) => webhook_service(&at("webhookClientConfig.service"), service, errors),
                _ => {
                    let why = "exactly one of url or service is required";
                    errors.push(FieldError::required(&at("webhookClientConfig"), why));
                }
            }
        }
    }
    let field = at("conversionReviewVersions");
    if reviews.is_empty() {
        return errors.push(FieldError::required(&field, ""));
    }
    for (index, version) in reviews.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if reviews[..index].contains(version) {
            errors.push(FieldError::invalid(&field, &(*version).into(), "duplicate version"));
        } else {
            errors.extend(label(&field, version));
        }
    }
    if !reviews.iter().any(|version| ["v1", "v1beta1"].contains(version)) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(&field, &reviews.into(), why));
    }
}

fn webhook_url(field: &str, url: &str, errors: &mut Vec<FieldError>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut fail = |shown: &str, why: &str| errors.push(FieldError::invalid(field, &shown.into(), why));
    if scheme != "https" {
        fail(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        fail(host, &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        fail(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        fail(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        fail(query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(field: &str, service: &Value, errors: &mut Vec<FieldError>) {
    // upstream passes name and namespace the wrong way round
    for (key, named) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, key).is_empty() {
            errors.push(FieldError::required(&format!("{field}.{named}"), ""));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or_default();
    let found = names::port_number(port);
    if !found.is_empty() {
        let why = format!("port is not valid: {}", found.join(", "));
        errors.push(FieldError::invalid(&format!("{field}.port"), &port.into(), &why));
    }
    let path = text(service, "path");
    let mut fail = |why: &str| errors.push(FieldError::invalid(&format!("{field}.path"), &path.into(), why));
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        return fail("segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        fail("must start with a '/'");
    }
    let steps: String = path.chars().skip(1).collect();
    for (index, step) in steps.strip_suffix('/').unwrap_or(&steps).split('/').enumerate() {
        if step.is_empty() {
            fail(&format!("segment[{index}] may not be empty"));
            continue;
        }
        for why in names::dns1123_subdomain(step) {
            fail(&format!("segment[{index}]: {why}"));
        }
    }
}

/// The accepted names of a status.
pub(super) fn status(definition: &Object, errors: &mut Vec<FieldError>) {
    if let Some(names) = definition.at(&["status", "acceptedNames"]) {
        check_names(names, "status.acceptedNames", errors);
    }
}

fn stored_versions(definition: &Object, errors: &mut Vec<FieldError>) {
    let field = "status.storedVersions";
    let stored = definition.at(&["status", "storedVersions"]).cloned().unwrap_or_default();
    let list: Vec<&str> = stored.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if list.is_empty() {
        return errors.push(FieldError::invalid(field, &Value::Null, "must have at least one stored version"));
    }
    for version in versions(definition) {
        let name = text(version, "name");
        if version["storage"] == true && !list.contains(&name) {
            let why = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(field, &stored, &why));
        }
    }
    for (index, name) in list.iter().enumerate() {
        if !versions(definition).iter().any(|version| text(version, "name") == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(FieldError::invalid(&format!("{field}[{index}]"), &(*name).into(), &why));
        }
    }
}

/// Whether a definition in one of Kubernetes' own groups says who approved it: the condition's status and reason, and
/// the message. `None` outside those groups.
pub(super) fn approval_state(definition: &Object) -> Option<(&'static str, &'static str, String)> {
    let group = definition.str_at(&["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"];
    let ours = |own: &&str| group == *own || group.ends_with(&format!(".{own}"));
    if !protected.iter().any(ours) {
        return None;
    }
    let said = definition.annotation(APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = said.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty() && !rest.starts_with('/')
    });
    Some(if said.is_empty() {
        let text = format!("protected groups must have approval annotation \"{APPROVED}\", {see}");
        ("False", "MissingAnnotation", text)
    } else if said.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {}", crate::base::status::go_quote(said)))
    } else if is_url {
        ("True", "ApprovedAnnotation", format!("approved in {said}"))
    } else {
        let text = format!(
            "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \
             \"unapproved\", {see}"
        );
        ("False", "InvalidAnnotation", text)
    })
}

fn approval(definition: &Object, old: Option<&Object>, errors: &mut Vec<FieldError>) {
    let Some((_, reason, message)) = approval_state(definition) else { return };
    if old.and_then(approval_state).is_some_and(|(_, before, _)| before == reason) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match reason {
        "MissingAnnotation" => errors.push(FieldError::required(&field, &message)),
        "InvalidAnnotation" => {
            let said = definition.annotation(APPROVED).unwrap_or_default();
            errors.push(FieldError::invalid(&field, &said.into(), &message));
        }
        _ => {}
    }
}
