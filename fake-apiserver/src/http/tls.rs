//! A certificate authority of the server's own: a server certificate for the loopback door and a client certificate for the
//! kubeconfig. Certificates use the system's clock, since clients check them against theirs.

use std::{fmt, net::IpAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::auth;
use crate::base::user::MASTERS;

/// Names that the server certificate is good for besides its address.
const NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// Why certificates could not be made.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The cluster's certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority") // never the key
    }
}

impl Authority {
    /// A new one, with a new key.
    ///
    /// # Errors
    /// What the TLS library says; it has no reason to.
    pub(crate) fn generate() -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = name("fake-apiserver-ca", None);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { pem: issuer.pem(), issuer })
    }

    /// Its certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The server's side of TLS at these addresses: its own certificate, and a look at the client's.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub(crate) fn server(&self, addresses: &[IpAddr]) -> Result<Arc<ServerConfig>, Error> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name = name("kube-apiserver", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;

        // Named here: with two cryptography libraries in a program, rustls would not choose one by itself.
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }

    /// The kubelet's side of TLS at an address. With a client authority (PEM) certificates are looked at, and those that it
    /// has not signed turned away; who shows none comes in, and is known by that.
    ///
    /// # Errors
    /// If the client authority's certificates cannot be read.
    pub(crate) fn node(&self, address: IpAddr, clients: Option<&str>) -> Result<Arc<ServerConfig>, Error> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.subject_alt_names.push(SanType::IpAddress(address));
        params.distinguished_name = name("kubelet", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(certificate?)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.allow_unauthenticated().build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        // Upgrades are HTTP/1.1's.
        let mut server = builder.with_single_cert(vec![certificate.der().clone()], key)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }

    /// A certificate and key of the administrator, PEM.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub(crate) fn client(&self) -> Result<(String, String), Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(auth::ADMIN, Some(MASTERS));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_certificate_names_the_administrator() {
        let (certificate, _) = Authority::generate().unwrap().client().unwrap();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let user = auth::certificate_user(&der).unwrap();
        assert_eq!(user.name, "kubernetes-admin");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }
}
