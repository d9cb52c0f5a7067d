//! Is Agent Sandbox there and usable, and what is to be done if not: one row for each thing that has to be so.

use std::{fmt, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        core::v1::{Namespace, PodTemplateSpec},
        node::v1::RuntimeClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::ListParams, api::PostParams};

use crate::{
    conversion::Version,
    error::{CallError, Error},
    sandboxes::AgentSandboxClient,
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many workloads are looked through for the controller.
const WORKLOADS: u32 = 500;

/// What the controller is called: upstream's own manifests and its bundle, and by Helm's labels.
const CONTROLLER: &str = "agent-sandbox-controller";
const CHART: &str = "agent-sandbox";

/// Where upstream's manifests put it.
const SYSTEM: &str = "agent-sandbox-system";

/// What a caller has to be allowed: group, resource, subresource, verbs.
const NEEDED: [(&str, &str, &str, &[&str]); 8] = [
    ("agents.x-k8s.io", "sandboxes", "", &["create", "get", "list", "watch", "patch", "update", "delete"]),
    ("extensions.agents.x-k8s.io", "sandboxclaims", "", &["create", "get", "list", "watch", "delete"]),
    ("extensions.agents.x-k8s.io", "sandboxtemplates", "", &["get", "list"]),
    ("extensions.agents.x-k8s.io", "sandboxwarmpools", "", &["get", "list", "watch"]),
    ("", "pods", "", &["get"]),
    ("", "pods", "exec", &["create", "get"]),
    ("", "pods", "log", &["get"]),
    ("", "events", "", &["list"]),
];

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It cannot be told: the cluster does not say, or not to this caller.
    Unknown,
    /// Something will not work.
    Bad,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Topic {
    /// The API server answers, and which version it is.
    Cluster,
    /// The kinds are served, and in which versions.
    Kinds,
    /// The definitions are there and established.
    Definitions,
    /// The controller is there and runs.
    Controller,
    /// The client's namespace exists.
    Namespace,
    /// The classes that pods can be isolated by.
    RuntimeClasses,
    /// What the caller may do in the namespace.
    Permissions,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// What it is about.
    pub topic: Topic,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing.
    pub advice: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Unknown => "??",
            Verdict::Bad => "no",
        };
        write!(f, "{mark}  {:?}: {}", self.topic, self.found)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// In the order of [`Topic`].
    pub rows: Vec<Row>,
}

impl Health {
    /// Whether nothing is known to be wrong.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::health::Health;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let health: Health = client.health().await;
    /// if !health.is_healthy() {
    ///     eprint!("{health}");
    /// }
    /// # }
    /// ```
    pub fn is_healthy(&self) -> bool {
        self.rows.iter().all(|row| row.verdict != Verdict::Bad)
    }

    /// The rows about one topic.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::health::{Row, Topic, Verdict};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// for row in client.health().await.about(Topic::Permissions) {
    ///     let Row { verdict, found, advice, .. } = row;
    ///     if *verdict == Verdict::Bad {
    ///         println!("{found}: {advice}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn about(&self, topic: Topic) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.topic == topic)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl AgentSandboxClient {
    /// Looks at the cluster, the installation and the caller's permissions. It changes nothing, and it always answers:
    /// what cannot be found out is a row that says so.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let health = client.health().await;
    /// print!("{health}");
    /// assert!(health.is_healthy());
    /// # }
    /// ```
    pub async fn health(&self) -> Health {
        let mut rows = vec![self.cluster_row().await];
        // Nothing else will be answered either.
        if rows[0].verdict == Verdict::Good {
            rows.extend(self.kind_rows().await);
            rows.push(self.definitions_row().await);
            rows.push(self.controller_row().await);
            rows.push(self.namespace_row().await);
            rows.push(self.runtime_classes_row().await);
            rows.push(self.permissions_row().await);
        }
        Health { rows }
    }

    async fn cluster_row(&self) -> Row {
        match ask(self.kube().apiserver_version()).await {
            Ok(version) => good(Topic::Cluster, format!("Kubernetes {}", version.git_version)),
            Err(why) => {
                let advice = "check the address, the credentials and the network of the kubeconfig's context";
                bad(Topic::Cluster, format!("the API server does not answer: {why}"), advice)
            }
        }
    }

    async fn kind_rows(&self) -> Vec<Row> {
        let found = [
            ("sandboxes", self.sandboxes().version().await, true),
            ("sandbox claims", self.claims().version().await, false),
            ("sandbox templates", self.templates().version().await, false),
            ("warm pools", self.warm_pools().version().await, false),
        ];
        let row = |(what, version, core): (&str, Result<Version, Error>, bool)| match version {
            Ok(version) => good(Topic::Kinds, format!("{what} are served in {version}")),
            Err(Error::NotServed { .. }) if core => bad(
                Topic::Kinds,
                format!("{what} are not served"),
                "apply sandbox.yaml of an Agent Sandbox release (manifest.yaml before v0.5.2)",
            ),
            Err(Error::NotServed { .. }) => bad(
                Topic::Kinds,
                format!("{what} are not served"),
                "apply extensions.yaml of an Agent Sandbox release, or do without templates, pools and claims",
            ),
            Err(error) => unknown(Topic::Kinds, format!("{what}: {error}"), "try again"),
        };
        found.into_iter().map(row).collect()
    }

