//! The real-process runtime: programs of this machine, each container in namespaces of its own made by bubblewrap.
//!
//! A container sees the machine's `/usr` and `/etc`, read-only, and its own `/tmp`, `/root`, `/workspace` and volumes, which
//! are directories of the server's; a claim's directory outlives its pods. Images are not unpacked: a command must be a
//! program of the machine, and a container without a command waits.
//!
//! The containers of a pod share a network of their own, which has a loopback device and no way out; as with a real kubelet,
//! a process that does nothing keeps it while containers come and go. What listens there is reached through a small program
//! that enters the network and connects its own input and output.
//!
//! Commands called later enter the container's namespaces with `nsenter`, so that they see its processes (a tmux server,
//! say). A terminal is made by util-linux's `script`. The container is a process namespace: when its first process goes, the
//! kernel ends all others.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::{OnceCell, watch},
};
use tokio_util::task::TaskTracker;

use super::{
    environment::hostname,
    process::{Ends, Exit, Process, Signal, Size, Wanted, spawn},
    scheduler::claim_of,
};
use crate::base::Object;

/// Runs real processes; clones share their directories, which go with the last one.
#[derive(Clone, Debug, Default)]
pub struct RealRuntime(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    root: OnceLock<Result<TempDir, String>>,
    tools: OnceLock<Result<Arc<Tools>, String>>,
    /// Networks of pods, by the pods' UIDs.
    networks: Mutex<BTreeMap<String, Arc<OnceCell<Network>>>>,
}

/// The machine's programs that pods are made with, by their paths: what a container has in its `PATH` is its own affair.
#[derive(Debug)]
struct Tools {
    bwrap: String,
    nsenter: String,
    /// Needed only by who connects to a pod's ports.
    perl: Option<String>,
}

/// The network of a pod. It goes when this is dropped, once the pod's containers have ended.
#[derive(Debug)]
struct Network {
    /// The machine's number of the process that keeps it.
    keeper: u32,
    /// Held: dropping it kills the keeper.
    _child: Child,
}

impl Network {
    async fn start(tools: &Tools) -> Result<Self, String> {
        let mut call = Command::new(&tools.bwrap);
        call.args(["--unshare-user", "--unshare-net", "--uid", "0", "--gid", "0", "--die-with-parent"]);
        call.args(["--ro-bind", "/", "/", "--", "sh", "-c", "echo $$; exec sleep infinity"]);
        call.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).kill_on_drop(true);
        let failed = |error: &dyn std::fmt::Display| format!("cannot make the pod's network: {error}");
        let mut child = call.spawn().map_err(|error| failed(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| failed(&"it has no output"))?;
        let line = BufReader::new(stdout).lines().next_line().await.map_err(|error| failed(&error))?;
        let keeper = line.unwrap_or_default().trim().parse().map_err(|_| failed(&"bwrap has ended"))?;
        Ok(Self { keeper, _child: child })
    }

    /// A call of `nsenter` into the network, and nothing else of the pod.
    fn enter(&self, tools: &Tools) -> Command {
        let mut call = Command::new(&tools.nsenter);
        // By its capabilities and not by a change of user, which who is not root may not ask for.
        call.args(["--target", &self.keeper.to_string(), "--user", "--net", "--preserve-credentials", "--"]);
        call
    }
}

/// Connects to a port of 127.0.0.1 or ::1, says so with a line (`+`, or `-` and why not), and carries bytes both ways; the end
/// of the input is passed on, and the end of the connection is the program's.
const CONNECT: &str = r#"
use Socket qw(:DEFAULT inet_pton);
my $port = shift;
my $up = socket(S, PF_INET, SOCK_STREAM, 0) && connect(S, pack_sockaddr_in($port, INADDR_LOOPBACK));
my $why = "\l$!";
$up ||= socket(S, PF_INET6, SOCK_STREAM, 0) && connect(S, pack_sockaddr_in6($port, inet_pton(PF_INET6, "::1")));
$| = 1;
print $up ? "+
" : "-$why
";
exit unless $up;
sub carry {
    my ($from, $to) = @_;
    while (sysread($from, my $text, 65536)) {
        for (my $done = 0; $done < length $text;) {
            $done += syswrite($to, $text, length($text) - $done, $done) // return;
        }
    }
}
my $other = fork;
if (!$other) {
    carry(*STDIN, *S);
    shutdown(S, 1);
    exit;
}
carry(*S, *STDOUT);
kill KILL => $other;
"#;

