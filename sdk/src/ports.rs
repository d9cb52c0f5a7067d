//! Connections to what listens in a sandbox.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use kube::api::Portforwarder;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    error::{PortError, answered},
    sandboxes::AgentSandboxClient,
};

/// Connections at a time through one [`PortForward`]; the next one waits to be accepted.
const CONNECTIONS: usize = 256;

/// How long a sandbox may say nothing once the local program has said all.
const LINGER: Duration = Duration::from_secs(60);

/// How much one read takes.
const CHUNK_BYTES: usize = 16 << 10;

/// One connection to a port of a sandbox; dropping it ends it.
///
/// The end of what is written cannot be told to the other side: shutting it down ends the connection.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_sdk::PortStream;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream: PortStream = client.connect_port("hello", 8080).await?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// # Ok(())
/// # }
/// ```
pub struct PortStream {
    pipe: DuplexStream,
    refusal: Option<BoxFuture<'static, Option<String>>>,
    // Held: dropping it ends the connection.
    _forwarder: Portforwarder,
}

impl std::fmt::Debug for PortStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PortStream")
    }
}

impl PortStream {
    /// What the cluster said of the connection, once it has ended: `None` if all was well, else why there was none. Waits
    /// for the end.
    ///
    /// # Examples
    /// ```no_run
    /// use tokio::io::AsyncReadExt;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> anyhow::Result<()> {
    /// let mut stream = client.connect_port("hello", 8080).await?;
    /// let mut answer = Vec::new();
    /// if stream.read_to_end(&mut answer).await? == 0 {
    ///     println!("refused: {:?}", stream.refusal().await);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn refusal(mut self) -> Option<String> {
        self.refusal.take()?.await
    }
}

impl AsyncRead for PortStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A port of this machine that leads into a sandbox, as long as this is kept: dropping it closes the port and all
/// connections.
#[derive(Debug)]
pub struct PortForward {
    address: SocketAddr,
    last_failure: Arc<Mutex<Option<String>>>,
    serving: JoinHandle<()>,
}

impl PortForward {
    /// Where to connect to on this machine.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::PortError> {
    /// let forward = client.port_forward("hello", 8080, 0).await?;
    /// println!("http://{}", forward.address());
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the last connection that failed did: nobody listens in the sandbox, its pod is gone. The local program only sees
    /// its connection end.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(forward: agent_sandbox_sdk::PortForward) {
    /// if let Some(why) = forward.last_failure() {
    ///     eprintln!("the last connection failed: {why}");
    /// }
    /// # }
    /// ```
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().expect("no panic under this lock").clone()
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl AgentSandboxClient {
    /// Connects to a port of the sandbox's pod. The pod is looked up anew each time: after a suspension it is another one.
    ///
    /// That nobody listens there shows when the stream ends: see [`PortStream::refusal`].
    ///
    /// # Errors
    /// [`PortError`]: no pod, or no connection to it. Cancel-safe.
    ///
    /// # Examples
    /// ```no_run
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> anyhow::Result<()> {
    /// let mut stream = client.connect_port("hello", 6379).await?;
    /// stream.write_all(b"PING\r\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_port(&self, name: &str, port: u16) -> Result<PortStream, PortError> {
        let object = self.name_of(name);
        let sandbox = match self.get(name).await {
            Ok(sandbox) => sandbox,
            Err(source) => return Err(PortError::PodLookupFailed { object, source: Box::new(source) }),
        };
        let pod = sandbox.pod_name().unwrap_or(name).to_owned();
        let mut forwarder = match answered(self.pods().portforward(&pod, &[port])).await {
            Ok(forwarder) => forwarder,
            Err(source) if source.is_not_found() => return Err(PortError::NoPod { object, pod }),
            Err(source) => return Err(PortError::ConnectFailed { object, port, source }),
        };
        let refusal = forwarder.take_error(port).map(FutureExt::boxed);
        let pipe = forwarder.take_stream(port).expect("it was asked for, and taken by nobody else");
        Ok(PortStream { pipe, refusal, _forwarder: forwarder })
    }

    /// Opens a port of this machine (127.0.0.1; `local_port` 0 takes a free one) through which any program reaches a port
    /// of the sandbox, each connection by one of its own.
    ///
    /// # Errors
    /// [`PortError::ListenFailed`], and at once [`PortError::PodLookupFailed`] for a sandbox that is not there. Later
    /// failures end the connection that they concern; see [`PortForward::last_failure`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::PortError> {
    /// let forward = client.port_forward("hello", 8080, 0).await?;
    /// println!("the sandbox's web page: http://{}", forward.address());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn port_forward(&self, name: &str, port: u16, local_port: u16) -> Result<PortForward, PortError> {
        if let Err(source) = self.get(name).await {
            return Err(PortError::PodLookupFailed { object: self.name_of(name), source: Box::new(source) });
        }
        let listen = async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local_port)).await?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) =
            listen.await.map_err(|source| PortError::ListenFailed { port: local_port, source })?;
        let last_failure = Arc::<Mutex<Option<String>>>::default();
        let (client, name, failure) = (self.clone(), name.to_owned(), last_failure.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.len() >= CONNECTIONS {
                    connections.join_next().await;
                }
                while connections.try_join_next().is_some() {}
                let socket = match listener.accept().await {
                    Ok((socket, _)) => socket,
                    Err(_) => {
                        // Out of file descriptors, most likely: wait for some to come free.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let (client, name, failure) = (client.clone(), name.clone(), failure.clone());
                connections.spawn(async move {
                    if let Err(why) = carry(&client, &name, port, socket).await {
                        *failure.lock().expect("no panic under this lock") = Some(why);
                    }
                });
            }
        });
        Ok(PortForward { address, last_failure, serving })
    }
}

/// Carries one connection to its end.
async fn carry(client: &AgentSandboxClient, name: &str, port: u16, mut socket: TcpStream) -> Result<(), String> {
    let mut stream = client.connect_port(name, port).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })?;
    let (mut from_here, mut to_here) = socket.split();
    let mut heard = 0;
    {
        let (mut from_there, mut to_there) = tokio::io::split(&mut stream.pipe);
        let mut sent = std::pin::pin!(tokio::io::copy(&mut from_here, &mut to_there));
        let mut said_all = false;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = async {
                let read = from_there.read(&mut chunk);
                // Who has said all may be gone: nobody waits for ever for an answer to nobody.
                match said_all {
                    true => tokio::time::timeout(LINGER, read).await.unwrap_or(Ok(0)),
                    false => read.await,
                }
            };
            tokio::select! {
                biased;
                count = read => match count {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        heard += count;
                        if to_here.write_all(&chunk[..count]).await.is_err() {
                            return Ok(()); // the local program has left
                        }
                    }
                },
                _ = &mut sent, if !said_all => said_all = true,
            }
        }
    }
    let _ = to_here.shutdown().await; // it may have left
    if heard > 0 {
        return Ok(());
    }
    stream.refusal().await.map_or(Ok(()), Err)
}
