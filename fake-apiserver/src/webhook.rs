//! Calls webhooks over HTTPS.
//!
//! A call runs on a thread of its own, in real time: while it does, a paused clock stands still, and nobody else waits for
//! it. The words for what goes wrong are those of Go's client, which end up in the answer to whoever wrote.

use std::{io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    base::{
        limits,
        status::{go_quote, json_kind},
    },
    clock::Clock,
    registry::{WebhookCall, WebhookClient},
};

/// Calls webhooks over the network.
pub(crate) fn client() -> WebhookClient {
    WebhookClient(Arc::new(|call| Box::pin(call_apart(call))))
}

/// Makes a call on a thread of its own; who stops waiting ends it.
async fn call_apart(call: WebhookCall) -> Result<Value, String> {
    let stop = CancellationToken::new();
    let (token, _stops_when_dropped) = (stop.clone(), stop.drop_guard());
    let work = move || -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let (clock, url) = (Clock::system(), call.url.clone());
            let answer = clock.timeout(call.timeout, post(&call));
            let answer = token.run_until_cancelled(answer).await.flatten();
            answer.unwrap_or_else(|| Err(format!("Post {}: context deadline exceeded", go_quote(&url))))
        })
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn post(call: &WebhookCall) -> Result<Value, String> {
    let failed = |why: String| format!("Post {}: {why}", go_quote(&call.url));
    let uri: http::Uri = call.url.parse().map_err(|error: http::uri::InvalidUri| failed(error.to_string()))?;
    let authority = uri.authority().ok_or_else(|| failed("no Host in request URL".into()))?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let endpoint = match &call.endpoint {
        Some(endpoint) => endpoint.clone().map_err(failed)?,
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    };
    let stream = TcpStream::connect(&endpoint).await.map_err(|error| failed(dial_error(&endpoint, &error)))?;
    let connector = TlsConnector::from(Arc::new(trusting(&call.ca).map_err(failed)?));
    let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
    let stream = connector.connect(name, stream).await.map_err(|error| failed(tls_error(&error)))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::post(path)
        .header(http::header::HOST, authority.as_str())
        .header(http::header::USER_AGENT, "kube-apiserver-admission")
        .header(http::header::ACCEPT, "application/json, */*")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(call.body.to_string())))
        .map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(http_error(&error)))?;
        let status = response.status();
        let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let body = Limited::new(response.into_body(), limits::BODY_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        read(status, &kind, &body)
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        Err(error) = connection => Err(failed(http_error(&error))),
    }
}

/// An answer, or what Go's REST client makes of its status.
fn read(status: http::StatusCode, kind: &str, body: &[u8]) -> Result<Value, String> {
    let is_text = kind.is_empty() || kind.starts_with("text/");
    let text = || if is_text { String::from_utf8_lossy(body).trim().to_owned() } else { "unknown".into() };
    if status.is_success() {
        return decode(status, kind, body);
    }
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(message) = value.as_ref().filter(|value| value["kind"] == "Status")
        && let Some(message) = message["message"].as_str()
    {
        return Err(message.to_owned());
    }
    Err(match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => format!("forbidden: {}", text()),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        code if code >= 500 => {
            format!("an error on the server ({}) has prevented the request from succeeding", go_quote(&text()))
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    })
}

/// Go's decoder takes what is not JSON for YAML.
fn decode(status: http::StatusCode, kind: &str, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        let code = status.as_u16();
        return Err(format!("0-length response with status code: {code} and content type: {kind}"));
    }
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => serde_saphyr::from_slice(body)
            .map_err(|_| format!("couldn't get version/kind; json parse error: {error}"))?,
    };
    if value.is_object() {
        return Ok(value);
    }
    Err(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion \
         string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
        json_kind(&value)
    ))
}

fn trusting(ca: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca).flatten() {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    // Named here: with two cryptography libraries in a program, rustls would not choose one by itself.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn dial_error(endpoint: &str, error: &io::Error) -> String {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {endpoint}: connect: connection refused"),
        io::ErrorKind::HostUnreachable => format!("dial tcp {endpoint}: connect: no route to host"),
        io::ErrorKind::NetworkUnreachable => format!("dial tcp {endpoint}: connect: network is unreachable"),
        _ if host.parse::<std::net::IpAddr>().is_err() => format!("dial tcp: lookup {host}: no such host"),
        _ => format!("dial tcp {endpoint}: {error}"),
    }
}

fn tls_error(error: &io::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let invalid = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            invalid("certificate signed by unknown authority")
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => invalid("certificate is not valid for this name"),
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            invalid("certificate has expired or is not yet valid")
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

fn http_error(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() { "EOF".into() } else { error.to_string() }
}
