//! JSON patch and JSON merge patch on plain values.
//!
//! Not RFC 6902 to the letter: `evanphx/json-patch` v4, which the API server uses, replaces what is not there, copies
//! from nowhere as null, counts negative indices from the end, and takes `data/x` for `/x`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    limits,
    object::METADATA,
    status::{Status, json_kind},
};

/// A JSON patch cannot be applied: 422 without the reason, which upstream drops too.
fn rejected() -> Status {
    Status::unprocessable("the server rejected our request due to an error in our request")
}

fn wrong_type(value: &Value, target: &str) -> Status {
    Status::bad_request(format!("error decoding patch: json: cannot unmarshal {} into Go {target}", json_kind(value)))
}

/// Applies a JSON patch.
///
/// # Errors
/// 400 where the operations have a wrong form, 413 where there are too many, 422 where one cannot be carried out.
pub fn json(target: &Value, operations: &Value) -> Result<Value, Status> {
    let empty = Vec::new();
    let operations = match operations {
        Value::Null => &empty,
        Value::Array(operations) => operations,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return Err(wrong_type(operations, "value of type []handlers.jsonPatchOp"));
        }
    };
    operations.iter().try_for_each(check_form)?;
    if operations.len() > limits::JSON_PATCH_OPERATIONS {
        return Err(Status::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {}, got {}",
            limits::JSON_PATCH_OPERATIONS,
            operations.len()
        )));
    }
    json_operations(target, operations).map_err(|_| rejected())
}

/// The members of operations that mean nothing, as paths (`[0].bogus`): what field validation complains of.
pub fn unknown_members(operations: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (index, operation) in operations.as_array().into_iter().flatten().enumerate() {
        for key in operation.as_object().into_iter().flat_map(Map::keys) {
            if !matches!(key.as_str(), "op" | "path" | "from" | "value") {
                unknown.push(format!("[{index}].{key}"));
            }
        }
    }
    unknown
}

fn check_form(operation: &Value) -> Result<(), Status> {
    let map = match operation {
        Value::Null => return Ok(()),
        Value::Object(map) => map,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(wrong_type(operation, "value of type handlers.jsonPatchOp"));
        }
    };
    for name in ["op", "path", "from"] {
        match map.get(name) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                return Err(wrong_type(value, &format!("struct field jsonPatchOp.{name} of type string")));
            }
        }
    }
    Ok(())
}

/// Why a JSON patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// A `test` does not hold.
    Test,
    /// An operation cannot be carried out, in the words of `evanphx/json-patch`.
    Operation(String),
}

const MISSING: &str = "missing value";

fn failed<T>(why: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::Operation(why.into()))
}

/// Applies a JSON patch, and tells what could not be done.
///
/// # Errors
/// The first operation that fails.
pub fn json_operations(target: &Value, operations: &[Value]) -> Result<Value, Failed> {
    let mut document = target.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        apply(&mut document, operation, &mut copied_bytes)?;
    }
    Ok(document)
}

