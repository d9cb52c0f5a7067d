//! A small shell and its commands: what a scripted container runs and what `exec` finds in it. It works on files in memory
//! ([`fs`]) and on the cluster's clock; nothing of the machine can be reached from it.

mod builtins;
mod expand;
pub(super) mod fs;
mod jobs;
mod parse;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, duplex},
    sync::{Mutex as AsyncMutex, Notify},
};

pub(super) use self::builtins::decode_base64;
use self::{
    fs::{Fs, normalize},
    jobs::Jobs,
    parse::{Body, Command, Item, Join, List, ParseError, Pipeline, To, parse},
};
use super::script::ExecRule;
use crate::{base::limits, clock::Clock};

/// What a shell's commands can see of the world around them.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) clock: Clock,
    pub(super) hostname: String,
    /// Commands that a script answers; first match wins.
    pub(super) rules: Vec<ExecRule>,
    /// How many background commands were started: their process numbers.
    pub(super) numbers: AtomicU32,
}

/// The process number of the first background command; the container's own program has 1.
const FIRST_NUMBER: u32 = 7;

/// What happens to a command that is no builtin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It is not found: exit code 127.
    NotFound,
    /// It is taken for a program that runs until it is stopped: what an image's own program does.
    RunsForever,
    /// It is taken for a program that does its work and succeeds: what init containers do.
    Succeeds,
}

/// A running future of the shell.
type Run<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place to read from, shared by the commands that inherit it.
pub(super) type In = Arc<AsyncMutex<BufReader<Box<dyn AsyncRead + Send + Unpin>>>>;

/// A place to write to.
#[derive(Clone)]
pub(super) enum Out {
    /// A stream, shared by the commands that inherit it.
    Stream(Arc<AsyncMutex<Box<dyn AsyncWrite + Send + Unpin>>>),
    /// A file; everything is added at its end.
    File(String),
    /// Memory, as for `$(…)`; what is beyond the limit is lost.
    Memory(Arc<Mutex<Vec<u8>>>),
    /// Nowhere.
    Null,
}

/// Bytes that `$(…)` keeps of a command's output.
const SUBSTITUTION_BYTES: usize = limits::STREAM_BYTES * 16;

/// The three streams of a command.
#[derive(Clone)]
pub(super) struct Io {
    pub(super) stdin: In,
    pub(super) stdout: Out,
    pub(super) stderr: Out,
}

/// An input from anything that can be read.
pub(super) fn input(reader: impl AsyncRead + Send + Unpin + 'static) -> In {
    Arc::new(AsyncMutex::new(BufReader::new(Box::new(reader))))
}

/// An output to anything that can be written.
pub(super) fn output(writer: impl AsyncWrite + Send + Unpin + 'static) -> Out {
    Out::Stream(Arc::new(AsyncMutex::new(Box::new(writer))))
}

/// Why a list of commands ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// It came to its end; the status is in the shell.
    Next,
    /// `exit`.
    Exit,
    /// `break`, out of that many loops.
    Break(u32),
    /// `continue`, of the loop so many levels up.
    Continue(u32),
    /// `return`.
    Return,
}

/// One shell: variables, working directory, last status. A clone is a subshell.
#[derive(Clone)]
pub(super) struct Shell {
    host: Arc<Host>,
    fs: Fs,
    /// Variables, and whether commands get them.
    variables: BTreeMap<String, (String, bool)>,
    functions: BTreeMap<String, Arc<Command>>,
    /// `$0` and the positional parameters.
    name: String,
    arguments: Vec<String>,
    cwd: String,
    status: i32,
    /// `set -e`.
    errexit: bool,
    /// `set -x`.
    trace: bool,
    unknown: Unknown,
    /// Wakes when Ctrl-C is typed.
    interrupt: Arc<Notify>,
    /// Background commands of this shell.
    jobs: Arc<Mutex<Jobs>>,
    depth: usize,
}

/// Levels of commands that call commands; "too deep" beyond. Bounds the stack.
const DEPTH: usize = 60;

