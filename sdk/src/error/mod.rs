//! What can go wrong: one enumeration per kind of operation, its variants named by the step that failed.
//!
//! A text names the object and speaks for its own layer only; the rest is `source()`: print the chain (`{:#}` with
//! anyhow) to see all of it. Below most lies a [`CallError`], which tells what to do. Each has `is_retryable`: whether
//! the same call may succeed if made again. None shows a credential, a variable's value or a command's input, neither
//! in its text nor in its `Debug`.

mod call;
mod exec;
mod port;
mod wait;

use std::fmt;

pub(crate) use self::call::answered;
pub use self::{
    call::{CallError, Quote},
    exec::{CopyError, ExecError, LogsError, Partial},
    port::PortError,
    wait::{LastSeen, WaitError},
};
use crate::conversion::ConversionError;

/// What went wrong in a call on objects: creating, reading, listing, watching, changing, applying, deleting them.
///
/// # Examples
/// ```no_run
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> anyhow::Result<()> {
/// match client.get("hello").await {
///     Ok(sandbox) => println!("{:?}", sandbox.status),
///     Err(error) if error.is_not_found() => println!("there is none"),
///     Err(error) if error.is_retryable() => println!("later: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object was not created.
    #[error("{object} was not created")]
    CreateFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
    },

    /// The object was not read.
    #[error("{object} was not read")]
    GetFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
    },

    /// The objects were not listed.
    #[error("the objects of kind {kind} in {namespace} were not listed")]
    ListFailed {
        /// The kind, as in a sentence.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Why.
        source: CallError,
    },

    /// The watch was cut or refused. The stream that said so goes on: poll it again.
    #[error("the watch on objects of kind {kind} in {namespace} was interrupted")]
    WatchFailed {
        /// The kind, as in a sentence.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Why.
        source: CallError,
    },

    /// The object was not changed.
    #[error("{object} was not changed")]
    PatchFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
    },

    /// The object was not replaced.
    #[error("{object} was not replaced")]
    UpdateFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
    },

    /// The object was not applied.
    #[error("{object} was not applied")]
    ApplyFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
    },

    /// The cluster did not say which kinds it serves.
    #[error("it is not known whether the cluster serves {resource}")]
    DiscoveryFailed {
        /// Plural and group.
        resource: String,
        /// Why.
        source: CallError,
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
        source: CallError,
    },
}

impl Error {
    fn call(&self) -> Option<&CallError> {
        match self {
            Self::CreateFailed { source, .. }
            | Self::GetFailed { source, .. }
            | Self::ListFailed { source, .. }
            | Self::WatchFailed { source, .. }
            | Self::PatchFailed { source, .. }
            | Self::UpdateFailed { source, .. }
            | Self::ApplyFailed { source, .. }
            | Self::DeleteFailed { source, .. }
            | Self::DiscoveryFailed { source, .. } => Some(source),
            Self::NotServed { .. } | Self::ConvertFailed { .. } => None,
        }
    }

    /// Whether the same call may succeed if made again: the server was busy, or could not be reached. A change that was
    /// interrupted may have been made: it is then tried on what is there, and may be told so (a conflict, a taken name).
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{Error, ObjectName};
    /// use kube::core::Status;
    ///
    /// let busy = kube::Error::Api(Status::failure("too many requests", "TooManyRequests").with_code(429).boxed());
    /// let error = Error::GetFailed { object: ObjectName::new("sandbox", "demo", "a"), source: busy.into() };
    /// assert!(error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::WatchFailed { source, .. } => source.is_watch_retryable(),
            _ => self.call().is_some_and(CallError::is_retryable),
        }
    }

    /// Whether the server says that there is no such object.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{Error, ObjectName};
    /// use kube::core::Status;
    ///
    /// let gone = Status::failure("sandboxes.agents.x-k8s.io \"a\" not found", "NotFound").with_code(404).boxed();
    /// let object = ObjectName::new("sandbox", "demo", "a");
    /// assert!(Error::GetFailed { object, source: kube::Error::Api(gone).into() }.is_not_found());
    /// ```
    pub fn is_not_found(&self) -> bool {
        self.call().is_some_and(CallError::is_not_found)
    }

    /// Whether the server says that there is such an object already.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{Error, ObjectName};
    /// use kube::core::Status;
    ///
    /// let taken = Status::failure("sandboxes.agents.x-k8s.io \"a\" already exists", "AlreadyExists").with_code(409);
    /// let object = ObjectName::new("sandbox", "demo", "a");
    /// assert!(Error::CreateFailed { object, source: kube::Error::Api(taken.boxed()).into() }.is_already_exists());
    /// ```
    pub fn is_already_exists(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_already_exists())
    }

    /// Whether somebody else was faster, or has the fields that were applied.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::Sandbox;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient, changed: Sandbox) {
    /// let outcome = client.sandboxes().update(&changed).await;
    /// if outcome.is_err_and(|error| error.is_conflict()) {
    ///     println!("read it again, change it again");
    /// }
    /// # }
    /// ```
    pub fn is_conflict(&self) -> bool {
        matches!(self.status(), Some(status) if status.is_conflict())
    }

    /// The API server's own answer, if it gave one.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::Error;
    ///
    /// assert!(Error::NotServed { resource: "sandboxes.agents.x-k8s.io".into() }.status().is_none());
    /// ```
    pub fn status(&self) -> Option<&kube::core::Status> {
        self.call()?.status()
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

#[cfg(test)]
mod tests;
