//! One process: its streams, its signals, its end. What runs behind it (a script, the small shell, a real program) is the
//! caller's business.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::{mpsc, watch},
};
use tokio_util::task::TaskTracker;

use crate::base::limits;

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, as Ctrl-C on a terminal sends it.
    Interrupt,
    /// SIGTERM: a request to end.
    Terminate,
    /// SIGKILL: the end.
    Kill,
}

impl Signal {
    /// The signal's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
            Self::Kill => 9,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 and the signal's number for one that a signal ended.
    pub code: i32,
}

impl Exit {
    /// An ordinary end.
    pub fn code(code: i32) -> Self {
        Self { code }
    }

    /// An end by a signal.
    pub fn signal(signal: Signal) -> Self {
        Self { code: 128 + signal.number() }
    }
}

/// Which streams a process has, and whether they are a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; a terminal has none of its own.
    pub stderr: bool,
    /// Whether the streams are a terminal: one output, lines edited and echoed.
    pub tty: bool,
}

/// The outer ends of a process's streams: what a client holds. Dropping one closes it.
#[derive(Debug, Default)]
pub struct Pipes {
    /// To write to the process; shutting it down (or dropping it) is the end of its input.
    pub stdin: Option<DuplexStream>,
    /// To read what it prints.
    pub stdout: Option<DuplexStream>,
    /// To read its errors.
    pub stderr: Option<DuplexStream>,
}

/// The inner ends: what the process holds. It ends its output by dropping them.
#[derive(Debug)]
pub(super) struct Ends {
    /// Standard input; at its end at once if none was asked for.
    pub(super) stdin: Input,
    /// Standard output.
    pub(super) stdout: Output,
    /// Standard error; `None` on a terminal, where everything goes to standard output.
    pub(super) stderr: Option<Output>,
    /// The terminal's size, as it changes.
    pub(super) size: watch::Receiver<Size>,
    /// Signals.
    pub(super) signals: mpsc::UnboundedReceiver<Signal>,
    /// Whether the streams are a terminal.
    pub(super) tty: bool,
}

/// An inner end to read from.
#[derive(Debug)]
pub(super) struct Input(Option<DuplexStream>);

/// An inner end to write to; what nobody asked for goes nowhere.
#[derive(Debug)]
pub(super) struct Output(Option<DuplexStream>);

impl Output {
    /// An output that goes nowhere.
    pub(super) fn null() -> Self {
        Self(None)
    }
}

impl From<DuplexStream> for Output {
    fn from(stream: DuplexStream) -> Self {
        Self(Some(stream))
    }
}

impl From<DuplexStream> for Input {
    fn from(stream: DuplexStream) -> Self {
        Self(Some(stream))
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().0 {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.get_mut().0 {
            Some(stream) => Pin::new(stream).poll_write(cx, buf),
            None => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().0 {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().0 {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A hand on a running process; clones hold the same one. Letting go of it does not end the process.
#[derive(Clone, Debug)]
pub struct Control {
    signals: mpsc::UnboundedSender<Signal>,
    size: watch::Sender<Size>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Control {
    /// Sends a signal; nothing happens if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = self.signals.send(signal); // an ended process takes no signals
    }

    /// Changes the terminal's size.
    pub fn resize(&self, size: Size) {
        self.size.send_replace(size);
    }

    /// How the process ended, if it has.
    pub fn ended(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for the end. Cancel-safe.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.expect("waited for it"),
            Err(_) => Exit::signal(Signal::Kill), // its task was dropped with the runtime
        }
    }
}

/// A running process with its streams.
#[derive(Debug)]
pub struct Process {
    /// The hand on it.
    pub control: Control,
    /// The outer ends of its streams.
    pub pipes: Pipes,
}

/// Starts a process: a task that runs what `body` makes of the inner ends.
pub(super) fn spawn<F>(tasks: &TaskTracker, wanted: Wanted, body: impl FnOnce(Ends) -> F) -> Process
where
    F: Future<Output = Exit> + Send + 'static,
{
    let pipe = |wanted: bool| {
        let (outer, inner) = duplex(limits::STREAM_BYTES);
        if wanted { (Some(outer), Some(inner)) } else { (None, None) }
    };
    let (stdin, stdin_inner) = pipe(wanted.stdin);
    let (stdout, stdout_inner) = pipe(wanted.stdout);
    let (stderr, stderr_inner) = pipe(wanted.stderr && !wanted.tty);
    let (signals, signals_inner) = mpsc::unbounded_channel();
    let (size, size_inner) = watch::channel(Size::default());
    let (exit_sender, exit) = watch::channel(None);
    let ends = Ends {
        stdin: Input(stdin_inner),
        stdout: Output(stdout_inner),
        stderr: (!wanted.tty).then_some(Output(stderr_inner)),
        size: size_inner,
        signals: signals_inner,
        tty: wanted.tty,
    };
    let body = body(ends);
    tasks.spawn(async move {
        exit_sender.send_replace(Some(body.await));
    });
    Process { control: Control { signals, size, exit }, pipes: Pipes { stdin, stdout, stderr } }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn output_written_before_the_end_is_read_to_its_end() {
        let tasks = TaskTracker::new();
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        let mut process = spawn(&tasks, wanted, |mut ends| async move {
            let mut text = String::new();
            ends.stdin.read_to_string(&mut text).await.unwrap();
            ends.stdout.write_all(text.to_uppercase().as_bytes()).await.unwrap();
            Exit::code(3)
        });
        let mut stdin = process.pipes.stdin.take().unwrap();
        stdin.write_all(b"hello").await.unwrap();
        drop(stdin);
        let mut text = String::new();
        process.pipes.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), process.control.wait().await), ("HELLO", Exit::code(3)));
    }

    #[tokio::test]
    async fn a_process_without_input_is_at_its_end_and_output_that_nobody_wants_goes_nowhere() {
        let tasks = TaskTracker::new();
        let process = spawn(&tasks, Wanted::default(), |mut ends| async move {
            let mut text = Vec::new();
            ends.stdin.read_to_end(&mut text).await.unwrap();
            ends.stdout.write_all(&vec![b'x'; 3 * limits::STREAM_BYTES]).await.unwrap();
            Exit::code(text.len() as i32)
        });
        assert_eq!(process.control.wait().await, Exit::code(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_while_nobody_reads() {
        let tasks = TaskTracker::new();
        let wanted = Wanted { stdout: true, ..Wanted::default() };
        let mut process = spawn(&tasks, wanted, |mut ends| async move {
            ends.stdout.write_all(&vec![b'x'; 2 * limits::STREAM_BYTES]).await.unwrap();
            Exit::code(0)
        });
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(process.control.ended(), None);
        let mut read = Vec::new();
        process.pipes.stdout.take().unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!((read.len(), process.control.wait().await), (2 * limits::STREAM_BYTES, Exit::code(0)));
    }
}
