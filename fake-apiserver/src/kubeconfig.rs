//! The text of a kubeconfig: pure rendering. It is JSON, which is YAML too.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// What stands in a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    /// Certificate of the authority that signed the server's, PEM.
    pub ca_pem: String,
    /// The user's certificate, PEM.
    pub client_cert_pem: String,
    /// The user's key, PEM.
    pub client_key_pem: String,
}

/// Name of the cluster, user and context.
const NAME: &str = "fake-apiserver";

impl Kubeconfig {
    /// The file's text.
    pub fn render(&self) -> String {
        let value: Value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(self.ca_pem.as_bytes()),
            }}],
            "users": [{"name": NAME, "user": {
                "client-certificate-data": STANDARD.encode(self.client_cert_pem.as_bytes()),
                "client-key-data": STANDARD.encode(self.client_key_pem.as_bytes()),
            }}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
            "current-context": NAME,
        });
        let mut text = serde_json::to_string_pretty(&value).expect("a JSON value encodes");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kube_client_reads_the_text_back() {
        let kubeconfig = Kubeconfig {
            server: "https://127.0.0.1:1234".into(),
            ca_pem: "ca".into(),
            client_cert_pem: "cert".into(),
            client_key_pem: "key".into(),
        };
        let read = kube::config::Kubeconfig::from_yaml(&kubeconfig.render()).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("fake-apiserver"));
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1234"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Y2E="));
    }
}
