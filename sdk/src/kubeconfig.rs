//! Which cluster: a kubeconfig is found, one of its contexts is chosen, and a client made of it.
//!
//! Five places are looked at, in this order, and the first that has something decides:
//!
//! | | place | a file that is not there |
//! |---|---|---|
//! | 1 | the path that the caller gives | is an error |
//! | 2 | the path in `K8S_KUBECONFIG` | is an error |
//! | 3 | the paths in `KUBECONFIG`, merged as kubectl merges them | is passed over |
//! | 4 | `~/.kube/config` | is passed over |
//! | 5 | the service account of the pod that this runs in | – |
//!
//! A file that is there and cannot be used is an error at every place: going on to the next would reach a cluster that
//! nobody meant. An empty variable counts as unset, and `~` is nothing special in a path.
//!
//! Errors tell where a file is wrong and never quote it: it holds secrets.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use kube::{
    Client, Config,
    client::{AuthError, ClientBuilder},
    config::{
        AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError as Cause, NamedAuthInfo,
        NamedCluster, NamedContext,
    },
};
use tower::{buffer::BufferLayer, retry::RetryLayer};

use crate::retry::Patience;

/// Requests that wait for one connection to take them; kube-rs' own number.
const REQUESTS: usize = 1024;

/// What the context of a pod's service account is called.
const IN_CLUSTER: &str = "in-cluster";

/// What is looked at besides the caller's own path. A test makes one by hand; nothing else reads the process's own.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment};
///
/// let nothing = Environment::default();
/// assert!(ConnectOptions::default().find(&nothing).unwrap_err().to_string().starts_with("no cluster is configured"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `K8S_KUBECONFIG`: one path.
    pub k8s_kubeconfig: Option<OsString>,
    /// `KUBECONFIG`: paths, separated as in `PATH`.
    pub kubeconfig: Option<OsString>,
    /// The home folder, which may hold `.kube/config`.
    pub home: Option<PathBuf>,
    /// `KUBERNETES_SERVICE_HOST`: set in every pod.
    pub service_host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`. Default: 443.
    pub service_port: Option<String>,
    /// The folder with the pod's `token`, `ca.crt` and `namespace`.
    pub service_account: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    ///
    /// # Examples
    /// ```
    /// let environment = agent_sandbox_sdk::kubeconfig::Environment::of_process();
    /// assert!(environment.service_account.is_some());
    /// ```
    pub fn of_process() -> Self {
        Self {
            k8s_kubeconfig: env::var_os("K8S_KUBECONFIG"),
            kubeconfig: env::var_os("KUBECONFIG"),
            home: env::home_dir(),
            service_host: env::var("KUBERNETES_SERVICE_HOST").ok(),
            service_port: env::var("KUBERNETES_SERVICE_PORT").ok(),
            service_account: Some("/var/run/secrets/kubernetes.io/serviceaccount".into()),
        }
    }
}

/// Which kubeconfig, and what of it. The default: the first that is found, its current context, its namespace.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment};
///
/// # async fn example() -> Result<(), agent_sandbox_sdk::kubeconfig::KubeconfigError> {
/// let options = ConnectOptions { context: Some("staging".into()), ..Default::default() };
/// let access = options.find(&Environment::of_process())?;
/// println!("{} at {}", access.cluster().name, access.cluster().server);
/// let client = access.connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The kubeconfig file. Default: see the [module](self).
    pub kubeconfig: Option<PathBuf>,
    /// The context. Default: the file's current one.
    pub context: Option<String>,
    /// The namespace. Default: the context's, else `default`.
    pub namespace: Option<String>,
    /// Takes any certificate of the chosen cluster's server, and of no other cluster's. Default: no. Whoever stands
    /// between can then read and change everything.
    pub skip_tls_verify: bool,
}

