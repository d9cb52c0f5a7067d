//! Strategic merge patch: a merge patch that knows which lists of a built-in kind merge by a key, and has directives.
//!
//! Upstream: `apimachinery/pkg/util/strategicpatch/patch.go`. What Go leaves to the order of a map (which directive of a
//! patch comes first) goes by name here.

use serde_json::{Map, Value};

use super::merge::{self, go_text};
use crate::{
    base::{
        Status,
        status::{go_quote, json_kind},
    },
    schema::{Node, Schema},
};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Members = Map<String, Value>;

/// Applies a strategic merge patch to a built-in object.
///
/// # Errors
/// 400 for a patch that is no map or a directive of the wrong form, 422 for lists of lists, 500 (as upstream) for list
/// items without their key and directives that mean nothing.
pub fn strategic(target: &Value, patch: &Value, schema: &Schema) -> Result<Value, Status> {
    let patch = match patch {
        Value::Object(patch) => patch.clone(),
        Value::Null => Members::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let kind = json_kind(patch);
            let message = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
            return Err(Status::bad_request(message));
        }
    };
    let target = target.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_maps(target, patch, Some(&schema.root))?))
}

fn bad_order() -> Status {
    Status::bad_request("invalid patch format of setElementOrder list")
}

fn no_key(item: &Members, key: &str) -> Status {
    let item = go_text(&Value::Object(item.clone()));
    Status::unexpected(format!("map: {item} does not contain declared merge key: {key}"))
}

/// A value's Go type as errors name it: `%s` of no type at all shows more than `%T` does.
fn go_type(value: &Value) -> &'static str {
    if value.is_null() { "%!s(<nil>)" } else { merge::go_type(value) }
}

fn wrong_type(expected: &str, value: &Value) -> Status {
    Status::unexpected(format!("expected a {expected}, but received a {}", go_type(value)))
}

fn as_list(value: &Value) -> Result<&Vec<Value>, Status> {
    value.as_array().ok_or_else(|| wrong_type("[]interface {}", value))
}

fn as_map(value: &Value) -> Result<&Members, Status> {
    value.as_object().ok_or_else(|| wrong_type("map[string]interface {}", value))
}

/// What the schema knows of a member; an error where the kind has no such member.
#[derive(Clone, Copy)]
struct Field<'a> {
    node: &'a Node,
}

impl<'a> Field<'a> {
    fn of(parent: Option<&'a Node>, name: &str) -> Result<Self, Status> {
        match parent.and_then(|parent| parent.properties.get(name)) {
            Some(node) => Ok(Self { node }),
            None if parent.is_some_and(|parent| parent.additional.is_some()) => {
                Err(Status::unexpected("merging an object in json but data type is not struct, instead is: map"))
            }
            None => Err(Status::unexpected(format!(
                "unable to find api field in struct {} for the json field {}",
                struct_name(parent),
                go_quote(name)
            ))),
        }
    }

    fn key(self) -> &'a str {
        self.node.merge_key.as_deref().unwrap_or_default()
    }
}

fn struct_name(node: Option<&Node>) -> &str {
    let definition = node.map_or("", |node| node.definition.as_str());
    definition.rsplit('.').next().unwrap_or_default()
}

fn merge_maps(mut original: Members, mut patch: Members, node: Option<&Node>) -> Result<Members, Status> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Members::new()),
            Some(_) | None => {
                patch.insert(PATCH.into(), directive.clone());
                Err(unknown_directive(&directive, &patch))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, node)?;
    for (key, value) in patch {
        let (key, is_deletion) = match key.strip_prefix(DELETE_FROM_LIST) {
            None => (key, false),
            Some(rest) => match rest.strip_prefix('/') {
                Some(list) => (list.to_owned(), true),
                None => return Err(Status::bad_request("invalid patch format of primitive list")),
            },
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let has_list = matches!(original.get(&key), Some(Value::Array(_)));
        if is_deletion && !(has_list && value.is_array()) {
            continue; // there is nothing to take from, or nothing that could be taken
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let field = Field::of(node, &key)?;
                Some(Value::Object(merge_maps(old, new, Some(field.node))?))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let field = Field::of(node, &key)?;
                Some(Value::Array(merge_field_lists(old, new, field, is_deletion)?))
            }
            (_, value) => without_directives(without_nulls(value)),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Members) -> Status {
    let directive = match directive {
        Value::String(text) => text.clone(),
        other => format!("%!s({}={})", go_type(other), go_text(other)),
    };
    let patch = go_text(&Value::Object(patch.clone()));
    Status::unexpected(format!("unknown patch type: {directive} in map: {patch}"))
}

/// `$retainKeys`: what is not named goes; what the patch has must be named.
fn retain_keys(original: &mut Members, patch: &mut Members) -> Result<(), Status> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || Status::bad_request("invalid patch format of retainKeys");
    let retained: Vec<_> = retained.as_array().ok_or_else(bad)?.iter().filter_map(Value::as_str).collect();
    for (key, value) in &*patch {
        let is_directive = key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
        if !value.is_null() && !is_directive && !retained.contains(&key.as_str()) {
            return Err(bad());
        }
    }
    original.retain(|key, _| retained.contains(&key.as_str()));
    Ok(())
}

