//! Reads what a run's agent prints into the stream, across lost connections.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use super::{
    credentials::{self, Redactor},
    driver::{Driver, Setback, Step, system_message},
    protocol::{self, Line, Lines, MAX_LINE_BYTES, Said},
    remote::{Remote, last_line},
    streams::blocking,
};
use crate::{
    Code, Error,
    records::{Agent, Outcome, Run, RunState, StreamEvent},
};

/// How much is read, and then recorded, at once.
const CHUNK_BYTES: usize = 64 << 10;

/// How much of a run's errors is kept.
const MAX_ERROR_BYTES: usize = 128 << 10;

/// How much an agent may print. One that prints more is ended.
const MAX_RUN_BYTES: u64 = 1 << 30;

/// A connection that is silent for so long is lost: the other end says something every 5 seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// The status by which the other end says that there may be more.
const LOOK_AGAIN: i32 = 75;

/// How far reading got.
enum Read {
    /// The agent has said its last word; that is recorded.
    Settled,
    /// There may be more.
    LookAgain,
    /// That was all: the runner has ended.
    Ended(LastWords),
}

/// What the other end says when the runner has ended.
#[derive(Debug, PartialEq, Eq)]
struct LastWords {
    /// Its exit status, `lost` or `absent`.
    how: String,
    /// How much it has printed, in bytes.
    printed_bytes: u64,
    /// What it complained last.
    complaints: String,
}

impl LastWords {
    fn read(errors: &str) -> Option<Self> {
        let (line, complaints) = errors.split_once('\n').unwrap_or((errors, ""));
        let (how, printed_bytes) = line.strip_prefix("ended ")?.split_once(' ')?;
        Some(Self { how: how.into(), printed_bytes: printed_bytes.parse().ok()?, complaints: complaints.into() })
    }
}

