//! Every scenario on every target that this machine has: the fake always, real ones where the environment names them.

use anyhow::{Result, ensure};
use e2e::{
    Target,
    progress::Progress,
    report,
    runner::{self, Run, Verdict},
    scenarios,
    target::{TargetKind, TargetOptions},
};

fn options() -> TargetOptions {
    let fake = (env!("CARGO_BIN_EXE_e2e").into(), vec!["fake-apiserver".into()]);
    TargetOptions { fake: Some(fake), ..TargetOptions::default() }
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
