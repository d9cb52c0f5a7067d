//! The scripted runtime: containers whose programs are a [`Script`] and the small shell.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::Mutex as AsyncMutex,
};
use tokio_util::task::TaskTracker;

use super::{
    process::{Ends, Exit, Process, Signal, Wanted, spawn},
    script::Script,
    shell::{Host, Io, Shell, Unknown, fs::Fs, input, output},
    tty,
};
use crate::{base::limits, clock::Clock};

/// A scripted container: what its program and the commands called in it share.
#[derive(Clone)]
pub(super) struct Scripted {
    script: Arc<Script>,
    shell: Shell,
    unknown: Unknown,
    clock: Clock,
    tasks: TaskTracker,
}

/// What a container is started with.
pub(super) struct Setup {
    pub(super) hostname: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: String,
    pub(super) fs: Fs,
    /// What a program that nobody knows does as the container's own.
    pub(super) unknown: Unknown,
}

impl Scripted {
    pub(super) fn new(script: Script, setup: Setup, clock: &Clock, tasks: &TaskTracker) -> Self {
        let unknown = setup.unknown;
        let host = Host {
            clock: clock.clone(),
            hostname: setup.hostname,
            rules: script.exec.clone(),
            numbers: Default::default(),
        };
        let shell = Shell::new(Arc::new(host), setup.fs, setup.env, &setup.cwd, Unknown::NotFound);
        Self { script: Arc::new(script), shell, unknown, clock: clock.clone(), tasks: tasks.clone() }
    }

    /// Starts the container's program.
    pub(super) fn start(&self, command: Vec<String>, wanted: Wanted) -> Process {
        let this = self.clone();
        spawn(&self.tasks, wanted, |ends| this.main(command, ends))
    }

    /// Calls a command in the container.
    pub(super) fn exec(&self, command: Vec<String>, wanted: Wanted) -> Process {
        let this = self.clone();
        spawn(&self.tasks, wanted, |ends| this.called(command, ends))
    }

    /// Whether the script says what answers on ports.
    pub(super) fn listens(&self) -> bool {
        !self.script.ports.is_empty()
    }

    /// Connects to a port, which the script may have a command for.
    pub(super) fn connect(&self, port: u16) -> Option<Process> {
        let command = self.script.ports.get(&port)?;
        Some(self.exec(command.clone(), Wanted { stdin: true, stdout: true, ..Wanted::default() }))
    }

    async fn main(self, command: Vec<String>, ends: Ends) -> Exit {
        let Ends { stdin, mut stdout, stderr, mut signals, .. } = ends;
        let mut errors = stderr;
        for line in &self.script.log {
            // Lines that come with the start are there when the container is seen to run.
            if line.after.is_zero() {
                let text = format!("{}\n", line.text);
                let out = errors.as_mut().filter(|_| line.stderr).unwrap_or(&mut stdout);
                let _ = out.write_all(text.as_bytes()).await; // nobody reads: the log is gone
            }
        }
        let stdout = output(stdout);
        let io = Io { stdin: input(stdin), stderr: errors.map_or_else(|| stdout.clone(), output), stdout };
        let mut shell = self.shell.clone().into_main(self.unknown);
        let script = self.script.clone();
        let clock = self.clock.clone();
        let lines = {
            let (shell, io, script, clock) = (shell.clone(), io.clone(), script.clone(), clock.clone());
            async move {
                let start = clock.now();
                for line in script.log.iter().filter(|line| !line.after.is_zero()) {
                    let passed = Duration::try_from(clock.now().duration_since(start)).unwrap_or_default();
                    clock.sleep(line.after.saturating_sub(passed)).await;
                    shell.print(&io, line.stderr, &format!("{}\n", line.text)).await;
                }
            }
        };
        let program = async {
            if script.ends() {
                clock.sleep(script.run.unwrap_or_default()).await;
                return Exit::code(script.exit_code.unwrap_or(0));
            }
            if command.is_empty() && self.unknown == Unknown::Succeeds {
                return Exit::code(0);
            }
            if command.is_empty() {
                return std::future::pending().await; // the image's own program
            }
            Exit::code(shell.program(&command, &io).await)
        };
        let stopped = async {
            let signal = signals.recv().await.unwrap_or(Signal::Kill);
            let Some(delay) = self.script.stop_delay.filter(|_| signal != Signal::Kill) else {
                return Exit::signal(signal);
            };
            let killed = async { while !matches!(signals.recv().await, None | Some(Signal::Kill)) {} };
            match self.clock.timeout(delay, killed).await {
                None => Exit::signal(signal),
                Some(()) => Exit::signal(Signal::Kill),
            }
        };
        let lines = async {
            lines.await;
            std::future::pending::<Exit>().await
        };
        tokio::select! {
            biased;
            exit = stopped => exit,
            exit = program => exit,
            exit = lines => exit,
        }
    }

