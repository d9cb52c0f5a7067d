//! Programs of others (minikube, kubectl, docker): found, run with a deadline, and ended with all that they have started.

use std::{
    ffi::OsStr,
    fmt,
    io::ErrorKind,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use duct::{Handle, cmd};

use crate::runner::Stop;

/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of a program's output that an error shows.
const ERROR_LINES: usize = 20;

/// A program.
#[derive(Clone, Debug)]
pub struct Tool {
    name: String,
    path: PathBuf,
    stop: Stop,
}

impl Tool {
    /// Finds a program in `PATH`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(name: &str) -> Result<Self> {
        Self::find_in(name, std::env::var_os("PATH").as_deref())
    }

    /// Finds a program in these folders, written as in `PATH`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find_in(name: &str, folders: Option<&OsStr>) -> Result<Self> {
        let found = which::which_in(name, folders, std::env::current_dir().unwrap_or_default());
        let path = found.map_err(|_| anyhow!("there is no program {name} in PATH"))?;
        Ok(Self { name: name.into(), path, stop: Stop::never() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, whose runs end when it is set off.
    #[must_use]
    pub fn stopping(self, stop: &Stop) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// Runs it, and gives what it prints.
    ///
    /// # Errors
    /// If it fails, does not end in time, or is broken off: then it is killed, and with it the processes that it has
    /// started. The text holds the end of what it said.
    pub fn run(&self, arguments: &[&str], within: Duration) -> Result<String> {
        self.output(arguments, None, within).map(|(stdout, _)| stdout)
    }

    /// As [`run`](Self::run), with what the program reads.
    ///
    /// # Errors
    /// As there.
    pub fn run_reading(&self, arguments: &[&str], input: &str, within: Duration) -> Result<String> {
        self.output(arguments, Some(input), within).map(|(stdout, _)| stdout)
    }

    /// As [`run`](Self::run), with what it says on stderr behind what it prints.
    ///
    /// # Errors
    /// As there.
    pub fn both(&self, arguments: &[&str], within: Duration) -> Result<String> {
        self.output(arguments, None, within).map(|(stdout, stderr)| stdout + &stderr)
    }

    fn output(&self, arguments: &[&str], input: Option<&str>, within: Duration) -> Result<(String, String)> {
        let shown = Shown(&self.name, arguments);
        let mut expression = cmd(&self.path, arguments).stdout_capture().stderr_capture().unchecked();
        expression = match input {
            Some(input) => expression.stdin_bytes(input),
            None => expression.stdin_null(),
        };
        // A group of its own: what it starts can be ended with it, and Ctrl-C is for this process to handle.
        let expression = expression.before_spawn(|command| {
            command.process_group(0);
            Ok(())
        });
        let running = expression.start().with_context(|| format!("{shown} does not start"))?;
        let end = Instant::now() + within;
        let output = loop {
            if let Some(output) = running.wait_timeout(LOOK)? {
                break output.clone();
            }
            if self.stop.is_set() {
                end_group(&running);
                bail!("{shown} was broken off");
            }
            if Instant::now() > end {
                end_group(&running);
                bail!("{shown} did not end in {within:?}");
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            let said = if stderr.trim().is_empty() { &stdout } else { &stderr };
            let lines: Vec<&str> = said.lines().collect();
            bail!(
                "{shown} failed ({}): {}",
                output.status,
                lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n")
            );
        }
        Ok((stdout, stderr))
    }
}

/// Ends a program and what it has started. duct's own kill would reach the program alone, and then wait for what holds its
/// output open.
fn end_group(running: &Handle) {
    for id in running.pids() {
        let group = format!("-{id}");
        let _ = cmd("kill", ["-KILL", "--", &group]).stderr_null().unchecked().run();
    }
    if let Err(error) = running.wait_timeout(Duration::from_secs(5))
        && error.kind() != ErrorKind::NotFound
    {
        eprintln!("cannot wait for a program that was killed: {error}");
    }
}

/// A command as one would type it.
struct Shown<'a>(&'a str, &'a [&'a str]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}", self.0)?;
        self.1.iter().try_for_each(|word| write!(f, " {word}"))?;
        f.write_str("`")
    }
}
