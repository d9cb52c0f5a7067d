//! The shape of objects: one object (or old and new) against one schema. Knows no users, no other objects, no store.
//!
//! Built-in kinds and custom kinds have the same form here ([`Node`]): the former from k8s-openapi's schemas joined with
//! the facts those lack, the latter from a CustomResourceDefinition's `openAPIV3Schema`.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use regex::Regex;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use crate::base::FieldError;

mod builtin;
mod cel;
mod decode;
mod default;
mod formats;
mod gotypes;
mod prune;
#[cfg(test)]
mod recorded;
mod structural;
mod validate;

pub use self::cel::{Answer, Bindings, Scope, Wanted};

/// How many compiled patterns are kept for later schemas; a definition has some tens of different ones.
const PATTERN_LIMIT: usize = 4096;

/// How many compiled schemas of definitions are kept; beyond, all are forgotten and compiled anew.
const COMPILED_LIMIT: usize = 32;

/// Compiled schemas of definitions, by the SHA-256 of their text.
static COMPILED: LazyLock<Mutex<BTreeMap<Vec<u8>, Arc<Schema>>>> = LazyLock::new(Mutex::default);

/// The schema of one kind in one version.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The object itself. Children are shared between schemas.
    pub root: Arc<Node>,
    /// Whether this is a built-in kind: decoded strictly by type, as Go structs are, where custom kinds are validated.
    pub builtin: bool,
}

/// JSON types as OpenAPI names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A map.
    Object,
    /// A list.
    Array,
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// How a list is merged and owned: `x-kubernetes-list-type` and its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// By value, each once.
    Set,
    /// By the values of these keys.
    Map(Vec<String>),
}

/// One value of an object.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its type; `None` for any.
    pub kind: Option<Type>,
    /// `format`, `""` if none.
    pub format: String,
    /// Known members of an object.
    pub properties: BTreeMap<String, Arc<Node>>,
    /// What any other member of an object is (`additionalProperties`).
    pub additional: Option<Arc<Node>>,
    /// What the items of a list are.
    pub items: Option<Arc<Node>>,
    /// Members that must be there.
    pub required: Vec<String>,
    /// What is filled in where the value is absent.
    pub default: Option<Value>,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// Whether integers and texts are both allowed.
    pub int_or_string: bool,
    /// Whether unknown members are kept.
    pub preserve_unknown: bool,
    /// Whether this is a whole object with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// How a list is merged and owned.
    pub list_type: ListType,
    /// Whether a map or object is owned as a whole (`x-kubernetes-map-type: atomic`).
    pub map_atomic: bool,
    /// `x-kubernetes-patch-merge-key` of a built-in list.
    pub merge_key: Option<String>,
    /// Whether strategic merge patch merges this list (`x-kubernetes-patch-strategy` has `merge`).
    pub patch_merge: bool,
    /// Whether the strategy has `retainKeys`.
    pub retain_keys: bool,
    /// Name of the built-in definition (`io.k8s.api.core.v1.PodSpec`), `""` for others.
    pub definition: String,
    /// Help text.
    pub description: String,
    /// Members of a built-in struct that show even when absent, with their zero values.
    pub always: Vec<(String, Value)>,
    /// Members of a built-in struct that show even when empty.
    pub keep_empty: Vec<String>,
    /// Bounds on the value; `None` where there are none.
    pub checks: Option<Box<Checks>>,
    /// CEL rules on the value.
    pub rules: Vec<Arc<cel::Rule>>,
    /// What the subtree holds, so that whole subtrees can be passed over.
    pub has: Has,
}

/// What a subtree of a schema holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Has {
    /// A default.
    pub defaults: bool,
    /// A CEL rule.
    pub rules: bool,
    /// A list of sets or maps, whose items have to differ.
    pub lists: bool,
    /// A whole object with metadata.
    pub embedded: bool,
}

/// Bounds on a value: what `openAPIV3Schema` has beside types.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// The allowed values.
    pub allowed: Vec<Value>,
    /// `minimum`.
    pub minimum: Option<f64>,
    /// Whether the minimum itself is too low.
    pub exclusive_minimum: bool,
    /// `maximum`.
    pub maximum: Option<f64>,
    /// Whether the maximum itself is too high.
    pub exclusive_maximum: bool,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `minLength`, in characters.
    pub min_length: Option<i64>,
    /// `maxLength`, in characters.
    pub max_length: Option<i64>,
    /// `pattern` as written, and compiled.
    pub pattern: Option<(String, Regex)>,
    /// `minItems`.
    pub min_items: Option<i64>,
    /// `maxItems`.
    pub max_items: Option<i64>,
    /// `uniqueItems`.
    pub unique_items: bool,
    /// `minProperties`.
    pub min_properties: Option<i64>,
    /// `maxProperties`.
    pub max_properties: Option<i64>,
    /// `allOf`.
    pub all_of: Vec<Arc<Node>>,
    /// `anyOf`.
    pub any_of: Vec<Arc<Node>>,
    /// `oneOf`.
    pub one_of: Vec<Arc<Node>>,
    /// `not`.
    pub not: Option<Arc<Node>>,
}

