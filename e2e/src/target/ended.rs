//! What is started beside this process and must not stay when that ends, however it ends: also by a second Ctrl-C or SIGKILL,
//! which no destructor sees.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long the end may take; a program that is asked to take something away may hang.
const LAST_WORD: Duration = Duration::from_secs(30);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a program, and ends it when the input ends. Who waits for this shell has waited for the program.
const WATCHED: &str = r#"
exec 3<&0
"$0" "$@" 3<&- </dev/null &
program=$!
{ read -r _; kill -KILL "$program"; } <&3 >/dev/null 2>&1 &
watcher=$!
wait "$program" 2>/dev/null
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// Runs a program when the input ends.
const LAST: &str = r#"read -r _; exec "$0" "$@" >/dev/null </dev/null"#;

/// A shell that reads from this process, and does its part when there is nothing more to be read: when this value goes, or
/// the process does. It has a process group of its own, for Ctrl-C is for this process to handle.
#[derive(Debug)]
pub(super) struct Ended(Child);

impl Ended {
    /// A program that runs for as long as this value, with what its output goes to.
    pub(super) fn program(
        program: &OsStr,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> io::Result<Self> {
        Self::shell(WATCHED, program, arguments, stdout, stderr)
    }

    /// A program that runs when this value goes.
    pub(super) fn at_last(program: &OsStr, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Self> {
        Self::shell(LAST, program, arguments, Stdio::null(), Stdio::inherit())
    }

    fn shell(
        script: &str,
        program: &OsStr,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).process_group(0).spawn().map(Self)
    }

    /// What the program prints, if that was piped.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// How the program has ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let end = Instant::now() + LAST_WORD;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < end, "{what}: not after 30 s");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_program_is_gone_with_its_value_and_says_how_it_ended_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let write = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
        let sh = |script: &str| Ended::program("sh".as_ref(), ["-c", script], Stdio::null(), Stdio::null()).unwrap();
        let runs = sh(&write);
        eventually("it runs", || file.exists());
        let id = fs::read_to_string(&file).unwrap();
        let process = Path::new("/proc").join(id.trim());
        assert!(process.exists());
        drop(runs);
        assert!(!process.exists(), "what was waited for is gone");

        let mut fails = sh("exit 7");
        eventually("it ends", || fails.ended().unwrap().is_some());
        assert_eq!(fails.ended().unwrap().unwrap().code(), Some(7));
    }

    #[test]
    fn what_comes_last_is_done_when_the_value_goes_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("done");
        let last = Ended::at_last("touch".as_ref(), [&file]).unwrap();
        assert!(!file.exists());
        drop(last);
        assert!(file.exists());
    }
}
