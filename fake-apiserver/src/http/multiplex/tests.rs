use std::{convert::Infallible, future::poll_fn, sync::atomic::AtomicUsize, time::Duration};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    Request, Response, body::Incoming, client::conn::http2 as client, server::conn::http2, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;

use super::*;

/// Counts the writes to a stream.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, out)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/panic" => panic!("the answer that panics"),
        "/later" => tokio::time::sleep(Duration::from_secs(5)).await,
        _ => {}
    }
    Ok(Response::new(Full::new(vec![b'x'; 1000].into())))
}

type Client = client::SendRequest<Empty<Bytes>>;

/// A client of a server of [`answer`]s, and how often the server has written.
async fn connect() -> (Client, Arc<AtomicUsize>) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let (answers, stream) = (Answers::default(), Gathered::new(Counted(theirs, writes.clone())));
    tokio::spawn(async move {
        let mut multiplexed = Multiplexed::new(answers.clone(), stream.clone());
        let connection = http2::Builder::new(answers).serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::pin!(connection);
        poll_fn(|context| multiplexed.poll(&mut connection, context)).await
    });
    let (client, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    (client, writes)
}

async fn get(client: &Client, path: &'static str) -> Result<usize, hyper::Error> {
    let response = client.clone().send_request(Request::get(path).body(Empty::new()).unwrap()).await?;
    Ok(response.into_body().collect().await?.to_bytes().len())
}

#[tokio::test(start_paused = true)]
async fn an_answer_leaves_in_one_write() {
    let (client, writes) = connect().await;
    for _ in 0..3 {
        get(&client, "/").await.unwrap(); // settings are exchanged meanwhile
    }
    let before = writes.load(Ordering::Relaxed);
    assert_eq!(get(&client, "/").await.unwrap(), 1000);
    assert_eq!(writes.load(Ordering::Relaxed) - before, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_its_time_keeps_no_other_waiting() {
    let (client, _) = connect().await;
    let start = tokio::time::Instant::now();
    let (later, at_once) = tokio::join!(
        async {
            get(&client, "/later").await.unwrap();
            start.elapsed()
        },
        async {
            get(&client, "/").await.unwrap();
            start.elapsed()
        }
    );
    assert_eq!((later.as_secs(), at_once.as_secs()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_panics_ends_its_own_stream_alone() {
    let (client, _) = connect().await;
    let (panicked, other) = tokio::join!(get(&client, "/panic"), get(&client, "/later"));
    assert!(panicked.is_err());
    assert_eq!(other.unwrap(), 1000);
    assert_eq!(get(&client, "/").await.unwrap(), 1000);
}

#[tokio::test]
async fn what_waits_for_a_slow_client_is_bounded() {
    let (ours, theirs) = tokio::io::duplex(100);
    let mut stream = Gathered::new(theirs);
    let mut context = Context::from_waker(noop_waker_ref());
    let chunk = [0; 4096];
    let mut written = 0;
    while let Poll::Ready(result) = Pin::new(&mut stream).poll_write(&mut context, &chunk) {
        written += result.unwrap();
        assert!(written < 10 * GATHERED_BYTES);
    }
    assert!((GATHERED_BYTES..GATHERED_BYTES + 2 * chunk.len()).contains(&written), "{written}");
    drop(ours);
    assert!(matches!(stream.send(&mut context), Poll::Ready(Err(_))));
}
