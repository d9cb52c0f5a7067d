//! A container's log: bounded, with a time for each line, read with the options of `pods/log`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::{BufMut, Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::base::limits;

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes of one line at most; longer ones are kept in pieces, as the CRI's logs are (16 KiB).
const LINE_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug)]
struct Line {
    number: u64,
    time: Timestamp,
    source: Source,
    /// The text with its newline; a piece of a long line has none.
    text: Bytes,
}

/// The log of one run of a container; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct LogBuffer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    wake: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<Line>,
    bytes: usize,
    next: u64,
    /// What came after the last newline, for each output.
    partial: [BytesMut; 2],
    closed: bool,
}

impl Default for LogBuffer {
    fn default() -> Self {
        Self(Arc::new(Shared { inner: Mutex::default(), wake: watch::channel(0).0 }))
    }
}

impl LogBuffer {
    /// Adds output.
    pub(super) fn push(&self, source: Source, mut data: &[u8], now: Timestamp) {
        {
            let mut inner = self.0.inner.lock().expect("no panic under this lock");
            while !data.is_empty() {
                let partial = &mut inner.partial[source as usize];
                let room = LINE_BYTES - partial.len();
                let end = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |at| at + 1).min(room);
                partial.put_slice(&data[..end]);
                data = &data[end..];
                if partial.last() == Some(&b'\n') || partial.len() == LINE_BYTES {
                    let text = partial.split().freeze();
                    inner.add(Line { number: 0, time: now, source, text });
                }
            }
        }
        self.0.wake.send_modify(|count| *count += 1);
    }

    /// Says that no more will come: unfinished lines are kept as they are, followers end.
    pub(super) fn close(&self, now: Timestamp) {
        {
            let mut inner = self.0.inner.lock().expect("no panic under this lock");
            for source in [Source::Stdout, Source::Stderr] {
                let text = inner.partial[source as usize].split().freeze();
                if !text.is_empty() {
                    inner.add(Line { number: 0, time: now, source, text });
                }
            }
            inner.closed = true;
        }
        self.0.wake.send_modify(|count| *count += 1);
    }

    /// Reads the log with the given options, from the time that is now.
    pub(super) fn read(&self, options: &LogOptions, now: Timestamp) -> LogReader {
        let since = match (options.since_time, options.since_seconds) {
            (Some(time), _) => Some(time),
            (None, Some(seconds)) => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
            (None, None) => None,
        };
        let next = {
            let inner = self.0.inner.lock().expect("no panic under this lock");
            let wanted = |line: &&Line| {
                since.is_none_or(|since| line.time >= since)
                    && options.source.is_none_or(|source| line.source == source)
            };
            match options.tail_lines {
                // The tail is counted over the whole log; `since` cuts what it leaves, as in the kubelet.
                Some(tail) => {
                    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
                    let all = inner.lines.iter().filter(|line| options.source.is_none_or(|s| line.source == s));
                    let count = all.clone().count();
                    all.skip(count.saturating_sub(tail)).find(wanted).map_or(inner.next, |line| line.number)
                }
                None => inner.lines.iter().find(wanted).map_or(inner.next, |line| line.number),
            }
        };
        LogReader {
            buffer: self.clone(),
            wake: self.0.wake.subscribe(),
            next,
            since,
            source: options.source,
            timestamps: options.timestamps,
            follow: options.follow,
            left: options.limit_bytes.and_then(|bytes| usize::try_from(bytes).ok()),
        }
    }
}

impl Inner {
    fn add(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(Line { number: self.next, ..line });
        self.next += 1;
        while self.bytes > limits::LOG_BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.text.len());
        }
    }
}

/// Options of `pods/log`, as they were asked for and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// The container; `""` where the pod has only one.
    pub container: String,
    /// Go on with what is printed from now on.
    pub follow: bool,
    /// The run before this one.
    pub previous: bool,
    /// Only lines of the last seconds.
    pub since_seconds: Option<i64>,
    /// Only lines from this time on.
    pub since_time: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// Stop after that many bytes.
    pub limit_bytes: Option<i64>,
    /// Only one of the two outputs.
    pub source: Option<Source>,
}

/// A log being read.
#[derive(Debug)]
pub struct LogReader {
    buffer: LogBuffer,
    wake: watch::Receiver<u64>,
    next: u64,
    since: Option<Timestamp>,
    source: Option<Source>,
    timestamps: bool,
    follow: bool,
    left: Option<usize>,
}

/// Bytes that one call to [`LogReader::next`] hands out, more or less.
const CHUNK_BYTES: usize = 32 * 1024;

