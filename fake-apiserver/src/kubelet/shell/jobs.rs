//! The background commands of a shell: `&`, `$!`, `wait`, `kill`.

use std::collections::BTreeMap;

use tokio::task::{AbortHandle, Id, JoinSet};

use super::Run;
use crate::kubelet::process::Signal;

/// Background commands; those that still run end when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: JoinSet<i32>,
    /// All that were started and not waited for, by their numbers.
    all: BTreeMap<u32, Job>,
    last: u32,
}

#[derive(Debug)]
struct Job {
    handle: AbortHandle,
    /// What its end counts as, once a signal has ended it or it has been waited for.
    status: Option<i32>,
}

/// Background commands of a shell that are kept for `wait`; the oldest that have ended go first.
const JOBS: usize = 1000;

impl Jobs {
    /// Starts a command; `number` is its process number.
    pub(super) fn start(&mut self, number: u32, job: Run<'static, i32>) {
        while self.all.len() >= JOBS
            && let Some(ended) = self.all.iter().find(|(_, job)| job.handle.is_finished()).map(|(number, _)| *number)
        {
            self.all.remove(&ended);
        }
        let handle = self.running.spawn(job);
        self.all.insert(number, Job { handle, status: None });
        self.last = number;
    }

    /// `$!`.
    pub(super) fn last(&self) -> Option<u32> {
        (self.last != 0).then_some(self.last)
    }

    /// The job that a word of `kill` or `wait` means: a process number, or `%1` for the first that was started.
    pub(super) fn find(&self, word: &str) -> Option<u32> {
        match word.strip_prefix('%') {
            Some("%" | "+" | "") => self.last(),
            Some(at) => self.all.keys().nth(at.parse::<usize>().ok()?.checked_sub(1)?).copied(),
            None => word.parse().ok().filter(|number| self.all.contains_key(number)),
        }
    }

    /// Sends a signal, `None` to ask whether it would be taken; whether there is such a command that runs.
    pub(super) fn signal(&mut self, number: u32, signal: Option<i32>) -> bool {
        let Some(job) = self.all.get_mut(&number).filter(|job| !job.handle.is_finished() && job.status.is_none())
        else {
            return false;
        };
        if let Some(signal) = signal {
            job.handle.abort();
            job.status = Some(128 + signal);
        }
        true
    }

    /// Waits for a command, or for all; the status of that command.
    pub(super) async fn wait(&mut self, number: Option<u32>) -> i32 {
        if let Some(status) = number.and_then(|number| self.all.get(&number)?.status) {
            return self.forget(number, status);
        }
        while let Some(ended) = self.running.join_next_with_id().await {
            let (id, status): (Id, i32) = match ended {
                Ok((id, status)) => (id, status),
                Err(error) => (error.id(), 128 + Signal::Kill.number()),
            };
            let Some((at, job)) = self.all.iter_mut().find(|(_, job)| job.handle.id() == id) else { continue };
            let status = *job.status.get_or_insert(status);
            if number == Some(*at) {
                return self.forget(number, status);
            }
        }
        self.all.clear();
        0
    }

    fn forget(&mut self, number: Option<u32>, status: i32) -> i32 {
        if let Some(number) = number {
            self.all.remove(&number);
        }
        status
    }
}

/// The number of a signal by its name or number, as `kill` takes it.
pub(super) fn signal_number(word: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STOP", 19),
    ];
    if let Ok(number) = word.parse() {
        return (0..=64).contains(&number).then_some(number);
    }
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word);
    NAMES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}
