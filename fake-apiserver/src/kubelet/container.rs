//! One run of a container: its program, its log, and who is attached to it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Mutex as AsyncMutex, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    logs::{LogBuffer, Source},
    process::{Control, Pipes, Process, Signal, Wanted},
    real,
    scripted::Scripted,
};
use crate::{base::limits, clock::Clock};

/// What runs a container's programs.
#[derive(Clone)]
pub(super) enum Runtime {
    Scripted(Box<Scripted>),
    Real(real::Container),
}

impl Runtime {
    fn start(&self, command: Vec<String>, wanted: Wanted) -> Process {
        match self {
            Self::Scripted(scripted) => scripted.start(command, wanted),
            Self::Real(container) => container.start(command, wanted),
        }
    }

    fn exec(&self, command: Vec<String>, wanted: Wanted) -> Process {
        match self {
            Self::Scripted(scripted) => scripted.exec(command, wanted),
            Self::Real(container) => container.exec(command, wanted),
        }
    }
}

/// What a connection to a port is refused with.
pub(super) const REFUSED: &str = "connect: connection refused";

/// One run of a container; clones are the same one.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) control: Control,
    pub(super) log: LogBuffer,
    runtime: Runtime,
    /// Whether something may listen on ports: a real program, or a script that names some.
    pub(super) listens: bool,
    tty: bool,
    /// Whether the first attached client's end of input is the program's.
    stdin_once: bool,
    stdin: Arc<AsyncMutex<Option<DuplexStream>>>,
    attached: Attached,
    /// Commands called in the container, which end with it.
    called: Arc<Mutex<Vec<Control>>>,
    tasks: TaskTracker,
}

/// Those who watch a program's output; `None` once it has ended.
type Attached = Arc<Mutex<Option<Vec<mpsc::Sender<(Source, Bytes)>>>>>;

/// Pieces of output that wait for one attached client; the program waits beyond.
const WAITING: usize = 4;

/// What of a container's spec matters to its streams.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) tty: bool,
}

impl Instance {
    /// Starts a container's program.
    pub(super) fn start(
        runtime: Runtime,
        command: Vec<String>,
        streams: Streams,
        clock: &Clock,
        tasks: &TaskTracker,
    ) -> Self {
        let wanted = Wanted { stdin: streams.stdin, stdout: true, stderr: true, tty: streams.tty };
        let listens = match &runtime {
            Runtime::Scripted(scripted) => scripted.listens(),
            // Without a command, the image's own program is meant, which is not here.
            Runtime::Real(_) => !command.is_empty(),
        };
        let Process { control, pipes } = runtime.start(command, wanted);
        let log = LogBuffer::default();
        let attached: Attached = Arc::new(Mutex::new(Some(Vec::new())));
        let Pipes { stdin, stdout, stderr } = pipes;
        let outputs = [(Source::Stdout, stdout), (Source::Stderr, stderr)];
        let pumps: Vec<_> = outputs
            .into_iter()
            .filter_map(|(source, pipe)| Some((source, pipe?)))
            .map(|(source, pipe)| tasks.spawn(pump(source, pipe, log.clone(), attached.clone(), clock.clone())))
            .collect();
        let called: Arc<Mutex<Vec<Control>>> = Arc::default();
        let end = {
            let (control, log, attached, called) = (control.clone(), log.clone(), attached.clone(), called.clone());
            let clock = clock.clone();
            async move {
                control.wait().await;
                for pump in pumps {
                    let _ = pump.await; // a pump ends with its pipe
                }
                log.close(clock.now());
                *attached.lock().expect("no panic under this lock") = None;
                for control in std::mem::take(&mut *called.lock().expect("no panic under this lock")) {
                    control.signal(Signal::Kill);
                }
            }
        };
        tasks.spawn(end);
        Self {
            control,
            log,
            runtime,
            listens,
            tty: streams.tty,
            stdin_once: streams.stdin_once,
            stdin: Arc::new(AsyncMutex::new(stdin)),
            attached,
            called,
            tasks: tasks.clone(),
        }
    }

    /// Calls a command in the container.
    pub(super) fn exec(&self, command: Vec<String>, wanted: Wanted) -> Process {
        self.keep(self.runtime.exec(command, wanted))
    }

