//! Port-forward: connections of a client to what listens in a pod.
//!
//! Upstream: the kubelet's `portforward/httpstream.go` (pairs of SPDY streams) and `portforward/websocket.go` (channels of a
//! WebSocket), and `k8s.io/apiserver/pkg/util/proxy/streamtunnel.go` (SPDY inside a WebSocket).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf, copy, duplex, split},
    sync::{Mutex, mpsc},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::{
    channels,
    session::{self, CLOSING, Leash, PING},
    spdy::{
        self,
        frame::{DATA_BYTES, Headers, value},
    },
};
use crate::{
    base::{Status, limits, status::go_quote},
    clock::Clock,
    kubelet::{Kubelet, Process},
};

/// What the streams of a SPDY connection are called.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";
/// The same inside a WebSocket.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Two channels of a WebSocket for each port.
pub(super) const CHANNELS: &str = "v4.channel.k8s.io";

/// How long the second stream of a pair may take after the first.
const PAIRING: Duration = Duration::from_secs(30);

/// A pod whose ports are reached.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) kubelet: Kubelet,
    pub(super) clock: Clock,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
}

/// The ports of a query that asks for channels: `NewV4Options` of the kubelet's `websocket.go`.
pub(super) fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Status> {
    let texts: Vec<&str> = query.iter().filter(|(key, _)| key == "ports").map(|(_, value)| value.as_str()).collect();
    if texts.is_empty() {
        return Err(Status::bad_request("query parameter \"port\" is required"));
    }
    let ports = texts.iter().flat_map(|text| text.split(',')).map(port);
    let ports: Vec<u16> = ports.collect::<Result<_, _>>().map_err(Status::bad_request)?;
    match ports.len() {
        0..=limits::FORWARDED_PORTS => Ok(ports),
        _ => Err(Status::bad_request(format!("more than {} ports of one connection", limits::FORWARDED_PORTS))),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {} must be > 0", go_quote(text))),
        Ok(port) => Ok(port),
        Err(error) => {
            let range = matches!(error.kind(), std::num::IntErrorKind::PosOverflow);
            let why = if range { "value out of range" } else { "invalid syntax" };
            let text = go_quote(text);
            Err(format!("unable to parse {text} as a port: strconv.ParseUint: parsing {text}: {why}"))
        }
    }
}

/// Whether a stream may be half of a pair: `httpStreamReceived`.
fn wanted(headers: &Headers) -> bool {
    port(value(headers, "port")).is_ok() && matches!(value(headers, "streamtype"), "data" | "error")
}

