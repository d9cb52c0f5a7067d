//! Builders: the short way to an object, and one that the server's schema takes.
//!
//! Each begins with what there has to be, and ends with [`build`](SandboxBuilder::build), which asks
//! [`validate`]: what the schema refuses is not built. Whatever a builder has no word for is
//! said on the object itself, which is plain data.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, EnvVar as PodEnvVar, PersistentVolumeClaimSpec, PodSpec, ResourceRequirements, VolumeMount,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

use crate::{
    objects::Kind,
    v1beta1::{
        ClaimLifecycle, ClaimShutdownPolicy, EnvVar, NetworkPolicyManagement, NetworkRules, OperatingMode, PodMetadata,
        PodTemplate, Sandbox, SandboxClaim, SandboxClaimSpec, SandboxSpec, SandboxTemplate, SandboxTemplateRef,
        SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef, SandboxWarmPoolSpec, ShutdownPolicy, UpdateStrategy,
        UpdateStrategyType, VolumeClaimMetadata, VolumeClaimTemplate,
    },
    validation::{Violation, validate},
};

/// What a builder calls its container.
const MAIN: &str = "main";

/// An object was not built: the server would refuse it.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{builders::NotBuilt, v1beta1::SandboxWarmPool};
///
/// let error: NotBuilt = SandboxWarmPool::builder("python", "python").replicas(-1).build().unwrap_err();
/// assert!(error.to_string().starts_with("warm pool python would be refused: spec.replicas: Invalid value: -1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name} would be refused: {}", texts(violations))]
#[non_exhaustive]
pub struct NotBuilt {
    /// The kind, as in a sentence.
    pub kind: &'static str,
    /// The object's name.
    pub name: String,
    /// What is wrong with it, in the server's words.
    pub violations: Vec<Violation>,
}

fn texts(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn checked<K: Kind>(object: K) -> Result<K, NotBuilt> {
    let violations = validate(&object);
    if violations.is_empty() {
        return Ok(object);
    }
    Err(NotBuilt { kind: K::WORD, name: object.meta().name.clone().unwrap_or_default(), violations })
}

/// A pod with one container that runs until it is told to end.
fn pod(image: String) -> PodTemplate {
    let main = Container { name: MAIN.into(), image: Some(image), ..Default::default() };
    PodTemplate::of(PodSpec { containers: vec![main], ..Default::default() })
}

fn main_of(pod: &mut PodTemplate) -> &mut Container {
    pod.spec.containers.first_mut().expect("a builder makes one and takes none away")
}

/// A volume claim and the place where the container sees it.
fn add_volume(
    pod: &mut PodTemplate,
    claims: &mut Option<Vec<VolumeClaimTemplate>>,
    name: &str,
    path: &str,
    size: &str,
) {
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(size.to_owned()))]);
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".into()]),
        resources: Some(VolumeResourceRequirements { requests: Some(requests), ..Default::default() }),
        ..Default::default()
    };
    let metadata = VolumeClaimMetadata { name: Some(name.to_owned()), ..Default::default() };
    claims.get_or_insert_default().push(VolumeClaimTemplate { metadata: Some(metadata), spec });
    let mount = VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..Default::default() };
    main_of(pod).volume_mounts.get_or_insert_default().push(mount);
}

