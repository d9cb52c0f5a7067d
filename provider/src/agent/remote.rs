//! What is done in a sandbox for a run, as small scripts of POSIX shell.
//!
//! A run has a folder in the workspace, so that it outlives a pod that is replaced on the same volume:
//! `pid` (who has it is the run: made by the first start only), `events.jsonl` (what the runner prints), `errors.log` (what it
//! complains), `stop` (made to stop it) and `exit` (its exit status, once it has ended).
//! The processes of a run are found by the variable `AGENT_RUN_ID` in their environment, whatever they have become.
//!
//! The workspace is where the sandbox's variable `AGENT_WORKSPACE_ROOT` says, else `/workspace`.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use crate::{Code, Error, ExecOptions, ExecOutput, ExecStream, Sandbox, records::Run};

/// Where things are. `$1` is the run.
const PLACES: &str = r#"root=${AGENT_WORKSPACE_ROOT:-/workspace}; run=$root/.agent/$1
with() { grep -l "$1" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\n'; }
alive() { p=$(cat "$run/pid" 2>/dev/null) && grep -q "AGENT_RUN_ID=$1" "/proc/$p/environ" 2>/dev/null; }
"#;

/// Starts the runner, once however often it is called. `@VARIABLES@` is replaced, `$1` is the run, `$2` the run that made the
/// plan, `$3` the folder, and the rest the command.
///
/// What an earlier run of the task, which was given up out of reach, may have left working is ended first.
const LAUNCH: &str = r#"mask=$(umask); umask 077
mkdir -p "$run" || exit 1
[ -e "$root/.agent/.gitignore" ] || echo '*' > "$root/.agent/.gitignore"
: >> "$run/events.jsonl" || exit 1
umask "$mask"
if [ ! -e "$run/pid" ]; then
@VARIABLES@
  for p in $(with "AGENT_TASK_ID=$AGENT_TASK_ID"); do
    has() { tr '\0' '\n' < "/proc/$p/environ" 2>/dev/null | grep -qxF "$1"; }
    if has "AGENT_TASK_ID=$AGENT_TASK_ID" && has "AGENT_WORKSPACE_ROOT=$root" && ! has "AGENT_RUN_ID=$1"; then
      kill -s KILL "$p" 2>/dev/null
    fi
  done
  mark=${TMPDIR:-/tmp}/.agent-run-
  [ -e "$mark$2" ] || unset AGENT_SDK_SESSION_ID
  : > "$mark$1"
  cd "${3:-$root}" || exit 1
  export AGENT_CWD="$PWD" AGENT_WORKSPACE_ROOT="$root" AGENT_STOP_FILE="$run/stop" AGENT_RUN_DIR="$run" AGENT_RUN_ID="$1"
  shift 3
  session=; command -v setsid >/dev/null && session=setsid
  $session sh -c 'set -C; echo $$ 2>/dev/null > "$AGENT_RUN_DIR/pid" || exit; set +C
"$@" < /dev/null >> "$AGENT_RUN_DIR/events.jsonl" 2>> "$AGENT_RUN_DIR/errors.log"
echo $? > "$AGENT_RUN_DIR/exit.new"; mv "$AGENT_RUN_DIR/exit.new" "$AGENT_RUN_DIR/exit"' sh "$@" < /dev/null > /dev/null 2>&1 &
fi
i=0; while [ ! -s "$run/pid" ] && [ $i -lt 100 ]; do sleep 0.05 2>/dev/null || sleep 1; i=$((i+1)); done
[ -s "$run/pid" ] || { echo "the runner was not started" >&2; exit 1; }
exit 0
"#;

/// Prints what the runner has printed from byte `$2` on. Ends with 75 when there may be more, with 0 when that was all; then
/// its errors begin with `ended`, how the runner ended, and how much it has printed in all. The dots among the errors tell that the connection stands.
const FOLLOW: &str = r#"trap '' PIPE
if [ ! -e "$run/events.jsonl" ]; then echo "ended absent $2" >&2; exit 0; fi
from=$(($2 + 1))
if [ ! -e "$run/exit" ] && alive "$1"; then
  tail -c "+$from" -f "$run/events.jsonl" & t=$!
  i=0
  while sleep 1; do
    [ -e "$run/exit" ] && break
    i=$((i + 1))
    if [ $((i % 5)) = 0 ]; then
      alive "$1" || break
      kill -0 $t 2>/dev/null || break
      echo . >&2 || break
    fi
  done
  kill $t 2>/dev/null
  exit 75
fi
tail -c "+$from" "$run/events.jsonl"
{ echo "ended $(cat "$run/exit" 2>/dev/null || echo lost) $(($(wc -c < "$run/events.jsonl")))"; tail -c 65536 "$run/errors.log"; } >&2
exit 0
"#;

/// Ends the runner: gives it `$2` seconds, after having asked it to if `$3` is `ask`, and leaves nothing of it working. With
/// `$3` as `clear`, its folder goes, too.
const END: &str = r#"[ "$3" = ask ] && [ -d "$run" ] && : > "$run/stop"
i=0
while [ ! -e "$run/exit" ] && alive "$1" && [ $i -lt $(($2 * 10)) ]; do
  sleep 0.1 2>/dev/null || { sleep 1; i=$((i + 9)); }
  i=$((i + 1))
done
left=$(with "AGENT_RUN_ID=$1")
if [ -n "$left" ]; then
  kill -s TERM $left 2>/dev/null
  i=0
  while [ $i -lt 10 ] && left=$(with "AGENT_RUN_ID=$1") && [ -n "$left" ]; do sleep 0.1 2>/dev/null || { sleep 1; i=9; }; i=$((i + 1)); done
  [ -n "$left" ] && kill -s KILL $left 2>/dev/null
fi
[ -d "$run" ] && [ ! -e "$run/exit" ] && [ -e "$run/pid" ] && echo 137 > "$run/exit"
[ "$3" = clear ] && rm -rf "$run"
exit 0
"#;

/// Any folder's repository may be worked in: a volume's folders seldom belong to the user that commands run as.
const GIT: &str = r#"root=${AGENT_WORKSPACE_ROOT:-/workspace}
git() { command git -c safe.directory='*' -c core.hooksPath=/dev/null "$@"; }
"#;

/// Makes the worktree with branch `$1`, or finds it; or says why there is none.
const WORKTREE: &str = r#"none() { printf 'none %s\n' "$1"; exit 0; }
command -v git > /dev/null || none "git is not in the sandbox"
cd "$root" 2>/dev/null || none "there is no folder $root"
git rev-parse --git-dir > /dev/null 2>&1 || none "$root is no git repository"
base=$(git rev-parse -q --verify HEAD) || none "the repository has no commit yet"
exclude=$(git rev-parse --git-common-dir)/info/exclude
mkdir -p "${exclude%/*}"
grep -qx '/.worktrees/' "$exclude" 2>/dev/null || printf '/.worktrees/\n/.agent/\n' >> "$exclude"
path=$root/.worktrees/$1
if [ ! -e "$path/.git" ]; then
  git worktree prune
  if git show-ref -q --verify "refs/heads/$1"; then said=$(git worktree add -q "$path" "$1" 2>&1) || none "$said"
  else said=$(git worktree add -q -b "$1" "$path" 2>&1) || none "$said"; fi
fi
base=$(git merge-base "$base" "refs/heads/$1") || none "the branch $1 has nothing to do with the repository's HEAD"
printf 'base %s\npath %s\n' "$base" "$path"
"#;

/// Commits all that is in the worktree `$1`, with message `$2`; fine if there is nothing.
const COMMIT: &str = r#"cd "$1" || exit 1
git add -A || exit 1
git diff --cached --quiet && exit 0
git config user.email > /dev/null || { GIT_AUTHOR_NAME=agent GIT_AUTHOR_EMAIL=agent@localhost; GIT_COMMITTER_NAME=agent
  GIT_COMMITTER_EMAIL=agent@localhost; export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL; }
git commit -q -m "$2"
"#;

/// Removes the worktree `$1` with branch `$2`, if it is as it was made from commit `$3`; says `removed`, `gone` or `kept`.
const DISCARD: &str = r#"cd "$root" 2>/dev/null || { echo gone; exit 0; }
if [ ! -e "$1/.git" ]; then git worktree prune 2>/dev/null; echo gone; exit 0; fi
changes=$(git -C "$1" status --porcelain) || { echo kept; exit 0; }
if [ -n "$changes" ] || [ "$(git -C "$1" rev-parse HEAD)" != "$3" ]; then echo kept; exit 0; fi
git worktree remove "$1" && git branch -q -D "$2" && echo removed || echo kept
"#;

/// A sandbox, for one run's work in it.
pub(super) struct Remote {
    pub(super) sandbox: Arc<dyn Sandbox>,
    /// How long one command may take.
    pub(super) timeout: Duration,
}

/// Where an agent is to work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a worktree of its own.
    Worktree {
        /// The commit that it was made from.
        base: String,
        /// Where it is.
        path: String,
    },
    /// In the workspace itself, for that reason.
    Workspace(String),
}

