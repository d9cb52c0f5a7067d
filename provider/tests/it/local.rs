//! Sandboxes that are folders of this machine: a provider that needs neither cluster nor engine, and fails when told to.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use agent_sandbox_provider::{
    CleanupFilter, Code, Error, ExecEnd, ExecHandle, ExecOptions, ExecOutput, ExecStream, HealthCheck, Sandbox,
    SandboxConfig, SandboxEvent, SandboxInfo, SandboxMetrics, SandboxProvider, SandboxStatus, StopReason,
};
use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    process::{Child, Command},
    sync::{broadcast, watch},
};
use tokio_util::sync::CancellationToken;

/// What happens to a command instead of being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not run, and its caller waits for ever.
    HangBefore,
    /// It is run, and its caller waits for ever.
    HangAfter,
    /// It is not run.
    LostBefore,
    /// It is run, but its end is not heard of.
    LostAfter,
}

/// Decides what happens to a command, by its number from 0.
type Faults = Box<dyn Fn(usize, &ExecOptions) -> Option<Fault> + Send + Sync>;

/// Folders as sandboxes, one for each project.
pub(crate) struct LocalProvider {
    shared: Arc<Shared>,
}

struct Shared {
    root: TempDir,
    sandboxes: Mutex<BTreeMap<String, Arc<LocalSandbox>>>,
    faults: Mutex<Option<Faults>>,
    commands: AtomicUsize,
    /// What was called, but for its input.
    log: Mutex<Vec<String>>,
    events: broadcast::Sender<SandboxEvent>,
}

/// A folder as a sandbox.
pub(crate) struct LocalSandbox {
    id: String,
    project_id: String,
    shared: Arc<Shared>,
    status: watch::Sender<SandboxStatus>,
    /// Cut to lose the connections of all commands that run.
    connections: Mutex<CancellationToken>,
}

impl LocalProvider {
    pub(crate) fn new() -> Arc<Self> {
        let shared = Shared {
            root: tempfile::tempdir().expect("a temporary folder"),
            sandboxes: Mutex::default(),
            faults: Mutex::default(),
            commands: AtomicUsize::default(),
            log: Mutex::default(),
            events: broadcast::channel(64).0,
        };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// What happens to commands from now on; their numbers begin at 0 again.
    pub(crate) fn set_faults(&self, faults: impl Fn(usize, &ExecOptions) -> Option<Fault> + Send + Sync + 'static) {
        self.shared.commands.store(0, Ordering::SeqCst);
        *lock(&self.shared.faults) = Some(Box::new(faults));
    }

    /// Runs commands as they are, again.
    pub(crate) fn no_faults(&self) {
        *lock(&self.shared.faults) = None;
    }

    /// How many commands were called since the faults were set.
    pub(crate) fn commands(&self) -> usize {
        self.shared.commands.load(Ordering::SeqCst)
    }

    /// All commands and their arguments and folders, as logs of an API server would have them.
    pub(crate) fn log(&self) -> String {
        lock(&self.shared.log).join("\n")
    }

    pub(crate) fn sandbox(&self, project_id: &str) -> Arc<LocalSandbox> {
        lock(&self.shared.sandboxes).get(project_id).cloned().expect("a sandbox of the project")
    }

    /// The project's sandbox, made without a fault.
    pub(crate) fn add(&self, project_id: &str) -> Arc<LocalSandbox> {
        let sandbox = Arc::new(LocalSandbox {
            id: format!("local-{project_id}"),
            project_id: project_id.into(),
            shared: self.shared.clone(),
            status: watch::channel(SandboxStatus::Running).0,
            connections: Mutex::default(),
        });
        for folder in ["workspace", "tmp", "home"] {
            std::fs::create_dir_all(sandbox.path(folder)).expect("a folder");
        }
        lock(&self.shared.sandboxes).insert(project_id.into(), sandbox.clone());
        sandbox
    }

    /// Deletes the project's sandbox with what is in it.
    pub(crate) fn delete(&self, project_id: &str) {
        let sandbox = lock(&self.shared.sandboxes).remove(project_id).expect("a sandbox of the project");
        sandbox.status.send_replace(SandboxStatus::Stopped);
        sandbox.kill_all();
    }
}

impl Drop for LocalProvider {
    fn drop(&mut self) {
        for sandbox in lock(&self.shared.sandboxes).values() {
            sandbox.kill_all();
        }
    }
}

impl LocalSandbox {
    /// A folder of it, as the machine has it.
    pub(crate) fn path(&self, folder: &str) -> std::path::PathBuf {
        let root = self.shared.root.path().canonicalize().expect("the root");
        root.join(&self.project_id).join(folder)
    }

