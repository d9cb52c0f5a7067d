//! The settings page: files that are in the program, which use the same API as everybody.

use axum::{
    extract::{Path, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use rust_embed::RustEmbed;

use crate::{Code, Error};

/// The page's files.
#[derive(RustEmbed)]
#[folder = "ui/"]
struct Files;

/// What a browser is told about everything that comes from here.
const HARDENED: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Adds the headers that tell a browser to be careful.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HARDENED {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// Whether a person's browser asks for a page.
pub(super) fn is_for_people(request: &Request) -> bool {
    let path = request.uri().path();
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    request.method() == Method::GET
        && (path == "/" || path.starts_with("/settings"))
        && accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// The page to bring the token to. It needs nothing else: whoever sees it has no credentials yet.
pub(super) fn login(message: &'static str) -> String {
    const PAGE: &str = include_str!("../../ui/login.html");
    PAGE.replace("{{message}}", message)
}

/// `GET /`.
pub(super) async fn home() -> Redirect {
    Redirect::to("/settings/sandbox")
}

/// `GET /settings/sandbox`.
pub(super) async fn settings() -> Result<Response, Error> {
    let page =
        Files::get("settings.html").ok_or_else(|| Error::new(Code::Internal, "the page is not in the program"))?;
    Ok(Html(page.data.into_owned()).into_response())
}

/// `GET /assets/{file}`.
pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Error> {
    let kind = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => return Err(Error::new(Code::NotFound, "the page has no such file")),
    };
    let file = Files::get(&name).ok_or_else(|| Error::new(Code::NotFound, "the page has no such file"))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok((headers, file.data.into_owned()).into_response())
}