/// A container whose programs are real; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// What bubblewrap is called with, up to the command.
    sandbox: Arc<Vec<String>>,
    env: Arc<BTreeMap<String, String>>,
    cwd: String,
    /// The container's first process.
    first: Arc<watch::Sender<First>>,
    /// How many commands were called: tells their terminals apart.
    calls: Arc<AtomicU64>,
    network: Arc<OnceCell<Network>>,
    tools: Arc<Tools>,
    tasks: TaskTracker,
}

impl RealRuntime {
    /// Whether this machine has what it takes.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.tools().map(drop)
    }

    fn tools(&self) -> Result<Arc<Tools>, String> {
        self.0.tools.get_or_init(|| Tools::find().map(Arc::new)).clone()
    }

    fn root(&self) -> Result<&Path, String> {
        let made = self.0.root.get_or_init(|| {
            let made = tempfile::Builder::new().prefix("fake-apiserver-pods-").tempdir();
            made.map_err(|error| format!("real processes need a temporary directory: {error}"))
        });
        made.as_ref().map(TempDir::path).map_err(String::clone)
    }

    fn claim(&self, namespace: &str, name: &str) -> Result<PathBuf, String> {
        Ok(self.root()?.join("claims").join(namespace).join(name))
    }

    pub(super) async fn container(
        &self,
        pod: &Object,
        spec: &Value,
        env: BTreeMap<String, String>,
        tasks: &TaskTracker,
    ) -> Result<Container, String> {
        let tools = self.tools()?;
        let network = {
            let mut networks = self.0.networks.lock().expect("no panic under this lock");
            networks.entry(pod.uid().to_owned()).or_default().clone()
        };
        network.get_or_try_init(|| Network::start(&tools)).await?;
        let base = self.root()?.join("pods").join(pod.uid());
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        // What belongs to the container alone, and what its pod shares.
        let own = base.join("containers").join(text(spec, "name"));
        let mut binds = vec![
            (own.join("tmp"), "/tmp".to_owned(), false),
            (own.join("root"), "/root".to_owned(), false),
            (base.join("workspace"), "/workspace".to_owned(), false),
        ];
        for mount in spec.get("volumeMounts").and_then(Value::as_array).into_iter().flatten() {
            let name = text(mount, "name");
            let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array);
            let volume = volumes.into_iter().flatten().find(|volume| text(volume, "name") == name);
            let mut directory = match volume.and_then(|volume| claim_of(pod, volume)) {
                Some(claim) => self.claim(pod.namespace(), &claim)?,
                None => base.join("volumes").join(&name),
            };
            let sub_path = text(mount, "subPath");
            if !sub_path.is_empty() {
                directory.push(super::shell::fs::normalize("/", &sub_path));
            }
            let path = format!("/{}", super::shell::fs::normalize("/", &text(mount, "mountPath")));
            let read_only = mount.get("readOnly").and_then(Value::as_bool).unwrap_or_default();
            binds.retain(|(_, place, _)| *place != path);
            binds.push((directory, path, read_only));
        }
        binds.sort_by_key(|(_, path, _)| path.len()); // what lies in another mount comes after it
        let mut sandbox: Vec<String> = [
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
            "--cap-drop",
            "ALL",
            "--die-with-parent",
            "--new-session",
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/sbin",
            "/sbin",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
            "--ro-bind",
            "/etc",
            "/etc",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--dir",
            "/var/tmp",
            "--dir",
            "/run",
            "--hostname",
        ]
        .map(str::to_owned)
        .into();
        sandbox.push(hostname(pod));
        for (directory, path, read_only) in binds {
            std::fs::create_dir_all(&directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
            sandbox.push(if read_only { "--ro-bind" } else { "--bind" }.into());
            sandbox.push(directory.to_string_lossy().into_owned());
            sandbox.push(path);
        }
        let cwd = match text(spec, "workingDir") {
            cwd if cwd.is_empty() => "/workspace".to_owned(),
            cwd => cwd,
        };
        Ok(Container {
            sandbox: Arc::new(sandbox),
            env: Arc::new(env),
            cwd,
            first: Arc::new(watch::channel(First::Starting).0),
            calls: Arc::default(),
            network,
            tools,
            tasks: tasks.clone(),
        })
    }

    /// Removes what a pod leaves behind.
    pub(super) fn remove_pod(&self, uid: &str) {
        self.0.networks.lock().expect("no panic under this lock").remove(uid);
        if let Ok(root) = self.root() {
            remove(&root.join("pods").join(uid));
        }
    }

    /// Removes a claim's files.
    pub(super) fn remove_claim(&self, claim: &Object) {
        if let Ok(directory) = self.claim(claim.namespace(), claim.name()) {
            remove(&directory);
        }
    }
}

