//! What server-side apply does with values: merging a configuration into an object, removing fields from one, and checking
//! that a value fits its schema.
//!
//! Upstream: `structured-merge-diff/typed` (`merge.go`, `remove.go`, `validate.go`, `reconcile_schema.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    set::{Element, Set},
    typed::{Atom, ScalarType, Ty, item_element},
};
use crate::{base::status::go_quote, schema::ListType};

/// Merges a configuration into a value: what the configuration names is as it says, all else stays.
///
/// # Errors
/// A list whose items cannot be told apart.
pub(super) fn merge(ty: Ty<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, String> {
    match ty.atom(config.or(live)) {
        Atom::Scalar(_) | Atom::Invalid => Ok(config.or(live).cloned()),
        Atom::Map { atomic, ty } => {
            let (left, right) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if atomic || (left.is_none_or(Map::is_empty) && right.is_none_or(Map::is_empty)) {
                return Ok(config.or(live).cloned());
            }
            let mut merged = Map::new();
            let keys = left.into_iter().flat_map(Map::keys).chain(right.into_iter().flat_map(Map::keys));
            for key in keys {
                if merged.contains_key(key) {
                    continue;
                }
                let (live, config) = (left.and_then(|map| map.get(key)), right.and_then(|map| map.get(key)));
                if let Some(value) = merge(ty.member(key).0, live, config)? {
                    merged.insert(key.clone(), value);
                }
            }
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
        Atom::List { list_type, items } => {
            let left = live.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let right = config.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if *list_type == ListType::Atomic || (left.is_empty() && right.is_empty()) {
                return Ok(config.or(live).cloned());
            }
            let merged = merge_lists(list_type, items, left, right)?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
    }
}

fn elements(list_type: &ListType, items: Ty<'_>, list: &[Value]) -> Result<Vec<Element>, String> {
    let element =
        |(index, item)| item_element(list_type, items, item).map_err(|problem| format!("element {index}: {problem}"));
    list.iter().enumerate().map(element).collect()
}

/// Merges lists whose items have names. The order is the configuration's for the items it names; the others stay after
/// the same neighbours as far as that goes.
fn merge_lists(list_type: &ListType, items: Ty<'_>, live: &[Value], config: &[Value]) -> Result<Vec<Value>, String> {
    let (left, right) = (elements(list_type, items, live)?, elements(list_type, items, config)?);
    let mut live_items: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in left.iter().zip(live) {
        // Of items with one name none is merged with the configuration's.
        live_items.entry(element).and_modify(|item| *item = &Value::Null).or_insert(item);
    }
    let mut config_items: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (element, item) in right.iter().zip(config) {
        if config_items.insert(element, item).is_some() {
            return Err(format!("duplicate entries for key {element}"));
        }
    }
    let mut shared: VecDeque<_> = right.iter().filter(|element| live_items.contains_key(element)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let (mut at_left, mut at_right) = (0, 0);
    while at_left < left.len() || at_right < right.len() {
        if let (Some(ours), Some(theirs)) = (left.get(at_left), right.get(at_right)) {
            if ours == theirs {
                done.insert(ours);
                let pair = (live_items.get(ours).copied(), config_items.get(theirs).copied());
                merged.extend(merge(items, pair.0, pair.1)?);
                (at_left, at_right) = (at_left + 1, at_right + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if config_items.contains_key(ours) && next_shared.is_some_and(|next| next != ours) {
                at_left += 1; // both have it, but it is not its turn
                continue;
            }
        }
        if let Some(ours) = left.get(at_left) {
            if !config_items.contains_key(ours) {
                merged.extend(merge(items, Some(&live[at_left]), None)?);
                at_left += 1;
                continue;
            }
            if done.contains(ours) {
                at_left += 1;
            }
        }
        if let Some(theirs) = right.get(at_right) {
            done.insert(theirs);
            merged.extend(merge(items, live_items.get(theirs).copied(), config_items.get(theirs).copied())?);
            at_right += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.pop_front();
            }
        }
    }
    Ok(merged)
}

/// The value without some of its fields; null where nothing is left.
pub(super) fn remove(ty: Ty<'_>, value: &Value, fields: &Set) -> Value {
    match ty.atom(Some(value)) {
        Atom::Scalar(_) | Atom::Invalid => value.clone(),
        Atom::Map { atomic, ty } => {
            let Some(map) = value.as_object().filter(|map| !map.is_empty() && !atomic) else { return Value::Null };
            let mut left = Map::new();
            for (key, value) in map {
                let element = Element::field(key);
                if fields.has(&element) {
                    continue;
                }
                let value = match fields.below(&element) {
                    Some(fields) => remove(ty.member(key).0, value, fields),
                    None => value.clone(),
                };
                left.insert(key.clone(), value);
            }
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        Atom::List { list_type, items } => {
            let Some(list) = value.as_array().filter(|_| *list_type != ListType::Atomic) else { return Value::Null };
            let mut left = Vec::with_capacity(list.len());
            for item in list {
                let Ok(element) = item_element(list_type, items, item) else { continue };
                if fields.has(&element) {
                    continue;
                }
                left.push(match fields.below(&element) {
                    Some(fields) => remove(items, item, fields),
                    None => item.clone(),
                });
            }
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
    }
}

/// The set with the members that the schema names and that have something of the set below them.
pub(super) fn with_named_parents(ty: Ty<'_>, set: &Set) -> Set {
    let mut out = Set::default();
    for (element, is_member, below) in set.iter() {
        let (child, is_named) = match element {
            Element::Field(name) => ty.as_map().map_or((Ty::Undeclared, false), |ty| ty.member(name)),
            Element::Key(_) => (ty.list_items().unwrap_or(Ty::Undeclared), false),
            Element::Value(_) | Element::Index(_) => (Ty::Undeclared, false),
        };
        let is_member = is_member || (is_named && !below.is_empty());
        out.add(element.clone(), is_member, with_named_parents(child, below));
    }
    out
}

/// The set as the schema would have it now, where a list or map has become atomic since the set was written: who owned
/// something in it owns it as a whole.
pub(super) fn reconcile(ty: Ty<'_>, set: &Set) -> Option<Set> {
    let mut whole = Vec::new();
    find_newly_atomic(ty, set, false, &mut Vec::new(), &mut whole);
    if whole.is_empty() {
        return None;
    }
    let paths: Vec<_> = whole.iter().map(Vec::as_slice).collect();
    let whole = Set::of(&paths);
    Some(set.recursive_difference(&whole).union(&whole))
}

fn find_newly_atomic(ty: Ty<'_>, below: &Set, is_leaf: bool, path: &mut Vec<Element>, whole: &mut Vec<Vec<Element>>) {
    let child = |element: &Element| match ty.atom(None) {
        Atom::Map { ty, .. } => match element {
            Element::Field(name) => Some(ty.member(name).0),
            Element::Key(_) | Element::Value(_) | Element::Index(_) => None,
        },
        Atom::List { items, .. } => Some(items),
        Atom::Scalar(_) | Atom::Invalid => None,
    };
    match ty.atom(None) {
        Atom::Map { ty, .. } if ty.is_untyped_map() => return,
        Atom::Map { atomic: true, .. } => {
            if !is_leaf && !below.is_empty() && !path.is_empty() {
                whole.push(path.clone());
            }
            return;
        }
        Atom::List { list_type: ListType::Atomic, .. } => {
            if !is_leaf && !path.is_empty() {
                whole.push(path.clone());
            }
            return;
        }
        Atom::Scalar(_) | Atom::Invalid => return,
        Atom::Map { .. } | Atom::List { .. } => {}
    }
    for (element, is_member, below) in below.iter() {
        if let Some(ty) = child(element)
            && !matches!(ty, Ty::Undeclared)
        {
            path.push(element.clone());
            find_newly_atomic(ty, below, is_member && below.is_empty(), path, whole);
            path.pop();
        }
    }
}

/// What is wrong with a value, as upstream's typed values say it.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(String, String)>);

impl Problems {
    /// The text of all of them; `None` where there is none.
    pub(super) fn text(&self) -> Option<String> {
        let show = |(path, problem): &(String, String)| {
            if path.is_empty() { problem.clone() } else { format!("{path}: {problem}") }
        };
        match &self.0[..] {
            [] => None,
            [only] => Some(show(only)),
            all => {
                let lines: Vec<_> = all.iter().map(|problem| format!("  {}", show(problem))).collect();
                Some(format!("errors:\n{}", lines.join("\n")))
            }
        }
    }
}

/// Checks that a value fits its type and that no two items of a list have one name.
pub(super) fn check(ty: Ty<'_>, value: &Value) -> Problems {
    let mut problems = Problems::default();
    check_value(ty, value, &mut String::new(), &mut problems.0);
    problems
}

fn check_value(ty: Ty<'_>, value: &Value, path: &mut String, problems: &mut Vec<(String, String)>) {
    if value.is_null() {
        return;
    }
    let mut complain = |problem: String| problems.push((path.clone(), problem));
    match ty.atom(Some(value)) {
        Atom::Invalid => complain("schema error: invalid atom: inlined".into()),
        Atom::Scalar(scalar) => match (scalar, value) {
            (ScalarType::Numeric, Value::Number(_))
            | (ScalarType::String, Value::String(_))
            | (ScalarType::Boolean, Value::Bool(_))
            | (ScalarType::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
            (ScalarType::Numeric, _) => {
                complain(format!("expected numeric (int or float), got {}", go_type(value)));
            }
            (ScalarType::String, _) => {
                complain(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
            }
            (ScalarType::Boolean, _) => complain(format!("expected boolean, got &{{{}}}", go_text(value))),
            (ScalarType::Untyped, _) => complain(format!("expected any scalar, got &{{{}}}", go_text(value))),
        },
        Atom::Map { ty, .. } => {
            let Some(map) = value.as_object() else {
                return complain(format!("expected map, got &{{{}}}", go_text(value)));
            };
            for (key, value) in map {
                let length = path.len();
                path.push('.');
                path.push_str(key);
                let (child, _) = ty.member(key);
                let is_unknown = matches!(child, Ty::Undeclared);
                if is_unknown {
                    problems.push((path.clone(), "field not declared in schema".into()));
                } else {
                    check_value(child, value, path, problems);
                }
                path.truncate(length);
                if is_unknown {
                    return; // upstream looks no further in this map
                }
            }
        }
        Atom::List { list_type, items } => {
            let Some(list) = value.as_array() else {
                return complain(format!("expected list, got &{{{}}}", go_text(value)));
            };
            let mut seen = BTreeSet::new();
            for (index, item) in list.iter().enumerate() {
                let element = if *list_type == ListType::Atomic {
                    Element::Index(i64::try_from(index).unwrap_or(i64::MAX))
                } else {
                    match item_element(list_type, items, item) {
                        Ok(element) => element,
                        Err(problem) => {
                            problems.push((path.clone(), format!("element {index}: {problem}")));
                            return;
                        }
                    }
                };
                let name = element.to_string();
                if !seen.insert(element) {
                    problems.push((path.clone(), format!("duplicate entries for key {name}")));
                }
                let length = path.len();
                path.push_str(&name);
                check_value(items, item, path, problems);
                path.truncate(length);
            }
        }
    }
}

/// A value's Go type (`%T`).
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => go_quote(text),
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let members: Vec<_> =
                map.iter().map(|(key, value)| format!("{}:{}", go_quote(key), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
    }
}

/// A value as Go's `%v` prints it.
pub(super) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}
