//! Settings: a closed list of keys, each with a shape. What is stored was checked, and what is not stored has a default.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Error, SandboxConfig,
    agent::AgentConfig,
    paths,
    records::Setting,
    shape::{self, Field, Kind, Problem, Rule, optional},
    store::{Reader, Store, Writer},
};

/// What sandboxes are like when nothing else is said, and who makes them.
pub const DEFAULTS: &str = "sandbox.defaults";
/// Which cluster, and how sandboxes are made there.
pub const KUBERNETES: &str = "sandbox.kubernetes";
/// Whether projects share a sandbox.
pub const MODE: &str = "sandbox.mode";
/// Why there is no provider; gone when there is one.
pub const LAST_ERROR: &str = "sandbox.kubernetes.lastError";
/// The model of agents that have none of their own.
pub const DEFAULT_MODEL: &str = "default_model";

/// The project whose sandbox all share in mode `shared`.
pub const SHARED_PROJECT: &str = "default";

pub(crate) const MEMORY_MB: (i64, i64) = (512, 32768);
pub(crate) const CPU_CORES: (f64, f64) = (0.5, 16.0);
/// Bytes of the name of an image.
pub(crate) const IMAGE_BYTES: usize = 500;
/// Bytes of a path.
pub(crate) const PATH_BYTES: usize = 500;
/// Bytes of a context's name.
pub(crate) const CONTEXT_BYTES: usize = 256;
/// Bytes of a namespace's name.
pub(crate) const NAMESPACE_BYTES: usize = 63;
/// The words for providers. `devcontainer` is Docker by an older name.
pub(crate) const PROVIDERS: &[&str] = &["docker", "devcontainer", "kubernetes"];

const MODES: &[&str] = &["shared", "per-project"];

/// A key and what may stand under it.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether clients may write it.
    pub(crate) writable: bool,
    pub(crate) meaning: &'static str,
}

const DEFAULTS_FIELDS: &[Field] = &[
    optional("enabled", Kind::Flag, "whether moving a task to In Progress starts an agent; default true"),
    optional("provider", Kind::OneOf(PROVIDERS), "who makes sandboxes; default kubernetes"),
    optional("memoryMb", Kind::Whole(MEMORY_MB.0, MEMORY_MB.1), "memory limit in MiB; default 4096"),
    optional("cpuCores", Kind::Number(CPU_CORES.0, CPU_CORES.1), "CPU limit in cores; default 2"),
    optional("idleTimeoutMinutes", Kind::Whole(0, 1440), "minutes without activity, 0 for no limit; default 30"),
    optional("image", Kind::Text(IMAGE_BYTES, Rule::Word), "image of sandboxes"),
    optional("namespace", Kind::Text(NAMESPACE_BYTES, Rule::Label), "namespace, if sandbox.kubernetes names none"),
    optional("containerMode", Kind::OneOf(MODES), "as sandbox.mode, which decides if both are there"),
    optional("fallbackToDocker", Kind::Flag, "whether Docker is used when the cluster cannot be; default false"),
];

const KUBERNETES_FIELDS: &[Field] = &[
    optional("namespace", Kind::Text(NAMESPACE_BYTES, Rule::Label), "default agentpane-sandboxes"),
    optional(
        "kubeConfigPath",
        Kind::Text(PATH_BYTES, Rule::Line),
        "a kubeconfig below the home folder or /etc/kubernetes",
    ),
    optional(
        "kubeContext",
        Kind::Text(CONTEXT_BYTES, Rule::Line),
        "a context of the kubeconfig; default its current one",
    ),
    optional("enableWarmPool", Kind::Flag, "whether sandboxes are kept ready; default false"),
    optional("warmPoolSize", Kind::Whole(1, 10), "how many are kept ready; default 2"),
    optional("runtimeClassName", Kind::OneOf(&["gvisor", "kata", "none"]), "how pods are isolated; default none"),
    optional("image", Kind::Text(IMAGE_BYTES, Rule::Word), "image of sandboxes, before that of sandbox.defaults"),
    optional("skipTLSVerify", Kind::Flag, "whether any certificate of the cluster is taken; default false"),
];

