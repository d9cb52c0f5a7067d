//! [`PortError`]: why there is no connection to a port.

use super::{CallError, Error, ObjectName};

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
    #[error("{object} has no pod {pod}: is it suspended, expired, or not started yet?")]
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
        object: ObjectName,
        /// The port in the sandbox.
        port: u16,
        /// Why.
        source: CallError,
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
            Self::ConnectFailed { source, .. } => source.is_retryable(),
            Self::NoPod { .. } | Self::ListenFailed { .. } => false,
        }
    }
}
