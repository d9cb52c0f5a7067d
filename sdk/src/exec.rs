//! Commands in a sandbox: their streams, their end, and how to end them.
//!
//! A command stands in the URL of the request, and so in the logs of API server and proxies: no secret belongs there.
//! What is given as environment or as input travels inside the connection instead.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Debug},
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use futures::{FutureExt, SinkExt, channel::mpsc, future::BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::wrapper::{KILLER, TAG, preamble, wrap, wrap_on_terminal};
use crate::{
    error::{CopyError, ExecError, ObjectName, Partial, answered},
    sandboxes::{AgentSandboxClient, default_container},
};

mod wrapper;

/// How much one read takes from a stream, and how much the connection holds of each while nobody reads.
const CHUNK_BYTES: usize = 16 << 10;

/// How long a command that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How a command is run. The default: in the pod's default container, without input, up to 16 MiB of output, as long as
/// it takes. Its `Debug` shows neither input nor the values of variables.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::ExecOptions;
///
/// let mut options = ExecOptions { cwd: Some("/workspace".into()), ..Default::default() };
/// options.env.insert("TOKEN".into(), "s3cr3t".into());
/// assert!(!format!("{options:?}").contains("s3cr3t"));
/// ```
#[derive(Clone)]
pub struct ExecOptions {
    /// The container. Default: the one named by the annotation `kubectl.kubernetes.io/default-container` in the pod
    /// template, else the first.
    pub container: Option<String>,
    /// What the command reads; after it comes the end of its input. Default: it gets no input stream.
    pub stdin: Option<Vec<u8>>,
    /// How much each of stdout and stderr may hold; a command that writes more fails. In bytes, default 16 MiB.
    pub output_limit_bytes: usize,
    /// The folder to run in. Default: the container's own. Needs `sh` in the container.
    pub cwd: Option<String>,
    /// Variables beside the container's own; a place for secrets. Needs `sh` in the container.
    pub env: BTreeMap<String, String>,
    /// When to end the command: it gets a TERM, and a KILL five seconds later, and so do all processes that it has
    /// started. Default: never. Needs `sh`, `grep` and `kill` in the container.
    pub timeout: Option<Duration>,
    /// A terminal of this size for the command: its output and errors are then one stream, and what it is sent is what
    /// somebody types. Default: none. Needs `sh` in the container, and for `env` a `/tmp` that can be written to.
    pub tty: Option<TerminalSize>,
}

/// How large a terminal is, in characters.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{ExecOptions, TerminalSize};
///
/// let options = ExecOptions { tty: Some(TerminalSize { columns: 120, rows: 40 }), ..Default::default() };
/// assert_eq!(options.tty.map(|size| size.columns), Some(120));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// How wide.
    pub columns: u16,
    /// How high.
    pub rows: u16,
}

