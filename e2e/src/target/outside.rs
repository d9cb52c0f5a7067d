//! A fake without kubelet and sandbox controllers, and those in a process of their own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

/// How long a process may take until it says that it is ready.
const READY: Duration = Duration::from_secs(60);

/// The two processes; they end with this value, the controllers first.
pub(super) struct Processes {
    _controllers: Ended,
    _server: Ended,
    _folder: TempDir,
}

/// A child that is ended when its owner goes.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended by itself
        let _ = self.0.wait();
    }
}

impl Processes {
    /// Starts both; the answer's text is the server's kubeconfig.
    pub(super) fn start(program: &Path, first: &[OsString]) -> Result<(Self, String)> {
        let folder = tempfile::Builder::new().prefix("e2e-outside-").tempdir().context("no folder for a kubeconfig")?;
        let file = folder.path().join("kubeconfig");
        let path = file.as_os_str();
        let serve = ["serve", "--no-kubelet", "--no-sandbox-controllers", "--kubeconfig"].map(OsStr::new);
        let server = ready(Command::new(program).args(first).args(serve).arg(path))?;
        let controllers = ready(Command::new(program).args(first).args(["controllers", "--kubeconfig"]).arg(path))?;
        let kubeconfig = fs::read_to_string(&file).context("the server's kubeconfig")?;
        Ok((Self { _controllers: controllers, _server: server, _folder: folder }, kubeconfig))
    }
}

/// Starts a program and waits for the line that begins with `ready`.
fn ready(command: &mut Command) -> Result<Ended> {
    let what = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = Ended(child.with_context(|| format!("{what} does not start"))?);
    let stdout = child.0.stdout.take().context("its output is piped")?;
    let (heard, line) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if lines.any(|line| line.starts_with("ready")) {
            let _ = heard.send(()); // nobody waits any more
        }
        lines.for_each(drop);
    });
    line.recv_timeout(READY).map_err(|_| anyhow!("{what} did not get ready in {READY:?}"))?;
    Ok(child)
}
