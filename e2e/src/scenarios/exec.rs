//! Commands in a sandbox: what they print, how they end, what they leave.

use std::time::Duration;

use agent_sandbox_sdk::{
    ExecOptions, Execution, Output, Signal,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec, VolumeClaimMetadata, VolumeClaimTemplate},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::core::v1::{Container, PersistentVolumeClaimSpec, PodSpec, VolumeMount, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::Skip;
use crate::World;

const NAME: &str = "box";

/// A sandbox that waits, Ready; with a volume at `/data` if wanted.
pub(super) async fn ready(world: &World, volume: bool) -> Result<Sandbox> {
    let mount = VolumeMount { name: "data".into(), mount_path: "/data".into(), ..Default::default() };
    let main = Container {
        name: "main".into(),
        image: Some(world.image().into()),
        command: Some(["sh", "-c", "sleep infinity"].map(Into::into).into()),
        volume_mounts: volume.then(|| vec![mount]),
        ..Default::default()
    };
    let pod = PodSpec { containers: vec![main], termination_grace_period_seconds: Some(1), ..Default::default() };
    let storage = [("storage".to_owned(), Quantity("1Gi".into()))].into();
    let claim = VolumeClaimTemplate {
        metadata: Some(VolumeClaimMetadata { name: Some("data".into()), ..Default::default() }),
        spec: PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            resources: Some(VolumeResourceRequirements { requests: Some(storage), ..Default::default() }),
            ..Default::default()
        },
    };
    let spec = SandboxSpec {
        pod_template: PodTemplate::of(pod),
        volume_claim_templates: volume.then(|| vec![claim]),
        ..Default::default()
    };
    world.step("a sandbox is made");
    world.sandboxes().create(&Sandbox::new(NAME, spec)).await?;
    let ready = world.sandboxes().wait_ready(NAME, world.deadline()).await?;
    world.step("it is Ready");
    Ok(ready)
}

