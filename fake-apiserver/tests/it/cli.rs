//! The program: exit codes, what it says, what it leaves behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Client, Config,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use rstest::rstest;
use serde_json::json;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-apiserver"));
    command.env_remove("KUBECONFIG");
    command
}

fn refused(output: &Output, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(says), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing is ready");
}

#[rstest]
#[case(&["serve", "--nonsense"], "unexpected argument '--nonsense'")]
#[case(&["serve", "--bind", "nowhere"], "invalid value 'nowhere' for '--bind")]
#[case(&["controllers", "--kubeconfig", "/no/such/config"], "cannot read the kubeconfig /no/such/config")]
#[case(&["run"], "required arguments were not provided")]
#[case(&["run", "--", "/no/such/program"], "cannot run /no/such/program")]
#[case(&["serve", "--kubeconfig", "/no/such/folder/config"], "cannot write the kubeconfig /no/such/folder/config")]
fn misuse_is_told_and_ends_with_2(#[case] arguments: &[&str], #[case] says: &str) {
    refused(&program().args(arguments).output().unwrap(), says);
}

#[test]
fn a_port_in_use_is_told_and_no_kubeconfig_is_left() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let address = taken.local_addr().unwrap().to_string();
    let output = program().args(["serve", "--bind", &address, "--kubeconfig"]).arg(&file).output().unwrap();
    refused(&output, &format!("cannot listen on {address}"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[rstest]
#[case("exit 7", 7)]
#[case("exit 0", 0)]
#[case("kill -9 $$", 137)]
#[case("test -s \"$KUBECONFIG\" || exit 1; grep -q https://127.0.0.1: \"$KUBECONFIG\"", 0)]
fn a_command_runs_with_a_kubeconfig_and_its_status_is_ours(#[case] script: &str, #[case] code: i32) {
    let output = program().args(["run", "--no-kubelet", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[case("TERM")]
#[case("INT")]
fn a_signal_ends_it_cleanly(#[case] signal: &str) {
    let mut child = program().args(["serve", "--seed", "3"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ready", address, "kubeconfig", file] = words.as_slice() else { panic!("not the ready line: {line}") };
    assert!(address.starts_with("https://127.0.0.1:"), "{line}");
    assert!(fs::exists(file).unwrap());
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!fs::exists(file).unwrap(), "the temporary kubeconfig is gone");
}

#[test]
fn called_with_nothing_it_says_what_to_type_next() {
    let mut child = program().stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect();
    assert!(lines[0].starts_with("ready https://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].contains("export KUBECONFIG="), "{lines:?}");
    assert!(lines[2].contains("kubectl") && lines[3].contains("kubectl"), "{lines:?}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A child of ours that has said that it is ready.
fn ready(command: &mut Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("ready ")).expect("it gets ready");
    (child, line)
}

fn interrupt(child: &mut Child) -> Option<i32> {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap().code()
}

#[tokio::test]
async fn controllers_outside_the_server_make_a_sandbox_ready_and_give_up_their_lease() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let mut serve = program();
    let (mut server, _) =
        ready(serve.args(["serve", "--no-kubelet", "--no-sandbox-controllers", "--kubeconfig"]).arg(&file));
    let (mut controllers, line) = ready(program().args(["controllers", "--kubeconfig"]).arg(&file));
    assert!(line.starts_with("ready https://127.0.0.1:"), "{line}");

    let (kubeconfig, options) = (Kubeconfig::read_from(&file).unwrap(), KubeConfigOptions::default());
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("agents.x-k8s.io", "v1beta1", "Sandbox"));
    let resource = ApiResource { plural: "sandboxes".into(), ..resource };
    let sandboxes: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let sandbox = DynamicObject::new("outside", &resource).data(json!({
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "busybox"}]}}},
    }));
    sandboxes.create(&PostParams::default(), &sandbox).await.unwrap();
    let is_ready = |object: Option<&DynamicObject>| {
        let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
        conditions.is_some_and(|list| list.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    let waited = await_condition(sandboxes, "outside", is_ready);
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("Ready in time").unwrap();

    assert_eq!(interrupt(&mut controllers), Some(0));
    let leases: Api<Lease> = Api::namespaced(client, "kube-system");
    let lease = leases.get("a3317529.agent-sandbox.x-k8s.io").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some(""), "the next need not wait");
    assert_eq!(interrupt(&mut server), Some(0));
}
