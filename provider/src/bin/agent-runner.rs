//! A coding agent without a model: it does what the script in its prompt says, and speaks the agents' protocol.
//!
//! Events are JSON, a line each, on stdout. The environment is that of every runner: `CLAUDE_OAUTH_TOKEN`, `AGENT_TASK_ID`,
//! `AGENT_SESSION_ID` and `AGENT_PROMPT` (or `AGENT_SCRIPT_FILE`, which is read instead) are required; `AGENT_PHASE` is `plan`
//! or `execute`, `AGENT_CWD` must be in `AGENT_WORKSPACE_ROOT`, and `AGENT_STOP_FILE` ends the work when it is there.
//!
//! A script's lines begin with `@`; others are prose and do nothing:
//!
//! | line | what it does |
//! |---|---|
//! | `@turn` | begins the next turn; the last one that is allowed ends the work |
//! | `@say TEXT` | says something, word by word |
//! | `@write PATH TEXT`, `@append PATH TEXT`, `@delete PATH` | change a file of the folder; `\n` in the text is a new line |
//! | `@run COMMAND` | runs a shell command in the folder |
//! | `@sleep SECONDS` | waits, and stops when asked to |
//! | `@hang` | waits for ever, and does not stop when asked to |
//! | `@flood COUNT BYTES` | says COUNT words of BYTES bytes, as fast as it can |
//! | `@print TEXT`, `@complain TEXT` | a line on stdout or stderr as it stands; `$NAME` is a variable's value |
//! | `@ask PROMPT` | asks that a command be allowed by the plan |
//! | `@fail TEXT` | fails |
//! | `@exit STATUS` | ends without a word |
//! | `@plan` | when planning: what follows is the plan, for which the work ends; otherwise nothing |
//!
//! Planning without `@plan` runs nothing and proposes the whole prompt, so that its script runs when the plan is approved.