    /// Runs a shell command in the workspace, at once.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = std::process::Command::new("sh")
            .args(["-ec", script])
            .current_dir(self.path("workspace"))
            .output()
            .expect("sh");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes the workspace a repository with one commit.
    pub(crate) fn init_repository(&self) {
        self.sh(
            "git init -q -b main && git config user.name t && git config user.email t@t && echo hello > README && \
                 git add -A && git commit -qm first",
        );
    }

    /// Replaces what runs in it, as when a pod is evicted: the workspace stays.
    pub(crate) fn replace(&self) {
        self.status.send_replace(SandboxStatus::Creating);
        self.kill_all();
        self.cut();
        let _ = std::fs::remove_dir_all(self.path("tmp"));
        std::fs::create_dir_all(self.path("tmp")).expect("a folder");
        self.status.send_replace(SandboxStatus::Running);
    }

    pub(crate) fn status_now(&self) -> SandboxStatus {
        *self.status.borrow()
    }

    pub(crate) fn set_status(&self, status: SandboxStatus) {
        self.status.send_replace(status);
    }

    /// Loses the connections to all commands that run; the commands go on.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *lock(&self.connections)).cancel();
    }

    /// The processes that have that text in their environment.
    pub(crate) fn processes(&self, text: &str) -> Vec<u32> {
        let own = format!("AGENT_WORKSPACE_ROOT={}", self.path("workspace").display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
            let environ = String::from_utf8_lossy(&environ).into_owned();
            if environ.split('\0').any(|variable| variable == own) && environ.contains(text) {
                found.push(pid);
            }
        }
        found
    }