/// Carries out one operation.
fn apply(document: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), Failed> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let value = || operation.get("value").cloned().unwrap_or_default();
    let kind = text("op").unwrap_or("unknown");
    let lacks = |name: &str| Failed::Operation(format!("{kind} operation failed to decode {name}: {MISSING}"));
    let needs = |name: &str| text(name).ok_or_else(|| lacks(name));
    let no_place = |what: &str| Failed::Operation(format!("{kind} operation does not apply: {what}: {MISSING}"));
    let at = |path: &str, why: String| Failed::Operation(format!("error in {kind} for path: '{path}': {why}"));
    match kind {
        "add" | "remove" => {
            let path = needs("path")?;
            let place = find(document, path).ok_or_else(|| no_place(&format!("doc is missing path: \"{path}\"")))?;
            let done = if kind == "add" { add(place, value()) } else { remove(place) };
            done.map_err(|why| at(path, why))
        }
        "replace" => match needs("path")? {
            "" => {
                let value = value();
                if !(value.is_object() || value.is_array()) {
                    return failed("replace operation value must be object or array");
                }
                *document = value;
                Ok(())
            }
            path => {
                let place = find(document, path).ok_or_else(|| no_place(&format!("doc is missing path: {path}")))?;
                replace(place, value()).map_err(|_| no_place(&format!("doc is missing key: {path}")))
            }
        },
        "move" => {
            let from = needs("from")?;
            let place = find(document, from).ok_or_else(|| no_place(&format!("doc is missing from path: {from}")))?;
            let key = place.key.clone();
            let value = get(&place).map_err(|why| at(&key, why))?.clone();
            remove(place).map_err(|why| at(&key, why))?;
            let path = needs("path")?;
            let place = find(document, path);
            let place = place.ok_or_else(|| no_place(&format!("doc is missing destination path: {path}")))?;
            add(place, value).map_err(|why| at(path, why))
        }
        "copy" => {
            let from = needs("from")?;
            let place = find(document, from).ok_or_else(|| no_place(&format!("doc is missing from path: {from}")))?;
            let value =
                get(&place).map_err(|why| Failed::Operation(format!("error in copy for from: '{from}': {why}")))?;
            let value = value.clone();
            let path = needs("path")?;
            *copied_bytes += value.to_string().len();
            if *copied_bytes > limits::BODY_BYTES {
                return failed(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the \
                     limit {}",
                    limits::BODY_BYTES
                ));
            }
            let place = find(document, path);
            let place = place.ok_or_else(|| no_place(&format!("doc is missing destination path: {path}")))?;
            add(place, value).map_err(|why| Failed::Operation(format!("error while adding value during copy: {why}")))
        }
        "test" => {
            let expected = value();
            let holds = match needs("path")? {
                "" => *document == expected,
                path => {
                    let place = find(document, path).ok_or_else(|| no_place(&format!("is missing path: {path}")))?;
                    *get(&place).map_err(|why| at(path, why))? == expected
                }
            };
            if holds { Ok(()) } else { Err(Failed::Test) }
        }
        other => failed(format!("Unexpected kind: {other}")),
    }
}

/// A map or list, and the name of something in it that need not be there.
struct Place<'a> {
    container: &'a mut Value,
    key: String,
}

fn decode(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn find<'a>(document: &'a mut Value, path: &str) -> Option<Place<'a>> {
    let (_, path) = path.split_once('/')?; // what stands before the first slash is not looked at
    let (parents, key) = path.rsplit_once('/').map_or((None, path), |(parents, key)| (Some(parents), key));
    let mut container = document;
    for token in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let token = decode(token);
        container = match container {
            Value::Object(map) => map.get_mut(&token)?,
            Value::Array(list) => {
                let index = index(&token, list.len()).ok()?;
                list.get_mut(index)?
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
    }
    (container.is_object() || container.is_array()).then(|| Place { container, key: decode(key) })
}

fn bad_index(index: impl std::fmt::Display) -> String {
    format!("Unable to access invalid index: {index}: invalid index referenced")
}

/// The place that an index means in a list of this length; it may be beyond the end.
fn index(token: &str, length: usize) -> Result<usize, String> {
    let quoted = format!("\"{token}\"");
    let wrong =
        |_| format!("value was not a proper array index: '{token}': strconv.Atoi: parsing {quoted}: invalid syntax");
    let index: i64 = token.parse().map_err(wrong)?;
    let place = if index < 0 {
        usize::try_from(index.unsigned_abs()).ok().and_then(|back| length.checked_sub(back))
    } else {
        usize::try_from(index).ok()
    };
    place.ok_or_else(|| bad_index(index))
}