const LAST_ERROR_FIELDS: &[Field] = &[
    optional("error", Kind::Text(usize::MAX, Rule::Free), "what went wrong"),
    optional("code", Kind::Text(100, Rule::Word), "its code"),
    optional("timestamp", Kind::Text(40, Rule::Word), "when"),
];

/// Every key there is.
pub(crate) const KEYS: &[Key] = &[
    Key { name: DEFAULTS, kind: Kind::Object(DEFAULTS_FIELDS), writable: true, meaning: "what sandboxes are like" },
    Key { name: KUBERNETES, kind: Kind::Object(KUBERNETES_FIELDS), writable: true, meaning: "which cluster" },
    Key {
        name: MODE,
        kind: Kind::OneOf(MODES),
        writable: true,
        meaning: "whether projects share a sandbox; default per-project",
    },
    Key {
        name: LAST_ERROR,
        kind: Kind::Object(LAST_ERROR_FIELDS),
        writable: false,
        meaning: "why there is no provider; set by the server, and gone when there is one",
    },
    Key {
        name: DEFAULT_MODEL,
        kind: Kind::Text(200, Rule::Word),
        writable: true,
        meaning: "the model of agents that have none of their own",
    },
];

/// `sandbox.defaults`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// Whether moving a task to In Progress starts an agent; default true.
    pub enabled: Option<bool>,
    /// Who makes sandboxes; default Kubernetes.
    pub provider: Option<String>,
    /// Memory limit in MiB.
    pub memory_mb: Option<u32>,
    /// CPU limit in cores.
    pub cpu_cores: Option<f64>,
    /// Minutes without activity after which a sandbox is shut down; 0 for never.
    pub idle_timeout_minutes: Option<u32>,
    /// Image of sandboxes.
    pub image: Option<String>,
    /// Namespace, if [`Kubernetes`] names none.
    pub namespace: Option<String>,
    /// As `sandbox.mode`.
    pub container_mode: Option<Mode>,
    /// Whether Docker is used when the cluster cannot be.
    #[serde(default)]
    pub fallback_to_docker: bool,
}

/// `sandbox.kubernetes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubernetes {
    /// Namespace of the sandboxes.
    pub namespace: Option<String>,
    /// A kubeconfig.
    pub kube_config_path: Option<String>,
    /// A context of it.
    pub kube_context: Option<String>,
    /// Whether sandboxes are kept ready.
    #[serde(default)]
    pub enable_warm_pool: bool,
    /// How many.
    pub warm_pool_size: Option<u32>,
    /// How pods are isolated; `none` is as good as nothing.
    pub runtime_class_name: Option<String>,
    /// Image of sandboxes.
    pub image: Option<String>,
    /// Whether any certificate of the cluster is taken.
    #[serde(default, rename = "skipTLSVerify")]
    pub skip_tls_verify: bool,
}

/// Whether projects share a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All use the one of the project `default`.
    Shared,
    /// Each project has its own.
    #[default]
    PerProject,
}

/// All settings of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `sandbox.defaults`.
    pub defaults: Defaults,
    /// `sandbox.kubernetes`.
    pub kubernetes: Kubernetes,
    /// `sandbox.mode`, or else the container mode of the defaults.
    pub mode: Mode,
    /// `default_model`.
    pub default_model: Option<String>,
}

