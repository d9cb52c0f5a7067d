//! What a real cluster answered to what real clients asked (`fake-apiserver record`), asked again: the answers are the same
//! but for what no two servers share.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use fake_apiserver::{Cluster, rule::Rule};
use futures::{AsyncBufReadExt, TryStreamExt, io::Lines};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

/// How long, in virtual time, an event may take that the real watch had.
const EVENT: Duration = Duration::from_secs(30);

/// Controllers that make something of what clients make.
const MAKERS: [&str; 3] =
    ["deployment-controller", "endpointslice-controller", "root-ca-certificate-publisher-controller"];

/// Fields that no two servers fill alike. Uids and versions are also looked for in later requests and messages.
const LEARNT: [&str; 2] = ["uid", "resourceVersion"];

/// What no two servers answer alike: times, wherever they are.
fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.parse::<jiff::Timestamp>().is_ok()
}

/// Ages in tables: `4s`, `2m30s`.
fn is_age(text: &str) -> bool {
    let units = text.split(|c: char| c.is_ascii_digit()).filter(|unit| !unit.is_empty());
    text.starts_with(|c: char| c.is_ascii_digit())
        && units.clone().count() > 0
        && units.into_iter().all(|unit| "smhdy".contains(unit))
}

fn by_manager(entries: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = entries.iter().collect();
    sorted.sort_by_key(|entry| {
        ["manager", "operation", "subresource"].map(|key| entry[key].as_str().unwrap_or_default())
    });
    sorted
}

/// The replay of one transcript.
#[derive(Default)]
struct Replay {
    /// What the real server called a thing, and what ours does.
    learnt: BTreeMap<String, String>,
    differences: Vec<String>,
}

impl Replay {
    /// Compares an answer with ours.
    fn compare(&mut self, at: &str, name: &str, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (name, value) in recorded {
                    match ours.get(name) {
                        Some(own) => self.compare(&format!("{at}/{name}"), name, value, own),
                        None => self.differences.push(format!("{at}/{name}: {value} is missing")),
                    }
                }
                let more = ours.iter().filter(|(name, _)| !recorded.contains_key(*name));
                self.differences.extend(more.map(|(name, value)| format!("{at}/{name}: {value} is too much")));
            }
            (Value::Array(recorded), Value::Array(ours)) if recorded.len() == ours.len() => {
                // They come in the order of their times, which differ by less than a replay takes.
                let (recorded, ours) = match name {
                    "managedFields" => (by_manager(recorded), by_manager(ours)),
                    _ => (recorded.iter().collect(), ours.iter().collect()),
                };
                for (number, (value, own)) in recorded.iter().zip(&ours).enumerate() {
                    self.compare(&format!("{at}/{number}"), name, value, own);
                }
            }
            (Value::String(recorded), Value::String(ours)) if LEARNT.contains(&name) => {
                self.learnt.insert(recorded.clone(), ours.clone());
            }
            (Value::String(recorded), Value::String(ours)) if is_time(recorded) && is_time(ours) => {}
            (Value::String(recorded), Value::String(ours)) if name == "cells" && is_age(recorded) && is_age(ours) => {}
            (Value::String(recorded), Value::String(ours)) if self.in_our_words(recorded) == *ours => {}
            (recorded, ours) if recorded == ours => {}
            (recorded, ours) => self.differences.push(format!("{at}: {recorded}, ours {ours}")),
        }
    }

    /// A text of the real server with our uids in it.
    fn in_our_words(&self, text: &str) -> String {
        let is_uid = |name: &&String| name.len() == 36;
        let uids = self.learnt.iter().filter(|(name, _)| is_uid(name));
        uids.fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs.as_str(), ours))
    }

    /// What a client would ask ours: uids and versions are whole words of a body or a query.
    fn asked(&self, value: &Value) -> Value {
        match value {
            Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), self.asked(member))).collect(),
            Value::Array(items) => items.iter().map(|item| self.asked(item)).collect(),
            Value::String(text) => self.learnt.get(text).unwrap_or(text).as_str().into(),
            other => other.clone(),
        }
    }

    fn path(&self, path: &str) -> String {
        let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
        let words = query.split('&').map(|word| match word.split_once('=') {
            Some(("resourceVersion", version)) => {
                format!("resourceVersion={}", self.learnt.get(version).map_or(version, String::as_str))
            }
            _ => word.to_owned(),
        });
        format!("{path}?{}", words.collect::<Vec<_>>().join("&"))
    }

    fn request(&self, request: &Value) -> http::Request<Body> {
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        let mut built = http::Request::builder().method(text("method")).uri(self.path(text("path")));
        for (name, header) in [("accept", "accept"), ("contentType", "content-type"), ("agent", "user-agent")] {
            if !text(name).is_empty() {
                built = built.header(header, text(name));
            }
        }
        for header in request["actsAs"].as_array().into_iter().flatten() {
            built = built.header(header[0].as_str().unwrap_or_default(), header[1].as_str().unwrap_or_default());
        }
        let body = match (request.get("body"), request.get("text"), request.get("base64")) {
            (Some(body), ..) => self.asked(body).to_string().into_bytes(),
            (None, Some(text), _) => text.as_str().unwrap_or_default().as_bytes().to_vec(),
            (None, None, Some(bytes)) => BASE64_STANDARD.decode(bytes.as_str().unwrap_or_default()).unwrap_or_default(),
            (None, None, None) => Vec::new(),
        };
        built.body(Body::from(body)).expect("a recorded request can be asked")
    }
}