fn get<'a>(place: &'a Place<'_>) -> Result<&'a Value, String> {
    match &*place.container {
        Value::Object(map) => Ok(map.get(&place.key).unwrap_or(&Value::Null)),
        Value::Array(list) => {
            let at = index(&place.key, list.len())?;
            list.get(at).ok_or_else(|| bad_index(at))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(MISSING.into()),
    }
}

fn add(place: Place<'_>, value: Value) -> Result<(), String> {
    match place.container {
        Value::Object(map) => {
            map.insert(place.key, value);
        }
        Value::Array(list) => {
            let at = if place.key == "-" { list.len() } else { index(&place.key, list.len() + 1)? };
            if at > list.len() {
                return Err(bad_index(at));
            }
            list.insert(at, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(MISSING.into()),
    }
    Ok(())
}

fn replace(place: Place<'_>, value: Value) -> Result<(), String> {
    match place.container {
        Value::Object(map) => {
            map.insert(place.key, value);
        }
        Value::Array(list) => {
            let at = index(&place.key, list.len())?;
            *list.get_mut(at).ok_or_else(|| bad_index(at))? = value;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(MISSING.into()),
    }
    Ok(())
}

fn remove(place: Place<'_>) -> Result<(), String> {
    let Place { container, key } = place;
    match container {
        Value::Object(map) => match map.remove(&key) {
            Some(_) => Ok(()),
            None => Err(format!("Unable to remove nonexistent key: {key}: {MISSING}")),
        },
        Value::Array(list) => {
            let at = index(&key, list.len())?;
            if at >= list.len() {
                return Err(bad_index(at));
            }
            list.remove(at);
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(MISSING.into()),
    }
}

/// Applies a JSON merge patch (RFC 7396).
///
/// # Errors
/// 400 where the patch is no map.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), Status> {
    match (target, patch) {
        (_, Value::Null) => Err(Status::bad_request("Invalid JSON Patch")),
        (Value::Object(target), Value::Object(patch)) => {
            merge_maps(target, patch);
            Ok(())
        }
        (target, Value::Object(_)) => {
            *target = pruned(patch);
            Ok(())
        }
        (_, Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(wrong_type(patch, "value of type map[string]interface {}"))
        }
    }
}

fn merge_maps(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (target.get_mut(key), value) {
            (_, Value::Null) => {
                target.remove(key);
            }
            (Some(Value::Object(target)), Value::Object(patch)) => merge_maps(target, patch),
            // Upstream keeps nulls in a list that takes a map's place, and drops them in one that takes another's.
            (Some(target @ Value::Object(_)), _) => *target = value.clone(),
            (_, _) => {
                target.insert(key.clone(), pruned(value));
            }
        }
    }
}

/// A copy without members that are null.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), pruned(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(pruned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// The maps and lists that a JSON patch looks into, as paths: what upstream prints anew, with sorted members.
pub fn opened_by_json(operations: &Value) -> BTreeSet<Vec<String>> {
    let mut opened = BTreeSet::from([Vec::new()]);
    for operation in operations.as_array().into_iter().flatten() {
        for pointer in ["path", "from"].iter().filter_map(|key| operation.get(key).and_then(Value::as_str)) {
            let steps: Vec<String> = pointer.split('/').skip(1).map(decode).collect();
            opened.extend((1..steps.len()).map(|length| steps[..length].to_vec()));
        }
    }
    opened
}

/// The maps that a merge patch looks into, as paths.
pub fn opened_by_merge(patch: &Value) -> BTreeSet<Vec<String>> {
    fn walk(patch: &Value, path: &mut Vec<String>, opened: &mut BTreeSet<Vec<String>>) {
        opened.insert(path.clone());
        for (key, value) in patch.as_object().into_iter().flatten() {
            path.push(key.clone());
            walk(value, path, opened);
            path.pop();
        }
    }
    let mut opened = BTreeSet::new();
    walk(patch, &mut Vec::new(), &mut opened);
    opened
}

/// A value as Go prints maps and lists (`%+v`).
pub fn go_map(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| format!("{key}:{}", go_map(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Members of an owner reference and of a manager of fields in the order of their Go structs.
const OWNER: &[&str] = &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
const MANAGER: &[&str] = &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];

/// A patched object as Go prints it: what the patch did not open keeps the order of its Go struct.
pub fn go_text(value: &Value, opened: &BTreeSet<Vec<String>>) -> String {
    fn write(value: &Value, path: &mut Vec<String>, opened: &BTreeSet<Vec<String>>, out: &mut String) {
        match value {
            Value::Object(map) => {
                let order: &[&str] = match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    _ if opened.contains(path) => &[],
                    ["metadata"] => &METADATA,
                    ["metadata", "ownerReferences", _] => OWNER,
                    ["metadata", "managedFields", _] => MANAGER,
                    _ => &[],
                };
                let mut members: Vec<_> = map.iter().collect();
                let place = |key: &str| order.iter().position(|known| *known == key).unwrap_or(order.len());
                members.sort_by_key(|(key, _)| place(key));
                out.push('{');
                for (index, (key, value)) in members.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::from(key.as_str()).to_string());
                    out.push(':');
                    path.push(key.clone());
                    write(value, path, opened, out);
                    path.pop();
                }
                out.push('}');
            }
            Value::Array(list) => {
                out.push('[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    path.push(index.to_string());
                    write(value, path, opened, out);
                    path.pop();
                }
                out.push(']');
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut Vec::new(), opened, &mut out);
    out.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
#[path = "patch/tests.rs"]
mod tests;
