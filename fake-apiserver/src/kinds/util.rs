//! Small helpers to read, fill in and check JSON maps. What is absent or of another type reads as empty.

use serde_json::{Map, Value};

pub(super) use crate::base::value::{
    as_quantity, at, flag, get, has, int, int_or_zero, items, members, quantity, strings, text, texts,
};
use crate::base::{FieldError, names::Complaints};

/// A list of errors in the making.
pub(super) type Errors = Vec<FieldError>;

/// The items of a list with their paths.
pub(super) fn indexed<'a>(
    value: &'a Value,
    path: &str,
    key: &str,
) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
    let path = child(path, key);
    items(value, key).iter().enumerate().map(move |(i, item)| (format!("{path}[{i}]"), item))
}

/// The path of a member.
pub(super) fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a value is what Go leaves out: absent, `null`, or an empty text.
fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => false,
    }
}

/// Fills in a member that is absent, `null` or an empty text.
pub(super) fn default_to(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if is_blank(map.get(key)) {
        map.insert(key.into(), value.into());
    }
}

/// Fills in a number that is absent or 0, where Go cannot tell these apart.
pub(super) fn default_number(map: &mut Map<String, Value>, key: &str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or_default() == 0 {
        map.insert(key.into(), value.into());
    }
}

/// A member that is a map, if it is there.
pub(super) fn map_mut<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_object_mut)
}

/// A member that is a map, made if it is not there.
pub(super) fn make_map<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made a map just above")
}

/// Calls `change` with each map in a list.
pub(super) fn each_mut(map: &mut Map<String, Value>, key: &str, change: impl FnMut(&mut Map<String, Value>)) {
    let list = map.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
}

/// Drops members that Go would leave out: `null`, and empty lists and maps under the given keys.
pub(super) fn drop_empty(map: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        let empty = match map.get(*key) {
            Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::String(text)) => text.is_empty(),
            None | Some(Value::Bool(_) | Value::Number(_)) => false,
        };
        if empty {
            map.remove(*key);
        }
    }
}

/// One error for each complaint about a text.
pub(super) fn complain(errors: &mut Errors, field: &str, value: &str, complaints: Complaints) {
    errors.extend(complaints.iter().map(|why| FieldError::invalid(field, &value.into(), why)));
}

/// One error for each complaint about a number.
pub(super) fn complain_number(errors: &mut Errors, field: &str, value: i64, complaints: Complaints) {
    errors.extend(complaints.iter().map(|why| FieldError::invalid(field, &value.into(), why)));
}

/// `must be greater than or equal to 0`
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
/// `field is immutable`
pub(super) const IMMUTABLE: &str = "field is immutable";

/// An error where a number is there and below 0.
pub(super) fn not_negative(errors: &mut Errors, value: &Value, path: &str, key: &str) {
    if let Some(number) = int(value, key).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&child(path, key), &number.into(), NEGATIVE));
    }
}

/// An error where a text is none of those allowed; an empty one is `Required value` if `required`.
pub(super) fn one_of(errors: &mut Errors, value: &Value, path: &str, key: &str, allowed: &[&str], required: bool) {
    let (found, field) = (text(value, key), child(path, key));
    if found.is_empty() {
        if required {
            errors.push(FieldError::required(&field, ""));
        }
    } else if !allowed.contains(&found) {
        errors.push(FieldError::not_supported(&field, &found.into(), allowed));
    }
}

/// `Required value` where a text is empty.
pub(super) fn required(errors: &mut Errors, value: &Value, path: &str, key: &str) -> bool {
    let missing = text(value, key).is_empty();
    if missing {
        errors.push(FieldError::required(&child(path, key), ""));
    }
    !missing
}

/// `field is immutable` where two values differ; what Go leaves out counts as absent.
pub(super) fn immutable(errors: &mut Errors, new: &Value, old: &Value, field: &str) {
    if !same(new, old) {
        errors.push(FieldError::invalid(field, new, IMMUTABLE));
    }
}

/// Upstream's `Semantic.DeepEqual`: absent, `null` and empty lists and maps are the same, and quantities are equal by
/// amount wherever two texts differ only in how they write it.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    fn empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b || empty(a) && empty(b),
    }
}

/// Rounds each amount of a resource list up to thousandths, as upstream's `SetDefaults_ResourceList` does.
pub(super) fn round_amounts(map: &mut Map<String, Value>, key: &str) {
    for (_, amount) in map_mut(map, key).into_iter().flatten() {
        if let Some(quantity) = as_quantity(amount) {
            *amount = quantity.rounded_to_milli().to_string().into();
        }
    }
}

/// A member of a struct that Go shows without JSON names: its Go name, its JSON name, what Go shows of an absent one, and
/// the members of a struct in it.
pub(super) struct GoMember(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static [GoMember],
);

/// A value as messages show structs of Go's internal types: all members in their order, by their Go names.
pub(super) fn go_struct(value: &Value, members: &[GoMember]) -> String {
    let shown = members.iter().map(|GoMember(go, json, zero, inside)| {
        let text = match get(value, json) {
            Value::Null => (*zero).to_owned(),
            inner if inside.is_empty() => inner.to_string(),
            Value::Array(list) => {
                let shown: Vec<_> = list.iter().map(|item| go_struct(item, inside)).collect();
                format!("[{}]", shown.join(","))
            }
            inner => go_struct(inner, inside),
        };
        format!("\"{go}\":{text}")
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}