/// What a command prints, how it ends, and that words reach it as they are.
///
/// # Errors
/// At the first command that answers another way.
pub(super) async fn commands_answer_with_their_streams_and_codes(world: &World) -> Result<()> {
    ready(world, false).await?;
    let script = |text: &str| vec!["sh".to_owned(), "-c".into(), text.into()];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let cases = [
        ("output", words(&["echo", "hello"]), "hello\n", "", 0),
        ("an exit code", script("exit 42"), "", "", 42),
        ("errors", script("echo wrong >&2"), "", "wrong\n", 0),
        ("many lines", script("echo one; echo two; echo; echo four"), "one\ntwo\n\nfour\n", "", 0),
        ("double quotes", words(&["echo", r#"say "hello" & <go>"#]), "say \"hello\" & <go>\n", "", 0),
        ("single quotes", script(r#"echo 'it'"'"'s $HOME'"#), "it's $HOME\n", "", 0),
        ("a word with spaces", words(&["sh", "-c", r#"echo "$#:$1:$2""#, "sh", "a b", ""]), "2:a b:\n", "", 0),
        ("letters of all kinds", words(&["echo", "naïve café 漢字 ✓"]), "naïve café 漢字 ✓\n", "", 0),
        ("both and a code", script("echo out; echo err >&2; exit 3"), "out\n", "err\n", 3),
    ];
    for (what, command, stdout, stderr, code) in cases {
        world.step(what);
        let output = world.sandboxes().exec(NAME, command).await.context(what)?;
        let found = (output.stdout_text().into_owned(), output.stderr_text().into_owned(), output.exit_code);
        ensure!(found == (stdout.to_owned(), stderr.to_owned(), code), "{what}: {found:?}");
    }

    world.step("input, a folder and a variable");
    let options = ExecOptions {
        stdin: Some(b"first\nsecond\n".to_vec()),
        cwd: Some("/tmp".into()),
        env: [("WHO".to_owned(), "it's \"me\"".to_owned())].into(),
        ..Default::default()
    };
    let output = world.sandboxes().exec_with(NAME, script("cat; pwd; echo \"$WHO\""), options).await?;
    ensure!(output.stdout_text() == "first\nsecond\n/tmp\nit's \"me\"\n", "{output:?}");

    world.step("a program that is not there");
    let missing = world.sandboxes().exec(NAME, ["no-such-program"]).await;
    let failed = match &missing {
        Ok(output) => output.exit_code != 0,
        Err(_) => true,
    };
    ensure!(failed, "{missing:?}");
    Ok(())
}

/// An endless loop, of which some has been read.
async fn endless(world: &World) -> Result<Execution> {
    ready(world, false).await?;
    let script = "echo begun >&2; while true; do echo tick; sleep 0.1; done";
    world.step("an endless loop begins");
    let mut running = world.sandboxes().start(NAME, ["sh", "-c", script], ExecOptions::default()).await?;
    let (mut ticks, mut begun) = (0, false);
    while ticks < 3 || !begun {
        match running.next().await?.context("the loop goes on")? {
            Output::Stdout(bytes) => ticks += String::from_utf8_lossy(&bytes).matches("tick").count(),
            Output::Stderr(bytes) => begun |= String::from_utf8_lossy(&bytes).contains("begun"),
        }
    }
    Ok(running)
}

async fn still_answers(world: &World) -> Result<()> {
    world.step("the sandbox goes on");
    let output = world.sandboxes().exec(NAME, ["echo", "here"]).await?;
    ensure!(output.stdout_text() == "here\n", "{output:?}");
    Ok(())
}

/// Output is read while the command runs; to turn away from one that never ends does not hang.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn output_comes_while_an_endless_command_runs_and_leaving_it_does_not_hang(
    world: &World,
) -> Result<()> {
    let running = endless(world).await?;
    world.step("nobody listens any more");
    drop(running);
    still_answers(world).await
}

/// An endless command is killed, and its end says so.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn an_endless_command_is_killed_and_says_how_it_ended(world: &World) -> Result<()> {
    let running = endless(world).await?;
    world.step("it is killed");
    ensure!(running.kill(Signal::Kill).await?, "there is something to kill");
    let ended = tokio::time::timeout(Duration::from_secs(15), running.wait()).await;
    let end = ended.context("the end of a killed command does not come")??;
    ensure!(end.signal() == Some(9), "{end:?}");
    still_answers(world).await
}

/// Bytes go into a file and come back as they were.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn files_go_in_and_come_out_as_they_were(world: &World) -> Result<()> {
    ready(world, false).await?;
    let text = "lines\nof 'text' and \"more\" $HOME\n".repeat(2000).into_bytes();
    for (path, content) in [("/tmp/text", text), ("/tmp/an empty one", Vec::new())] {
        world.step(format!("{path}, {} bytes", content.len()));
        world.sandboxes().write_file(NAME, path, content.clone()).await?;
        let read = world.sandboxes().read_file(NAME, path, 1 << 20).await?;
        ensure!(read == content, "{path} has {} bytes, not {}", read.len(), content.len());
    }
    world.step("one that is not there");
    let missing = world.sandboxes().read_file(NAME, "/tmp/none", 1 << 20).await;
    ensure!(missing.is_err(), "{missing:?}");
    Ok(())
}

/// Suspended and resumed: files on a volume stay, those beside it and processes do not.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_suspended_sandbox_keeps_the_files_of_its_volumes_and_nothing_else(world: &World) -> Result<()> {
    ready(world, true).await?;
    let sandboxes = world.sandboxes();
    sandboxes.write_file(NAME, "/data/kept", b"kept".to_vec()).await?;
    sandboxes.write_file(NAME, "/tmp/lost", b"lost".to_vec()).await?;
    for cycle in 1..=2 {
        world.step(format!("suspended, the {cycle}. time"));
        sandboxes.suspend(NAME).await?;
        sandboxes.wait_suspended(NAME, world.deadline()).await?;
        ensure!(sandboxes.exec(NAME, ["true"]).await.is_err(), "nothing runs in a suspended sandbox");
        world.step(format!("resumed, the {cycle}. time"));
        sandboxes.resume(NAME).await?;
        sandboxes.wait_ready(NAME, world.deadline()).await?;
        let kept = sandboxes.read_file(NAME, "/data/kept", 100).await?;
        ensure!(kept == b"kept", "{kept:?}");
        ensure!(sandboxes.read_file(NAME, "/tmp/lost", 100).await.is_err(), "what is on no volume is gone");
    }
    Ok(())
}

/// Sessions of tmux, as agents use them.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn sessions_of_tmux_are_made_written_to_read_and_ended(world: &World) -> Result<()> {
    ready(world, false).await?;
    let sandboxes = world.sandboxes();
    let tmux = async |words: &[&str]| -> Result<(String, i32)> {
        let command: Vec<&str> = ["tmux"].iter().chain(words).copied().collect();
        let output = sandboxes.exec(NAME, command).await?;
        Ok((output.stdout_text().into_owned(), output.exit_code))
    };
    let there = sandboxes.exec(NAME, ["sh", "-c", "command -v tmux"]).await?;
    if !there.success() {
        return Err(Skip(format!("the image {} has no tmux", world.image())).into());
    }
    let list = ["list-sessions", "-F", "#{session_name}"];
    world.step("no session yet");
    let (names, _) = tmux(&list).await?;
    ensure!(names.is_empty(), "{names:?}");
    world.step("a session is made");
    let (_, code) = tmux(&["new-session", "-d", "-s", "work", "-x", "80", "-y", "24", "sh"]).await?;
    ensure!(code == 0, "tmux new-session ended with {code}");
    let (names, _) = tmux(&list).await?;
    ensure!(names == "work\n", "{names:?}");
    world.step("keys are sent, and the screen is read");
    tmux(&["send-keys", "-t", "work", "echo $((6*7))-is-it", "Enter"]).await?;
    let mut screen = String::new();
    for _ in 0..100 {
        screen = tmux(&["capture-pane", "-p", "-t", "work"]).await?.0;
        if screen.contains("42-is-it") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // the screen tells nobody when it changes
    }
    ensure!(screen.contains("42-is-it"), "{screen}");
    world.step("it is ended, and ending it again harms nobody");
    tmux(&["kill-session", "-t", "work"]).await?;
    let (names, _) = tmux(&list).await?;
    ensure!(names.is_empty(), "{names:?}");
    tmux(&["kill-session", "-t", "work"]).await?;
    Ok(())
}