/// `$setElementOrder/<list>`: merges the list as usual, then orders it.
fn merge_ordered_lists(original: &mut Members, patch: &mut Members, node: Option<&Node>) -> Result<(), Status> {
    let directives: Vec<_> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let order = as_list(&order)?;
        let name = directive.strip_prefix(SET_ORDER).and_then(|rest| rest.strip_prefix('/')).ok_or_else(bad_order)?;
        let live = original.get(name).map(as_list).transpose()?.cloned();
        let change = patch.get(name).map(as_list).transpose()?.cloned();
        let field = Field::of(node, name)?;
        let key = field.key();
        check_order(change.as_deref().unwrap_or_default(), order, key)?;
        let merged = match (&live, &change) {
            (Some(live), None) => live.clone(),
            (None, Some(change)) => {
                let Some(Value::Array(kept)) = without_directives(Value::Array(change.clone())) else { continue };
                kept
            }
            (Some(live), Some(change)) => merge_field_lists(live.clone(), change.clone(), field, false)?,
            (None, None) => continue,
        };
        let live = live.unwrap_or_default();
        let holds_maps = element_kind(&[&live, change.as_deref().unwrap_or_default()])?
            .ok_or_else(|| Status::unexpected("no elements in any of the given slices"))?
            == ElementKind::Map;
        let (named, others) = partition(merged, order, key)?;
        original.insert(name.into(), Value::Array(in_order(named, others, order, &live, key, holds_maps)?));
        patch.remove(name);
    }
    Ok(())
}

/// The items of the patch must be in the order list, in its order.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    if order.is_empty() || change.is_empty() {
        return Ok(());
    }
    let mut items = Vec::new();
    for item in change {
        if !key.is_empty() && as_map(item)?.get(PATCH).is_some_and(|directive| directive == "delete") {
            continue;
        }
        items.push(item);
    }
    let (mut at, mut at_order) = (0, 0);
    while at < items.len() && at_order < order.len() {
        let item = items[at];
        if item.get(PATCH).is_some() {
            at += 1;
            continue;
        }
        let is_same = if key.is_empty() {
            *item == order[at_order]
        } else {
            let (item, named) = (as_map(item)?, as_map(&order[at_order])?);
            let value = item.get(key).ok_or_else(|| no_key(item, key))?;
            value == named.get(key).ok_or_else(|| no_key(named, key))?
        };
        at += usize::from(is_same);
        at_order += 1;
    }
    if at < items.len() {
        let (change, order) = (go_text(&change.to_vec().into()), go_text(&order.to_vec().into()));
        return Err(Status::unexpected(format!(
            "The order in patch list:\n{change}\n doesn't match {SET_ORDER} list:\n{order}\n"
        )));
    }
    Ok(())
}

fn merge_field_lists(
    live: Vec<Value>,
    change: Vec<Value>,
    field: Field<'_>,
    is_deletion: bool,
) -> Result<Vec<Value>, Status> {
    if !field.node.patch_merge && !is_deletion {
        return Ok(change);
    }
    if live.is_empty() && change.is_empty() {
        return Ok(live);
    }
    let kind = element_kind(&[&live, &change])?;
    let key = field.key();
    if kind != Some(ElementKind::Map) {
        if is_deletion {
            return Ok(live.into_iter().filter(|item| !change.contains(item)).collect());
        }
        let merged = deduplicate(live.iter().chain(&change).cloned().collect());
        let (named, others) = partition(merged, &change, key)?;
        return in_order(named, others, &change, &live, key, false);
    }
    if key.is_empty() {
        return Err(Status::unexpected(format!("cannot merge lists without merge key for {}", go_kind(field.node))));
    }
    let (live, change) = carry_out_directives(live, change, key)?;
    let mut merged = live.clone();
    for item in &change {
        let item = as_map(item)?;
        let value = item.get(key).ok_or_else(|| no_key(item, key))?;
        match position(&merged, key, value)? {
            Some(at) => {
                let old = as_map(&merged[at])?.clone();
                merged[at] = Value::Object(merge_maps(old, item.clone(), field.node.items.as_deref())?);
            }
            None => merged.push(Value::Object(item.clone())),
        }
    }
    let (named, others) = partition(merged, &change, key)?;
    in_order(named, others, &change, &live, key, true)
}

