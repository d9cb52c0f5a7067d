//! Commands in a sandbox, with a kubelet that plays a shell.

use std::time::Duration;

use agent_sandbox_sdk::{
    AgentSandboxClient, CopyError, ExecError, ExecOptions, LogsError, Output, TerminalSize,
    kubeconfig::ConnectOptions,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec},
};
use anyhow::Result;
use fake_apiserver::cluster::Cluster;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::api::LogParams;
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(60);

async fn ready() -> Result<(Cluster, AgentSandboxClient)> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    create(&client).await?;
    Ok((cluster, client))
}

async fn create(client: &AgentSandboxClient) -> Result<()> {
    let main = Container {
        name: "main".into(),
        image: Some("busybox:1.36".into()),
        command: Some(["sleep", "infinity"].map(Into::into).into()),
        ..Default::default()
    };
    let pod = PodSpec { containers: vec![main], ..Default::default() };
    client.create(&Sandbox::new("a", SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() })).await?;
    client.wait_ready("a", SOON).await?;
    Ok(())
}

/// P2-1, P2-2, P2-20 of the predecessor.
#[tokio::test(start_paused = true)]
async fn a_command_gets_folder_variables_and_input_and_gives_streams_and_code() -> Result<()> {
    let (cluster, client) = ready().await?;
    let mut options = ExecOptions { cwd: Some("/tmp".into()), stdin: Some("ünïcode\n".into()), ..Default::default() };
    options.env.insert("TOKEN".into(), "it's\na s3cr3t".into());
    let script = "pwd; echo \"$TOKEN\"; cat; echo bad >&2; exit 137";
    let output = client.exec_with("a", ["sh", "-c", script], options).await?;
    assert_eq!(output.stdout_text(), "/tmp\nit's\na s3cr3t\nünïcode\n");
    assert_eq!((output.stderr_text().as_ref(), output.exit_code, output.signal()), ("bad\n", 137, Some(9)));
    let limited = ExecOptions { output_limit_bytes: 3, ..Default::default() };
    let error = client.exec_with("a", ["echo", "four"], limited).await.unwrap_err();
    assert!(matches!(error, ExecError::OutputTooLong { limit_bytes: 3, .. }), "{error}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_running_command_is_written_to_and_read_from() -> Result<()> {
    let (cluster, client) = ready().await?;
    let mut running =
        client.start("a", ["sh", "-c", "while read l; do echo got $l; done; exit 4"], ExecOptions::default()).await?;
    let mut stdin = running.stdin().expect("its input");
    for word in ["one", "two"] {
        stdin.write_all(format!("{word}\n").as_bytes()).await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match running.next().await? {
                Some(Output::Stdout(bytes)) => line.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(String::from_utf8(line)?, format!("got {word}\n"));
    }
    stdin.shutdown().await?;
    drop(stdin);
    assert_eq!(running.wait().await?.exit_code, 4);
    cluster.shutdown().await;
    Ok(())
}

/// P2-3: the predecessor's timeout left the process, its socket and its timer.
#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_an_error_with_what_it_had_written() -> Result<()> {
    let (cluster, client) = ready().await?;
    let options = ExecOptions { timeout: Some(Duration::from_secs(3)), ..Default::default() };
    let error = client.exec_with("a", ["sh", "-c", "echo started; sleep 1000"], options).await.unwrap_err();
    let ExecError::TimedOut { after, partial, .. } = &error else { panic!("{error:?}") };
    assert_eq!((after.as_secs(), partial.stdout_text().as_ref()), (3, "started\n"));
    assert!(!error.is_retryable());

    cluster.shutdown().await;
    Ok(())
}

/// P2-4, and with a client certificate over TLS, as a kubeconfig gives it.
#[tokio::test]
async fn a_wait_ends_when_the_connection_is_lost() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    create(&AgentSandboxClient::new(cluster.client())).await?;
    let mut access = cluster.serve_https("127.0.0.1:0".parse()?).await?;
    let door: std::net::SocketAddr = access.server.trim_start_matches("https://").parse()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    access.server = format!("https://{}", listener.local_addr()?);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config"), access.render())?;
    let options = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..Default::default() };
    let wire = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut ours, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut theirs = tokio::net::TcpStream::connect(door).await?;
                tokio::io::copy_bidirectional(&mut ours, &mut theirs).await
            });
        }
    });
    let client = AgentSandboxClient::connect(&options).await?;
    assert_eq!(client.exec("a", ["echo", "over TLS"]).await?.stdout_text(), "over TLS\n");
    let running = client.start("a", ["sleep", "1000"], ExecOptions::default()).await?;
    wire.abort();
    let error = tokio::time::timeout(SOON, running.wait()).await?.unwrap_err();
    assert!(matches!(error, ExecError::NoExitStatus { .. } | ExecError::ConnectionFailed { .. }), "{error:?}");
    cluster.shutdown().await;
    Ok(())
}

/// P2-5: the predecessor gave back a command whose connection had failed.
#[tokio::test(start_paused = true)]
async fn what_did_not_start_is_an_error() -> Result<()> {
    let (cluster, client) = ready().await?;
    let elsewhere = ExecOptions { container: Some("other".into()), ..Default::default() };
    let error = client.start("a", ["true"], elsewhere).await.unwrap_err();
    assert!(matches!(error, ExecError::StartFailed { .. }), "{error:?}");
    let error = client.start("nobody", ["true"], ExecOptions::default()).await.unwrap_err();
    assert!(matches!(error, ExecError::PodLookupFailed { .. }), "{error:?}");
    cluster.shutdown().await;
    Ok(())
}

