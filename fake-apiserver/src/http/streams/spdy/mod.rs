//! A connection of SPDY/3.1, our end: streams that the client opens, each a pipe.

pub(super) mod frame;

use std::{collections::BTreeMap, future::Future, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;

use self::frame::{DATA_BYTES, Decoder, Encoder, Frame, Headers, REFUSED_STREAM};
use crate::{base::limits, clock::Clock};

/// A stream that the client has opened. Shutting the pipe down, or dropping it, ends our half.
#[derive(Debug)]
pub(super) struct Stream {
    /// What it was opened with.
    pub(super) headers: Headers,
    /// Its data.
    pub(super) pipe: DuplexStream,
    /// Cancelled when the client has given the stream up, both ways.
    pub(super) reset: CancellationToken,
}

/// How often a client that cannot be read from, because nobody takes what it has sent, is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);

/// How long a client may take to leave after our good-bye.
const CLOSING: Duration = Duration::from_secs(5);

/// The connection is of no more use.
#[derive(Debug)]
struct Gone;

struct Writer<S> {
    encoder: Encoder,
    io: WriteHalf<S>,
}

impl<S: AsyncWrite> Writer<S> {
    async fn send(&mut self, frame: &Frame) -> Result<(), Gone> {
        let bytes = self.encoder.encode(frame);
        self.io.write_all(&bytes).await.map_err(|_| Gone)?;
        self.io.flush().await.map_err(|_| Gone)
    }
}

/// Serves a connection: `check` says which streams are taken, `handle` gets them. Ends when `handle` has ended and all that
/// it wrote is on its way, or when the client is gone; then `handle` is dropped.
pub(super) async fn serve<S, F>(
    io: S,
    clock: &Clock,
    check: impl Fn(&Headers) -> bool,
    handle: impl FnOnce(mpsc::Receiver<Stream>) -> F,
) where
    S: AsyncRead + AsyncWrite + Send,
    F: Future<Output = ()>,
{
    let (reader, writer) = split(io);
    let writer = Mutex::new(Writer { encoder: Encoder::default(), io: writer });
    let (opened, streams) = mpsc::channel(limits::SPDY_STREAMS);
    let (new_pumps, mut pumps_to_be) = mpsc::unbounded_channel();
    let reading = Reader { writer: &writer, clock, opened, pumps: new_pumps, streams: BTreeMap::new() };
    let mut reading = std::pin::pin!(reading.run(reader, check));
    let mut handling = std::pin::pin!(handle(streams));
    let mut handled = false;
    let mut pumps: FuturesUnordered<BoxFuture<'_, Result<(), Gone>>> = FuturesUnordered::new();
    loop {
        while let Ok(pump) = pumps_to_be.try_recv() {
            pumps.push(pump);
        }
        if handled && pumps.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Gone = &mut reading => return,
            Some(pump) = pumps_to_be.recv() => pumps.push(pump),
            Some(sent) = pumps.next() => if sent.is_err() { return },
            () = &mut handling, if !handled => handled = true,
        }
    }
    let said = writer.lock().await.send(&Frame::GoAway { last: 0, status: 0 }).await;
    if said.is_ok() {
        let _ = clock.timeout(CLOSING, reading).await; // or it does not leave: then we go
    }
    let _ = writer.lock().await.io.shutdown().await; // it may be gone already
}

struct Reader<'a, S> {
    writer: &'a Mutex<Writer<S>>,
    clock: &'a Clock,
    opened: mpsc::Sender<Stream>,
    pumps: mpsc::UnboundedSender<BoxFuture<'a, Result<(), Gone>>>,
    streams: BTreeMap<u32, Open>,
}

/// A stream as the connection holds it.
struct Open {
    /// Towards the handler; `None` once the client has said all.
    to_handler: Option<WriteHalf<DuplexStream>>,
    /// Cancelled once the handler has said all.
    said: CancellationToken,
    reset: CancellationToken,
}

