//! Questions about clusters, for whoever is about to choose one. They change nothing.

use std::time::Duration;

use agent_sandbox_sdk::{
    AgentSandboxClient,
    health::HealthError,
    kubeconfig::{ConnectOptions, Environment, KubeconfigError},
};
use axum::extract::State;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PartialObjectMeta},
};
use serde_json::{Value, json};

use super::{
    App,
    envelope::{Answer, Answered, Params},
};
use crate::{
    Code, Error, paths,
    selection::{Choice, DEFAULT_NAMESPACE, Target},
    settings::{CONTEXT_BYTES, PATH_BYTES, Settings},
};

/// How long a cluster may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pods that are counted at most.
const MAX_PODS: u32 = 500;

/// The group of the kinds.
const GROUP: &str = "agents.x-k8s.io";

pub(super) const NAMESPACES: &[(&str, &str)] = &[
    ("kubeconfigPath", "a kubeconfig below the home folder or /etc/kubernetes; default is the settings' cluster"),
    ("context", "a context of the kubeconfig; default is its current one"),
    ("skipTLSVerify", "true to take any certificate; default false"),
    ("limit", "entries at most; default 50"),
];

/// A cluster that was asked about.
struct Asked {
    client: Client,
    context: String,
    cluster: String,
    server: String,
    namespace: String,
}

/// What was asked for, on top of the cluster that is used now. Nothing is a way of saying: that one.
fn target(app: &App, params: &Params) -> Result<(Target, String), Error> {
    let path = params.text("kubeconfigPath", PATH_BYTES)?;
    let context = params.text("context", CONTEXT_BYTES)?;
    let skip_tls_verify = params.flag("skipTLSVerify")?;
    let path = path.map(|path| paths::kubeconfig(path, std::env::home_dir().as_deref())).transpose()?;
    let mut settings = app.store.read(Settings::read)?;
    if path.is_none() {
        settings.resolve_path()?;
    }
    let (used, namespace) = match Choice::of(&settings, &app.clusters.base) {
        Choice::Kubernetes { target, namespace, .. } => (target, namespace),
        Choice::Docker => (app.clusters.base.clone(), DEFAULT_NAMESPACE.to_owned()),
    };
    let embedded = app.clusters.embedded.as_ref();
    let before = match used {
        Target::Embedded if path.is_none() && context.is_none() => return Ok((Target::Embedded, namespace)),
        Target::Embedded => {
            ConnectOptions { kubeconfig: embedded.and_then(|(_, file)| file.clone()), ..ConnectOptions::default() }
        }
        Target::Cluster(options) => options,
    };
    let other_file = path.is_some();
    Ok((
        Target::Cluster(ConnectOptions {
            kubeconfig: path.or(before.kubeconfig),
            context: context.map(str::to_owned).or(if other_file { None } else { before.context }),
            namespace: None,
            skip_tls_verify: skip_tls_verify || (before.skip_tls_verify && !other_file && context.is_none()),
        }),
        namespace,
    ))
}

async fn ask(app: &App, params: &Params) -> Result<Asked, Error> {
    let (target, namespace) = target(app, params)?;
    let options = match target {
        Target::Embedded => {
            let embedded = app.clusters.embedded.as_ref().ok_or_else(|| {
                Error::new(Code::ClusterUnreachable, "there is no cluster: name a kubeconfig or a context")
            })?;
            let client = embedded.0.clone();
            let name = || "embedded".to_owned();
            return Ok(Asked { client, context: name(), cluster: name(), server: "in this process".into(), namespace });
        }
        Target::Cluster(options) => options,
    };
    let access = options.find(&Environment::of_process()).map_err(kubeconfig_error)?;
    let mut config = access.config().await.map_err(kubeconfig_error)?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    let about = access.cluster().clone();
    let client = Client::try_from(config).map_err(|error| {
        Error::new(Code::KubeconfigInvalid, format!("context {:?} cannot be used", about.context)).because(error)
    })?;
    Ok(Asked { client, context: about.context, cluster: about.name, server: about.server, namespace })
}

/// An error about a kubeconfig, which never quotes it.
pub(crate) fn kubeconfig_error(error: KubeconfigError) -> Error {
    let code = match &error {
        KubeconfigError::NotFound { .. } | KubeconfigError::NoneFound { .. } => Code::KubeconfigNotFound,
        KubeconfigError::UnknownContext { .. } => Code::ContextNotFound,
        _ => Code::KubeconfigInvalid,
    };
    Error::new(code, error.to_string()).because(error)
}

