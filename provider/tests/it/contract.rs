//! One suite of behaviours that every provider must have, and the targets that it runs on.

use std::{sync::Arc, time::Duration};

use agent_sandbox_provider::{
    CleanupFilter, Code, Error, ExecOptions, Sandbox, SandboxConfig, SandboxEvent, SandboxProvider, SandboxStatus,
    StopReason,
};
use anyhow::{Context, Result, ensure};
use tokio::{io::AsyncReadExt, sync::broadcast};

/// How long a condition may take; in virtual time it costs nothing.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A machine with sandboxes, and applications on it.
pub(crate) struct World {
    /// An application on the machine; two are as two processes.
    pub(crate) application: Box<dyn Fn() -> Arc<dyn SandboxProvider> + Send + Sync>,
    /// Where projects lie on the application's machine.
    pub(crate) projects: tempfile::TempDir,
    /// An image that is there, with a shell.
    pub(crate) image: String,
    /// An image that is nowhere.
    pub(crate) absent_image: String,
    /// Whether signals reach processes here.
    pub(crate) has_signals: bool,
}

impl World {
    pub(crate) fn config(&self, project: &str) -> SandboxConfig {
        let path = self.projects.path().join(project);
        std::fs::create_dir_all(&path).expect("a folder for the project");
        SandboxConfig { image: self.image.clone(), ..SandboxConfig::new(project, path) }
    }
}

fn sh(script: &str) -> ExecOptions {
    ExecOptions::new("sh", ["-c", script])
}

