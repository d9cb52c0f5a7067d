//! Bodies of requests: bounded, and read as JSON, YAML or protobuf with upstream's words for what is wrong with them.
//!
//! Upstream: `limitedReadBody`, `transformDecodeError` and `summarizeData` in
//! `k8s.io/apiserver/pkg/endpoints/handlers`, and `k8s.io/apimachinery/pkg/runtime/serializer/json`.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{
    json::{self, Parsed},
    protobuf::{self, Unread},
    yaml,
};
use crate::{
    base::{
        Status, limits, names,
        status::{go_quote, json_kind},
    },
    registry,
};

/// The forms that bodies of objects come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The type that a body should be of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Group and version, as an object has them.
    pub(super) api_version: &'a str,
    /// Kind.
    pub(super) kind: &'a str,
    /// Whether it is a custom kind, whose objects are never protobuf.
    pub(super) custom: bool,
}

/// What upstream reads and writes, as its errors list it.
pub(super) const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads a whole body.
///
/// # Errors
/// 413 beyond the limit, 400 if the client stops in the middle.
pub(super) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, limits::BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {}", limits::BODY_BYTES)))
        }
        Err(error) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// The media type of a body, without parameters and in lower case; `""` if none is given.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The form that the headers tell of; JSON if they tell of none.
///
/// # Errors
/// 415 for a form that is not read.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    match media_type(headers).as_str() {
        "" | "application/json" => Ok(Form::Json),
        "application/yaml" => Ok(Form::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Form::Protobuf),
        _ => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {MEDIA_TYPES}"
        ))),
    }
}

/// The object in a body that should be of a kind; one of a custom kind has to say so itself.
///
/// # Errors
/// 400 with upstream's words for a body that is no object, or that does not read.
pub(super) fn object(form: Form, bytes: &Bytes, expected: Expected<'_>) -> Result<registry::Body, Status> {
    match read_object(form, bytes, expected) {
        Ok(Parsed { value: Value::Null, .. }) => {
            Ok(registry::Body { value: Value::Object(Default::default()), duplicates: vec![] })
        }
        Ok(Parsed { value, duplicates }) => Ok(registry::Body { value, duplicates }),
        Err(Unread { claimed: Some((kind, version)), why }) => Err(Status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            go_quote(&version),
            expected.kind
        ))),
        Err(Unread { claimed: None, why }) => Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({})",
            expected.kind,
            summary(bytes)
        ))),
    }
}

/// `DeleteOptions` in a body.
///
/// # Errors
/// 400 where it does not read, or is something else.
pub(super) fn options(form: Form, bytes: &Bytes) -> Result<Value, Status> {
    let expected = Expected { api_version: "v1", kind: "DeleteOptions", custom: false };
    let value = read_object(form, bytes, expected).map_err(|unread| Status::bad_request(unread.why))?.value;
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !kind.is_empty() && kind != "DeleteOptions" {
        let (_, version) = names::split_api_version(version);
        let message = format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""
        );
        return Err(Status::bad_request(message));
    }
    Ok(value)
}

fn read_object(form: Form, bytes: &Bytes, expected: Expected<'_>) -> Result<Parsed, Unread> {
    let parsed = match form {
        Form::Json => json::parse(bytes).map_err(|why| format!("couldn't get version/kind; json parse error: {why}")),
        // upstream finds out what an object is before it converts it, and so says nothing of a conversion
        Form::Yaml => yaml::read(bytes).map_err(|why| match why.strip_prefix(yaml::CONVERTING) {
            Some(why) => why.to_owned(),
            None => why,
        }),
        Form::Protobuf => {
            let envelope = protobuf::Envelope::read(bytes, expected.api_version, expected.kind)?;
            let value = if expected.custom { Err(envelope.custom()) } else { envelope.open() };
            return value.map(|value| Parsed { value, duplicates: Vec::new() });
        }
    };
    let parsed = parsed.and_then(|parsed| typed(&parsed.value).map(|()| parsed));
    let parsed = parsed.and_then(|parsed| match parsed.value.get("kind").and_then(Value::as_str) {
        None | Some("") if expected.custom => {
            Err(format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(bytes)))
        }
        None | Some(_) => Ok(parsed),
    });
    parsed.map_err(|why| Unread { claimed: None, why })
}

/// Upstream looks at `apiVersion` and `kind` before anything else, through a Go struct.
fn typed(value: &Value) -> Result<(), String> {
    let wrong = |what: &str, target: &str| {
        Err(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go {target}"))
    };
    let whole = r#"value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    match value {
        Value::Null => Ok(()),
        Value::Object(map) => {
            for key in ["apiVersion", "kind"] {
                match map.get(key) {
                    None | Some(Value::Null | Value::String(_)) => {}
                    Some(other) => return wrong(json_kind(other), &format!("struct field .{key} of type string")),
                }
            }
            Ok(())
        }
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            wrong(json_kind(other), whole)
        }
    }
}

/// Bytes of a body that an error shows.
const SUMMARY_BYTES: usize = 30;

/// The start of a body, as text if it may be JSON and as hexadecimal digits otherwise.
fn summary(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SUMMARY_BYTES)];
    let dots = if bytes.len() > SUMMARY_BYTES { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(cut)),
        Some(_) => format!("{}{dots}", cut.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)")]
    #[case("[]", r#"couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b5d)"#)]
    #[case(r#"{"kind":1}"#, r#"couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({"kind":1})"#)]
    #[case(
        "{aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "couldn't get version/kind; json parse error: invalid character 'a' looking for beginning of object key string ({aaaaaaaaaaaaaaaaaaaaaaaaaaaaa ...)"
    )]
    fn a_body_that_is_no_object_is_refused_in_upstreams_words(#[case] body: &'static str, #[case] expected: &str) {
        let expected_kind = Expected { api_version: "v1", kind: "ConfigMap", custom: false };
        let status = object(Form::Json, &Bytes::from_static(body.as_bytes()), expected_kind).unwrap_err();
        assert_eq!(
            status.message,
            format!("the object provided is unrecognized (must be of type ConfigMap): {expected}")
        );
        assert_eq!(status.code, 400);
    }

    #[test]
    fn yaml_means_the_json_it_stands_for() {
        let text =
            b"apiVersion: v1\nmetadata:\n  name: a\n  name: b\ndata:\n  k: 1\n  s: \"1\"\n  t: true\n  z: null\n";
        let parsed = yaml::read(text).unwrap();
        assert_eq!(parsed.duplicates, ["metadata.name"]);
        assert_eq!(
            parsed.value,
            json!({"apiVersion": "v1", "metadata": {"name": "b"}, "data": {"k": 1, "s": "1", "t": true, "z": null}})
        );
    }

    #[test]
    fn yaml_that_is_none_is_refused() {
        let why = yaml::read(b"a: [unclosed").unwrap_err();
        assert!(why.starts_with("error converting YAML to JSON: yaml: "), "{why}");
    }

    #[test]
    fn yaml_aliases_that_explode_are_refused() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
        for (name, before) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            let list = vec![format!("*{before}"); 10].join(", ");
            text.push_str(&format!("{name}: &{name} [{list}]\n"));
        }
        assert!(yaml::read(text.as_bytes()).is_err());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_too_large() {
        let fits = vec![b' '; limits::BODY_BYTES];
        assert_eq!(read(Full::new(Bytes::from(fits))).await.unwrap().len(), limits::BODY_BYTES);
        let status = read(Full::new(Bytes::from(vec![b' '; limits::BODY_BYTES + 1]))).await.unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (413, "Request entity too large: limit is 3145728"));
    }
}
