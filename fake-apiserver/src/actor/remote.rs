//! [`Remote`]: the actors' road to an API server somewhere else, over a `kube::Client`.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Client, Discovery,
    api::{
        DeleteParams, GetParams, ListParams, Patch as KubePatch, PatchParams, PostParams, Preconditions,
        PropagationPolicy, Request, WatchEvent as KubeEvent, WatchParams,
    },
    discovery::Scope,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::api::{DeletePolicy, Served};
use crate::{
    base::{Gvr, Object, Status, Stored, names::split_api_version},
    clock::Clock,
    ids::Ids,
    registry::{Patch, WatchEvent},
};

/// How often discovery is asked anew (`monitorPeriod` of the garbage collector is the same).
const DISCOVERY_EVERY: Duration = Duration::from_secs(30);

/// How many objects a page of a list has (`client-go/tools/pager`).
const PAGE: u32 = 500;

/// How many events of a watch are handed out at once, at most.
const BATCH: usize = 256;

/// Another API server. Clones share what discovery said.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    clock: Clock,
    ids: Ids,
    known: Arc<Mutex<Known>>,
}

/// What discovery said last.
#[derive(Debug, Default)]
struct Known {
    generation: u64,
    served: Vec<Served>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive() // the client holds credentials
    }
}

/// The objects of a watch at another API server.
pub(super) type RemoteWatch = BoxStream<'static, Vec<WatchEvent>>;

impl Remote {
    /// Asks the server what it serves.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn connect(client: Client, clock: Clock, ids: Ids) -> Result<Self, Status> {
        let remote = Self { client, clock, ids, known: Arc::default() };
        remote.discover().await?;
        Ok(remote)
    }

    /// Asks the server again and again what it serves, until the token is cancelled.
    pub async fn keep_discovering(self, token: CancellationToken) {
        while token.run_until_cancelled(self.clock.sleep(DISCOVERY_EVERY)).await.is_some() {
            if let Err(error) = self.discover().await {
                tracing::warn!(%error, "cannot discover what the server serves; trying again");
            }
        }
    }

    /// Asks the server what it serves.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn discover(&self) -> Result<(), Status> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await.map_err(status)?;
        let mut served = Vec::new();
        for group in discovery.groups_alphabetical() {
            for (resource, capabilities) in group.recommended_resources() {
                served.push(Served {
                    gvr: Gvr::new(&resource.group, &resource.version, &resource.plural),
                    kind: resource.kind,
                    namespaced: capabilities.scope == Scope::Namespaced,
                    verbs: capabilities.operations,
                });
            }
        }
        served.sort();
        let mut known = self.known.lock().expect("no panic under this lock");
        if known.served != served {
            known.generation += 1;
            known.served = served;
        }
        Ok(())
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    pub(super) fn generation(&self) -> u64 {
        self.known.lock().expect("no panic under this lock").generation
    }

    pub(super) fn resources(&self) -> Vec<Served> {
        self.known.lock().expect("no panic under this lock").served.clone()
    }

    /// The resource of a kind. Versions that are served but not preferred are found too.
    pub(super) fn find_kind(&self, api_version: &str, kind: &str) -> Option<Served> {
        let (group, version) = split_api_version(api_version);
        let known = self.known.lock().expect("no panic under this lock");
        let found = known.served.iter().find(|served| served.gvr.group == group && served.kind == kind)?;
        Some(Served { gvr: Gvr::new(group, version, &found.gvr.resource), ..found.clone() })
    }

    async fn call(&self, request: http::Request<Vec<u8>>) -> Result<Value, Status> {
        self.client.request(request).await.map_err(status)
    }

    /// Sends a write whose answer is the object.
    async fn write(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Arc<Stored>, Status> {
        stored(self.call(request.map_err(unbuilt)?).await?)
    }

    pub(super) async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Arc<Stored>, Status> {
        let request = Request::new(path(gvr, namespace)).get(name, &GetParams::default()).map_err(unbuilt)?;
        stored(self.call(request).await?)
    }

    pub(super) async fn list(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        selector: &str,
    ) -> Result<(Vec<Arc<Stored>>, u64), Status> {
        let mut options = ListParams::default().labels(selector).limit(PAGE);
        options.field_selector = by_name(name);
        let mut items = Vec::new();
        loop {
            let request = Request::new(path(gvr, namespace)).list(&options).map_err(unbuilt)?;
            let mut page = self.call(request).await?;
            // The items of a built-in kind's list do not say what they are.
            let kind = page["kind"].as_str().unwrap_or_default();
            let kind = kind.strip_suffix("List").unwrap_or(kind).to_owned();
            let api_version = page["apiVersion"].clone();
            let Value::Array(values) = page["items"].take() else {
                return Err(Status::unexpected(format!("the server's list of {gvr} has no items")));
            };
            for mut value in values {
                if value.get("kind").is_none() {
                    value["kind"] = kind.clone().into();
                    value["apiVersion"] = api_version.clone();
                }
                items.push(stored(value)?);
            }
            let metadata = &page["metadata"];
            match metadata["continue"].as_str().unwrap_or_default() {
                "" => return Ok((items, revision(metadata["resourceVersion"].as_str())?)),
                token => options = options.continue_token(token),
            }
        }
    }

    pub(super) async fn watch(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        selector: &str,
        after: u64,
    ) -> Result<RemoteWatch, Status> {
        let mut options = WatchParams::default().labels(selector);
        options.field_selector = by_name(name);
        let request = Request::new(path(gvr, namespace)).watch(&options, &after.to_string()).map_err(unbuilt)?;
        let events = self.client.request_events::<Value>(request).await.map_err(status)?;
        let events = events.map(|event| match event {
            Ok(KubeEvent::Added(value)) => heard(value, WatchEvent::Added),
            Ok(KubeEvent::Modified(value)) => heard(value, WatchEvent::Modified),
            Ok(KubeEvent::Deleted(value)) => heard(value, WatchEvent::Deleted),
            Ok(KubeEvent::Bookmark(bookmark)) => match revision(Some(&bookmark.metadata.resource_version)) {
                Ok(revision) => WatchEvent::Bookmark(revision, false),
                Err(error) => WatchEvent::Error(error),
            },
            Ok(KubeEvent::Error(error)) => WatchEvent::Error(answer(*error)),
            Err(error) => WatchEvent::Error(status(error)),
        });
        Ok(events.ready_chunks(BATCH).boxed())
    }

    pub(super) async fn create(
        &self,
        gvr: &Gvr,
        object: Object,
        subresource: &str,
        manager: &str,
    ) -> Result<Arc<Stored>, Status> {
        let (options, request) = (written_by(manager), Request::new(path(gvr, object.namespace())));
        let request = match subresource {
            "" => request.create(&options, bytes(&object)),
            subresource => request.create_subresource(subresource, object.name(), &options, bytes(&object)),
        };
        self.write(request).await
    }

    pub(super) async fn update(
        &self,
        gvr: &Gvr,
        object: Object,
        subresource: &str,
        manager: &str,
    ) -> Result<Arc<Stored>, Status> {
        let (options, request) = (written_by(manager), Request::new(path(gvr, object.namespace())));
        let request = match subresource {
            "" => request.replace(object.name(), &options, bytes(&object)),
            subresource => request.replace_subresource(subresource, object.name(), &options, bytes(&object)),
        };
        self.write(request).await
    }

    pub(super) async fn patch(
        &self,
        gvr: &Gvr,
        (namespace, name, subresource): (&str, &str, &str),
        patch: Patch,
        manager: &str,
    ) -> Result<Arc<Stored>, Status> {
        let mut options = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        let patch = match patch {
            Patch::Json(_) => return Err(Status::unexpected("actors send no such patch")),
            Patch::Apply { body, force } => {
                options.force = force;
                KubePatch::Apply(body.value)
            }
            Patch::Merge(patch) => KubePatch::Merge(patch),
            Patch::Strategic(patch) => KubePatch::Strategic(patch),
        };
        let request = Request::new(path(gvr, namespace));
        let request = match subresource {
            "" => request.patch(name, &options, &patch),
            subresource => request.patch_subresource(subresource, name, &options, &patch),
        };
        self.write(request).await
    }

    pub(super) async fn delete(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        policy: &DeletePolicy,
    ) -> Result<(), Status> {
        let request = Request::new(path(gvr, namespace)).delete(name, &delete_params(policy)).map_err(unbuilt)?;
        self.call(request).await.map(drop)
    }

    pub(super) async fn delete_all(&self, gvr: &Gvr, namespace: &str, policy: &DeletePolicy) -> Result<(), Status> {
        let request = Request::new(path(gvr, namespace));
        let request = request.delete_collection(&delete_params(policy), &ListParams::default()).map_err(unbuilt)?;
        self.call(request).await.map(drop)
    }
}

