//! Values seen through a schema: what each part of them is, how two differ, and which fields one has.
//!
//! Upstream: `structured-merge-diff/typed` (`compare.go`, `tofieldset.go`, `helpers.go`), and for the form that schemas
//! take there `kube-openapi/pkg/schemaconv/openapi.go`.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::set::{Element, Scalar, Set, compare_values};
use crate::schema::{ListType, Node, Schema, Type};

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ty<'a> {
    /// Nothing is known: maps are owned by member, lists as a whole.
    Deduced,
    /// A text, where the schema need not say so (`apiVersion` of a custom object).
    Text,
    /// As the node says; `true` where unknown members are kept because a node above says so.
    Node(&'a Node, bool),
    /// A whole object.
    Root(&'a Schema),
    /// The metadata of a whole object.
    Meta(&'a Node),
    /// No type at all: a member that the schema does not declare.
    Undeclared,
}

/// Which texts and numbers a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarType {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// A type, narrowed to the form of one value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Atom<'a> {
    Scalar(ScalarType),
    List { list_type: &'a ListType, items: Ty<'a> },
    Map { atomic: bool, ty: Ty<'a> },
    Invalid,
}

impl Atom<'_> {
    fn same_form(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

static ATOMIC: ListType = ListType::Atomic;

/// Built-in definitions whose `protocol` has a default in the schema, which names their items.
const PORTS: &[&str] = &["io.k8s.api.core.v1.ContainerPort", "io.k8s.api.core.v1.ServicePort"];

/// `ObjectMeta`, which no schema of a custom kind describes.
fn object_meta() -> &'static Schema {
    static META: OnceLock<Arc<Schema>> = OnceLock::new();
    META.get_or_init(|| Schema::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"))
}

impl<'a> Ty<'a> {
    /// What the value is; where the type allows several forms, the value decides, and a map stands for null.
    pub(super) fn atom(self, value: Option<&Value>) -> Atom<'a> {
        match self {
            Self::Deduced => Self::by_value(value, Atom::List { list_type: &ATOMIC, items: Self::Deduced }, self),
            Self::Text => Atom::Scalar(ScalarType::String),
            Self::Undeclared => Atom::Invalid,
            Self::Root(_) => Atom::Map { atomic: false, ty: self },
            Self::Meta(node) | Self::Node(node, _) => {
                let list = Atom::List { list_type: &node.list_type, items: self.items() };
                if node.int_or_string {
                    return Self::by_value(value, list, self);
                }
                match node.kind {
                    None => Self::by_value(value, list, self),
                    Some(Type::Object) => Atom::Map { atomic: node.map_atomic, ty: self },
                    Some(Type::Array) => list,
                    Some(Type::Integer | Type::Number) => Atom::Scalar(ScalarType::Numeric),
                    Some(Type::Boolean) => Atom::Scalar(ScalarType::Boolean),
                    Some(Type::String) => match node.format.as_str() {
                        "" | "byte" if !node.definition.ends_with(".Quantity") => Atom::Scalar(ScalarType::String),
                        _ => Atom::Scalar(ScalarType::Untyped),
                    },
                }
            }
        }
    }

    fn by_value(value: Option<&Value>, list: Atom<'a>, ty: Self) -> Atom<'a> {
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Atom::Scalar(ScalarType::Untyped),
            Some(Value::Array(_)) => list,
            None | Some(Value::Null | Value::Object(_)) => {
                let atomic = matches!(ty, Self::Node(node, _) if node.map_atomic);
                Atom::Map { atomic, ty }
            }
        }
    }

    fn items(self) -> Self {
        match self {
            Self::Node(node, keeps) => {
                let keeps = keeps || node.preserve_unknown;
                node.items.as_deref().map_or(Self::Deduced, |items| Self::Node(items, keeps))
            }
            Self::Deduced | Self::Text | Self::Root(_) | Self::Meta(_) | Self::Undeclared => Self::Deduced,
        }
    }

    /// The type, if it allows a map.
    pub(super) fn as_map(self) -> Option<Self> {
        match self.atom(None) {
            Atom::Map { ty, .. } => Some(ty),
            Atom::Scalar(_) | Atom::List { .. } | Atom::Invalid => None,
        }
    }

    /// The type of the items, if it allows a list.
    pub(super) fn list_items(self) -> Option<Self> {
        match self.atom(Some(&Value::Array(Vec::new()))) {
            Atom::List { items, .. } => Some(items),
            Atom::Scalar(_) | Atom::Map { .. } | Atom::Invalid => None,
        }
    }

    /// The type of a member of a map of this type, and whether the member is one the type names.
    pub(super) fn member(self, key: &str) -> (Self, bool) {
        match self {
            Self::Deduced => (Self::Deduced, false),
            Self::Text | Self::Undeclared => (Self::Undeclared, false),
            Self::Root(schema) if schema.builtin => match key {
                "metadata" => match schema.root.properties.get(key) {
                    Some(node) => (Self::Meta(node), true),
                    None => Self::Node(&schema.root, false).member(key),
                },
                _ => Self::Node(&schema.root, false).member(key),
            },
            Self::Root(schema) => match key {
                "apiVersion" | "kind" => (Self::Text, true),
                "metadata" => (Self::Meta(&object_meta().root), true),
                _ => Self::Node(&schema.root, false).member(key),
            },
            Self::Meta(node) => Self::Node(node, false).member(key),
            Self::Node(node, keeps) => {
                if node.embedded {
                    match key {
                        "apiVersion" | "kind" => return (Self::Text, true),
                        "metadata" => return (Self::Node(&object_meta().root, false), true),
                        _ => {}
                    }
                }
                let keeps = keeps || node.preserve_unknown;
                if let Some(child) = node.properties.get(key) {
                    return (Self::Node(child, keeps), true);
                }
                let ty = match &node.additional {
                    Some(child) => Self::Node(child, keeps),
                    None if keeps || node.properties.is_empty() => Self::Deduced,
                    None => Self::Undeclared,
                };
                (ty, false)
            }
        }
    }

    /// Whether nothing but "any member" is said of the map, so that its ownership is never rewritten.
    pub(super) fn is_untyped_map(self) -> bool {
        match self {
            Self::Deduced => true,
            Self::Node(node, _) => node.properties.is_empty() && node.additional.is_none(),
            Self::Text | Self::Root(_) | Self::Meta(_) | Self::Undeclared => false,
        }
    }

    /// Members that the Go type has even where the JSON text has not: structs by value, and what has no `omitempty`.
    fn always(self) -> &'a [(String, Value)] {
        match self {
            Self::Root(schema) => &schema.root.always,
            Self::Node(node, _) => &node.always,
            Self::Deduced | Self::Text | Self::Meta(_) | Self::Undeclared => &[],
        }
    }

    /// What a key of a list's item is where the item has it not.
    fn key_default(self, key: &str) -> Option<Value> {
        let Self::Node(item, _) = self else { return None };
        if let Some(default) = item.properties.get(key).and_then(|node| node.default.as_ref()) {
            return Some(default.clone());
        }
        if key == "protocol" && PORTS.contains(&item.definition.as_str()) {
            return Some("TCP".into());
        }
        // Upstream's schemas have a zero value as default of each scalar without `omitempty`.
        let (_, zero) = item.always.iter().find(|(name, _)| name == key)?;
        (zero.is_string() || zero.is_number() || zero.is_boolean()).then(|| zero.clone())
    }

    /// Members that are no part of a comparison: nobody owns them.
    fn unowned(self) -> &'static [&'static str] {
        match self {
            Self::Root(_) => &["apiVersion", "kind"],
            Self::Meta(_) => &[
                "creationTimestamp",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            ],
            Self::Deduced | Self::Text | Self::Node(..) | Self::Undeclared => &[],
        }
    }
}