impl Settings {
    /// What is stored now, with defaults for the rest.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub fn read(tx: &Reader) -> Result<Self, Error> {
        let value = |key: &str| Ok::<_, Error>(tx.get::<Setting>(key)?.map(|setting| setting.value));
        let mut settings = Self::default();
        if let Some(stored) = value(DEFAULTS)? {
            settings.defaults = shape::decode(DEFAULTS_FIELDS, stored)?;
        }
        if let Some(stored) = value(KUBERNETES)? {
            settings.kubernetes = shape::decode(KUBERNETES_FIELDS, stored)?;
        }
        let mode = value(MODE)?.and_then(|stored| serde_json::from_value(stored).ok());
        settings.mode = mode.or(settings.defaults.container_mode).unwrap_or_default();
        settings.default_model =
            value(DEFAULT_MODEL)?.and_then(|stored| stored.as_str().map(str::to_owned)).filter(|text| !text.is_empty());
        Ok(settings)
    }

    /// Puts the file that it comes to in the place of the kubeconfig's path. What the settings name is as little trusted as
    /// what a query names.
    ///
    /// # Errors
    /// [`Code::InvalidKubeconfigPath`](crate::Code::InvalidKubeconfigPath) if it may not be used,
    /// [`Code::KubeconfigNotFound`](crate::Code::KubeconfigNotFound) if it is not there.
    pub(crate) fn resolve_path(&mut self) -> Result<(), Error> {
        if let Some(path) = &mut self.kubernetes.kube_config_path {
            *path = paths::kubeconfig(path, std::env::home_dir().as_deref())?.to_string_lossy().into_owned();
        }
        Ok(())
    }

    /// Whether moving a task to In Progress starts an agent.
    pub fn enabled(&self) -> bool {
        self.defaults.enabled.unwrap_or(true)
    }

    /// What sandboxes are like unless their project says otherwise; its project and path do not count.
    pub fn sandbox(&self) -> SandboxConfig {
        let mut config = SandboxConfig::new(SHARED_PROJECT, "/");
        let Defaults { memory_mb, cpu_cores, idle_timeout_minutes, image, .. } = &self.defaults;
        config.memory_mb = memory_mb.unwrap_or(config.memory_mb);
        config.cpu_cores = cpu_cores.unwrap_or(config.cpu_cores);
        config.idle_timeout_minutes = idle_timeout_minutes.unwrap_or(config.idle_timeout_minutes);
        if let Some(image) = self.kubernetes.image.as_ref().or(image.as_ref()) {
            config.image.clone_from(image);
        }
        config
    }

    /// How agents are run, where the settings say something about it.
    pub fn configure(&self, agents: &AgentConfig) -> AgentConfig {
        AgentConfig { shared_sandbox: self.mode == Mode::Shared, sandbox: self.sandbox(), ..agents.clone() }
    }
}

/// All that is stored, or what is stored under some keys. Keys that are not stored are left out.
///
/// # Errors
/// [`Code::StoreFailed`](crate::Code::StoreFailed).
pub(crate) fn stored(store: &Store, keys: Option<&[&str]>) -> Result<Map<String, Value>, Error> {
    let all = store.read(|tx| tx.list::<Setting>())?;
    let wanted = |setting: &Setting| keys.is_none_or(|keys| keys.contains(&setting.key.as_str()));
    Ok(all.into_iter().filter(wanted).map(|setting| (setting.key, setting.value)).collect())
}

/// Writes settings, all or none. `null` forgets one.
///
/// # Errors
/// [`Code::Validation`](crate::Code::Validation) with a path for each thing that is not as it must be.
pub(crate) fn write(store: &Store, values: &Map<String, Value>) -> Result<(), Error> {
    let mut problems = Vec::new();
    for (name, value) in values {
        match KEYS.iter().find(|key| key.name == name) {
            None => {
                let known: Vec<_> = KEYS.iter().filter(|key| key.writable).map(|key| key.name).collect();
                let shown: String = name.chars().take(100).collect();
                problems.push(Problem::new(shown, format!("is no setting; there are {}", known.join(", "))));
            }
            Some(key) if !key.writable => problems.push(Problem::new(key.name, "is set by the server alone")),
            Some(_) if value.is_null() => {}
            Some(key) => shape::check(key.kind, value, key.name, &mut problems),
        }
    }
    shape::refuse(&problems)?;
    store.write(|tx| {
        values.iter().try_for_each(|(name, value)| match value {
            Value::Null => tx.delete::<Setting>(name).map(|_| ()),
            value => put(tx, name, value.clone()),
        })
    })
}