/// What became of a worktree that was not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discarded {
    /// It held nothing, and went.
    Removed,
    /// It was not there.
    Gone,
    /// It holds changes or commits, and stays.
    Kept,
}

impl Remote {
    /// Starts the runner, unless it has been. The secret is in the command's input only.
    pub(super) async fn launch(&self, run: &Run, runner: &[String], secret: &SecretString) -> Result<(), Error> {
        let turns = run.max_turns.to_string();
        let mut variables = vec![
            ("CLAUDE_OAUTH_TOKEN", secret.expose_secret()),
            ("AGENT_TASK_ID", &run.task_id),
            ("AGENT_SESSION_ID", &run.session_id),
            ("AGENT_PROMPT", &run.prompt),
            ("AGENT_MAX_TURNS", &turns),
            ("AGENT_MODEL", &run.model),
            ("AGENT_PHASE", run.phase.as_str()),
        ];
        if let Some(session) = &run.sdk_session_id {
            variables.push(("AGENT_SDK_SESSION_ID", session));
        }
        let variables: String =
            variables.into_iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect();
        let mut arguments = vec![run.id.as_str(), run.planned_by.as_deref().unwrap_or("-")];
        arguments.push(run.cwd.as_deref().unwrap_or_default());
        arguments.extend(runner.iter().map(String::as_str));
        let set: Vec<String> = arguments.into_iter().map(quote).collect();
        // What is in the variables is not looked at again.
        let (before, after) = LAUNCH.split_once("@VARIABLES@").unwrap_or((LAUNCH, ""));
        let script = format!("set -- {}\n{PLACES}{before}{variables}{after}", set.join(" "));
        let mut options = ExecOptions::new("sh", ["-s"]);
        options.stdin = Some(script.into_bytes());
        let output = self.exec(options).await?;
        checked(output, Code::AgentStartFailed, "the agent could not be started").map(|_| ())
    }

