//! A small HTTPS server that webhooks of tests stand behind.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Answers reviews; it keeps what it was sent.
pub(crate) struct HookServer {
    pub(crate) url: String,
    /// What its certificate is trusted by, in base64.
    pub(crate) ca: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl HookServer {
    /// Answers each review with the status code and the body that `answer` makes of it.
    pub(crate) async fn start(answer: impl Fn(&Value) -> (u16, String) + Send + Sync + 'static) -> Self {
        let names = ["127.0.0.1".to_owned(), "hooks.default.svc".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/review", listener.local_addr().unwrap());
        let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, kept) = (acceptor.clone(), answer.clone(), kept.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let (answer, kept) = (answer.clone(), kept.clone());
                        async move {
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap();
                            let (code, text) = answer(&review);
                            kept.lock().unwrap().push(review);
                            let answer = Response::builder().status(code).header("content-type", "application/json");
                            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(text))).unwrap())
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, ca: base64(cert.pem()), seen }
    }

    pub(crate) fn client_config(&self) -> Value {
        json!({"url": self.url, "caBundle": self.ca})
    }

    /// The reviews so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// Its port on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().trim_end_matches("/review").parse().unwrap()
    }
}
