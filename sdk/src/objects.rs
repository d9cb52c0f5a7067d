//! [`Objects`]: what one does with objects of any of the four kinds, on any cluster.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    marker::PhantomData,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{
        WatchStreamExt,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    conversion::{self, Version},
    error::{CallError, Error, ObjectName, answered},
    v1beta1::{Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool},
};

/// What managed fields call us.
pub(crate) const FIELD_MANAGER: &str = "agent-sandbox-sdk";

/// How many objects one page of a list holds; kubectl's number.
const PAGE: u32 = 500;

/// How often a change of an object on an older cluster is tried again when somebody else was faster.
const ATTEMPTS: usize = 5;

mod sealed {
    pub trait Sealed {}
}

/// One of the four kinds, in v1beta1.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{Error, Kind, Objects};
///
/// async fn is_there<K: Kind>(objects: &Objects<K>, name: &str) -> Result<bool, Error> {
///     objects.exists(name).await
/// }
/// ```
pub trait Kind:
    sealed::Sealed
    + Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What errors call one object of it.
    const WORD: &'static str;

    /// What the controller says about the object; nothing for a template.
    fn conditions(&self) -> &[Condition];
}

macro_rules! kinds {
    ($($kind:ident $word:literal |$object:ident| $conditions:expr;)+) => {$(
        impl sealed::Sealed for $kind {}

        impl Kind for $kind {
            const WORD: &'static str = $word;

            fn conditions(&self) -> &[Condition] {
                let $object = self;
                $conditions
            }
        }
    )+};
}
kinds! {
    Sandbox "sandbox" |object| object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    SandboxClaim "sandbox claim" |object| object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    SandboxTemplate "sandbox template" |_object| &[];
    SandboxWarmPool "warm pool" |_object| &[];
}

/// A connection to a cluster and what is known of it; shared by clones.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// By kind, which version of it is spoken. A cluster that is upgraded goes on to serve the older one.
    spoken: Arc<Mutex<BTreeMap<String, Version>>>,
}

impl Connection {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, spoken: Arc::default() }
    }

    /// The newest version in which a kind is served; `None` if it is not.
    async fn version(&self, group: &str, plural: &str) -> Result<Option<Version>, CallError> {
        let key = format!("{plural}.{group}");
        let known = self.spoken.lock().expect("no panic under this lock").get(&key).copied();
        if known.is_some() {
            return Ok(known);
        }
        for version in [Version::V1beta1, Version::V1alpha1] {
            match answered(self.client.list_api_group_resources(&format!("{group}/{version}"))).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == plural) => {
                    self.spoken.lock().expect("no panic under this lock").insert(key, version);
                    return Ok(Some(version));
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The objects of one kind in one namespace.
///
/// A program speaks v1beta1. The client asks the cluster once which versions it serves, and where that is only v1alpha1
/// converts both ways, as the controller's webhook does on newer clusters.
///
/// Cheap to clone. Every future may be dropped: a request that was sent may still have its effect, and nothing else goes
/// on in the background.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::{AgentSandboxClient, v1beta1::{SandboxTemplateRef, SandboxWarmPool, SandboxWarmPoolSpec}};
///
/// # async fn example(client: AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
/// let sandbox_template_ref = SandboxTemplateRef { name: "python".into() };
/// let spec = SandboxWarmPoolSpec { sandbox_template_ref, replicas: Some(3), ..Default::default() };
/// let pools = client.warm_pools();
/// pools.create(&SandboxWarmPool::new("python", spec)).await?;
/// assert!(pools.exists("python").await?);
/// # Ok(())
/// # }
/// ```
pub struct Objects<K> {
    pub(crate) connection: Connection,
    pub(crate) namespace: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Self { connection: self.connection.clone(), namespace: self.namespace.clone(), kind: PhantomData }
    }
}

impl<K: Kind> Debug for Objects<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connection: _, namespace, kind: _ } = self;
        f.debug_struct("Objects").field("kind", &K::kind(&())).field("namespace", namespace).finish_non_exhaustive()
    }
}

impl<K: Kind> Objects<K> {
    pub(crate) fn new(connection: Connection, namespace: &str) -> Self {
        Self { connection, namespace: namespace.into(), kind: PhantomData }
    }

