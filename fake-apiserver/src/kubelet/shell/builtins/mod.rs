//! The small shell's commands: what the shell itself does, and the commands of a few words. What works on files and on
//! text stands in rooms of its own.

mod files;
mod tar;
mod text;

use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};

pub(in crate::kubelet) use self::text::decode_base64;
use self::text::{echo, printf};
use super::{Flow, In, Io, Run, Shell, Unknown, fs::Node, input, jobs::signal_number};
use crate::{base::limits, kubelet::process::Signal};

/// What lies as a file in the container's PATH.
const PROGRAMS: [&str; 39] = [
    "[", "base64", "basename", "cat", "cp", "date", "dirname", "echo", "env", "false", "grep", "head", "hostname",
    "id", "kill", "ls", "mkdir", "mv", "nproc", "printenv", "printf", "ps", "pwd", "rm", "rmdir", "seq", "sh", "sleep",
    "sort", "tail", "tar", "tee", "test", "touch", "true", "uname", "wc", "which", "whoami",
];

/// What only the shell itself can do.
const BUILTINS: [&str; 19] = [
    ":", ".", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "read", "return", "set", "shift",
    "source", "trap", "type", "unset", "wait",
];

/// The program behind a name or path.
pub(super) fn program(name: &str) -> Option<&'static str> {
    let name = match name.rsplit_once('/') {
        Some(("/bin" | "/usr/bin" | "/usr/local/bin" | "/sbin" | "/usr/sbin", name)) => name,
        Some(_) => return None,
        None => name,
    };
    let name = if matches!(name, "bash" | "ash" | "dash") { "sh" } else { name };
    PROGRAMS.into_iter().find(|program| *program == name)
}

/// The builtin or program behind a name.
pub(super) fn command(name: &str) -> Option<&'static str> {
    BUILTINS.into_iter().find(|builtin| *builtin == name).or_else(|| program(name))
}

/// A failed command: what it complains, and its status.
struct Failure(String, i32);

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text, 1)
    }
}

/// Splits `-ab` options off; stops at the first argument that is none, or at `--`.
fn options(words: &[String]) -> (String, &[String]) {
    let mut letters = String::new();
    let mut rest = words;
    while let Some((first, others)) = rest.split_first() {
        match first.strip_prefix('-') {
            Some("-") => {
                rest = others;
                break;
            }
            Some(found) if !found.is_empty() && !found.starts_with(|c: char| c.is_ascii_digit()) => {
                letters.push_str(found);
                rest = others;
            }
            _ => break,
        }
    }
    (letters, rest)
}

impl Shell {
    pub(super) fn builtin<'a>(&'a mut self, name: &'static str, words: &'a [String], io: &'a Io) -> Run<'a, Flow> {
        Box::pin(async move {
            let arguments = &words[1..];
            let number = || arguments.first().and_then(|text| text.parse::<i32>().ok());
            match name {
                "exit" | "return" => {
                    self.status = number().map_or(self.status, |code| code & 0xff);
                    return if name == "exit" { Flow::Exit } else { Flow::Return };
                }
                "break" => return Flow::Break(number().and_then(|n| u32::try_from(n).ok()).unwrap_or(1)),
                "continue" => return Flow::Continue(number().and_then(|n| u32::try_from(n).ok()).unwrap_or(1)),
                "eval" => return self.text(&arguments.join(" "), io).await,
                "exec" if arguments.is_empty() => return Flow::Next,
                "exec" => {
                    self.call(arguments, io, false).await;
                    return Flow::Exit;
                }
                "command" => match arguments.first().map(String::as_str) {
                    Some("-v") => return self.which(&arguments[1..], io).await,
                    _ => return self.call(arguments, io, false).await,
                },
                "which" | "type" => return self.which(arguments, io).await,
                "." | "source" => {
                    let Some(path) = arguments.first() else { return Flow::Next };
                    return match self.fs.read(&self.path(path)) {
                        Ok(data) => self.text(&String::from_utf8_lossy(&data), io).await,
                        Err(_) => {
                            self.complain(io, &format!("{}: 1: .: cannot open {path}", self.name)).await;
                            self.status = 2;
                            Flow::Exit
                        }
                    };
                }
                "wait" => {
                    // Taken out of the lock while it waits: nobody else of this shell runs meanwhile.
                    let mut jobs = std::mem::take(&mut *self.jobs.lock().expect("no panic under this lock"));
                    self.status = 0;
                    if arguments.is_empty() {
                        jobs.wait(None).await;
                    }
                    for word in arguments {
                        self.status = match jobs.find(word) {
                            Some(number) => jobs.wait(Some(number)).await,
                            None => 127,
                        };
                    }
                    *self.jobs.lock().expect("no panic under this lock") = jobs;
                    return Flow::Next;
                }
                "sh" => {
                    self.status = self.sh(arguments, io).await;
                    return Flow::Next;
                }
                "env" => return self.env(arguments, io).await,
                _ => {}
            }
            self.status = match self.run(name, arguments, io).await {
                Ok(status) => status,
                Err(Failure(text, status)) => {
                    self.complain(io, &format!("{name}: {text}")).await;
                    status
                }
            };
            Flow::Next
        })
    }

