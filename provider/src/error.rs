//! [`Error`]: one type for everything that goes wrong, with the codes that clients already know.

use std::{collections::BTreeMap, error::Error as StdError, fmt};

use serde::{Serialize, Serializer};
use serde_json::Value;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal $(, $id:literal)?;)+) => {
        /// What went wrong, as a client tells it apart.
        ///
        /// The names and statuses are those that the predecessor's clients match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)+ }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code on the wire, such as `K8S_POD_NOT_FOUND`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status of an answer that carries it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// The id that monitoring knows it by, such as `K8S-200`; errors of Kubernetes alone have one.
            pub fn id(self) -> Option<&'static str> {
                match self { $(Self::$name => codes!(@id $($id)?),)+ }
            }
        }
    };
    (@id) => { None };
    (@id $id:literal) => { Some($id) };
}

codes! {
    /// The cluster does not answer.
    ClusterUnreachable = "K8S_CLUSTER_UNREACHABLE", 503, "K8S-001";
    /// There is no kubeconfig where one was looked for.
    KubeconfigNotFound = "K8S_KUBECONFIG_NOT_FOUND", 404, "K8S-002";
    /// The kubeconfig cannot be read.
    KubeconfigInvalid = "K8S_KUBECONFIG_INVALID", 400, "K8S-003";
    /// The kubeconfig has no such context.
    ContextNotFound = "K8S_CONTEXT_NOT_FOUND", 404, "K8S-004";
    /// The namespace does not exist.
    NamespaceNotFound = "K8S_NAMESPACE_NOT_FOUND", 404, "K8S-100";
    /// The namespace could not be created.
    NamespaceCreationFailed = "K8S_NAMESPACE_CREATION_FAILED", 500, "K8S-101";
    /// The caller may not use the namespace.
    NamespaceAccessDenied = "K8S_NAMESPACE_ACCESS_DENIED", 403, "K8S-102";
    /// There is no such pod.
    PodNotFound = "K8S_POD_NOT_FOUND", 404, "K8S-200";
    /// The sandbox could not be created.
    PodCreationFailed = "K8S_POD_CREATION_FAILED", 500, "K8S-201";
    /// The sandbox was not ready in time.
    PodStartupTimeout = "K8S_POD_STARTUP_TIMEOUT", 408, "K8S-202";
    /// The sandbox could not be deleted.
    PodDeletionFailed = "K8S_POD_DELETION_FAILED", 500, "K8S-203";
    /// The sandbox does not run.
    PodNotRunning = "K8S_POD_NOT_RUNNING", 400, "K8S-204";
    /// The project has a sandbox already.
    PodAlreadyExists = "K8S_POD_ALREADY_EXISTS", 409, "K8S-205";
    /// A command could not be run.
    ExecFailed = "K8S_EXEC_FAILED", 500, "K8S-300";
    /// A command took too long and was ended.
    ExecTimeout = "K8S_EXEC_TIMEOUT", 408, "K8S-301";
    /// The connection to a command could not be made, or was lost.
    ExecConnectionFailed = "K8S_EXEC_CONNECTION_FAILED", 503, "K8S-302";
    /// The image could not be pulled.
    ImagePullFailed = "K8S_IMAGE_PULL_FAILED", 500, "K8S-400";
    /// The kubelet waits before it pulls again.
    ImagePullBackoff = "K8S_IMAGE_PULL_BACKOFF", 500, "K8S-401";
    /// There is no such image.
    ImageNotFound = "K8S_IMAGE_NOT_FOUND", 404, "K8S-402";
    /// There is no such tmux session.
    TmuxSessionNotFound = "K8S_TMUX_SESSION_NOT_FOUND", 404, "K8S-500";
    /// The tmux session is there already.
    TmuxSessionExists = "K8S_TMUX_SESSION_EXISTS", 409, "K8S-501";
    /// The tmux session could not be made.
    TmuxCreationFailed = "K8S_TMUX_CREATION_FAILED", 500, "K8S-502";
    /// No node has room for what was asked.
    InsufficientResources = "K8S_INSUFFICIENT_RESOURCES", 400, "K8S-600";
    /// The API server refused.
    ApiError = "K8S_API_ERROR", 500, "K8S-700";
    /// A bug.
    K8sInternal = "K8S_INTERNAL_ERROR", 500, "K8S-701";
    /// The network policy could not be created.
    NetworkPolicyCreationFailed = "K8S_NETWORK_POLICY_CREATION_FAILED", 500, "K8S-800";
    /// There is no such network policy.
    NetworkPolicyNotFound = "K8S_NETWORK_POLICY_NOT_FOUND", 404, "K8S-801";
    /// The network policy could not be changed.
    NetworkPolicyUpdateFailed = "K8S_NETWORK_POLICY_UPDATE_FAILED", 500, "K8S-802";
    /// The network policy could not be deleted.
    NetworkPolicyDeletionFailed = "K8S_NETWORK_POLICY_DELETION_FAILED", 500, "K8S-803";
    /// The service account could not be created.
    ServiceAccountCreationFailed = "K8S_SERVICE_ACCOUNT_CREATION_FAILED", 500, "K8S-900";
    /// The role could not be created.
    RoleCreationFailed = "K8S_ROLE_CREATION_FAILED", 500, "K8S-901";
    /// The role binding could not be created.
    RoleBindingCreationFailed = "K8S_ROLE_BINDING_CREATION_FAILED", 500, "K8S-902";
    /// The limit range could not be created.
    LimitRangeCreationFailed = "K8S_LIMIT_RANGE_CREATION_FAILED", 500, "K8S-903";
    /// The namespace's Pod Security level forbids the pod.
    PodSecurityViolation = "K8S_POD_SECURITY_VIOLATION", 400, "K8S-1000";
    /// No warm sandbox is free.
    WarmPoolEmpty = "K8S_WARM_POOL_EMPTY", 503, "K8S-1100";
    /// The pool has reached its size.
    WarmPoolExhausted = "K8S_WARM_POOL_EXHAUSTED", 503, "K8S-1101";
    /// No sandbox could be had from the pool.
    WarmPoolAllocationFailed = "K8S_WARM_POOL_ALLOCATION_FAILED", 500, "K8S-1102";
    /// There is no pool.
    WarmPoolNotEnabled = "K8S_WARM_POOL_NOT_ENABLED", 400, "K8S-1103";
    /// There is no such warm sandbox.
    WarmPodNotFound = "K8S_WARM_POD_NOT_FOUND", 404, "K8S-1104";
    /// What the pool holds could not be found out.
    WarmPoolDiscoveryFailed = "K8S_WARM_POOL_DISCOVERY_FAILED", 500, "K8S-1105";

    /// The project has no sandbox, or there is none of that id.
    ContainerNotFound = "SANDBOX_CONTAINER_NOT_FOUND", 404;
    /// The project has a container already.
    ContainerAlreadyExists = "SANDBOX_CONTAINER_ALREADY_EXISTS", 409;
    /// The container could not be created.
    ContainerCreationFailed = "SANDBOX_CONTAINER_CREATION_FAILED", 500;
    /// The container could not be started.
    ContainerStartFailed = "SANDBOX_CONTAINER_START_FAILED", 500;
    /// The container could not be stopped.
    ContainerStopFailed = "SANDBOX_CONTAINER_STOP_FAILED", 500;
    /// The sandbox does not run.
    ContainerNotRunning = "SANDBOX_CONTAINER_NOT_RUNNING", 400;
    /// There is no such image.
    SandboxImageNotFound = "SANDBOX_IMAGE_NOT_FOUND", 404;
    /// The image could not be pulled.
    SandboxImagePullFailed = "SANDBOX_IMAGE_PULL_FAILED", 500;
    /// A command could not be run.
    SandboxExecFailed = "SANDBOX_EXEC_FAILED", 500;
    /// A command took too long and was ended.
    SandboxExecTimeout = "SANDBOX_EXEC_TIMEOUT", 408;
    /// There is no such tmux session.
    SandboxTmuxSessionNotFound = "SANDBOX_TMUX_SESSION_NOT_FOUND", 404;
    /// The tmux session is there already.
    SandboxTmuxSessionExists = "SANDBOX_TMUX_SESSION_EXISTS", 409;
    /// The tmux session could not be made.
    SandboxTmuxCreationFailed = "SANDBOX_TMUX_CREATION_FAILED", 500;
    /// There are no credentials for the agent.
    CredentialsNotFound = "SANDBOX_CREDENTIALS_NOT_FOUND", 401;
    /// The credentials could not be brought into the sandbox.
    CredentialsInjectionFailed = "SANDBOX_CREDENTIALS_INJECTION_FAILED", 500;
    /// No provider is set up, or the one that is set up cannot be used.
    ProviderNotAvailable = "SANDBOX_PROVIDER_NOT_AVAILABLE", 503;
    /// The provider's health could not be found out.
    ProviderHealthCheckFailed = "SANDBOX_PROVIDER_HEALTH_CHECK_FAILED", 503;
    /// The Docker Engine does not answer.
    DockerNotRunning = "SANDBOX_DOCKER_NOT_RUNNING", 503;
    /// Sandboxes are switched off.
    NotEnabled = "SANDBOX_NOT_ENABLED", 400;
    /// What was asked does not fit the state that the thing is in.
    InvalidStateTransition = "SANDBOX_INVALID_STATE_TRANSITION", 400;
    /// More was asked than may be had.
    ResourceLimitExceeded = "SANDBOX_RESOURCE_LIMIT_EXCEEDED", 400;
    /// A volume could not be mounted.
    VolumeMountFailed = "SANDBOX_VOLUME_MOUNT_FAILED", 500;
    /// A bug.
    SandboxInternal = "SANDBOX_INTERNAL_ERROR", 500;
    /// An agent works on the task already, or is being started for it.
    AgentAlreadyRunning = "SANDBOX_AGENT_ALREADY_RUNNING", 409;
    /// No agent works on the task.
    AgentNotRunning = "SANDBOX_AGENT_NOT_RUNNING", 404;
    /// The agent could not be started.
    AgentStartFailed = "SANDBOX_AGENT_START_FAILED", 500;
    /// The agent could not be stopped.
    AgentStopFailed = "SANDBOX_AGENT_STOP_FAILED", 500;
    /// The sandbox cannot stream a command's output.
    StreamingExecNotSupported = "SANDBOX_STREAMING_EXEC_NOT_SUPPORTED", 501;
    /// No key for the agent's model is set.
    ApiKeyNotConfigured = "SANDBOX_API_KEY_NOT_CONFIGURED", 401;
    /// The session could not be recorded.
    SessionCreateFailed = "SANDBOX_SESSION_CREATE_FAILED", 500;
    /// The stream could not be made.
    StreamCreateFailed = "SANDBOX_STREAM_CREATE_FAILED", 500;
    /// An event could not be published.
    StreamPublishFailed = "SANDBOX_STREAM_PUBLISH_FAILED", 500;
    /// The agent could not be recorded.
    AgentRecordFailed = "SANDBOX_AGENT_RECORD_FAILED", 500;
    /// The task has no plan that waits for an answer.
    PlanNotFound = "SANDBOX_PLAN_NOT_FOUND", 404;
    /// The plan could not be rejected.
    PlanRejectionFailed = "SANDBOX_PLAN_REJECTION_FAILED", 500;
    /// The worktree could not be made.
    WorktreeCreationFailed = "SANDBOX_WORKTREE_CREATION_FAILED", 500;
    /// What is in the worktree could not be committed.
    WorktreeCommitFailed = "SANDBOX_WORKTREE_COMMIT_FAILED", 500;
    /// There is no such task.
    TaskNotFound = "SANDBOX_TASK_NOT_FOUND", 404;
    /// There is no such project.
    ProjectNotFound = "SANDBOX_PROJECT_NOT_FOUND", 404;
    /// The sandbox does something else just now.
    Busy = "SANDBOX_BUSY", 409;

    /// What is remembered could not be read or written.
    StoreFailed = "STORE_FAILED", 500;

    /// The caller has not shown who it is.
    Unauthorized = "UNAUTHORIZED", 401;
    /// The caller may not do that from where it comes.
    Forbidden = "FORBIDDEN", 403;
    /// There is no such route, or no such thing.
    NotFound = "NOT_FOUND", 404;
    /// The route is there, for other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405;
    /// The id in the path is none.
    InvalidId = "INVALID_ID", 400;
    /// The body is not JSON.
    InvalidJson = "INVALID_JSON", 400;
    /// Something in the body or the query is not as it must be; the details name each field.
    Validation = "VALIDATION_ERROR", 400;
    /// Something that must be there is not.
    MissingParams = "MISSING_PARAMS", 400;
    /// The body takes longer to arrive than is waited for.
    RequestTimeout = "REQUEST_TIMEOUT", 408;
    /// The body is larger than is read.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", 413;
    /// The path and query are longer than is read.
    UriTooLong = "URI_TOO_LONG", 414;
    /// The caller asks too often; `Retry-After` says when to come again.
    RateLimited = "RATE_LIMITED", 429;
    /// More is open at once than is allowed.
    TooMany = "TOO_MANY_STREAMS", 429;
    /// A bug.
    Internal = "INTERNAL_ERROR", 500;
    /// The application is going down.
    ShuttingDown = "SHUTTING_DOWN", 503;
    /// A profile of the name is there already.
    ProfileAlreadyExists = "SANDBOX_CONFIG_ALREADY_EXISTS", 409;
    /// A project uses the profile.
    ProfileInUse = "IN_USE", 409;
    /// The profile's memory is out of bounds.
    InvalidMemory = "INVALID_MEMORY", 400;
    /// The profile's number of cores is out of bounds.
    InvalidCpu = "INVALID_CPU", 400;
    /// The profile's number of processes is out of bounds.
    InvalidProcesses = "INVALID_PROCESSES", 400;
    /// The profile's time limit is out of bounds.
    InvalidTimeout = "INVALID_TIMEOUT", 400;
    /// The path is not where kubeconfigs may lie.
    InvalidKubeconfigPath = "INVALID_KUBECONFIG_PATH", 400;
    /// The cluster could not be asked about itself.
    K8sConnection = "K8S_CONNECTION_ERROR", 500;
    /// The kubeconfig's contexts could not be read.
    K8sConfig = "K8S_CONFIG_ERROR", 400;
    /// The controller could not be looked for.
    K8sController = "K8S_CONTROLLER_ERROR", 500;
    /// There is no provider that could start the sandbox again.
    DockerUnavailable = "DOCKER_UNAVAILABLE", 503;
    /// The sandbox could not be started again.
    RestartFailed = "RESTART_FAILED", 500;
    /// Agents cannot be had in this process.
    AgentServiceUnavailable = "CONTAINER_AGENT_SERVICE_UNAVAILABLE", 503;
    /// The task's agent could not be stopped.
    TaskAgentStopFailed = "TASK_AGENT_STOP_FAILED", 500;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What went wrong: a code for programs, a message for people, details that name the object, and the cause for the log.
///
/// The message and the details reach clients; the cause does not. Neither may hold a secret.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    details: BTreeMap<&'static str, Value>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `code`. The message says what failed, on which object, and what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), details: BTreeMap::new(), source: None }))
    }

    /// Names the object, or a number that matters.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.details.insert(key, value.into());
        self
    }

    /// Keeps the cause, for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, as a client tells it apart.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The HTTP status of an answer that carries it.
    pub fn status(&self) -> u16 {
        self.0.code.status()
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The object's name and the like.
    pub fn details(&self) -> &BTreeMap<&'static str, Value> {
        &self.0.details
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { code, message, details, source } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("code", code).field("message", message).field("details", details).field("source", source).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