    /// Connects to a port of the container's pod: a process whose input and output are the connection.
    ///
    /// # Errors
    /// Why there is no connection: [`REFUSED`] where nobody listens, as far as this container can tell.
    pub(super) async fn connect(&self, port: u16) -> Result<Process, String> {
        let connected = match &self.runtime {
            Runtime::Scripted(scripted) => scripted.connect(port).ok_or_else(|| REFUSED.to_owned()),
            Runtime::Real(container) => container.connect(port).await,
        };
        connected.map(|process| self.keep(process))
    }

    /// Ties a process to the container.
    fn keep(&self, process: Process) -> Process {
        let mut called = self.called.lock().expect("no panic under this lock");
        called.retain(|control| control.ended().is_none());
        called.push(process.control.clone());
        process
    }

    /// Joins the container's program. Its control is the program's own: who only watches must not send signals.
    ///
    /// Who has typed all leaves the program, and hears no more of it; unless the program's input ends with theirs: then
    /// they stay until it has ended (containerd's `ContainerIO.Attach`).
    pub(super) fn attach(&self, wanted: Wanted) -> Process {
        let mut pipes = Pipes::default();
        let left = CancellationToken::new();
        if wanted.stdout || wanted.stderr {
            let (sender, receiver) = mpsc::channel(WAITING);
            if let Some(attached) = &mut *self.attached.lock().expect("no panic under this lock") {
                attached.push(sender);
            }
            let mut inner = [None, None];
            if wanted.stdout {
                let (outer, stream) = duplex(limits::STREAM_BYTES);
                pipes.stdout = Some(outer);
                inner[0] = Some(stream);
            }
            if wanted.stderr && !self.tty {
                let (outer, stream) = duplex(limits::STREAM_BYTES);
                pipes.stderr = Some(outer);
                inner[1] = Some(stream);
            }
            self.tasks.spawn(deliver(receiver, inner, left.clone()));
        }
        if wanted.stdin {
            let (outer, inner) = duplex(limits::STREAM_BYTES);
            pipes.stdin = Some(outer);
            let (stdin, once, control) = (self.stdin.clone(), self.stdin_once, self.control.clone());
            let stays = once && !self.tty;
            self.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    _ = control.wait() => {}
                    () = type_in(inner, stdin, once) => {
                        if !stays {
                            left.cancel();
                        }
                    }
                }
            });
        }
        Process { control: self.control.clone(), pipes }
    }
}

/// Bytes of output that are taken at a time, at first (most programs say little) and at most.
const FIRST_CHUNK: usize = 512;
const LARGEST_CHUNK: usize = 16 * 1024;

/// Takes a program's output into its log and to those who are attached.
async fn pump(source: Source, mut pipe: DuplexStream, log: LogBuffer, attached: Attached, clock: Clock) {
    let mut chunk = vec![0; FIRST_CHUNK];
    loop {
        let count = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        log.push(source, &chunk[..count], clock.now());
        let senders = attached.lock().expect("no panic under this lock").clone().unwrap_or_default();
        if !senders.is_empty() {
            let bytes = Bytes::copy_from_slice(&chunk[..count]);
            for sender in &senders {
                let _ = sender.send((source, bytes.clone())).await; // it has left, and is taken off below
            }
            if let Some(attached) = &mut *attached.lock().expect("no panic under this lock") {
                attached.retain(|sender| !sender.is_closed());
            }
        }
        if count == chunk.len() && count < LARGEST_CHUNK {
            chunk = vec![0; count * 2]; // it says much
        }
    }
}

/// Hands output to one who is attached, until they have left.
async fn deliver(
    mut receiver: mpsc::Receiver<(Source, Bytes)>,
    mut streams: [Option<DuplexStream>; 2],
    left: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = receiver.recv() => next,
            () = left.cancelled() => None,
        };
        let Some((source, bytes)) = next else { return };
        if let Some(stream) = &mut streams[source as usize]
            && stream.write_all(&bytes).await.is_err()
        {
            return; // the client is gone
        }
    }
}

async fn type_in(mut from: DuplexStream, to: Arc<AsyncMutex<Option<DuplexStream>>>, once: bool) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let mut to = to.lock().await;
                let Some(stdin) = to.as_mut() else { return };
                if stdin.write_all(&chunk[..count]).await.is_err() {
                    return; // the program does not read any more
                }
            }
        }
    }
    if once {
        *to.lock().await = None;
    }
}