impl ConnectOptions {
    /// Finds and reads the kubeconfig and chooses the context. Nothing is sent, and no plugin is run yet.
    ///
    /// # Errors
    /// [`KubeconfigError`], but for `PluginFailed` and `ClientFailed`.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment, KubeconfigError};
    ///
    /// let options = ConnectOptions { kubeconfig: Some("/no/such/file".into()), ..Default::default() };
    /// assert!(matches!(options.find(&Environment::default()), Err(KubeconfigError::NotFound { .. })));
    /// ```
    pub fn find(&self, environment: &Environment) -> Result<ClusterAccess, KubeconfigError> {
        let (kubeconfig, source) = self.read(environment)?;
        self.choose(kubeconfig, source)
    }

    fn read(&self, environment: &Environment) -> Result<(Kubeconfig, Source), KubeconfigError> {
        if let Some(path) = &self.kubeconfig {
            return Ok((read_file(path)?, Source::Path(path.clone())));
        }
        if let Some(path) = not_empty(environment.k8s_kubeconfig.as_ref()) {
            let path = PathBuf::from(path);
            return Ok((read_file(&path)?, Source::K8sKubeconfig(path)));
        }
        let mut passed_over = Vec::new();
        if let Some(paths) = not_empty(environment.kubeconfig.as_ref()) {
            let mut found = Vec::new();
            let mut merged: Option<Kubeconfig> = None;
            for path in env::split_paths(paths).filter(|path| !path.as_os_str().is_empty()) {
                match read_file(&path) {
                    Ok(next) => {
                        merged = Some(match merged {
                            None => next,
                            Some(before) => before.merge(next).map_err(|cause| invalid(&path, cause))?,
                        });
                        found.push(path);
                    }
                    Err(KubeconfigError::NotFound { path }) => passed_over.push(path),
                    Err(error) => return Err(error),
                }
            }
            if let Some(merged) = merged {
                return Ok((merged, Source::Kubeconfig(found)));
            }
        }
        if let Some(home) = &environment.home {
            let path = home.join(".kube").join("config");
            match read_file(&path) {
                Ok(kubeconfig) => return Ok((kubeconfig, Source::Home(path))),
                Err(KubeconfigError::NotFound { path }) => passed_over.push(path),
                Err(error) => return Err(error),
            }
        }
        match in_cluster(environment) {
            Some(kubeconfig) => Ok((kubeconfig, Source::InCluster)),
            None => Err(KubeconfigError::NoneFound { passed_over }),
        }
    }

    fn choose(&self, mut kubeconfig: Kubeconfig, source: Source) -> Result<ClusterAccess, KubeconfigError> {
        let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
        let current = kubeconfig.current_context.as_ref().filter(|current| !current.is_empty());
        let Some(name) = self.context.as_ref().or(current).cloned() else {
            return Err(KubeconfigError::NoContext { origin: source, known });
        };
        let context = kubeconfig.contexts.iter_mut().find(|context| context.name == name);
        let Some(context) = context.and_then(|named| named.context.as_mut()) else {
            return Err(KubeconfigError::UnknownContext { context: name, origin: source, known });
        };
        if let Some(namespace) = &self.namespace {
            context.namespace = Some(namespace.clone());
        }
        let namespace = context.namespace.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
        let (cluster_name, user) = (context.cluster.clone(), context.user.clone().filter(|user| !user.is_empty()));
        // A user that is named and not there would go unnoticed, and the cluster would meet a stranger.
        if let Some(user) = user.filter(|user| !kubeconfig.auth_infos.iter().any(|known| known.name == *user)) {
            return Err(KubeconfigError::UnknownUser { context: name, user, origin: source });
        }
        let cluster = kubeconfig.clusters.iter_mut().find(|cluster| cluster.name == cluster_name);
        let Some(cluster) = cluster.and_then(|named| named.cluster.as_mut()) else {
            return Err(KubeconfigError::UnknownCluster { context: name, cluster: cluster_name, origin: source });
        };
        if self.skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        let info = ClusterInfo {
            context: name.clone(),
            name: cluster_name,
            server: cluster.server.clone().unwrap_or_default(),
            namespace,
            verifies_tls: cluster.insecure_skip_tls_verify != Some(true),
        };
        let current = kubeconfig.current_context.replace(name).filter(|current| !current.is_empty());
        Ok(ClusterAccess { kubeconfig, source, info, current })
    }
}

