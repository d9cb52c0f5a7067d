//! Streams over SPDY, with a client that speaks it frame by frame.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    super::spdy::frame::{Decoder, Encoder, Frame},
    *,
};

/// The client's end of a connection.
struct Client<S> {
    io: S,
    decoder: Decoder,
    encoder: Encoder,
    input: BytesMut,
    last: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(io: S) -> Self {
        Self { io, decoder: Decoder::default(), encoder: Encoder::default(), input: BytesMut::new(), last: 0 }
    }

    async fn send(&mut self, frame: Frame) {
        self.io.write_all(&self.encoder.encode(&frame)).await.unwrap();
    }

    async fn data(&mut self, id: u32, data: &'static [u8], fin: bool) {
        self.send(Frame::Data { id, data: data.into(), fin }).await;
    }

    /// Opens a stream, and says whether it is taken.
    async fn try_open(&mut self, headers: &[(&str, &str)]) -> Result<u32, Frame> {
        let id = self.last + if self.last == 0 { 1 } else { 2 };
        self.last = id;
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.send(Frame::SynStream { id, headers, fin: false }).await;
        match self.next().await.unwrap() {
            Frame::SynReply { id: of, .. } if of == id => Ok(id),
            other => Err(other),
        }
    }

    async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        self.try_open(headers).await.unwrap()
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// All data of some streams, up to the end of each.
    async fn drain<const N: usize>(&mut self, ids: [u32; N]) -> [String; N] {
        let mut data = [(); N].map(|()| Vec::new());
        let mut open = N;
        while open > 0 {
            match self.next().await.expect("streams end before the connection") {
                Frame::Data { id, data: piece, fin } => {
                    let at = ids.iter().position(|one| *one == id).unwrap_or_else(|| panic!("stream {id}"));
                    data[at].extend_from_slice(&piece);
                    open -= usize::from(fin);
                }
                Frame::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
        data.map(|data| String::from_utf8(data).unwrap())
    }

    async fn pair(&mut self, port: &str, request: &str) -> (u32, u32) {
        let of = |kind| [("port", port), ("requestid", request), ("streamtype", kind)];
        (self.open(&of("error")).await, self.open(&of("data")).await)
    }
}

/// The connection after the handshake, or what was answered instead.
async fn upgrade(
    streams: &Streams,
    subresource: &'static str,
    query: &str,
    protocol: &str,
) -> Result<Client<DuplexStream>, String> {
    let mut pipe = connect(streams, subresource);
    let request = format!(
        "POST /?{query} HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
    );
    pipe.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(pipe.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let asked = format!("\r\nx-stream-protocol-version: {protocol}\r\n");
    match head.starts_with("HTTP/1.1 101 ") && head.contains(&asked) && head.contains("\r\nupgrade: SPDY/3.1\r\n") {
        true => Ok(Client::new(pipe)),
        false => Err(head),
    }
}

#[rstest]
#[case::v4("v4.channel.k8s.io")]
#[case::v1("channel.k8s.io")]
#[tokio::test(start_paused = true)]
async fn an_older_client_calls_a_command(#[case] protocol: &str) {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=sh&command=-c&command=cat;ls+/none;exit+3&stdin=true&stdout=true&stderr=true";
    let mut client = upgrade(&streams, "exec", query, protocol).await.unwrap();
    let error = client.open(&[("streamtype", "error")]).await;
    let stdin = client.open(&[("streamtype", "stdin")]).await;
    let stdout = client.open(&[("streamtype", "stdout")]).await;
    let stderr = client.open(&[("streamtype", "stderr")]).await;
    client.data(stdin, b"hello", false).await;
    client.data(stdin, b" world", true).await;
    let [end, out, err, input] = client.drain([error, stdout, stderr, stdin]).await;
    assert_eq!((out.as_str(), err.as_str()), ("hello world", "ls: cannot access '/none': No such file or directory\n"));
    assert_eq!(input, "");
    let message =
        "command terminated with non-zero exit code: error executing command [sh -c cat;ls /none;exit 3], exit code 3";
    if protocol.starts_with("v4") {
        let status: Value = serde_json::from_str(&end).unwrap();
        assert_eq!((&status["message"], &status["details"]["causes"][0]["message"]), (&json!(message), &json!("3")));
    } else {
        assert_eq!(end, message);
    }
    assert!(matches!(client.next().await, Some(Frame::GoAway { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_over_spdy_has_a_size_and_one_output() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=cat&stdin=true&stdout=true&stderr=true&tty=true";
    let mut client = upgrade(&streams, "exec", query, "v4.channel.k8s.io").await.unwrap();
    let error = client.open(&[("streamtype", "error")]).await;
    let stdin = client.open(&[("streamtype", "stdin")]).await;
    let stdout = client.open(&[("streamtype", "stdout")]).await;
    let resize = client.open(&[("streamtype", "resize")]).await;
    client.data(resize, b"{\"Width\":80,\"Height\":24}\n", false).await;
    client.data(stdin, b"hi\n\x04", false).await;
    let [end, out, _, _] = client.drain([error, stdout, stdin, resize]).await;
    assert!(end.contains("\"Success\""), "{end}");
    assert_eq!(out, "hi\r\nhi\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_nobody_reads_its_input_takes_its_command_along() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let before = streams.tasks.len();
    let query = "command=sleep&command=1000000&stdin=true&stdout=true";
    let mut client = upgrade(&streams, "exec", query, "v4.channel.k8s.io").await.unwrap();
    for kind in ["error", "stdin", "stdout"] {
        client.open(&[("streamtype", kind)]).await;
    }
    client.send(Frame::Data { id: 3, data: vec![b'x'; limits::STREAM_BYTES * 2].into(), fin: false }).await;
    streams.registry.clock().sleep(Duration::from_secs(1)).await;
    assert!(streams.tasks.len() > before);
    drop(client);
    streams.registry.clock().sleep(Duration::from_secs(60)).await;
    assert_eq!(streams.tasks.len(), before, "the command and its session are gone");
}

#[tokio::test(start_paused = true)]
async fn connections_to_ports_share_one_spdy_connection() {
    let streams = listening().await;
    let mut client = upgrade(&streams, "portforward", "", "portforward.k8s.io").await.unwrap();
    let (error, silent) = client.pair("9", "0").await;
    let (echo_error, echo) = client.pair("7", "1").await;
    let (refused_error, refused) = client.pair("81", "2").await;
    let [message, nothing] = client.drain([refused_error, refused]).await;
    assert_eq!((without_uid(&streams, &message).as_str(), nothing.as_str()), (NO_PORT, ""));
    // The end of what the client says is not the end of what it hears.
    client.data(echo, b"over and", false).await;
    client.data(echo, b" out", true).await;
    assert_eq!(client.drain([echo_error, echo]).await, ["", "over and out"]);
    client.send(Frame::Reset { id: silent, status: 5 }).await;
    assert_eq!(client.drain([error]).await, [""], "given up, and so ended");
    let before = streams.tasks.len();
    let (_, silent) = client.pair("9", "3").await;
    client.data(silent, b"?", false).await;
    drop(client);
    streams.registry.clock().sleep(Duration::from_secs(60)).await;
    assert!(streams.tasks.len() < before, "the command behind the port is gone, and the session");
}

#[tokio::test(start_paused = true)]
async fn a_newer_client_tunnels_spdy_through_a_websocket() {
    let streams = listening().await;
    let protocol = "SPDY/3.1+portforward.k8s.io";
    let mut socket = open(&streams, "portforward", "", protocol).await.unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from_us, mut to_us) = tokio::io::split(far);
    let wire = tokio::spawn(async move {
        let mut chunk = [0; 100];
        loop {
            tokio::select! {
                count = from_us.read(&mut chunk) => match count.unwrap() {
                    0 => break,
                    count => socket.send(Message::Binary(Bytes::copy_from_slice(&chunk[..count]))).await.unwrap(),
                },
                data = binary(&mut socket) => match data {
                    Some(data) => to_us.write_all(&data).await.unwrap(),
                    None => break,
                },
            }
        }
        drop(socket);
    });
    let mut client = Client::new(near);
    let (error, data) = client.pair("80", "0").await;
    client.data(data, b"hello\n", false).await;
    assert_eq!(client.drain([error, data]).await, ["", "hello back\n"]);
    let before = streams.tasks.len();
    drop(client);
    wire.await.unwrap();
    streams.registry.clock().sleep(Duration::from_secs(60)).await;
    assert!(streams.tasks.len() < before, "the session is gone");
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_knows_and_protocols_too_are_refused() {
    let streams = listening().await;
    let mut client = upgrade(&streams, "portforward", "", "portforward.k8s.io").await.unwrap();
    for headers in [vec![("streamtype", "data")], vec![("port", "0"), ("streamtype", "data")], vec![("port", "80")]] {
        assert!(matches!(client.try_open(&headers).await, Err(Frame::Reset { status: 3, .. })), "{headers:?}");
    }
    client.send(Frame::Ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(7)));
    let refusal = upgrade(&streams, "portforward", "", "v9.example").await.map(drop).unwrap_err();
    assert!(refusal.starts_with("HTTP/1.1 403 "), "{refusal}");
    assert!(refusal.contains("x-accepted-stream-protocol-versions: portforward.k8s.io"), "{refusal}");
}