    async fn definitions_row(&self) -> Row {
        let topic = Topic::Definitions;
        let api = Api::<CustomResourceDefinition>::all(self.kube());
        let mut states = Vec::new();
        let mut broken = false;
        for name in crate::crds::NAMES {
            match ask(api.get_opt(name)).await {
                Ok(None) => states.push(format!("{name} is not there")),
                Ok(Some(found)) => {
                    let stored =
                        found.status.as_ref().and_then(|status| status.stored_versions.clone()).unwrap_or_default();
                    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    let established = conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True");
                    broken |= !established;
                    let state = if established { "stored in" } else { "NOT established, stored in" };
                    states.push(format!("{name} {state} {}", stored.join(" and ")));
                }
                Err(why) => {
                    let advice = "reading definitions is allowed to few; the served kinds above are what counts";
                    return unknown(topic, format!("the definitions were not read: {why}"), advice);
                }
            }
        }
        let found = states.join(", ");
        if broken { bad(topic, found, "look at the definitions' conditions") } else { good(topic, found) }
    }

    /// The workloads that may be the controller, wherever they run. Among 500 of each kind they are looked for.
    ///
    /// # Errors
    /// [`HealthError`]: workloads could not be listed, or not all kinds of them.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// match client.controllers().await {
    ///     Ok(found) => found.iter().for_each(|controller| println!("{controller}")),
    ///     Err(error) => println!("it is not known: {error}"),
    /// }
    /// # }
    /// ```
    pub async fn controllers(&self) -> Result<Vec<Controller>, HealthError> {
        let everywhere = ListParams::default().limit(WORKLOADS);
        let deployments = ask(Api::<Deployment>::all(self.kube()).list(&everywhere)).await;
        let sets = ask(Api::<StatefulSet>::all(self.kube()).list(&everywhere)).await;
        let why = match (&deployments, &sets) {
            (Err(why), _) | (_, Err(why)) => Some(why.clone()),
            (Ok(_), Ok(_)) => None,
        };
        let deployments = deployments.into_iter().flatten().filter_map(|found| {
            let spec = found.spec.clone().unwrap_or_default();
            let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
            Controller::of("Deployment", &found, &spec.template, ready)
        });
        let sets = sets.into_iter().flatten().filter_map(|found| {
            let spec = found.spec.clone().unwrap_or_default();
            let ready = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
            Controller::of("StatefulSet", &found, &spec.template, ready)
        });
        let found = deployments.chain(sets).collect();
        match why {
            Some(why) => Err(HealthError::NotAllListed { why, found }),
            None => Ok(found),
        }
    }

    async fn controller_row(&self) -> Row {
        let topic = Topic::Controller;
        let (found, why) = match self.controllers().await {
            Ok(found) => (found, None),
            Err(HealthError::NotAllListed { why, found }) => (found, Some(why)),
        };
        let texts = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (found.as_slice(), why) {
            ([], Some(why)) => {
                let advice = "nothing is wrong with that: a sandbox that gets a Ready condition has a controller";
                unknown(topic, format!("workloads were not listed: {why}"), advice)
            }
            ([], None) => bad(
                topic,
                format!("no Deployment or StatefulSet is the controller, in {SYSTEM} or elsewhere"),
                "apply an Agent Sandbox release or its Helm chart; without a controller a sandbox stays an entry",
            ),
            ([one], _) if one.ready > 0 => good(topic, texts),
            ([_], _) => bad(topic, texts, "look at its pods: none is ready"),
            (_, _) => bad(topic, texts, "remove all but one: they would work against each other"),
        }
    }

    async fn namespace_row(&self) -> Row {
        let name = self.namespace();
        match ask(Api::<Namespace>::all(self.kube()).get_opt(name)).await {
            Ok(Some(found)) if found.metadata.deletion_timestamp.is_some() => {
                let advice = "take another one, or wait and create it again";
                bad(Topic::Namespace, format!("{name} is being deleted"), advice)
            }
            Ok(Some(_)) => good(Topic::Namespace, format!("{name} is there")),
            Ok(None) => bad(Topic::Namespace, format!("{name} does not exist"), "create it: no controller does"),
            Err(why) => unknown(Topic::Namespace, format!("{name} was not read: {why}"), ""),
        }
    }