/// Whether two values are equal as upstream sees it: numbers by value.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    a == b || compare_values(a, b).is_eq()
}

/// The element that names an item of a list.
///
/// # Errors
/// Upstream's text where the item cannot be told from others.
pub(super) fn item_element(list_type: &ListType, items: Ty<'_>, item: &Value) -> Result<Element, String> {
    match list_type {
        ListType::Atomic => Err("invalid indexing of non-associative list".into()),
        ListType::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Element::Value(Scalar(item.clone()))),
        },
        ListType::Map(keys) => {
            let map = match item {
                Value::Object(map) => map,
                Value::Null => return Err("associative list with keys may not have a null element".into()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    return Err("associative list with keys may not have non-map elements".into());
                }
            };
            let mut members = Vec::with_capacity(keys.len());
            for key in keys {
                if let Some(value) = map.get(key) {
                    members.push((key.clone(), Scalar(value.clone())));
                } else if let Some(default) = items.key_default(key) {
                    members.push((key.clone(), Scalar(default)));
                }
            }
            if members.is_empty() && !keys.is_empty() {
                let keys: Vec<_> = keys.iter().map(|key| crate::base::status::go_quote(key)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                     values for any key fields)",
                    keys.join(" ")
                ));
            }
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Element::Key(members))
        }
    }
}

