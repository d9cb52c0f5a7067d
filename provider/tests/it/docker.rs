//! The Docker provider on an engine of our own, on broken ones, and on a real one where there is one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use agent_sandbox_provider::{
    Clock, Code, DockerOptions, DockerProvider, ExecOptions, Sandbox, SandboxConfig, SandboxEvent, SandboxProvider,
    SandboxStatus,
};
use anyhow::{Context, Result};
use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use crate::{
    contract::{SOON, World, behaviours, reaches},
    engine::{Engine, NOWHERE},
};

fn options(engine: &Engine) -> DockerOptions {
    DockerOptions { host: Some(engine.host()), ..DockerOptions::default() }
}

fn world_of(options: DockerOptions, image: &str, absent_image: String) -> Result<World> {
    let handle = tokio::runtime::Handle::current();
    let application = move || {
        let connecting = DockerProvider::connect(options.clone());
        let provider = tokio::task::block_in_place(|| handle.block_on(connecting)).expect("an engine that answers");
        Arc::new(provider) as Arc<dyn SandboxProvider>
    };
    Ok(World {
        application: Box::new(application),
        projects: tempfile::tempdir()?,
        image: image.into(),
        absent_image,
        has_signals: true,
    })
}

async fn fake() -> Result<(World, Engine)> {
    let engine = Engine::start()?;
    Ok((world_of(options(&engine), "busybox:1.36", format!("{NOWHERE}nothing:1"))?, engine))
}

behaviours!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    fake
);

/// With an engine on this machine, `DOCKER_E2E=true` runs the suite on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_a_real_engine() -> Result<()> {
    if std::env::var("DOCKER_E2E").as_deref() != Ok("true") {
        eprintln!("skipped: set DOCKER_E2E=true to run on the Docker Engine of this machine");
        return Ok(());
    }
    let user = "0".to_owned();
    let options = DockerOptions { user, ..DockerOptions::default() };
    all(&world_of(options, "busybox:1.36", "registry.invalid/nobody/nothing:1".into())?).await
}

async fn one(engine: &Engine, project: &str) -> Result<(DockerProvider, Arc<dyn Sandbox>, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let provider = DockerProvider::connect(options(engine)).await?;
    let config = SandboxConfig { image: "busybox:1.36".into(), ..SandboxConfig::new(project, folder.path()) };
    let sandbox = provider.create(&config).await?;
    Ok((provider, sandbox, folder))
}

#[tokio::test]
async fn a_container_is_confined_and_known_by_its_labels() -> Result<()> {
    let engine = Engine::start()?;
    engine.add_runtime("runsc");
    let (_provider, sandbox, folder) = one(&engine, "my/project").await?;
    let containers = engine.containers();
    let (name, body) = containers.first_key_value().context("a container")?;
    assert!(name.starts_with("agentpane-sandbox-my-project-"), "{name}");
    let host = &body["HostConfig"];
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]));
    assert_eq!((&host["Runtime"], &host["Init"]), (&json!("runsc"), &json!(true)));
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(4_294_967_296_u64), &json!(2_000_000_000)));
    assert_eq!((&body["User"], &body["WorkingDir"]), (&json!("1000"), &json!("/workspace")));
    assert_eq!(body["Entrypoint"], json!(["tail", "-f", "/dev/null"]));
    let mount = &host["Mounts"][0];
    assert_eq!((&mount["Target"], mount["Source"].as_str()), (&json!("/workspace"), folder.path().to_str()));
    let labels = &body["Labels"];
    assert_eq!(labels["agentpane.io/project-id"], "my/project");
    assert_eq!(labels["agentpane.io/sandbox-id"], sandbox.id());
    Ok(())
}

