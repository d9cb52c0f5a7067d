//! What must not stand in a transcript: the data of Secrets, tokens, keys and certificates.

use serde_json::{Map, Value};

/// What stands in their place; base64 of it where base64 has to be, so that a replayed Secret is one still.
const REDACTED: &str = "UkVEQUNURUQ=";
const PLAIN: &str = "REDACTED";

/// Fields that hold secrets or certificates, whatever they are in.
const FIELDS: [&str; 7] =
    ["token", "caBundle", "certificate", "password", "bearerToken", "client-key-data", "client-certificate-data"];

/// The annotation in which kubectl keeps the whole of what it applied.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes secrets out of a document, wherever they are in it.
pub(super) fn redact(value: &mut Value) {
    take_out(value, false);
}

/// The same of what is sent to a Secret's address: a patch does not say of what kind it is.
pub(super) fn redact_secret(value: &mut Value) {
    take_out(value, true);
}

/// A text for an entry of a Secret, plain or in base64; what takes an entry away stays.
fn put(entries: &mut Map<String, Value>, text: &str) {
    entries.values_mut().filter(|entry| !entry.is_null()).for_each(|entry| *entry = text.into());
}

fn take_out(value: &mut Value, of_secret: bool) {
    match value {
        Value::Object(members) => {
            let secret = of_secret || members.get("kind").is_some_and(|kind| kind == "Secret");
            for (name, member) in members.iter_mut() {
                match member {
                    Value::Object(entries) if secret && name == "data" => put(entries, REDACTED),
                    Value::Object(entries) if secret && name == "stringData" => put(entries, PLAIN),
                    Value::String(text) if FIELDS.contains(&name.as_str()) && !text.is_empty() => {
                        *text = REDACTED.into();
                    }
                    other => redact(other),
                }
            }
            if secret && let Some(text) = members.get_mut("metadata").and_then(|meta| meta.pointer_mut(&applied())) {
                *text = REDACTED.into();
            }
            // A list says its kind once, and its items do not.
            if members.get("kind").is_some_and(|kind| kind == "SecretList")
                && let Some(Value::Array(items)) = members.get_mut("items")
            {
                for item in items {
                    for (name, text) in [("data", REDACTED), ("stringData", PLAIN)] {
                        if let Some(Value::Object(entries)) = item.get_mut(name) {
                            put(entries, text);
                        }
                    }
                    if let Some(text) = item.pointer_mut(&format!("/metadata{}", applied())) {
                        *text = REDACTED.into();
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) if is_secret(text) => *text = REDACTED.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The pointer to [`APPLIED`] within metadata.
fn applied() -> String {
    format!("/annotations/{}", APPLIED.replace('/', "~1"))
}

/// Whether a text is a key, a certificate, or a signed token, by its look.
fn is_secret(text: &str) -> bool {
    let is_token = |word: &str| word.starts_with("eyJ") && word.matches('.').count() == 2;
    text.contains("-----BEGIN ") || text.split_whitespace().any(is_token)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut value = json!({
            "type": "ADDED",
            "object": {"kind": "Secret", "metadata": {"name": "s", "annotations": {APPLIED: "{\"data\": \"abc\"}"}},
                "data": {"a": "c2VjcmV0"}, "stringData": {"b": "secret"}},
            "lists": {"kind": "SecretList", "items": [{"metadata": {"name": "t"}, "data": {"a": "c2VjcmV0"}}]},
            "status": {"token": "abc", "expirationTimestamp": "2026-01-01T00:00:00Z"},
            "data": {"ca.crt": "-----BEGIN CERTIFICATE-----\nabc", "note": "eyJhbGciOi.eyJpc3Mi.c2ln", "plain": "stays"},
        });
        redact(&mut value);
        let text = value.to_string();
        for gone in ["c2VjcmV0", "\"secret\"", "abc", "eyJ"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert_eq!(value["data"]["plain"], "stays");
        assert_eq!(value["object"]["metadata"]["name"], "s");
        assert_eq!(value["object"]["data"]["a"], REDACTED);
    }

    #[test]
    fn a_patch_of_a_secret_says_not_that_it_is_one() {
        let mut patch = json!({
            "metadata": {"annotations": {APPLIED: "{\"stringData\": \"abc\"}"}},
            "stringData": {"b": "abc"}, "data": {"a": "YWJj", "gone": null},
        });
        redact_secret(&mut patch);
        let text = patch.to_string();
        assert!(!text.contains("abc") && !text.contains("YWJj"), "{text}");
        assert_eq!(patch["data"], json!({"a": REDACTED, "gone": null}));
        assert_eq!(patch["stringData"]["b"], PLAIN);
    }
}