impl Debug for ExecOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, stdin, output_limit_bytes, cwd, env, timeout, tty } = self;
        f.debug_struct("ExecOptions")
            .field("container", container)
            .field("stdin_bytes", &stdin.as_ref().map(Vec::len))
            .field("output_limit_bytes", output_limit_bytes)
            .field("cwd", cwd)
            .field("env", &env.keys())
            .field("timeout", timeout)
            .field("tty", tty)
            .finish()
    }
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self {
            container: None,
            stdin: None,
            output_limit_bytes: 16 << 20,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            tty: None,
        }
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

    /// The signal that ended it, as far as the exit code tells: 9 for 137.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(agent_sandbox_sdk::ExecOutput::default().signal(), None);
    /// ```
    pub fn signal(&self) -> Option<i32> {
        signal(self.exit_code)
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

/// By convention of shells and container runtimes.
fn signal(exit_code: i32) -> Option<i32> {
    (129..=192).contains(&exit_code).then(|| exit_code - 128)
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
    /// # Errors
    /// As [`exec`](Self::exec), [`ExecError::BadVariable`], and [`ExecError::TimedOut`] with what the command had written.
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
        let wrapped = options.cwd.is_some() || !options.env.is_empty() || options.timeout.is_some();
        let (limit, timeout) = (options.output_limit_bytes, options.timeout);
        let command: Vec<String> = command.into_iter().map(Into::into).collect();
        let mut running = self.begin(name, command, &options, wrapped, options.stdin.is_some()).await?;
        let stdin = running.stdin();
        let write = async {
            let (Some(mut stdin), Some(bytes)) = (stdin, options.stdin) else { return };
            // A command need not read its input; what it does not take is no failure of ours.
            if stdin.write_all(&bytes).await.is_ok() {
                let _ = stdin.shutdown().await;
            }
        };
        let mut output = ExecOutput::default();
        let ended = {
            let work = async {
                let ((), read) = tokio::join!(write, running.collect(&mut output, limit));
                read
            };
            match timeout {
                None => Some(work.await),
                Some(timeout) => tokio::time::timeout(timeout, work).await.ok(),
            }
        };
        match (ended, timeout) {
            (Some(read), _) => {
                read?;
                output.exit_code = running.wait().await?.exit_code;
                Ok(output)
            }
            (None, after) => {
                let object = running.at.object.clone();
                let ended = running.end().await;
                let ExecOutput { stdout, stderr, exit_code: _ } = output;
                let partial = Box::new(Partial { stdout, stderr });
                Err(ExecError::TimedOut { object, after: after.unwrap_or_default(), ended, partial })
            }
        }
    }

    /// Starts a command whose output is read while it runs, and which can be ended. It needs `sh` in the container.
    ///
    /// `stdin` in the options is its first input, more can follow; `timeout` is for the caller to keep, and the output
    /// limit does not count: what is not read stays in the command.
    ///
    /// # Errors
    /// [`ExecError`]: what kept the command from starting. Never is a failed connection a running command.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecOptions, Output, Signal, Utf8Decoder};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let mut running = client.start("hello", ["tail", "-f", "/var/log/x"], ExecOptions::default()).await?;
    /// let mut text = Utf8Decoder::default();
    /// while let Some(Output::Stdout(bytes)) = running.next().await? {
    ///     print!("{}", text.push(&bytes));
    /// }
    /// running.kill(Signal::Term).await?;
    /// println!("ended by signal {:?}", running.wait().await?.signal());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start<I>(&self, name: &str, command: I, options: ExecOptions) -> Result<Execution, ExecError>
    where
        I: IntoIterator<Item: Into<String>> + Debug,
    {
        let command: Vec<String> = command.into_iter().map(Into::into).collect();
        let mut running = self.begin(name, command, &options, true, true).await?;
        if let (Some(stdin), Some(bytes)) = (&mut running.stdin, &options.stdin)
            && let Err(source) = stdin.write_all(bytes).await
        {
            return Err(ExecError::StreamFailed { object: running.at.object.clone(), source });
        }
        Ok(running)
    }

    /// Writes a file in the sandbox, as `cat` would; its folder must exist. The content is not in the URL. Needs `sh`
    /// and `cat` in the container.
    ///
    /// # Errors
    /// [`CopyError::CommandFailed`], and [`CopyError::RemoteFailed`] with what the shell said.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::CopyError> {
    /// client.write_file("hello", "/workspace/main.py", b"print(1)\n".to_vec()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn write_file(&self, name: &str, path: &str, content: Vec<u8>) -> Result<(), CopyError> {
        let options = ExecOptions { stdin: Some(content), ..Default::default() };
        self.file(name, path, "cat > \"$1\"", options).await.map(|_| ())
    }

    /// Reads a file of the sandbox, up to `limit_bytes`. Needs `sh` and `cat` in the container.
    ///
    /// # Errors
    /// As [`write_file`](Self::write_file), and [`CopyError::TooLong`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::CopyError> {
    /// let bytes = client.read_file("hello", "/workspace/out.json", 1 << 20).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_file(&self, name: &str, path: &str, limit_bytes: usize) -> Result<Vec<u8>, CopyError> {
        let too_long =
            || CopyError::TooLong { object: self.name_of(name), path: path.into(), limit_bytes: limit_bytes as u64 };
        // What the shell complains counts, too, and shall not be cut off by a small limit.
        let options = ExecOptions { output_limit_bytes: limit_bytes.max(CHUNK_BYTES), ..Default::default() };
        match self.file(name, path, "cat < \"$1\"", options).await {
            Ok(content) if content.len() > limit_bytes => Err(too_long()),
            Err(CopyError::CommandFailed { source, .. }) if matches!(*source, ExecError::OutputTooLong { .. }) => {
                Err(too_long())
            }
            content => content,
        }
    }

    async fn file(&self, name: &str, path: &str, script: &str, options: ExecOptions) -> Result<Vec<u8>, CopyError> {
        let object = self.name_of(name);
        match self.exec_with(name, ["sh", "-c", script, "sh", path], options).await {
            Ok(output) if output.success() => Ok(output.stdout),
            Ok(output) => {
                let message = output.stderr_text().trim().into();
                Err(CopyError::RemoteFailed { object, path: path.into(), message })
            }
            Err(source) => Err(CopyError::CommandFailed { object, path: path.into(), source: Box::new(source) }),
        }
    }

    async fn begin(
        &self,
        name: &str,
        command: Vec<String>,
        options: &ExecOptions,
        wrapped: bool,
        input: bool,
    ) -> Result<Execution, ExecError> {
        let preamble = preamble(&options.env)?;
        let sandbox = match self.get(name).await {
            Ok(sandbox) => sandbox,
            Err(source) => {
                return Err(ExecError::PodLookupFailed { object: self.name_of(name), source: Box::new(source) });
            }
        };
        let pod = sandbox.pod_name().unwrap_or(name).to_owned();
        let container = options.container.clone().or_else(|| default_container(&sandbox)).unwrap_or_default();
        let tag = format!("{:016x}", RandomState::new().build_hasher().finish());
        let object = self.name_of(name);
        let at = At { client: self.clone(), object: object.clone(), pod: pod.clone(), container: container.clone() };
        let command = match (wrapped, options.tty) {
            (false, None) => command,
            (true, None) => wrap(command, options.cwd.as_deref(), input),
            (_, Some(_)) => {
                // A terminal shows what it is sent: variables go there by a file.
                let file = if preamble.is_empty() { String::new() } else { format!("/tmp/.{TAG}-{tag}") };
                if !file.is_empty() {
                    at.leave(&file, &preamble).await?;
                }
                wrap_on_terminal(command, options.cwd.as_deref(), &file, &tag)
            }
        };
        let is_piped = options.tty.is_none();
        let params = AttachParams::default()
            .container(container.clone())
            .stdin(wrapped || input || !is_piped)
            .stdout(true)
            .stderr(is_piped)
            .tty(!is_piped)
            .max_stdin_buf_size(CHUNK_BYTES)
            .max_stdout_buf_size(CHUNK_BYTES)
            .max_stderr_buf_size(CHUNK_BYTES);
        let mut process = match answered(self.pods().exec(&pod, command, &params)).await {
            Ok(process) => process,
            Err(source) if source.is_not_found() => return Err(ExecError::NoPod { object, pod }),
            Err(source) => return Err(ExecError::StartFailed { object, container, source }),
        };
        let mut stdin = process.stdin();
        if let (true, true, Some(stdin)) = (wrapped, is_piped, &mut stdin) {
            let text = format!("export {TAG}={tag}\n{preamble}.\n");
            // A command that could not be run reads nothing; its status tells why.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let mut running = Execution {
            at,
            tag: (wrapped || !is_piped).then(|| format!("{TAG}={tag}")),
            stdin: stdin.filter(|_| input || !is_piped).map(|stdin| Box::new(stdin) as Box<_>),
            stdout: process.stdout().map(|stream| Box::new(stream) as Box<_>),
            stderr: process.stderr().map(|stream| Box::new(stream) as Box<_>),
            status: process.take_status().map_or(Ending::Now(None), |status| Ending::Later(status.boxed())),
            sizes: process.terminal_size(),
            process,
        };
        if let Some(size) = options.tty {
            running.resize(size).await?;
        }
        Ok(running)
    }
}

