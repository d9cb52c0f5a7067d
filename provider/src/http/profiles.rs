//! Profiles: named sizes of sandboxes that a project may refer to.

use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, Params},
    limits::{MAX_PAGE, PAGE},
};
use crate::{
    Code, Error,
    records::Project,
    settings::{CONTEXT_BYTES, CPU_CORES, IMAGE_BYTES, MEMORY_MB, NAMESPACE_BYTES, PATH_BYTES, PROVIDERS},
    shape::{Field, Kind, Rule, optional, required},
    store::{Record, Writer},
};

const PROCESSES: (i64, i64) = (32, 4096);
const TIMEOUT_MINUTES: (i64, i64) = (1, 1440);
/// Hosts that sandboxes of a profile may reach, at most.
const MAX_HOSTS: usize = 50;
/// Bounds of numbers are not the shape's business: each has a code of its own.
const ANY_NUMBER: Kind = Kind::Number(f64::MIN, f64::MAX);

/// What may be said of a profile, but for its name.
macro_rules! fields {
    ($name:expr) => {
        &[
            $name,
            optional("description", Kind::Text(1000, Rule::Free), "for people"),
            optional("type", Kind::OneOf(PROVIDERS), "for which provider; default docker"),
            optional("isDefault", Kind::Flag, "whether it is the one for new projects; there is one at most"),
            optional("baseImage", Kind::Text(IMAGE_BYTES, Rule::Word), "image; default node:22-slim"),
            optional("memoryMb", ANY_NUMBER, "memory limit in MiB, 512 to 32768; default 4096"),
            optional("cpuCores", ANY_NUMBER, "CPU limit in cores, 0.5 to 16; default 2"),
            optional("maxProcesses", ANY_NUMBER, "processes, 32 to 4096; default 256"),
            optional("timeoutMinutes", ANY_NUMBER, "minutes without activity, 1 to 1440; default 60"),
            optional("volumeMountPath", Kind::Text(PATH_BYTES, Rule::Line), "folder of the machine that Docker shows"),
            optional("kubeConfigPath", Kind::Text(PATH_BYTES, Rule::Line), "a kubeconfig"),
            optional("kubeContext", Kind::Text(CONTEXT_BYTES, Rule::Line), "a context of it"),
            optional("kubeNamespace", Kind::Text(NAMESPACE_BYTES, Rule::Label), "a namespace"),
            optional("networkPolicyEnabled", Kind::Flag, "whether traffic is restricted; default true"),
            optional("allowedEgressHosts", Kind::Texts(MAX_HOSTS, 253), "hosts that may be reached all the same"),
        ]
    };
}

pub(super) const NEW: &[Field] = fields!(required("name", Kind::Text(100, Rule::Line), "unique, whatever its case"));
pub(super) const CHANGE: &[Field] = fields!(optional("name", Kind::Text(100, Rule::Line), "unique, whatever its case"));

/// A named size of sandboxes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    is_default: bool,
    pub(crate) base_image: String,
    pub(crate) memory_mb: u32,
    pub(crate) cpu_cores: f64,
    max_processes: u32,
    pub(crate) timeout_minutes: u32,
    volume_mount_path: Option<String>,
    kube_config_path: Option<String>,
    kube_context: Option<String>,
    kube_namespace: Option<String>,
    network_policy_enabled: bool,
    allowed_egress_hosts: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Profile {
    /// Makes a project's sandbox like this.
    pub(super) fn shape(&self, project: &mut Project) {
        project.sandbox_config_id = Some(self.id.clone());
        project.sandbox.image = Some(self.base_image.clone());
        project.sandbox.memory_mb = Some(self.memory_mb);
        project.sandbox.cpu_cores = Some(self.cpu_cores);
        project.sandbox.idle_timeout_minutes = Some(self.timeout_minutes);
        project.updated_at = Timestamp::now();
    }
}

impl Record for Profile {
    const TABLE: &'static str = "sandbox_configs";

    fn id(&self) -> &str {
        &self.id
    }
}

/// What a client says of a profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    name: Option<String>,
    description: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    is_default: Option<bool>,
    base_image: Option<String>,
    memory_mb: Option<f64>,
    cpu_cores: Option<f64>,
    max_processes: Option<f64>,
    timeout_minutes: Option<f64>,
    volume_mount_path: Option<String>,
    kube_config_path: Option<String>,
    kube_context: Option<String>,
    kube_namespace: Option<String>,
    network_policy_enabled: Option<bool>,
    allowed_egress_hosts: Option<Vec<String>>,
}