impl<'a, S: AsyncRead + AsyncWrite + Send> Reader<'a, S> {
    async fn run(mut self, mut reader: ReadHalf<S>, check: impl Fn(&Headers) -> bool) -> Gone {
        let (mut decoder, mut input) = (Decoder::default(), BytesMut::with_capacity(2 * DATA_BYTES));
        loop {
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(frame)) => {
                        if self.take(frame, &check).await.is_err() {
                            return Gone;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a client that speaks SPDY sent what cannot be read");
                        return Gone;
                    }
                }
            }
            input.reserve(DATA_BYTES);
            match reader.read_buf(&mut input).await {
                Ok(0) | Err(_) => return Gone,
                Ok(_) => {}
            }
        }
    }

    async fn take(&mut self, frame: Frame, check: &impl Fn(&Headers) -> bool) -> Result<(), Gone> {
        match frame {
            Frame::SynStream { id, headers, fin } => {
                self.streams.retain(|_, open| open.to_handler.is_some() || !open.said.is_cancelled());
                let full = self.streams.len() >= limits::SPDY_STREAMS;
                if full || self.streams.contains_key(&id) || !check(&headers) {
                    return self.writer.lock().await.send(&Frame::Reset { id, status: REFUSED_STREAM }).await;
                }
                self.writer.lock().await.send(&Frame::SynReply { id, headers: Headers::new(), fin: false }).await?;
                let (ours, pipe) = duplex(limits::STREAM_BYTES);
                let (from_handler, mut to_handler) = split(ours);
                let (reset, said) = (CancellationToken::new(), CancellationToken::new());
                let (writer, done) = (self.writer, said.clone().drop_guard());
                let pump = pump(id, from_handler, writer, reset.clone());
                let pump = async move {
                    let _done = done;
                    pump.await
                };
                let _ = self.pumps.send(Box::pin(pump)); // we are being dropped
                let to_handler = if fin {
                    let _ = to_handler.shutdown().await; // nobody listens
                    None
                } else {
                    Some(to_handler)
                };
                self.streams.insert(id, Open { to_handler, said, reset: reset.clone() });
                // Where nobody takes streams any more, the pipe's end says so to the client.
                let _ = self.opened.try_send(Stream { headers, pipe, reset });
            }
            Frame::Data { id, data, fin } => {
                let Some(open) = self.streams.get_mut(&id) else { return Ok(()) };
                if let Some(to_handler) = &mut open.to_handler
                    && deliver(to_handler, &data, self.writer, self.clock).await?
                    && !fin
                {
                    return Ok(());
                }
                if let Some(mut to_handler) = open.to_handler.take() {
                    let _ = to_handler.shutdown().await; // nobody listens
                }
            }
            Frame::Reset { id, .. } => {
                if let Some(open) = self.streams.remove(&id) {
                    open.reset.cancel();
                }
            }
            Frame::Ping(id) if id % 2 == 1 => self.writer.lock().await.send(&Frame::Ping(id)).await?,
            Frame::GoAway { .. } => return Err(Gone),
            // Answers to our pings; streams of ours, of which there are none; flow control, which nobody uses.
            Frame::Ping(_)
            | Frame::SynReply { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::WindowUpdate { .. } => {}
        }
        Ok(())
    }
}

/// Writes to a stream's handler, which may be slow; `false` if it does not read any more.
async fn deliver<S: AsyncWrite>(
    to: &mut WriteHalf<DuplexStream>,
    data: &[u8],
    writer: &Mutex<Writer<S>>,
    clock: &Clock,
) -> Result<bool, Gone> {
    let mut write = std::pin::pin!(to.write_all(data));
    loop {
        tokio::select! {
            biased;
            written = &mut write => return Ok(written.is_ok()),
            () = clock.sleep(PING) => writer.lock().await.send(&Frame::Ping(2)).await?,
        }
    }
}

/// Carries what a handler writes to its stream.
async fn pump<S: AsyncWrite>(
    id: u32,
    mut from: ReadHalf<DuplexStream>,
    writer: &Mutex<Writer<S>>,
    reset: CancellationToken,
) -> Result<(), Gone> {
    let mut chunk = vec![0; DATA_BYTES];
    loop {
        let count = tokio::select! {
            biased;
            () = reset.cancelled() => return Ok(()),
            read = from.read(&mut chunk) => read.unwrap_or_default(),
        };
        let data = Bytes::copy_from_slice(&chunk[..count]);
        writer.lock().await.send(&Frame::Data { id, data, fin: count == 0 }).await?;
        if count == 0 {
            return Ok(());
        }
    }
}
