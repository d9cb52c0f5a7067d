//! Connections: memory pipes and TLS sockets. A connection that does not send a request in time is closed, and there are
//! never more of them than the limit.

use std::{
    fmt::Display,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Api, auth,
    multiplex::{Answers, Gathered, Multiplexed},
    timer::ClockTimer,
};
use crate::{base::limits, clock::Clock, registry::User};

impl Api {
    /// Serves one end of a memory pipe; who holds the other is that user. Ends when the pipe does.
    pub(crate) async fn serve_memory(self: Arc<Self>, pipe: DuplexStream, user: User) {
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| self.answer(Some(&user), request));
        let connection =
            http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(pipe), service).with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => log_end(ended),
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                log_end(connection.await);
            }
        }
    }

    /// Serves TLS on a listener until the server stops; connections are tasks of the tracker.
    pub(crate) async fn serve_tls(
        self: Arc<Self>,
        listener: TcpListener,
        address: SocketAddr,
        config: Arc<ServerConfig>,
        tasks: TaskTracker,
    ) {
        *self.address.lock().expect("no panic under this lock") = address.to_string();
        let acceptor = TlsAcceptor::from(config);
        let clock = self.registry.clock().clone();
        let stop = self.stop.clone();
        let serve = |stream| {
            let (api, acceptor) = (self.clone(), acceptor.clone());
            async move {
                tokio::select! {
                    biased;
                    () = api.stop.cancelled() => {}
                    tls = api.registry.clock().timeout(limits::REQUEST_HEAD, handshake(acceptor, stream)) => match tls {
                        Some(Ok((tls, user, h2))) => api.clone().serve_connection(tls, user, h2).await,
                        Some(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        None => tracing::debug!("TLS handshake took too long"),
                    },
                }
            }
        };
        serve_connections(listener, &clock, &stop, &tasks, serve).await;
    }

    async fn serve_connection<S>(self: Arc<Self>, stream: S, user: Option<User>, h2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asked = AtomicBool::new(false);
        // HTTP/2 answers outlive a borrow of this connection, so what they use is shared.
        let shared = Arc::new((self.clone(), user, asked));
        let service = {
            let shared = shared.clone();
            service_fn(move |request| {
                let shared = shared.clone();
                async move {
                    let (api, user, asked) = &*shared;
                    asked.store(true, Ordering::Relaxed);
                    api.answer(user.as_ref(), request).await
                }
            })
        };
        let timer = ClockTimer::new(self.registry.clock());
        let asked = || shared.2.load(Ordering::Relaxed);
        if h2 {
            let (answers, stream) = (Answers::default(), Gathered::new(stream));
            let mut multiplexed = Multiplexed::new(answers.clone(), stream.clone());
            let connection = http2::Builder::new(answers)
                .timer(timer)
                .auto_date_header(false)
                .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
                .keep_alive_interval(Some(limits::KEEP_ALIVE))
                .keep_alive_timeout(limits::REQUEST_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let poll = |context: &mut Context<'_>| multiplexed.poll(&mut connection, context);
            if !self.until_stopped(asked, poll).await {
                connection.as_mut().graceful_shutdown();
                log_end(poll_fn(|context| multiplexed.poll(&mut connection, context)).await);
            }
        } else {
            let connection = http1::Builder::new()
                .timer(timer)
                .auto_date_header(false)
                .header_read_timeout(limits::REQUEST_HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::pin!(connection);
            if !self.until_stopped(asked, |context| connection.as_mut().poll(context)).await {
                connection.as_mut().graceful_shutdown();
                log_end(connection.await);
            }
        }
    }

    /// Polls a connection until it has ended; `false` where the server stops first. A client that says nothing after the
    /// handshake is let go; later silence is for HTTP itself to judge.
    async fn until_stopped<E: Display>(
        &self,
        asked: impl Fn() -> bool,
        mut connection: impl FnMut(&mut Context<'_>) -> Poll<Result<(), E>>,
    ) -> bool {
        let (silent, stop) = (self.registry.clock().sleep(limits::REQUEST_HEAD), self.stop.cancelled());
        tokio::pin!(silent, stop);
        poll_fn(|context| {
            if let Poll::Ready(ended) = connection(context) {
                log_end(ended);
                return Poll::Ready(true);
            }
            if !asked() && silent.as_mut().poll(context).is_ready() && !asked() {
                tracing::debug!("no request in time");
                return Poll::Ready(true);
            }
            stop.as_mut().poll(context).map(|()| false)
        })
        .await
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// Takes connections from a listener until it is to stop, never more at a time than the limit; each is a task of the tracker.
pub(super) async fn serve_connections<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    clock: &Clock,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    serve: impl Fn(TcpStream) -> F,
) {
    let free = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = async {
                let permit = free.clone().acquire_owned().await.expect("never closed");
                listener.accept().await.map(|(stream, _)| (stream, permit))
            } => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = serve(stream);
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come free.
                tracing::warn!(%error, "accept failed");
                clock.sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// The TLS stream, the user that the client's certificate names, and whether HTTP/2 was agreed on.
async fn handshake(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<(Tls, Option<User>, bool)> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let (_, connection) = tls.get_ref();
    let user = connection.peer_certificates().and_then(|chain| auth::certificate_user(chain.first()?));
    let h2 = connection.alpn_protocol() == Some(b"h2");
    Ok((tls, user, h2))
}

fn log_end(ended: Result<(), impl Display>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
