//! The set-up of a minikube, against programs that only say what the real ones would: wrong versions, failures, hangs, and
//! an end after each step. No minikube, kubectl or docker of this machine is ever run.

use std::{
    fs,
    io::Read,
    net::Ipv4Addr,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use fake_apiserver::Cluster;

/// What each fake program begins with: it notes its call, and does at the call that is asked for what it is told. It is all
/// one process, for there are many calls.
const HEAD: &str = r#"#!/bin/sh
calls=0
[ ! -e "$STATE/count" ] || read -r calls < "$STATE/count"
calls=$((calls + 1))
echo $calls > "$STATE/count"
echo "${0##*/} $*" >> "$STATE/calls"
if [ "$calls" = "$AT" ]; then
  case "$DO" in
    fail) echo "something of the network is down" >&2; exit 7 ;;
    hang) sleep 1000 & echo $! > "$STATE/grandchild"; wait ;;
  esac
fi
after() { if [ "$calls" = "$AT" ] && [ "$DO" = kill-after ]; then kill -KILL $PPID; fi; }
"#;

const MINIKUBE: &str = r#"
case "$*" in
  "version --output json") echo "{\"minikubeVersion\": \"${MINIKUBE_VERSION:-v1.38.0}\", \"commit\": \"abc\"}" ;;
  "profile list --output json")
    if [ -e "$STATE/started" ]; then echo "{\"invalid\": [], \"valid\": [{\"Name\": \"$PROFILE\", \"Status\": \"OK\"}]}"
    else echo '{"error": "Exiting due to MK_USAGE_NO_PROFILE: No minikube profile was found."}'; after; exit 14; fi ;;
  start*) : > "$STATE/started"; echo "* Done!" ;;
  "addons list"*)
    if [ -e "$STATE/gvisor" ]; then status=enabled; else status=disabled; fi
    echo "{\"gvisor\": {\"Profile\": \"$PROFILE\", \"Status\": \"$status\"}, \"ingress\": {\"Status\": \"disabled\"}}" ;;
  "addons enable gvisor"*) : > "$STATE/gvisor" ;;
  delete*) rm -f "$STATE/started" "$STATE/gvisor" "$STATE/controller" "$STATE"/applied-* ;;
  *) echo "minikube: unknown: $*" >&2; exit 64 ;;
esac
after
"#;

const KUBECTL: &str = r#"
case "$*" in
  "version --client --output json") echo "{\"clientVersion\": {\"gitVersion\": \"${KUBECTL_VERSION:-v1.36.3}\"}}"; after; exit ;;
esac
[ "$1 $2" = "--context $PROFILE" ] || { echo "kubectl: no such context: $2" >&2; exit 65; }
[ -e "$STATE/started" ] || { echo "The connection to the server was refused" >&2; exit 1; }
shift 2
case "$*" in
  "get nodes"*) echo "{\"items\": [{\"status\": {\"nodeInfo\": {\"containerRuntimeVersion\": \"${RUNTIME:-containerd://2.2.0}\"}}}]}" ;;
  wait*pod*) [ -e "$STATE/gvisor" ] ;;
  "get deployment"*)
    if [ -e "$STATE/controller" ]; then
      read -r release < "$STATE/controller"; printf 'registry.k8s.io/agent-sandbox/agent-sandbox-controller:%s' "$release"
    fi ;;
  apply*releases/download/*)
    file=${*##*/}; release=${*%/*}; echo "${release##*/}" > "$STATE/controller"; echo "$file applied" ;;
  "rollout status"*) [ -e "$STATE/controller" ] ;;
  wait*crd/*) [ -e "$STATE/controller" ] ;;
  apply*--validate=strict*) [ -e "${*##*--filename }" ] && : > "$STATE/applied-${*##*/}" ;;
  delete*releases/download/*) rm -f "$STATE/controller" ;;
  delete*) rm -f "$STATE/applied-${*##*/}" ;;
  *) echo "kubectl: unknown: $*" >&2; exit 64 ;;
esac
status=$?
after
exit $status
"#;

const DOCKER: &str = r#"
[ -z "$DOCKER_DOWN" ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; }
echo 28.0.0
after
"#;

/// The context of the kubeconfig that the fake cluster writes.
const PROFILE: &str = "fake-apiserver";

