//! Exec and attach over SPDY, as clients of before Kubernetes 1.30 ask for them: a stream for each of input, outputs, sizes
//! of the terminal, and the end.
//!
//! Upstream: the kubelet's `remotecommand/httpstream.go`, and `k8s.io/client-go/tools/remotecommand` for the other end.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy},
    sync::mpsc,
};

use super::{
    channels,
    session::{Kind, Leash},
    spdy::{
        self,
        frame::{Headers, value},
    },
};
use crate::{
    base::Status,
    clock::Clock,
    kubelet::{Exit, Process, Wanted},
};

/// Versions of the streams' protocol, as they are called in the handshake, newest first.
pub(super) const PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long the client may take to open its streams; upstream's `DefaultStreamCreationTimeout`.
const OPENING: Duration = Duration::from_secs(30);

/// A session's terms.
#[derive(Debug)]
pub(super) struct Remote {
    /// One of [`PROTOCOLS`].
    pub(super) protocol: &'static str,
    pub(super) clock: Clock,
    pub(super) kind: Kind,
    pub(super) wanted: Wanted,
}

/// The streams that the client has opened.
#[derive(Default)]
struct Opened {
    error: Option<DuplexStream>,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: Option<DuplexStream>,
}

fn wanted(headers: &Headers) -> bool {
    matches!(value(headers, "streamtype"), "error" | "stdin" | "stdout" | "stderr" | "resize")
}

impl Remote {
    /// Carries bytes until the process ends or the client leaves. The process is started when all streams are there.
    pub(super) async fn run<S>(&self, io: S, start: impl FnOnce() -> Result<Process, Status>)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        spdy::serve(io, &self.clock, wanted, |streams| self.handle(streams, start)).await;
    }

    async fn handle(&self, mut streams: mpsc::Receiver<spdy::Stream>, start: impl FnOnce() -> Result<Process, Status>) {
        let mut opened = Opened::default();
        if self.clock.timeout(OPENING, self.open(&mut streams, &mut opened)).await != Some(true) {
            return tracing::debug!("timed out waiting for client to create streams");
        }
        let end = match start() {
            Err(status) => channels::failure(&status),
            Ok(process) => self.carry(process, &mut opened).await,
        };
        let Some(mut error) = opened.error.take() else { return };
        let text = if self.protocol == PROTOCOLS[0] {
            end.to_string()
        } else if end["status"] == "Success" {
            String::new()
        } else {
            end["message"].as_str().unwrap_or_default().to_owned()
        };
        let _ = error.write_all(text.as_bytes()).await; // the client has left
    }

    /// Waits for the streams that were asked for; `false` if the client leaves.
    async fn open(&self, streams: &mut mpsc::Receiver<spdy::Stream>, opened: &mut Opened) -> bool {
        let Wanted { stdin, stdout, stderr, tty } = self.wanted;
        let sizes = tty && PROTOCOLS[..2].contains(&self.protocol);
        loop {
            let there = opened.error.is_some()
                && (!stdin || opened.stdin.is_some())
                && (!stdout || opened.stdout.is_some())
                && (!stderr || opened.stderr.is_some())
                && (!sizes || opened.resize.is_some());
            if there {
                return true;
            }
            let Some(stream) = streams.recv().await else { return false };
            let place = match value(&stream.headers, "streamtype") {
                "error" => &mut opened.error,
                "stdin" => &mut opened.stdin,
                "stdout" => &mut opened.stdout,
                "stderr" => &mut opened.stderr,
                _ => &mut opened.resize,
            };
            *place = Some(stream.pipe);
        }
    }

    /// Carries bytes until the process has ended and all that it printed is on its way; how it ended.
    async fn carry(&self, process: Process, opened: &mut Opened) -> Value {
        let Process { control, pipes } = process;
        // Who only watched a program leaves it alone.
        let _leash = matches!(self.kind, Kind::Exec(_)).then(|| Leash(control.clone()));
        // Who watched a program may leave it before its end.
        let leaves = matches!(self.kind, Kind::Attach) && (pipes.stdout.is_some() || pipes.stderr.is_some());
        let printed = async {
            tokio::join!(print(pipes.stdout, opened.stdout.take()), print(pipes.stderr, opened.stderr.take()));
            if leaves { Exit::code(0) } else { control.wait().await }
        };
        let typed = async {
            if let (Some(mut from), Some(mut to)) = (opened.stdin.take(), pipes.stdin) {
                let _ = copy(&mut from, &mut to).await; // the process has closed its input
                drop(to);
                // Held, so that the client is not told that nobody reads: it would take that for the end.
                std::future::pending::<()>().await;
            }
        };
        let resized = async {
            let Some(mut sizes) = opened.resize.take() else { return };
            let (mut text, mut chunk) = (Vec::new(), [0; 256]);
            while let Ok(count @ 1..) = sizes.read(&mut chunk).await {
                text.extend_from_slice(&chunk[..count]);
                // A line of JSON for each, as Go's encoder writes it; what goes on and on is none.
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    if let Some(size) = channels::size(&line) {
                        control.resize(size);
                    }
                }
                if text.len() > 1024 {
                    text.clear();
                }
            }
        };
        let exit = tokio::select! {
            biased;
            exit = printed => exit,
            never = async { tokio::join!(typed, resized); std::future::pending::<std::convert::Infallible>().await } => match never {},
        };
        match &self.kind {
            Kind::Exec(command) => channels::exit_status(command, exit.code),
            // Who watches a program is not told how it ended.
            Kind::Attach => channels::exit_status(&[], 0),
        }
    }
}

async fn print(from: Option<DuplexStream>, to: Option<DuplexStream>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = copy(&mut from, &mut to).await; // the client does not read any more
    }
}