/// P2-2: environment and input are in no command line.
#[tokio::test]
async fn a_secret_is_in_the_environment_and_in_no_command() -> Result<()> {
    let engine = Engine::start()?;
    let (_provider, sandbox, _folder) = one(&engine, "secret").await?;
    let mut options = ExecOptions::new("sh", ["-c", "echo ${#TOKEN}"]);
    options.env.insert("TOKEN".into(), "s3cr3t".into());
    options.as_root = true;
    assert_eq!(sandbox.exec(options).await?.stdout, "6");
    let body = engine.execs().remove(0);
    assert!(!body["Cmd"].to_string().contains("s3cr3t") && body["Env"].to_string().contains("s3cr3t"));
    assert_eq!(body["User"], "root");
    let mut options = ExecOptions::new("true", [""; 0]);
    options.env.insert("BAD=NAME".into(), "s3cr3t".into());
    let error = sandbox.exec(options).await.err().context("no name of a variable")?;
    assert!(error.code() == Code::SandboxExecFailed && !error.to_string().contains("s3cr3t"), "{error}");
    Ok(())
}

#[tokio::test]
async fn tmux_sessions_are_made_listed_typed_into_seen_and_ended() -> Result<()> {
    if std::process::Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("skipped: there is no tmux on this machine");
        return Ok(());
    }
    let engine = Engine::start()?;
    let (_provider, sandbox, _folder) = one(&engine, "tmux").await?;
    assert_eq!(sandbox.list_tmux_sessions().await?, []);
    let made = sandbox.create_tmux_session("agent-1", Some("task:1")).await?;
    assert_eq!((made.name.as_str(), made.task_id.as_deref(), made.window_count), ("agent-1", Some("task:1"), 1));
    assert_eq!(sandbox.list_tmux_sessions().await?, [made]);
    let again = sandbox.create_tmux_session("agent-1", None).await.err().context("it is there")?;
    assert_eq!(again.code(), Code::SandboxTmuxSessionExists);
    let bad = sandbox.create_tmux_session("a:b", None).await.err().context("no name for tmux")?;
    assert_eq!(bad.code(), Code::SandboxTmuxCreationFailed);
    sandbox.send_keys_to_tmux("agent-1", "echo $((40+2))").await?;
    let shown = tokio::time::timeout(SOON, async {
        while !sandbox.capture_tmux_pane("agent-1", 100).await?.lines().any(|line| line.trim() == "42") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, agent_sandbox_provider::Error>(())
    });
    shown.await.context("the answer is not seen")??;
    // tmux itself would take a name that only begins so.
    let error = sandbox.send_keys_to_tmux("agent", "x").await.err().context("there is none")?;
    assert_eq!(error.code(), Code::SandboxTmuxSessionNotFound);
    sandbox.kill_tmux_session("agent-1").await?;
    sandbox.kill_tmux_session("agent-1").await?;
    let error = sandbox.capture_tmux_pane("agent-1", 1).await.err().context("it is gone")?;
    assert_eq!(error.code(), Code::SandboxTmuxSessionNotFound);
    Ok(())
}

/// P2-16: nobody stopped what nobody used.
#[tokio::test]
async fn a_sandbox_that_nobody_uses_is_stopped_and_one_with_a_command_is_not() -> Result<()> {
    let engine = Engine::start()?;
    let ahead = Arc::new(AtomicI64::new(0));
    let passed = ahead.clone();
    let clock =
        Clock::of(move || jiff::Timestamp::now() + jiff::SignedDuration::from_secs(passed.load(Ordering::Relaxed)));
    let options = DockerOptions { clock, idle_interval: Duration::from_millis(20), ..options(&engine) };
    let provider = DockerProvider::connect(options).await?;
    let folder = tempfile::tempdir()?;
    let config = |project: &str| SandboxConfig {
        image: "busybox:1.36".into(),
        idle_timeout_minutes: 1,
        ..SandboxConfig::new(project, folder.path())
    };
    let (idle, busy) = (provider.create(&config("idle")).await?, provider.create(&config("busy")).await?);
    let running = busy.exec_stream(ExecOptions::new("sleep", ["600"])).await?;
    let mut events = provider.events();
    ahead.store(61, Ordering::Relaxed);
    reaches(&*idle, SandboxStatus::Idle).await?;
    let told = loop {
        if let SandboxEvent::Idle { sandbox_id, .. } = tokio::time::timeout(SOON, events.recv()).await?? {
            break sandbox_id;
        }
    };
    assert_eq!(told, idle.id());
    assert_eq!(busy.status(), SandboxStatus::Running);
    running.handle.kill().await?;
    Ok(())
}

