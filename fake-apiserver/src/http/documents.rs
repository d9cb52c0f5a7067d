//! Paths that are no resources: discovery, health, version, metrics, OpenAPI.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, IF_NONE_MATCH, VARY},
};
use serde_json::{Value, json};

use super::{
    Api, health, negotiate,
    path::RequestInfo,
    query::Query,
    respond::{self, Response},
};
use crate::{
    base::Status,
    discovery::{self, Aggregated},
    registry::AUDIENCE,
};

/// Answers a GET of such a path.
///
/// # Errors
/// 404 for a version that a known group does not have; 501 for what is not faked.
pub(super) fn answer(
    api: &Arc<Api>,
    info: &RequestInfo,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response, Status> {
    let catalog = api.registry.catalog();
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let yaml = negotiate::negotiate(accept, negotiate::Route::Custom).is_ok_and(|answer| answer.yaml);
    let plain = |value: Value| respond::value(200, yaml, &value);
    match info {
        RequestInfo::Root => Ok(plain(json!({"paths": discovery::paths(&catalog)}))),
        RequestInfo::CoreVersions => Ok(match negotiate::discovery(accept) {
            Some(version) => aggregated(discovery::aggregated(&catalog, version, true), headers),
            None => plain(discovery::core_versions(&api.address())),
        }),
        RequestInfo::Groups => Ok(match negotiate::discovery(accept) {
            Some(version) => aggregated(discovery::aggregated(&catalog, version, false), headers),
            None => plain(discovery::groups(&catalog)),
        }),
        RequestInfo::Group(name) => Ok(match discovery::group(&catalog, name) {
            Some(group) => plain(group),
            None => respond::page_not_found(),
        }),
        RequestInfo::Version { group, version } => match discovery::version(&catalog, group, version) {
            Some(list) => Ok(plain(list)),
            // A built-in group answers for its unknown versions itself; for a custom one nobody does.
            None if discovery::is_builtin(&catalog, group) => Err(Status::no_such_resource()),
            None => Ok(respond::page_not_found()),
        },
        RequestInfo::Resource(_) | RequestInfo::Metrics | RequestInfo::Control(_) | RequestInfo::Unknown => {
            Ok(respond::page_not_found())
        }
        RequestInfo::ServerVersion => Ok(plain(discovery::server_version())),
        RequestInfo::Health { endpoint, check } => Ok(health::answer(endpoint, check, query)),
        RequestInfo::Issuer => Ok(public(
            "application/json",
            &json!({
                "issuer": AUDIENCE,
                "jwks_uri": format!("https://{}/openid/v1/jwks", api.address()),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        )),
        RequestInfo::KeySet => Ok(public("application/jwk-set+json", &api.registry.key_set())),
        RequestInfo::OpenApiV2 if !negotiate::takes_json(accept) => {
            let mut refused = respond::bytes(406, "application/json", "");
            refused.headers_mut().remove(CONTENT_TYPE);
            Ok(refused)
        }
        RequestInfo::OpenApiV2 => Ok(document(headers, api.openapi.v2(&catalog))),
        RequestInfo::OpenApiIndex => {
            let mut index = respond::value(200, false, &api.openapi.index(&catalog));
            respond::set(&mut index, CONTENT_TYPE, "text/plain; charset=utf-8");
            Ok(index)
        }
        RequestInfo::OpenApi { group, version } => {
            Ok(document(headers, api.openapi.document(&catalog, group, version)))
        }
    }
}

/// A document with its hash, for who does not have it yet.
fn document(headers: &HeaderMap, found: Option<(String, Bytes)>) -> Response {
    let Some((hash, document)) = found else { return respond::page_not_found() };
    let etag = format!("\"{hash}\"");
    not_modified(headers, &etag).unwrap_or_else(|| {
        let gzip = negotiate::takes_gzip(header(headers, http::header::ACCEPT_ENCODING));
        let mut response =
            if gzip { respond::compress(200, document) } else { respond::bytes(200, "application/json", document) };
        respond::tag(&mut response, &etag);
        response
    })
}

/// A document that others may keep for an hour.
fn public(media_type: &'static str, document: &Value) -> Response {
    let mut response = respond::bytes(200, media_type, document.to_string());
    respond::set(&mut response, CACHE_CONTROL, "public, max-age=3600");
    response
}

fn header(headers: &HeaderMap, name: http::header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The answer to who has this document already.
fn not_modified(headers: &HeaderMap, etag: &str) -> Option<Response> {
    let known = header(headers, IF_NONE_MATCH);
    let same = known.split(',').any(|tag| matches!(tag.trim(), tag if tag == etag || tag == "*"));
    same.then(|| {
        let mut response = respond::bytes(304, "application/json", "");
        response.headers_mut().remove(CONTENT_TYPE);
        respond::tag(&mut response, etag);
        response
    })
}

fn aggregated(document: Aggregated, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", document.etag);
    let mut response =
        not_modified(headers, &etag).unwrap_or_else(|| respond::bytes(200, document.content_type, document.json));
    respond::tag(&mut response, &etag);
    respond::set(&mut response, VARY, "Accept");
    response
}