impl Wanted {
    /// Puts what was said in the place of what was.
    fn apply(self, profile: &mut Profile) -> Result<(), Error> {
        let Self {
            name,
            description,
            kind,
            is_default,
            base_image,
            memory_mb,
            cpu_cores,
            max_processes,
            timeout_minutes,
            volume_mount_path,
            kube_config_path,
            kube_context,
            kube_namespace,
            network_policy_enabled,
            allowed_egress_hosts,
        } = self;
        let whole = |value: Option<f64>, bounds: (i64, i64), code, what: &str| {
            let in_bounds =
                |number: f64| number.fract() == 0.0 && number >= bounds.0 as f64 && number <= bounds.1 as f64;
            match value {
                None => Ok(None),
                // In bounds, so that nothing is cut off.
                Some(number) if in_bounds(number) => Ok(Some(number as u32)),
                Some(_) => {
                    Err(Error::new(code, format!("{what} must be a whole number from {} to {}", bounds.0, bounds.1)))
                }
            }
        };
        if let Some(memory) = whole(memory_mb, MEMORY_MB, Code::InvalidMemory, "memoryMb")? {
            profile.memory_mb = memory;
        }
        match cpu_cores {
            None => {}
            Some(cores) if (CPU_CORES.0..=CPU_CORES.1).contains(&cores) => profile.cpu_cores = cores,
            Some(_) => {
                let message = format!("cpuCores must be a number from {} to {}", CPU_CORES.0, CPU_CORES.1);
                return Err(Error::new(Code::InvalidCpu, message));
            }
        }
        if let Some(number) = whole(max_processes, PROCESSES, Code::InvalidProcesses, "maxProcesses")? {
            profile.max_processes = number;
        }
        if let Some(number) = whole(timeout_minutes, TIMEOUT_MINUTES, Code::InvalidTimeout, "timeoutMinutes")? {
            profile.timeout_minutes = number;
        }
        profile.name = name.unwrap_or_else(|| profile.name.clone());
        profile.description = description.or(profile.description.take());
        profile.kind = kind.unwrap_or_else(|| profile.kind.clone());
        profile.is_default = is_default.unwrap_or(profile.is_default);
        profile.base_image = base_image.unwrap_or_else(|| profile.base_image.clone());
        profile.volume_mount_path = volume_mount_path.or(profile.volume_mount_path.take());
        profile.kube_config_path = kube_config_path.or(profile.kube_config_path.take());
        profile.kube_context = kube_context.or(profile.kube_context.take());
        profile.kube_namespace = kube_namespace.or(profile.kube_namespace.take());
        profile.network_policy_enabled = network_policy_enabled.unwrap_or(profile.network_policy_enabled);
        if let Some(hosts) = allowed_egress_hosts {
            profile.allowed_egress_hosts = hosts;
        }
        profile.updated_at = Timestamp::now();
        Ok(())
    }
}

/// `GET /api/sandbox-configs`.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answered {
    let limit = params.number("limit", PAGE, 1, MAX_PAGE)?;
    let offset = params.number("offset", 0, 0, u64::from(u32::MAX))?;
    let mut all = app.store.read(|tx| tx.list::<Profile>())?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Answer::ok(page(&all, offset, limit))
}

/// A page and how many there are in all.
pub(super) fn page<T: Serialize>(all: &[T], offset: u64, limit: u64) -> serde_json::Value {
    let bounded = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let items: Vec<_> = all.iter().skip(bounded(offset)).take(bounded(limit)).collect();
    json!({"items": items, "totalCount": all.len()})
}

/// `POST /api/sandbox-configs`.
pub(super) async fn create(State(app): State<App>, body: Body) -> Answered {
    let wanted: Wanted = body.read(NEW)?;
    let now = Timestamp::now();
    let mut profile = Profile {
        id: Uuid::now_v7().to_string(),
        name: String::new(),
        description: None,
        kind: "docker".into(),
        is_default: false,
        base_image: "node:22-slim".into(),
        memory_mb: 4096,
        cpu_cores: 2.0,
        max_processes: 256,
        timeout_minutes: 60,
        volume_mount_path: None,
        kube_config_path: None,
        kube_context: None,
        kube_namespace: None,
        network_policy_enabled: true,
        allowed_egress_hosts: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    wanted.apply(&mut profile)?;
    app.store.write(|tx| put(tx, &profile))?;
    Answer::created(profile)
}

/// `GET /api/sandbox-configs/{id}`.
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Answered {
    Answer::ok(app.store.read(|tx| tx.get::<Profile>(&id))?.ok_or_else(|| not_found(&id))?)
}

/// `PATCH /api/sandbox-configs/{id}`.
pub(super) async fn change(State(app): State<App>, Id(id): Id, body: Body) -> Answered {
    let wanted: Wanted = body.read(CHANGE)?;
    let changed = app.store.write(|tx| {
        let mut profile = tx.get::<Profile>(&id)?.ok_or_else(|| not_found(&id))?;
        wanted.apply(&mut profile)?;
        put(tx, &profile)?;
        // Whoever uses it gets what it is now.
        for mut project in
            tx.list::<Project>()?.into_iter().filter(|project| project.sandbox_config_id.as_ref() == Some(&id))
        {
            profile.shape(&mut project);
            tx.put(&project)?;
        }
        Ok(profile)
    })?;
    Answer::ok(changed)
}

/// `DELETE /api/sandbox-configs/{id}`.
pub(super) async fn delete(State(app): State<App>, Id(id): Id) -> Answered {
    app.store.write(|tx| {
        if let Some(user) = tx.list::<Project>()?.iter().find(|project| project.sandbox_config_id.as_ref() == Some(&id))
        {
            let message = format!("profile {id} is used by project {}", user.name);
            return Err(Error::new(Code::ProfileInUse, message).with("projectId", user.id.clone()));
        }
        if tx.delete::<Profile>(&id)? { Ok(()) } else { Err(not_found(&id)) }
    })?;
    Answer::ok(json!(null))
}

/// Keeps a profile whose name no other has; a new default takes the place of the one before.
fn put(tx: &Writer, profile: &Profile) -> Result<(), Error> {
    for mut other in tx.list::<Profile>()? {
        if other.id == profile.id {
            continue;
        }
        if other.name.to_lowercase() == profile.name.to_lowercase() {
            let message = format!("there is a profile {:?} already", other.name);
            return Err(Error::new(Code::ProfileAlreadyExists, message).with("id", other.id));
        }
        if profile.is_default && other.is_default {
            other.is_default = false;
            tx.put(&other)?;
        }
    }
    tx.put(profile)
}

fn not_found(id: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no profile {id}"))
}
