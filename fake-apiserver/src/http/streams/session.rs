//! One upgraded connection: bytes between a WebSocket and a process.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::Mutex,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message as Frame,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::channels::{self, ERROR, Message, Protocol, STDERR, STDOUT};
use crate::{
    base::Status,
    clock::Clock,
    kubelet::{Control, Process, Signal},
};

/// What the streams belong to.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A command of its own.
    Exec(Vec<String>),
    /// A container's program.
    Attach,
}

/// A session's terms.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) protocol: Protocol,
    pub(super) clock: Clock,
    pub(super) kind: Kind,
}

/// How long a client may take to answer our closing.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// How often a client that cannot be read from, because its process does not read, is asked whether it is still there.
pub(super) const PING: Duration = Duration::from_secs(5);

pub(super) type Sink<S> = Mutex<SplitSink<WebSocketStream<S>, Frame>>;

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// Ends a process when it is dropped: a command whose client is gone is gone too.
#[derive(Debug)]
pub(in crate::http) struct Leash(pub(in crate::http) Control);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.signal(Signal::Kill);
    }
}

impl Session {
    /// Carries bytes until the process ends or the client leaves.
    pub(super) async fn run<S>(self, socket: WebSocketStream<S>, process: Result<Process, Status>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (sink, mut messages) = socket.split();
        let sink = Mutex::new(sink);
        let end = match process {
            Err(status) => channels::failure(&status),
            Ok(process) => {
                let Process { control, pipes } = process;
                // Who only watched a program leaves it alone.
                let _leash = matches!(self.kind, Kind::Exec(_)).then(|| Leash(control.clone()));
                // As the kubelet does: an empty message says that the streams are there.
                let first = if pipes.stdout.is_some() { STDOUT } else { STDERR };
                if send(&sink, channels::write(first, b"")).await.is_err() {
                    return;
                }
                let watched = pipes.stdout.is_some() || pipes.stderr.is_some();
                let printed = async {
                    let (out, err) =
                        tokio::join!(print(STDOUT, pipes.stdout, &sink), print(STDERR, pipes.stderr, &sink),);
                    out.and(err)?;
                    // Who watched a program may leave it before its end.
                    let left = watched && matches!(self.kind, Kind::Attach);
                    Ok::<_, Gone>(if left { None } else { Some(control.wait().await) })
                };
                let typed = self.type_in(&mut messages, pipes.stdin, &control, &sink);
                let exit = tokio::select! {
                    biased;
                    exit = printed => match exit {
                        Ok(exit) => exit,
                        Err(Gone) => return,
                    },
                    Gone = typed => return,
                };
                match (&self.kind, exit) {
                    (Kind::Exec(command), Some(exit)) => channels::exit_status(command, exit.code),
                    // Who watches a program is not told how it ended.
                    (Kind::Exec(_), None) | (Kind::Attach, _) => channels::exit_status(&[], 0),
                }
            }
        };
        let _ = self.close(&sink, &mut messages, &end).await; // a client that has left misses it
    }

    /// Says how it ended, and closes in order: a closing without a code makes kubectl fail.
    async fn close<S>(
        &self,
        sink: &Sink<S>,
        messages: &mut SplitStream<WebSocketStream<S>>,
        end: &Value,
    ) -> Result<(), Gone>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        send(sink, channels::write(ERROR, end.to_string().as_bytes())).await?;
        say_close(sink).await?;
        let answered = async { while let Some(Ok(_)) = messages.next().await {} };
        let _ = self.clock.timeout(CLOSING, answered).await; // or it does not answer: then we go
        Ok(())
    }

    /// Takes what the client sends until it leaves.
    async fn type_in<S>(
        &self,
        messages: &mut SplitStream<WebSocketStream<S>>,
        mut stdin: Option<DuplexStream>,
        control: &Control,
        sink: &Sink<S>,
    ) -> Gone
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        loop {
            let data = match messages.next().await {
                Some(Ok(Frame::Binary(data))) => data,
                Some(Ok(Frame::Text(text))) => Bytes::from(text),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {
                    // The answer to a ping is queued and goes out with the next message; push it.
                    if sink.lock().await.flush().await.is_err() {
                        return Gone;
                    }
                    continue;
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return Gone,
            };
            match channels::read(self.protocol, data) {
                Message::Stdin(data) => {
                    let Some(pipe) = &mut stdin else { continue };
                    let written = {
                        let mut write = std::pin::pin!(pipe.write_all(&data));
                        loop {
                            tokio::select! {
                                biased;
                                written = &mut write => break written,
                                () = self.clock.sleep(PING) => {
                                    if sink.lock().await.send(Frame::Ping(Bytes::new())).await.is_err() {
                                        return Gone;
                                    }
                                }
                            }
                        }
                    };
                    if written.is_err() {
                        stdin = None; // the process has closed its input
                    }
                }
                Message::EndOfStdin => stdin = None,
                Message::Resize(size) => control.resize(size),
                Message::Other => {}
            }
        }
    }
}

/// Closes in order, with a code.
pub(super) async fn say_close<S>(sink: &Sink<S>) -> Result<(), Gone>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.lock().await.send(Frame::Close(Some(frame))).await.map_err(|_| Gone)
}

/// Sends a message.
pub(super) async fn send<S>(sink: &Sink<S>, message: Bytes) -> Result<(), Gone>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    sink.lock().await.send(Frame::Binary(message)).await.map_err(|_| Gone)
}

/// Carries one output to its end.
pub(super) async fn print<S>(channel: u8, pipe: Option<impl AsyncRead + Unpin>, sink: &Sink<S>) -> Result<(), Gone>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 32 * 1024];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => send(sink, channels::write(channel, &chunk[..count])).await?,
        }
    }
}