impl Shell {
    pub(super) fn new(host: Arc<Host>, fs: Fs, env: BTreeMap<String, String>, cwd: &str, unknown: Unknown) -> Self {
        let mut variables: BTreeMap<String, (String, bool)> =
            env.into_iter().map(|(name, value)| (name, (value, true))).collect();
        let cwd = format!("/{}", normalize("/", cwd));
        variables.insert("PWD".into(), (cwd.clone(), true));
        Self {
            host,
            fs,
            variables,
            functions: BTreeMap::new(),
            name: "sh".into(),
            arguments: Vec::new(),
            cwd,
            status: 0,
            errexit: false,
            trace: false,
            unknown,
            interrupt: Arc::default(),
            jobs: Arc::default(),
            depth: 0,
        }
    }

    /// The shell of a container's own program.
    pub(super) fn into_main(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self.own_session();
        self
    }

    /// The shell that somebody at a terminal talks to.
    pub(super) fn on_terminal(mut self) -> Self {
        self.variables.insert("TTY".into(), ("/dev/pts/0".into(), true));
        self.variables.entry("TERM".into()).or_insert_with(|| ("xterm".into(), true));
        self.own_session();
        self
    }

    fn own_session(&mut self) {
        self.interrupt = Arc::default();
        self.jobs = Arc::default();
    }

    /// Prints a text that is no command's.
    pub(super) async fn print(&self, io: &Io, stderr: bool, text: &str) {
        let _ = self.write(if stderr { &io.stderr } else { &io.stdout }, text.as_bytes()).await; // a reader that left
    }

    /// What wakes when Ctrl-C is typed.
    pub(super) fn interrupt(&self) -> Arc<Notify> {
        self.interrupt.clone()
    }

    /// Runs one program with its arguments, as a container's command or an exec does.
    pub(super) async fn program(&mut self, arguments: &[String], io: &Io) -> i32 {
        let _ = self.call(arguments, io, true).await;
        self.status
    }

    /// Whether a program of that name is there.
    pub(super) fn knows(&self, program: &str) -> bool {
        builtins::program(program).is_some()
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|(value, _)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        self.variables.entry(name.into()).or_insert_with(|| (String::new(), false)).0 = value;
    }

    fn path(&self, path: &str) -> String {
        format!("/{}", normalize(&self.cwd, path))
    }

    async fn write(&self, out: &Out, data: &[u8]) -> Result<(), String> {
        match out {
            Out::Null => Ok(()),
            Out::Stream(stream) => {
                let mut stream = stream.lock().await;
                stream.write_all(data).await.map_err(|_| "Broken pipe".to_owned())
            }
            Out::File(path) => {
                self.fs.write(path, data, true, self.host.clock.now()).map_err(|error| error.to_string())
            }
            Out::Memory(buffer) => {
                let mut buffer = buffer.lock().expect("no panic under this lock");
                let room = SUBSTITUTION_BYTES.saturating_sub(buffer.len());
                buffer.extend_from_slice(&data[..data.len().min(room)]);
                Ok(())
            }
        }
    }

    async fn complain(&self, io: &Io, text: &str) {
        let line = format!("{text}\n");
        let _ = self.write(&io.stderr, line.as_bytes()).await; // nowhere left to complain to
    }

    /// Runs a text given with `-c`.
    async fn text(&mut self, text: &str, io: &Io) -> Flow {
        match parse(text) {
            Ok(list) => self.list(&list, io).await,
            Err(error) => {
                let what = match error {
                    ParseError::Incomplete => "Syntax error: end of file unexpected".to_owned(),
                    ParseError::Unexpected(what) => format!("Syntax error: \"{what}\" unexpected"),
                };
                self.complain(io, &format!("{}: 1: {what}", self.name)).await;
                self.status = 2;
                Flow::Exit
            }
        }
    }

