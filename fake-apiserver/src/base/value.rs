//! Reading JSON: what is absent or of another type reads as empty.

use std::collections::BTreeMap;

use serde_json::Value;

use super::quantity::Quantity;

static NULL: Value = Value::Null;

/// A member, `null` where it is not there.
pub fn get<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&NULL)
}

/// What stands at a path of members.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| get(value, key))
}

/// A text member.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    get(value, key).as_str().unwrap_or_default()
}

/// A whole number, if it is there.
pub fn int(value: &Value, key: &str) -> Option<i64> {
    get(value, key).as_i64()
}

/// A whole number, 0 where absent.
pub fn int_or_zero(value: &Value, key: &str) -> i64 {
    int(value, key).unwrap_or_default()
}

/// A truth value, `false` where absent.
pub fn flag(value: &Value, key: &str) -> bool {
    get(value, key).as_bool().unwrap_or_default()
}

/// Whether a member is there and not `null`.
pub fn has(value: &Value, key: &str) -> bool {
    !get(value, key).is_null()
}

/// The items of a list.
pub fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    get(value, key).as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    items(value, key).iter().filter_map(Value::as_str).collect()
}

/// The members of a map.
pub fn members<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    get(value, key).as_object().into_iter().flatten()
}

/// A map of texts.
pub fn strings(value: &Value, key: &str) -> BTreeMap<String, String> {
    members(value, key).filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The quantity under a key, if there is one.
pub fn quantity(value: &Value, key: &str) -> Option<Quantity> {
    as_quantity(get(value, key))
}

/// The quantity in a value.
pub fn as_quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