type Events = Lines<futures::io::BufReader<Box<dyn futures::AsyncRead + Send + Unpin>>>;

/// A running watch, and what the real one had said when it ended.
struct Watch {
    events: Events,
    recorded: Vec<(usize, Value)>,
}

impl Watch {
    /// Compares the events. The real server tells a watcher before it answers the writer, and ours may do it after: so they are
    /// looked at in the end, in their order.
    async fn end(mut self, replay: &mut Replay) {
        for (number, recorded) in self.recorded {
            let at = format!("line {}, an event", number + 1);
            let next = tokio::time::timeout(EVENT, async {
                loop {
                    let text = self.events.try_next().await.ok()??;
                    let event: Value = serde_json::from_str(&text).ok()?;
                    if event["type"] != "BOOKMARK" {
                        return Some(event);
                    }
                }
            });
            match next.await {
                Ok(Some(event)) => replay.compare(&at, "", &recorded, &event),
                Ok(None) => return replay.differences.push(format!("{at}: the watch has ended")),
                Err(_) => return replay.differences.push(format!("{at}: it does not come")),
            }
        }
    }
}

/// Asks everything anew, and says where the answers differ.
async fn differences(transcript: &str) -> Vec<String> {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    // The recorded clusters had no controllers either; but they had service accounts.
    let paused = MAKERS.map(|name| cluster.rules().install(Rule::pause(name)));
    let client = cluster.client();
    let mut replay = Replay::default();
    let mut watches: BTreeMap<u64, Watch> = BTreeMap::new();
    for (number, line) in transcript.lines().enumerate() {
        let line: Value = serde_json::from_str(line).expect("a line of a transcript is JSON");
        if let Some(watch) = line["end"].as_u64() {
            if let Some(watch) = watches.remove(&watch) {
                watch.end(&mut replay).await;
            }
            continue;
        }
        if let Some(watch) = line["event"].as_u64() {
            let watch = watches.get_mut(&watch).expect("a watch begins before its events");
            watch.recorded.push((number, line["object"].clone()));
            continue;
        }
        let (request, recorded) = (&line["request"], &line["answer"]);
        let at = format!("line {}, {} {}", number + 1, request["method"], request["path"]);
        if request.get("leftOutBytes").is_some() {
            continue; // nobody knows what was asked
        }
        let answer = client.send(replay.request(request)).await.expect("the fake answers");
        let (head, body) = answer.into_parts();
        let status = u64::from(head.status.as_u16());
        if recorded["status"] != status {
            replay.differences.push(format!("{at}: status {}, ours {status}", recorded["status"]));
        }
        let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if recorded["contentType"] != content_type {
            replay.differences.push(format!("{at}: type {}, ours {content_type:?}", recorded["contentType"]));
        }
        if let Some(watch) = line["watch"].as_u64() {
            let bytes = body.into_data_stream().map_err(std::io::Error::other).into_async_read();
            let read: Box<dyn futures::AsyncRead + Send + Unpin> = Box::new(Box::pin(bytes));
            let events = futures::io::BufReader::new(read).lines();
            watches.insert(watch, Watch { events, recorded: Vec::new() });
            continue;
        }
        let body = body.collect().await.expect("an answer has an end").to_bytes();
        if let Some(recorded) = recorded.get("body") {
            let ours = serde_json::from_slice(&body).unwrap_or_default();
            replay.compare(&at, "", recorded, &ours);
        } else if let Some(recorded) = recorded["text"].as_str()
            && body != recorded
        {
            replay.differences.push(format!("{at}: {recorded:?}, ours {:?}", String::from_utf8_lossy(&body)));
        }
    }
    for watch in std::mem::take(&mut watches).into_values() {
        watch.end(&mut replay).await;
    }
    drop(paused);
    cluster.shutdown().await;
    replay.differences
}

/// Every transcript in `fixtures/transcripts` is answered as the real cluster did.
#[tokio::test(start_paused = true)]
async fn the_fake_answers_every_transcript_as_the_real_cluster_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/transcripts");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    assert!(!files.is_empty(), "there is no transcript in {}", folder.display());
    let mut all = String::new();
    for path in files {
        let found = differences(&fs::read_to_string(&path).unwrap()).await;
        let name = path.file_name().unwrap_or_default().display();
        all.extend(found.iter().map(|difference| format!("{name}, {difference}\n")));
    }
    assert!(all.is_empty(), "{all}");
}

/// A replay that would pass whatever the answers are would be none.
#[tokio::test(start_paused = true)]
async fn a_wrong_answer_is_found() {
    let transcript = concat!(
        r#"{"request":{"method":"GET","path":"/api/v1/namespaces/nowhere"},"answer":{"status":200,"#,
        r#""contentType":"application/json","body":{"kind":"Namespace","apiVersion":"v1"}}}"#
    );
    let found = differences(transcript).await.join("\n");
    for part in ["status 200, ours 404", "/kind: \"Namespace\", ours \"Status\"", "/message"] {
        assert!(found.contains(part), "{part} in {found}");
    }
}
