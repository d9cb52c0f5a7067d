//! Config maps and secrets.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::util::{Errors, complain, default_to, drop_empty, flag, get, has, immutable, make_map, members, same, text};
use crate::base::{FieldError, Object, limits, names};

const LOCKED: &str = "field is immutable when `immutable` is set";

fn data_keys(errors: &mut Errors, value: &Value, key: &str) {
    for (name, _) in members(value, key) {
        complain(errors, &format!("{key}[{name}]"), name, names::config_key(name));
    }
}

/// Bytes that a base64 text stands for.
fn decoded_length(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count().min(text.len() / 4 * 3)
}

fn total(value: &Value, key: &str, length: fn(&str) -> usize) -> usize {
    members(value, key).filter_map(|(_, value)| value.as_str()).map(length).sum()
}

pub(super) fn default_config_map(object: &mut Object) {
    drop_empty(object.as_map_mut(), &["data", "binaryData"]);
}

pub(super) fn validate_config_map(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.as_value());
    for (key, _) in members(value, "data") {
        complain(&mut errors, &format!("data[{key}]"), key, names::config_key(key));
        if has(get(value, "binaryData"), key) {
            let why = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(&format!("data[{key}]"), &key.as_str().into(), why));
        }
    }
    data_keys(&mut errors, value, "binaryData");
    if total(value, "data", str::len) + total(value, "binaryData", decoded_length) > limits::DATA_BYTES {
        errors.push(FieldError::too_long("", limits::DATA_BYTES));
    }
    errors
}

fn locked(errors: &mut Errors, new: &Object, old: &Object, keys: &[&str]) {
    let (new, old) = (new.as_value(), old.as_value());
    if flag(old, "immutable") {
        if !flag(new, "immutable") {
            errors.push(FieldError::forbidden("immutable", LOCKED));
        }
        for key in keys.iter().filter(|key| !same(get(new, key), get(old, key))) {
            errors.push(FieldError::forbidden(key, LOCKED));
        }
    }
}

pub(super) fn validate_config_map_update(new: &Object, old: &Object, _: &str) -> Errors {
    let mut errors = Vec::new();
    locked(&mut errors, new, old, &["data", "binaryData"]);
    errors
}

/// The bytes of a base64 text, empty where it is none.
fn unbase64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

/// `stringData` is written into `data`, as the conversion to the internal form does.
pub(super) fn default_secret(object: &mut Object) {
    if let Some(Value::Object(texts)) = object.remove("stringData") {
        for (key, value) in texts {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default().as_bytes());
            make_map(object.as_map_mut(), "data").insert(key, encoded.into());
        }
    }
    default_to(object.as_map_mut(), "type", "Opaque");
    drop_empty(object.as_map_mut(), &["data"]);
}

pub(super) fn validate_secret(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.as_value());
    data_keys(&mut errors, value, "data");
    if total(value, "data", decoded_length) > limits::DATA_BYTES {
        errors.push(FieldError::too_long("data", limits::DATA_BYTES));
    }
    let data = get(value, "data");
    let need = |errors: &mut Errors, key: &str| {
        if !has(data, key) {
            errors.push(FieldError::required(&format!("data[{key}]"), ""));
        }
    };
    match text(value, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if object.annotation(key).unwrap_or_default().is_empty() {
                errors.push(FieldError::required(&format!("metadata.annotations[{key}]"), ""));
            }
        }
        kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
            let key = if kind == "kubernetes.io/dockercfg" { ".dockercfg" } else { ".dockerconfigjson" };
            need(&mut errors, key);
            if has(data, key) {
                let bytes = unbase64(text(data, key));
                let parsed: Result<Map<String, Value>, _> = serde_json::from_slice(&bytes);
                if let Err(error) = parsed {
                    let why = if error.is_eof() {
                        "unexpected end of JSON input".to_owned()
                    } else {
                        let first = String::from_utf8_lossy(&bytes).chars().next().unwrap_or_default();
                        format!("invalid character '{first}' looking for beginning of value")
                    };
                    let redacted = "<secret contents redacted>".into();
                    errors.push(FieldError::invalid(&format!("data[{key}]"), &redacted, &why));
                }
            }
        }
        "kubernetes.io/basic-auth" if !has(data, "username") && !has(data, "password") => {
            need(&mut errors, "username");
            need(&mut errors, "password");
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            errors.push(FieldError::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/tls" => {
            need(&mut errors, "tls.crt");
            need(&mut errors, "tls.key");
        }
        _ => {}
    }
    errors
}

pub(super) fn validate_secret_update(new: &Object, old: &Object, _: &str) -> Errors {
    let mut errors = Vec::new();
    immutable(&mut errors, &new.str_at(&["type"]).into(), &old.str_at(&["type"]).into(), "type");
    locked(&mut errors, new, old, &["data"]);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_gos_and_reads_back() {
        for (text, encoded) in [("", ""), ("b", "Yg=="), ("ab", "YWI="), ("abc", "YWJj"), ("äöü", "w6TDtsO8")] {
            assert_eq!(STANDARD.encode(text.as_bytes()), encoded);
            assert_eq!(unbase64(encoded), text.as_bytes());
            assert_eq!(decoded_length(encoded), text.len());
        }
    }
}