fn remove(directory: &Path) {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(directory = %directory.display(), %error, "not removed");
        }
        _ => {}
    }
}

impl Tools {
    fn find() -> Result<Self, String> {
        let quiet = |program: &str, arguments: &[&str]| {
            let mut call = std::process::Command::new(program);
            call.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
            call
        };
        let path = |program: &str| {
            let found = quiet("sh", &["-c", &format!("command -v {program}")]).output().ok()?;
            let path = String::from_utf8(found.stdout).ok()?.trim().to_owned();
            (!path.is_empty()).then_some(path)
        };
        let needed = |program: &str, package: &str| {
            path(program).ok_or_else(|| {
                format!("real processes need {program}, which is not on this machine: install {package}")
            })
        };
        let tools = Self {
            bwrap: needed("bwrap", "bubblewrap")?,
            nsenter: needed("nsenter", "util-linux")?,
            perl: path("perl"),
        };
        needed("script", "util-linux")?;
        needed("kill", "procps")?;
        let arguments = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"];
        let works = quiet(&tools.bwrap, &arguments).stdout(Stdio::null()).status();
        if works.is_ok_and(|status| status.success()) {
            return Ok(tools);
        }
        Err("real processes need user namespaces, and bwrap cannot make one here: allow them \
             (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0)"
            .into())
    }
}

/// A container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// It is about to be there.
    Starting,
    /// The machine's number of it.
    Runs(u32),
    /// It was there, or never came.
    Ended,
}

impl First {
    fn runs(self) -> Option<u32> {
        match self {
            Self::Runs(pid) => Some(pid),
            Self::Starting | Self::Ended => None,
        }
    }
}

/// How long a command waits for the container's first process.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long output is waited for after a program has ended: something else may hold its pipe.
const DRAIN: Duration = Duration::from_secs(2);

impl Container {
    /// Starts the container with its program.
    pub(super) fn start(&self, command: Vec<String>, wanted: Wanted) -> Process {
        let this = self.clone();
        // An image's own program is not here: something has to keep the container.
        let command = if command.is_empty() { vec!["sleep".into(), "infinity".into()] } else { command };
        spawn(&self.tasks, wanted, |ends| async move {
            let Some(network) = this.network.get() else { return fail(ends, "the pod's network is gone\n").await };
            let mut call = network.enter(&this.tools);
            call.arg(&this.tools.bwrap).args(this.sandbox.iter()).args(["--chdir", &this.cwd, "--"]);
            call.args(on_terminal(command, ends.tty, "main"));
            let exit = this.run(call, ends, true, "main").await;
            this.first.send_replace(First::Ended);
            exit
        })
    }

    /// Calls a command in the container.
    pub(super) fn exec(&self, command: Vec<String>, wanted: Wanted) -> Process {
        let this = self.clone();
        spawn(&self.tasks, wanted, |ends| async move {
            let Some(first) = this.first().await else {
                return fail(ends, "the container's first process is gone\n").await;
            };
            let serial = this.calls.fetch_add(1, Ordering::Relaxed).to_string();
            let mut call = this.enter(first);
            call.args(["sh", "-c", "cd \"$0\" || exit 1; exec \"$@\"", &this.cwd]);
            call.args(on_terminal(command, ends.tty, &serial));
            this.run(call, ends, false, &serial).await
        })
    }