/// The container that a command runs in.
#[derive(Clone)]
struct At {
    client: AgentSandboxClient,
    object: ObjectName,
    pod: String,
    container: String,
}

impl At {
    /// Runs a command that needs no wrapper and tells its exit code.
    async fn run(self, command: impl IntoIterator<Item = String> + Debug, input: &str) -> Result<i32, ExecError> {
        let Self { client, object, pod, container } = self;
        let params =
            AttachParams::default().container(container.clone()).stdin(!input.is_empty()).stdout(false).stderr(true);
        let mut process = match answered(client.pods().exec(&pod, command, &params)).await {
            Ok(process) => process,
            Err(source) => return Err(ExecError::StartFailed { object, container, source }),
        };
        let status = process.take_status();
        drop(process.stderr());
        if let Some(mut stdin) = process.stdin() {
            // What it does not take, its exit code tells.
            let _ = stdin.write_all(input.as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        status.as_ref().and_then(exit_code).ok_or(ExecError::NoExitStatus { object })
    }

    /// Leaves a file that only the container's user may read.
    async fn leave(&self, path: &str, text: &str) -> Result<(), ExecError> {
        let command = ["sh", "-c", "umask 077; cat > \"$1\"", "sh", path].map(str::to_owned);
        match self.clone().run(command, text).await? {
            0 => Ok(()),
            code => {
                let message = format!("its variables could not be left in {path} (exit code {code})");
                Err(ExecError::CommandRefused { object: self.object.clone(), message })
            }
        }
    }
}

/// What a running command has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To its standard output.
    Stdout(Vec<u8>),
    /// To its standard error.
    Stderr(Vec<u8>),
}

/// What a command is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// To stop what it does, as by Ctrl-C.
    Int,
    /// To end.
    Term,
    /// Nothing: it ends.
    Kill,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecEnd {
    /// Its exit code: 0 if all went well.
    pub exit_code: i32,
}

impl ExecEnd {
    /// The signal that ended it, as far as the exit code tells: 9 for 137.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecOptions, Signal};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let running = client.start("hello", ["sleep", "1000"], ExecOptions::default()).await?;
    /// running.kill(Signal::Term).await?;
    /// assert_eq!(running.wait().await?.signal(), Some(15));
    /// # Ok(())
    /// # }
    /// ```
    pub fn signal(&self) -> Option<i32> {
        signal(self.exit_code)
    }
}

/// A command that runs. Dropping it closes the connection, and the command may go on: [`kill`](Self::kill) it.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::{ExecOptions, Execution};
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
/// let running: Execution = client.start("hello", ["make"], ExecOptions::default()).await?;
/// println!("exit code {}", running.wait().await?.exit_code);
/// # Ok(())
/// # }
/// ```
pub struct Execution {
    at: At,
    tag: Option<String>,
    process: AttachedProcess,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    status: Ending,
    sizes: Option<mpsc::Sender<kube::api::TerminalSize>>,
}

/// How the connection ends.
enum Ending {
    /// It has not yet.
    Later(BoxFuture<'static, Option<Status>>),
    /// With the command's status, or without.
    Now(Option<Box<Status>>),
}

impl Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution").field("object", &self.at.object).field("pod", &self.at.pod).finish_non_exhaustive()
    }
}