/// What the builders of kinds with a pod have in common.
macro_rules! pod_words {
    () => {
        /// What the container runs instead of its image's own command.
        pub fn command(mut self, command: impl IntoIterator<Item: Into<String>>) -> Self {
            let command = command.into_iter().map(Into::into).collect();
            main_of(&mut self.spec.pod_template).command = Some(command);
            self
        }

        /// A variable of the container. It stands in the object for all who may read that: no place for secrets.
        pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            let variable = PodEnvVar { name: name.into(), value: Some(value.into()), value_from: None };
            main_of(&mut self.spec.pod_template).env.get_or_insert_default().push(variable);
            self
        }

        /// How much of a resource the container gets at least and at most: `("memory", "256Mi", "1Gi")`.
        pub fn resource(mut self, name: &str, request: impl Into<String>, limit: impl Into<String>) -> Self {
            let main = main_of(&mut self.spec.pod_template);
            let ResourceRequirements { requests, limits, .. } = main.resources.get_or_insert_default();
            requests.get_or_insert_default().insert(name.into(), Quantity(request.into()));
            limits.get_or_insert_default().insert(name.into(), Quantity(limit.into()));
            self
        }

        /// A volume of its own for each sandbox, which lives as long as that: its name, where the container sees it, and
        /// its size (`10Gi`).
        pub fn volume(mut self, name: &str, path: &str, size: &str) -> Self {
            let spec = &mut self.spec;
            add_volume(&mut spec.pod_template, &mut spec.volume_claim_templates, name, path, size);
            self
        }

        /// The class that isolates the pod: `gvisor`, for one.
        pub fn runtime_class(mut self, name: impl Into<String>) -> Self {
            self.spec.pod_template.spec.runtime_class_name = Some(name.into());
            self
        }

        /// A label of the pod.
        pub fn pod_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            let metadata = self.spec.pod_template.metadata.get_or_insert_default();
            metadata.labels.insert(key.into(), value.into());
            self
        }

        /// The whole pod, instead of the one that was begun: its first container is the one that the other words are about.
        pub fn pod(mut self, pod: PodTemplate) -> Self {
            if pod.spec.containers.is_empty() {
                self.spec.pod_template = PodTemplate {
                    spec: PodSpec { containers: self.spec.pod_template.spec.containers, ..pod.spec },
                    ..pod
                };
            } else {
                self.spec.pod_template = pod;
            }
            self
        }

        /// Whether a headless Service of the sandbox's name points at its pod.
        pub fn service(mut self, wanted: bool) -> Self {
            self.spec.service = Some(wanted);
            self
        }
    };
}

/// What all builders have in common.
macro_rules! words {
    ($kind:ident, $spec:ident) => {
        /// A label of the object.
        pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            self.labels.insert(key.into(), value.into());
            self
        }

        /// An annotation of the object.
        pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            self.annotations.insert(key.into(), value.into());
            self
        }

        /// The object.
        ///
        /// # Errors
        /// [`NotBuilt`] if the server's schema would refuse it, with all that is wrong.
        pub fn build(self) -> Result<$kind, NotBuilt> {
            let Self { name, labels, annotations, spec } = self;
            let mut object = $kind::new(&name, spec);
            object.metadata.labels = Some(labels).filter(|labels| !labels.is_empty());
            object.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
            checked(object)
        }
    };
}

