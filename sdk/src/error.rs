//! What can go wrong: one enumeration per kind of operation, its variants named by the step that failed.
//!
//! A text speaks for its own layer only and leaves the rest to `source()`; print the chain (`{:#}` with anyhow) to see
//! all of it. Each has `is_retryable`: whether the same call may succeed if made again.

use std::{fmt, time::Duration};

use kube::runtime::watcher;

use crate::conversion::ConversionError;

/// What went wrong in a call on Sandbox objects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to a cluster could be set up: no usable kubeconfig, and not in a pod.
    #[error("no client could be made")]
    ConnectFailed(#[source] kube::Error),

    /// The object was not created.
    #[error("{object} was not created")]
    CreateFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The object was not read.
    #[error("{object} was not read")]
    GetFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The objects were not listed.
    #[error("the objects of kind {kind} in {namespace} were not listed")]
    ListFailed {
        /// The kind, as in a sentence.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Why.
        source: kube::Error,
    },

    /// The watch was cut or refused. The stream that said so goes on: poll it again.
    #[error("the watch on objects of kind {kind} in {namespace} was interrupted")]
    WatchFailed {
        /// The kind, as in a sentence.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Why.
        source: watcher::Error,
    },

    /// The object was not changed.
    #[error("{object} was not changed")]
    PatchFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The object was not replaced.
    #[error("{object} was not replaced")]
    UpdateFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The object was not applied.
    #[error("{object} was not applied")]
    ApplyFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The cluster did not say which kinds it serves.
    #[error("it is not known whether the cluster serves {resource}")]
    DiscoveryFailed {
        /// Plural and group.
        resource: String,
        /// Why.
        source: kube::Error,
    },

    /// The cluster does not have the kind in any version that this crate knows: Agent Sandbox is not installed, or is
    /// without its extensions.
    #[error(
        "the cluster does not serve {resource}: install Agent Sandbox and, but for plain sandboxes, its extensions"
    )]
    NotServed {
        /// Plural and group.
        resource: String,
    },

    /// The object does not fit its type, or cannot be said in the version that the cluster speaks.
    #[error("{object} cannot be understood")]
    ConvertFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: ConversionError,
    },

    /// The object was not deleted.
    #[error("{object} was not deleted")]
    DeleteFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: kube::Error,
    },

    /// The log was not read.
    #[error("the log of {object} (pod {pod}) was not read")]
    LogsFailed {
        /// Which.
        object: Box<ObjectName>,
        /// The pod that was asked for.
        pod: String,
        /// Why.
        source: kube::Error,
    },
}

impl Error {
    /// Whether the same call may succeed if made again: the server was busy, or could not be reached.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::Error;
    /// use kube::core::Status;
    ///
    /// let busy = Status::failure("too many requests", "TooManyRequests").with_code(429).boxed();
    /// assert!(Error::ConnectFailed(kube::Error::Api(busy)).is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectFailed(source)
            | Self::CreateFailed { source, .. }
            | Self::GetFailed { source, .. }
            | Self::ListFailed { source, .. }
            | Self::PatchFailed { source, .. }
            | Self::DeleteFailed { source, .. }
            | Self::UpdateFailed { source, .. }
            | Self::ApplyFailed { source, .. }
            | Self::DiscoveryFailed { source, .. }
            | Self::LogsFailed { source, .. } => is_retryable(source),
            Self::NotServed { .. } | Self::ConvertFailed { .. } => false,
            Self::WatchFailed { source, .. } => is_watch_retryable(source),
        }
    }

    /// Whether the server says that there is no such object.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::Error;
    /// use kube::core::Status;
    ///
    /// let gone = Status::failure("sandboxes.agents.x-k8s.io \"a\" not found", "NotFound").with_code(404).boxed();
    /// assert!(Error::ConnectFailed(kube::Error::Api(gone)).is_not_found());
    /// ```
    pub fn is_not_found(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_not_found())
    }

    /// Whether the server says that there is such an object already.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::Error;
    /// use kube::core::Status;
    ///
    /// let taken = Status::failure("sandboxes.agents.x-k8s.io \"a\" already exists", "AlreadyExists").with_code(409).boxed();
    /// assert!(Error::ConnectFailed(kube::Error::Api(taken)).is_already_exists());
    /// ```
    pub fn is_already_exists(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_already_exists())
    }

    /// Whether somebody else was faster, or has the fields that were applied.
    ///
    /// # Examples
    /// ```
    /// assert!(!agent_sandbox_sdk::Error::ConnectFailed(kube::Error::TlsRequired).is_conflict());
    /// ```
    pub fn is_conflict(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_conflict())
    }

    /// The server's own answer, if it gave one.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::Error;
    ///
    /// assert!(Error::ConnectFailed(kube::Error::TlsRequired).status().is_none());
    /// ```
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::ConnectFailed(source)
            | Self::CreateFailed { source, .. }
            | Self::GetFailed { source, .. }
            | Self::ListFailed { source, .. }
            | Self::PatchFailed { source, .. }
            | Self::DeleteFailed { source, .. }
            | Self::UpdateFailed { source, .. }
            | Self::ApplyFailed { source, .. }
            | Self::DiscoveryFailed { source, .. }
            | Self::LogsFailed { source, .. } => match source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::NotServed { .. } | Self::ConvertFailed { .. } => None,
            Self::WatchFailed { source, .. } => match source {
                watcher::Error::WatchError(status) => Some(status),
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status))
                | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
                watcher::Error::InitialListFailed(_)
                | watcher::Error::WatchStartFailed(_)
                | watcher::Error::WatchFailed(_)
                | watcher::Error::NoResourceVersion => None,
            },
        }
    }
}

