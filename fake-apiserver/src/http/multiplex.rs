//! An HTTP/2 connection with all that it answers, in one task.
//!
//! hyper hands each answer to an executor. As tasks of their own, answers cross threads to come back to the connection,
//! and what they say leaves in pieces: the head in one TLS record and system call, the body in the next. Here they are
//! polled where the connection is, and the bytes leave when nothing more is to be said.

use std::{
    fmt, io,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::{Buf, BytesMut};
use futures::{FutureExt, Stream, future::BoxFuture, stream::FuturesUnordered, task::AtomicWaker};
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait to be sent; beyond, the connection waits for the client. Four TLS records.
const GATHERED_BYTES: usize = 64 * 1024;

/// How often a connection and its answers are polled in a row before other tasks have a turn.
const ROUNDS: usize = 32;

/// The answers that hyper started and nobody has polled yet.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Answers {
    fn execute(&self, answer: F) {
        // What panics ends its own stream alone, as in a task of its own.
        let answer = AssertUnwindSafe(answer).catch_unwind().map(drop);
        self.0.lock().expect("no panic under this lock").push(Box::pin(answer));
    }
}

impl Answers {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.lock().expect("no panic under this lock"))
    }
}

/// A byte stream whose writes are gathered until [`Gathered::send`]; clones are the same stream.
///
/// Flushing it does nothing: [`Multiplexed`] sends when the connection and its answers have come to rest.
pub(super) struct Gathered<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    gathered: BytesMut,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Inner { stream, gathered: BytesMut::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Sends what was gathered.
    fn send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().send(context)
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.gathered.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(sent);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.len() < GATHERED_BYTES { Poll::Ready(Ok(())) } else { self.send(context) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        ready!(inner.room(context))?;
        inner.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        ready!(inner.room(context))?;
        slices.iter().for_each(|slice| inner.gathered.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

/// Tells the connection's task of a wake-up, but for one that comes while the task runs: that is another round.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    running: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

/// A connection, its answers and its stream.
pub(super) struct Multiplexed<S> {
    new: Answers,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    stream: Gathered<S>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<S> fmt::Debug for Multiplexed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Multiplexed<S> {
    /// Drives a connection that runs its answers on `new` and writes to `stream`.
    pub(super) fn new(new: Answers, stream: Gathered<S>) -> Self {
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        Self { new, running: FuturesUnordered::new(), stream, bell, waker }
    }

    /// Goes on with everything; ready when the connection has ended.
    pub(super) fn poll<C>(&mut self, connection: &mut Pin<&mut C>, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        self.bell.task.register(context.waker());
        self.bell.running.store(true, Ordering::SeqCst);
        let ended = self.rounds(connection);
        self.bell.running.store(false, Ordering::SeqCst);
        // Before the answers' wakers count again: what was said so far leaves.
        let sent = self.stream.send(context);
        if let Poll::Ready(result) = ended {
            return Poll::Ready(result.map_err(io::Error::other));
        }
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        if self.bell.rung.load(Ordering::SeqCst) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn rounds<C: Future>(&mut self, connection: &mut Pin<&mut C>) -> Poll<C::Output> {
        let mut context = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            self.bell.rung.store(false, Ordering::SeqCst);
            if let Poll::Ready(ended) = connection.as_mut().poll(&mut context) {
                return Poll::Ready(ended);
            }
            for mut answer in self.new.take() {
                if answer.as_mut().poll(&mut context).is_pending() {
                    self.running.push(answer);
                }
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut self.running).poll_next(&mut context) {}
            if !self.bell.rung.load(Ordering::SeqCst) {
                break;
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
