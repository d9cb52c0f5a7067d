//! Answers: bytes with a status code and headers.

use std::{convert::Infallible, io::Write, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, RETRY_AFTER, VARY, WARNING,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Map, Value};

use super::Lost;
use crate::{
    base::{Status, Stored, status::go_quote},
    registry::{List, Resource},
};

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Lost>;

/// An answer.
pub type Response = hyper::Response<ResponseBody>;

/// Bytes of an answer from which on it is compressed for who takes that; upstream's `defaultGzipThresholdBytes`.
const GZIP_BYTES: usize = 128 * 1024;

/// The level upstream compresses at: `defaultGzipContentEncodingLevel`.
const GZIP_LEVEL: u32 = 1;

/// An answer of a content type.
pub(super) fn bytes(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(whole(Full::new(bytes.into())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A body that nothing breaks off.
pub(super) fn whole(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> ResponseBody {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A plain text, as Go's `http.Error` and `http.NotFound` write it.
pub(super) fn text(code: u16, text: impl Into<String>) -> Response {
    let mut response = bytes(code, "text/plain; charset=utf-8", text.into());
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What Go's mux says of a path that nobody serves.
pub(super) fn page_not_found() -> Response {
    text(404, "404 page not found\n")
}

/// A JSON document, in the form that was negotiated.
pub(super) fn value(code: u16, yaml: bool, value: &Value) -> Response {
    let json = serde_json::to_vec(value).expect("a JSON value encodes");
    encoded(code, yaml, json.into())
}

/// A text of JSON, in the form that was negotiated.
pub(super) fn encoded(code: u16, yaml: bool, json: Bytes) -> Response {
    if !yaml {
        return bytes(code, "application/json", json);
    }
    let value: Value = serde_json::from_slice(&json).expect("our own JSON reads back");
    match serde_saphyr::to_string(&value) {
        Ok(text) => bytes(code, "application/yaml", text),
        Err(error) => status(&Status::internal(error), false),
    }
}

/// An error.
pub(super) fn status(status: &Status, yaml: bool) -> Response {
    let mut response = value(status.code, yaml, &status.to_object().into_value());
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// An object, whole.
pub(super) fn stored(code: u16, yaml: bool, object: &Arc<Stored>) -> Response {
    encoded(code, yaml, object.json())
}

/// Metadata of a list.
pub(super) fn list_metadata(list: &List) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), list.revision.to_string().into());
    if !list.continue_token.is_empty() {
        metadata.insert("continue".into(), list.continue_token.clone().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    metadata.into()
}

/// A list of whole objects: their texts side by side. The objects of a built-in list do not say their type, as Go leaves
/// it out there.
pub(super) fn list(resource: &Resource, list: &List) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + list.items.iter().map(|item| item.json().len() + 1).sum::<usize>());
    let quoted = |text: &str| Value::from(text).to_string();
    out.put_slice(format!("{{\"kind\":{},", quoted(&resource.list_kind)).as_bytes());
    out.put_slice(format!("\"apiVersion\":{},", quoted(&resource.api_version())).as_bytes());
    let mut metadata = list_metadata(list);
    if resource.custom.is_some() && list.continue_token.is_empty() {
        metadata["continue"] = "".into(); // Go's unstructured lists say it even where there is nothing to go on to
    }
    out.put_slice(format!("\"metadata\":{metadata},\"items\":[").as_bytes());
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        if resource.custom.is_some() {
            out.put_slice(&item.json());
        } else {
            item.put_item(&mut out);
        }
    }
    out.put_slice(b"]}");
    out.freeze()
}

/// Adds the warnings of a request.
pub(super) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let clean: String = warning.chars().filter(|c| !c.is_control()).collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - {}", go_quote(&clean)).as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Adds an ETag.
pub(super) fn tag(response: &mut Response, etag: &str) {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// A header whose value is known to be one.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// Compresses a large answer for who takes that.
pub(super) fn compress(code: u16, json: Bytes) -> Response {
    if json.len() < GZIP_BYTES {
        return bytes(code, "application/json", json);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
    let packed = encoder.write_all(&json).and_then(|()| encoder.finish());
    let mut response = bytes(code, "application/json", packed.expect("writing to memory"));
    set(&mut response, CONTENT_ENCODING, "gzip");
    set(&mut response, VARY, "Accept-Encoding");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_quoted() {
        let mut response = text(200, "");
        warn(&mut response, &["unknown field \"bogus\"".into()]);
        assert_eq!(response.headers()[WARNING], r#"299 - "unknown field \"bogus\"""#);
    }

    #[tokio::test]
    async fn a_large_answer_is_compressed_and_a_small_one_is_not() {
        let small = compress(200, Bytes::from_static(b"{}"));
        assert!(!small.headers().contains_key(CONTENT_ENCODING));
        let large = compress(200, vec![b' '; GZIP_BYTES].into());
        assert_eq!(large.headers()[CONTENT_ENCODING], "gzip");
        assert!(large.into_body().collect().await.unwrap().to_bytes().len() < GZIP_BYTES / 10);
    }
}