/// The field selector of one name; none for `""`.
fn by_name(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| format!("metadata.name={name}"))
}

/// The path of a collection.
fn path(gvr: &Gvr, namespace: &str) -> String {
    let Gvr { group, version, resource } = gvr;
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    match namespace {
        "" => format!("{root}/{resource}"),
        namespace => format!("{root}/namespaces/{namespace}/{resource}"),
    }
}

fn written_by(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.into()), ..PostParams::default() }
}

fn bytes(object: &Object) -> Vec<u8> {
    let mut object = object.clone();
    object.unpack();
    serde_json::to_vec(object.as_map()).expect("a JSON value encodes")
}

fn delete_params(policy: &DeletePolicy) -> DeleteParams {
    let DeletePolicy { propagation, uid, resource_version, grace } = policy;
    let preconditions = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
    DeleteParams {
        grace_period_seconds: grace.map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX)),
        propagation_policy: propagation.and_then(|propagation| match propagation {
            "Orphan" => Some(PropagationPolicy::Orphan),
            "Background" => Some(PropagationPolicy::Background),
            "Foreground" => Some(PropagationPolicy::Foreground),
            _ => None,
        }),
        preconditions: (uid.is_some() || resource_version.is_some()).then_some(preconditions),
        ..DeleteParams::default()
    }
}

fn stored(value: Value) -> Result<Arc<Stored>, Status> {
    let object = Object::from_value(value).ok_or_else(|| Status::unexpected("the server's answer is no object"))?;
    Ok(Arc::new(Stored::new(object)))
}

fn heard(value: Value, event: impl FnOnce(Arc<Stored>) -> WatchEvent) -> WatchEvent {
    stored(value).map_or_else(WatchEvent::Error, event)
}

fn revision(text: Option<&str>) -> Result<u64, Status> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| Status::unexpected(format!("the server's resourceVersion {text:?} is no number")))
}

fn unbuilt(error: kube::core::request::Error) -> Status {
    Status::unexpected(format!("the request cannot be built: {error}"))
}

/// What the server refused, or why it was not reached.
fn status(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(error) => answer(*error),
        error => Status::unexpected(format!("the API server was not reached: {error}")),
    }
}

fn answer(error: kube::core::Status) -> Status {
    Status::received(error.code, &error.reason, error.message)
}