/// Remembers why there is no provider, or that there is one.
pub(crate) fn set_last_error(store: &Store, error: Option<&Error>) -> Result<(), Error> {
    store.write(|tx| match error {
        None => tx.delete::<Setting>(LAST_ERROR).map(|_| ()),
        Some(error) => {
            let value =
                json!({"error": error.message(), "code": error.code().as_str(), "timestamp": Timestamp::now().to_string()});
            put(tx, LAST_ERROR, value)
        }
    })
}

fn put(tx: &Writer, key: &str, value: Value) -> Result<(), Error> {
    tx.put(&Setting { key: key.into(), value, updated_at: Timestamp::now() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::Code;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[rstest]
    #[case::unknown_key(json!({"sandbox.colour": 1}), "sandbox.colour")]
    #[case::unknown_member(json!({"sandbox.defaults": {"colour": 1}}), "sandbox.defaults.colour")]
    #[case::bad_provider(json!({"sandbox.defaults": {"provider": "podman"}}), "sandbox.defaults.provider")]
    #[case::no_memory(json!({"sandbox.defaults": {"memoryMb": 1}}), "sandbox.defaults.memoryMb")]
    #[case::pool(json!({"sandbox.kubernetes": {"warmPoolSize": 11}}), "sandbox.kubernetes.warmPoolSize")]
    #[case::namespace(json!({"sandbox.kubernetes": {"namespace": "Not_One"}}), "sandbox.kubernetes.namespace")]
    #[case::not_an_object(json!({"sandbox.kubernetes": "yes"}), "sandbox.kubernetes")]
    #[case::mode(json!({"sandbox.mode": "both"}), "sandbox.mode")]
    #[case::the_servers_own(json!({"sandbox.kubernetes.lastError": {"error": "x"}}), "sandbox.kubernetes.lastError")]
    fn a_bad_setting_is_refused_by_its_path_and_nothing_is_written(#[case] bad: Value, #[case] path: &str) {
        let store = Store::in_memory().unwrap();
        let mut values = object(bad);
        values.insert(DEFAULT_MODEL.into(), "good".into());
        let error = write(&store, &values).unwrap_err();
        assert_eq!(error.code(), Code::Validation);
        assert_eq!(error.details()["fields"][0]["path"], path);
        assert!(stored(&store, None).unwrap().is_empty(), "one bad key refuses all");
    }

    #[test]
    fn what_is_stored_is_read_back_typed_and_null_forgets_it() {
        let store = Store::in_memory().unwrap();
        let values = json!({
            "sandbox.defaults": {"enabled": false, "memoryMb": 2048, "image": "a:1", "namespace": ""},
            "sandbox.kubernetes": {"kubeConfigPath": "", "skipTLSVerify": true, "image": "b:1"},
            "sandbox.mode": "shared",
        });
        write(&store, &object(values)).unwrap();
        let settings = store.read(Settings::read).unwrap();
        assert!(!settings.enabled() && settings.kubernetes.skip_tls_verify);
        assert_eq!(settings.kubernetes.kube_config_path, None, "an empty text is none");
        let agents = settings.configure(&AgentConfig::default());
        assert_eq!((agents.sandbox.image.as_str(), agents.sandbox.memory_mb), ("b:1", 2048));
        assert!(agents.shared_sandbox);

        write(&store, &object(json!({"sandbox.kubernetes": null, "sandbox.mode": null}))).unwrap();
        let settings = store.read(Settings::read).unwrap();
        assert!(!settings.kubernetes.skip_tls_verify, "off unless somebody says so");
        assert!(!settings.configure(&AgentConfig::default()).shared_sandbox);
    }
}
