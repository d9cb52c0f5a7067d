//! A real etcd and kube-apiserver as children of this process, as envtest starts them, and our controllers and kubelet as
//! their clients.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use fake_apiserver::{
    cluster::outside::{Outside, Settings},
    kubeconfig,
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use super::{ended::Ended, program};

/// How long the two may take until they answer.
const READY: Duration = Duration::from_secs(90);

/// How often they are asked.
const ASK: Duration = Duration::from_millis(100);

/// How often ports are looked for: another process may take one before its owner does.
const ATTEMPTS: usize = 3;

/// Lines of a log that an error shows.
const LOG_LINES: usize = 15;

/// The running control plane; all of it ends with this value.
pub(super) struct ControlPlane {
    _outside: Outside,
    _apiserver: Ended,
    _etcd: Ended,
    _folder: TempDir,
}

impl ControlPlane {
    /// Starts it from a folder with the two programs; the answer's text is a kubeconfig of the administrator.
    pub(super) async fn start(assets: &Path) -> Result<(Self, String)> {
        let (etcd, apiserver) = (program(assets, "etcd")?, program(assets, "kube-apiserver")?);
        let mut attempt = 1;
        loop {
            match Self::attempt(&etcd, &apiserver).await {
                Err(error) if attempt < ATTEMPTS && format!("{error:?}").contains("address already in use") => {
                    attempt += 1;
                }
                started => return started,
            }
        }
    }

    async fn attempt(etcd: &Path, apiserver: &Path) -> Result<(Self, String)> {
        let folder = tempfile::Builder::new().prefix("e2e-control-plane-").tempdir().context("no temporary folder")?;
        let at = |name: &str| folder.path().join(name);
        let keys = Keys::write(folder.path())?;
        let [clients, peers, secure] = free_ports()?;

        let client_url = format!("http://127.0.0.1:{clients}");
        let peer_url = format!("http://127.0.0.1:{peers}");
        let mut store = child(
            Command::new(etcd)
                .arg("--data-dir")
                .arg(at("etcd"))
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &format!("default={peer_url}")])
                .args(["--unsafe-no-fsync", "--log-level", "error"]),
            &at("etcd.log"),
        )?;
        until(|| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, clients)).is_ok(), &mut store, &at("etcd.log"))
            .await?;

        let mut server = child(
            Command::new(apiserver)
                .args(["--etcd-servers", &client_url])
                .args(["--bind-address", "127.0.0.1", "--secure-port", &secure.to_string()])
                .arg("--tls-cert-file")
                .arg(&keys.server.0)
                .arg("--tls-private-key-file")
                .arg(&keys.server.1)
                .arg("--client-ca-file")
                .arg(&keys.ca)
                .arg("--kubelet-client-certificate")
                .arg(&keys.kubelet_client.0)
                .arg("--kubelet-client-key")
                .arg(&keys.kubelet_client.1)
                .arg("--service-account-key-file")
                .arg(&keys.accounts.0)
                .arg("--service-account-signing-key-file")
                .arg(&keys.accounts.1)
                .args(["--service-account-issuer", "https://kubernetes.default.svc.cluster.local"])
                .args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/12"])
                // Nobody takes the taints of new nodes away here.
                .args(["--disable-admission-plugins", "TaintNodesByCondition", "--allow-privileged=true"]),
            &at("kube-apiserver.log"),
        )?;
        let text = kubeconfig::Kubeconfig {
            server: format!("https://127.0.0.1:{secure}"),
            ca_pem: keys.ca_pem.clone(),
            client_cert_pem: keys.admin.0,
            client_key_pem: keys.admin.1,
        }
        .render();
        let config = config(&text).await?;
        let client = Client::try_from(config.clone()).context("no client for kube-apiserver")?;
        answers(&client, &mut server, &at("kube-apiserver.log")).await?;

        let outside = Outside::connect(config, 1).await.map_err(|why| anyhow!(why))?;
        let settings =
            Settings { cluster_controllers: true, kubelet_client_ca: Some(keys.ca_pem), ..Settings::default() };
        outside.start(&settings).await.map_err(|why| anyhow!("our controllers do not start: {why}"))?;
        Ok((Self { _outside: outside, _apiserver: server, _etcd: store, _folder: folder }, text))
    }
}

