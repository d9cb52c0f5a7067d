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

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    error::{ExecError, ObjectName, is_not_found},
    sandboxes::{AgentSandboxClient, default_container},
};

/// How much one read takes from a stream, and how much the connection holds of each while nobody reads.
const CHUNK_BYTES: usize = 16 << 10;

/// How long a command that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// The variable by which the processes of one command are found.
const TAG: &str = "AGENT_SANDBOX_EXEC";

/// Reads variables from its input, a line of shell for each, until a line with a dot; goes to the folder; becomes the
/// command. `read` takes no byte beyond its line, so that the rest of the input is the command's.
const WRAPPER: &str = "n='\n'; while read -r l; do [ \"$l\" = . ] && break; eval \"$l\"; done; \
    if [ -n \"$1\" ]; then cd \"$1\" || exit 1; fi; \
    if [ \"$2\" = - ]; then shift 2; exec \"$@\" </dev/null; fi; shift 2; exec \"$@\"";

/// Sends a signal to every process that has the tag, and says whether there was one. The tag is not in this script's own
/// environment.
const KILLER: &str = "f=1; for p in /proc/[0-9]*; do \
    if grep -q \"$2\" \"$p/environ\" 2>/dev/null; then kill -s \"$1\" \"${p#/proc/}\" 2>/dev/null && f=0; fi; done; exit $f";

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
}

impl Debug for ExecOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, stdin, output_limit_bytes, cwd, env, timeout } = self;
        f.debug_struct("ExecOptions")
            .field("container", container)
            .field("stdin_bytes", &stdin.as_ref().map(Vec::len))
            .field("output_limit_bytes", output_limit_bytes)
            .field("cwd", cwd)
            .field("env", &env.keys())
            .field("timeout", timeout)
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
                let ended = running.end().await;
                let ExecOutput { stdout, stderr, exit_code: _ } = output;
                Err(ExecError::TimedOut { after: after.unwrap_or_default(), ended, stdout, stderr })
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
        if let (Some(stdin), Some(bytes)) = (&mut running.stdin, &options.stdin) {
            stdin.write_all(bytes).await.map_err(ExecError::StreamFailed)?;
        }
        Ok(running)
    }

    /// Writes a file in the sandbox, as `cat` would; its folder must exist. The content is not in the URL. Needs `sh`
    /// and `cat` in the container.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and [`ExecError::FileFailed`] with what the shell said.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// client.write_file("hello", "/workspace/main.py", b"print(1)\n".to_vec()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn write_file(&self, name: &str, path: &str, content: Vec<u8>) -> Result<(), ExecError> {
        let options = ExecOptions { stdin: Some(content), ..Default::default() };
        self.file(name, path, "cat > \"$1\"", options).await.map(|_| ())
    }

    /// Reads a file of the sandbox, up to `limit_bytes`. Needs `sh` and `cat` in the container.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and [`ExecError::FileFailed`] with what the shell said.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::ExecError> {
    /// let bytes = client.read_file("hello", "/workspace/out.json", 1 << 20).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_file(&self, name: &str, path: &str, limit_bytes: usize) -> Result<Vec<u8>, ExecError> {
        // What the shell complains counts, too, and shall not be cut off by a small limit.
        let options = ExecOptions { output_limit_bytes: limit_bytes.max(CHUNK_BYTES), ..Default::default() };
        let content = self.file(name, path, "cat < \"$1\"", options).await?;
        if content.len() > limit_bytes { Err(ExecError::OutputTooLong { limit_bytes }) } else { Ok(content) }
    }

    async fn file(&self, name: &str, path: &str, script: &str, options: ExecOptions) -> Result<Vec<u8>, ExecError> {
        let output = self.exec_with(name, ["sh", "-c", script, "sh", path], options).await?;
        if output.success() {
            return Ok(output.stdout);
        }
        Err(ExecError::FileFailed { path: path.into(), message: output.stderr_text().trim().into() })
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
        let tag = format!("{TAG}={:016x}", RandomState::new().build_hasher().finish());
        let command = if wrapped { wrap(command, options.cwd.as_deref(), input) } else { command };
        let params = AttachParams::default()
            .container(container.clone())
            .stdin(wrapped || input)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(CHUNK_BYTES)
            .max_stdout_buf_size(CHUNK_BYTES)
            .max_stderr_buf_size(CHUNK_BYTES);
        let object = self.name_of(name);
        let mut process = match self.pods().exec(&pod, command, &params).await {
            Ok(process) => process,
            Err(source) if is_not_found(&source) => return Err(ExecError::NoPod { object, pod }),
            Err(source) => return Err(ExecError::StartFailed { object: Box::new(object), container, source }),
        };
        let mut stdin = process.stdin();
        if let (true, Some(stdin)) = (wrapped, &mut stdin) {
            let text = format!("export {tag}\n{preamble}.\n");
            // A command that could not be run reads nothing; its status tells why.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        Ok(Execution {
            client: self.clone(),
            object,
            pod,
            container,
            tag: wrapped.then_some(tag),
            stdin: stdin.filter(|_| input).map(|stdin| Box::new(stdin) as Box<_>),
            stdout: process.stdout().map(|stream| Box::new(stream) as Box<_>),
            stderr: process.stderr().map(|stream| Box::new(stream) as Box<_>),
            status: process.take_status().map_or(Ending::Now(None), |status| Ending::Later(status.boxed())),
            process,
        })
    }
}

