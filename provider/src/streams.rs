//! Commands that run: their output as streams, their end, and how they are ended. The same for every provider.

use std::{pin::Pin, sync::Arc, time::Duration};

use agent_sandbox_sdk::{Output, Signal};
use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Code, Error,
    contract::{ExecEnd, ExecHandle, ExecOutput, ExecStream},
    tracker::Activity,
};

/// How much of each output is kept while nobody reads; then the command has to wait.
const BUFFER_BYTES: usize = 256 << 10;

/// How much of each output [`Carried::output`] keeps.
const OUTPUT_BYTES: u64 = 16 << 20;

/// How long a command that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How long its output is waited for when it is known to have ended.
const DRAIN: Duration = Duration::from_secs(1);

/// 128 and the number of SIGKILL.
const KILLED: i32 = 137;

/// A command as one kind of machine has it.
pub(crate) trait Process: Send + 'static {
    /// What it prints next; `None` when both outputs have ended. May be dropped without a loss.
    fn next(&mut self) -> impl Future<Output = Result<Option<Output>, Error>> + Send;

    /// Tells it and all that it has started, and says whether there was somebody to tell.
    fn signal(&self, signal: Signal) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Its exit status, after its outputs have ended.
    fn end(self) -> impl Future<Output = Result<i32, Error>> + Send;
}

/// How a command ended, or that it is not known.
#[derive(Clone)]
enum Outcome {
    Ended(i32),
    Lost(Code, String),
}

/// A command that runs, and what ends it when it is cancelled.
pub(crate) struct Carried {
    stream: ExecStream,
    kill: CancellationToken,
}

