//! Lists that are sets or maps: no item twice, and which old item a new one stems from.

use serde_json::{Map, Value};

use super::super::{ListType, Node};
use crate::base::FieldError;

/// Items that stand twice in a set, or whose keys do in a map.
///
/// See `apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`.
pub(super) fn check(node: &Node, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(node, value, &mut String::new(), &mut errors);
    errors
}

fn walk(node: &Node, value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
    if !node.has.lists {
        return;
    }
    let length = path.len();
    match value {
        Value::Array(items) => {
            match &node.list_type {
                ListType::Set => same_items(items.iter().cloned(), path, errors),
                ListType::Map(keys) => {
                    let other = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null());
                    if let Some((index, item)) = other {
                        let detail = "must be an object for an array of list-type map";
                        errors.push(FieldError::invalid(&format!("{path}[{index}]"), item, detail));
                    }
                    let items = if other.is_some() { &[][..] } else { items };
                    let keys_of = items.iter().map(|item| Value::Object(keys_of(node, keys, item)));
                    same_items(keys_of, path, errors);
                }
                ListType::Atomic => {}
            }
            let Some(child) = &node.items else { return };
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(child, item, path, errors);
                path.truncate(length);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let property = node.properties.get(key);
                let Some(child) = property.or(node.additional.as_ref()) else { continue };
                if property.is_some() {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(key);
                } else {
                    path.push_str(&format!("[{key}]"));
                }
                walk(child, value, path, errors);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn keys_of(node: &Node, keys: &[String], item: &Value) -> Map<String, Value> {
    if item.is_null() {
        return Map::new();
    }
    let default = |key: &String| node.items.as_ref()?.properties.get(key)?.default.clone();
    keys.iter().filter_map(|key| Some((key.clone(), item.get(key).cloned().or_else(|| default(key))?))).collect()
}

/// Each value that stands more than once is told of once, at its second place.
fn same_items(items: impl Iterator<Item = Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<(Value, bool)> = Vec::new();
    for (index, item) in items.enumerate() {
        match seen.iter_mut().find(|(other, _)| *other == item) {
            Some((_, told)) if *told => {}
            Some((_, told)) => {
                *told = true;
                errors.push(FieldError::duplicate(&format!("{path}[{index}]"), &item));
            }
            None => seen.push((item, false)),
        }
    }
}

/// Finds the old item that a new one stems from; only maps tell.
pub(in crate::schema) struct Correlation<'a> {
    keys: &'a [String],
    old: &'a [Value],
}

impl<'a> Correlation<'a> {
    pub(in crate::schema) fn new(list_type: &'a ListType, old: Option<&'a Value>) -> Self {
        let keys = match list_type {
            ListType::Map(keys) => keys.as_slice(),
            ListType::Set | ListType::Atomic => &[],
        };
        let old = old.and_then(Value::as_array).filter(|_| !keys.is_empty());
        Self { keys, old: old.map_or(&[], Vec::as_slice) }
    }

    pub(in crate::schema) fn find(&self, item: &Value) -> Option<&'a Value> {
        self.old.iter().find(|old| self.keys.iter().all(|key| old.get(key) == item.get(key)))
    }
}
