//! Commands over the SDK's exec.

use agent_sandbox_sdk::{AgentSandboxClient, ExecOptions as SdkOptions, Execution, Output, Signal};
use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use super::{failures::of_exec, manifest::CONTAINER};
use crate::{Code, Error, ExecOptions, streams::Process};

/// A command in a pod.
pub(super) struct PodProcess {
    execution: Execution,
    sandbox: String,
}

/// Starts a command. Its environment and input travel inside the connection, never in its address.
pub(super) async fn start(
    client: &AgentSandboxClient,
    sandbox: &str,
    options: ExecOptions,
    tasks: &TaskTracker,
) -> Result<PodProcess, Error> {
    let ExecOptions { cmd, args, env, cwd, stdin, as_root, timeout: _ } = options;
    if as_root {
        crate::audit::audit!(warn, "security.exec_as_root_attempted", resource_name = sandbox, command = cmd);
        let message = format!("{cmd} was not run: in a restricted pod nothing runs as root");
        return Err(Error::new(Code::ExecFailed, message).with("command", cmd));
    }
    let options = SdkOptions { container: Some(CONTAINER.into()), cwd, env, ..SdkOptions::default() };
    let command: Vec<String> = std::iter::once(cmd).chain(args).collect();
    let started = client.start(sandbox, command, options).await;
    let mut execution = started.map_err(|error| of_exec(error, sandbox))?;
    if let Some(mut input) = execution.stdin() {
        // A command need not read; what it does not take is no failure of ours, and it must not be waited for.
        tasks.spawn(async move {
            if input.write_all(&stdin.unwrap_or_default()).await.is_ok() {
                let _ = input.shutdown().await;
            }
        });
    }
    Ok(PodProcess { execution, sandbox: sandbox.into() })
}

impl Process for PodProcess {
    async fn next(&mut self) -> Result<Option<Output>, Error> {
        self.execution.next().await.map_err(|error| of_exec(error, &self.sandbox))
    }

    fn signal(&self, signal: Signal) -> impl Future<Output = Result<bool, Error>> + Send {
        let (told, sandbox) = (self.execution.kill(signal), self.sandbox.clone());
        async move { told.await.map_err(|error| of_exec(error, &sandbox)) }
    }

    async fn end(self) -> Result<i32, Error> {
        let Self { execution, sandbox } = self;
        match execution.wait().await {
            Ok(end) => Ok(end.exit_code),
            Err(error) => Err(of_exec(error, &sandbox)),
        }
    }
}