impl Type {
    /// As OpenAPI writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// The type of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Object, Self::Array, Self::String, Self::Integer, Self::Number, Self::Boolean]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What decoding a body gave.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The value with unknown members dropped.
    pub value: Value,
    /// Unknown members, by path (`spec.containers[0].imagee`).
    pub unknown: Vec<String>,
}

impl Schema {
    /// The schema of a built-in definition (`io.k8s.api.core.v1.Pod`), compiled once per process.
    ///
    /// # Panics
    /// If there is no such definition.
    pub fn builtin(definition: &str) -> Arc<Self> {
        builtin::schema(definition)
    }

    /// The built-in definition of a kind, `None` if the kind is not built in.
    pub fn definition_of(api_version: &str, kind: &str) -> Option<&'static str> {
        builtin::definition_of(api_version, kind)
    }

    /// The schema in a CustomResourceDefinition version's `openAPIV3Schema`.
    ///
    /// # Errors
    /// What makes it not structural, with field paths that start at `path`.
    pub fn structural(openapi: &Value, path: &str) -> Result<Arc<Self>, Vec<FieldError>> {
        Self::compiled(&openapi.to_string(), || structural::compile(openapi, path))
    }

    /// As [`Schema::structural`], from the schema's JSON text.
    ///
    /// # Errors
    /// What makes it not structural.
    pub fn structural_text(openapi: &str) -> Result<Arc<Self>, Vec<FieldError>> {
        Self::compiled(openapi, || {
            let openapi = serde_json::from_str(openapi).unwrap_or_default();
            structural::compile(&openapi, "")
        })
    }

    /// A definition is compiled when it is judged and when it is served, and a test's process starts many clusters with
    /// the same definitions.
    fn compiled(
        text: &str,
        compile: impl FnOnce() -> Result<Self, Vec<FieldError>>,
    ) -> Result<Arc<Self>, Vec<FieldError>> {
        let digest = digest(&SHA256, text.as_bytes()).as_ref().to_owned();
        let mut compiled = COMPILED.lock().expect("no panic under this lock");
        if let Some(schema) = compiled.get(&digest) {
            return Ok(schema.clone());
        }
        let schema = Arc::new(compile()?);
        if compiled.len() >= COMPILED_LIMIT {
            compiled.clear();
        }
        compiled.insert(digest, schema.clone());
        Ok(schema)
    }

    /// Decodes a body as the built-in kind's Go type would.
    ///
    /// # Errors
    /// A text such as `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
    pub fn decode(&self, value: Value) -> Result<Decoded, String> {
        decode::decode(&self.root, value)
    }

    /// Drops members that the schema does not know, unless told to preserve them; gives their paths.
    pub fn prune(&self, value: &mut Value) -> Vec<String> {
        prune::prune(&self.root, value)
    }

    /// What is wrong with the metadata of a custom object, or of one embedded in it.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn check_metadata(&self, value: &Value) -> Result<(), String> {
        match prune::wrong_metadata(&self.root, value) {
            None => Ok(()),
            Some((path, _, why)) if path == "metadata" => Err(why),
            Some((path, metadata, why)) => Err(format!("{path}: Invalid value: {metadata}: {why}")),
        }
    }

    /// Drops nulls that are no values, and fills in defaults.
    pub fn default(&self, value: &mut Value) {
        default::default(&self.root, value, true);
    }

    /// Fills in defaults, and keeps nulls for validation to judge.
    pub fn fill_defaults(&self, value: &mut Value) {
        default::default(&self.root, value, false);
    }

    /// Checks types, formats, bounds, list and map keys, enums, and CEL rules; with the old value, what did not change is
    /// not checked again.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::validate(self, new, old, &[], Vec::new())
    }

    /// As [`Schema::validate`], with what else is wrong with the object: what was found `before` is not told again, `more`
    /// stands before what lists and CEL rules say.
    pub fn validate_with(
        &self,
        new: &Value,
        old: Option<&Value>,
        before: &[FieldError],
        more: Vec<FieldError>,
    ) -> Vec<FieldError> {
        validate::validate(self, new, old, before, more)
    }
}

/// A path as an error names it, and the schema found there.
pub type Place<'a> = (String, Option<&'a Map<String, Value>>);

/// Where a path such as `.a.b['c.d']` leads in an OpenAPI schema, and how an error names that place.
///
/// # Errors
/// Upstream's words for what is wrong with it.
pub fn field_path<'a>(source: &'a Map<String, Value>, path: &str, brackets: bool) -> Result<Place<'a>, String> {
    structural::field_path(source, path, brackets)
}

/// Adds the formats of an OpenAPI schema that nothing checks, in the order of upstream's walk.
pub fn unknown_formats(openapi: &Value, out: &mut Vec<String>) {
    structural::unknown_formats(openapi, out);
}

/// Name of the built-in definition of a kind (`io.k8s.api.core.v1.Pod`).
pub fn definition_of(_group: &str, _version: &str, _kind: &str) -> String {
    String::new()
}