    /// The container's first process; `None` if it has ended, or does not come. A container counts as running from the
    /// call that starts it, and its process comes some milliseconds later.
    async fn first(&self) -> Option<u32> {
        let mut first = self.first.subscribe();
        let known = first.wait_for(|first| *first != First::Starting);
        match *tokio::time::timeout(PATIENCE, known).await.ok()?.ok()? {
            First::Runs(pid) => Some(pid),
            First::Starting | First::Ended => None,
        }
    }

    /// A call of `nsenter` into the container.
    fn enter(&self, first: u32) -> Command {
        let mut call = Command::new(&self.tools.nsenter);
        call.args(["--target", &first.to_string()]);
        call.args(["--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--preserve-credentials", "--"]);
        call
    }

    /// Connects to what listens on a port of the pod.
    ///
    /// # Errors
    /// Why there is no connection, as the system call says it.
    pub(super) async fn connect(&self, port: u16) -> Result<Process, String> {
        let Some(perl) = self.tools.perl.clone() else {
            return Err("connections to real processes need perl, which is not on this machine: install it".into());
        };
        let this = self.clone();
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let mut process = spawn(&self.tasks, wanted, |ends| async move {
            let Some(network) = this.network.get() else { return fail(ends, "-no route to host\n").await };
            let mut call = network.enter(&this.tools);
            call.args([&perl, "-e", CONNECT, &port.to_string()]);
            this.run(call, ends, false, "").await
        });
        let mut said = Vec::new();
        if let Some(stdout) = &mut process.pipes.stdout {
            // A byte at a time, so that what comes after the line stays.
            while said.len() < 200 && said.last() != Some(&b'\n') {
                match stdout.read_u8().await {
                    Ok(byte) => said.push(byte),
                    Err(_) => break,
                }
            }
        }
        match String::from_utf8_lossy(&said).trim_end().strip_prefix(['+', '-']) {
            Some("") => Ok(process),
            Some(why) => Err(format!("connect: {why}")),
            None => Err("connect: the pod's network cannot be entered".into()),
        }
    }

    async fn run(&self, mut call: Command, ends: Ends, main: bool, serial: &str) -> Exit {
        call.env_clear().envs(self.env.iter());
        if ends.tty {
            call.env("TERM", "xterm");
        }
        call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        call.process_group(0).kill_on_drop(true);
        let mut child = match call.spawn() {
            Ok(child) => child,
            Err(error) => return fail(ends, &format!("cannot start: {error}\n")).await,
        };
        let Some(pid) = child.id() else { return fail(ends, "ended before it began\n").await };
        let Ends { stdin, stdout, stderr, mut size, mut signals, .. } = ends;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let typed = carry(stdin, input);
        let printed = async {
            match stderr {
                Some(stderr) => {
                    tokio::join!(carry_opt(output, stdout), carry_opt(errors, stderr));
                }
                None => {
                    carry_opt(output, stdout).await;
                }
            }
        };
        let mut printed = std::pin::pin!(printed);
        let ended = async {
            if main {
                self.find_first(pid).await;
            }
            wait(&mut child).await
        };
        let mut ended = std::pin::pin!(ended);
        let mut typed = std::pin::pin!(typed);
        let (mut typing, mut printing) = (true, true);
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut ended => break exit,
                signal = signals.recv() => self.signal(signal.unwrap_or(Signal::Kill), pid, main).await,
                Ok(()) = size.changed() => {
                    let size = *size.borrow_and_update();
                    self.resize(size, serial).await;
                }
                () = &mut typed, if typing => typing = false,
                () = &mut printed, if printing => printing = false,
            }
        };
        if printing {
            let _ = tokio::time::timeout(DRAIN, &mut printed).await; // something else holds the pipe: it is closed now
        }
        if !main {
            // What the command left running in its group goes with it; a tmux server has a session of its own.
            kill("KILL", &format!("-{pid}")).await;
        }
        exit
    }

    /// Finds the container's first process: the only child of bubblewrap.
    async fn find_first(&self, pid: u32) {
        for _ in 0..2500 {
            // The namespaces are whole once the first process has children of its own, or runs the program itself.
            if let Some(first) = children(pid).first().copied()
                && !children(first).is_empty()
            {
                self.first.send_replace(First::Runs(first));
                return;
            }
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn signal(&self, signal: Signal, pid: u32, main: bool) {
        let name = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
        };
        if main && signal != Signal::Kill {
            // For the program, not for bubblewrap, whose end would end everything.
            let first = self.first.borrow().runs();
            for program in first.map(children).unwrap_or_default() {
                kill(name, &program.to_string()).await;
            }
            return;
        }
        kill(name, &format!("-{pid}")).await;
    }

    async fn resize(&self, size: Size, serial: &str) {
        let Some(first) = self.first.borrow().runs() else { return };
        let mut call = self.enter(first);
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -s /tmp/.tty-{serial} ] && break; sleep 0.05; done; \
             stty -F \"$(cat /tmp/.tty-{serial})\" cols {} rows {}",
            size.width, size.height
        );
        call.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = call.kill_on_drop(true).status().await; // the terminal may be gone
    }
}

