//! [`ExecError`], [`CopyError`], [`LogsError`]: what went wrong with a command, with files, with logs.

use std::{io, path::PathBuf, time::Duration};

use super::{CallError, Error, ObjectName};

/// What went wrong in running a command in a sandbox. Neither variables nor input are in it, and no output but that of
/// [`TimedOut`](Self::TimedOut), which its `Debug` leaves out.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::{ExecError, ExecOptions};
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), ExecError> {
/// let options = ExecOptions { timeout: Some(std::time::Duration::from_secs(5)), ..Default::default() };
/// match client.exec_with("hello", ["make"], options).await {
///     Err(ExecError::TimedOut { partial, .. }) => println!("so far: {}", partial.stdout_text()),
///     other => println!("exit code {}", other?.exit_code),
/// }
/// # Ok(())
/// # }
/// ```
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
    #[error("{object} has no pod {pod}: is it suspended, expired, or not started yet?")]
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
        object: ObjectName,
        /// The container.
        container: String,
        /// Why.
        source: CallError,
    },

    /// The command was refused, or could not be run: no such container, no such program.
    #[error("the command was not run in {object}: {message}")]
    CommandRefused {
        /// Which.
        object: ObjectName,
        /// The server's words.
        message: String,
    },

    /// Its output was not read, or its input not written.
    #[error("the streams of the command in {object} broke")]
    StreamFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: io::Error,
    },

    /// The connection broke. Whether the command has ended is not known.
    #[error("the connection to the command in {object} broke, and it may still run")]
    ConnectionFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The connection ended without the command's exit status. Whether it has ended is not known.
    #[error("the connection to the command in {object} ended without its exit status, and it may still run")]
    NoExitStatus {
        /// Which.
        object: ObjectName,
    },

    /// A variable's name is none that a shell takes, or its value holds a zero byte. The value is not told.
    #[error("{name:?} cannot be given to a command as a variable")]
    BadVariable {
        /// The name.
        name: String,
    },

    /// The command has no terminal whose size could be changed.
    #[error("the command in {object} has no terminal: start it with ExecOptions::tty")]
    NoTerminal {
        /// Which.
        object: ObjectName,
    },

    /// The command took longer than it may, and was told to end.
    #[error("the command in {object} did not end within {after:?}{}", if *ended { "" } else { ", and may still run" })]
    TimedOut {
        /// Which.
        object: ObjectName,
        /// How long it may take.
        after: Duration,
        /// Whether it is known to have ended since.
        ended: bool,
        /// What it had written until then.
        partial: Box<Partial>,
    },

    /// It wrote more than the caller had allowed for.
    #[error(
        "the command in {object} wrote more than {limit_bytes} bytes to one stream: read it as it comes, by `start`"
    )]
    OutputTooLong {
        /// Which.
        object: ObjectName,
        /// The limit, in bytes per stream.
        limit_bytes: usize,
    },
}

/// What a command had written when its time was up. Its `Debug` tells how much, and not what.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partial {
    /// To its standard output.
    pub stdout: Vec<u8>,
    /// To its standard error.
    pub stderr: Vec<u8>,
}

impl Partial {
    /// Standard output as text; bytes that are not UTF-8 become `\u{FFFD}`.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(agent_sandbox_sdk::Partial::default().stdout_text(), "");
    /// ```
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stdout, stderr } = self;
        f.debug_struct("Partial").field("stdout_bytes", &stdout.len()).field("stderr_bytes", &stderr.len()).finish()
    }
}