use std::{
    env, fs,
    io::Write,
    path::{Component, Path, PathBuf},
    process::{Command, ExitCode},
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

/// How often the stop file is looked for while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Who is it for, and how far is it.
struct Runner {
    task: String,
    session: String,
    cwd: PathBuf,
    stop_file: Option<PathBuf>,
    max_turns: u32,
    turn: u32,
    tools: u32,
    asks: Vec<Value>,
}

/// Why the script is not gone on with.
enum End {
    /// Someone wants it to stop.
    Stopped,
    /// It took as many turns as it may.
    TurnLimit,
    /// It failed, with a code.
    Failed(String, &'static str),
    /// It ends without a word.
    Silent(u8),
}

fn main() -> ExitCode {
    let mut runner = match Runner::from_env() {
        Ok(runner) => runner,
        Err(error) => {
            // There may be no ids yet: whoever reads this knows whom it started.
            let data = json!({ "error": error, "turnCount": 0 });
            let (task, session) = (variable("AGENT_TASK_ID"), variable("AGENT_SESSION_ID"));
            eprintln!("{}", line("error", &task.unwrap_or_default(), &session.unwrap_or_default(), data));
            return ExitCode::FAILURE;
        }
    };
    let end = prompt().map_err(|error| End::Failed(error, "PLANNING_ERROR")).and_then(|prompt| {
        let model = variable("AGENT_MODEL").unwrap_or_else(|| "scripted".into());
        runner.emit("started", json!({ "model": model, "maxTurns": runner.max_turns }))?;
        if variable("AGENT_PHASE").is_some_and(|phase| phase == "plan") {
            runner.plan(&prompt)
        } else {
            if let Some(conversation) = variable("AGENT_SDK_SESSION_ID") {
                runner.say(&format!("Going on with {conversation}"))?;
            }
            runner.execute(&prompt)
        }
    });
    let turns = runner.turn;
    let (name, data, status) = match end {
        Ok((name, data)) => (name, data, 0),
        Err(End::Stopped) => ("cancelled", json!({ "turnCount": turns }), 0),
        Err(End::TurnLimit) => ("complete", json!({ "status": "turn_limit", "turnCount": turns }), 0),
        Err(End::Failed(error, code)) => ("error", json!({ "error": error, "code": code, "turnCount": turns }), 1),
        Err(End::Silent(status)) => return ExitCode::from(status),
    };
    match runner.emit(name, data) {
        Ok(()) => ExitCode::from(status),
        Err(_) => ExitCode::FAILURE,
    }
}

impl Runner {
    fn from_env() -> Result<Self, String> {
        let required = |name: &str| variable(name).ok_or_else(|| format!("{name} is required"));
        required("CLAUDE_OAUTH_TOKEN")?;
        let (task, session) = (required("AGENT_TASK_ID")?, required("AGENT_SESSION_ID")?);
        let root = variable("AGENT_WORKSPACE_ROOT").unwrap_or_else(|| "/workspace".into());
        let cwd = variable("AGENT_CWD").unwrap_or_else(|| root.clone());
        let real = |path: &str| fs::canonicalize(path).map_err(|error| format!("{path}: {error}"));
        let (root, cwd) = (real(&root)?, real(&cwd)?);
        // By components: /workspace2 is not in /workspace.
        if !cwd.starts_with(&root) {
            return Err(format!("AGENT_CWD {} is not in AGENT_WORKSPACE_ROOT {}", cwd.display(), root.display()));
        }
        let stop_file = variable("AGENT_STOP_FILE").map(PathBuf::from);
        if let Some(file) = &stop_file {
            let folder = file.parent().and_then(|folder| fs::canonicalize(folder).ok()).unwrap_or_default();
            if !folder.starts_with(&root) && !folder.starts_with("/tmp") {
                return Err(format!("AGENT_STOP_FILE {} is neither in the workspace nor in /tmp", file.display()));
            }
        }
        let max_turns = match variable("AGENT_MAX_TURNS") {
            Some(turns) => turns.parse().map_err(|_| format!("AGENT_MAX_TURNS {turns} is no number"))?,
            None => 50,
        };
        Ok(Self { task, session, cwd, stop_file, max_turns, turn: 0, tools: 0, asks: Vec::new() })
    }

    fn plan(&mut self, prompt: &str) -> Result<(&'static str, Value), End> {
        let (script, plan) = match prompt.split_once("@plan\n") {
            Some((script, plan)) if script.is_empty() || script.ends_with('\n') => (script, plan),
            _ => ("", prompt),
        };
        self.run(script)?;
        let data = json!({
            "plan": plan,
            "turnCount": self.turn,
            "sdkSessionId": format!("scripted-{}", std::process::id()),
            "allowedPrompts": self.asks,
        });
        Ok(("plan_ready", data))
    }

    fn execute(&mut self, prompt: &str) -> Result<(&'static str, Value), End> {
        self.run(prompt)?;
        let result = format!("Done after {} turns", self.turn);
        Ok(("complete", json!({ "status": "completed", "turnCount": self.turn, "result": result })))
    }

    fn run(&mut self, script: &str) -> Result<(), End> {
        for line in script.lines() {
            self.look()?;
            let Some(line) = line.trim().strip_prefix('@') else { continue };
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "turn" => self.turn()?,
                "say" => self.say(rest)?,
                "write" | "append" | "delete" => self.change(word, rest)?,
                "run" => self.shell(rest)?,
                "sleep" => {
                    let seconds: f64 = number(rest)?;
                    let mut left = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                    while !left.is_zero() {
                        self.look()?;
                        let nap = left.min(LOOK);
                        sleep(nap);
                        left -= nap;
                    }
                }
                "hang" => loop {
                    sleep(Duration::from_secs(3600));
                },
                "flood" => {
                    let (count, bytes) = rest.split_once(' ').unwrap_or((rest, "10"));
                    let word = "x".repeat(number(bytes)?);
                    for _ in 0..number(count)? {
                        self.emit("token", json!({ "delta": word }))?;
                    }
                }
                "print" => print_line(&expand(rest))?,
                "complain" => eprintln!("{}", expand(rest)),
                "ask" => self.asks.push(json!({ "tool": "Bash", "prompt": rest })),
                "fail" => return Err(End::Failed(rest.into(), "STREAM_ERROR")),
                "exit" => return Err(End::Silent(number(rest)?)),
                "plan" => {}
                _ => return Err(End::Failed(format!("the script has no word for @{word}"), "STREAM_ERROR")),
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), End> {
        self.turn += 1;
        let remaining = self.max_turns.saturating_sub(self.turn);
        self.emit("turn", json!({ "turn": self.turn, "maxTurns": self.max_turns, "remaining": remaining }))?;
        if self.turn >= self.max_turns { Err(End::TurnLimit) } else { Ok(()) }
    }

    fn say(&self, text: &str) -> Result<(), End> {
        let mut accumulated = String::new();
        for word in text.split_inclusive(' ') {
            accumulated.push_str(word);
            self.emit("token", json!({ "delta": word, "accumulated": accumulated }))?;
        }
        self.emit("message", json!({ "role": "assistant", "content": text }))
    }

    fn change(&mut self, word: &str, rest: &str) -> Result<(), End> {
        let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !inside {
            return Err(End::Failed(format!("{path:?} is not a path in the folder"), "STREAM_ERROR"));
        }
        let (file, text) = (self.cwd.join(path), text.replace("\\n", "\n"));
        let (tool, action) = match word {
            "delete" => ("Bash", "delete"),
            _ if file.exists() => ("Edit", "modify"),
            _ => ("Write", "create"),
        };
        self.tool(tool, json!({ "file_path": file }), |_| {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            match word {
                "delete" => fs::remove_file(&file)?,
                "append" => fs::OpenOptions::new().create(true).append(true).open(&file)?.write_all(text.as_bytes())?,
                _ => fs::write(&file, &text)?,
            }
            Ok("completed".into())
        })?;
        self.emit("file_changed", json!({ "path": file, "action": action, "toolName": tool }))
    }

    fn shell(&mut self, command: &str) -> Result<(), End> {
        self.tool("Bash", json!({ "command": command }), |cwd| {
            let output = Command::new("sh").args(["-c", command]).current_dir(cwd).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(text) } else { Err(std::io::Error::other(text)) }
        })
    }

    /// Uses a tool, with the events around it. A tool that fails is something that agents live with.
    fn tool(
        &mut self,
        name: &str,
        input: Value,
        use_it: impl FnOnce(&Path) -> Result<String, std::io::Error>,
    ) -> Result<(), End> {
        self.tools += 1;
        let id = format!("tool-{}", self.tools);
        self.emit("tool:start", json!({ "toolName": name, "toolId": id, "input": input }))?;
        let begun = SystemTime::now();
        let (result, is_error) = match use_it(&self.cwd) {
            Ok(result) => (result, false),
            Err(error) => (error.to_string(), true),
        };
        let duration_ms = begun.elapsed().unwrap_or_default().as_secs_f64() * 1000.0;
        let data = json!({
            "toolName": name, "toolId": id, "result": result, "isError": is_error, "durationMs": duration_ms.round(),
        });
        self.emit("tool:result", data)
    }

    fn look(&self) -> Result<(), End> {
        if self.stop_file.as_ref().is_some_and(|file| file.exists()) { Err(End::Stopped) } else { Ok(()) }
    }

    fn emit(&self, name: &str, data: Value) -> Result<(), End> {
        print_line(&line(name, &self.task, &self.session, data))
    }
}

fn prompt() -> Result<String, String> {
    match variable("AGENT_SCRIPT_FILE") {
        Some(file) => fs::read_to_string(&file).map_err(|error| format!("{file}: {error}")),
        None => variable("AGENT_PROMPT").ok_or_else(|| "AGENT_PROMPT is required".into()),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn line(name: &str, task: &str, session: &str, data: Value) -> String {
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0;
    let event = json!({
        "type": format!("agent:{name}"), "timestamp": timestamp.round(), "taskId": task, "sessionId": session, "data": data,
    });
    event.to_string()
}

fn print_line(text: &str) -> Result<(), End> {
    // At once, and whole: whoever reads the file must not see half a line for long.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()).map_err(|_| End::Silent(1))
}

/// The text with the values of its variables, for a script that prints what it must not.
fn expand(text: &str) -> String {
    let word = |word: &str| match word.strip_prefix('$') {
        Some(name) => env::var(name).unwrap_or_default(),
        None => word.into(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, End> {
    text.trim().parse().map_err(|_| End::Failed(format!("{text:?} is no number"), "STREAM_ERROR"))
}
