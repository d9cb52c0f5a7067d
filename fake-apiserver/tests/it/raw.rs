//! A client that sends bytes as they are.

use std::{net::SocketAddr, sync::Arc};

use fake_apiserver::{cluster::Cluster, kubeconfig::Kubeconfig};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const TOKEN: &str = "a-token-for-tests";

/// A cluster without actors, its HTTPS door, and the way in.
pub(crate) struct Door {
    pub(crate) cluster: Cluster,
    pub(crate) kubeconfig: Kubeconfig,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().expect("a Status has a message").into()
    }
}

impl Door {
    pub(crate) async fn open() -> Self {
        let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).token(TOKEN).start().await.unwrap();
        let kubeconfig = cluster.serve_https("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = kubeconfig.server.strip_prefix("https://").unwrap().parse().unwrap();
        Self { cluster, kubeconfig, address }
    }

    pub(crate) async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.kubeconfig.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    /// One request on a connection of its own; `authorization` stands as it is.
    pub(crate) async fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let auth = format!("Authorization: Bearer {TOKEN}\r\n{headers}");
        self.anonymous(method, path, &auth, body).await
    }

    /// As [`request`](Self::request), with nothing that says who asks.
    pub(crate) async fn anonymous(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.tls(&[]).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(body).await; // the server may answer before it has read all
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // a close without a TLS goodbye is a close
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, head, body: answer[end + 4..].to_vec() }
    }

    /// kube's client, as it comes in with a kubeconfig.
    pub(crate) async fn client_of(kubeconfig: &Kubeconfig) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig.render()).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        config.proxy_url = None;
        kube::Client::try_from(config).unwrap()
    }

    /// The server still serves.
    pub(crate) async fn is_well(&self) {
        assert_eq!(self.request("GET", "/api/v1/namespaces/default", "", b"").await.code, 200);
    }
}
