//! k3s in a container, driven by the docker program. A library that speaks to the daemon would do it too; the usual one
//! (testcontainers) turns on the daemon's build API, and with it gRPC, in every build of this workspace.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fake_apiserver::cluster::outside::{Outside, Settings};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::ended::Ended;
use crate::{runner::Stop, setup::command::Tool};

/// The image; `K3S_IMAGE` names another.
const IMAGE: &str = "rancher/k3s:v1.36.3-k3s1";

/// How long docker may take for a word, and k3s to be there (its image may have to be pulled).
const WORD: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(300);

/// How often its log is looked at.
const ASK: Duration = Duration::from_secs(1);

/// What k3s says when pods can be made.
const SAYS: &str = "Node controller sync successful";

/// The running container, with our sandbox controllers as its clients; it is removed with this value.
pub(super) struct K3s {
    _outside: Outside,
    _removed: Ended,
}

impl K3s {
    /// Starts it; the answer's text is a kubeconfig of the administrator.
    pub(super) async fn start(stop: &Stop) -> Result<(Self, String)> {
        let docker = Tool::find("docker").context("k3s needs Docker")?.stopping(stop);
        docker.run(&["info", "--format", "{{.ServerVersion}}"], WORD).context("no Docker daemon answers")?;
        let image = std::env::var("K3S_IMAGE").unwrap_or_else(|_| IMAGE.into());
        let name = format!("e2e-k3s-{}", std::process::id());
        // Before there is a container: who is killed while docker pulls its image leaves none.
        let removed = Ended::at_last(docker.path().as_os_str(), ["rm", "--force", "--volumes", &name]);
        let removed = removed.context("no shell to take k3s down with")?;
        let run = [
            "run",
            "--detach",
            "--name",
            &name,
            "--privileged",
            "--label",
            "e2e.agents.x-k8s.io/k3s=true",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/var/run",
            "--publish",
            "127.0.0.1::6443",
            &image,
            "server",
            "--tls-san",
            "127.0.0.1",
            "--disable",
            "traefik,metrics-server",
        ];
        docker.run(&run, READY).context("k3s does not start")?;
        let end = Instant::now() + READY;
        while !docker.both(&["logs", &name], WORD)?.contains(SAYS) {
            if Instant::now() > end {
                bail!("k3s is not ready after {READY:?}; see `docker logs {}`", name);
            }
            tokio::time::sleep(ASK).await;
        }
        let inside = docker.run(&["exec", &name, "cat", "/etc/rancher/k3s/k3s.yaml"], WORD)?;
        let port = docker.run(&["port", &name, "6443/tcp"], WORD)?;
        let address = port.lines().next().map(str::trim).filter(|line| !line.is_empty());
        let address = address.context("docker does not say where k3s listens")?;
        let text = inside.replace("https://127.0.0.1:6443", &format!("https://{address}"));

        let kubeconfig = Kubeconfig::from_yaml(&text).context("k3s' kubeconfig is no YAML")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let outside = Outside::connect(config, 1).await.map_err(|why| anyhow!(why))?;
        let settings = Settings { kubelet: false, ..Settings::default() };
        outside.start(&settings).await.map_err(|why| anyhow!("our controllers do not start: {why}"))?;
        Ok((Self { _outside: outside, _removed: removed }, text))
    }
}
