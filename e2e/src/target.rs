//! [`Target`]: where a scenario runs. The only file that knows.

use std::{env, net::Ipv4Addr};

use anyhow::{Context, Result};
use fake_apiserver::cluster::Cluster;
use jiff::Timestamp;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::World;

/// An image with a shell; a real cluster pulls it, or the one that `K8S_E2E_IMAGE` names.
const IMAGE: &str = "busybox:1.36";

/// A cluster to run a scenario on.
pub struct Target {
    client: Client,
    image: String,
    /// The fake; a real cluster is nobody's to hold.
    cluster: Option<Cluster>,
}

impl Target {
    /// A fake in memory. On a paused tokio runtime its time is virtual.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn memory() -> Result<Self> {
        let cluster = Cluster::builder().seed(1).start().await.context("the fake does not start")?;
        Ok(Self { client: cluster.client(), image: IMAGE.into(), cluster: Some(cluster) })
    }

    /// A fake behind HTTPS on loopback, in real time, entered with the kubeconfig that it writes for others.
    ///
    /// # Errors
    /// If it does not start, or its kubeconfig is no good.
    pub async fn https() -> Result<Self> {
        let cluster = Cluster::builder().seed(1).system_time().start().await.context("the fake does not start")?;
        let door = cluster.serve_https((Ipv4Addr::LOCALHOST, 0).into()).await.context("no HTTPS door")?;
        let kubeconfig = Kubeconfig::from_yaml(&door.render()).context("the fake's kubeconfig is no YAML")?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("the fake's kubeconfig")?;
        // A proxy in the environment would be taken up, and has no business on loopback.
        config.proxy_url = None;
        let client = Client::try_from(config).context("no client for the fake's kubeconfig")?;
        Ok(Self { client, image: IMAGE.into(), cluster: Some(cluster) })
    }

    /// The cluster of the environment's kubeconfig if `K8S_E2E` is `true`. It must have the controller.
    ///
    /// # Errors
    /// If it is asked for and cannot be reached.
    pub async fn real() -> Result<Option<Self>> {
        if env::var("K8S_E2E").as_deref() != Ok("true") {
            return Ok(None);
        }
        let client = Client::try_default().await.context("K8S_E2E is set, and there is no usable kubeconfig")?;
        client.apiserver_version().await.context("K8S_E2E is set, and the cluster does not answer")?;
        let image = env::var("K8S_E2E_IMAGE").unwrap_or_else(|_| IMAGE.into());
        Ok(Some(Self { client, image, cluster: None }))
    }

    /// Runs a scenario in a namespace of its own and cleans up after it, whatever came of it.
    ///
    /// # Errors
    /// The scenario's, with what was in the namespace then.
    pub async fn run(self, scenario: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
        let Self { client, image, cluster } = self;
        // Virtual or not, the fake tells its own time; a real cluster is trusted to be near ours.
        let clock = cluster.as_ref().map(|cluster| cluster.clock().clone());
        let now = move || clock.as_ref().map_or_else(Timestamp::now, |clock| clock.now());
        let world = World::new(client, image, now).await?;
        let mut outcome = scenario(&world).await;
        if let Err(error) = outcome {
            let mut there = world.dump().await;
            if let Some(cluster) = &cluster {
                there.push_str(&cluster.dump().await);
            }
            outcome = Err(error.context(format!("the scenario failed; there was then\n{there}")));
        }
        let tidied = world.tear_down().await;
        drop(world);
        if let Some(cluster) = cluster {
            cluster.shutdown().await;
        }
        outcome.and(tidied)
    }
}
