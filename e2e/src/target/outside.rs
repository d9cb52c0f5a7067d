//! A fake without kubelet and sandbox controllers, and those in a process of their own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

use super::ended::Ended;

/// How long a process may take until it says that it is ready.
const READY: Duration = Duration::from_secs(60);

/// The two processes; they end with this value, the controllers first.
pub(super) struct Processes {
    _controllers: Ended,
    _server: Ended,
    _folder: TempDir,
}

impl Processes {
    /// Starts both; the answer's text is the server's kubeconfig.
    pub(super) fn start(program: &Path, first: &[OsString]) -> Result<(Self, String)> {
        let folder = tempfile::Builder::new().prefix("e2e-outside-").tempdir().context("no folder for a kubeconfig")?;
        let file = folder.path().join("kubeconfig");
        let path = file.as_os_str();
        let first: Vec<&OsStr> = first.iter().map(OsString::as_os_str).collect();
        let serve = ["serve", "--no-kubelet", "--no-sandbox-controllers", "--kubeconfig"].map(OsStr::new);
        let server = ready(program, &[&first, &serve[..], &[path]].concat())?;
        let controllers = ["controllers", "--kubeconfig"].map(OsStr::new);
        let controllers = ready(program, &[&first, &controllers[..], &[path]].concat())?;
        let kubeconfig = fs::read_to_string(&file).context("the server's kubeconfig")?;
        Ok((Self { _controllers: controllers, _server: server, _folder: folder }, kubeconfig))
    }
}

/// Starts a program and waits for the line that begins with `ready`.
fn ready(program: &Path, arguments: &[&OsStr]) -> Result<Ended> {
    let what = || {
        [program.as_os_str()].iter().chain(arguments).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let started = Ended::program(program.as_os_str(), arguments, Stdio::piped(), Stdio::inherit());
    let mut child = started.with_context(|| format!("{} does not start", what()))?;
    let stdout = child.stdout().context("its output is piped")?;
    let (heard, line) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if lines.any(|line| line.starts_with("ready")) {
            let _ = heard.send(()); // nobody waits any more
        }
        lines.for_each(drop);
    });
    line.recv_timeout(READY).map_err(|_| anyhow!("{} did not get ready in {READY:?}", what()))?;
    Ok(child)
}