/// A healthy cluster for the last step, and its kubeconfig; one for all tests.
fn kubeconfig() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (cluster, text) = runtime.block_on(async {
            let cluster = Cluster::builder().system_time().start().await.unwrap();
            let door = cluster.serve_https((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
            let namespace: k8s_openapi::api::core::v1::Namespace =
                serde_json::from_value(serde_json::json!({"metadata": {"name": "sandboxes"}})).unwrap();
            let namespaces = kube::Api::all(cluster.client());
            namespaces.create(&kube::api::PostParams::default(), &namespace).await.unwrap();
            let client = agent_sandbox_sdk::AgentSandboxClient::new(cluster.client()).in_namespace("sandboxes");
            let end = Instant::now() + Duration::from_secs(60);
            while !client.health().await.is_healthy() {
                assert!(Instant::now() < end, "the fake does not get healthy");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (cluster, door.render())
        });
        let folder = tempfile::Builder::new().prefix("e2e-setup-").tempdir().unwrap().keep();
        fs::write(folder.join("kubeconfig"), text).unwrap();
        std::mem::forget((cluster, runtime)); // they live as long as the tests
        folder.join("kubeconfig")
    })
}

/// A machine with the fake programs in its PATH.
struct Machine {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "state"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let machine = Self { folder, variables: Vec::new() };
        for (name, body) in [("minikube", MINIKUBE), ("kubectl", KUBECTL), ("docker", DOCKER)] {
            let path = machine.at("bin").join(name);
            fs::write(&path, format!("{HEAD}{body}")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // What the fake programs need of the system; a real minikube is not among it.
        for name in ["kill", "rm", "sleep"] {
            std::os::unix::fs::symlink(which::which(name).unwrap(), machine.at("bin").join(name)).unwrap();
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn without(self, program: &str) -> Self {
        fs::remove_file(self.at("bin").join(program)).unwrap();
        self
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2e"));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        command.args(words).args(["--profile", PROFILE]).current_dir(folder).env_clear();
        command.env("PATH", self.at("bin"));
        command.env("STATE", self.at("state")).env("PROFILE", PROFILE).env("HOME", self.folder.path());
        command.env("KUBECONFIG", kubeconfig()).stdin(Stdio::null());
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    fn up(&self, more: &[&str]) -> Output {
        self.command(&[&["minikube-up"], more].concat()).output().unwrap()
    }

    /// As [`up`](Self::up), with what happens at one of the calls.
    fn up_when(&self, what: &str, at: usize, more: &[&str]) -> Output {
        let mut command = self.command(&[&["minikube-up"], more].concat());
        command.env("DO", what).env("AT", at.to_string()).output().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.at("state/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn forget_calls(&self) {
        for name in ["state/calls", "state/count"] {
            let _ = fs::remove_file(self.at(name)); // it may not be there
        }
    }

    /// Whether all is there that a set-up makes.
    fn is_complete(&self) -> bool {
        let files = ["started", "gvisor", "controller", "applied-namespace.yaml", "applied-sandbox-warm-pool.yaml"];
        files.iter().all(|file| self.at("state").join(file).exists())
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_cluster_is_set_up_told_to_be_healthy_left_alone_by_a_second_run_and_taken_down() {
    let machine = Machine::new();
    let output = machine.up(&["--cpus", "3", "--memory", "6g", "--driver", "docker"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(machine.is_complete(), "{:?}", machine.calls());
    let start = machine.calls().into_iter().find(|call| call.starts_with("minikube start")).unwrap();
    for word in
        ["--cpus 3", "--memory 6g", "--driver docker", "--container-runtime containerd", "--profile fake-apiserver"]
    {
        assert!(start.contains(word), "{start}");
    }
    assert!(machine.calls().iter().any(|call| call.ends_with("/v0.5.6/sandbox-with-extensions.yaml")));
    assert!(text.contains("[6/6] health: good"), "{text}");
    assert!(text.contains("Controller") && text.contains("│ ok"), "the table of health is shown: {text}");

    machine.forget_calls();
    let again = machine.up(&[]);
    assert!(again.status.success(), "{}", said(&again));
    let calls = machine.calls();
    let makes = |call: &String| {
        call.starts_with("minikube start") || call.contains("addons enable") || call.contains("download")
    };
    assert!(!calls.iter().any(makes), "what is there is left alone: {calls:?}");

    let down = machine.command(&["minikube-down"]).output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
    assert!(!machine.is_complete(), "{:?}", machine.calls());
    let nothing = machine.command(&["minikube-down"]).output().unwrap();
    assert!(said(&nothing).contains("nothing to take down"), "{}", said(&nothing));
}

#[test]
fn a_cluster_that_was_there_before_loses_what_was_added_and_stays() {
    let machine = Machine::new();
    fs::write(machine.at("state/started"), "").unwrap();
    assert!(machine.up(&["--release", "v0.5.1"]).status.success());
    let applied: Vec<String> = machine.calls().into_iter().filter(|call| call.contains("download")).collect();
    assert!(applied[0].ends_with("manifest.yaml") && applied[1].ends_with("extensions.yaml"), "{applied:?}");
    let down = machine.command(&["minikube-down"]).output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
    let left = |name: &str| machine.at("state").join(name).exists();
    assert!(left("started") && !left("controller") && !left("applied-namespace.yaml"), "{:?}", machine.calls());
}

#[test]
fn a_run_that_is_killed_at_any_step_is_ended_well_by_the_next() {
    let steps = {
        let machine = Machine::new();
        assert!(machine.up(&[]).status.success());
        machine.calls().len()
    };
    assert!(steps > 12, "{steps} calls");
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    if at > steps {
                        return;
                    }
                    let machine = Machine::new();
                    // Before the next call is after this one; only the first has nothing before it.
                    let killed = machine.up_when("kill-after", at, &[]);
                    let calls = machine.calls();
                    assert_eq!(killed.status.signal(), Some(9), "at {calls:?}: {}", said(&killed));
                    let second = machine.up(&[]);
                    assert!(second.status.success(), "at {:?}: {}", calls.last(), said(&second));
                    assert!(machine.is_complete(), "at {:?}", calls.last());
                }
            });
        }
    });
}

#[test]
fn a_step_that_fails_is_named_with_what_the_program_said_and_the_next_run_goes_on() {
    let machine = Machine::new();
    let failed = machine.up_when("fail", 4, &[]);
    let text = said(&failed);
    assert_eq!(failed.status.code(), Some(2), "{text}");
    for part in
        ["step 1 of 6, the cluster", "minikube start", "something of the network is down", "run minikube-up again"]
    {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(machine.up(&[]).status.success());
    assert!(machine.is_complete());
}

#[test]
fn what_is_missing_or_old_is_said_at_once_with_what_to_do() {
    let cases = [
        (Machine::new().without("minikube"), vec!["install minikube: https://minikube.sigs.k8s.io"]),
        (Machine::new().with("MINIKUBE_VERSION", "v1.29.0"), vec!["minikube is 1.29.0, and it takes 1.33.0 or newer"]),
        (Machine::new().with("MINIKUBE_VERSION", "soon"), vec!["minikube says that its version is \"soon\""]),
        (
            Machine::new().with("KUBECTL_VERSION", "v1.20.1").without("minikube"),
            vec!["install minikube", "kubectl is 1.20.1, and it takes 1.27.0 or newer"],
        ),
        (Machine::new().with("DOCKER_DOWN", "1"), vec!["the driver docker needs a running Docker"]),
        (Machine::new().with("RUNTIME", "docker://27.0"), vec!["gVisor needs containerd", "--no-gvisor"]),
    ];
    for (machine, parts) in cases {
        let output = machine.up(&["--driver", "docker"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }
    let wrong = Machine::new().up(&["--release", "latest"]);
    assert!(said(&wrong).contains("no release such as v0.5.6"), "{}", said(&wrong));
}

/// Whether a process is there and no zombie.
pub(super) fn runs(id: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

pub(super) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}: not after 60 s");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_that_hangs_is_ended_in_time_with_all_that_it_started() {
    let machine = Machine::new();
    let hung = machine.up_when("hang", 4, &["--step-timeout", "1"]);
    let text = said(&hung);
    assert!(text.contains("minikube start") && text.contains("did not end in 1s"), "{text}");
    let grandchild = fs::read_to_string(machine.at("state/grandchild")).unwrap();
    eventually("the hung program's child is gone", || !runs(&grandchild));
    assert!(machine.up(&[]).status.success());
}

#[test]
fn ctrl_c_ends_the_running_program_and_what_it_started_and_the_next_run_goes_on() {
    let machine = Machine::new();
    let mut command = machine.command(&["minikube-up"]);
    let mut running =
        command.env("DO", "hang").env("AT", "4").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the hanging step", || machine.at("state/grandchild").exists());
    let grandchild = fs::read_to_string(machine.at("state/grandchild")).unwrap();
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let status = running.wait().unwrap();
    let mut text = String::new();
    running.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("was broken off") && text.contains("run minikube-up again"), "{text}");
    eventually("the broken-off program's child is gone", || !runs(&grandchild));
    assert!(machine.up(&[]).status.success());
    assert!(machine.is_complete());
}