/// The Go kind of a list's items.
fn go_kind(list: &Node) -> &'static str {
    match list.items.as_deref() {
        Some(items) if items.definition.is_empty() && items.properties.is_empty() => "map",
        Some(_) | None => "struct",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ElementKind {
    Map,
    Scalar(&'static str),
}

/// What all items are; `None` where there is none.
fn element_kind(lists: &[&[Value]]) -> Result<Option<ElementKind>, Status> {
    let mut kind = None;
    for item in lists.iter().copied().flatten() {
        let this = match item {
            Value::Object(_) => ElementKind::Map,
            Value::Array(_) if kind.is_none() => {
                return Err(Status::unprocessable("the server rejected our request due to an error in our request"));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                ElementKind::Scalar(go_type(item))
            }
        };
        if kind.replace(this).is_some_and(|kind| kind != this) {
            let lists: Vec<Value> = lists.iter().map(|list| list.to_vec().into()).collect();
            let lists = go_text(&lists.into());
            return Err(Status::unexpected(format!("list element types are not identical: {lists}")));
        }
    }
    Ok(kind)
}

/// Carries out `$patch` in items: deletions from the live list, or its replacement by the patch's other items.
fn carry_out_directives(
    mut live: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut plain = Vec::with_capacity(change.len());
    let mut replaces = false;
    for item in change {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        let map = as_map(&item)?;
        match directive.as_str() {
            Some("delete") => {
                let value = map.get(key).ok_or_else(|| no_key(map, key))?;
                while let Some(at) = position(&live, key, value)? {
                    live.remove(at);
                }
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                return Err(Status::unexpected("merging lists cannot yet be specified in the patch"));
            }
            Some(_) | None => return Err(unknown_directive(directive, map)),
        }
    }
    Ok(if replaces { (plain, Vec::new()) } else { (live, plain) })
}

fn position(list: &[Value], key: &str, value: &Value) -> Result<Option<usize>, Status> {
    for (at, item) in list.iter().enumerate() {
        let item = item.as_object().ok_or_else(|| Status::unexpected(format!("value for key {at} is not a map")))?;
        if item.get(key) == Some(value) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Each value once, in upstream's way: the last takes the place of one that goes.
fn deduplicate(mut list: Vec<Value>) -> Vec<Value> {
    let mut at = 0;
    while at < list.len() {
        let mut other = at + 1;
        while other < list.len() {
            if list[at] == list[other] {
                list.swap_remove(other);
            } else {
                other += 1;
            }
        }
        at += 1;
    }
    list
}

/// The items that the order names, and the others.
fn partition(list: Vec<Value>, order: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in list {
        let is_named = if key.is_empty() {
            order.contains(&item)
        } else {
            let map = as_map(&item)?;
            let value = map.get(key).ok_or_else(|| no_key(map, key))?;
            position(order, key, value)?.is_some()
        };
        if is_named { &mut named } else { &mut others }.push(item);
    }
    Ok((named, others))
}

fn place(order: &[Value], item: &Value, key: &str, holds_maps: bool) -> Option<usize> {
    if holds_maps {
        let value = item.get(key);
        order.iter().position(|other| other.get(key) == value)
    } else {
        order.iter().position(|other| other == item)
    }
}

/// Sorts the named items by the order and the others as they were, then puts the others between the named ones where their
/// neighbours were.
fn in_order(
    named: Vec<Value>,
    others: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
    holds_maps: bool,
) -> Result<Vec<Value>, Status> {
    let named = sorted(named, order, key, holds_maps)?;
    let others = sorted(others, live, key, holds_maps)?;
    let at_live = |item: &Value| place(live, item, key, holds_maps);
    let mut all = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = at_live(&item);
        while others.peek().is_some_and(|other| matches!((at_live(other), at), (Some(a), Some(b)) if a < b)) {
            all.extend(others.next());
        }
        all.push(item);
    }
    all.extend(others);
    Ok(all)
}

fn sorted(list: Vec<Value>, order: &[Value], key: &str, holds_maps: bool) -> Result<Vec<Value>, Status> {
    if !holds_maps {
        return Ok(sorted_by(list, |item| place(order, item, key, false)));
    }
    for item in list.iter().chain(order) {
        let map = as_map(item)?;
        map.get(key).ok_or_else(|| no_key(map, key))?;
    }
    let is_deletion = |item: &Value| item.get(PATCH).is_some_and(|directive| directive == "delete");
    let (deletions, list): (Vec<_>, Vec<_>) = list.into_iter().partition(is_deletion);
    let mut list = sorted_by(list, |item| place(order, item, key, true));
    list.extend(deletions);
    Ok(list)
}

fn sorted_by(mut list: Vec<Value>, place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    list.sort_by_key(|item| place(item).unwrap_or(usize::MAX));
    list
}

/// The value without members that are null, in lists too.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// The value without maps that have a `$patch`; `None` where it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(
            map.into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect::<Map<_, _>>()
                .into(),
        ),
        Value::Array(list) => Some(list.into_iter().filter_map(without_directives).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value),
    }
}

#[cfg(test)]
#[path = "strategic/tests.rs"]
mod tests;