    /// The namespace that all calls are about.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// assert_eq!(client.in_namespace("demo").claims().namespace(), "demo");
    /// # }
    /// ```
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The version in which the cluster is spoken to about this kind. Asks once; clones know the answer, too.
    ///
    /// # Errors
    /// [`Error::NotServed`] if the cluster does not have the kind: nothing is installed, or not the extensions.
    /// [`Error::DiscoveryFailed`] if it did not say.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::conversion::Version;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// if client.sandboxes().version().await? == Version::V1alpha1 {
    ///     println!("the controller is older than v0.5.0");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn version(&self) -> Result<Version, Error> {
        self.spoken(|source| Error::DiscoveryFailed { resource: Self::resource(), source }).await
    }

    /// The version that is spoken. That it is not known is a failure of the call that needs it.
    async fn spoken(&self, failed: impl FnOnce(CallError) -> Error) -> Result<Version, Error> {
        let found = self.connection.version(&K::group(&()), &K::plural(&())).await.map_err(failed)?;
        found.ok_or_else(|| Error::NotServed { resource: Self::resource() })
    }

    /// Plural and group.
    fn resource() -> String {
        format!("{}.{}", K::plural(&()), K::group(&()))
    }

    /// Whether the cluster's definition of the kind has a field, in the version that it is spoken to in: whether a
    /// controller of that age can know it. Lists are passed through: `spec.env.containerName`.
    ///
    /// It reads the cluster's OpenAPI description, which is large, at each call: keep the answer.
    ///
    /// # Errors
    /// As [`version`](Self::version), and [`Error::DiscoveryFailed`] if the description was not read.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// if !client.claims().has_field("spec.volumeClaimTemplates").await? {
    ///     println!("claims cannot bring volumes here");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn has_field(&self, path: &str) -> Result<bool, Error> {
        let version = self.version().await?;
        let (group, kind) = (K::group(&()), K::kind(&()));
        let failed = |source| Error::DiscoveryFailed { resource: Self::resource(), source };
        let request = http::Request::get(format!("/openapi/v3/apis/{group}/{version}")).body(Vec::new());
        let request = request.expect("a path of letters, dots and slashes");
        let description: Value = answered(self.connection.client.request(request)).await.map_err(failed)?;
        let schemas = description["components"]["schemas"].as_object();
        let names = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.into_iter().flatten().any(|gvk| gvk["kind"] == *kind && gvk["version"] == version.as_str())
        };
        let Some(mut schema) = schemas.and_then(|schemas| schemas.values().find(names)) else { return Ok(false) };
        for field in path.split('.') {
            while schema["items"].is_object() {
                schema = &schema["items"];
            }
            match schema["properties"].get(field) {
                Some(property) => schema = property,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    pub(crate) async fn api(
        &self,
        failed: impl FnOnce(CallError) -> Error,
    ) -> Result<(Api<DynamicObject>, Version), Error> {
        let version = self.spoken(failed).await?;
        let mut resource = ApiResource::erase::<K>(&());
        resource.version = version.as_str().into();
        resource.api_version = format!("{}/{version}", resource.group);
        Ok((Api::namespaced_with(self.connection.client.clone(), &self.namespace, &resource), version))
    }

    /// Creates an object and returns it as stored, defaults filled in. Nothing has come of it yet.
    ///
    /// On a cluster that speaks v1alpha1, where claims name templates, a claim is for the template of its pool.
    ///
    /// # Errors
    /// [`Error::CreateFailed`]; [`Error::is_already_exists`] tells that the name is taken.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::SandboxClaim;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let claim = SandboxClaim::builder("mine", "python").build()?;
    /// let created = client.claims().create(&claim).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, object: &K) -> Result<K, Error> {
        let name = self.name_in(object);
        let failed = |source| Error::CreateFailed { object: name.clone(), source };
        let (api, version) = self.api(failed).await?;
        let object = self.outgoing(object, version, &name).await?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        self.incoming(answered(api.create(&params, &object)).await.map_err(failed)?)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`Error::GetFailed`]; [`Error::is_not_found`] tells that there is none.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let pool = client.warm_pools().get("python").await?;
    /// println!("{:?}", pool.spec.replicas);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, name: &str) -> Result<K, Error> {
        let failed = |source| Error::GetFailed { object: self.name_of(name), source };
        let (api, _) = self.api(failed).await?;
        self.incoming(answered(api.get(name)).await.map_err(failed)?)
    }

    /// Whether there is an object of that name.
    ///
    /// # Errors
    /// [`Error::GetFailed`]; that there is none is not an error, that the whole kind is not served is.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// if !client.templates().exists("python").await? {
    ///     println!("there is no such template");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exists(&self, name: &str) -> Result<bool, Error> {
        let failed = |source| Error::GetFailed { object: self.name_of(name), source };
        let (api, _) = self.api(failed).await?;
        match answered(api.get_metadata(name)).await {
            Ok(_) => Ok(true),
            Err(source) if source.is_not_found() => Ok(false),
            Err(source) => Err(failed(source)),
        }
    }

    /// Lists the objects that `params` select, all pages of them; a limit in `params` is the size of a page.
    ///
    /// # Errors
    /// [`Error::ListFailed`], also if the list changed too much while its pages were read (410; try again).
    ///
    /// # Examples
    /// ```no_run
    /// use kube::api::ListParams;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let red = client.claims().list(&ListParams::default().labels("team=red")).await?;
    /// println!("{}", red.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self, params: &ListParams) -> Result<Vec<K>, Error> {
        let failed = |source| Error::ListFailed { kind: K::WORD, namespace: self.namespace.clone(), source };
        let (api, _) = self.api(failed).await?;
        let mut params = ListParams { limit: params.limit.or(Some(PAGE)), ..params.clone() };
        let mut all = Vec::new();
        loop {
            let page = answered(api.list(&params)).await.map_err(failed)?;
            for item in page.items {
                all.push(self.incoming(item)?);
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Replaces an object by one that was read before and changed since.
    ///
    /// # Errors
    /// [`Error::UpdateFailed`]; [`Error::is_conflict`] tells that somebody else changed it in between: read it again.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let mut pool = client.warm_pools().get("python").await?;
    /// pool.spec.replicas = Some(5);
    /// let pool = client.warm_pools().update(&pool).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update(&self, object: &K) -> Result<K, Error> {
        let name = self.name_in(object);
        let failed = |source| Error::UpdateFailed { object: name.clone(), source };
        let (api, version) = self.api(failed).await?;
        let body = self.outgoing(object, version, &name).await?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        self.incoming(answered(api.replace(&name.name, &params, &body)).await.map_err(failed)?)
    }

    /// Changes parts of an object: a JSON merge patch, in terms of v1beta1. `null` removes.
    ///
    /// On a cluster that speaks v1alpha1 the object is read, changed and replaced, a few times over if somebody else is
    /// faster.
    ///
    /// # Errors
    /// [`Error::PatchFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let patch = serde_json::json!({"metadata": {"labels": {"team": "red"}}});
    /// client.sandboxes().patch("hello", &patch).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn patch(&self, name: &str, patch: &Value) -> Result<K, Error> {
        let failed = |source| Error::PatchFailed { object: self.name_of(name), source };
        let (api, version) = self.api(failed).await?;
        if version == Version::V1beta1 {
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
            let patched = answered(api.patch(name, &params, &Patch::Merge(patch))).await;
            return self.incoming(patched.map_err(failed)?);
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let mut attempt = 1;
        loop {
            let current = answered(api.get(name)).await.map_err(failed)?;
            let revision = current.metadata.resource_version.clone();
            let mut object = self.convert(to_json(&current), Version::V1beta1, name)?;
            merge(&mut object, patch);
            let mut body = self.dynamic(self.convert(object, version, name)?, name)?;
            body.metadata.resource_version = revision;
            match answered(api.replace(name, &params, &body)).await {
                Ok(changed) => return self.incoming(changed),
                Err(source) => match source.status() {
                    Some(status) if status.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                    _ => return Err(failed(source)),
                },
            }
        }
    }

    /// Applies an object by server-side apply as field manager `agent-sandbox-sdk`: makes it, or changes what of it the
    /// caller has said before or says now. `force` takes fields away from other managers.
    ///
    /// # Errors
    /// [`Error::ApplyFailed`]; [`Error::is_conflict`] tells that another manager has one of the fields.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::SandboxWarmPool;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = SandboxWarmPool::builder("python", "python").replicas(3).build()?;
    /// client.warm_pools().apply(&pool, false).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn apply(&self, object: &K, force: bool) -> Result<K, Error> {
        let name = self.name_in(object);
        let failed = |source| Error::ApplyFailed { object: name.clone(), source };
        let (api, version) = self.api(failed).await?;
        let mut body = self.outgoing(object, version, &name).await?;
        body.metadata.managed_fields = None;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), force, ..Default::default() };
        self.incoming(answered(api.patch(&name.name, &params, &Patch::Apply(&body))).await.map_err(failed)?)
    }

    /// Deletes an object; what it owns goes with it, after it. Returns before all is gone: see
    /// [`wait_gone`](Self::wait_gone).
    ///
    /// # Errors
    /// [`Error::DeleteFailed`]; [`Error::is_not_found`] tells that there was none.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// client.claims().delete("mine").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.delete_with(name, &DeleteParams::default()).await
    }

    /// Deletes just this object, not another of its name that came after it.
    ///
    /// # Errors
    /// As [`delete`](Self::delete); [`Error::is_conflict`] tells that the name is another object's now.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let claim = client.claims().get("mine").await?;
    /// client.claims().delete_this(&claim).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_this(&self, object: &K) -> Result<(), Error> {
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
        self.delete_with(&self.name_in(object).name, &params).await
    }

    async fn delete_with(&self, name: &str, params: &DeleteParams) -> Result<(), Error> {
        let failed = |source| Error::DeleteFailed { object: self.name_of(name), source };
        let (api, _) = self.api(failed).await?;
        answered(api.delete(name, params)).await.map(drop).map_err(failed)
    }

    /// Watches the objects that `config` selects: first those that exist, then every change.
    ///
    /// The stream does not end. It starts over by itself when the connection breaks or it falls behind, and waits
    /// longer each time that fails; an error item only tells of it. Only before the first event can it end, after an
    /// error that no waiting changes: the cluster does not know the kind, or is not to be trusted.
    ///
    /// # Examples
    /// ```no_run
    /// use futures::TryStreamExt;
    /// use kube::runtime::watcher::{Config, Event};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let mut events = std::pin::pin!(client.claims().watch(Config::default()));
    /// while let Some(event) = events.try_next().await? {
    ///     if let Event::Apply(claim) = event {
    ///         println!("{:?}", claim.metadata.name);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(
        &self,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<watcher::Event<K>, Error>> + Send + use<K> {
        let this = self.clone();
        self.opened().flat_map(move |api| {
            let this = this.clone();
            let api = match api {
                Ok(api) => api,
                Err(error) => return futures::stream::once(async { Err(error) }).left_stream(),
            };
            let events = watcher(api, config.clone()).default_backoff().map(move |event| {
                Ok(match event.map_err(|error| this.watch_failed(error.into()))? {
                    watcher::Event::Apply(object) => watcher::Event::Apply(this.incoming(object)?),
                    watcher::Event::Delete(object) => watcher::Event::Delete(this.incoming(object)?),
                    watcher::Event::Init => watcher::Event::Init,
                    watcher::Event::InitApply(object) => watcher::Event::InitApply(this.incoming(object)?),
                    watcher::Event::InitDone => watcher::Event::InitDone,
                })
            });
            events.right_stream()
        })
    }

    /// The API to watch. A cluster that does not say which versions it serves is asked again, later each time, for as
    /// long as that may help; each time is told.
    pub(crate) fn opened(&self) -> impl Stream<Item = Result<Api<DynamicObject>, Error>> + Send + use<K> {
        struct Next<K> {
            objects: Objects<K>,
            pauses: DefaultBackoff,
            pause: Duration,
        }
        let first = Next { objects: self.clone(), pauses: DefaultBackoff::default(), pause: Duration::ZERO };
        futures::stream::unfold(Some(first), |next| async {
            let mut next = next?;
            tokio::time::sleep(next.pause).await;
            match next.objects.api(|source| next.objects.watch_failed(source)).await {
                Ok((api, _)) => Some((Ok(api), None)),
                Err(error) if error.is_retryable() => {
                    next.pause = next.pauses.next().unwrap_or_default();
                    Some((Err(error), Some(next)))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn watch_failed(&self, source: CallError) -> Error {
        Error::WatchFailed { kind: K::WORD, namespace: self.namespace.clone(), source }
    }

    pub(crate) fn name_of(&self, name: &str) -> ObjectName {
        ObjectName::new(K::WORD, self.namespace.as_str(), name)
    }

    fn name_in(&self, object: &K) -> ObjectName {
        let metadata = object.meta();
        self.name_of(metadata.name.as_ref().or(metadata.generate_name.as_ref()).map(String::as_str).unwrap_or_default())
    }

    fn convert(&self, object: Value, to: Version, name: &str) -> Result<Value, Error> {
        conversion::convert(object, to).map_err(|source| Error::ConvertFailed { object: self.name_of(name), source })
    }

    fn bad(&self, object: &ObjectName, error: &serde_json::Error) -> Error {
        let source = conversion::ConversionError::bad_object(&K::kind(&()), error);
        Error::ConvertFailed { object: object.clone(), source }
    }

    fn dynamic(&self, object: Value, name: &str) -> Result<DynamicObject, Error> {
        serde_json::from_value(object).map_err(|error| self.bad(&self.name_of(name), &error))
    }

    /// An object as the cluster wants it.
    async fn outgoing(&self, object: &K, version: Version, name: &ObjectName) -> Result<DynamicObject, Error> {
        let mut body = serde_json::to_value(object).map_err(|error| self.bad(name, &error))?;
        if version == Version::V1alpha1 {
            let pool = body["spec"]["warmPoolRef"]["name"].as_str().map(str::to_owned);
            let revision = body["metadata"]["resourceVersion"].take();
            body = self.convert(body, version, &name.name)?;
            if !revision.is_null() {
                body["metadata"]["resourceVersion"] = revision;
            }
            if let Some(template) = self.template_of(pool.as_deref(), &body).await {
                body["spec"]["sandboxTemplateRef"]["name"] = template.into();
            }
        }
        self.dynamic(body, &name.name)
    }

    /// The template of a pool, for a claim that has only guessed that the two have one name.
    async fn template_of(&self, pool: Option<&str>, claim: &Value) -> Option<String> {
        let guessed = pool.filter(|pool| claim["spec"]["sandboxTemplateRef"]["name"] == **pool)?;
        let pools = Objects::<SandboxWarmPool>::new(self.connection.clone(), &self.namespace);
        // Without an answer the guess stands: the claim then says what is missing.
        let pool = Box::pin(pools.get(guessed)).await.ok()?;
        Some(pool.spec.sandbox_template_ref.name)
    }

    /// An object as a program wants it.
    pub(crate) fn incoming(&self, object: DynamicObject) -> Result<K, Error> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let revision = object.metadata.resource_version.clone();
        let mut object = to_json(&object);
        // Controllers before v0.3.10 wrote Go's name of the field.
        if let Some(sandbox) = object["status"]["sandbox"].as_object_mut()
            && let Some(old) = sandbox.remove("Name")
        {
            sandbox.entry("name").or_insert(old);
        }
        if object["status"].is_null()
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
        let mut object = self.convert(object, Version::V1beta1, &name)?;
        if let Some(revision) = revision {
            object["metadata"]["resourceVersion"] = revision.into();
        }
        serde_json::from_value(object).map_err(|error| self.bad(&self.name_of(&name), &error))
    }
}

fn to_json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("what was read from JSON is JSON")
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"a": 1, "b": {"c": 1, "d": 2}}), json!({"b": {"c": null, "e": [1]}}), json!({"a": 1, "b": {"d": 2, "e": [1]}}))]
    #[case(json!({"a": [1, 2]}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}))]
    #[case(json!({"a": 1}), json!({"a": null, "b": null}), json!({}))]
    fn a_merge_patch_is_that_of_the_rfc(#[case] mut target: Value, #[case] patch: Value, #[case] wanted: Value) {
        merge(&mut target, &patch);
        assert_eq!(target, wanted);
    }
}