async fn config(kubeconfig: &str) -> Result<Config> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(config)
}

/// Three ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback");
    let listeners = [listen()?, listen()?, listen()?]; // held together, so that they differ
    let [first, second, third] = &listeners;
    Ok([first.local_addr()?.port(), second.local_addr()?.port(), third.local_addr()?.port()])
}

/// Starts a program that writes into a log.
fn child(command: &Command, log: &Path) -> Result<Ended> {
    let file = fs::File::create(log).context("no log file")?;
    let both = file.try_clone().context("no log file")?;
    let program = command.get_program();
    let child = Ended::program(program, command.get_args(), file.into(), both.into());
    child.with_context(|| format!("{} does not start", program.to_string_lossy()))
}

/// Waits until a condition holds, for as long as the program runs.
async fn until(condition: impl Fn() -> bool, child: &mut Ended, log: &Path) -> Result<()> {
    let end = Instant::now() + READY;
    while !condition() {
        still_runs(child, log)?;
        if Instant::now() > end {
            bail!("{} is not there after {READY:?}; it said\n{}", name(log), tail(log));
        }
        tokio::time::sleep(ASK).await;
    }
    Ok(())
}

async fn answers(client: &Client, child: &mut Ended, log: &Path) -> Result<()> {
    let end = Instant::now() + READY;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new()).context("a constant request")?;
        let error = match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        still_runs(child, log)?;
        if Instant::now() > end {
            bail!("kube-apiserver is not ready after {READY:?}: {error}; it said\n{}", tail(log));
        }
        tokio::time::sleep(ASK).await;
    }
}

fn still_runs(child: &mut Ended, log: &Path) -> Result<()> {
    match child.ended()? {
        None => Ok(()),
        Some(status) => bail!("{} ended with {status}; it said\n{}", name(log), tail(log)),
    }
}

fn name(log: &Path) -> String {
    log.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Certificates and keys: files for the server, texts for its clients.
struct Keys {
    ca: PathBuf,
    ca_pem: String,
    server: (PathBuf, PathBuf),
    kubelet_client: (PathBuf, PathBuf),
    /// Of the tokens of service accounts: public and private key.
    accounts: (PathBuf, PathBuf),
    admin: (String, String),
}

impl Keys {
    fn write(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "e2e-ca");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let signed = |common: &str, organization: Option<&str>, usage| -> Result<(String, String)> {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
            params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
            params.distinguished_name.push(DnType::CommonName, common);
            if let Some(organization) = organization {
                params.distinguished_name.push(DnType::OrganizationName, organization);
            }
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
        };
        let put = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        let pair = |name: &str, (certificate, key): (String, String)| -> Result<(PathBuf, PathBuf)> {
            Ok((put(&format!("{name}.crt"), &certificate)?, put(&format!("{name}.key"), &key)?))
        };
        let accounts = KeyPair::generate()?;
        let clients = ExtendedKeyUsagePurpose::ClientAuth;
        Ok(Self {
            ca: put("ca.crt", &ca.pem())?,
            ca_pem: ca.pem(),
            server: pair("server", signed("kube-apiserver", None, ExtendedKeyUsagePurpose::ServerAuth)?)?,
            kubelet_client: pair("kubelet-client", signed("kube-apiserver-kubelet-client", None, clients.clone())?)?,
            accounts: pair("accounts", (accounts.public_key_pem(), accounts.serialize_pem()))?,
            admin: signed("e2e-admin", Some("system:masters"), clients)?,
        })
    }
}