    fn kill_all(&self) {
        for pid in self.processes("") {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }

    fn fault(&self, options: &ExecOptions) -> Option<Fault> {
        let line = format!("{} {:?} cwd={:?}", options.cmd, options.args, options.cwd);
        lock(&self.shared.log).push(line);
        let number = self.shared.commands.fetch_add(1, Ordering::SeqCst);
        lock(&self.shared.faults).as_ref().and_then(|faults| faults(number, options))
    }

    fn spawn(&self, options: &ExecOptions) -> Result<Child, Error> {
        if *self.status.borrow() != SandboxStatus::Running {
            return Err(Error::new(Code::ContainerNotRunning, format!("sandbox {} does not run", self.id)));
        }
        let workspace = self.path("workspace");
        let mut command = Command::new(&options.cmd);
        command.args(&options.args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp")).env("AGENT_WORKSPACE_ROOT", &workspace);
        command.envs(&options.env).current_dir(options.cwd.as_deref().map_or(workspace.as_path(), Path::new));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
            .spawn()
            .map_err(|error| Error::new(Code::SandboxExecFailed, format!("{} could not be run: {error}", options.cmd)))
    }
}

fn lost() -> Error {
    Error::new(Code::ExecConnectionFailed, "the connection was lost")
}

#[async_trait]
impl SandboxProvider for LocalProvider {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn create(&self, config: &SandboxConfig) -> Result<Arc<dyn Sandbox>, Error> {
        let running = lock(&self.shared.sandboxes).get(&config.project_id).map(|sandbox| sandbox.status());
        if running == Some(SandboxStatus::Running) {
            return Err(Error::new(Code::ContainerAlreadyExists, "the project has a sandbox"));
        }
        Ok(self.add(&config.project_id))
    }

    async fn get(&self, project_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
        Ok(lock(&self.shared.sandboxes).get(project_id).map(|sandbox| sandbox.clone() as _))
    }

    async fn get_by_id(&self, sandbox_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
        let sandboxes = lock(&self.shared.sandboxes);
        Ok(sandboxes.values().find(|sandbox| sandbox.id == sandbox_id).map(|sandbox| sandbox.clone() as _))
    }

    async fn list(&self) -> Result<Vec<SandboxInfo>, Error> {
        let info = |sandbox: &Arc<LocalSandbox>| SandboxInfo {
            id: sandbox.id.clone(),
            project_id: sandbox.project_id.clone(),
            container_id: sandbox.container_id(),
            status: sandbox.status(),
            image: "none".into(),
            created_at: Timestamp::UNIX_EPOCH,
            last_activity_at: Timestamp::now(),
            memory_mb: 0,
            cpu_cores: 0.0,
        };
        Ok(lock(&self.shared.sandboxes).values().map(info).collect())
    }

    async fn pull_image(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn is_image_available(&self, _: &str) -> Result<bool, Error> {
        Ok(true)
    }

    async fn health_check(&self) -> HealthCheck {
        HealthCheck { healthy: true, message: None, rows: Vec::new() }
    }

    async fn cleanup(&self, _: &CleanupFilter) -> Result<usize, Error> {
        Ok(0)
    }

    fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        self.shared.events.subscribe()
    }

    async fn shutdown(&self) {}
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn container_id(&self) -> String {
        format!("folder-{}", self.project_id)
    }

    fn status(&self) -> SandboxStatus {
        *self.status.borrow()
    }

    async fn exec(&self, mut options: ExecOptions) -> Result<ExecOutput, Error> {
        let fault = self.fault(&options);
        match fault {
            Some(Fault::HangBefore) => std::future::pending().await,
            Some(Fault::LostBefore) => return Err(lost()),
            Some(Fault::HangAfter | Fault::LostAfter) | None => {}
        }
        let mut child = self.spawn(&options)?;
        let (input, stdin) = (options.stdin.take().unwrap_or_default(), child.stdin.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&input).await;
            }
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        let output = output.expect("output");
        match fault {
            Some(Fault::HangAfter) => std::future::pending().await,
            Some(Fault::LostAfter) => return Err(lost()),
            Some(Fault::HangBefore | Fault::LostBefore) | None => {}
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(ExecOutput {
            exit_code: output.status.code().unwrap_or(137),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    async fn exec_stream(&self, options: ExecOptions) -> Result<ExecStream, Error> {
        match self.fault(&options) {
            Some(Fault::HangBefore | Fault::HangAfter) => std::future::pending().await,
            Some(Fault::LostBefore | Fault::LostAfter) => return Err(lost()),
            None => {}
        }
        let mut child = self.spawn(&options)?;
        drop(child.stdin.take());
        let cut = lock(&self.connections).child_token();
        let stdout = Cut::new(child.stdout.take().expect("stdout"), cut.clone());
        let stderr = Cut::new(child.stderr.take().expect("stderr"), cut.clone());
        let (end, ended) = watch::channel(None);
        let kill = CancellationToken::new();
        let killed = kill.clone();
        tokio::spawn(async move {
            let pid = child.id().expect("a process");
            let status = tokio::select! {
                status = child.wait() => status.ok().and_then(|status| status.code()).unwrap_or(137),
                () = killed.cancelled() => {
                    // With what it has started.
                    let _ = Command::new("kill").args(["-9", "--", &format!("-{pid}")]).status().await;
                    let _ = child.wait().await;
                    137
                }
                () = cut.cancelled() => {
                    end.send_replace(Some(None));
                    // Nobody hears of it any more; it goes on.
                    let _ = child.wait().await;
                    return;
                }
            };
            end.send_replace(Some(Some(status)));
        });
        let handle = Arc::new(LocalHandle { ended, kill });
        Ok(ExecStream { stdout: Box::pin(stdout), stderr: Box::pin(stderr), handle })
    }

    async fn stop(&self, _: StopReason) -> Result<(), Error> {
        self.status.send_replace(SandboxStatus::Stopped);
        self.kill_all();
        Ok(())
    }

    async fn metrics(&self) -> Result<SandboxMetrics, Error> {
        Ok(SandboxMetrics::default())
    }

    fn touch(&self) {}

    fn last_activity(&self) -> Timestamp {
        Timestamp::now()
    }
}

struct LocalHandle {
    /// None until it has ended, then its status unless the connection was lost.
    ended: watch::Receiver<Option<Option<i32>>>,
    kill: CancellationToken,
}

#[async_trait]
impl ExecHandle for LocalHandle {
    async fn wait(&self) -> Result<ExecEnd, Error> {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| status.flatten());
        status.map(|exit_code| ExecEnd { exit_code }).ok_or_else(lost)
    }

    async fn kill(&self) -> Result<(), Error> {
        self.kill.cancel();
        Ok(())
    }
}

/// Output that ends when its connection is cut.
struct Cut<R> {
    inner: R,
    cut: Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>,
}

impl<R> Cut<R> {
    fn new(inner: R, cut: CancellationToken) -> Self {
        Self { inner, cut: Box::pin(cut.cancelled_owned()) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Cut<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The commands of a sandbox do what the contract says; without that, the tests on it would prove nothing.
#[tokio::test]
async fn a_folder_keeps_the_contract_of_streams() {
    use tokio::io::AsyncReadExt;
    let provider = LocalProvider::new();
    let sandbox = provider.add("p");
    let mut stream = sandbox.exec_stream(ExecOptions::new("sh", ["-c", "echo out; exit 3"])).await.expect("started");
    let mut text = String::new();
    stream.stdout.read_to_string(&mut text).await.expect("output");
    assert_eq!((text.as_str(), stream.handle.wait().await.expect("its end").exit_code), ("out\n", 3));
    let mut stream = sandbox.exec_stream(ExecOptions::new("sleep", ["1000"])).await.expect("started");
    sandbox.cut();
    assert_eq!(stream.stdout.read(&mut [0; 8]).await.expect("its end"), 0);
    assert_eq!(stream.handle.wait().await.expect_err("nobody knows").code(), Code::ExecConnectionFailed);
}