/// What is typed is echoed, variables are not: they come by a file, which is gone when the command begins.
#[tokio::test(start_paused = true)]
async fn a_command_on_a_terminal_gets_variables_that_it_does_not_show_and_what_is_typed() -> Result<()> {
    let (cluster, client) = ready().await?;
    let tty = Some(TerminalSize { columns: 80, rows: 24 });
    let mut options = ExecOptions { cwd: Some("/tmp".into()), tty, ..Default::default() };
    options.env.insert("TOKEN".into(), "it's a s3cr3t".into());
    let script = "[ -t 0 ] && echo terminal; pwd; ls -a; read line; echo \"got $line with ${#TOKEN}\"; exit 3";
    let mut running = client.start("a", ["sh", "-c", script], options).await?;
    running.resize(TerminalSize { columns: 120, rows: 40 }).await?;
    let mut stdin = running.stdin().expect("a keyboard");
    stdin.write_all(b"typed\n").await?;
    let mut shown = Vec::new();
    while let Some(written) = running.next().await? {
        let Output::Stdout(bytes) = written else { panic!("a terminal has one stream: {written:?}") };
        shown.extend(bytes);
    }
    let shown = String::from_utf8(shown)?;
    assert!(shown.starts_with("terminal\r\n/tmp\r\n") && shown.contains("got typed with 13"), "{shown}");
    assert!(!shown.contains("s3cr3t") && !shown.contains("AGENT_SANDBOX_EXEC"), "{shown}");
    assert_eq!(running.wait().await?.exit_code, 3);
    let mut without = client.start("a", ["true"], ExecOptions::default()).await?;
    let error = without.resize(TerminalSize { columns: 1, rows: 1 }).await.unwrap_err();
    assert!(matches!(error, ExecError::NoTerminal { .. }), "{error:?}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_as_it_is_written() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let loud = ["sh", "-c", "echo one; sleep 30; echo two; sleep 1000"];
    client.create(&Sandbox::builder("a", "busybox:1.36").command(loud).build()?).await?;
    client.wait_ready("a", SOON).await?;
    let follow = LogParams { follow: true, ..Default::default() };
    let mut pieces = std::pin::pin!(client.log_stream("a", &follow).await?);
    let mut text = String::new();
    while !text.ends_with("two\n") {
        let piece = tokio::time::timeout(SOON, pieces.try_next()).await??.expect("it goes on");
        text.push_str(std::str::from_utf8(&piece)?);
    }
    assert_eq!(text, "one\ntwo\n");
    assert_eq!(client.logs("a", &LogParams { tail_lines: Some(1), ..Default::default() }).await?, "two\n");
    client.suspend("a").await?;
    client.wait_suspended("a", SOON).await?;
    let error = client.logs("a", &LogParams::default()).await.unwrap_err();
    assert!(matches!(&error, LogsError::NoPod { pod, .. } if pod == "a") && !error.is_retryable(), "{error:?}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_file_is_written_and_read_back() -> Result<()> {
    let (cluster, client) = ready().await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    client.write_file("a", "/tmp/a b", bytes.clone()).await?;
    assert_eq!(client.read_file("a", "/tmp/a b", 1 << 20).await?, bytes);
    let error = client.read_file("a", "/tmp/none", 10).await.unwrap_err();
    assert!(matches!(&error, CopyError::RemoteFailed { path, .. } if path == "/tmp/none"), "{error}");
    cluster.shutdown().await;
    Ok(())
}

/// The sandbox of these tests has no tar: its script answers for it.
#[tokio::test(start_paused = true)]
async fn a_folder_is_copied_out_and_a_failing_tar_says_why() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    archive.append_data(&mut header, "out/text", &b"hello"[..])?;
    let archive = String::from_utf8(archive.into_inner()?)?;
    let script = serde_json::json!({"exec": [
        {"command": ["tar", "-cf", "-", "-C", "/work", "--", "out"], "stdout": archive},
        {"command": ["tar", "-cf"], "stderr": "tar: none: No such file or directory\n", "exitCode": 1},
        {"command": ["tar", "-xf"], "stderr": "tar: /none: Cannot open\n", "exitCode": 2},
    ]});
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    let mut template = PodTemplate::of(PodSpec { containers: vec![main], ..Default::default() });
    let annotations = &mut template.metadata.get_or_insert_default().annotations;
    annotations.insert("fake-apiserver.dev/script".into(), script.to_string());
    client.create(&Sandbox::new("a", SandboxSpec { pod_template: template, ..Default::default() })).await?;
    client.wait_ready("a", SOON).await?;

    let folder = tempfile::tempdir()?;
    client.copy_out("a", "/work/out", folder.path(), 1 << 20).await?;
    assert_eq!(std::fs::read_to_string(folder.path().join("out/text"))?, "hello");
    let error = client.copy_out("a", "/work/out", folder.path(), 100).await.unwrap_err();
    assert!(matches!(error, CopyError::TooLong { limit_bytes: 100, .. }), "{error}");
    let error = client.copy_out("a", "/work/none", folder.path(), 100).await.unwrap_err();
    assert_eq!(error.to_string(), "/work/none of sandbox default/a: tar: none: No such file or directory");
    let error = client.copy_in("a", folder.path(), "/none").await.unwrap_err();
    assert_eq!(error.to_string(), "/none of sandbox default/a: tar: /none: Cannot open");
    let error = client.copy_in("a", folder.path().join("nothing"), "/tmp").await.unwrap_err();
    assert!(matches!(error, CopyError::LocalFailed { .. }), "{error}");
    cluster.shutdown().await;
    Ok(())
}