macro_rules! builder {
    ($(#[$doc:meta])* $builder:ident, $kind:ident, $spec:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use]
        pub struct $builder {
            name: String,
            labels: BTreeMap<String, String>,
            annotations: BTreeMap<String, String>,
            spec: $spec,
        }

        impl $builder {
            fn new(name: impl Into<String>, spec: $spec) -> Self {
                Self { name: name.into(), labels: BTreeMap::new(), annotations: BTreeMap::new(), spec }
            }
        }
    };
}

builder! {
    /// Makes a [`Sandbox`].
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{builders::SandboxBuilder, v1beta1::Sandbox};
    ///
    /// let builder: SandboxBuilder = Sandbox::builder("hello", "python:3.13")
    ///     .command(["sleep", "infinity"])
    ///     .env("MODE", "test")
    ///     .resource("memory", "256Mi", "1Gi")
    ///     .volume("work", "/workspace", "10Gi")
    ///     .runtime_class("gvisor")
    ///     .label("team", "red")
    ///     .annotation("why", "lunch")
    ///     .pod_label("team", "red")
    ///     .service(true)
    ///     .shutdown_at("2100-01-01T00:00:00Z".parse()?, true)
    ///     .suspended();
    /// let sandbox = builder.build()?;
    /// assert_eq!(sandbox.spec.volume_claim_templates.map(|claims| claims.len()), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    SandboxBuilder, Sandbox, SandboxSpec
}

impl Sandbox {
    /// A sandbox of this name, whose pod has one container of this image, called `main`.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::Sandbox;
    ///
    /// let sandbox = Sandbox::builder("hello", "busybox:1.36").command(["sleep", "infinity"]).build()?;
    /// assert_eq!(sandbox.spec.pod_template.spec.containers[0].name, "main");
    /// assert!(Sandbox::builder("No Name", "busybox:1.36").build().is_err());
    /// # Ok::<(), agent_sandbox_sdk::builders::NotBuilt>(())
    /// ```
    pub fn builder(name: impl Into<String>, image: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder::new(name, SandboxSpec { pod_template: pod(image.into()), ..Default::default() })
    }
}

impl SandboxBuilder {
    pod_words!();
    words!(Sandbox, SandboxSpec);

    /// When the sandbox expires, and whether it is deleted then; else it stays with its volumes.
    pub fn shutdown_at(mut self, time: Timestamp, delete: bool) -> Self {
        self.spec.shutdown_time = Some(Time(time));
        self.spec.shutdown_policy = Some(if delete { ShutdownPolicy::Delete } else { ShutdownPolicy::Retain });
        self
    }

    /// That it begins suspended.
    pub fn suspended(mut self) -> Self {
        self.spec.operating_mode = Some(OperatingMode::Suspended);
        self
    }
}

builder! {
    /// Makes a [`SandboxTemplate`].
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{
    ///     builders::SandboxTemplateBuilder,
    ///     v1beta1::{NetworkRules, PodMetadata, PodTemplate, SandboxTemplate},
    /// };
    /// use k8s_openapi::api::core::v1::PodSpec;
    ///
    /// let pod = PodTemplate { metadata: Some(PodMetadata::default()), spec: PodSpec::default() };
    /// let builder: SandboxTemplateBuilder =
    ///     SandboxTemplate::builder("python", "python:3.13").pod(pod).network(NetworkRules::default()).network_unmanaged();
    /// let template = builder.build()?;
    /// assert_eq!(template.spec.pod_template.spec.containers.len(), 1);
    /// # Ok::<(), agent_sandbox_sdk::builders::NotBuilt>(())
    /// ```
    SandboxTemplateBuilder, SandboxTemplate, SandboxTemplateSpec
}

impl SandboxTemplate {
    /// A template of this name, whose pods have one container of this image, called `main`.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::SandboxTemplate;
    ///
    /// let template = SandboxTemplate::builder("python", "python:3.13").command(["sleep", "infinity"]).build()?;
    /// # Ok::<(), agent_sandbox_sdk::builders::NotBuilt>(())
    /// ```
    pub fn builder(name: impl Into<String>, image: impl Into<String>) -> SandboxTemplateBuilder {
        SandboxTemplateBuilder::new(name, SandboxTemplateSpec { pod_template: pod(image.into()), ..Default::default() })
    }
}

impl SandboxTemplateBuilder {
    pod_words!();
    words!(SandboxTemplate, SandboxTemplateSpec);

    /// Who may talk to the sandboxes, and whom they may talk to, instead of the controller's own rules.
    pub fn network(mut self, rules: NetworkRules) -> Self {
        self.spec.network_policy = Some(rules);
        self
    }

    /// That the controller keeps no NetworkPolicy for the template.
    pub fn network_unmanaged(mut self) -> Self {
        self.spec.network_policy_management = Some(NetworkPolicyManagement::Unmanaged);
        self
    }
}

builder! {
    /// Makes a [`SandboxClaim`].
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{builders::SandboxClaimBuilder, v1beta1::{ClaimShutdownPolicy, SandboxClaim}};
    ///
    /// let builder: SandboxClaimBuilder = SandboxClaim::builder("mine", "python")
    ///     .env("MODE", "test")
    ///     .pod_label("team", "red")
    ///     .shutdown_at("2100-01-01T00:00:00Z".parse()?)
    ///     .ttl_after_finished(60)
    ///     .on_expiry(ClaimShutdownPolicy::Delete);
    /// assert_eq!(builder.build()?.spec.warm_pool_ref.name, "python");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    SandboxClaimBuilder, SandboxClaim, SandboxClaimSpec
}

impl SandboxClaim {
    /// A claim of this name for a sandbox of this pool.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::SandboxClaim;
    ///
    /// let claim = SandboxClaim::builder("mine", "python").ttl_after_finished(60).build()?;
    /// # Ok::<(), agent_sandbox_sdk::builders::NotBuilt>(())
    /// ```
    pub fn builder(name: impl Into<String>, pool: impl Into<String>) -> SandboxClaimBuilder {
        let warm_pool_ref = SandboxWarmPoolRef { name: pool.into() };
        SandboxClaimBuilder::new(name, SandboxClaimSpec { warm_pool_ref, ..Default::default() })
    }
}

impl SandboxClaimBuilder {
    words!(SandboxClaim, SandboxClaimSpec);

    /// A variable of the first container; the sandbox is then made anew, and the template must allow it.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let variable = EnvVar { container_name: None, name: name.into(), value: value.into() };
        self.spec.env.get_or_insert_default().push(variable);
        self
    }

    /// A label of the pod, beside the template's.
    pub fn pod_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let metadata: &mut PodMetadata = self.spec.additional_pod_metadata.get_or_insert_default();
        metadata.labels.insert(key.into(), value.into());
        self
    }

    fn lifecycle(&mut self) -> &mut ClaimLifecycle {
        self.spec.lifecycle.get_or_insert_default()
    }

    /// When the claim expires.
    pub fn shutdown_at(mut self, time: Timestamp) -> Self {
        self.lifecycle().shutdown_time = Some(Time(time));
        self
    }

    /// How many seconds after its pod has ended the claim expires.
    pub fn ttl_after_finished(mut self, seconds: i32) -> Self {
        self.lifecycle().ttl_seconds_after_finished = Some(seconds);
        self
    }

    /// What its expiry leaves behind.
    pub fn on_expiry(mut self, policy: ClaimShutdownPolicy) -> Self {
        self.lifecycle().shutdown_policy = Some(policy);
        self
    }
}

