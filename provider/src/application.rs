//! [`Application`]: everything wired together, without a port and without a command line.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AgentSandboxProvider, Clock, DockerOptions, DockerProvider, Error, KubernetesOptions, SandboxProvider,
    agent::{AgentConfig, AgentService},
    http::{self, Auth, Clusters, Parts},
    selection::{Choice, Connect, Selection, Target},
    settings::Settings,
    store::Store,
};

/// What an application is made of.
pub struct Setup {
    /// What is remembered.
    pub store: Store,
    /// Who may come in.
    pub auth: Auth,
    /// The clusters that there are without any setting.
    pub clusters: Clusters,
    /// How a provider is made; [`connect`] is the usual way.
    pub connect: Connect,
    /// How agents are run, where the settings say nothing about it.
    pub agents: AgentConfig,
    /// Requests per minute and address; 0 for any number.
    pub rate: u32,
}

/// The running application: its HTTP service, and what works behind it.
#[derive(Debug)]
pub struct Application {
    /// The HTTP service.
    pub router: Router,
    /// Which provider is used.
    pub selection: Arc<Selection>,
    /// Agents in sandboxes.
    pub agents: AgentService,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Application {
    /// Starts it on the running tokio runtime. The provider is chosen in the background.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub fn start(setup: Setup) -> Result<Self, Error> {
        let Setup { store, auth, clusters, connect, agents: base, rate } = setup;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let agents = AgentService::new(store.clone(), store.read(Settings::read)?.configure(&base));
        let target = clusters.base.clone();
        let selection = Selection::start(store.clone(), agents.clone(), target, connect, stop.clone(), &tasks);
        let parts = Parts::new(store, selection.clone(), agents.clone(), base, auth, clusters, rate, stop.clone());
        Ok(Self { router: http::app(parts), selection, agents, stop, tasks })
    }

    /// Is cancelled when the application is to end: streams end, and nothing new is begun.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends what works in the background, and waits for it as long as `deadline`. Agents and sandboxes go on.
    pub async fn shutdown(self, deadline: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let end = async {
            self.agents.shutdown().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(deadline, end).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "not everything ended in time");
        }
    }
}

/// Makes providers: on the embedded cluster, whose time `clock` tells, or on a real one.
pub fn connect(embedded: Option<kube::Client>, clock: Clock) -> Connect {
    Box::new(move |choice| {
        let (embedded, clock) = (embedded.clone(), clock.clone());
        Box::pin(async move {
            let provider: Arc<dyn SandboxProvider> = match choice {
                Choice::Docker => Arc::new(DockerProvider::connect(DockerOptions::default()).await?),
                Choice::Kubernetes { target, namespace, warm_pool, runtime_class } => {
                    let options =
                        KubernetesOptions { namespace, warm_pool, runtime_class, ..KubernetesOptions::default() };
                    Arc::new(match (target, embedded) {
                        (Target::Embedded, Some(client)) => {
                            AgentSandboxProvider::new(client, KubernetesOptions { clock, ..options })?
                        }
                        (Target::Embedded, None) => AgentSandboxProvider::connect(options).await?,
                        (Target::Cluster(connect), _) => {
                            AgentSandboxProvider::connect(KubernetesOptions { connect, ..options }).await?
                        }
                    })
                }
            };
            Ok(provider)
        })
    })
}

/// Where an application keeps its things.
pub(crate) fn store_file(folder: &std::path::Path) -> PathBuf {
    folder.join("store.redb")
}