    /// Prints what the runner has printed from that byte on, and goes on as it comes.
    pub(super) async fn follow(&self, run: &Run) -> Result<ExecStream, Error> {
        let script = format!("{PLACES}{FOLLOW}");
        let options = ExecOptions::new("sh", ["-c", &script, "sh", &run.id, &run.read_bytes.to_string()]);
        self.sandbox.exec_stream(options).await
    }

    /// Asks the runner to stop, waits for a moment, and ends it.
    pub(super) async fn stop(&self, run: &Run, grace: Duration) -> Result<(), Error> {
        self.end(run, grace, "ask").await
    }

    /// Waits for a moment until the runner has ended, ends what it left, and removes its folder.
    pub(super) async fn clear(&self, run: &Run, grace: Duration) -> Result<(), Error> {
        self.end(run, grace, "clear").await
    }

    async fn end(&self, run: &Run, grace: Duration, how: &str) -> Result<(), Error> {
        let script = format!("{PLACES}{END}");
        let seconds = grace.as_secs().to_string();
        let output = self.exec(ExecOptions::new("sh", ["-c", &script, "sh", &run.id, &seconds, how])).await?;
        checked(output, Code::AgentStopFailed, "the agent could not be ended").map(|_| ())
    }

    /// Makes the worktree with that branch, or finds it again.
    pub(super) async fn worktree(&self, branch: &str) -> Result<Place, Error> {
        let output = self.git(WORKTREE, &[branch]).await?;
        let line = |name: &str| output.stdout.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Ok(match (line("base "), line("path ")) {
            (Some(base), Some(path)) => Place::Worktree { base, path },
            _ => {
                let said = line("none ").unwrap_or_else(|| last_line(&output.stderr).to_owned());
                Place::Workspace(said)
            }
        })
    }

    /// Whether there is a worktree at that path.
    pub(super) async fn has_worktree(&self, path: &str) -> Result<bool, Error> {
        let output = self.exec(ExecOptions::new("test", ["-e", &format!("{path}/.git")])).await?;
        Ok(output.exit_code == 0)
    }

    /// Commits what is in the worktree.
    pub(super) async fn commit(&self, path: &str, message: &str) -> Result<(), Error> {
        let output = self.git(COMMIT, &[path, message]).await?;
        checked(output, Code::WorktreeCommitFailed, "what the agent did could not be committed").map(|_| ())
    }

    /// Removes a worktree with its branch, unless something would be lost.
    pub(super) async fn discard(&self, path: &str, branch: &str, base: &str) -> Result<Discarded, Error> {
        let output = self.git(DISCARD, &[path, branch, base]).await?;
        Ok(match output.stdout.as_str() {
            "removed" => Discarded::Removed,
            "gone" => Discarded::Gone,
            _ => Discarded::Kept,
        })
    }

    async fn git(&self, script: &str, arguments: &[&str]) -> Result<ExecOutput, Error> {
        let script = format!("{GIT}{script}");
        self.exec(ExecOptions::new("sh", ["-c", &script, "sh"].iter().chain(arguments).copied())).await
    }

    async fn exec(&self, mut options: ExecOptions) -> Result<ExecOutput, Error> {
        options.timeout = Some(self.timeout);
        self.sandbox.exec(options).await
    }
}

/// The output of a command that went well, or what it complained.
fn checked(output: ExecOutput, code: Code, what: &str) -> Result<ExecOutput, Error> {
    if output.exit_code == 0 {
        return Ok(output);
    }
    Err(Error::new(code, format!("{what} (exit status {}): {}", output.exit_code, last_line(&output.stderr))))
}

/// What matters of what a command complained.
pub(super) fn last_line(text: &str) -> &str {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
    match line.char_indices().nth(500) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

/// A word of shell that is that text.
fn quote(text: &str) -> String {
    // No variable can hold a NUL.
    format!("'{}'", text.replace('\0', "").replace('\'', "'\\''"))
}
