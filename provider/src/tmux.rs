//! tmux in a sandbox: its commands and what they answer. The same for every provider.
//!
//! A task's id is kept in an option of the session, so that a list tells it also after a restart of the application.

use jiff::Timestamp;

use crate::{Code, Error, ExecOptions, ExecOutput, Sandbox, TmuxSession};

/// The session option that holds the task's id.
const TASK: &str = "@agentpane-task-id";

/// What is asked of each session. A session's name holds no colon: tmux forbids it.
const FORMAT: &str = "#{session_windows}:#{session_attached}:#{session_created}:#{session_name}:#{@agentpane-task-id}";

pub(crate) async fn create<S: Sandbox + ?Sized>(
    sandbox: &S,
    name: &str,
    task_id: Option<&str>,
) -> Result<TmuxSession, Error> {
    let failed = |why: &str| {
        let message = format!("tmux session {name:?} was not made: {why}");
        Error::new(Code::SandboxTmuxCreationFailed, message).with("sessionName", name)
    };
    check(name).map_err(|why| failed(&why))?;
    let target = pane(name);
    let mut args = vec!["new-session", "-d", "-s", name];
    if let Some(task_id) = task_id {
        args.extend([";", "set-option", "-t", &target, TASK, task_id]);
    }
    let output = run(sandbox, &args).await?;
    if output.exit_code != 0 {
        if output.stderr.contains("duplicate session") {
            let message = format!("there is a tmux session {name:?} already");
            return Err(Error::new(Code::SandboxTmuxSessionExists, message).with("sessionName", name));
        }
        return Err(failed(&output.stderr));
    }
    let sessions = list(sandbox).await?;
    sessions.into_iter().find(|session| session.name == name).ok_or_else(|| failed("it ended at once"))
}

pub(crate) async fn list<S: Sandbox + ?Sized>(sandbox: &S) -> Result<Vec<TmuxSession>, Error> {
    let output = run(sandbox, &["list-sessions", "-F", FORMAT]).await?;
    if output.exit_code != 0 {
        return if is_down(&output.stderr) { Ok(Vec::new()) } else { Err(refused("list-sessions", &output)) };
    }
    Ok(parse(&output.stdout, sandbox.id()))
}

pub(crate) async fn kill<S: Sandbox + ?Sized>(sandbox: &S, name: &str) -> Result<(), Error> {
    let output = run(sandbox, &["kill-session", "-t", &exact(name)]).await?;
    if output.exit_code == 0 || is_absent(&output.stderr) { Ok(()) } else { Err(refused("kill-session", &output)) }
}

pub(crate) async fn send_keys<S: Sandbox + ?Sized>(sandbox: &S, name: &str, keys: &str) -> Result<(), Error> {
    let output = run(sandbox, &["send-keys", "-t", &pane(name), "--", keys, "Enter"]).await?;
    about_session("send-keys", name, output).map(|_| ())
}

pub(crate) async fn capture<S: Sandbox + ?Sized>(sandbox: &S, name: &str, lines: u32) -> Result<String, Error> {
    let start = format!("-{lines}");
    let output = run(sandbox, &["capture-pane", "-t", &pane(name), "-p", "-S", &start]).await?;
    about_session("capture-pane", name, output).map(|output| output.stdout)
}

async fn run<S: Sandbox + ?Sized>(sandbox: &S, args: &[&str]) -> Result<ExecOutput, Error> {
    sandbox.exec(ExecOptions::new("tmux", args.iter().copied())).await
}

/// The session of just this name; without the sign, tmux takes one whose name begins so.
fn exact(name: &str) -> String {
    format!("={name}")
}

/// The current pane of the session.
fn pane(name: &str) -> String {
    format!("={name}:")
}

/// tmux would change such names without a word, and then not find them.
fn check(name: &str) -> Result<(), String> {
    if name.is_empty() || name.starts_with(['-', '=', '@', '$', '%']) {
        return Err("a name begins with a letter, a digit or an underscore".into());
    }
    match name.chars().find(|c| matches!(c, ':' | '.') || c.is_control()) {
        Some(bad) => Err(format!("a name has no {bad:?}")),
        None => Ok(()),
    }
}

fn is_down(stderr: &str) -> bool {
    ["no server running", "no sessions", "error connecting to", "server exited", "no current target"]
        .iter()
        .any(|text| stderr.contains(text))
}

fn is_absent(stderr: &str) -> bool {
    is_down(stderr)
        || ["can't find session", "session not found", "can't find pane", "can't find window"]
            .iter()
            .any(|text| stderr.contains(text))
}

fn about_session(command: &str, name: &str, output: ExecOutput) -> Result<ExecOutput, Error> {
    if output.exit_code == 0 {
        return Ok(output);
    }
    if is_absent(&output.stderr) {
        let message = format!("there is no tmux session {name:?}");
        return Err(Error::new(Code::SandboxTmuxSessionNotFound, message).with("sessionName", name));
    }
    Err(refused(command, &output))
}

fn refused(command: &str, output: &ExecOutput) -> Error {
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Error::new(Code::SandboxExecFailed, format!("tmux {command} failed with {}: {said}", output.exit_code))
}

fn parse(text: &str, sandbox_id: &str) -> Vec<TmuxSession> {
    let session = |line: &str| {
        let mut parts = line.splitn(5, ':');
        let window_count = parts.next()?.parse().ok()?;
        let attached = parts.next()?.parse::<u32>().ok()? > 0;
        let created_at = Timestamp::from_second(parts.next()?.parse().ok()?).ok()?;
        let name = parts.next()?.to_owned();
        let task_id = parts.next().filter(|task| !task.is_empty()).map(str::to_owned);
        Some(TmuxSession { name, sandbox_id: sandbox_id.into(), task_id, created_at, window_count, attached })
    };
    text.lines().filter_map(session).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_list_of_sessions_is_read_with_its_tasks() {
        let sessions = parse("1:0:1767225600:agent-a b:task:1\n2:3:1767225601:other:\nnonsense\n", "s1");
        let told: Vec<_> = sessions
            .iter()
            .map(|s| (s.name.as_str(), s.task_id.as_deref(), s.window_count, s.attached, s.created_at.as_second()))
            .collect();
        let wanted = [("agent-a b", Some("task:1"), 1, false, 1_767_225_600), ("other", None, 2, true, 1_767_225_601)];
        assert_eq!(told, wanted);
    }

    #[rstest]
    #[case("agent-1", true)]
    #[case("my agent", true)]
    #[case("", false)]
    #[case("-d", false)]
    #[case("a:b", false)]
    #[case("v1.2", false)]
    #[case("a\nb", false)]
    fn names_that_tmux_would_change_are_refused(#[case] name: &str, #[case] good: bool) {
        assert_eq!(check(name).is_ok(), good);
    }

    #[rstest]
    #[case("no server running on /tmp/tmux-1000/default", true, true)]
    #[case("error connecting to /tmp/tmux-0/default (No such file or directory)", true, true)]
    #[case("can't find session: a", false, true)]
    #[case("unknown option -- q", false, false)]
    fn what_tmux_complains_is_told_apart(#[case] stderr: &str, #[case] down: bool, #[case] absent: bool) {
        assert_eq!((is_down(stderr), is_absent(stderr)), (down, absent));
    }
}