impl ExecError {
    /// Whether the command surely did not start, and may if tried again. An interrupted command is not counted: it may
    /// have done its work.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{ExecError, ObjectName};
    ///
    /// assert!(!ExecError::NoExitStatus { object: ObjectName::new("sandbox", "demo", "a") }.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PodLookupFailed { source, .. } => source.is_retryable(),
            // What was lost on the way may have arrived.
            Self::StartFailed { source: CallError::Interrupted(_) | CallError::TimedOut { .. }, .. } => false,
            Self::StartFailed { source, .. } => source.is_retryable(),
            Self::NoPod { .. }
            | Self::CommandRefused { .. }
            | Self::StreamFailed { .. }
            | Self::ConnectionFailed { .. }
            | Self::NoExitStatus { .. }
            | Self::BadVariable { .. }
            | Self::NoTerminal { .. }
            | Self::TimedOut { .. }
            | Self::OutputTooLong { .. } => false,
        }
    }
}

/// What went wrong in copying files into a sandbox or out of it.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::CopyError;
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), CopyError> {
/// match client.read_file("hello", "/workspace/out.json", 1 << 20).await {
///     Err(CopyError::RemoteFailed { message, .. }) => println!("the sandbox says: {message}"),
///     other => println!("{} bytes", other?.len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The command that reads or writes in the sandbox was not run to its end.
    #[error("{path} of {object} was not copied")]
    CommandFailed {
        /// Which.
        object: ObjectName,
        /// The file or folder in the sandbox.
        path: String,
        /// Why.
        source: Box<ExecError>,
    },

    /// It said that it cannot.
    #[error("{path} of {object}: {message}")]
    RemoteFailed {
        /// Which.
        object: ObjectName,
        /// The file or folder in the sandbox.
        path: String,
        /// What shell or tar said.
        message: String,
    },

    /// A file of this machine was not read or written.
    #[error("{} of this machine was not copied", path.display())]
    LocalFailed {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// It is longer than the caller had allowed for.
    #[error("{path} of {object} is longer than {limit_bytes} bytes")]
    TooLong {
        /// Which.
        object: ObjectName,
        /// The file or folder in the sandbox.
        path: String,
        /// The limit.
        limit_bytes: u64,
    },
}

impl CopyError {
    /// Whether nothing was copied yet, and may be if tried again.
    ///
    /// # Examples
    /// ```
    /// let error = agent_sandbox_sdk::CopyError::LocalFailed { path: "/x".into(), source: std::io::Error::other("full") };
    /// assert!(!error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::CommandFailed { source, .. } => source.is_retryable(),
            Self::RemoteFailed { .. } | Self::LocalFailed { .. } | Self::TooLong { .. } => false,
        }
    }
}

/// What went wrong in reading a sandbox's log.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::LogsError;
/// use kube::api::LogParams;
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
/// if let Err(LogsError::NoPod { pod, .. }) = client.logs("hello", &LogParams::default()).await {
///     println!("{pod} has not started, or is gone");
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// The sandbox was not read, so its pod is not known.
    #[error("the pod of {object} is not known")]
    PodLookupFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: Box<Error>,
    },

    /// The sandbox has no pod, and so no log: it is suspended, expired, or has not started.
    #[error("{object} has no pod {pod}: is it suspended, expired, or not started yet?")]
    NoPod {
        /// Which.
        object: ObjectName,
        /// The pod that there should be.
        pod: String,
    },

    /// The log was not read: the container has not started, or there is none of that name.
    #[error("the log of {object} (pod {pod}) was not read")]
    ReadFailed {
        /// Which.
        object: ObjectName,
        /// The pod that was asked for.
        pod: String,
        /// Why.
        source: CallError,
    },

    /// The log broke off.
    #[error("the log of {object} broke off")]
    StreamFailed {
        /// Which.
        object: ObjectName,
        /// Why.
        source: io::Error,
    },
}

impl LogsError {
    /// Whether the log may be read if tried again.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{LogsError, ObjectName};
    ///
    /// let error = LogsError::NoPod { object: ObjectName::new("sandbox", "demo", "a"), pod: "a".into() };
    /// assert!(!error.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::PodLookupFailed { source, .. } => source.is_retryable(),
            Self::ReadFailed { source, .. } => source.is_retryable(),
            Self::StreamFailed { .. } => true,
            Self::NoPod { .. } => false,
        }
    }
}
