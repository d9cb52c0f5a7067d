//! What listens in a sandbox, and commands that are real processes.

use std::time::{Duration, Instant};

use agent_sandbox_sdk::{
    AgentSandboxClient, ExecError, ExecOptions, Output, PortError, Signal, TerminalSize,
    kubeconfig::ConnectOptions,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec},
};
use anyhow::{Context, Result};
use fake_apiserver::cluster::Cluster;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(60);

fn sandbox(command: &[&str], script: &str, listens: Option<i32>) -> Sandbox {
    let probe = listens.map(|port| Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port), ..Default::default() }),
        period_seconds: Some(1),
        ..Default::default()
    });
    let main = Container {
        readiness_probe: probe,
        name: "main".into(),
        image: Some("busybox:1.36".into()),
        command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        ..Default::default()
    };
    let mut template = PodTemplate::of(PodSpec { containers: vec![main], ..Default::default() });
    let annotations = &mut template.metadata.get_or_insert_default().annotations;
    annotations.insert("fake-apiserver.dev/script".into(), script.into());
    Sandbox::new("a", SandboxSpec { pod_template: template, ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn a_port_of_a_sandbox_is_talked_to() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let script = r#"{"ports": {"7": "cat", "80": ["sh", "-c", "read line; echo $line back"]}}"#;
    client.create(&sandbox(&["sleep", "infinity"], script, Some(7))).await?;
    client.wait_ready("a", SOON).await?;
    let mut stream = client.connect_port("a", 80).await?;
    stream.write_all(b"hello\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    assert_eq!(text, "hello back\n");

    let mut nobody = client.connect_port("a", 81).await?;
    assert_eq!(nobody.read_to_string(&mut text).await?, 0);
    let refusal = nobody.refusal().await.context("nobody listens")?;
    assert!(refusal.contains("connect: connection refused"), "{refusal}");
    let error = client.connect_port("b", 80).await.unwrap_err();
    assert!(matches!(&error, PortError::PodLookupFailed { object, .. } if &*object.name == "b"), "{error:?}");
    client.suspend("a").await?;
    let gone = async {
        loop {
            match client.connect_port("a", 80).await {
                Err(error @ PortError::NoPod { .. }) => return error,
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(SOON, gone).await?.to_string(),
        "sandbox default/a has no pod a: is it suspended, expired, or not started yet?"
    );
    cluster.shutdown().await;
    Ok(())
}

/// A cluster whose sandbox is made of real processes, as a program with a kubeconfig sees it; `None` where this machine has
/// not what that takes.
async fn real() -> Result<Option<(Cluster, AgentSandboxClient, tempfile::TempDir)>> {
    let cluster = match Cluster::builder().seed(1).real_processes(true).start().await {
        Ok(cluster) => cluster,
        Err(missing) => {
            eprintln!("skipped: {missing}");
            return Ok(None);
        }
    };
    let access = cluster.serve_https("127.0.0.1:0".parse()?).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config"), access.render())?;
    let options = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..Default::default() };
    let client = AgentSandboxClient::connect(&options).await?;
    let server = "use IO::Socket::INET;
        my $door = IO::Socket::INET->new(LocalPort => 8080, Listen => 50, ReuseAddr => 1) or die;
        while (my $guest = $door->accept) { my $line = <$guest>; print $guest \"$line back\"; close $guest }";
    client.create(&sandbox(&["perl", "-e", server], "{}", Some(8080))).await?;
    client.wait_ready("a", SOON).await?;
    Ok(Some((cluster, client, folder)))
}

/// Processes of this machine whose command line holds a text.
fn alive(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
}

async fn until_gone(text: &str) {
    for _ in 0..500 {
        if alive(text) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{text} still runs");
}

/// P2-3 and P2-4 of the predecessor, over TLS and with processes that can be counted.
#[tokio::test]
async fn real_commands_are_killed_timed_out_left_and_reached_over_tls() -> Result<()> {
    let Some((cluster, client, _folder)) = real().await? else { return Ok(()) };

    // A port of this machine leads to what listens in the sandbox.
    let forward = client.port_forward("a", 8080, 0).await?;
    for word in ["one", "two"] {
        let mut socket = TcpStream::connect(forward.address()).await?;
        socket.write_all(format!("{word}\n").as_bytes()).await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        assert_eq!(text, format!("{word}\n back"));
    }
    assert_eq!(forward.last_failure(), None);
    let nobody = client.port_forward("a", 8081, 0).await?;
    let mut text = String::new();
    assert_eq!(TcpStream::connect(nobody.address()).await?.read_to_string(&mut text).await?, 0);
    assert!(nobody.last_failure().context("it failed")?.contains("connection refused"));
    let address = forward.address();
    drop(forward);
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");

    // A kill ends a command and what it has started.
    let mut running = client.start("a", ["sh", "-c", "sleep 40041 & echo up; wait"], ExecOptions::default()).await?;
    assert_eq!(running.next().await?, Some(Output::Stdout(b"up\n".to_vec())));
    assert!(alive("sleep 40041") > 0);
    running.kill(Signal::Kill).await?;
    assert_eq!(running.wait().await?.signal(), Some(9));
    until_gone("sleep 40041").await;

    // A timeout ends it there, too.
    let options = ExecOptions { timeout: Some(Duration::from_millis(500)), ..Default::default() };
    let error = client.exec_with("a", ["sh", "-c", "echo begun; sleep 40042"], options).await.unwrap_err();
    let ExecError::TimedOut { ended, partial, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*ended, partial.stdout_text().as_ref()), (true, "begun\n"));
    until_gone("sleep 40042").await;

    // A client that goes away takes its command along.
    let mut running = client.start("a", ["sh", "-c", "echo up; sleep 40043"], ExecOptions::default()).await?;
    assert_eq!(running.next().await?, Some(Output::Stdout(b"up\n".to_vec())));
    drop(running);
    until_gone("sleep 40043").await;

    // A terminal has a size, which can be changed.
    let tty = Some(TerminalSize { columns: 80, rows: 24 });
    let options = ExecOptions { tty, ..Default::default() };
    let mut shell = client.start("a", ["sh", "-c", "while read l; do stty size; done"], options).await?;
    shell.resize(TerminalSize { columns: 120, rows: 40 }).await?;
    let mut keyboard = shell.stdin().context("a keyboard")?;
    let mut shown = String::new();
    while !shown.contains("40 120") {
        keyboard.write_all(b"\n").await?;
        match tokio::time::timeout(SOON, shell.next()).await?? {
            Some(Output::Stdout(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => anyhow::bail!("{other:?} after {shown}"),
        }
    }
    shell.kill(Signal::Kill).await?;
    shell.wait().await?;

    // Nothing of much output is lost. How much: EXEC_MIB, 8 by default.
    let mib: usize = std::env::var("EXEC_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let bytes = mib << 20;
    let start = Instant::now();
    let command = ["head".to_owned(), "-c".into(), bytes.to_string(), "/dev/zero".into()];
    let mut running = client.start("a", command, ExecOptions::default()).await?;
    let mut count = 0;
    while let Some(Output::Stdout(piece)) = running.next().await? {
        count += piece.len();
    }
    assert_eq!((count, running.wait().await?.exit_code), (bytes, 0));
    println!("exec: {:.0} MiB/s of output", mib as f64 / start.elapsed().as_secs_f64());
    cluster.shutdown().await;
    Ok(())
}
