//! [`WaitError`]: why a wait was in vain, and what was seen last.

use std::{fmt, time::Duration};

use super::{CallError, Error, ObjectName};

/// What went wrong in waiting for an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The watch was refused in a way that another try would not change.
    #[error("{object} cannot be watched")]
    WatchRefused {
        /// Which.
        object: ObjectName,
        /// Why.
        source: CallError,
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
        source: Option<CallError>,
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
///
/// # Examples
/// ```
/// let nothing = agent_sandbox_sdk::LastSeen::default();
/// assert_eq!(nothing.to_string(), "the controller has said nothing about it");
/// ```
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