/// A command behind a terminal, if it wants one.
fn on_terminal(command: Vec<String>, tty: bool, serial: &str) -> Vec<String> {
    if !tty {
        return command;
    }
    let quoted: Vec<String> = command.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let text = format!("tty > /tmp/.tty-{serial}; exec {}", quoted.join(" "));
    ["script", "-qfe", "-E", "always", "-c", &text, "/dev/null"].map(str::to_owned).into()
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

async fn kill(signal: &str, whom: &str) {
    let mut call = Command::new("kill");
    call.args(["-s", signal, "--", whom]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = call.status().await; // it may be gone already
}

async fn wait(child: &mut Child) -> Exit {
    match child.wait().await {
        Ok(status) => {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
            Exit::code(status.code().unwrap_or(128 + signal))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot wait for a process");
            Exit::signal(Signal::Kill)
        }
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, to: Option<impl AsyncWrite + Unpin>) {
    if let Some(mut to) = to {
        let _ = tokio::io::copy(&mut from, &mut to).await; // one of the two is gone
    }
}

async fn carry_opt(from: Option<impl AsyncRead + Unpin>, to: impl AsyncWrite + Unpin) {
    if let Some(from) = from {
        carry(from, Some(to)).await;
    }
}

async fn fail(ends: Ends, text: &str) -> Exit {
    let Ends { mut stdout, stderr, .. } = ends;
    let _ = match stderr {
        Some(mut stderr) => stderr.write_all(text.as_bytes()).await,
        None => stdout.write_all(text.as_bytes()).await, // nobody reads: nothing to tell
    };
    Exit::code(126)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn pod() -> Object {
        let mut pod = Object::new("v1", "Pod", "default", "box");
        pod.metadata_mut().insert("uid".into(), "u1".into());
        let volumes = json!([{ "name": "work", "persistentVolumeClaim": { "claimName": "work" } }]);
        pod.set("spec", json!({ "volumes": volumes }));
        pod
    }

    async fn output(process: &mut Process) -> (String, i32) {
        let mut text = String::new();
        process.pipes.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        (text, process.control.wait().await.code)
    }

    async fn sh(container: &Container, text: &str, tty: bool) -> (String, i32) {
        let wanted = Wanted { stdin: tty, stdout: true, stderr: false, tty };
        let mut process = container.exec(vec!["sh".into(), "-c".into(), text.into()], wanted);
        let _keyboard = process.pipes.stdin.take();
        output(&mut process).await
    }

    #[tokio::test]
    async fn programs_share_files_and_processes_and_claims_outlive_the_pod() {
        let real = RealRuntime::default();
        if let Err(missing) = real.check() {
            eprintln!("skipped: {missing}");
            return;
        }
        let tasks = TaskTracker::new();
        let spec = json!({ "name": "main", "volumeMounts": [{ "name": "work", "mountPath": "/workspace" }] });
        let env = BTreeMap::from([
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("A".to_owned(), "b".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        let container = real.container(&pod(), &spec, env.clone(), &tasks).await.unwrap();
        let main = container.start(vec!["sleep".into(), "12345".into()], Wanted::default());
        let mut first = container.first.subscribe();
        first.wait_for(|first| first.runs().is_some()).await.unwrap();

        assert_eq!(sh(&container, "pwd; echo $A; echo kept > f; exit 3", false).await, ("/workspace\nb\n".into(), 3));
        assert_eq!(
            sh(&container, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 12345'", false).await.0,
            "1\n"
        );
        assert_eq!(sh(&container, "ls /home; touch /usr/x 2>/dev/null || echo kept out", false).await.0, "kept out\n");
        let (text, code) = sh(&container, "tty; exit 4", true).await;
        assert!(text.starts_with("/dev/pts/"), "{text:?}");
        assert_eq!(code, 4);

        let kept = real.claim("default", "work").unwrap().join("f");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept\n");
        let left =
            container.exec(vec!["sh".into(), "-c".into(), "setsid sleep 54321 & wait".into()], Wanted::default());
        main.control.signal(Signal::Kill);
        main.control.wait().await;
        left.control.wait().await;
        real.remove_pod("u1");
        assert!(kept.exists(), "a claim's files outlive the pod");
        let processes =
            std::process::Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).output().unwrap();
        let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
        assert!(!processes.contains("sleep 12345") && !processes.contains("sleep 54321"), "a process was left behind");
    }

    #[tokio::test]
    async fn a_program_may_end_in_its_own_way_when_it_is_asked_to() {
        let real = RealRuntime::default();
        if let Err(missing) = real.check() {
            eprintln!("skipped: {missing}");
            return;
        }
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let container = real.container(&pod(), &json!({ "name": "main" }), env, &TaskTracker::new()).await.unwrap();
        let text = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done";
        let wanted = Wanted { stdout: true, ..Wanted::default() };
        let mut main = container.start(vec!["sh".into(), "-c".into(), text.into()], wanted);
        let mut stdout = main.pipes.stdout.take().unwrap();
        let mut up = [0; 3];
        stdout.read_exact(&mut up).await.unwrap();
        container.first.subscribe().wait_for(|first| first.runs().is_some()).await.unwrap();
        main.control.signal(Signal::Terminate);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!((rest.as_str(), main.control.wait().await.code), ("bye\n", 7));
    }

    #[tokio::test]
    async fn what_listens_in_a_container_is_reached_in_its_pod_and_nowhere_else() {
        let real = RealRuntime::default();
        if let Err(missing) = real.check() {
            eprintln!("skipped: {missing}");
            return;
        }
        let tasks = TaskTracker::new();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let spec = json!({ "name": "server" });
        let container = real.container(&pod(), &spec, env.clone(), &tasks).await.unwrap();
        let server = "use IO::Socket::INET; $| = 1;
            my $door = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8080, Listen => 5) or die;
            print qq(up\n);
            while (my $guest = $door->accept) { my @all = <$guest>; print $guest uc $_ for @all; close $guest }";
        let wanted = Wanted { stdout: true, ..Wanted::default() };
        let mut main = container.start(vec!["perl".into(), "-e".into(), server.into()], wanted);
        let mut up = [0; 3];
        main.pipes.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();

        // From another container of the pod, too; the answer comes when the question has ended.
        let other = real.container(&pod(), &json!({ "name": "other" }), env.clone(), &tasks).await.unwrap();
        for container in [&container, &other] {
            let mut guest = container.connect(8080).await.unwrap();
            let mut stdin = guest.pipes.stdin.take().unwrap();
            stdin.write_all(b"hello\n").await.unwrap();
            drop(stdin);
            assert_eq!(output(&mut guest).await.0, "HELLO\n");
        }
        assert_eq!(container.connect(8081).await.unwrap_err(), "connect: connection refused");
        let mut elsewhere = pod();
        elsewhere.metadata_mut().insert("uid".into(), "u2".into());
        let elsewhere = real.container(&elsewhere, &spec, env, &tasks).await.unwrap();
        assert_eq!(elsewhere.connect(8080).await.unwrap_err(), "connect: connection refused");
        main.control.signal(Signal::Kill);
        main.control.wait().await;
        real.remove_pod("u1");
        real.remove_pod("u2");
    }
}