/// Where a kubeconfig came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The caller's own path.
    Path(PathBuf),
    /// `K8S_KUBECONFIG`.
    K8sKubeconfig(PathBuf),
    /// `KUBECONFIG`: the files of it that exist.
    Kubeconfig(Vec<PathBuf>),
    /// The home folder.
    Home(PathBuf),
    /// The pod's service account.
    InCluster,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::K8sKubeconfig(path) => write!(f, "{} (from K8S_KUBECONFIG)", path.display()),
            Self::Kubeconfig(paths) => write!(f, "{} (from KUBECONFIG)", texts(paths).join(", ")),
            Self::Home(path) => write!(f, "{}", path.display()),
            Self::InCluster => f.write_str("the pod's service account"),
        }
    }
}

/// What a context says about its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterInfo {
    /// The context's name.
    pub context: String,
    /// The cluster's name in the kubeconfig.
    pub name: String,
    /// The server's address.
    pub server: String,
    /// The namespace that is meant when none is named.
    pub namespace: String,
    /// Whether the server has to prove who it is.
    pub verifies_tls: bool,
}

/// A context of a kubeconfig, by the names that stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextInfo {
    /// Its name.
    pub name: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Its user's name.
    pub user: String,
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
}

/// A kubeconfig with a context chosen. Its `Debug` shows no credentials.
#[derive(Clone)]
pub struct ClusterAccess {
    kubeconfig: Kubeconfig,
    source: Source,
    info: ClusterInfo,
    current: Option<String>,
}

impl fmt::Debug for ClusterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kubeconfig: _, source, info, current: _ } = self;
        f.debug_struct("ClusterAccess").field("source", source).field("info", info).finish_non_exhaustive()
    }
}

impl ClusterAccess {
    /// Where it came from.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment, Source};
    ///
    /// # fn example() -> Result<(), agent_sandbox_sdk::kubeconfig::KubeconfigError> {
    /// let access = ConnectOptions::default().find(&Environment::of_process())?;
    /// if let Source::InCluster = access.source() {
    ///     println!("in a pod");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The chosen context's cluster.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::kubeconfig::{ClusterAccess, ClusterInfo};
    ///
    /// # fn example(access: ClusterAccess) {
    /// let ClusterInfo { name, server, .. } = access.cluster();
    /// println!("{name} at {server}");
    /// # }
    /// ```
    pub fn cluster(&self) -> &ClusterInfo {
        &self.info
    }

    /// All contexts, in the order of the file.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::kubeconfig::{ClusterAccess, ContextInfo};
    ///
    /// # fn example(access: ClusterAccess) {
    /// let contexts: Vec<ContextInfo> = access.contexts().collect();
    /// contexts.iter().for_each(|context| println!("{}", context.name));
    /// # }
    /// ```
    pub fn contexts(&self) -> impl Iterator<Item = ContextInfo> {
        self.kubeconfig.contexts.iter().map(|named| {
            let context = named.context.clone().unwrap_or_default();
            ContextInfo {
                name: named.name.clone(),
                cluster: context.cluster,
                user: context.user.unwrap_or_default(),
                namespace: context.namespace.filter(|namespace| !namespace.is_empty()),
            }
        })
    }

    /// The context that the file has as its current one, whichever was chosen.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(access: agent_sandbox_sdk::kubeconfig::ClusterAccess) {
    /// println!("{}", access.current_context().unwrap_or("none"));
    /// # }
    /// ```
    pub fn current_context(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// The configuration of a kube-rs client, for who wants to change it (timeouts, headers). Certificates are read now.
    ///
    /// # Errors
    /// [`KubeconfigError::Unusable`]: no or a bad address, a certificate or key that cannot be read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(access: agent_sandbox_sdk::kubeconfig::ClusterAccess) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut config = access.config().await?;
    /// config.connect_timeout = Some(std::time::Duration::from_secs(5));
    /// let client = kube::Client::try_from(config)?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn config(&self) -> Result<Config, KubeconfigError> {
        let options = KubeConfigOptions { context: Some(self.info.context.clone()), ..Default::default() };
        Config::from_custom_kubeconfig(self.kubeconfig.clone(), &options)
            .await
            .map_err(|source| KubeconfigError::Unusable { context: self.info.context.clone(), source })
    }