impl Forward {
    /// Serves the streams of a SPDY connection.
    pub(super) async fn spdy<S>(&self, io: S)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        spdy::serve(io, &self.clock, wanted, |streams| self.pairs(streams)).await;
    }

    /// Serves SPDY inside a WebSocket.
    pub(super) async fn tunnel<S>(&self, socket: WebSocketStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (near, far) = duplex(limits::STREAM_BYTES);
        let (mut from_us, mut to_us) = split(far);
        let (sink, mut messages) = socket.split();
        let sink = Mutex::new(sink);
        let incoming = async {
            while let Some(Ok(message)) = messages.next().await {
                let written = match message {
                    Message::Binary(data) => to_us.write_all(&data).await.is_ok(),
                    Message::Close(_) => false,
                    Message::Text(_) => false,
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => sink.lock().await.flush().await.is_ok(),
                };
                if !written {
                    break;
                }
            }
            let _ = to_us.shutdown().await; // it has ended by itself
        };
        let outgoing = async {
            let mut chunk = vec![0; DATA_BYTES];
            loop {
                match from_us.read(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
                        if sink.lock().await.send(message).await.is_err() {
                            break;
                        }
                    }
                }
            }
            let _ = session::say_close(&sink).await; // it may have left
        };
        let serving = async { tokio::join!(self.spdy(near), outgoing) };
        let mut incoming = std::pin::pin!(incoming);
        let mut gone = false;
        let mut serving = std::pin::pin!(serving);
        loop {
            tokio::select! {
                biased;
                _ = &mut serving => break,
                () = &mut incoming, if !gone => gone = true,
            }
        }
        if !gone {
            let _ = self.clock.timeout(CLOSING, incoming).await; // or it does not answer: then we go
        }
    }

    async fn pairs(&self, mut streams: mpsc::Receiver<spdy::Stream>) {
        let mut halves: BTreeMap<String, spdy::Stream> = BTreeMap::new();
        let mut pairs = FuturesUnordered::new();
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                stream = streams.recv() => {
                    let Some(stream) = stream else { return };
                    let id = value(&stream.headers, "requestid").to_owned();
                    let Some(other) = halves.remove(&id) else {
                        halves.insert(id.clone(), stream);
                        let clock = self.clock.clone();
                        waiting.push(async move {
                            clock.sleep(PAIRING).await;
                            id
                        });
                        continue;
                    };
                    let is_data = |stream: &spdy::Stream| value(&stream.headers, "streamtype") == "data";
                    match (is_data(&stream), is_data(&other)) {
                        (true, false) => pairs.push(self.pair(stream, other)),
                        (false, true) => pairs.push(self.pair(other, stream)),
                        // Both dropped, and so both at their end.
                        _ => {}
                    }
                }
                Some(()) = pairs.next() => {}
                Some(id) = waiting.next() => drop(halves.remove(&id)),
            }
        }
    }

    async fn pair(&self, data: spdy::Stream, mut error: spdy::Stream) {
        let Ok(port) = port(value(&data.headers, "port")) else { return };
        if let Err(message) = self.carry(port, data.pipe, data.reset).await {
            let _ = error.pipe.write_all(message.as_bytes()).await; // the client has left
        }
    }

    /// Carries one connection until the pod's side has ended or the client gives up. The other way may end before.
    ///
    /// # Errors
    /// What is said on the error channel, if there is no connection to be had.
    async fn carry(&self, port: u16, pipe: DuplexStream, reset: CancellationToken) -> Result<(), String> {
        let connected = self.kubelet.connect(&self.namespace, &self.pod, port).await;
        let Process { control, pipes } = connected.map_err(|reason| {
            let Self { pod, uid, .. } = self;
            let place = format!("/var/run/netns/cni-{uid}");
            format!(
                "error forwarding port {port} to pod {pod}, uid {uid}: failed to execute portforward in network namespace \
                 {place:?}: failed to connect to localhost:{port} inside namespace {place:?}, IPv4: dial tcp4 \
                 127.0.0.1:{port}: {reason} IPv6 dial tcp6 [::1]:{port}: {reason}"
            )
        })?;
        let _leash = Leash(control);
        let (mut from_client, mut to_client) = split(pipe);
        let sending = async {
            if let Some(mut stdin) = pipes.stdin {
                // One of the two has ended; what the pod still says is carried.
                let _ = copy(&mut from_client, &mut stdin).await;
                let _ = stdin.shutdown().await;
            }
            std::future::pending::<()>().await;
        };
        let receiving = async {
            if let Some(mut stdout) = pipes.stdout {
                let _ = copy(&mut stdout, &mut to_client).await; // the client has left
            }
        };
        tokio::select! {
            biased;
            () = reset.cancelled() => {}
            () = receiving => {}
            () = sending => {}
        }
        Ok(())
    }

    /// Serves the channels of a WebSocket: two for each port. The end of one port is the end of all, as in the kubelet.
    pub(super) async fn channels<S>(&self, socket: WebSocketStream<S>, ports: &[u16])
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (sink, mut messages) = socket.split();
        let sink = Mutex::new(sink);
        let mut to_pod: Vec<WriteHalf<DuplexStream>> = Vec::new();
        let mut carried = FuturesUnordered::new();
        for (at, port) in ports.iter().copied().enumerate() {
            let data_channel = u8::try_from(2 * at).expect("ports are bounded");
            let [low, high] = port.to_le_bytes();
            for channel in [data_channel, data_channel + 1] {
                if session::send(&sink, channels::write(channel, &[low, high])).await.is_err() {
                    return;
                }
            }
            let (near, far) = duplex(limits::STREAM_BYTES);
            let (from_pod, write) = split(near);
            to_pod.push(write);
            let sink = &sink;
            carried.push(async move {
                let carry = self.carry(port, far, CancellationToken::new());
                let (carried, printed) = tokio::join!(carry, session::print(data_channel, Some(from_pod), sink));
                if let (Err(message), Ok(())) = (carried, printed) {
                    let _ = session::send(sink, channels::write(data_channel + 1, message.as_bytes())).await; // it has left
                }
            });
        }
        let reading = async {
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    Message::Binary(mut data) if !data.is_empty() => {
                        let channel = data.split_to(1)[0];
                        let Some(write) = to_pod.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else {
                            continue;
                        };
                        let mut write = std::pin::pin!(write.write_all(&data));
                        loop {
                            tokio::select! {
                                biased;
                                _ = &mut write => break, // the pod may have closed its end
                                () = self.clock.sleep(PING) => {
                                    if sink.lock().await.send(Message::Ping(Bytes::new())).await.is_err() {
                                        return;
                                    }
                                }
                            }
                        }
                    }
                    Message::Ping(_) => {
                        if sink.lock().await.flush().await.is_err() {
                            return;
                        }
                    }
                    Message::Close(_) => return,
                    Message::Binary(_) | Message::Text(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
        };
        tokio::select! {
            biased;
            _ = carried.next() => {}
            () = reading => return,
        }
        if session::say_close(&sink).await.is_ok() {
            let answered = async { while let Some(Ok(_)) = messages.next().await {} };
            let _ = self.clock.timeout(CLOSING, answered).await; // or it does not answer: then we go
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[("ports", "80"), ("ports", "8080,9090")], Ok(vec![80, 8080, 9090]))]
    #[case(&[], Err("query parameter \"port\" is required"))]
    #[case(&[("ports", "0")], Err("port \"0\" must be > 0"))]
    #[case(&[("ports", "x")], Err("unable to parse \"x\" as a port: strconv.ParseUint: parsing \"x\": invalid syntax"))]
    #[case(
        &[("ports", "65536")],
        Err("unable to parse \"65536\" as a port: strconv.ParseUint: parsing \"65536\": value out of range")
    )]
    fn ports_of_a_query(#[case] query: &[(&str, &str)], #[case] expected: Result<Vec<u16>, &str>) {
        let query: Vec<_> = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(ports(&query).map_err(|status| status.message), expected.map_err(str::to_owned));
    }
}