    /// Reads commands line by line; with a prompt where somebody sits at a terminal.
    async fn read_commands(&mut self, io: &Io, prompt: bool) -> Flow {
        let mut pending = String::new();
        loop {
            if prompt {
                let text = if pending.is_empty() { "# " } else { "> " };
                if self.write(&io.stderr, text.as_bytes()).await.is_err() {
                    return Flow::Exit;
                }
            }
            let mut line = Vec::new();
            let interrupt = self.interrupt.clone();
            let read = async {
                // So that a line without end cannot fill the memory.
                let mut reader = io.stdin.lock().await;
                (&mut *reader).take(limits::STREAM_BYTES as u64 * 16).read_until(b'\n', &mut line).await
            };
            let read = tokio::select! {
                biased;
                () = interrupt.notified() => None,
                read = read => Some(read.unwrap_or(0)),
            };
            match read {
                None => {
                    pending.clear();
                    let _ = self.write(&io.stderr, b"\n").await; // the terminal may be gone: the next prompt notices
                    continue;
                }
                Some(0) => {
                    if pending.trim().is_empty() {
                        return Flow::Exit;
                    }
                    return self.text(&pending.clone(), io).await;
                }
                Some(_) => pending.push_str(&String::from_utf8_lossy(&line)),
            }
            match parse(&pending) {
                Err(ParseError::Incomplete) => continue,
                Err(ParseError::Unexpected(_)) => {
                    let text = std::mem::take(&mut pending);
                    let flow = self.text(&text, io).await;
                    if !prompt {
                        return flow;
                    }
                }
                Ok(list) => {
                    pending.clear();
                    if self.list(&list, io).await == Flow::Exit {
                        return Flow::Exit;
                    }
                }
            }
        }
    }