/// An answer in time, or an error of that code.
async fn in_time<T>(code: Code, what: &str, question: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Error::new(code, format!("{what}: {}", status.message))),
        Ok(Err(error)) => Err(Error::new(code, format!("{what}: the cluster does not answer")).because(error)),
        Err(_) => Err(Error::new(code, format!("{what}: no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// `GET /api/sandbox/k8s/status`.
pub(super) async fn status(State(app): State<App>, params: Params) -> Answered {
    let Asked { client, context, cluster, server, namespace } = ask(&app, &params).await?;
    let failed = Code::K8sConnection;
    let version = in_time(failed, "the cluster's version was not read", client.apiserver_version()).await?;
    let namespaces = Api::<Namespace>::all(client.clone());
    let found = in_time(failed, "the namespace was not read", namespaces.get_metadata_opt(&namespace)).await?;
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let pods = in_time(failed, "pods were not listed", pods.list(&ListParams::default().limit(MAX_PODS))).await?;
    let running = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    Answer::ok(json!({
        "healthy": true,
        "context": context,
        "cluster": cluster,
        "server": server,
        "serverVersion": version.git_version,
        "namespace": namespace,
        "namespaceExists": found.is_some_and(|found: PartialObjectMeta<Namespace>| found.metadata.deletion_timestamp.is_none()),
        "pods": pods.items.len(),
        "podsRunning": pods.iter().filter(running).count(),
    }))
}

/// `GET /api/sandbox/k8s/controller`. `installed` is `null` where the caller may not list workloads.
pub(super) async fn controller(State(app): State<App>, params: Params) -> Answered {
    let asked = ask(&app, &params).await?;
    let failed = Code::K8sController;
    let version = in_time(failed, "the cluster's version was not read", asked.client.apiserver_version()).await?;
    let sandboxes = AgentSandboxClient::new(asked.client).in_namespace(&asked.namespace);
    let served = match tokio::time::timeout(PATIENCE, sandboxes.sandboxes().version()).await {
        Ok(Ok(version)) => Some(version),
        Ok(Err(agent_sandbox_sdk::Error::NotServed { .. })) => None,
        Ok(Err(error)) => return Err(Error::new(failed, "the cluster's kinds were not read").because(error)),
        Err(_) => return Err(Error::new(failed, format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    let (found, all) = match sandboxes.controllers().await {
        Ok(found) => (found, true),
        Err(HealthError::NotAllListed { found, .. }) => (found, false),
        Err(_) => (Vec::new(), false),
    };
    let installed = match found.is_empty() {
        false => Value::Bool(true),
        true if all => Value::Bool(false),
        true => Value::Null,
    };
    let runs = found.iter().any(|controller| controller.ready > 0);
    Answer::ok(json!({
        "installed": installed,
        "version": found.iter().find_map(|controller| controller.version()),
        "crdRegistered": served.is_some(),
        "crdGroup": GROUP,
        "crdApiVersion": served.map(|version| version.to_string()),
        "clusterVersion": version.git_version,
        "ready": served.is_some() && runs,
    }))
}

/// `GET /api/sandbox/k8s/contexts`.
pub(super) async fn contexts(State(app): State<App>, params: Params) -> Answered {
    let mut options = match target(&app, &params)?.0 {
        Target::Cluster(options) => options,
        Target::Embedded => {
            let file = app.clusters.embedded.as_ref().and_then(|(_, file)| file.clone());
            let Some(file) = file else { return Answer::ok(json!({"contexts": [], "current": null})) };
            ConnectOptions { kubeconfig: Some(file), ..ConnectOptions::default() }
        }
    };
    let environment = Environment::of_process();
    // Which one is chosen does not matter here, and that one is named that is not there even less.
    options.context = None;
    let found = match options.find(&environment) {
        Err(KubeconfigError::NoContext { known, .. }) => match known.first() {
            None => return Answer::ok(json!({"contexts": [], "current": null})),
            Some(first) => {
                options.context = Some(first.clone());
                options.find(&environment)
            }
        },
        found => found,
    };
    let access = found.map_err(|error| Error::new(Code::K8sConfig, error.to_string()).because(error))?;
    let contexts: Vec<Value> = access
        .contexts()
        .map(|context| {
            let mut out = json!({"name": context.name, "cluster": context.cluster, "user": context.user});
            if let Some(namespace) = context.namespace {
                out["namespace"] = namespace.into();
            }
            out
        })
        .collect();
    Answer::ok(json!({"contexts": contexts, "current": access.current_context()}))
}

/// `GET /api/sandbox/k8s/namespaces`.
pub(super) async fn namespaces(State(app): State<App>, params: Params) -> Answered {
    let limit = u32::try_from(params.number("limit", 50, 1, 500)?).unwrap_or(u32::MAX);
    let asked = ask(&app, &params).await?;
    let api = Api::<Namespace>::all(asked.client);
    let list =
        in_time(Code::ApiError, "namespaces were not listed", api.list(&ListParams::default().limit(limit))).await?;
    let items: Vec<Value> = list
        .iter()
        .map(|found| {
            let phase = found.status.as_ref().and_then(|status| status.phase.clone());
            let created = found.creation_timestamp().map(|time| time.0.to_string());
            json!({"name": found.name_any(), "status": phase.unwrap_or_else(|| "Unknown".into()), "createdAt": created})
        })
        .collect();
    Answer::ok(json!({"namespaces": items}))
}
