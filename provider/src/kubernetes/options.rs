//! How sandboxes are made on Kubernetes.

use std::{net::IpAddr, time::Duration};

use agent_sandbox_sdk::kubeconfig::ConnectOptions;

use crate::{Clock, Code, Error, SandboxConfig};

/// How sandboxes are made on Kubernetes.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// Which cluster: kubeconfig, context, whether its certificate is checked (it is, by default). The namespace is the one
    /// below.
    pub connect: ConnectOptions,
    /// The namespace that all sandboxes are in. Default: `agentpane-sandboxes`.
    pub namespace: String,
    /// Whether the namespace is created with the first sandbox if it is not there; it then enforces the Pod Security level
    /// `restricted`. Default: yes.
    pub create_namespace: bool,
    /// What `/workspace` is.
    pub workspace: Workspace,
    /// The runtime class of the pods, such as `gvisor`. Default: the cluster's own.
    pub runtime_class: Option<String>,
    /// Whom sandboxes may talk to; `None` takes away the policy and leaves it to the cluster.
    pub network: Option<NetworkAccess>,
    /// Sandboxes that wait to be asked for; `None` takes away the pool.
    pub warm_pool: Option<WarmPool>,
    /// How long a sandbox may take until commands can be run in it. Default: two minutes.
    pub ready_timeout: Duration,
    /// How long a pod for which no node has room is waited for: a cluster may grow. Default: 30 s.
    pub unschedulable_grace: Duration,
    /// How often activity is written down, which puts off the shutdown of an idle sandbox. At most half of the shortest idle
    /// timeout. Default: 20 s.
    pub activity_interval: Duration,
    /// The cluster's time. Default: this machine's.
    pub clock: Clock,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            connect: ConnectOptions::default(),
            namespace: "agentpane-sandboxes".into(),
            create_namespace: true,
            workspace: Workspace::default(),
            runtime_class: None,
            network: Some(NetworkAccess::default()),
            warm_pool: None,
            ready_timeout: Duration::from_secs(120),
            unschedulable_grace: Duration::from_secs(30),
            activity_interval: Duration::from_secs(20),
            clock: Clock::default(),
        }
    }
}

/// What `/workspace` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspace {
    /// A volume claim that lives as long as the sandbox: through stop, idleness and failure, until it is cleaned up.
    Claim {
        /// Its size, as a Kubernetes quantity.
        size: String,
        /// Its storage class; `None` for the cluster's default.
        storage_class: Option<String>,
    },
    /// A folder of the pod: gone whenever the pod is.
    Empty,
}

impl Default for Workspace {
    /// A claim of 1Gi.
    fn default() -> Self {
        Self::Claim { size: "1Gi".into(), storage_class: None }
    }
}

/// Whom sandboxes may talk to. Nobody may talk to them. Private addresses are closed unless they are named; so are all IPv6
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAccess {
    /// The cluster's DNS. Default: yes.
    pub dns: bool,
    /// Public addresses, port 443. Default: yes.
    pub https: bool,
    /// Public addresses, port 80. Default: no.
    pub http: bool,
    /// Public addresses, port 22. Default: yes.
    pub ssh: bool,
    /// Addresses and blocks (`10.1.2.3`, `10.0.0.0/16`, `fd00::/8`) that are open beside, on ports 80 and 443. Kubernetes
    /// knows no host names here.
    pub allowed_hosts: Vec<String>,
}

impl Default for NetworkAccess {
    fn default() -> Self {
        Self { dns: true, https: true, http: false, ssh: true, allowed_hosts: Vec::new() }
    }
}

impl NetworkAccess {
    /// The allowed hosts as blocks of addresses.
    ///
    /// # Errors
    /// [`Code::NetworkPolicyCreationFailed`] names the first that is neither an address nor a block.
    pub(super) fn blocks(&self) -> Result<Vec<String>, Error> {
        self.allowed_hosts.iter().map(|host| block(host)).collect()
    }
}

fn block(text: &str) -> Result<String, Error> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let parsed = address.parse::<IpAddr>().ok().and_then(|address| {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse::<u8>).ok().filter(|bits| *bits <= width)?;
        Some(format!("{address}/{bits}"))
    });
    parsed.ok_or_else(|| {
        let message = format!(
            "{text:?} cannot be opened: a network policy knows addresses (10.1.2.3) and blocks of them (10.0.0.0/16), no \
             host names"
        );
        Error::new(Code::NetworkPolicyCreationFailed, message).with("host", text)
    })
}

/// Sandboxes that wait to be asked for. They serve those who ask for just their image and size, without environment and
/// folders of their own; others are made as if there were no pool.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmPool {
    /// How many wait. Default: 2.
    pub size: u32,
    /// Their image. Default: [`SandboxConfig::DEFAULT_IMAGE`].
    pub image: String,
    /// Their memory limit in MiB. Default: 4096.
    pub memory_mb: u32,
    /// Their CPU limit in cores. Default: 2.
    pub cpu_cores: f64,
}

impl Default for WarmPool {
    fn default() -> Self {
        let SandboxConfig { image, memory_mb, cpu_cores, .. } = SandboxConfig::new("", "");
        Self { size: 2, image, memory_mb, cpu_cores }
    }
}

impl WarmPool {
    /// Whether a sandbox of the pool is what is asked for.
    pub(super) fn serves(&self, config: &SandboxConfig) -> bool {
        let same_size = config.memory_mb == self.memory_mb && config.cpu_cores == self.cpu_cores;
        config.image == self.image && same_size && config.env.is_empty() && config.volume_mounts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// P2-19: the predecessor took host names and dropped them, and gave IPv6 addresses the mask of IPv4.
    #[rstest]
    #[case("10.1.2.3", Some("10.1.2.3/32"))]
    #[case("10.0.0.0/8", Some("10.0.0.0/8"))]
    #[case("fd00::1", Some("fd00::1/128"))]
    #[case("fd00::/8", Some("fd00::/8"))]
    #[case("github.com", None)]
    #[case("10.0.0.0/33", None)]
    #[case("10.0.0.0/", None)]
    fn hosts_are_addresses_or_blocks_or_are_refused(#[case] host: &str, #[case] wanted: Option<&str>) {
        assert_eq!(block(host).ok().as_deref(), wanted);
    }
}