/// What went wrong in waiting for a Sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The watch was refused in a way that another try would not change.
    #[error("{object} cannot be watched")]
    WatchRefused {
        /// Which.
        object: ObjectName,
        /// Why.
        source: watcher::Error,
    },

    /// The watch was not started: the cluster does not know the kind, or an object of it cannot be understood.
    #[error("{object} cannot be watched")]
    NotWatched {
        /// Which.
        object: ObjectName,
        /// Why.
        source: Box<Error>,
    },

    /// There is no such object, or no longer.
    #[error("{object} does not exist")]
    Gone {
        /// Which.
        object: ObjectName,
    },

    /// The object has come to a state that it does not leave by itself.
    #[error("{object} will not become Ready: {reason}: {message}{}", last.beside())]
    Ended {
        /// Which.
        object: ObjectName,
        /// The reason of its Ready condition.
        reason: String,
        /// The message of its Ready condition.
        message: String,
        /// What it and its pod said last.
        last: Box<LastSeen>,
    },

    /// Time ran out.
    #[error("{object} was not {wanted} after {after:?}: {last}")]
    TimedOut {
        /// Which.
        object: ObjectName,
        /// What was waited for.
        wanted: &'static str,
        /// How long.
        after: Duration,
        /// What the sandbox and its pod said last.
        last: Box<LastSeen>,
        /// What interrupted the watch last, if anything did.
        source: Option<watcher::Error>,
    },
}

impl WaitError {
    /// Whether waiting longer may help.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{ObjectName, WaitError};
    ///
    /// assert!(!WaitError::Gone { object: ObjectName::new("sandbox", "demo", "a") }.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::NotWatched { source, .. } => source.is_retryable(),
            Self::WatchRefused { .. } | Self::Gone { .. } | Self::Ended { .. } => false,
        }
    }
}

/// What a sandbox and its pod said when the wait for them ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastSeen {
    /// Reason and message of the Ready condition, if the controller had set one.
    pub ready: Option<(String, String)>,
    /// What keeps the pod, one entry for each container that waits (`main: ImagePullBackOff: …`) and one for a pod that
    /// finds no node.
    pub pod: Vec<String>,
    /// The last warnings about the object and its pod (`FailedMount: …`), oldest first.
    pub events: Vec<String>,
}

impl LastSeen {
    /// What pod and events add to the condition.
    fn beside(&self) -> String {
        self.pod.iter().chain(&self.events).map(|entry| format!("; {entry}")).collect()
    }
}

impl fmt::Display for LastSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ready {
            Some((reason, message)) => write!(f, "{reason}: {message}")?,
            None => f.write_str("the controller has said nothing about it")?,
        }
        f.write_str(&self.beside())
    }
}

