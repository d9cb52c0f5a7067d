//! A definition as upstream's internal type has it: what all versions share stands at the top. Error paths and dumps show
//! that form. Upstream: `apiextensions-apiserver/pkg/apis/apiextensions/{types,types_jsonschema}.go`, `v1/conversion.go`.

use serde_json::{Map, Value, json};

use crate::base::Object;

/// What each version may have, or all of them together.
pub(super) const SHARED: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

/// Whether all versions have the same value of a member.
pub(super) fn is_shared(versions: &[Value], member: &str) -> bool {
    let is_empty = |value: &&Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let mut values = versions.iter().map(|version| version.get(member).filter(|value| !is_empty(value)));
    let first = values.next();
    values.all(|value| Some(value) == first)
}

/// A JSON object whose members stay in the order they were written in, as Go's structs have it.
#[derive(Default)]
struct Struct(Vec<String>);

impl Struct {
    fn text(&mut self, name: &str, value: String) {
        self.0.push(format!("\"{name}\":{value}"));
    }

    fn done(self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

fn plain(value: Option<&Value>, zero: Value) -> String {
    let value = value.filter(|value| !value.is_null()).unwrap_or(&zero).to_string();
    value.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn list(value: Option<&Value>, each: fn(&Value) -> String) -> String {
    match value.and_then(Value::as_array) {
        Some(list) => format!("[{}]", list.iter().map(each).collect::<Vec<_>>().join(",")),
        None => "null".into(),
    }
}

fn map(value: Option<&Value>, each: fn(&Value) -> String) -> String {
    match value.and_then(Value::as_object) {
        Some(map) => {
            let members = map.iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), each(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        None => "null".into(),
    }
}

/// The versions as Go prints upstream's internal type; a list that is not there is `null`.
pub(super) fn versions(definition: &Object) -> String {
    let Some(versions) = definition.at(&["spec", "versions"]).and_then(Value::as_array) else { return "null".into() };
    let shared = SHARED.map(|member| is_shared(versions, member));
    let parts = versions.iter().map(|version| {
        let own = |index: usize| version.get(SHARED[index]).filter(|value| !shared[index] && !value.is_null());
        let mut out = Struct::default();
        out.text("Name", plain(version.get("name"), json!("")));
        for (name, key) in [("Served", "served"), ("Storage", "storage"), ("Deprecated", "deprecated")] {
            out.text(name, plain(version.get(key), json!(false)));
        }
        out.text("DeprecationWarning", plain(version.get("deprecationWarning"), Value::Null));
        let schema = own(0).map(|value| format!("{{\"OpenAPIV3Schema\":{}}}", pointer(value.get("openAPIV3Schema"))));
        out.text("Schema", schema.unwrap_or_else(|| "null".into()));
        out.text("Subresources", own(1).map_or_else(|| "null".into(), subresources));
        out.text("AdditionalPrinterColumns", list(own(2), column));
        out.text(
            "SelectableFields",
            list(own(3), |field| format!("{{\"JSONPath\":{}}}", plain(field.get("jsonPath"), json!("")))),
        );
        out.done()
    });
    format!("[{}]", parts.collect::<Vec<_>>().join(","))
}

fn subresources(value: &Value) -> String {
    let mut out = Struct::default();
    out.text("Status", plain(value.get("status"), Value::Null));
    let scale = value.get("scale").filter(|scale| scale.is_object()).map(|scale| {
        let mut out = Struct::default();
        out.text("SpecReplicasPath", plain(scale.get("specReplicasPath"), json!("")));
        out.text("StatusReplicasPath", plain(scale.get("statusReplicasPath"), json!("")));
        out.text("LabelSelectorPath", plain(scale.get("labelSelectorPath"), Value::Null));
        out.done()
    });
    out.text("Scale", scale.unwrap_or_else(|| "null".into()));
    out.done()
}

fn column(value: &Value) -> String {
    let mut out = Struct::default();
    for (name, key) in [("Name", "name"), ("Type", "type"), ("Format", "format"), ("Description", "description")] {
        out.text(name, plain(value.get(key), json!("")));
    }
    out.text("Priority", plain(value.get("priority"), json!(0)));
    out.text("JSONPath", plain(value.get("jsonPath"), json!("")));
    out.done()
}

fn pointer(value: Option<&Value>) -> String {
    value.filter(|value| value.is_object()).map_or_else(|| "null".into(), schema)
}

fn or_bool(value: Option<&Value>) -> String {
    match value {
        Some(Value::Bool(allows)) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
        Some(value @ Value::Object(_)) => format!("{{\"Allows\":true,\"Schema\":{}}}", schema(value)),
        Some(_) | None => "null".into(),
    }
}

fn rule(value: &Value) -> String {
    let mut out = Struct::default();
    for (name, key) in [("Rule", "rule"), ("Message", "message"), ("MessageExpression", "messageExpression")] {
        out.text(name, plain(value.get(key), json!("")));
    }
    out.text("Reason", plain(value.get("reason"), Value::Null));
    out.text("FieldPath", plain(value.get("fieldPath"), json!("")));
    out.text("OptionalOldSelf", plain(value.get("optionalOldSelf"), Value::Null));
    out.done()
}

/// Members of a schema in the order of Go's struct: its name there, ours, and what it holds.
const MEMBERS: [(&str, &str, Holds); 42] = [
    ("ID", "id", Holds::Text),
    ("Schema", "$schema", Holds::Text),
    ("Ref", "$ref", Holds::Pointer),
    ("Description", "description", Holds::Text),
    ("Type", "type", Holds::Text),
    ("Nullable", "nullable", Holds::Flag),
    ("Format", "format", Holds::Text),
    ("Title", "title", Holds::Text),
    ("Default", "default", Holds::Pointer),
    ("Maximum", "maximum", Holds::Pointer),
    ("ExclusiveMaximum", "exclusiveMaximum", Holds::Flag),
    ("Minimum", "minimum", Holds::Pointer),
    ("ExclusiveMinimum", "exclusiveMinimum", Holds::Flag),
    ("MaxLength", "maxLength", Holds::Pointer),
    ("MinLength", "minLength", Holds::Pointer),
    ("Pattern", "pattern", Holds::Text),
    ("MaxItems", "maxItems", Holds::Pointer),
    ("MinItems", "minItems", Holds::Pointer),
    ("UniqueItems", "uniqueItems", Holds::Flag),
    ("MultipleOf", "multipleOf", Holds::Pointer),
    ("Enum", "enum", Holds::Pointer),
    ("MaxProperties", "maxProperties", Holds::Pointer),
    ("MinProperties", "minProperties", Holds::Pointer),
    ("Required", "required", Holds::Pointer),
    ("Items", "items", Holds::Items),
    ("AllOf", "allOf", Holds::Schemas),
    ("OneOf", "oneOf", Holds::Schemas),
    ("AnyOf", "anyOf", Holds::Schemas),
    ("Not", "not", Holds::Schema),
    ("Properties", "properties", Holds::SchemaMap),
    ("AdditionalProperties", "additionalProperties", Holds::SchemaOrBool),
    ("PatternProperties", "patternProperties", Holds::SchemaMap),
    ("Dependencies", "dependencies", Holds::Pointer),
    ("AdditionalItems", "additionalItems", Holds::SchemaOrBool),
    ("Definitions", "definitions", Holds::SchemaMap),
    ("ExternalDocs", "externalDocs", Holds::Pointer),
    ("Example", "example", Holds::Pointer),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Holds::Pointer),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Holds::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Holds::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Holds::Pointer),
    ("XListType", "x-kubernetes-list-type", Holds::Pointer),
];

#[derive(Clone, Copy)]
enum Holds {
    Text,
    Flag,
    Pointer,
    Items,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrBool,
}

/// A schema as Go prints upstream's internal type.
pub(super) fn schema(value: &Value) -> String {
    let mut out = Struct::default();
    for (name, key, holds) in MEMBERS {
        let member = value.get(key);
        out.text(
            name,
            match holds {
                Holds::Text => plain(member, json!("")),
                Holds::Flag => plain(member, json!(false)),
                Holds::Pointer => plain(member, Value::Null),
                Holds::Items => match member {
                    Some(Value::Object(_)) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", pointer(member)),
                    _ => "null".into(),
                },
                Holds::Schema => pointer(member),
                Holds::Schemas => list(member, schema),
                Holds::SchemaMap => map(member, schema),
                Holds::SchemaOrBool => or_bool(member),
            },
        );
    }
    out.text("XMapType", plain(value.get("x-kubernetes-map-type"), Value::Null));
    out.text("XValidations", list(value.get("x-kubernetes-validations"), rule));
    out.done()
}

/// The first member of a schema's root, by Go's order, that a status subresource has no place for; `Type` where the type is
/// not `object`.
pub(super) fn unfit_with_status(root: &Map<String, Value>) -> Option<&'static str> {
    const ALLOWED: [&str; 18] = [
        "description",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
    ];
    const ALSO: [&str; 3] = ["example", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"];
    let is_zero = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "";
    let others = [("XMapType", "x-kubernetes-map-type"), ("XValidations", "x-kubernetes-validations")];
    for (name, key) in MEMBERS.iter().map(|(name, key, _)| (*name, *key)).chain(others) {
        let Some(value) = root.get(key).filter(|value| !is_zero(value)) else { continue };
        let fits = if key == "type" { value == "object" } else { ALLOWED.contains(&key) || ALSO.contains(&key) };
        if !fits {
            return Some(name);
        }
    }
    None
}
