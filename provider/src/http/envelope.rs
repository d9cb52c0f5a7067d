//! How answers look: `{"ok": true, "data": …}`, and `{"ok": false, "error": {"code", "message", "details", "status"}}`.

use std::{error::Error as StdError, fmt::Write};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::limits::{BODY_TIME, MAX_BODY_BYTES, MAX_ID_BYTES};
use crate::{
    Code, Error,
    shape::{self, Field, Problem},
};

/// A good answer.
pub(super) struct Answer {
    status: StatusCode,
    data: Option<Value>,
}

/// What a handler answers.
pub(super) type Answered = Result<Answer, Error>;

impl Answer {
    /// 200 with data.
    pub(super) fn ok(data: impl Serialize) -> Answered {
        Self::of(StatusCode::OK, data)
    }

    /// 201 with what was made.
    pub(super) fn created(data: impl Serialize) -> Answered {
        Self::of(StatusCode::CREATED, data)
    }

    /// 200 without data.
    pub(super) fn done() -> Answered {
        Ok(Self { status: StatusCode::OK, data: None })
    }

    pub(super) fn of(status: StatusCode, data: impl Serialize) -> Answered {
        let data = serde_json::to_value(data)
            .map_err(|error| Error::new(Code::Internal, "the answer could not be written").because(error))?;
        Ok(Self { status, data: Some(data) })
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut body = json!({"ok": true});
        if let Some(data) = self.data {
            body["data"] = data;
        }
        (self.status, Json(body)).into_response()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = %self.code(), cause = %causes(&self), "{}", self.message());
        }
        let mut error = json!({"code": self.code(), "message": self.message(), "status": status.as_u16()});
        if !self.details().is_empty() {
            error["details"] = json!(self.details());
        }
        let wait = self.details().get("retryAfterSeconds").and_then(Value::as_u64);
        let mut response = (status, Json(json!({"ok": false, "error": error}))).into_response();
        if let Some(seconds) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What is behind an error, for the log.
pub(crate) fn causes(error: &dyn StdError) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let separator = if text.is_empty() { "" } else { ": " };
        let _ = write!(text, "{separator}{cause}"); // a String takes everything
        next = cause.source();
    }
    text
}

/// The id in the path: letters, digits, `_` and `-`, 100 at most.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let id = params.ok().and_then(|params| params.iter().next().map(|(_, id)| id.to_owned()));
        id.filter(|id| is_id(id)).map(Self).ok_or_else(|| {
            Error::new(Code::InvalidId, "an id has 1 to 100 letters, digits, '_' and '-', and nothing else")
        })
    }
}

/// Whether the text is an id.
pub(super) fn is_id(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(good)
}

/// A body that is JSON; none is an empty object.
pub(super) struct Body(Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let bytes = bytes(request).await?;
        if bytes.is_empty() {
            return Ok(Self(json!({})));
        }
        // Where it is wrong, and not what stands there: it may be a secret.
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("the body is not JSON: line {}, column {}", error.line(), error.column());
            Error::new(Code::InvalidJson, message)
        })?;
        Ok(Self(value))
    }
}

/// The bytes of a body, if they are not too many.
pub(super) async fn bytes(request: Request) -> Result<bytes::Bytes, Error> {
    match in_time(Limited::new(request.into_body(), MAX_BODY_BYTES).collect()).await? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Error::new(Code::InvalidJson, "the body did not arrive whole").because(error)),
    }
}

/// Waits for a body, but not for ever.
pub(super) async fn in_time<T>(body: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(BODY_TIME, body).await.map_err(|_| {
        let message = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
        Error::new(Code::RequestTimeout, message)
    })
}

pub(super) fn too_large() -> Error {
    Error::new(Code::PayloadTooLarge, format!("a body has at most {MAX_BODY_BYTES} bytes"))
}

impl Body {
    /// Checks it and reads it.
    pub(super) fn read<T: DeserializeOwned>(self, fields: &[Field]) -> Result<T, Error> {
        shape::read(fields, self.0)
    }

    /// The object that it is, with no more looked at.
    pub(super) fn object(self) -> Result<Map<String, Value>, Error> {
        match self.0 {
            Value::Object(object) => Ok(object),
            _ => Err(Error::new(Code::Validation, "the body must be a JSON object")),
        }
    }
}

/// The query.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| Error::new(Code::Validation, "the query cannot be read"))
    }
}

impl Params {
    /// The first value of the name; an empty one is as good as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// A whole number in bounds.
    pub(super) fn number(&self, name: &'static str, default: u64, min: u64, max: u64) -> Result<u64, Error> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(bad(name, format!("must be a whole number from {min} to {max}"))),
        }
    }

    /// A switch, off by default.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(bad(name, "must be true or false")),
        }
    }

    /// A text of at most so many bytes, without control characters.
    pub(super) fn text(&self, name: &'static str, max: usize) -> Result<Option<&str>, Error> {
        match self.get(name) {
            Some(text) if text.len() > max || text.chars().any(char::is_control) => {
                Err(bad(name, format!("must have at most {max} bytes and no control characters")))
            }
            found => Ok(found),
        }
    }
}

/// [`Code::Validation`] about one thing.
pub(super) fn bad(path: impl Into<String>, message: impl Into<String>) -> Error {
    match shape::refuse(&[Problem::new(path, message)]) {
        Err(error) => error,
        Ok(()) => unreachable!("there is a problem"),
    }
}