impl Driver {
    /// Reads until it is settled how the run ends; ends it when someone wants it to stop.
    pub(super) async fn follow(&self, away_since: &mut Option<Instant>) -> Step {
        let inner = self.inner.clone();
        let secret = blocking(move || inner.store.write(credentials::find)).await;
        // Without a key there is none to be kept out.
        let redactor = Redactor::new(secret.unwrap_or_default());
        let stop = async {
            self.wanted_to_stop().await;
            loop {
                match self.ask_to_stop().await {
                    // What it says about that, or that it is gone, is read as everything else.
                    Ok(()) => std::future::pending().await,
                    Err(Setback::Away(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Err(setback) => return setback,
                }
            }
        };
        tokio::select! {
            read = self.read_until_settled(&redactor, away_since) => read,
            setback = stop => Err(setback),
        }
    }

    async fn ask_to_stop(&self) -> Step {
        let run = self.run();
        let grace = self.inner.config().grace;
        Ok(self.reach(&run).await?.stop(&run, grace).await?)
    }

    async fn read_until_settled(&self, redactor: &Redactor, away_since: &mut Option<Instant>) -> Step {
        loop {
            let run = self.run();
            if run.state != RunState::Running {
                return Ok(());
            }
            let remote = self.reach(&run).await?;
            let read = self.read(&run, &remote, redactor).await?;
            *away_since = None;
            let outcome = match read {
                Read::Settled => return Ok(()),
                Read::LookAgain if self.run().read_bytes <= MAX_RUN_BYTES => continue,
                Read::LookAgain => {
                    let error = format!("the agent has printed more than {MAX_RUN_BYTES} bytes, and was ended");
                    Outcome::Failed { error, code: Some(Code::ResourceLimitExceeded.as_str().into()) }
                }
                Read::Ended(last_words) => self.epitaph(&run, &last_words, redactor),
            };
            return Ok(self.settle(outcome).await?);
        }
    }

    /// Reads over one connection.
    async fn read(&self, run: &Run, remote: &Remote, redactor: &Redactor) -> Step<Read> {
        let mut stream = remote.follow(run).await?;
        let mut lines = Lines::default();
        let (mut chunk, mut complaints, mut errors) = (vec![0; CHUNK_BYTES], [0; 1024], Vec::new());
        let (mut printing, mut complaining) = (true, true);
        let lost = |error: std::io::Error| {
            Setback::Away(Error::new(Code::ExecConnectionFailed, "the connection to the agent was lost").because(error))
        };
        while printing || complaining {
            let next = async {
                tokio::select! {
                    read = stream.stdout.read(&mut chunk), if printing => read.map(|bytes| (Some(bytes), None)),
                    read = stream.stderr.read(&mut complaints), if complaining => read.map(|bytes| (None, Some(bytes))),
                }
            };
            let Ok(next) = timeout(SILENCE, next).await else {
                let _ = stream.handle.kill().await;
                let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(lost(error));
            };
            match next.map_err(lost)? {
                (Some(0), _) => printing = false,
                (Some(bytes), _) => {
                    let lines = lines.push(&chunk[..bytes]);
                    if self.take(lines, redactor).await? {
                        let _ = stream.handle.kill().await;
                        return Ok(Read::Settled);
                    }
                    if self.run().read_bytes > MAX_RUN_BYTES {
                        let _ = stream.handle.kill().await;
                        return Ok(Read::LookAgain);
                    }
                }
                (None, Some(0)) => complaining = false,
                (None, Some(bytes)) => {
                    remote.sandbox.touch();
                    let room = MAX_ERROR_BYTES.saturating_sub(errors.len());
                    errors.extend_from_slice(&complaints[..bytes.min(room)]);
                }
                (None, None) => {}
            }
        }
        match stream.handle.wait().await?.exit_code {
            0 => {
                // An end without its word, or short of what there is, is that of the connection.
                let last_words = LastWords::read(&String::from_utf8_lossy(&errors));
                let heard = self.run().read_bytes + lines.partial_bytes() as u64;
                let Some(last_words) = last_words.filter(|words| words.printed_bytes == heard) else {
                    return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
                };
                // The runner has ended: what has no end of line is a line all the same.
                let settled = self.take(lines.finish().into_iter().collect(), redactor).await?;
                Ok(if settled { Read::Settled } else { Read::Ended(last_words) })
            }
            LOOK_AGAIN => Ok(Read::LookAgain),
            exit_code => {
                let said = last_line(&String::from_utf8_lossy(&errors)).to_owned();
                let message = format!("what the agent prints could not be read (exit status {exit_code}): {said}");
                Err(Setback::Away(Error::new(Code::ExecConnectionFailed, message)))
            }
        }
    }

    /// Puts lines into the stream, all in one change, with the place to go on from; says whether the run is settled.
    async fn take(&self, lines: Vec<(Line, usize)>, redactor: &Redactor) -> Step<bool> {
        if lines.is_empty() {
            return Ok(false);
        }
        let run = self.run();
        let (mut events, mut read_bytes, mut turns, mut end): (Vec<StreamEvent>, _, _, _) =
            (Vec::new(), run.read_bytes, run.turn_count, None);
        for (line, bytes) in lines {
            read_bytes += bytes as u64;
            let said = match line {
                Line::Whole(line) => protocol::read(&line, &run, redactor),
                Line::TooLong => {
                    let text = format!(
                        "The agent has printed a line of {bytes} bytes; more than {MAX_LINE_BYTES} are not read"
                    );
                    Said::Event(system_message(&run, &text), None)
                }
            };
            match said {
                Said::Nothing => {}
                Said::Event(event, turn) => {
                    turns = turn.unwrap_or(turns);
                    events.push(event);
                }
                Said::End(outcome, turn_count) => {
                    // What comes after the last word is not heard.
                    turns = turn_count;
                    end = Some(outcome);
                    break;
                }
            }
        }
        let settled = end.is_some();
        self.record(&run, move |tx, run| {
            if turns != run.turn_count
                && let Some(mut agent) = tx.get::<Agent>(&run.agent_id)?
            {
                agent.current_turn = turns;
                tx.put(&agent)?;
            }
            (run.read_bytes, run.turn_count) = (read_bytes, turns);
            if let Some(outcome) = end {
                run.state = RunState::Finishing { outcome };
            }
            Ok(events)
        })
        .await?;
        Ok(settled)
    }

    /// How a run ends whose runner has ended without a word.
    fn epitaph(&self, run: &Run, last_words: &LastWords, redactor: &Redactor) -> Outcome {
        if self.stop_recorded() || matches!(self.cancelled(), Outcome::Cancelled { reason: Some(_) }) {
            return self.cancelled();
        }
        let LastWords { how, printed_bytes: _, complaints } = last_words;
        if let Some((outcome, _)) = protocol::stderr_error(complaints, run, redactor) {
            return outcome;
        }
        let said = redactor.text(last_line(complaints).to_owned());
        let error = match how.as_str() {
            "absent" => "the sandbox has nothing of the agent any more: its pod or container was replaced".into(),
            "lost" => format!(
                "the agent was ended from outside: its pod or container was replaced, or memory ran out. Its last words: {said}"
            ),
            status => format!("the agent ended with exit status {status} without saying how it went: {said}"),
        };
        Outcome::Failed { error, code: None }
    }
}