/// Carries a command's output until it ends or `stop` is cancelled.
pub(crate) fn carry(
    process: impl Process,
    activity: &Arc<Activity>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Carried {
    let ((stdout, out), (stderr, err)) = (duplex(BUFFER_BYTES), duplex(BUFFER_BYTES));
    let (kill, ended) = (CancellationToken::new(), watch::Sender::new(None));
    let handle = Arc::new(Handle { kill: kill.clone(), ended: ended.subscribe() });
    let (busy, stop, killed) = (activity.busy(), stop.clone(), kill.clone());
    tasks.spawn(async move {
        let outcome = tokio::select! {
            outcome = run(process, out, err, killed) => outcome,
            () = stop.cancelled() => Outcome::Lost(Code::ExecConnectionFailed, "the provider was shut down".into()),
        };
        drop(busy);
        ended.send_replace(Some(outcome));
    });
    Carried { stream: ExecStream { stdout: Box::pin(stdout), stderr: Box::pin(stderr), handle }, kill }
}

impl Carried {
    /// For a caller who reads and waits.
    pub(crate) fn stream(self) -> ExecStream {
        self.stream
    }

    /// Waits for the end, and keeps what was printed. The command is ended when it takes longer than `timeout`, prints too
    /// much, or is not waited for any more.
    pub(crate) async fn output(
        self,
        cmd: &str,
        timeout: Option<Duration>,
        [failed, timed_out]: [Code; 2],
    ) -> Result<ExecOutput, Error> {
        let Self { stream: ExecStream { stdout, stderr, handle }, kill } = self;
        let guard = kill.drop_guard();
        let work = async {
            let (stdout, stderr) = tokio::try_join!(take(stdout), take(stderr))?;
            Ok::<_, Error>((stdout, stderr, handle.wait().await?.exit_code))
        };
        let done = match timeout {
            None => work.await,
            Some(timeout) => match tokio::time::timeout(timeout, work).await {
                Ok(done) => done,
                Err(_) => {
                    // The caller gets its answer once the command is gone, or cannot be ended.
                    let told = handle.kill().await;
                    let still = if told.is_ok() { "and was ended" } else { "and may still run" };
                    let message = format!("{cmd} took longer than {timeout:?} {still}");
                    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                    return Err(Error::new(timed_out, message).with("command", cmd).with("timeoutMs", millis));
                }
            },
        };
        let (stdout, stderr, exit_code) = match done {
            Ok((Some(stdout), Some(stderr), exit_code)) => (stdout, stderr, exit_code),
            Ok(_) => {
                let message = format!("{cmd} printed more than {OUTPUT_BYTES} bytes and was ended");
                return Err(Error::new(failed, message).with("command", cmd));
            }
            Err(error) => return Err(error.with("command", cmd)),
        };
        guard.disarm();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(ExecOutput { exit_code, stdout: text(stdout), stderr: text(stderr) })
    }
}

async fn run(
    mut process: impl Process,
    mut out: DuplexStream,
    mut err: DuplexStream,
    kill: CancellationToken,
) -> Outcome {
    let printed = tokio::select! {
        printed = print(&mut process, &mut out, &mut err) => Some(printed),
        () = kill.cancelled() => None,
    };
    let printed = match printed {
        Some(printed) => printed,
        None => match end(&mut process, &mut out, &mut err).await {
            Ok(true) => Ok(()),
            Ok(false) => return Outcome::Ended(KILLED),
            Err(error) => Err(error),
        },
    };
    // Whoever reads sees the end now, also while the status is on its way.
    drop((out, err));
    let ended = match printed {
        Ok(()) => process.end().await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(exit_code) => Outcome::Ended(exit_code),
        Err(error) => Outcome::Lost(error.code(), error.message().to_owned()),
    }
}

async fn print(process: &mut impl Process, out: &mut DuplexStream, err: &mut DuplexStream) -> Result<(), Error> {
    while let Some(output) = process.next().await? {
        // What nobody wants to read any more is thrown away: the command must not hang for it.
        let _ = match output {
            Output::Stdout(bytes) => out.write_all(&bytes).await,
            Output::Stderr(bytes) => err.write_all(&bytes).await,
        };
    }
    Ok(())
}

/// Ends the command, politely first. Whether its outputs have ended; if not, it is killed all the same.
async fn end(process: &mut impl Process, out: &mut DuplexStream, err: &mut DuplexStream) -> Result<bool, Error> {
    let mut told = Ok(());
    for signal in [Signal::Term, Signal::Kill] {
        let answer = tokio::time::timeout(GRACE, process.signal(signal)).await;
        let nobody_left = matches!(answer, Ok(Ok(false)));
        let patience = match answer {
            Ok(Ok(true)) => GRACE,
            Ok(Ok(false)) => DRAIN,
            Ok(Err(error)) => {
                told = Err(error);
                DRAIN
            }
            Err(_) => {
                told = Err(Error::new(Code::ExecConnectionFailed, "the command could not be told to end"));
                DRAIN
            }
        };
        if let Ok(printed) = tokio::time::timeout(patience, print(process, out, err)).await {
            return printed.map(|()| true);
        }
        if nobody_left {
            return Ok(false);
        }
    }
    told.map(|()| false)
}

struct Handle {
    kill: CancellationToken,
    ended: watch::Receiver<Option<Outcome>>,
}

impl Handle {
    async fn outcome(&self) -> Outcome {
        let gone = || Outcome::Lost(Code::ExecConnectionFailed, "the command's connection is gone".into());
        let mut ended = self.ended.clone();
        let outcome = ended.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(gone)
    }
}

#[async_trait]
impl ExecHandle for Handle {
    async fn wait(&self) -> Result<ExecEnd, Error> {
        match self.outcome().await {
            Outcome::Ended(exit_code) => Ok(ExecEnd { exit_code }),
            Outcome::Lost(code, message) => Err(Error::new(code, message)),
        }
    }

    async fn kill(&self) -> Result<(), Error> {
        self.kill.cancel();
        self.wait().await.map(|_| ())
    }
}

/// Reads an output to its end; `None` if there is more than is kept.
async fn take(from: Pin<Box<dyn AsyncRead + Send>>) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let read = from.take(OUTPUT_BYTES + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Error::new(Code::ExecConnectionFailed, "the output was not read").because(error))?;
    Ok((bytes.len() as u64 <= OUTPUT_BYTES).then_some(bytes))
}

/// Ends a command that takes longer than `timeout`.
pub(crate) fn limit(stream: &ExecStream, timeout: Option<Duration>, tasks: &TaskTracker) {
    let Some(timeout) = timeout else { return };
    let handle = stream.handle.clone();
    tasks.spawn(async move {
        if tokio::time::timeout(timeout, handle.wait()).await.is_err() {
            // How it ended is for those who wait for it.
            let _ = handle.kill().await;
        }
    });
}