    /// A client. An exec plugin of the chosen user is run now, and again when what it gave runs out; nothing is sent to
    /// the server yet.
    ///
    /// The client sends a request up to four times again that the server is too busy for (429, and 5xx with
    /// `Retry-After`), and one that changes nothing also when a gateway finds no server (502, 503, 504). It waits as long
    /// as the server asks, up to ten seconds; if asked for more it does not wait, and the error tells how long.
    ///
    /// # Errors
    /// As [`config`](Self::config), and [`KubeconfigError::PluginFailed`] and [`KubeconfigError::ClientFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(access: agent_sandbox_sdk::kubeconfig::ClusterAccess) -> Result<(), Box<dyn std::error::Error>> {
    /// let sandboxes = agent_sandbox_sdk::AgentSandboxClient::new(access.connect().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(&self) -> Result<Client, KubeconfigError> {
        let mut config = self.config().await?;
        config.default_retry = false;
        let context = || self.info.context.clone();
        let failed = |error| {
            let why = if let kube::Error::Auth(error) = &error { plugin_failure(error) } else { None };
            match why {
                Some(why) => KubeconfigError::PluginFailed { context: context(), why },
                None => KubeconfigError::ClientFailed { context: context(), source: Box::new(error) },
            }
        };
        let builder = ClientBuilder::try_from(config).map_err(failed)?;
        let again = RetryLayer::new(Patience::default());
        Ok(builder.with_layer(&BufferLayer::new(REQUESTS)).with_layer(&again).build())
    }
}

/// Why there is no client for a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// The file that was named does not exist.
    #[error("kubeconfig {} does not exist", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },

    /// The file is there and was not read: it is a folder, or may not be read.
    #[error("kubeconfig {} was not read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The file is no kubeconfig.
    #[error("kubeconfig {} is invalid: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and at which line, without the file's words.
        why: String,
    },

    /// No place has a kubeconfig, and this is no pod.
    #[error(
        "no cluster is configured: give a path, set K8S_KUBECONFIG or KUBECONFIG, or run in a pod{}",
        passed_over_text(passed_over)
    )]
    NoneFound {
        /// Files that were named or usual and do not exist.
        passed_over: Vec<PathBuf>,
    },

    /// No context was asked for, and the file has no current one.
    #[error("{origin} has no current context; it knows {}", known_text(known))]
    NoContext {
        /// Where the kubeconfig came from.
        origin: Source,
        /// The contexts that it has.
        known: Vec<String>,
    },

    /// There is no such context.
    #[error("{origin} has no context {context:?}; it knows {}", known_text(known))]
    UnknownContext {
        /// What was asked for.
        context: String,
        /// Where the kubeconfig came from.
        origin: Source,
        /// The contexts that it has.
        known: Vec<String>,
    },

    /// The context names a cluster that is not there.
    #[error("context {context:?} of {origin} is for cluster {cluster:?}, which is not in it")]
    UnknownCluster {
        /// The context.
        context: String,
        /// The cluster.
        cluster: String,
        /// Where the kubeconfig came from.
        origin: Source,
    },

    /// The context names a user that is not there.
    #[error("context {context:?} of {origin} is for user {user:?}, who is not in it")]
    UnknownUser {
        /// The context.
        context: String,
        /// The user.
        user: String,
        /// Where the kubeconfig came from.
        origin: Source,
    },

    /// The context's cluster or user cannot be used: its address, a certificate or a key.
    #[error("context {context:?} cannot be used")]
    Unusable {
        /// The context.
        context: String,
        /// Why.
        source: Cause,
    },

    /// The user's exec plugin gave no credentials. What it printed is left out: it may be one.
    #[error("the exec plugin of context {context:?} gave no credentials: {why}")]
    PluginFailed {
        /// The context.
        context: String,
        /// Why.
        why: String,
    },

    /// No client could be made of the configuration.
    #[error("no client could be made for context {context:?}")]
    ClientFailed {
        /// The context.
        context: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl KubeconfigError {
    /// Whether the same call may succeed if made again: only a plugin may have been out of luck.
    ///
    /// # Examples
    /// ```
    /// let error = agent_sandbox_sdk::kubeconfig::KubeconfigError::NotFound { path: "/x".into() };
    /// assert!(!error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::PluginFailed { .. })
    }
}