impl Execution {
    /// Takes the command's input; shutting it down is the end of the input. `None` if it was taken before.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::ExecOptions;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut running = client.start("hello", ["cat"], ExecOptions::default()).await?;
    /// let mut stdin = running.stdin().expect("not taken yet");
    /// stdin.write_all(b"to be echoed\n").await?;
    /// stdin.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdin(&mut self) -> Option<impl AsyncWrite + Send + Unpin + use<>> {
        self.stdin.take()
    }

    /// What the command writes next, up to 16 KiB at once; `None` when both its streams have ended. May be dropped and
    /// called again without a loss.
    ///
    /// # Errors
    /// [`ExecError::StreamFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecOptions, Output};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let mut running = client.start("hello", ["make"], ExecOptions::default()).await?;
    /// while let Some(written) = running.next().await? {
    ///     match written {
    ///         Output::Stdout(bytes) => println!("{} bytes of output", bytes.len()),
    ///         Output::Stderr(bytes) => println!("{} bytes of complaints", bytes.len()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next(&mut self) -> Result<Option<Output>, ExecError> {
        let mut bytes = vec![0; CHUNK_BYTES];
        loop {
            let Self { stdout, stderr, status, .. } = self;
            let read = async {
                let mut second = vec![0; if stdout.is_some() && stderr.is_some() { CHUNK_BYTES } else { 0 }];
                match (stdout.as_mut(), stderr.as_mut()) {
                    (None, None) => None,
                    (Some(stdout), None) => Some((stdout.read(&mut bytes).await, true)),
                    (None, Some(stderr)) => Some((stderr.read(&mut bytes).await, false)),
                    (Some(stdout), Some(stderr)) => tokio::select! {
                        count = stdout.read(&mut bytes) => Some((count, true)),
                        count = stderr.read(&mut second) => {
                            std::mem::swap(&mut bytes, &mut second);
                            Some((count, false))
                        }
                    },
                }
            };
            let read = match status {
                // kube-rs ends the streams only where it has got a status. Without one, what it holds is all there is.
                Ending::Now(None) => read.now_or_never().flatten(),
                Ending::Now(Some(_)) => read.await,
                Ending::Later(ending) => tokio::select! {
                    biased;
                    read = read => read,
                    ended = ending => {
                        *status = Ending::Now(ended.map(Box::new));
                        continue;
                    }
                },
            };
            let Some((count, is_out)) = read else { return Ok(None) };
            let count = match count {
                Ok(count) => count,
                Err(source) => return Err(ExecError::StreamFailed { object: self.at.object.clone(), source }),
            };
            match (count, is_out) {
                (0, true) => self.stdout = None,
                (0, false) => self.stderr = None,
                (count, true) => return Ok(Some(Output::Stdout(bytes[..count].to_vec()))),
                (count, false) => return Ok(Some(Output::Stderr(bytes[..count].to_vec()))),
            }
        }
    }

    async fn collect(&mut self, output: &mut ExecOutput, limit: usize) -> Result<(), ExecError> {
        while let Some(chunk) = self.next().await? {
            let (stream, bytes) = match chunk {
                Output::Stdout(bytes) => (&mut output.stdout, bytes),
                Output::Stderr(bytes) => (&mut output.stderr, bytes),
            };
            if stream.len() + bytes.len() > limit {
                return Err(ExecError::OutputTooLong { object: self.at.object.clone(), limit_bytes: limit });
            }
            stream.extend(bytes);
        }
        Ok(())
    }

    /// Waits for the command's end; output that was not read is thrown away. It comes back also when the connection
    /// breaks.
    ///
    /// # Errors
    /// [`ExecError::CommandRefused`] if it was not run, [`ExecError::NoExitStatus`] and [`ExecError::ConnectionFailed`]
    /// if the connection ended before it.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecEnd, ExecOptions};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let running = client.start("hello", ["make"], ExecOptions::default()).await?;
    /// let end: ExecEnd = running.wait().await?;
    /// println!("exit code {}", end.exit_code);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait(mut self) -> Result<ExecEnd, ExecError> {
        while self.next().await?.is_some() {}
        let status = match self.status {
            Ending::Later(ending) => ending.await.map(Box::new),
            Ending::Now(status) => status,
        };
        let object = self.at.object;
        if let Err(source) = self.process.join().await {
            return Err(ExecError::ConnectionFailed { object, source: Box::new(source) });
        }
        match status.as_deref().map(|status| (exit_code(status), &status.message)) {
            None => Err(ExecError::NoExitStatus { object }),
            Some((Some(exit_code), _)) => Ok(ExecEnd { exit_code }),
            Some((None, message)) => {
                Err(ExecError::CommandRefused { object, message: message.clone().unwrap_or_default() })
            }
        }
    }

    /// Sends a signal to the command and to all processes that it has started and that have kept their environment. Its
    /// end is for [`wait`](Self::wait). Answers whether there was a process to get it.
    ///
    /// To close the connection would end nothing: no kubelet tells a command that nobody listens. So another command is
    /// run in the container, which needs `sh`, `grep` and `kill` there.
    ///
    /// # Errors
    /// As for any command.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecOptions, Signal};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let running = client.start("hello", ["sleep", "1000"], ExecOptions::default()).await?;
    /// if !running.kill(Signal::Int).await? {
    ///     println!("it had ended already");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn kill(&self, signal: Signal) -> impl Future<Output = Result<bool, ExecError>> + Send + use<> {
        let (at, tag) = (self.at.clone(), self.tag.clone());
        async move {
            let Some(tag) = tag else { return Ok(false) };
            let signal = match signal {
                Signal::Int => "INT",
                Signal::Term => "TERM",
                Signal::Kill => "KILL",
            };
            let command = ["sh", "-c", KILLER, "sh", signal, &tag].map(str::to_owned);
            Ok(at.run(command, "").await? == 0)
        }
    }

    /// Tells the command's terminal its size; what runs there hears of it.
    ///
    /// # Errors
    /// [`ExecError::NoTerminal`] if it was started without one; [`ExecError::NoExitStatus`] if the connection has ended.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{ExecOptions, TerminalSize};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let options = ExecOptions { tty: Some(TerminalSize { columns: 80, rows: 24 }), ..Default::default() };
    /// let mut shell = client.start("hello", ["bash"], options).await?;
    /// shell.resize(TerminalSize { columns: 120, rows: 40 }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), ExecError> {
        let object = || self.at.object.clone();
        let Some(sizes) = &mut self.sizes else { return Err(ExecError::NoTerminal { object: object() }) };
        let TerminalSize { columns, rows } = size;
        let told = sizes.send(kube::api::TerminalSize { width: columns, height: rows }).await;
        told.map_err(|_| ExecError::NoExitStatus { object: object() })
    }

    /// Ends the command: TERM, and KILL after some seconds. Answers whether it is known to have ended.
    async fn end(mut self) -> bool {
        for signal in [Signal::Term, Signal::Kill] {
            let told = tokio::time::timeout(GRACE, self.kill(signal)).await;
            if let Ok(Ok(false)) = told {
                return true;
            }
            let drained = async { while let Ok(Some(_)) = self.next().await {} };
            if tokio::time::timeout(GRACE, drained).await.is_ok() {
                return true;
            }
        }
        false
    }
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

#[cfg(test)]
mod tests;
