//! The file that `record` writes.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::Mutex,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::redact::{redact, redact_secret};

/// Bodies of more bytes are left out: documents such as OpenAPI's say nothing of what was done.
const BODY_BYTES: usize = 64 * 1024;

/// What a client asked.
pub(super) struct Asked {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) accept: String,
    pub(super) content_type: String,
    /// The program that asks, which a server takes for the manager of fields if it is told no other.
    pub(super) agent: String,
    /// Headers that say whom the client acts as.
    pub(super) acts_as: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// A transcript that is being written.
pub(super) struct Transcript(Mutex<Writing>);

struct Writing {
    out: Box<dyn Write + Send>,
    watches: u64,
    /// What could not be written first.
    failed: Option<io::Error>,
}

impl Transcript {
    /// Into a file, or to stdout.
    pub(super) fn create(path: Option<&Path>) -> Result<Self, String> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => {
                let file = fs::File::create(path);
                Box::new(file.map_err(|error| format!("cannot write the transcript {}: {error}", path.display()))?)
            }
            None => Box::new(io::stdout()),
        };
        Ok(Self(Mutex::new(Writing { out, watches: 0, failed: None })))
    }

    /// A request and its whole answer.
    pub(super) fn exchange(&self, asked: &Asked, status: StatusCode, content_type: &str, body: &Bytes) {
        let mut answer = head(status, content_type);
        put(&mut answer, body, redact);
        self.lock().line(&json!({ "request": request(asked), "answer": answer }));
    }

    /// The begin of a watch; its number.
    pub(super) fn watch(&self, asked: &Asked, status: StatusCode, content_type: &str) -> u64 {
        let mut writing = self.lock();
        writing.watches += 1;
        let number = writing.watches;
        writing.line(&json!({ "watch": number, "request": request(asked), "answer": head(status, content_type) }));
        number
    }

    /// An event of a watch.
    pub(super) fn event(&self, number: u64, line: &[u8]) {
        let Ok(mut object) = serde_json::from_slice::<Value>(line) else { return };
        if object["type"] == "BOOKMARK" {
            return; // they come when the server likes
        }
        redact(&mut object);
        self.lock().line(&json!({ "event": number, "object": object }));
    }

    /// The end of a watch.
    pub(super) fn end(&self, number: u64) {
        self.lock().line(&json!({ "end": number }));
    }

    /// Says whether all was written.
    pub(super) fn finish(&self) -> Result<(), String> {
        let mut writing = self.lock();
        let flushed = writing.out.flush();
        match writing.failed.take().map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("the transcript is not whole: {error}")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Writing> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Writing {
    fn line(&mut self, value: &Value) {
        if let Err(error) = writeln!(self.out, "{value}") {
            self.failed.get_or_insert(error);
        }
    }
}

fn request(asked: &Asked) -> Value {
    let Asked { method, path, accept, content_type, agent, acts_as, body } = asked;
    let mut request = json!({ "method": method, "path": path });
    for (name, value) in [("accept", accept), ("contentType", content_type), ("agent", agent)] {
        if !value.is_empty() {
            request[name] = value.as_str().into();
        }
    }
    if !acts_as.is_empty() {
        request["actsAs"] = json!(acts_as);
    }
    let is_secret = path.split('?').next().unwrap_or_default().split('/').any(|word| word == "secrets");
    put(&mut request, body, if is_secret { redact_secret } else { redact });
    request
}

fn head(status: StatusCode, content_type: &str) -> Value {
    json!({ "status": status.as_u16(), "contentType": content_type })
}

/// A body as JSON, without its secrets; as text if it is none, or in base64 if it is no text either; as a number of bytes if
/// it is long.
fn put(into: &mut Value, body: &Bytes, redact: impl Fn(&mut Value)) {
    if body.is_empty() {
        return;
    }
    if body.len() > BODY_BYTES {
        into["leftOutBytes"] = body.len().into();
        return;
    }
    let Ok(text) = std::str::from_utf8(body) else {
        into["base64"] = BASE64_STANDARD.encode(body).into();
        return;
    };
    let parsed = serde_json::from_slice::<Value>(body).ok();
    // A patch for apply is YAML, and as JSON it says the same.
    let parsed = parsed.or_else(|| serde_saphyr::from_str::<Value>(text).ok().filter(Value::is_object));
    match parsed {
        Some(mut value) => {
            redact(&mut value);
            into["body"] = value;
        }
        None => {
            let mut value = Value::from(text);
            redact(&mut value);
            into["text"] = value;
        }
    }
}