/// What went wrong in running a command in a Sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The sandbox was not read, so its pod is not known.
    #[error("the pod of {object} is not known")]
    PodLookupFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: Box<Error>,
    },

    /// The sandbox has no pod: it is suspended, expired, or has not started.
    #[error("{object} has no pod {pod}")]
    NoPod {
        /// Which.
        object: ObjectName,
        /// The pod that there should be.
        pod: String,
    },

    /// The command was not started.
    #[error("no command could be started in {object} (container {container})")]
    StartFailed {
        /// Which.
        object: Box<ObjectName>,
        /// The container.
        container: String,
        /// Why.
        source: kube::Error,
    },

    /// The command was refused, or could not be run: no such container, no such program.
    #[error("the command was not run: {message}")]
    CommandRefused {
        /// The server's words.
        message: String,
    },

    /// Its output was not read, or its input not written.
    #[error("the command's streams broke")]
    StreamFailed(#[source] std::io::Error),

    /// The connection broke. Whether the command has ended is not known.
    #[error("the connection to the command broke")]
    ConnectionFailed(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The connection ended without the command's exit status. Whether it has ended is not known.
    #[error("the connection ended without the command's exit status")]
    NoExitStatus,

    /// A variable's name is none that a shell takes, or its value holds a zero byte. The value is not told.
    #[error("{name:?} cannot be given to a command as a variable")]
    BadVariable {
        /// The name.
        name: String,
    },

    /// A file was not read or written.
    #[error("{path}: {message}")]
    FileFailed {
        /// The file.
        path: String,
        /// What the shell said.
        message: String,
    },

    /// Files were not copied: on this side of the connection.
    #[error("{} was not copied", path.display())]
    CopyFailed {
        /// The file or folder on this machine.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// The command took longer than it may, and was told to end.
    #[error("the command did not end within {after:?}{}", if *ended { "" } else { ", and may still run" })]
    TimedOut {
        /// How long it may take.
        after: Duration,
        /// Whether it is known to have ended since.
        ended: bool,
        /// What it had written to its standard output.
        stdout: Vec<u8>,
        /// What it had written to its standard error.
        stderr: Vec<u8>,
    },

    /// It wrote more than the caller had allowed for.
    #[error("the command wrote more than {limit_bytes} bytes to one stream")]
    OutputTooLong {
        /// The limit, in bytes per stream.
        limit_bytes: usize,
    },
}

impl ExecError {
    /// Whether the command surely did not start, and may if tried again. An interrupted command is not counted: it may
    /// have done its work.
    ///
    /// # Examples
    /// ```
    /// assert!(!agent_sandbox_sdk::ExecError::NoExitStatus.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PodLookupFailed { source, .. } => source.is_retryable(),
            Self::StartFailed { source, .. } => is_retryable(source),
            Self::NoPod { .. }
            | Self::CommandRefused { .. }
            | Self::StreamFailed(_)
            | Self::ConnectionFailed(_)
            | Self::NoExitStatus
            | Self::BadVariable { .. }
            | Self::FileFailed { .. }
            | Self::CopyFailed { .. }
            | Self::TimedOut { .. }
            | Self::OutputTooLong { .. } => false,
        }
    }
}

/// Why there is no connection to a port of a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The sandbox was not read, so its pod is not known.
    #[error("the pod of {object} is not known")]
    PodLookupFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: Box<Error>,
    },

    /// The sandbox has no pod: it is suspended, expired, or has not started.
    #[error("{object} has no pod {pod}")]
    NoPod {
        /// Which.
        object: ObjectName,
        /// The pod that there should be.
        pod: String,
    },

    /// The cluster did not connect.
    #[error("no connection to port {port} of {object}")]
    ConnectFailed {
        /// Which.
        object: Box<ObjectName>,
        /// The port in the sandbox.
        port: u16,
        /// Why.
        source: kube::Error,
    },

    /// This machine's port could not be opened: it is taken, or not for this user.
    #[error("port {port} of this machine could not be opened")]
    ListenFailed {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}