fn not_empty(value: Option<&OsString>) -> Option<&OsString> {
    value.filter(|value| !value.is_empty())
}

fn read_file(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    Kubeconfig::read_from(path).map_err(|cause| match cause {
        Cause::ReadConfig(source, path) if source.kind() == io::ErrorKind::NotFound => {
            KubeconfigError::NotFound { path }
        }
        Cause::ReadConfig(source, path) => KubeconfigError::Unreadable { path, source },
        cause => invalid(path, cause),
    })
}

/// A parser's message quotes the file, which holds tokens and keys: only the place is told.
fn invalid(path: &Path, cause: Cause) -> KubeconfigError {
    let why = match &cause {
        Cause::Parse(error) => match error.location() {
            Some(at) => format!("not the YAML of a kubeconfig at line {}, column {}", at.line(), at.column()),
            None => "not the YAML of a kubeconfig".into(),
        },
        other => other.to_string(),
    };
    KubeconfigError::Invalid { path: path.to_owned(), why }
}

/// What a pod's service account amounts to. Token and certificates stay in their files, which are replaced from time to
/// time.
fn in_cluster(environment: &Environment) -> Option<Kubeconfig> {
    let folder = environment.service_account.as_ref()?;
    let host = environment.service_host.as_ref().filter(|host| !host.is_empty())?;
    let token = folder.join("token");
    if !token.is_file() {
        return None;
    }
    let port = environment.service_port.as_deref().filter(|port| !port.is_empty()).unwrap_or("443");
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let namespace = std::fs::read_to_string(folder.join("namespace")).ok();
    let cluster = Cluster {
        server: Some(format!("https://{host}:{port}")),
        certificate_authority: Some(text(folder.join("ca.crt"))),
        ..Default::default()
    };
    let user = AuthInfo { token_file: Some(text(token)), ..Default::default() };
    let context = Context {
        cluster: IN_CLUSTER.into(),
        user: Some(IN_CLUSTER.into()),
        namespace: namespace.map(|namespace| namespace.trim().to_owned()),
        ..Default::default()
    };
    let name = || IN_CLUSTER.to_owned();
    Some(Kubeconfig {
        clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), ..Default::default() }],
        auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), ..Default::default() }],
        contexts: vec![NamedContext { name: name(), context: Some(context), ..Default::default() }],
        current_context: Some(name()),
        ..Default::default()
    })
}

/// Why a plugin failed, if that is what went wrong, without what it printed.
pub(crate) fn plugin_failure(error: &AuthError) -> Option<String> {
    match error {
        AuthError::AuthExecStart(source) => Some(format!("it was not started: {source}")),
        AuthError::AuthExecRun { cmd: _, out } => Some(format!("it ended with {}", out.status)),
        AuthError::AuthExecParse(_) => Some("what it printed is no ExecCredential".into()),
        AuthError::ExecPluginFailed => Some("what it printed has no status".into()),
        AuthError::MissingCommand => Some("it has no command".into()),
        AuthError::AuthExec(why) => Some(why.clone()),
        _ => None,
    }
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

fn passed_over_text(paths: &[PathBuf]) -> String {
    if paths.is_empty() { String::new() } else { format!(" (not there: {})", texts(paths).join(", ")) }
}

fn known_text(known: &[String]) -> String {
    if known.is_empty() { "none".into() } else { known.join(", ") }
}

#[cfg(test)]
mod tests;