    async fn runtime_classes_row(&self) -> Row {
        match ask(Api::<RuntimeClass>::all(self.kube()).list(&ListParams::default())).await {
            Ok(list) if list.items.is_empty() => {
                good(Topic::RuntimeClasses, "none: pods share the node's kernel".to_owned())
            }
            Ok(list) => {
                let names: Vec<_> =
                    list.items.iter().map(|class| format!("{} ({})", class.name_any(), class.handler)).collect();
                good(Topic::RuntimeClasses, names.join(", "))
            }
            Err(why) => unknown(Topic::RuntimeClasses, format!("they were not listed: {why}"), ""),
        }
    }

    async fn permissions_row(&self) -> Row {
        let topic = Topic::Permissions;
        let api = Api::<SelfSubjectAccessReview>::all(self.kube());
        let mut missing = Vec::new();
        for (group, resource, subresource, verbs) in NEEDED {
            for verb in verbs {
                let attributes = ResourceAttributes {
                    namespace: Some(self.namespace().to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: Some(subresource.to_owned()).filter(|sub| !sub.is_empty()),
                    verb: Some((*verb).to_owned()),
                    ..Default::default()
                };
                let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
                let review = SelfSubjectAccessReview { spec, ..Default::default() };
                match ask(api.create(&PostParams::default(), &review)).await {
                    Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
                    Ok(_) if subresource.is_empty() => missing.push(format!("{verb} {resource}")),
                    Ok(_) => missing.push(format!("{verb} {resource}/{subresource}")),
                    Err(why) => return unknown(topic, format!("access was not reviewed: {why}"), ""),
                }
            }
        }
        if missing.is_empty() {
            return good(topic, format!("all that is needed in {}", self.namespace()));
        }
        let found = format!("the caller may not {} in {}", missing.join(", "), self.namespace());
        bad(topic, found, "let an administrator bind a role with these verbs")
    }
}

/// Why it is not known which workloads are the controller.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::health::HealthError;
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
/// if let Err(HealthError::NotAllListed { found, .. }) = client.controllers().await {
///     println!("{} of them may not be all", found.len());
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// Not all kinds of workloads could be listed.
    #[error("Deployments and StatefulSets were not all listed: {why}")]
    NotAllListed {
        /// Why.
        why: String,
        /// Those that were found all the same.
        found: Vec<Controller>,
    },
}

impl HealthError {
    /// Whether it makes sense to look again: not for who may not list them.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let again = client.controllers().await.is_err_and(|error| error.is_retryable());
    /// # }
    /// ```
    pub fn is_retryable(&self) -> bool {
        let Self::NotAllListed { why, .. } = self;
        !why.contains("is forbidden")
    }
}

/// A workload that is the controller, as far as one can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// `Deployment` or `StatefulSet`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The controller's image, if it goes by the usual name.
    pub image: Option<String>,
    /// How many of its pods are ready.
    pub ready: i32,
}

impl Controller {
    /// The image's tag.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::health::Controller;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::health::HealthError> {
    /// let found: Vec<Controller> = client.controllers().await?;
    /// println!("{:?}", found.first().and_then(Controller::version));
    /// # Ok(())
    /// # }
    /// ```
    pub fn version(&self) -> Option<&str> {
        let last = self.image.as_deref()?.rsplit('/').next()?;
        let (_, tag) = last.split('@').next()?.split_once(':')?;
        Some(tag)
    }

    fn of(kind: &'static str, object: &impl ResourceExt, template: &PodTemplateSpec, ready: i32) -> Option<Self> {
        let (name, labels) = (object.name_any(), object.labels());
        let containers = template.spec.iter().flat_map(|spec| &spec.containers);
        let image =
            containers.filter_map(|container| container.image.clone()).find(|image| image_name(image) == CONTROLLER);
        // Upstream's manifests and bundle name it; the chart names it after the release and labels it; any mirror keeps
        // the image's last name.
        let is_controller = name == CONTROLLER
            || labels.get("app").is_some_and(|app| app == CONTROLLER)
            || (labels.get("app.kubernetes.io/name").is_some_and(|chart| chart == CHART) && image.is_some())
            || image.is_some();
        let namespace = object.namespace().unwrap_or_default();
        is_controller.then_some(Self { kind, namespace, name, image, ready })
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, image, ready } = self;
        let image = image.as_ref().map(|image| format!(" ({image})")).unwrap_or_default();
        write!(f, "{kind} {namespace}/{name}{image}, {ready} ready")
    }
}

/// `c` of `a/b/c:tag@digest`.
fn image_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split([':', '@']).next().unwrap_or_default()
}

/// An answer in time, or why there is none.
async fn ask<T>(question: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match CallError::from(error) {
            CallError::Refused(status) => status.message,
            error => error.to_string(),
        }),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

fn good(topic: Topic, found: String) -> Row {
    Row { topic, verdict: Verdict::Good, found, advice: String::new() }
}

fn bad(topic: Topic, found: String, advice: &str) -> Row {
    Row { topic, verdict: Verdict::Bad, found, advice: advice.into() }
}

fn unknown(topic: Topic, found: String, advice: &str) -> Row {
    Row { topic, verdict: Verdict::Unknown, found, advice: advice.into() }
}
