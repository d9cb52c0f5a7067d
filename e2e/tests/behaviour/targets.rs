//! Every scenario on every target that this machine has: the fake always, real ones where the environment names them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use e2e::{
    Feature, Target,
    progress::Progress,
    report,
    runner::{self, Run, Verdict},
    scenarios,
    target::{TargetKind, TargetOptions},
};
use fake_apiserver::kubelet::RealRuntime;

use super::setup::{eventually, runs};

fn options() -> TargetOptions {
    let e2e = |program: &str| Some((env!("CARGO_BIN_EXE_e2e").into(), vec![program.into()]));
    let runner = Some(env!("CARGO_BIN_EXE_e2e-agent-runner").into());
    TargetOptions { fake: e2e("fake-apiserver"), provider: e2e("agent-sandbox-provider"), runner, ..Default::default() }
}

/// Runs the whole list, and shows the table.
fn all_pass_on(target: &Target) -> Result<Run> {
    let run = runner::run(target, scenarios::ALL, &Progress::Silent);
    print!("{}", report::table(&run));
    ensure!(run.is_good(), "{}", report::failures(&run));
    Ok(run)
}

#[test]
fn scenarios_pass_in_memory() -> Result<()> {
    let run = all_pass_on(&Target::memory())?;
    let passed = run.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Passed).count();
    ensure!(passed >= 20, "only {passed} were run");
    Ok(())
}

#[test]
fn scenarios_pass_over_https() -> Result<()> {
    all_pass_on(&Target::open(TargetKind::Https, &options())?).map(drop)
}

#[test]
fn scenarios_pass_with_kubelet_and_controllers_in_another_process() -> Result<()> {
    all_pass_on(&Target::open(TargetKind::Outside, &options())?).map(drop)
}

/// Those that no other target of the fake can run.
#[test]
fn scenarios_pass_in_real_processes() -> Result<()> {
    if let Err(why) = RealRuntime::default().check() {
        eprintln!("not run: {why}");
        return Ok(());
    }
    let target = Target::open(TargetKind::Processes, &options())?;
    let chosen: Vec<_> = scenarios::ALL.iter().copied().filter(|one| one.needs.contains(&Feature::Processes)).collect();
    let run = runner::run(&target, &chosen, &Progress::Silent);
    print!("{}", report::table(&run));
    ensure!(run.is_good(), "{}", report::failures(&run));
    Ok(())
}

#[test]
fn scenarios_pass_on_a_real_kube_apiserver() -> Result<()> {
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        eprintln!("not run: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
        return Ok(());
    }
    all_pass_on(&Target::open(TargetKind::KubeApiserver, &options())?).map(drop)
}

#[test]
fn scenarios_pass_on_the_environments_cluster() -> Result<()> {
    match Target::of_environment()? {
        Some(target) => all_pass_on(&target).map(drop),
        None => {
            eprintln!("not run: K8S_E2E is not `true`");
            Ok(())
        }
    }
}

#[test]
fn a_folder_without_the_programs_is_told() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let wrong = TargetOptions { assets: Some(empty.path().into()), ..options() };
    let error = Target::open(TargetKind::KubeApiserver, &wrong).expect_err("there is nothing in it").to_string();
    assert!(error.contains("has no etcd") && error.contains("setup-envtest"), "{error}");
}

/// A machine with programs that are not the real ones, and its state.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(programs: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a temporary folder"));
        for (name, script) in programs {
            let path = machine.at(name);
            fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a program is written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it may be run");
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn e2e(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2e"));
        command.args(words).env("STATE", self.0.path()).env("E2E", env!("CARGO_BIN_EXE_e2e"));
        command.env("KUBEBUILDER_ASSETS", self.0.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// An etcd that listens, and a kube-apiserver that never gets ready.
const ETCD: &str = r#"
while [ "$1" != --listen-client-urls ]; do shift; done
echo $$ > "$STATE/etcd.id"
exec "$E2E" fake-apiserver serve --no-kubelet --bind "${2#http://}" --kubeconfig "$STATE/any" >/dev/null
"#;
const APISERVER: &str = r#"
echo $$ > "$STATE/apiserver.new"; mv "$STATE/apiserver.new" "$STATE/apiserver.id"
exec sleep 1000
"#;

/// SIGKILL is what a second Ctrl-C comes to, or worse: nothing in the program is asked.
#[test]
fn a_control_plane_ends_with_the_program_that_started_it_also_when_that_is_killed() {
    for signal in ["INT", "KILL"] {
        let machine = Machine::new(&[("etcd", ETCD), ("kube-apiserver", APISERVER)]);
        let mut running = machine.e2e(&["run", "--target", "kube-apiserver"]).stderr(Stdio::piped()).spawn().unwrap();
        let id = |name: &str| fs::read_to_string(machine.at(name)).unwrap_or_default().trim().to_owned();
        eventually("both run", || !id("apiserver.id").is_empty());
        let children = [id("etcd.id"), id("apiserver.id")];
        assert!(children.iter().all(|id| runs(id)), "{children:?}");
        Command::new("kill").args([&format!("-{signal}"), &running.id().to_string()]).status().unwrap();
        let status = running.wait().unwrap();
        assert_eq!(status.code(), (signal == "INT").then_some(130), "{status}");
        eventually("both are gone", || !children.iter().any(|id| runs(id)));
    }
}

/// What docker says of k3s, and what it is asked.
const DOCKER: &str = r#"
echo "$*" >> "$STATE/calls"
case "$1" in
  info) echo 28.0.0 ;;
  run) echo abc ;;
  logs) echo "Node controller sync successful" >&2 ;;
  exec) cat "$STATE/k3s.yaml" ;;
  port) cat "$STATE/address" ;;
esac
"#;

#[test]
fn k3s_is_started_used_with_our_controllers_and_removed() {
    let machine = Machine::new(&[("docker", DOCKER)]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (cluster, kubeconfig) = runtime.block_on(async {
        let cluster =
            fake_apiserver::Cluster::builder().sandbox_controllers(false).system_time().start().await.unwrap();
        let door = cluster.serve_https((std::net::Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        (cluster, door.render())
    });
    let address = kubeconfig.split("https://").nth(1).and_then(|rest| rest.lines().next()).unwrap().trim();
    fs::write(machine.at("address"), format!("{address}\n")).unwrap();
    fs::write(machine.at("k3s.yaml"), kubeconfig.replace(address, "127.0.0.1:6443")).unwrap();
    let mut command = machine.e2e(&["run", "--target", "k3s", "--filter", "listed", "--quiet"]);
    let path = std::env::join_paths([machine.0.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let output = command.env("PATH", path).stdout(Stdio::piped()).output().unwrap();
    let calls = fs::read_to_string(machine.at("calls")).unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{calls}{said}");
    let words: Vec<&str> = calls.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(words, ["info", "run", "logs", "exec", "port", "rm"]);
    let name = calls.split("--name ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(calls.ends_with(&format!("rm --force --volumes {name}\n")), "{calls}");
    runtime.block_on(cluster.shutdown());
}