builder! {
    /// Makes a [`SandboxWarmPool`].
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{builders::SandboxWarmPoolBuilder, v1beta1::{SandboxWarmPool, UpdateStrategyType}};
    ///
    /// let builder: SandboxWarmPoolBuilder =
    ///     SandboxWarmPool::builder("python", "python").replicas(3).on_change(UpdateStrategyType::Recreate);
    /// assert_eq!(builder.build()?.spec.replicas, Some(3));
    /// # Ok::<(), agent_sandbox_sdk::builders::NotBuilt>(())
    /// ```
    SandboxWarmPoolBuilder, SandboxWarmPool, SandboxWarmPoolSpec
}

impl SandboxWarmPool {
    /// A pool of this name, whose sandboxes are made from this template.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::SandboxWarmPool;
    ///
    /// assert!(SandboxWarmPool::builder("python", "python").replicas(-1).build().is_err());
    /// ```
    pub fn builder(name: impl Into<String>, template: impl Into<String>) -> SandboxWarmPoolBuilder {
        let sandbox_template_ref = SandboxTemplateRef { name: template.into() };
        SandboxWarmPoolBuilder::new(name, SandboxWarmPoolSpec { sandbox_template_ref, ..Default::default() })
    }
}

impl SandboxWarmPoolBuilder {
    words!(SandboxWarmPool, SandboxWarmPoolSpec);

    /// How many sandboxes to keep ready; the server's default is 1.
    pub fn replicas(mut self, replicas: i32) -> Self {
        self.spec.replicas = Some(replicas);
        self
    }

    /// What happens to the pool's sandboxes when the template changes.
    pub fn on_change(mut self, strategy: UpdateStrategyType) -> Self {
        self.spec.update_strategy = Some(UpdateStrategy { type_: Some(strategy) });
        self
    }
}