    /// A shell in the shell.
    async fn sh(&self, arguments: &[String], io: &Io) -> i32 {
        let mut shell = self.clone();
        shell.variables.retain(|_, (_, exported)| *exported);
        shell.functions.clear();
        shell.arguments.clear();
        shell.status = 0;
        shell.jobs = std::sync::Arc::default();
        let (mut letters, mut rest) = (String::new(), arguments);
        while let Some((first, others)) = rest.split_first() {
            let Some(found) = first.strip_prefix(['-', '+']).filter(|found| !found.is_empty()) else { break };
            rest = others;
            match found {
                "-" => break,
                "-login" | "-norc" | "-noprofile" | "-posix" => {}
                "o" => rest = rest.get(1..).unwrap_or_default(),
                found => {
                    letters.push_str(found);
                    if found.ends_with('o') {
                        rest = rest.get(1..).unwrap_or_default(); // `-eo pipefail`
                    }
                }
            }
        }
        shell.errexit = letters.contains('e');
        shell.trace = letters.contains('x');
        if letters.contains('c') {
            let Some((text, rest)) = rest.split_first() else {
                self.complain(io, "sh: 0: -c requires an argument").await;
                return 2;
            };
            if let Some((name, arguments)) = rest.split_first() {
                shell.name = name.clone();
                shell.arguments = arguments.to_vec();
            }
            shell.text(text, io).await;
        } else if let Some((path, arguments)) = rest.split_first() {
            let data = match shell.fs.read(&shell.path(path)) {
                Ok(data) => data,
                Err(_) if shell.unknown == Unknown::RunsForever => std::future::pending().await,
                Err(_) => {
                    self.complain(io, &format!("sh: 0: cannot open {path}: No such file")).await;
                    return 2;
                }
            };
            shell.name = path.clone();
            shell.arguments = arguments.to_vec();
            shell.text(&String::from_utf8_lossy(&data), io).await;
        } else {
            let terminal = self.variable("TTY").is_some_and(|tty| !tty.is_empty());
            shell.read_commands(io, terminal || letters.contains('i')).await;
        }
        shell.status
    }

    async fn env(&mut self, arguments: &[String], io: &Io) -> Flow {
        let mut shell = self.clone();
        let mut rest = arguments;
        while let Some((first, others)) = rest.split_first() {
            if first == "-i" {
                shell.variables.clear();
            } else if let Some((name, value)) = first.split_once('=') {
                shell.variables.insert(name.into(), (value.into(), true));
            } else {
                break;
            }
            rest = others;
        }
        if rest.is_empty() {
            let mut text = String::new();
            for (name, (value, exported)) in &shell.variables {
                if *exported {
                    text.push_str(&format!("{name}={value}\n"));
                }
            }
            self.status = i32::from(self.write(&io.stdout, text.as_bytes()).await.is_err());
        } else {
            shell.call(rest, io, true).await;
            self.status = shell.status;
        }
        Flow::Next
    }

    async fn which(&mut self, names: &[String], io: &Io) -> Flow {
        self.status = 0;
        for name in names {
            let text = match (program(name), command(name)) {
                (Some(found), _) => format!("/bin/{found}\n"),
                (None, Some(found)) => format!("{found}\n"),
                (None, None) => {
                    self.status = 127;
                    continue;
                }
            };
            let _ = self.write(&io.stdout, text.as_bytes()).await; // a reader that left misses it
        }
        Flow::Next
    }

