//! Paths that are no resources: discovery, health, version, metrics, OpenAPI.

use std::sync::Arc;

use http::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE, IF_NONE_MATCH, VARY},
};
use serde_json::{Value, json};

use super::{
    Api, negotiate,
    path::RequestInfo,
    query::Query,
    respond::{self, Response},
};
use crate::{
    base::Status,
    discovery::{self, Aggregated},
};

/// The checks that the real server lists under `?verbose` and that make sense here.
const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

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
        RequestInfo::Resource(_) | RequestInfo::Unknown => Ok(respond::page_not_found()),
        RequestInfo::ServerVersion => Ok(plain(discovery::server_version())),
        RequestInfo::Health { endpoint, check } => Ok(health(endpoint, check, query)),
        RequestInfo::Metrics => Err(Status::not_implemented("metrics of the API server")),
        RequestInfo::OpenApiV2 => Err(Status::not_implemented("OpenAPI v2 documents")),
        RequestInfo::OpenApiIndex => {
            let mut index = respond::value(200, false, &api.openapi.index(&catalog));
            respond::set(&mut index, CONTENT_TYPE, "text/plain; charset=utf-8");
            Ok(index)
        }
        RequestInfo::OpenApi { group, version } => Ok(match api.openapi.document(&catalog, group, version) {
            Some((hash, document)) => {
                let etag = format!("\"{hash}\"");
                match not_modified(headers, &etag) {
                    Some(response) => response,
                    None => {
                        let mut response = match negotiate::takes_gzip(header(headers, http::header::ACCEPT_ENCODING)) {
                            true => respond::compress(200, document),
                            false => respond::bytes(200, "application/json", document),
                        };
                        respond::tag(&mut response, &etag);
                        response
                    }
                }
            }
            None => respond::page_not_found(),
        }),
    }
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

/// A server that answers is healthy; the checks are listed as upstream lists its own.
fn health(endpoint: &'static str, check: &str, query: &Query) -> Response {
    if !check.is_empty() {
        return if CHECKS.contains(&check) { respond::text(200, "ok") } else { respond::page_not_found() };
    }
    if query.get("verbose").is_none() {
        return respond::text(200, "ok");
    }
    let excluded: Vec<&str> =
        query.pairs().iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let mut text = String::new();
    for check in CHECKS {
        let verdict = if excluded.contains(&check) { "excluded: ok" } else { "ok" };
        text.push_str(&format!("[+]{check} {verdict}\n"));
    }
    text.push_str(&format!("{endpoint} check passed\n"));
    respond::text(200, text)
}