impl PortError {
    /// Whether it may work if tried again.
    ///
    /// # Examples
    /// ```
    /// let error = agent_sandbox_sdk::PortError::ListenFailed { port: 80, source: std::io::Error::other("taken") };
    /// assert!(!error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PodLookupFailed { source, .. } => source.is_retryable(),
            Self::ConnectFailed { source, .. } => is_retryable(source),
            Self::NoPod { .. } | Self::ListenFailed { .. } => false,
        }
    }
}

/// An upgrade that is answered with 404 loses the answer's text, but not its code.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.is_not_found(),
        kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
            code.as_u16() == 404
        }
        _ => false,
    }
}

/// An object's kind, namespace and name; prints as `sandbox namespace/name`.
///
/// # Examples
/// ```
/// assert_eq!(agent_sandbox_sdk::ObjectName::new("sandbox", "demo", "a").to_string(), "sandbox demo/a");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ObjectName {
    /// The kind, as in a sentence.
    pub kind: &'static str,
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

impl ObjectName {
    /// Names an object.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(&*agent_sandbox_sdk::ObjectName::new("warm pool", "demo", "a").name, "a");
    /// ```
    pub fn new(kind: &'static str, namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Answers that a server gives when it is busy, is being started, or lost a race inside.
const RETRYABLE_CODES: [u16; 6] = [429, 500, 502, 503, 504, 408];

fn is_retryable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => RETRYABLE_CODES.contains(&status.code),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code)) => {
            RETRYABLE_CODES.contains(&code.as_u16())
        }
        _ => false,
    }
}

/// A watch starts over by itself; only an answer that stays the same ends it.
pub(crate) fn is_watch_retryable(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => match source {
            kube::Error::Api(status) => status.code == 410 || RETRYABLE_CODES.contains(&status.code),
            other => is_retryable(other),
        },
        watcher::Error::WatchError(status) => status.code == 410 || RETRYABLE_CODES.contains(&status.code),
        watcher::Error::NoResourceVersion => false,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use kube::core::Status;

    use super::*;

    fn answer(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Status::failure("as the server says", reason).with_code(code).boxed())
    }

    #[test]
    fn a_text_leaves_the_cause_to_its_source() {
        let error =
            Error::GetFailed { object: ObjectName::new("sandbox", "demo", "a"), source: answer(403, "Forbidden") };
        assert_eq!(error.to_string(), "sandbox demo/a was not read");
        assert!(error.source().expect("a cause").to_string().contains("as the server says"));
    }

    #[test]
    fn busy_servers_are_worth_another_try_and_refusals_are_not() {
        let error = |code, reason| Error::CreateFailed {
            object: ObjectName::new("sandbox", "demo", "a"),
            source: answer(code, reason),
        };
        for (code, reason) in [(429, "TooManyRequests"), (503, "ServiceUnavailable"), (500, "InternalError")] {
            assert!(error(code, reason).is_retryable(), "{code}");
        }
        for (code, reason) in [(400, "BadRequest"), (403, "Forbidden"), (409, "AlreadyExists"), (422, "Invalid")] {
            assert!(!error(code, reason).is_retryable(), "{code}");
        }
    }

    #[test]
    fn a_watch_that_fell_behind_starts_over() {
        assert!(is_watch_retryable(&watcher::Error::WatchFailed(answer(410, "Expired"))));
        assert!(!is_watch_retryable(&watcher::Error::InitialListFailed(answer(403, "Forbidden"))));
    }

    #[test]
    fn a_timeout_tells_what_keeps_the_pod() {
        let last = LastSeen {
            ready: Some(("DependenciesNotReady".into(), "Pod exists with phase: Pending".into())),
            pod: vec!["main: ImagePullBackOff: Back-off pulling image".into()],
            events: Vec::new(),
        };
        let error = WaitError::TimedOut {
            object: ObjectName::new("sandbox", "demo", "a"),
            wanted: "Ready",
            after: Duration::from_secs(30),
            last: Box::new(last),
            source: None,
        };
        assert_eq!(
            error.to_string(),
            "sandbox demo/a was not Ready after 30s: DependenciesNotReady: Pod exists with phase: Pending; \
             main: ImagePullBackOff: Back-off pulling image"
        );
    }
}
