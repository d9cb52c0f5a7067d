//! What a client asks its connection to become, and the answer that makes it so.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Response, empty};
use crate::{base::Status, http::respond};

/// What the streams of a SPDY connection mean; in requests and in the answer.
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// An upgrade that was asked for, with the protocols that the client offers, best first.
#[derive(Debug)]
pub(super) enum Asked {
    /// A WebSocket.
    WebSocket {
        /// The value of `Sec-WebSocket-Accept`.
        accept: String,
        offered: Vec<String>,
    },
    /// SPDY/3.1.
    Spdy { offered: Vec<String> },
}

/// The words of a header, over all lines of it.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a request wants its connection to become another.
pub(in crate::http) fn is_upgrade(headers: &HeaderMap) -> bool {
    words(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"))
}

impl Asked {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// 400 if it asks for no upgrade, or for one to something else.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let upgrade = words(headers, &UPGRADE);
        if !is_upgrade(headers) || upgrade.is_empty() {
            return Err(Status::bad_request("Upgrade request required"));
        }
        if upgrade.iter().any(|word| word.eq_ignore_ascii_case("spdy/3.1")) {
            return Ok(Self::Spdy { offered: words(headers, &PROTOCOL_VERSION) });
        }
        if !upgrade.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
            return Err(Status::bad_request(format!(
                "unable to upgrade: missing upgrade headers in request: {upgrade:?}"
            )));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if key.is_empty() || headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
            return Err(Status::bad_request("not a WebSocket handshake of version 13"));
        }
        Ok(Self::WebSocket { accept: derive_accept_key(key), offered: words(headers, &SEC_WEBSOCKET_PROTOCOL) })
    }

    /// The answer that makes the connection what was asked for; `protocol` is the one chosen of those offered.
    pub(super) fn response(&self, protocol: &'static str) -> Response {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { accept, .. } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                let accept = HeaderValue::from_str(accept).expect("base64 is a header value");
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                if !protocol.is_empty() {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                }
            }
            Self::Spdy { .. } => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
            }
        }
        response
    }
}

/// The protocol of a SPDY connection: the first that the client offers of those that there are. Else what it is told:
/// `Handshake` in `k8s.io/streaming/pkg/httpstream/httpstream.go`.
pub(super) fn choose(offered: &[String], served: &[&'static str]) -> Result<&'static str, Response> {
    let name = "X-Stream-Protocol-Version";
    if offered.is_empty() {
        return Err(respond::text(400, format!("unable to upgrade: header {name} is empty\n")));
    }
    if let Some(protocol) = offered.iter().find_map(|offer| served.iter().find(|name| *name == offer)) {
        return Ok(protocol);
    }
    let (theirs, ours) = (offered.join(" "), served.join(" "));
    let mut response = respond::text(
        403,
        format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{theirs}], server accepts [{ours}]\n"
        ),
    );
    for name in served {
        response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(name));
    }
    Err(response)
}