/// How one object differs from another.
#[derive(Clone, Debug, Default)]
pub(super) struct Diff {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

/// Whether a value itself, rather than something in it, was added, modified or removed.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    added: bool,
    modified: bool,
    removed: bool,
}

impl Mark {
    fn or(self, other: Self) -> Self {
        Self {
            added: self.added || other.added,
            modified: self.modified || other.modified,
            removed: self.removed || other.removed,
        }
    }
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Leaves out some fields with all that is below them.
    pub(super) fn without(mut self, fields: &Set) -> Self {
        self.added.subtract_recursively(fields);
        self.modified.subtract_recursively(fields);
        self.removed.subtract_recursively(fields);
        self
    }

    fn put(&mut self, element: impl Fn() -> Element, mark: Mark, below: Self) {
        let Self { added, modified, removed } = below;
        for (set, is_member, children) in [
            (&mut self.added, mark.added, added),
            (&mut self.modified, mark.modified, modified),
            (&mut self.removed, mark.removed, removed),
        ] {
            if is_member || !children.is_empty() {
                set.add(element(), is_member, children);
            }
        }
    }
}

/// How one object differs from another.
///
/// # Errors
/// A list whose items cannot be told apart.
pub(super) fn compare_objects(ty: Ty<'_>, old: &Map<String, Value>, new: &Map<String, Value>) -> Result<Diff, String> {
    let mut diff = Diff::default();
    compare_maps(ty, Some(old), Some(new), &mut diff)?;
    Ok(diff)
}

fn compare_values_of(ty: Ty<'_>, old: Option<&Value>, new: Option<&Value>, diff: &mut Diff) -> Result<Mark, String> {
    let (mark, is_leaf) = match (old, new) {
        (None, None) => return Ok(Mark::default()),
        (Some(_), None) => compare_as(ty.atom(old), old, new, diff)?,
        (None, Some(_)) => compare_as(ty.atom(new), old, new, diff)?,
        (Some(_), Some(_)) => {
            let (before, after) = (ty.atom(old), ty.atom(new));
            if before.same_form(&after) {
                compare_as(after, old, new, diff)?
            } else {
                let (first, _) = compare_as(before, old, new, diff)?;
                let (second, is_leaf) = compare_as(after, old, new, diff)?;
                (first.or(second), is_leaf)
            }
        }
    };
    if is_leaf {
        return Ok(mark);
    }
    Ok(Mark { added: mark.added || old.is_none(), removed: mark.removed || new.is_none(), ..mark })
}

fn compare_leaf(old: Option<&Value>, new: Option<&Value>) -> (Mark, bool) {
    let modified = matches!((old, new), (Some(old), Some(new)) if !equal(old, new));
    (Mark { added: old.is_none(), modified, removed: old.is_some() && new.is_none() }, true)
}

fn compare_as(
    atom: Atom<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    diff: &mut Diff,
) -> Result<(Mark, bool), String> {
    match atom {
        Atom::Scalar(_) | Atom::Invalid => Ok(compare_leaf(old, new)),
        Atom::Map { atomic, ty } => {
            let old_map = old.and_then(Value::as_object);
            let new_map = new.and_then(Value::as_object);
            if atomic || (old_map.is_none_or(Map::is_empty) && new_map.is_none_or(Map::is_empty)) {
                return Ok(compare_leaf(old, new));
            }
            compare_maps(ty, old_map, new_map, diff)?;
            Ok((Mark::default(), false))
        }
        Atom::List { list_type, items } => {
            let old_list = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let new_list = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if *list_type == ListType::Atomic || (old_list.is_empty() && new_list.is_empty()) {
                return Ok(compare_leaf(old, new));
            }
            compare_lists(list_type, items, old_list, new_list, diff)?;
            Ok((Mark::default(), false))
        }
    }
}