/// Waits until the sandbox has the status.
pub(crate) async fn reaches(sandbox: &dyn Sandbox, status: SandboxStatus) -> Result<()> {
    let waited = tokio::time::timeout(SOON, async {
        while sandbox.status() != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.with_context(|| format!("it is {:?}, not {status:?}", sandbox.status()))
}

async fn next(events: &mut broadcast::Receiver<SandboxEvent>) -> Result<SandboxEvent> {
    Ok(tokio::time::timeout(SOON, events.recv()).await.context("no event")??)
}

fn word(event: &SandboxEvent) -> String {
    let json = serde_json::to_value(event).expect("an event is JSON");
    json["type"].as_str().unwrap_or_default().trim_start_matches("sandbox:").to_owned()
}

fn is_taken(error: &Error) -> bool {
    matches!(error.code(), Code::PodAlreadyExists | Code::ContainerAlreadyExists) && error.status() == 409
}

pub(crate) async fn a_sandbox_that_was_made_runs_commands_and_is_found(world: &World) -> Result<()> {
    let provider = (world.application)();
    let config = world.config("found");
    let sandbox = provider.create(&config).await?;
    assert_eq!((sandbox.project_id(), sandbox.status()), ("found", SandboxStatus::Running));
    let output = sandbox.exec(ExecOptions::new("echo", ["hello"])).await?;
    assert_eq!((output.exit_code, output.stdout.as_str(), output.stderr.as_str()), (0, "hello", ""));
    let found = provider.get("found").await?.context("by project")?;
    assert_eq!(found.id(), sandbox.id());
    let found = provider.get_by_id(sandbox.id()).await?.context("by id")?;
    assert_eq!(found.container_id(), sandbox.container_id());
    assert!(provider.get("another").await?.is_none() && provider.get_by_id("another").await?.is_none());
    let list = provider.list().await?;
    let info = list.iter().find(|info| info.id == sandbox.id()).context("in the list")?;
    assert_eq!((info.memory_mb, info.cpu_cores, info.image.as_str()), (4096, 2.0, world.image.as_str()));
    assert_eq!((info.project_id.as_str(), info.status), ("found", SandboxStatus::Running));
    Ok(())
}

/// P2-15: the predecessor looked first and acted then.
pub(crate) async fn of_two_creations_at_once_one_is_refused(world: &World) -> Result<()> {
    let (one, other) = ((world.application)(), (world.application)());
    let config = world.config("race");
    for (a, b) in [(&one, &one), (&one, &other)] {
        let (first, second) = tokio::join!(a.create(&config), b.create(&config));
        let (made, refused) = match (first, second) {
            (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
            (Ok(_), Ok(_)) => anyhow::bail!("the project has two sandboxes"),
            (Err(first), Err(second)) => anyhow::bail!("none was made: {first}; {second}"),
        };
        assert!(is_taken(&refused), "{:?}: {refused}", refused.code());
        let late = a.create(&config).await.err().context("it runs already")?;
        assert!(is_taken(&late), "{late}");
        assert_eq!(made.status(), SandboxStatus::Running, "the refused one has taken nothing with it");
        assert_eq!(made.exec(ExecOptions::new("echo", ["here"])).await?.stdout, "here");
        made.stop(StopReason::Manual).await?;
    }
    Ok(())
}

/// P1-4: the predecessor's registry was its memory.
pub(crate) async fn a_restarted_application_finds_what_was_made(world: &World) -> Result<()> {
    let before = (world.application)();
    let made = before.create(&world.config("recovered")).await?;
    before.shutdown().await;
    drop(before);
    let after = (world.application)();
    let found = after.get("recovered").await?.context("by project")?;
    assert_eq!((found.id(), found.container_id()), (made.id(), made.container_id()));
    assert_eq!(found.status(), SandboxStatus::Running);
    assert_eq!(found.exec(sh("echo again")).await?.stdout, "again");
    let refused = after.create(&world.config("recovered")).await.err().context("it runs already")?;
    assert!(is_taken(&refused), "{refused}");
    Ok(())
}

/// P2-1, P2-2 and P2-20: folder, environment and input arrive, and neither stands where others read it.
pub(crate) async fn a_command_gets_folder_environment_and_input(world: &World) -> Result<()> {
    let provider = (world.application)();
    let mut config = world.config("commands");
    config.env.insert("FROM_SANDBOX".into(), "its own".into());
    let sandbox = provider.create(&config).await?;
    let mut options = sh("cat > note.txt; echo \"$TOKEN|$FROM_SANDBOX\"; cat note.txt; echo bad >&2; exit 7");
    options.cwd = Some("/workspace".into());
    options.env.insert("TOKEN".into(), "it's a \"s3cr3t\" with\ntwo lines".into());
    options.stdin = Some("ünïcode".into());
    assert!(!format!("{options:?}").contains("s3cr3t"));
    let output = sandbox.exec(options).await?;
    assert_eq!(output.stdout, "it's a \"s3cr3t\" with\ntwo lines|its own\nünïcode");
    assert_eq!((output.stderr.as_str(), output.exit_code), ("bad", 7));
    let mut options = ExecOptions::new("cat", ["note.txt"]);
    options.cwd = Some("/workspace".into());
    assert_eq!(sandbox.exec(options).await?.stdout, "ünïcode", "the workspace is one, and can be written to");
    let output = sandbox.exec(ExecOptions::new("no-such-program", ["x"])).await?;
    assert!(output.exit_code == 126 || output.exit_code == 127, "{output:?}");
    // Input that nobody reads holds nothing up.
    let options = ExecOptions { stdin: Some(vec![b'x'; 1 << 20]), ..ExecOptions::new("true", [""; 0]) };
    assert_eq!(sandbox.exec(options).await?.exit_code, 0);
    Ok(())
}

pub(crate) async fn a_command_that_takes_too_long_is_ended(world: &World) -> Result<()> {
    let provider = (world.application)();
    let sandbox = provider.create(&world.config("slow")).await?;
    let mut options = sh("echo started; sleep 600");
    options.timeout = Some(Duration::from_millis(300));
    let error = sandbox.exec(options).await.err().context("it took too long")?;
    assert_eq!(error.status(), 408, "{error}");
    assert!(matches!(error.code(), Code::ExecTimeout | Code::SandboxExecTimeout));
    assert_eq!(sandbox.exec(sh("echo still here")).await?.stdout, "still here");
    Ok(())
}

/// P2-4 and P2-5: the predecessor's wait settled only if it was asked in time.
pub(crate) async fn a_stream_is_read_as_it_comes_and_its_end_is_known_late_and_twice(world: &World) -> Result<()> {
    let provider = (world.application)();
    let sandbox = provider.create(&world.config("streams")).await?;
    let mut stream = sandbox.exec_stream(sh("echo first; echo oops >&2; sleep 0.2; echo second; exit 3")).await?;
    let mut first = [0; 6];
    stream.stdout.read_exact(&mut first).await?;
    assert_eq!(&first, b"first\n");
    let (mut rest, mut errors) = (String::new(), String::new());
    tokio::try_join!(stream.stdout.read_to_string(&mut rest), stream.stderr.read_to_string(&mut errors))?;
    assert_eq!((rest.as_str(), errors.as_str()), ("second\n", "oops\n"));
    assert_eq!(stream.handle.wait().await?.exit_code, 3);
    assert_eq!(stream.handle.wait().await?.exit_code, 3);
    stream.handle.kill().await?;
    // Nobody reads this one, and it ends all the same.
    let stream = sandbox.exec_stream(sh("seq 1 1000; exit 4")).await?;
    assert_eq!(tokio::time::timeout(SOON, stream.handle.wait()).await??.exit_code, 4);
    Ok(())
}

/// P2-3 and P2-4: the predecessor closed the connection, the process ran on, and the wait hung.
pub(crate) async fn a_killed_command_ends_with_all_that_it_started(world: &World) -> Result<()> {
    let provider = (world.application)();
    let sandbox = provider.create(&world.config("killed")).await?;
    let script = "(while true; do echo x >> beats; sleep 0.05; done) & echo started; wait; sleep 600";
    let mut options = sh(script);
    options.cwd = Some("/workspace".into());
    let mut stream = sandbox.exec_stream(options).await?;
    let mut started = [0; 8];
    stream.stdout.read_exact(&mut started).await?;
    let waiting = tokio::spawn({
        let handle = stream.handle.clone();
        async move { handle.wait().await }
    });
    stream.handle.kill().await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ends = async { tokio::try_join!(stream.stdout.read_to_end(&mut out), stream.stderr.read_to_end(&mut err)) };
    tokio::time::timeout(SOON, ends).await.context("the outputs have not ended")??;
    let code = tokio::time::timeout(SOON, waiting).await.context("the wait has not ended")???.exit_code;
    assert!(code > 128, "{code}");
    if world.has_signals {
        let beats = || async {
            let mut options = sh("wc -l < beats");
            options.cwd = Some("/workspace".into());
            sandbox.exec(options).await
        };
        let before = beats().await?.stdout;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(beats().await?.stdout, before, "what it had started runs on");
    }
    Ok(())
}

pub(crate) async fn a_stopped_sandbox_is_made_again_on_its_workspace(world: &World) -> Result<()> {
    let provider = (world.application)();
    let config = world.config("again");
    let first = provider.create(&config).await?;
    let mut write = sh("echo kept > file");
    write.cwd = Some("/workspace".into());
    first.exec(write).await?;
    first.stop(StopReason::Manual).await?;
    reaches(&*first, SandboxStatus::Stopped).await?;
    first.stop(StopReason::Manual).await?;
    let error = first.exec(sh("true")).await.err().context("it does not run")?;
    assert!(matches!(error.code(), Code::PodNotRunning | Code::ContainerNotRunning), "{error}");
    assert_eq!(provider.get("again").await?.context("it is there still")?.status(), SandboxStatus::Stopped);

    let second = provider.create(&config).await?;
    assert_ne!(second.id(), first.id());
    let mut read = ExecOptions::new("cat", ["file"]);
    read.cwd = Some("/workspace".into());
    assert_eq!(second.exec(read).await?.stdout, "kept");
    assert_eq!((first.status(), second.status()), (SandboxStatus::Stopped, SandboxStatus::Running));
    assert!(first.exec(sh("true")).await.is_err(), "the old one's name is the new one's now");
    assert!(provider.get_by_id(first.id()).await?.is_none());
    let of_project = provider.list().await?.into_iter().filter(|info| info.project_id == "again").count();
    assert_eq!(of_project, 1);
    Ok(())
}

pub(crate) async fn listeners_hear_of_each_step_once(world: &World) -> Result<()> {
    let provider = (world.application)();
    let mut events = provider.events();
    let sandbox = provider.create(&world.config("heard")).await?;
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("started") {
        told.push(word(&next(&mut events).await?));
    }
    assert_eq!(told, ["creating", "created", "starting", "started"]);
    sandbox.stop(StopReason::IdleTimeout).await?;
    let stopping = next(&mut events).await?;
    let wanted = SandboxEvent::Stopping { sandbox_id: sandbox.id().into(), reason: StopReason::IdleTimeout };
    assert_eq!(stopping, wanted);
    let idle = next(&mut events).await?;
    assert!(matches!(&idle, SandboxEvent::Idle { sandbox_id, .. } if sandbox_id == sandbox.id()), "{idle:?}");
    assert_eq!(sandbox.status(), SandboxStatus::Idle);
    let filter = CleanupFilter { status: vec![SandboxStatus::Idle], ..CleanupFilter::default() };
    assert_eq!(provider.cleanup(&filter).await?, 1);
    assert_eq!(word(&next(&mut events).await?), "stopped");
    assert!(events.try_recv().is_err());
    Ok(())
}

pub(crate) async fn cleaning_up_takes_what_the_filter_selects_and_no_more(world: &World) -> Result<()> {
    let provider = (world.application)();
    let all = [SandboxStatus::Stopped, SandboxStatus::Idle, SandboxStatus::Error, SandboxStatus::Running];
    provider.cleanup(&CleanupFilter { status: all.into(), ..CleanupFilter::default() }).await?;
    let stopped = provider.create(&world.config("old")).await?;
    let running = provider.create(&world.config("busy")).await?;
    stopped.stop(StopReason::Manual).await?;
    let older = |since| CleanupFilter { older_than: Some(since), ..CleanupFilter::default() };
    assert_eq!(provider.cleanup(&older(jiff::Timestamp::UNIX_EPOCH)).await?, 0, "it was used since");
    // Another application cleans up what this one made.
    assert_eq!((world.application)().cleanup(&CleanupFilter::default()).await?, 1);
    let gone = tokio::time::timeout(SOON, async {
        while provider.get("old").await?.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Error>(())
    });
    gone.await.context("it is listed still")??;
    assert_eq!(stopped.status(), SandboxStatus::Stopped);
    assert_eq!(running.exec(sh("echo untouched")).await?.stdout, "untouched");
    // Its name and its volume are free again.
    let anew = provider.create(&world.config("old")).await?;
    assert_eq!(anew.exec(sh("echo new")).await?.stdout, "new");
    let all = CleanupFilter { status: vec![SandboxStatus::Running], ..CleanupFilter::default() };
    ensure!(provider.cleanup(&all).await? >= 2, "running ones go too, if asked for");
    Ok(())
}

/// P2-15: what did not become ready stayed on the cluster.
pub(crate) async fn a_creation_that_nobody_waits_for_leaves_nothing(world: &World) -> Result<()> {
    let provider = (world.application)();
    let config = world.config("dropped");
    for pause in [0, 1, 5, 20] {
        let creation = provider.create(&config);
        // However far it has come.
        let _ = tokio::time::timeout(Duration::from_millis(pause), creation).await;
    }
    provider.shutdown().await;
    let after = (world.application)();
    let left: Vec<_> = after.list().await?.into_iter().filter(|info| info.project_id == "dropped").collect();
    let running = left.iter().filter(|info| !info.status.can_be_remade()).count();
    assert!(running == 0 || left.len() == 1, "{left:?}");
    if running == 0 {
        assert_eq!(after.create(&config).await?.exec(sh("echo ok")).await?.stdout, "ok");
    }
    Ok(())
}

pub(crate) async fn what_cannot_be_made_is_refused_with_reasons(world: &World) -> Result<()> {
    let provider = (world.application)();
    let mut events = provider.events();
    let config = SandboxConfig { memory_mb: 0, ..world.config("refused") };
    let error = provider.create(&config).await.err().context("no memory")?;
    assert_eq!((error.code(), error.status()), (Code::ResourceLimitExceeded, 400));
    let config = SandboxConfig { cpu_cores: f64::NAN, ..world.config("refused") };
    assert_eq!(provider.create(&config).await.err().context("no processor")?.code(), Code::ResourceLimitExceeded);
    let config = SandboxConfig { image: world.absent_image.clone(), ..world.config("refused") };
    let error = provider.create(&config).await.err().context("no image")?;
    assert!(matches!(error.code(), Code::ImageNotFound | Code::SandboxImageNotFound), "{:?}: {error}", error.code());
    assert!(error.message().contains(&world.absent_image), "{error}");
    let last = loop {
        let event = next(&mut events).await?;
        if let SandboxEvent::Error { code, .. } = &event {
            break code.clone();
        }
    };
    assert_eq!(last, error.code().as_str());
    let left: Vec<_> = provider.list().await?.into_iter().filter(|info| info.project_id == "refused").collect();
    assert!(left.is_empty(), "it left {left:?}");
    let made = provider.create(&world.config("refused")).await?;
    assert_eq!(made.status(), SandboxStatus::Running, "and is in nobody's way");
    Ok(())
}

pub(crate) async fn health_has_rows_and_metrics_have_no_invented_numbers(world: &World) -> Result<()> {
    let provider = (world.application)();
    // What is being started is not well yet.
    let well = async {
        while !provider.health_check().await.healthy {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let well = tokio::time::timeout(SOON, well).await;
    let health = provider.health_check().await;
    assert!(well.is_ok() && health.message.is_none(), "{health:#?}");
    assert!(!health.rows.is_empty() && health.rows.iter().all(|row| row.ok && !row.found.is_empty()), "{health:#?}");
    let sandbox = provider.create(&world.config("measured")).await?;
    let metrics = sandbox.metrics().await?;
    assert_eq!(metrics.memory_limit_mb, Some(4096.0));
    assert!(metrics.disk_usage_mb.is_none(), "nobody has measured it");
    let before = sandbox.last_activity();
    tokio::time::sleep(Duration::from_millis(5)).await;
    sandbox.touch();
    assert!(sandbox.last_activity() >= before);
    provider.pull_image(&world.image).await?;
    assert!(provider.pull_image(&world.absent_image).await.is_err());
    assert!(!provider.is_image_available(&world.absent_image).await?);
    Ok(())
}

/// The tests of one target. Each starts a world of its own.
macro_rules! behaviours {
    ($(#[$test:meta])* $world:path) => {
        behaviours!(@each [$(#[$test])*] $world:
            a_sandbox_that_was_made_runs_commands_and_is_found,
            of_two_creations_at_once_one_is_refused,
            a_restarted_application_finds_what_was_made,
            a_command_gets_folder_environment_and_input,
            a_command_that_takes_too_long_is_ended,
            a_stream_is_read_as_it_comes_and_its_end_is_known_late_and_twice,
            a_killed_command_ends_with_all_that_it_started,
            a_stopped_sandbox_is_made_again_on_its_workspace,
            a_creation_that_nobody_waits_for_leaves_nothing,
            what_cannot_be_made_is_refused_with_reasons,
            health_has_rows_and_metrics_have_no_invented_numbers;
            listeners_hear_of_each_step_once,
            cleaning_up_takes_what_the_filter_selects_and_no_more,
        );
    };
    (@each $attributes:tt $world:path: $($name:ident),+; $($alone:ident,)+) => {
        $(behaviours!(@one $attributes $world, $name);)+
        $(behaviours!(@one $attributes $world, $alone);)+

        /// All of them in one world: at once, but for those that are about all sandboxes there are.
        #[allow(dead_code, reason = "a target has one test for each, or one for all")]
        pub(crate) async fn all(world: &$crate::contract::World) -> anyhow::Result<()> {
            use anyhow::Context;
            let together: Vec<futures::future::LocalBoxFuture<'_, anyhow::Result<()>>> =
                vec![$(Box::pin(async { $crate::contract::$name(world).await.context(stringify!($name)) })),+];
            futures::future::try_join_all(together).await?;
            $($crate::contract::$alone(world).await.context(stringify!($alone))?;)+
            Ok(())
        }
    };
    (@one [] $world:path, $name:ident) => {};
    (@one [$(#[$test:meta])+] $world:path, $name:ident) => {
        $(#[$test])+
        async fn $name() -> anyhow::Result<()> {
            let (world, _machine) = $world().await?;
            $crate::contract::$name(&world).await
        }
    };
}
pub(crate) use behaviours;