    async fn run(&mut self, name: &str, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let first = arguments.first().map(String::as_str);
        let print = match name {
            ":" | "true" => return Ok(0),
            "false" => return Ok(1),
            "trap" => return Ok(0),
            "kill" => return self.kill(arguments, io).await,
            "tar" => return self.tar(arguments, io).await,
            "test" => return Ok(i32::from(!self.test(arguments)?)),
            "[" => match arguments.split_last() {
                Some((last, rest)) if last == "]" => return Ok(i32::from(!self.test(rest)?)),
                _ => return Err(Failure("missing ]".into(), 2)),
            },
            "sleep" => {
                let mut total = Duration::ZERO;
                for argument in arguments {
                    match duration(argument) {
                        Some(duration) => total = total.saturating_add(duration),
                        None if matches!(argument.as_str(), "infinity" | "inf") => std::future::pending().await,
                        None => return Err(format!("invalid time interval '{argument}'").into()),
                    }
                }
                if arguments.is_empty() {
                    return Err("missing operand".to_owned().into());
                }
                self.host.clock.sleep(total).await;
                return Ok(0);
            }
            "cd" => return self.cd(first).map_err(|error| Failure(error, 2)),
            "export" => {
                for argument in arguments {
                    let (name, value) = match argument.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (argument.as_str(), None),
                    };
                    let entry = self.variables.entry(name.into()).or_default();
                    entry.1 = true;
                    if let Some(value) = value {
                        entry.0 = value.into();
                    }
                }
                return Ok(0);
            }
            "unset" => {
                for name in arguments {
                    self.variables.remove(name);
                    self.functions.remove(name);
                }
                return Ok(0);
            }
            "shift" => {
                let count = first.and_then(|text| text.parse().ok()).unwrap_or(1).min(self.arguments.len());
                self.arguments.drain(..count);
                return Ok(0);
            }
            "set" => {
                for argument in arguments {
                    match argument.as_str() {
                        text if text.starts_with('-') && text != "--" => {
                            self.errexit |= text.contains('e');
                            self.trace |= text.contains('x');
                        }
                        text if text.starts_with('+') => {
                            self.errexit &= !text.contains('e');
                            self.trace &= !text.contains('x');
                        }
                        _ => {
                            let rest =
                                arguments.iter().skip_while(|word| word.starts_with(['-', '+']) && *word != "--");
                            self.arguments = rest.skip_while(|word| *word == "--").cloned().collect();
                            break;
                        }
                    }
                }
                return Ok(0);
            }
            "read" => return self.read(arguments, io).await,
            "cat" => return self.cat(arguments, io).await,
            "tee" => return self.tee(arguments, io).await,
            "touch" | "mkdir" | "rmdir" | "rm" | "cp" | "mv" => return self.files(name, arguments),
            "head" | "tail" | "wc" | "grep" | "sort" | "base64" => return self.filter(name, arguments, io).await,
            "echo" => echo(arguments),
            "printf" => printf(arguments),
            "pwd" => format!("{}\n", self.cwd),
            "whoami" => "root\n".into(),
            "id" => match first {
                Some("-u" | "-g") => "0\n".into(),
                Some("-un" | "-gn") => "root\n".into(),
                _ => "uid=0(root) gid=0(root) groups=0(root)\n".into(),
            },
            "hostname" => format!("{}\n", self.host.hostname),
            "nproc" => "1\n".into(),
            "ps" => "PID   USER     COMMAND\n    1 root     sh\n".into(),
            "printenv" => match first {
                None => {
                    self.variables.iter().filter(|(_, v)| v.1).map(|(name, v)| format!("{name}={}\n", v.0)).collect()
                }
                Some(name) => match self.variable(name) {
                    Some(value) => format!("{value}\n"),
                    None => return Ok(1),
                },
            },
            "uname" => match first {
                Some("-a") => format!("Linux {} 6.12.0-scripted #1 SMP x86_64 GNU/Linux\n", self.host.hostname),
                Some("-m") => "x86_64\n".into(),
                Some("-r") => "6.12.0-scripted\n".into(),
                Some("-n") => format!("{}\n", self.host.hostname),
                _ => "Linux\n".into(),
            },
            "date" => {
                let now = self.host.clock.now().to_zoned(TimeZone::UTC);
                match arguments.iter().find_map(|argument| argument.strip_prefix('+')) {
                    Some("%s") => format!("{}\n", now.timestamp().as_second()),
                    Some(format) => match jiff::fmt::strtime::format(format, &now) {
                        Ok(text) => format!("{text}\n"),
                        Err(_) => return Err(format!("bad format '{format}'").into()),
                    },
                    None => format!("{}\n", now.strftime("%a %b %e %H:%M:%S UTC %Y")),
                }
            }
            "basename" => {
                let path = first.unwrap_or_default().trim_end_matches('/');
                let name = path.rsplit('/').next().unwrap_or_default();
                let suffix = arguments.get(1).map(String::as_str).unwrap_or_default();
                format!("{}\n", name.strip_suffix(suffix).filter(|rest| !rest.is_empty()).unwrap_or(name))
            }
            "dirname" => match first.unwrap_or_default().trim_end_matches('/').rsplit_once('/') {
                Some(("", _)) => "/\n".into(),
                Some((parent, _)) => format!("{parent}\n"),
                None => ".\n".into(),
            },
            "seq" => {
                let numbers: Vec<i64> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
                let (from, step, to) = match numbers.as_slice() {
                    [to] => (1, 1, *to),
                    [from, to] => (*from, 1, *to),
                    [from, step, to] if *step != 0 => (*from, *step, *to),
                    _ => return Err("missing operand".to_owned().into()),
                };
                let mut at = from;
                while (step > 0 && at <= to) || (step < 0 && at >= to) {
                    self.write(&io.stdout, format!("{at}\n").as_bytes()).await?;
                    at = at.saturating_add(step);
                }
                return Ok(0);
            }
            "ls" => return self.ls(arguments, io).await,
            other => return Err(format!("{other} is not there").into()),
        };
        self.write(&io.stdout, print.as_bytes()).await?;
        Ok(0)
    }

    fn cd(&mut self, to: Option<&str>) -> Result<i32, String> {
        let to = match to {
            None => self.variable("HOME").unwrap_or("/root").to_owned(),
            Some("-") => self.variable("OLDPWD").unwrap_or("/").to_owned(),
            Some(to) => to.to_owned(),
        };
        let path = self.path(&to);
        match self.fs.stat(&path) {
            Ok(Node::Dir { .. }) => {
                let old = std::mem::replace(&mut self.cwd, path.clone());
                self.variables.insert("OLDPWD".into(), (old, true));
                self.variables.insert("PWD".into(), (path, true));
                Ok(0)
            }
            Ok(Node::File { .. }) => Err(format!("can't cd to {to}: Not a directory")),
            Err(_) => Err(format!("can't cd to {to}: No such file or directory")),
        }
    }

    fn test(&self, words: &[String]) -> Result<bool, Failure> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for (join, all) in [("-o", false), ("-a", true)] {
            if words.len() > 4
                && let Some(at) = words.iter().position(|word| *word == join)
            {
                let side = |words: &[&str]| self.test(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
                let (left, right) = (side(&words[..at])?, side(&words[at + 1..])?);
                return Ok(if all { left && right } else { left || right });
            }
        }
        let node = |path: &str| self.fs.stat(&self.path(path));
        let number = |text: &str| text.parse::<i64>().map_err(|_| Failure(format!("Illegal number: {text}"), 2));
        Ok(match words.as_slice() {
            [] => false,
            ["!", rest @ ..] => !self.test(&rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?,
            [text] => !text.is_empty(),
            ["-n", text] => !text.is_empty(),
            ["-z", text] => text.is_empty(),
            ["-e" | "-r" | "-w" | "-L" | "-h", path] => node(path).is_ok(),
            ["-f", path] => matches!(node(path), Ok(Node::File { .. })),
            ["-d", path] => matches!(node(path), Ok(Node::Dir { .. })),
            ["-x", path] => matches!(node(path), Ok(Node::Dir { .. })) || program(path).is_some(),
            ["-s", path] => matches!(node(path), Ok(Node::File { data, .. }) if !data.is_empty()),
            ["-t", _] => self.variable("TTY").is_some_and(|tty| !tty.is_empty()),
            [left, "=" | "==", right] => left == right,
            [left, "!=", right] => left != right,
            [left, "-eq", right] => number(left)? == number(right)?,
            [left, "-ne", right] => number(left)? != number(right)?,
            [left, "-lt", right] => number(left)? < number(right)?,
            [left, "-le", right] => number(left)? <= number(right)?,
            [left, "-gt", right] => number(left)? > number(right)?,
            [left, "-ge", right] => number(left)? >= number(right)?,
            [first, ..] => return Err(Failure(format!("{first}: unexpected operator"), 2)),
        })
    }

    /// Ends background commands of this shell. The container's own program takes no signal from inside, as in Linux.
    async fn kill(&self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let mut rest = arguments.iter();
        let (mut signal, mut words) = (Signal::Terminate.number(), Vec::new());
        while let Some(argument) = rest.next() {
            let named = match argument.strip_prefix('-') {
                Some("-") => {
                    words.extend(rest.by_ref());
                    break;
                }
                Some("s" | "n") => rest.next().map(String::as_str),
                Some(name) if words.is_empty() => Some(name),
                _ => {
                    words.push(argument);
                    continue;
                }
            };
            let named = named.unwrap_or_default();
            signal =
                signal_number(named).ok_or_else(|| Failure(format!("{named}: invalid signal specification"), 1))?;
        }
        if words.is_empty() {
            return Err(Failure("usage: kill [-s sigspec | -sigspec] pid | jobspec ...".into(), 2));
        }
        let mut status = 0;
        for word in words {
            let sent = {
                let mut jobs = self.jobs.lock().expect("no panic under this lock");
                let number = jobs.find(word);
                word == "1" || number.is_some_and(|number| jobs.signal(number, (signal != 0).then_some(signal)))
            };
            if !sent {
                self.complain(io, &format!("{}: kill: ({word}) - No such process", self.name)).await;
                status = 1;
            }
        }
        Ok(status)
    }

    async fn read(&mut self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let (letters, names) = options(arguments);
        let raw = letters.contains('r');
        let mut line = Vec::new();
        let mut ended = true;
        {
            let mut stdin = io.stdin.lock().await;
            loop {
                let left = limits::STREAM_BYTES.saturating_sub(line.len());
                let limited = &mut (&mut *stdin).take(left as u64);
                let count = limited.read_until(b'\n', &mut line).await.unwrap_or(0);
                ended &= count == 0 || line.last() != Some(&b'\n');
                if line.last() == Some(&b'\n') {
                    ended = false;
                    line.pop();
                    // A line that ends in a single backslash goes on in the next.
                    let slashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
                    if !raw && slashes % 2 == 1 {
                        line.pop();
                        continue;
                    }
                }
                break;
            }
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let names: Vec<&str> =
            if names.is_empty() { vec!["REPLY"] } else { names.iter().map(String::as_str).collect() };
        let ifs = self.variable("IFS").unwrap_or(" \t\n").to_owned();
        let values = split_fields(&text, &ifs, names.len(), raw);
        for (name, value) in names.into_iter().zip(values) {
            self.set(name, value);
        }
        Ok(i32::from(ended))
    }

    /// Opens an argument for reading; `-` is standard input.
    fn source(&self, name: &str, io: &Io) -> Result<In, String> {
        if matches!(name, "-" | "/dev/stdin") {
            return Ok(io.stdin.clone());
        }
        match self.fs.read(&self.path(name)) {
            Ok(data) => Ok(input(std::io::Cursor::new(data.to_vec()))),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }
}

/// The fields of a line as `read` gives them to so many names: the last one gets the rest. Blanks in `ifs` separate together
/// and are taken off at both ends, other characters of it separate one by one. Unless `raw`, a backslash takes the next
/// character out of all this.
fn split_fields(text: &str, ifs: &str, count: usize, raw: bool) -> Vec<String> {
    let mut rest: Vec<(char, bool)> = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if !raw => rest.extend(chars.next().map(|next| (next, true))),
            c => rest.push((c, false)),
        }
    }
    let separates = |(c, escaped): (char, bool)| !escaped && ifs.contains(c);
    let blank = |one: (char, bool)| separates(one) && one.0.is_ascii_whitespace();
    let text = |part: &[(char, bool)]| part.iter().map(|(c, _)| *c).collect::<String>();
    let skip = |rest: &[(char, bool)]| rest.iter().take_while(|one| blank(**one)).count();
    let mut rest = &rest[..];
    rest = &rest[skip(rest)..];
    let end = rest.len() - rest.iter().rev().take_while(|one| blank(**one)).count();
    rest = &rest[..end];
    let mut fields = Vec::new();
    while fields.len() + 1 < count {
        let at = rest.iter().position(|one| separates(*one)).unwrap_or(rest.len());
        fields.push(text(&rest[..at]));
        rest = &rest[at..];
        rest = &rest[skip(rest)..];
        if rest.first().is_some_and(|one| separates(*one)) {
            rest = &rest[1..];
            rest = &rest[skip(rest)..];
        }
    }
    // A single separator at the very end ends the last field.
    if rest.iter().filter(|one| separates(**one)).count() == 1 && rest.last().is_some_and(|one| separates(*one)) {
        rest = &rest[..rest.len() - 1];
    }
    fields.push(text(rest));
    fields
}

/// `5`, `0.5`, `2m`: what `sleep` takes.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1.0),
        (at, 'm') => (&text[..at], 60.0),
        (at, 'h') => (&text[..at], 3600.0),
        (at, 'd') => (&text[..at], 86400.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)? * unit;
    Duration::try_from_secs_f64(seconds).ok()
}