impl LogReader {
    /// The next piece of the log; `None` at its end. Waits for more when following. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.wake.borrow_and_update(); // before reading, so that a later line wakes us
            let (chunk, closed) = self.take();
            if !chunk.is_empty() {
                return Some(chunk);
            }
            if closed || !self.follow || self.left == Some(0) || self.wake.changed().await.is_err() {
                return None;
            }
        }
    }

    fn take(&mut self) -> (Bytes, bool) {
        let mut chunk = BytesMut::new();
        let inner = self.buffer.0.inner.lock().expect("no panic under this lock");
        let first = inner.lines.front().map_or(inner.next, |line| line.number);
        self.next = self.next.max(first);
        let start = usize::try_from(self.next - first).unwrap_or(usize::MAX).min(inner.lines.len());
        for line in inner.lines.range(start..) {
            self.next = line.number + 1;
            let wanted = self.since.is_none_or(|since| line.time >= since)
                && self.source.is_none_or(|source| line.source == source);
            if !wanted {
                continue;
            }
            let stamp = if self.timestamps { stamp(line.time) } else { String::new() };
            for part in [stamp.as_bytes(), &line.text] {
                let part = &part[..part.len().min(self.left.unwrap_or(usize::MAX))];
                chunk.put_slice(part);
                self.left = self.left.map(|left| left - part.len());
            }
            if chunk.len() >= CHUNK_BYTES || self.left == Some(0) {
                break;
            }
        }
        (chunk.freeze(), inner.closed && self.next >= inner.next || self.left == Some(0))
    }
}

/// A time before a line: RFC 3339 with nanoseconds, all nine of them, as the CRI writes it.
fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ ").to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn log() -> LogBuffer {
        let log = LogBuffer::default();
        log.push(Source::Stdout, b"one\ntw", at(0));
        log.push(Source::Stderr, b"error\n", at(5));
        log.push(Source::Stdout, b"o\nrest", at(10));
        log
    }

    async fn read(log: &LogBuffer, options: LogOptions) -> String {
        let mut reader = log.read(&options, at(12));
        let mut text = Vec::new();
        while let Some(chunk) = reader.next().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[rstest]
    #[case::everything(LogOptions::default(), "one\nerror\ntwo\n")]
    #[case::tail(LogOptions { tail_lines: Some(2), ..LogOptions::default() }, "error\ntwo\n")]
    #[case::tail_of_nothing(LogOptions { tail_lines: Some(0), ..LogOptions::default() }, "")]
    #[case::tail_beyond_the_start(LogOptions { tail_lines: Some(99), ..LogOptions::default() }, "one\nerror\ntwo\n")]
    #[case::since_seconds(LogOptions { since_seconds: Some(7), ..LogOptions::default() }, "error\ntwo\n")]
    #[case::since_time(LogOptions { since_time: Some(at(6)), ..LogOptions::default() }, "two\n")]
    #[case::tail_and_since(
        LogOptions { tail_lines: Some(2), since_time: Some(at(6)), ..LogOptions::default() }, "two\n"
    )]
    #[case::bytes(LogOptions { limit_bytes: Some(6), ..LogOptions::default() }, "one\ner")]
    #[case::one_output(LogOptions { source: Some(Source::Stderr), ..LogOptions::default() }, "error\n")]
    #[case::tail_of_one_output(
        LogOptions { source: Some(Source::Stdout), tail_lines: Some(1), ..LogOptions::default() }, "two\n"
    )]
    #[case::timestamps(
        LogOptions { timestamps: true, tail_lines: Some(1), ..LogOptions::default() },
        "2026-01-01T00:00:10.000000000Z two\n"
    )]
    #[tokio::test]
    async fn options_choose_lines(#[case] options: LogOptions, #[case] expected: &str) {
        assert_eq!(read(&log(), options).await, expected);
    }

    #[tokio::test]
    async fn a_follower_gets_what_comes_and_ends_with_the_log() {
        let log = log();
        let mut reader = log.read(&LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() }, at(12));
        log.push(Source::Stdout, b" of it\n", at(13));
        assert_eq!(reader.next().await.unwrap(), "rest of it\n");
        log.push(Source::Stdout, b"no newline", at(14));
        log.close(at(14));
        assert_eq!(reader.next().await.unwrap(), "no newline");
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn a_full_log_drops_its_oldest_lines() {
        let log = LogBuffer::default();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for _ in 0..limits::LOG_BYTES / 1024 {
            log.push(Source::Stdout, &line, at(0));
        }
        log.push(Source::Stdout, b"last\n", at(1));
        let text = read(&log, LogOptions::default()).await;
        assert!(text.len() <= limits::LOG_BYTES && text.ends_with("x\nlast\n"), "{} bytes", text.len());
    }

    #[tokio::test]
    async fn a_line_without_end_is_kept_in_pieces() {
        let log = LogBuffer::default();
        log.push(Source::Stdout, &vec![b'x'; LINE_BYTES + 10], at(0));
        log.close(at(0));
        assert_eq!(read(&log, LogOptions::default()).await.len(), LINE_BYTES + 10);
    }
}
