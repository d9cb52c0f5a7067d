//! Passes logs and streams on to a kubelet of another process, as kube-apiserver passes them on to a node's.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/proxy` (upgrades are passed on byte by byte) and `pkg/kubelet/client` (without a
//! `--kubelet-certificate-authority` a kubelet's certificate is not looked at).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::stream;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Response, Streams};
use crate::base::{Status, limits};

/// How long a kubelet may take to be there (`--kubelet-timeout`).
const DIAL: Duration = Duration::from_secs(5);

/// Asks the kubelet at an address, and hands its answer on; an upgraded connection goes on until one side ends it.
///
/// # Errors
/// If it cannot be reached, and what it refuses, in its words.
pub(super) async fn pass<B: Send + 'static>(
    streams: &Streams,
    address: SocketAddr,
    request: hyper::Request<B>,
    path: &str,
    query: Vec<(String, String)>,
) -> Result<Response, Status> {
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    let target = format!("/{path}?{}", query.join("&"));
    let unreached = |why: String| Status::unexpected(format!("Get \"https://{address}{target}\": {why}"));
    let clock = streams.registry.clock();
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
            _ => format!("dial tcp {address}: {error}"),
        })?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(trusting_anybody().map_err(|error| error.to_string())?));
        connector.connect(ServerName::from(address.ip()), stream).await.map_err(|error| error.to_string())
    };
    let connected =
        clock.timeout(DIAL, connecting).await.unwrap_or_else(|| Err(format!("dial tcp {address}: i/o timeout")));
    let stream = connected.map_err(unreached)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreached(error.to_string()))?;
    streams.tasks.spawn(streams.stop.clone().run_until_cancelled_owned(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a kubelet ended");
        }
    }));
    let mut asked = http::Request::builder().method(request.method()).uri(&target);
    if let Some(headers) = asked.headers_mut() {
        *headers = passed_on(request.headers());
    }
    let asked = asked.header(header::HOST, address.to_string()).body(Empty::<bytes::Bytes>::new());
    let asked = asked.map_err(|error| Status::bad_request(error.to_string()))?;
    let mut answer = sender.send_request(asked).await.map_err(|error| unreached(error.to_string()))?;

    let code = answer.status();
    let mut response = Response::new(super::empty());
    *response.status_mut() = code;
    if code == StatusCode::SWITCHING_PROTOCOLS {
        *response.headers_mut() = answer.headers().clone();
        let (ours, theirs) = (hyper::upgrade::on(request), hyper::upgrade::on(&mut answer));
        streams.tasks.spawn(streams.stop.clone().run_until_cancelled_owned(async move {
            if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
            }
        }));
        return Ok(response);
    }
    if !code.is_success() {
        let body = Limited::new(answer.into_body(), limits::BODY_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(match code {
            StatusCode::BAD_REQUEST => Status::bad_request(text),
            _ => Status::unexpected(text),
        });
    }
    for name in [header::CONTENT_TYPE, header::CACHE_CONTROL] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let pieces = stream::unfold((answer.into_body(), streams.stop.clone()), |(mut body, stop)| async move {
        let frame = stop.run_until_cancelled(body.frame()).await.flatten()?.ok()?;
        let data = frame.into_data().unwrap_or_default();
        Some((Ok(Frame::data(data)), (body, stop)))
    });
    *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
    Ok(response)
}

/// The headers of an upgrade; who the client is, is nobody's business any more.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let ours = [header::HOST, header::AUTHORIZATION, header::COOKIE, header::CONTENT_LENGTH];
    let impersonates = |name: &header::HeaderName| name.as_str().starts_with("impersonate-");
    let kept = headers.iter().filter(|(name, _)| !ours.contains(name) && !impersonates(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A value as it stands in a query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn trusting_anybody() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth())
}

/// Looks at no certificate, as kube-apiserver does unless told whom to trust.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_query() {
        assert_eq!(encoded("echo \"a & b\" é"), "echo%20%22a%20%26%20b%22%20%C3%A9");
    }

    #[test]
    fn who_the_client_is_stays_here() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert("impersonate-user", "alice".parse().unwrap());
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        let passed = passed_on(&headers);
        assert_eq!(passed.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["upgrade"]);
    }
}