    fn list<'a>(&'a mut self, list: &'a List, io: &'a Io) -> Run<'a, Flow> {
        Box::pin(async move {
            if self.depth > DEPTH {
                self.complain(io, &format!("{}: too deep", self.name)).await;
                self.status = 2;
                return Flow::Exit;
            }
            self.depth += 1;
            let mut flow = Flow::Next;
            for item in &list.0 {
                flow = if item.background { self.background(item, io) } else { self.item(item, io).await };
                if flow != Flow::Next {
                    break;
                }
            }
            self.depth -= 1;
            flow
        })
    }

    fn background(&mut self, item: &Item, io: &Io) -> Flow {
        let (mut shell, mut io, item) = (self.clone(), io.clone(), item.clone());
        shell.jobs = Arc::default();
        io.stdin = input(tokio::io::empty());
        let job = async move {
            shell.item(&item, &io).await;
            shell.status
        };
        let job: Run<'static, i32> = Box::pin(job); // boxed, so that the type of `list` does not contain itself
        let number = self.host.numbers.fetch_add(1, Ordering::Relaxed) + FIRST_NUMBER;
        self.jobs.lock().expect("no panic under this lock").start(number, job);
        self.status = 0;
        Flow::Next
    }

    async fn item(&mut self, item: &Item, io: &Io) -> Flow {
        let mut flow = self.pipeline(&item.first, io).await;
        // `set -e` looks only at the last command of a chain, and not at negated ones.
        let mut decisive = !item.first.negated && item.rest.is_empty();
        for (at, (join, pipeline)) in item.rest.iter().enumerate() {
            if flow != Flow::Next {
                return flow;
            }
            if (*join == Join::And) == (self.status == 0) {
                flow = self.pipeline(pipeline, io).await;
                decisive = !pipeline.negated && at + 1 == item.rest.len();
            } else {
                decisive = false;
            }
        }
        if flow == Flow::Next && self.errexit && decisive && self.status != 0 { Flow::Exit } else { flow }
    }

    async fn pipeline(&mut self, pipeline: &Pipeline, io: &Io) -> Flow {
        let flow = match pipeline.commands.as_slice() {
            [command] => self.command(command, io).await,
            commands => {
                let mut runs: Vec<Run<'_, i32>> = Vec::new();
                let mut stdin = io.stdin.clone();
                for (at, command) in commands.iter().enumerate() {
                    let mut shell = self.clone();
                    let (stdout, next) = if at + 1 == commands.len() {
                        (io.stdout.clone(), input(tokio::io::empty()))
                    } else {
                        let (writer, reader) = duplex(limits::STREAM_BYTES);
                        (output(writer), input(reader))
                    };
                    let io = Io { stdin: std::mem::replace(&mut stdin, next), stdout, stderr: io.stderr.clone() };
                    runs.push(Box::pin(async move {
                        shell.command(command, &io).await;
                        shell.status // and the pipe is closed with `io`
                    }));
                }
                self.status = futures::future::join_all(runs).await.pop().unwrap_or(0);
                Flow::Next
            }
        };
        if pipeline.negated {
            self.status = i32::from(self.status == 0);
        }
        flow
    }

    async fn redirect(&mut self, command: &Command, io: &Io) -> Result<Io, String> {
        let mut io = io.clone();
        for redirect in &command.redirects {
            let out = match &redirect.to {
                To::Read(word) => {
                    let path = self.expand_one(word, &io).await;
                    let data =
                        self.fs.read(&self.path(&path)).map_err(|error| format!("cannot open {path}: {error}"))?;
                    io.stdin = input(std::io::Cursor::new(data.to_vec()));
                    continue;
                }
                To::Here(word) => {
                    let text = match word.get() {
                        Some(word) => self.expand_one(word, &io).await,
                        None => String::new(),
                    };
                    io.stdin = input(std::io::Cursor::new(text.into_bytes()));
                    continue;
                }
                To::Write(word) => self.open(word, false, &io).await?,
                To::Append(word) => self.open(word, true, &io).await?,
                To::Both(word) => {
                    io.stdout = self.open(word, false, &io).await?;
                    io.stderr = io.stdout.clone();
                    continue;
                }
                To::Copy(1) => io.stdout.clone(),
                To::Copy(2) => io.stderr.clone(),
                To::Copy(0) => continue,
                To::Copy(fd) => return Err(format!("{fd}: Bad file descriptor")),
                To::Close if redirect.fd == 0 => {
                    io.stdin = input(tokio::io::empty());
                    continue;
                }
                To::Close => Out::Null,
            };
            match redirect.fd {
                1 => io.stdout = out,
                2 => io.stderr = out,
                fd => return Err(format!("{fd}: Bad file descriptor")),
            }
        }
        Ok(io)
    }

    async fn open(&mut self, word: &parse::Word, append: bool, io: &Io) -> Result<Out, String> {
        let name = self.expand_one(word, io).await;
        let path = self.path(&name);
        match path.as_str() {
            "/dev/null" => return Ok(Out::Null),
            "/dev/stdout" | "/proc/1/fd/1" => return Ok(io.stdout.clone()),
            "/dev/stderr" | "/proc/1/fd/2" => return Ok(io.stderr.clone()),
            _ => {}
        }
        let made = self.fs.write(&path, b"", append, self.host.clock.now());
        made.map_err(|error| format!("cannot create {name}: {error}"))?;
        Ok(Out::File(path))
    }

    fn command<'a>(&'a mut self, command: &'a Command, io: &'a Io) -> Run<'a, Flow> {
        Box::pin(async move {
            let io = match self.redirect(command, io).await {
                Ok(io) => io,
                Err(error) => {
                    self.complain(io, &format!("{}: 1: {error}", self.name)).await;
                    self.status = 2;
                    return Flow::Next;
                }
            };
            match &command.body {
                Body::Simple { assigns, words } => self.simple(assigns, words, &io).await,
                Body::Group(list) => self.list(list, &io).await,
                Body::Subshell(list) => {
                    let mut shell = self.clone();
                    shell.list(list, &io).await;
                    self.status = shell.status;
                    Flow::Next
                }
                Body::If { arms, otherwise } => {
                    for (condition, body) in arms {
                        let flow = self.condition(condition, &io).await;
                        if flow != Flow::Next {
                            return flow;
                        }
                        if self.status == 0 {
                            return self.list(body, &io).await;
                        }
                    }
                    self.status = 0;
                    self.list(otherwise, &io).await
                }
                Body::Loop { until, condition, body } => {
                    let mut last = 0;
                    loop {
                        // A loop without a wait in it must let others run.
                        tokio::task::yield_now().await;
                        let flow = self.condition(condition, &io).await;
                        if flow != Flow::Next {
                            return flow;
                        }
                        if (self.status == 0) == *until {
                            self.status = last;
                            return Flow::Next;
                        }
                        let flow = self.list(body, &io).await;
                        last = self.status;
                        if let Some(flow) = after_round(flow) {
                            return flow;
                        }
                    }
                }
                Body::For { name, words, body } => {
                    let values = match words {
                        Some(words) => self.expand_all(words, &io).await,
                        None => self.arguments.clone(),
                    };
                    self.status = 0;
                    for value in values {
                        tokio::task::yield_now().await;
                        self.set(name, value);
                        let flow = self.list(body, &io).await;
                        if let Some(flow) = after_round(flow) {
                            return flow;
                        }
                    }
                    Flow::Next
                }
                Body::Case { word, arms } => {
                    let value = self.expand_one(word, &io).await;
                    self.status = 0;
                    for (patterns, body) in arms {
                        for pattern in patterns {
                            let pattern = self.expand_pattern(pattern, &io).await;
                            if expand::glob(&pattern, &value) {
                                return self.list(body, &io).await;
                            }
                        }
                    }
                    Flow::Next
                }
                Body::Function { name, body } => {
                    self.functions.insert(name.clone(), body.clone());
                    self.status = 0;
                    Flow::Next
                }
            }
        })
    }

    /// A list whose failure does not count for `set -e`.
    async fn condition(&mut self, list: &List, io: &Io) -> Flow {
        let errexit = std::mem::take(&mut self.errexit);
        let flow = self.list(list, io).await;
        self.errexit = errexit;
        flow
    }

    async fn simple(&mut self, assigns: &[(String, parse::Word)], words: &[parse::Word], io: &Io) -> Flow {
        let words = self.expand_all(words, io).await;
        let mut saved = Vec::new();
        let substituted = self.status;
        if words.is_empty() {
            self.status = 0;
        }
        for (name, word) in assigns {
            let value = self.expand_one(word, io).await;
            if words.is_empty() {
                self.set(name, value);
            } else {
                saved.push((name, self.variables.insert(name.clone(), (value, true))));
            }
        }
        if words.is_empty() {
            if assigns.is_empty() {
                self.status = substituted;
            }
            return Flow::Next;
        }
        if self.trace {
            self.complain(io, &format!("+ {}", words.join(" "))).await;
        }
        let flow = self.call(&words, io, false).await;
        for (name, old) in saved {
            match old {
                Some(old) => self.variables.insert(name.clone(), old),
                None => self.variables.remove(name),
            };
        }
        flow
    }

    /// Calls a function, a builtin or a program by its words. `direct`: no shell stands between, so that only programs are
    /// found.
    fn call<'a>(&'a mut self, words: &'a [String], io: &'a Io, direct: bool) -> Run<'a, Flow> {
        Box::pin(async move {
            let Some(name) = words.first() else {
                self.status = 0;
                return Flow::Next;
            };
            if let Some(body) = self.functions.get(name).cloned() {
                if self.depth > DEPTH {
                    self.complain(io, &format!("{name}: too deep")).await;
                    self.status = 2;
                    return Flow::Exit;
                }
                self.depth += 1;
                let arguments = std::mem::replace(&mut self.arguments, words[1..].to_vec());
                let flow = self.command(&body, io).await;
                self.arguments = arguments;
                self.depth -= 1;
                return if flow == Flow::Return { Flow::Next } else { flow };
            }
            if let Some(rule) = self.host.rules.iter().find(|rule| rule.matches(words)).cloned() {
                self.status = self.answer(&rule, io).await;
                return Flow::Next;
            }
            let builtin = if direct { builtins::program(name) } else { builtins::command(name) };
            match builtin {
                Some(builtin) => {
                    let interrupt = self.interrupt.clone();
                    // A shell reading commands handles Ctrl-C by itself.
                    let own = builtin == "sh";
                    tokio::select! {
                        biased;
                        () = interrupt.notified(), if !own => {
                            self.status = 130;
                            Flow::Next
                        }
                        flow = self.builtin(builtin, words, io) => flow,
                    }
                }
                None if self.unknown == Unknown::RunsForever => std::future::pending().await,
                None if self.unknown == Unknown::Succeeds => {
                    self.status = 0;
                    Flow::Next
                }
                None => {
                    self.complain(io, &format!("{}: 1: {name}: not found", self.name)).await;
                    self.status = 127;
                    Flow::Next
                }
            }
        })
    }

    async fn answer(&self, rule: &ExecRule, io: &Io) -> i32 {
        if let Some(delay) = rule.delay {
            self.host.clock.sleep(delay).await;
        }
        let _ = self.write(&io.stdout, rule.stdout.as_bytes()).await; // a reader that left misses it
        let _ = self.write(&io.stderr, rule.stderr.as_bytes()).await;
        rule.exit_code
    }
}

/// What a loop does after a round that ended so; `None` for the next round.
fn after_round(flow: Flow) -> Option<Flow> {
    match flow {
        Flow::Next | Flow::Continue(0 | 1) => None,
        Flow::Break(0 | 1) => Some(Flow::Next),
        Flow::Break(levels) => Some(Flow::Break(levels - 1)),
        Flow::Continue(levels) => Some(Flow::Continue(levels - 1)),
        Flow::Exit => Some(Flow::Exit),
        Flow::Return => Some(Flow::Return),
    }
}