    async fn called(self, command: Vec<String>, ends: Ends) -> Exit {
        let mut shell = self.shell.clone();
        let program = command.first().map(String::as_str).unwrap_or_default();
        if !shell.knows(program) && !self.script.exec.iter().any(|rule| rule.matches(&command)) {
            let reason = if program.contains('/') {
                format!("exec: {program:?}: stat {program}: no such file or directory")
            } else {
                format!("exec: {program:?}: executable file not found in $PATH")
            };
            let text = format!(
                "OCI runtime exec failed: exec failed: unable to start container process: {reason}: unknown\r\n"
            );
            let Ends { mut stdout, stderr, .. } = ends;
            let _ = stderr
                .unwrap_or_else(|| std::mem::replace(&mut stdout, super::process::Output::null()))
                .write_all(text.as_bytes())
                .await;
            return Exit::code(127);
        }
        if ends.tty {
            return terminal(shell.on_terminal(), command, ends).await;
        }
        let Ends { stdin, stdout, stderr, mut signals, .. } = ends;
        let stdout = output(stdout);
        let io = Io { stdin: input(stdin), stderr: stderr.map_or_else(|| stdout.clone(), output), stdout };
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => Exit::signal(signal),
            code = shell.program(&command, &io) => Exit::code(code),
        }
    }
}

/// Runs a command behind a line discipline.
async fn terminal(mut shell: Shell, command: Vec<String>, ends: Ends) -> Exit {
    let Ends { mut stdin, stdout, mut signals, .. } = ends;
    let (lines_in, lines) = duplex(limits::STREAM_BYTES);
    let (printer, mut printed) = duplex(limits::STREAM_BYTES);
    let screen = AsyncMutex::new(stdout);
    let interrupt = shell.interrupt();
    let program = async move {
        let stdout = output(printer);
        let io = Io { stdin: input(lines), stderr: stdout.clone(), stdout };
        shell.program(&command, &io).await
    };
    let printing = async {
        let mut chunk = vec![0; 8 * 1024];
        loop {
            match printed.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let _ = screen.lock().await.write_all(&tty::printed(&chunk[..count])).await; // nobody looks
                }
            }
        }
    };
    let typing = async {
        let mut line = tty::Line::default();
        let mut lines_in = Some(lines_in);
        let mut chunk = vec![0; 1024];
        loop {
            match stdin.read(&mut chunk).await {
                // The keyboard is gone: for the program, the end of its input.
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let typed = line.feed(&chunk[..count]);
                    let _ = screen.lock().await.write_all(&typed.echo).await; // nobody looks
                    if let Some(lines) = &mut lines_in {
                        let _ = lines.write_all(&typed.input).await; // the program does not read any more
                    }
                    if typed.interrupt {
                        interrupt.notify_one();
                    }
                    if typed.end {
                        lines_in = None;
                    }
                }
            }
        }
        drop(lines_in);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        Some(signal) = signals.recv() => Exit::signal(signal),
        (code, ()) = async { tokio::join!(program, printing) } => Exit::code(code),
        () = typing => Exit::signal(Signal::Kill),
    }
}