/// The command that goes to its folder first and gets its variables from its input.
fn wrap(command: Vec<String>, cwd: Option<&str>, input: bool) -> Vec<String> {
    let cwd = match cwd {
        Some(cwd) if cwd.starts_with('-') => format!("./{cwd}"),
        cwd => cwd.unwrap_or_default().to_owned(),
    };
    let input = if input { "+" } else { "-" };
    let wrapper = ["sh", "-c", WRAPPER, "sh"].map(str::to_owned);
    wrapper.into_iter().chain([cwd, input.to_owned()]).chain(command).collect()
}

/// Variables as lines of shell.
fn preamble(env: &BTreeMap<String, String>) -> Result<String, ExecError> {
    let mut text = String::new();
    for (name, value) in env {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let ok = name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        if !ok || value.contains('\0') {
            return Err(ExecError::BadVariable { name: name.clone() });
        }
        let value = value.replace('\'', "'\\''").replace('\n', "'\"$n\"'");
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    Ok(text)
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
    pub fn signal(&self) -> Option<i32> {
        signal(self.exit_code)
    }
}

/// A command that runs. Dropping it closes the connection, and the command may go on: [`kill`](Self::kill) it.
pub struct Execution {
    client: AgentSandboxClient,
    object: ObjectName,
    pod: String,
    container: String,
    tag: Option<String>,
    process: AttachedProcess,
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    status: Ending,
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
        f.debug_struct("Execution").field("object", &self.object).field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Execution {
    /// Takes the command's input; shutting it down is the end of the input. `None` if it was taken before.
    pub fn stdin(&mut self) -> Option<impl AsyncWrite + Send + Unpin + use<>> {
        self.stdin.take()
    }

    /// What the command writes next, up to 16 KiB at once; `None` when both its streams have ended. May be dropped and
    /// called again without a loss.
    ///
    /// # Errors
    /// [`ExecError::StreamFailed`].
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
            match (count.map_err(ExecError::StreamFailed)?, is_out) {
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
                return Err(ExecError::OutputTooLong { limit_bytes: limit });
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
    pub async fn wait(mut self) -> Result<ExecEnd, ExecError> {
        while self.next().await?.is_some() {}
        let status = match self.status {
            Ending::Later(ending) => ending.await.map(Box::new),
            Ending::Now(status) => status,
        };
        self.process.join().await.map_err(|source| ExecError::ConnectionFailed(Box::new(source)))?;
        let status = status.ok_or(ExecError::NoExitStatus)?;
        match exit_code(&status) {
            Some(exit_code) => Ok(ExecEnd { exit_code }),
            None => Err(ExecError::CommandRefused { message: status.message.unwrap_or_default() }),
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
    pub fn kill(&self, signal: Signal) -> impl Future<Output = Result<bool, ExecError>> + Send + use<> {
        let Self { client, object, pod, container, tag, .. } = self;
        let (client, object, pod) = (client.clone(), object.clone(), pod.clone());
        let (container, tag) = (container.clone(), tag.clone());
        async move {
            let Some(tag) = tag else { return Ok(false) };
            let signal = match signal {
                Signal::Int => "INT",
                Signal::Term => "TERM",
                Signal::Kill => "KILL",
            };
            let command = ["sh", "-c", KILLER, "sh", signal, &tag].map(str::to_owned);
            let params = AttachParams::default().container(container.clone()).stdin(false).stdout(false).stderr(true);
            let started = client.pods().exec(&pod, command, &params).await;
            let mut process =
                started.map_err(|source| ExecError::StartFailed { object: Box::new(object), container, source })?;
            let status = process.take_status();
            drop(process.stderr());
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            match status.as_ref().and_then(exit_code) {
                Some(code) => Ok(code == 0),
                None => Err(ExecError::NoExitStatus),
            }
        }
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

/// Turns bytes that come in pieces into text, without breaking a character that lies on the border of two.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::Utf8Decoder;
///
/// let mut decoder = Utf8Decoder::default();
/// let euro = "€".as_bytes();
/// assert_eq!(decoder.push(&euro[..2]), "");
/// assert_eq!(decoder.push(&euro[2..]), "€");
/// assert_eq!(decoder.push(&[b'a', 0xFF, b'b']), "a\u{FFFD}b");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Decoder {
    /// The start of a character, at most three bytes.
    rest: Vec<u8>,
}

impl Utf8Decoder {
    /// The text of what has come, up to the last whole character. What is no UTF-8 becomes `\u{FFFD}`.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut keep = 0;
        for chunk in self.rest.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                keep = chunk.invalid().len();
                text.push(char::REPLACEMENT_CHARACTER);
            } else {
                keep = 0;
            }
        }
        let tail = &self.rest[self.rest.len() - keep..];
        let unfinished = keep > 0 && std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        if unfinished && self.rest.ends_with(tail) && self.last_is_invalid(keep) {
            text.pop();
            self.rest.drain(..self.rest.len() - keep);
        } else {
            self.rest.clear();
        }
        text
    }

    /// Whether the invalid bytes lie at the very end, where more may follow.
    fn last_is_invalid(&self, keep: usize) -> bool {
        self.rest.utf8_chunks().last().is_some_and(|chunk| chunk.invalid().len() == keep)
    }

    /// The end: what is left of a character that was cut off.
    pub fn finish(self) -> &'static str {
        if self.rest.is_empty() { "" } else { "\u{FFFD}" }
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
