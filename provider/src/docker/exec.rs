//! Commands by the engine's exec.

use std::{pin::Pin, time::Duration};

use agent_sandbox_sdk::{Output, Signal};
use bollard::{
    Docker,
    container::LogOutput,
    errors::Error as DockerError,
    exec::{CreateExecOptions, StartExecResults},
};
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use super::failures::{of, status};
use crate::{Code, Error, ExecOptions, labels, streams::Process};

/// The variable by which the processes of one command are found. The engine tells the number that a process has on the
/// machine, which is another in the container, and only that of the first.
const TAG: &str = "AGENTPANE_EXEC";

/// Sends a signal to every process that has the tag, and says whether there was one.
const KILLER: &str = "found=1; for dir in /proc/[0-9]*; do \
    if grep -q \"$2\" \"$dir/environ\" 2>/dev/null; then kill -s \"$1\" \"${dir#/proc/}\" 2>/dev/null && found=0; fi; \
    done; exit $found";

/// How long the engine may take to know that a command has ended, after its output has.
const SETTLES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

type Chunks = Pin<Box<dyn Stream<Item = Result<LogOutput, DockerError>> + Send>>;

/// A command in a container.
pub(super) struct ContainerProcess {
    docker: Docker,
    container: String,
    user: Option<String>,
    id: String,
    tag: String,
    chunks: Chunks,
    /// Whether it was given input: an engine cuts the connection of a command that has not read all of it.
    fed: bool,
}

pub(super) async fn start(
    docker: &Docker,
    container: &str,
    options: ExecOptions,
    tasks: &TaskTracker,
) -> Result<ContainerProcess, Error> {
    let ExecOptions { cmd, args, env, cwd, stdin, as_root, timeout: _ } = options;
    if let Some(bad) =
        env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        let message = format!("{:?} cannot be given to a command as a variable", bad.0);
        return Err(Error::new(Code::SandboxExecFailed, message).with("command", cmd));
    }
    let tag = format!("{TAG}={}", labels::new_id());
    let mut variables: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    variables.push(tag.clone());
    let fed = stdin.is_some();
    let user = as_root.then(|| "root".to_owned());
    let create = CreateExecOptions {
        attach_stdin: Some(stdin.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: Some(variables),
        cmd: Some(std::iter::once(cmd).chain(args).collect()),
        user: user.clone(),
        working_dir: cwd,
        ..CreateExecOptions::default()
    };
    let (id, chunks) = begin(docker, container, create, stdin, tasks).await?;
    Ok(ContainerProcess { docker: docker.clone(), container: container.into(), user, id, tag, chunks, fed })
}

async fn begin(
    docker: &Docker,
    container: &str,
    create: CreateExecOptions<String>,
    stdin: Option<Vec<u8>>,
    tasks: &TaskTracker,
) -> Result<(String, Chunks), Error> {
    let what = format!("no command was started in container {container}");
    let failed = |error: DockerError| {
        let code = match status(&error) {
            Some(404) => Code::ContainerNotFound,
            Some(409) => Code::ContainerNotRunning,
            Some(_) => Code::SandboxExecFailed,
            None => Code::ExecConnectionFailed,
        };
        of(error, &what, code)
    };
    let id = docker.create_exec(container, create).await.map_err(failed)?.id;
    match docker.start_exec(&id, None).await.map_err(failed)? {
        StartExecResults::Attached { output, mut input } => {
            // A command need not read; what it does not take is no failure of ours, and it must not be waited for.
            tasks.spawn(async move {
                if let Some(bytes) = stdin
                    && input.write_all(&bytes).await.is_ok()
                {
                    let _ = input.shutdown().await;
                }
            });
            Ok((id, output))
        }
        StartExecResults::Detached => Err(Error::new(Code::ExecConnectionFailed, what)),
    }
}

/// The exit status, once the engine knows it.
async fn exit_code(docker: &Docker, id: &str) -> Result<i32, Error> {
    for _ in 0..SETTLES {
        let found = docker.inspect_exec(id).await;
        let found = found.map_err(|error| of(error, "how a command ended is not known", Code::ExecConnectionFailed));
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(Error::new(Code::ExecConnectionFailed, error.message()).because(error)),
        };
        if let (Some(false), Some(code)) = (found.running, found.exit_code) {
            return Ok(i32::try_from(code).unwrap_or(-1));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::new(Code::ExecConnectionFailed, "the connection to a command ended before the command"))
}

impl Process for ContainerProcess {
    async fn next(&mut self) -> Result<Option<Output>, Error> {
        match self.chunks.next().await {
            None => Ok(None),
            Some(Ok(LogOutput::StdErr { message })) => Ok(Some(Output::Stderr(message.into()))),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message })) => {
                Ok(Some(Output::Stdout(message.into())))
            }
            // Its status tells whether it has ended.
            Some(Err(_)) if self.fed => Ok(None),
            Some(Err(error)) => {
                Err(Error::new(Code::ExecConnectionFailed, "the connection to a command broke").because(error))
            }
        }
    }

    fn signal(&self, signal: Signal) -> impl Future<Output = Result<bool, Error>> + Send {
        let name = match signal {
            Signal::Int => "INT",
            Signal::Kill => "KILL",
            _ => "TERM",
        };
        let (docker, container, tag) = (self.docker.clone(), self.container.clone(), self.tag.clone());
        // Without capabilities not even root may signal another's processes.
        let create = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["sh", "-c", KILLER, "sh", name, &tag].map(str::to_owned).into()),
            user: self.user.clone(),
            ..CreateExecOptions::default()
        };
        async move {
            let (id, mut chunks) = begin(&docker, &container, create, None, &TaskTracker::new()).await?;
            while let Some(Ok(_)) = chunks.next().await {}
            Ok(exit_code(&docker, &id).await? == 0)
        }
    }

    async fn end(self) -> Result<i32, Error> {
        exit_code(&self.docker, &self.id).await
    }
}