fn compare_maps(
    ty: Ty<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    diff: &mut Diff,
) -> Result<(), String> {
    let (always, unowned) = (ty.always(), ty.unowned());
    let implied = |side: Option<&Map<String, Value>>, key: &str| {
        side.and_then(|_| always.iter().find(|(name, _)| name == key)).map(|(_, value)| value)
    };
    let mut visit = |key: &str, old: Option<&Value>, new: Option<&Value>| {
        let mut below = Diff::default();
        let mark = compare_values_of(ty.member(key).0, old, new, &mut below)?;
        diff.put(|| Element::field(key), mark, below);
        Ok::<_, String>(())
    };
    for (key, value) in old.into_iter().flatten() {
        if !unowned.contains(&key.as_str()) {
            visit(key, Some(value), new.and_then(|new| new.get(key)).or_else(|| implied(new, key)))?;
        }
    }
    for (key, value) in new.into_iter().flatten() {
        if !old.is_some_and(|old| old.contains_key(key)) && !unowned.contains(&key.as_str()) {
            visit(key, implied(old, key), Some(value))?;
        }
    }
    Ok(())
}

/// Items by element, in the order of the first of each.
type Grouped<'a> = Vec<(Element, Vec<&'a Value>)>;

fn group<'a>(list_type: &ListType, items: Ty<'_>, list: &'a [Value]) -> Result<Grouped<'a>, String> {
    let mut groups: Grouped<'a> = Vec::with_capacity(list.len());
    let mut places = std::collections::BTreeMap::new();
    for (index, item) in list.iter().enumerate() {
        let element = item_element(list_type, items, item).map_err(|problem| format!("element {index}: {problem}"))?;
        let at = *places.entry(element.clone()).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, group)) => group.push(item),
            None => groups.push((element, vec![item])),
        }
    }
    Ok(groups)
}

fn compare_lists(
    list_type: &ListType,
    items: Ty<'_>,
    old: &[Value],
    new: &[Value],
    diff: &mut Diff,
) -> Result<(), String> {
    let mut old: std::collections::BTreeMap<_, _> = group(list_type, items, old)?.into_iter().collect();
    let new = group(list_type, items, new)?;
    let pairs: Vec<_> = new.into_iter().map(|(element, after)| (old.remove(&element), element, after)).collect();
    for (element, before) in old {
        compare_items(items, element, &before, &[], diff)?;
    }
    for (before, element, after) in pairs {
        compare_items(items, element, &before.unwrap_or_default(), &after, diff)?;
    }
    Ok(())
}

/// Compares the items with one name; where there are several, they are owned together.
fn compare_items(
    items: Ty<'_>,
    element: Element,
    before: &[&Value],
    after: &[&Value],
    diff: &mut Diff,
) -> Result<(), String> {
    let mut below = Diff::default();
    let mark = match (before, after) {
        ([] | [_], [] | [_]) => compare_values_of(items, before.first().copied(), after.first().copied(), &mut below)?,
        ([_, _, ..], [_, _, ..]) => {
            let same = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| equal(a, b));
            Mark { modified: !same, ..Mark::default() }
        }
        ([_, _, ..], after) => {
            let mark = compare_values_of(items, None, after.first().copied(), &mut below)?;
            Mark { removed: true, ..mark }
        }
        (before, [_, _, ..]) => {
            let mark = compare_values_of(items, before.first().copied(), None, &mut below)?;
            Mark { added: true, ..mark }
        }
    };
    diff.put(|| element.clone(), mark, below);
    Ok(())
}

/// All fields that a value has.
///
/// # Errors
/// A list whose items cannot be told apart.
pub(super) fn fields_of(ty: Ty<'_>, value: &Value) -> Result<Set, String> {
    let mut set = Set::default();
    collect_fields(ty, value, &mut set)?;
    Ok(set)
}

/// Adds what is in the value; says whether the value itself is a leaf.
fn collect_fields(ty: Ty<'_>, value: &Value, set: &mut Set) -> Result<bool, String> {
    match ty.atom(Some(value)) {
        Atom::Scalar(_) | Atom::Map { atomic: true, .. } | Atom::List { list_type: ListType::Atomic, .. } => Ok(true),
        Atom::Invalid => Ok(true),
        Atom::Map { ty, .. } => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let (child, is_named) = ty.member(key);
                let mut below = Set::default();
                let is_leaf = collect_fields(child, value, &mut below)?;
                let is_hollow = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.add(Element::field(key), is_leaf || is_hollow || !is_named, below);
            }
            Ok(false)
        }
        Atom::List { list_type, items } => {
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            for (element, group) in group(list_type, items, list)? {
                let mut below = Set::default();
                if let [item] = group[..] {
                    collect_fields(items, item, &mut below)?;
                }
                set.add(element, true, below);
            }
            Ok(false)
        }
    }
}
