//! Commands in a sandbox, with their output in memory.

use std::{borrow::Cow, fmt::Debug};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{
    api::{AttachParams, AttachedProcess},
    client::UpgradeConnectionError,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    error::ExecError,
    sandboxes::{AgentSandboxClient, default_container},
};

/// How a command is run. The default: in the pod's default container, without input, up to 16 MiB of output.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::ExecOptions;
///
/// let options = ExecOptions { stdin: Some(b"1\n2\n".to_vec()), ..Default::default() };
/// assert_eq!(options.output_limit_bytes, 16 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The container. Default: the one named by the annotation `kubectl.kubernetes.io/default-container` in the pod
    /// template, else the first.
    pub container: Option<String>,
    /// What the command reads; after it comes the end of its input. Default: it gets no input stream. Here, not in the
    /// command, is the place for secrets: a command is part of the URL and stands in logs.
    pub stdin: Option<Vec<u8>>,
    /// How much each of stdout and stderr may hold; a command that writes more fails. In bytes, default 16 MiB.
    pub output_limit_bytes: usize,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self { container: None, stdin: None, output_limit_bytes: 16 << 20 }
    }
}

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecOutput {
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Its exit code: 0 if all went well.
    pub exit_code: i32,
}

impl ExecOutput {
    /// Whether the exit code is 0.
    ///
    /// # Examples
    /// ```
    /// assert!(agent_sandbox_sdk::ExecOutput::default().success());
    /// ```
    pub fn success(&self) -> bool {
        self.exit_code == 0
    }

    /// Standard output as text; bytes that are not UTF-8 become `\u{FFFD}`.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(agent_sandbox_sdk::ExecOutput::default().stdout_text(), "");
    /// ```
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text; bytes that are not UTF-8 become `\u{FFFD}`.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(agent_sandbox_sdk::ExecOutput::default().stderr_text(), "");
    /// ```
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

impl AgentSandboxClient {
    /// Runs a command in the sandbox's pod and waits for its end. No shell is involved unless the command is one.
    ///
    /// An exit code other than 0 is not an error. Dropping the future closes the connection; the command may go on.
    ///
    /// # Errors
    /// [`ExecError`]: no pod, no such container or program, a broken connection, too much output.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let output = sandboxes.exec("hello", ["sh", "-c", "echo out; echo err >&2; exit 3"]).await?;
    /// assert_eq!((output.stdout_text().as_ref(), output.exit_code), ("out\n", 3));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec<I>(&self, name: &str, command: I) -> Result<ExecOutput, ExecError>
    where
        I: IntoIterator<Item: Into<String>> + Debug,
    {
        self.exec_with(name, command, ExecOptions::default()).await
    }

    /// As [`exec`](Self::exec), with options.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::ExecOptions;
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let options = ExecOptions { stdin: Some(b"secret".to_vec()), ..Default::default() };
    /// let output = sandboxes.exec_with("hello", ["tee", "/run/token"], options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec_with<I>(&self, name: &str, command: I, options: ExecOptions) -> Result<ExecOutput, ExecError>
    where
        I: IntoIterator<Item: Into<String>> + Debug,
    {
        let sandbox = match self.api().get(name).await {
            Ok(sandbox) => sandbox,
            Err(source) => return Err(ExecError::PodLookupFailed { sandbox: self.name_of(name), source }),
        };
        let pod = sandbox.pod_name().unwrap_or(name).to_owned();
        let container = options.container.clone().or_else(|| default_container(&sandbox)).unwrap_or_default();
        let params = AttachParams::default()
            .container(container.clone())
            .stdin(options.stdin.is_some())
            .stdout(true)
            .stderr(true);
        match self.pods().exec(&pod, command, &params).await {
            Ok(process) => collect(process, options).await,
            Err(source) if is_not_found(&source) => Err(ExecError::NoPod { sandbox: self.name_of(name), pod }),
            Err(source) => Err(ExecError::StartFailed { sandbox: self.name_of(name), container, source }),
        }
    }
}

/// Feeds the command, reads both streams at once (either could fill up and stop it), and takes its status.
async fn collect(mut process: AttachedProcess, options: ExecOptions) -> Result<ExecOutput, ExecError> {
    let limit = options.output_limit_bytes;
    let stdin = process.stdin();
    let stdout = process.stdout();
    let stderr = process.stderr();
    let status = process.take_status();
    let write = async {
        let (Some(mut stdin), Some(bytes)) = (stdin, options.stdin) else { return };
        // A command need not read its input; what it does not take is no failure of ours.
        if stdin.write_all(&bytes).await.is_ok() {
            let _ = stdin.shutdown().await;
        }
    };
    let read = async { tokio::try_join!(read_up_to(stdout, limit), read_up_to(stderr, limit)) };
    let ((), read) = tokio::join!(write, read);
    let (stdout, stderr) = read?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    process.join().await.map_err(|source| ExecError::ConnectionFailed(Box::new(source)))?;
    let status = status.ok_or(ExecError::NoExitStatus)?;
    match exit_code(&status) {
        Some(exit_code) => Ok(ExecOutput { stdout, stderr, exit_code }),
        None => Err(ExecError::CommandRefused { message: status.message.unwrap_or_default() }),
    }
}

async fn read_up_to(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Result<Vec<u8>, ExecError> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let beyond = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        stream.take(beyond).read_to_end(&mut bytes).await.map_err(ExecError::StreamFailed)?;
    }
    if bytes.len() > limit {
        return Err(ExecError::OutputTooLong { limit_bytes: limit });
    }
    Ok(bytes)
}

/// A command's exit code from the status that ends its connection: success, or a failure whose cause tells the code.
/// `None` if the command did not run.
fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    causes.find(|cause| cause.reason.as_deref() == Some("ExitCode"))?.message.as_ref()?.parse().ok()
}

/// An upgrade that is answered with 404 loses the answer's text, but not its code.
fn is_not_found(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.is_not_found(),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => code.as_u16() == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_that_ends_a_command_tells_its_exit_code() {
        let status = |value| exit_code(&serde_json::from_value::<Status>(value).unwrap());
        assert_eq!(status(json!({"status": "Success", "metadata": {}})), Some(0));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: exit status 42",
            "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}});
        assert_eq!(status(failed), Some(42));
        let refused =
            json!({"status": "Failure", "reason": "InternalError", "message": "no such program", "code": 500});
        assert_eq!(status(refused), None);
    }

    #[tokio::test]
    async fn output_up_to_the_limit_is_kept_and_one_byte_more_is_an_error() {
        assert_eq!(read_up_to(Some(&b"12345"[..]), 5).await.unwrap(), b"12345");
        let error = read_up_to(Some(&b"123456"[..]), 5).await.unwrap_err();
        assert!(matches!(error, ExecError::OutputTooLong { limit_bytes: 5 }));
        assert_eq!(read_up_to(None::<tokio::io::Empty>, 5).await.unwrap(), b"");
    }
}