/// P2-14: what happens below is seen above.
#[tokio::test]
async fn a_container_that_somebody_ends_is_noticed_and_its_commands_end() -> Result<()> {
    let engine = Engine::start()?;
    let (provider, sandbox, _folder) = one(&engine, "ended").await?;
    let mut events = provider.events();
    let running = sandbox.exec_stream(ExecOptions::new("sleep", ["600"])).await?;
    engine.kill(&sandbox.container_id());
    reaches(&*sandbox, SandboxStatus::Stopped).await?;
    let event = tokio::time::timeout(SOON, events.recv()).await??;
    assert_eq!(event, SandboxEvent::Stopped { sandbox_id: sandbox.id().into() });
    assert!(tokio::time::timeout(SOON, running.handle.wait()).await?.is_ok_and(|end| end.exit_code > 128));
    Ok(())
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back_is_said_so_and_found_again() -> Result<()> {
    let engine = Engine::start()?;
    let (provider, sandbox, _folder) = one(&engine, "lost").await?;
    let running = sandbox.exec_stream(ExecOptions::new("sleep", ["600"])).await?;
    engine.stop();
    let error = tokio::time::timeout(SOON, running.handle.wait()).await?.err().context("its connection is lost")?;
    assert_eq!(error.code(), Code::ExecConnectionFailed, "{error}");
    let health = provider.health_check().await;
    assert!(!health.healthy && health.rows[0].advice.is_some(), "{health:?}");
    let error = provider.list().await.err().context("nobody answers")?;
    assert_eq!((error.code(), error.status()), (Code::DockerNotRunning, 503), "{error}");
    let error = DockerProvider::connect(options(&engine)).await.err().context("nobody answers")?;
    assert_eq!(error.code(), Code::DockerNotRunning, "{error}");
    engine.listen()?;
    assert_eq!(provider.get("lost").await?.context("it is there still")?.id(), sandbox.id());
    assert_eq!(sandbox.exec(ExecOptions::new("echo", ["back"])).await?.stdout, "back");
    Ok(())
}

#[tokio::test]
async fn a_project_that_is_nowhere_is_no_workspace() -> Result<()> {
    let engine = Engine::start()?;
    let provider = DockerProvider::connect(options(&engine)).await?;
    let config = SandboxConfig { image: "busybox:1.36".into(), ..SandboxConfig::new("nowhere", "/no/such/folder") };
    let error = provider.create(&config).await.err().context("no folder")?;
    assert_eq!(error.code(), Code::VolumeMountFailed, "{error}");
    assert!(error.message().contains("/no/such/folder") && engine.containers().is_empty());
    Ok(())
}

#[tokio::test]
async fn what_is_no_engine_is_told_apart_from_one_that_refuses() -> Result<()> {
    let server = MockServer::start().await;
    let host = server.uri().replace("http://", "tcp://");
    let connect = || DockerProvider::connect(DockerOptions { host: Some(host.clone()), ..DockerOptions::default() });
    let html = ResponseTemplate::new(200).set_body_string("<html>");
    Mock::given(matchers::path("/v1.53/version")).respond_with(html).mount(&server).await;
    Mock::given(matchers::path("/version"))
        .respond_with(ResponseTemplate::new(200).set_body_string("<html>"))
        .mount(&server)
        .await;
    let error = connect().await.err().context("a web page")?;
    assert_eq!(error.code(), Code::ProviderNotAvailable, "{error}");
    server.reset().await;

    let version = json!({"Version": "28.0.0", "ApiVersion": "1.47"});
    Mock::given(matchers::path_regex("version$"))
        .respond_with(ResponseTemplate::new(200).set_body_json(version))
        .mount(&server)
        .await;
    let broken = ResponseTemplate::new(500).set_body_json(json!({"message": "disk is full"}));
    Mock::given(matchers::path_regex("/containers/json$")).respond_with(broken).mount(&server).await;
    let error = connect().await.err().context("a broken engine")?;
    assert!(error.message().contains("disk is full"), "{error}");
    Ok(())
}
