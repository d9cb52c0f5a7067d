//! The program's log: what the operator wants of it, and never what requests and answers hold.

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry,
};

/// Libraries that write bodies, frames or headers into the log, each with the most that is heard of it whatever is wanted:
/// what they carry has keys and tokens in it.
const DISCREET: [(&str, LevelFilter); 7] = [
    ("bollard", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::DEBUG),
    ("hyper_util", LevelFilter::DEBUG),
    ("rustls", LevelFilter::DEBUG),
    ("tokio_tungstenite", LevelFilter::DEBUG),
    ("tungstenite", LevelFilter::DEBUG),
];

/// Writes what is wanted, and no bodies.
pub(crate) fn to<W>(writer: W, colours: bool, wanted: EnvFilter) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let discreet = Targets::new().with_default(LevelFilter::TRACE).with_targets(DISCREET);
    let lines = fmt::layer().with_ansi(colours).with_writer(writer).with_filter(discreet);
    registry().with(wanted).with(lines)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The targets and levels at which the libraries' sources write what they send and get.
    #[test]
    fn bodies_and_frames_are_not_written_however_much_is_wanted() {
        for wanted in ["trace", "bollard=trace,hyper=trace,tungstenite=trace,agentpane=trace"] {
            let lines = Lines::default();
            let writer = lines.clone();
            let log = to(move || writer.clone(), false, EnvFilter::new(wanted));
            tracing::subscriber::with_default(log, || {
                tracing::debug!(target: "bollard::docker", "a body");
                tracing::trace!(target: "bollard::docker", "request: a body");
                tracing::debug!(target: "h2::codec::framed_write", "a body");
                tracing::trace!(target: "hyper::proto::h1::conn", "a body");
                tracing::trace!(target: "hyper_util::client::legacy", "a body");
                tracing::trace!(target: "tungstenite::handshake::client", "Request: a body");
                tracing::trace!(target: "tungstenite::protocol", "received frame: a body");
                tracing::debug!(target: "hyper::proto::h1::conn", "a connection");
                tracing::trace!(target: "agentpane::audit", "an event");
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("a connection") && text.contains("an event"), "what is wanted is there: {text}");
            assert!(!text.contains("a body"), "{text}");
        }
    }
}
