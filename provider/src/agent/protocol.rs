//! What the runner prints: JSON, a line for each event. From bytes to lines to events, without I/O.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::credentials::Redactor;
use crate::records::{Channel, Outcome, Run, StreamEvent};

/// How long a line may be, in bytes. A longer one is dropped, and the stream says so; what follows it is read.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// The runner's events, and what the last part of their names is in the stream.
const EVENTS: [&str; 11] = [
    "started",
    "token",
    "turn",
    "tool:start",
    "tool:result",
    "message",
    "complete",
    "error",
    "cancelled",
    "plan_ready",
    "file_changed",
];

/// A line, or what had to be left of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it, without its end.
    Whole(Vec<u8>),
    /// It was longer than is kept.
    TooLong,
}

/// Cuts bytes into lines, wherever the chunks end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line that is not complete yet.
    partial: Vec<u8>,
    /// How many bytes that line has, also those that were not kept.
    partial_bytes: usize,
}

impl Lines {
    /// Takes a chunk; answers the lines that it completes, each with its length in bytes, its end included.
    pub(super) fn push(&mut self, mut chunk: &[u8]) -> Vec<(Line, usize)> {
        let mut lines = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = chunk.split_at(end + 1);
            self.keep(line);
            chunk = rest;
            lines.extend(self.finish());
        }
        self.keep(chunk);
        lines
    }

    /// How many bytes there are of a line that is not complete yet.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// The last line, if nothing has ended it.
    pub(super) fn finish(&mut self) -> Option<(Line, usize)> {
        let bytes = std::mem::take(&mut self.partial_bytes);
        let mut line = std::mem::take(&mut self.partial);
        if bytes == 0 {
            return None;
        }
        if bytes > MAX_LINE_BYTES {
            return Some((Line::TooLong, bytes));
        }
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        Some((Line::Whole(line), bytes))
    }

    fn keep(&mut self, part: &[u8]) {
        self.partial_bytes += part.len();
        if self.partial_bytes > MAX_LINE_BYTES {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(part);
        }
    }
}

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// Nothing for us: blank, no JSON, not an event, or one of another task.
    Nothing,
    /// Something for the stream; and the turn that the agent is in, if that is what it says.
    Event(StreamEvent, Option<u32>),
    /// How the agent ends, and after how many turns.
    End(Outcome, u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    timestamp: f64,
    task_id: String,
    session_id: String,
    #[serde(default)]
    data: Value,
}

/// Reads a line of the run's agent.
pub(super) fn read(line: &[u8], run: &Run, redactor: &Redactor) -> Said {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Said::Nothing;
    }
    let envelope: Envelope = match serde_json::from_slice(line) {
        Ok(envelope) => envelope,
        Err(error) => {
            // Programs print what they like; what looks like an event is worth a look.
            if matches!(line.first(), Some(b'{' | b'[')) {
                tracing::warn!(run = run.id, %error, "a line of the agent is no event");
            }
            return Said::Nothing;
        }
    };
    let Envelope { kind, timestamp, task_id, session_id, data } = envelope;
    let Some(name) = kind.strip_prefix("agent:").filter(|name| EVENTS.contains(name)) else { return Said::Nothing };
    if timestamp == 0.0 || task_id != run.task_id || session_id != run.session_id {
        tracing::warn!(run = run.id, name, "an event of the agent is not for this run");
        return Said::Nothing;
    }
    let mut data = match redactor.value(data) {
        Value::Object(data) => data,
        _ => Map::new(),
    };
    if let Some((outcome, turn_count)) = end(name, &data) {
        return Said::End(outcome, turn_count);
    }
    let turn = (name == "turn").then(|| number(&data, "turn")).flatten();
    if name == "token" {
        // The whole text so far, again and again: whoever wants it adds the deltas up.
        data.remove("accumulated");
    }
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end")]
    let timestamp_ms = timestamp as i64;
    let event = StreamEvent {
        kind: format!("container-agent:{name}"),
        channel: Channel::ContainerAgent,
        timestamp_ms,
        data: with_ids(data, run),
    };
    Said::Event(event, turn)
}

/// The data with the run's ids, which it cannot override.
pub(super) fn with_ids(mut data: Map<String, Value>, run: &Run) -> Map<String, Value> {
    for (name, id) in [("taskId", &run.task_id), ("sessionId", &run.session_id), ("projectId", &run.project_id)] {
        data.insert(name.into(), id.as_str().into());
    }
    data
}

/// The error among what the runner complained, or nothing.
pub(super) fn stderr_error(text: &str, run: &Run, redactor: &Redactor) -> Option<(Outcome, u32)> {
    text.lines().find_map(|line| match read(line.as_bytes(), run, redactor) {
        Said::End(outcome @ Outcome::Failed { .. }, turns) => Some((outcome, turns)),
        Said::Nothing | Said::Event(..) | Said::End(..) => None,
    })
}

/// How the agent ends, if the event says so and has what it must have.
fn end(name: &str, data: &Map<String, Value>) -> Option<(Outcome, u32)> {
    let text = |field: &str| data.get(field).and_then(Value::as_str).map(str::to_owned);
    let outcome = match name {
        "complete" => match data.get("status").and_then(Value::as_str)? {
            "completed" => Outcome::Completed { result: text("result") },
            "turn_limit" => Outcome::TurnLimit { result: text("result") },
            "cancelled" => Outcome::Cancelled { reason: None },
            _ => return None,
        },
        "cancelled" => Outcome::Cancelled { reason: None },
        "error" => Outcome::Failed { error: text("error")?, code: text("code") },
        "plan_ready" => Outcome::PlanReady {
            plan: text("plan")?,
            sdk_session_id: text("sdkSessionId").filter(|id| !id.is_empty()),
            allowed_prompts: data.get("allowedPrompts").and_then(Value::as_array).cloned().unwrap_or_default(),
        },
        _ => return None,
    };
    Some((outcome, number(data, "turnCount")?))
}

fn number(data: &Map<String, Value>, field: &str) -> Option<u32> {
    let number = data.get(field)?;
    // The predecessor's runner prints whole numbers; JavaScript may print them as 3.0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float beyond the range becomes its end"
    )]
    number.as_f64().map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn run() -> Run {
        let run = json!({
            "id": "r", "projectId": "p", "taskId": "t", "sessionId": "s", "agentId": "agent-t", "phase": "plan",
            "state": { "name": "running" }, "prompt": "", "model": "m", "maxTurns": 50, "readBytes": 0, "turnCount": 0,
            "createdAt": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(run).unwrap()
    }

    fn line(kind: &str, data: &Value) -> String {
        json!({ "type": kind, "timestamp": 5, "taskId": "t", "sessionId": "s", "data": data }).to_string()
    }

    fn said(line: &str) -> Said {
        read(line.as_bytes(), &run(), &Redactor::new("s3cr3t-key".to_owned().into()))
    }

    #[rstest]
    #[case::blank("  ")]
    #[case::prose("npm warn deprecated")]
    #[case::broken(r#"{"type":"agent:turn","#)]
    #[case::another_task(r#"{"type":"agent:turn","timestamp":5,"taskId":"x","sessionId":"s","data":{}}"#)]
    #[case::another_session(r#"{"type":"agent:turn","timestamp":5,"taskId":"t","sessionId":"x","data":{}}"#)]
    #[case::no_time(r#"{"type":"agent:turn","timestamp":0,"taskId":"t","sessionId":"s","data":{}}"#)]
    #[case::unknown(r#"{"type":"agent:dance","timestamp":5,"taskId":"t","sessionId":"s","data":{}}"#)]
    #[case::no_agent(r#"{"type":"turn","timestamp":5,"taskId":"t","sessionId":"s","data":{}}"#)]
    fn what_is_no_event_of_the_run_is_not_heard(#[case] line: &str) {
        assert_eq!(said(line), Said::Nothing);
    }

    #[test]
    fn data_cannot_say_that_it_is_about_another_task() {
        let forged = json!({ "turn": 2, "taskId": "other", "projectId": "other", "sessionId": "other" });
        let Said::Event(event, turn) = said(&line("agent:turn", &forged)) else { panic!("an event") };
        assert_eq!((event.kind.as_str(), turn, event.timestamp_ms), ("container-agent:turn", Some(2), 5));
        assert_eq!(Value::Object(event.data), json!({ "turn": 2, "taskId": "t", "sessionId": "s", "projectId": "p" }));
    }

    #[rstest]
    #[case::without_status("agent:complete", json!({ "turnCount": 1 }))]
    #[case::of_unknown_status("agent:complete", json!({ "status": "fine", "turnCount": 1 }))]
    #[case::without_turns("agent:complete", json!({ "status": "completed" }))]
    #[case::without_text("agent:error", json!({ "turnCount": 1 }))]
    #[case::without_a_plan("agent:plan_ready", json!({ "plan": 5, "turnCount": 1 }))]
    #[case::of_no_turns("agent:cancelled", json!({}))]
    fn a_last_word_that_lacks_something_is_shown_but_ends_nothing(#[case] kind: &str, #[case] data: Value) {
        assert!(matches!(said(&line(kind, &data)), Said::Event(event, None) if event.kind.ends_with(&kind[6..])));
    }

    #[test]
    fn a_plan_is_read_with_what_it_takes_to_go_on() {
        let data =
            json!({ "plan": "do", "turnCount": 3.0, "sdkSessionId": "", "allowedPrompts": [{ "tool": "Bash" }] });
        let outcome = Outcome::PlanReady {
            plan: "do".into(),
            sdk_session_id: None,
            allowed_prompts: vec![json!({ "tool": "Bash" })],
        };
        assert_eq!(said(&line("agent:plan_ready", &data)), Said::End(outcome, 3));
    }

    #[test]
    fn the_whole_text_so_far_is_not_kept_with_every_word() {
        let Said::Event(event, _) = said(&line("agent:token", &json!({ "delta": "b", "accumulated": "ab" }))) else {
            panic!("an event")
        };
        assert_eq!((event.data.get("delta"), event.data.get("accumulated")), (Some(&json!("b")), None));
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_stands_and_however_it_is_written() {
        let data = json!({ "a": ["my s3cr3t-key!"], "s3cr3t-key": 1 });
        let line = line("agent:message", &data).replace("my s3", "my \\u00733");
        let Said::Event(event, _) = said(&line) else { panic!("an event") };
        assert_eq!(event.data.get("a"), Some(&json!(["my [redacted]!"])));
        assert_eq!(event.data.get("[redacted]"), Some(&json!(1)));
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_counted_and_the_next_is_read() {
        let mut lines = Lines::default();
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        assert_eq!(lines.push(&long), []);
        assert!(lines.partial.is_empty(), "what is dropped is not kept either");
        let expected = [(Line::TooLong, MAX_LINE_BYTES + 3), (Line::Whole(b"next".to_vec()), 6)];
        assert_eq!(lines.push(b"x\nnext\r\n"), expected);
    }

    proptest! {
        /// Wherever the chunks end, in the midst of a character even.
        #[test]
        fn lines_are_the_same_however_the_bytes_come(
            text in proptest::collection::vec("[a-zäß語🦀 ]{0,9}", 0..8), cuts in proptest::collection::vec(1_usize..7, 0..40)
        ) {
            let bytes = text.join("\n").into_bytes();
            let mut lines = Lines::default();
            let (mut found, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (chunk, left) = rest.split_at(cut.min(rest.len()));
                found.extend(lines.push(chunk));
                rest = left;
            }
            found.extend(lines.push(rest));
            found.extend(lines.finish());
            prop_assert_eq!(found.iter().map(|(_, bytes)| bytes).sum::<usize>(), bytes.len());
            let found: Vec<_> = found.into_iter().map(|(line, _)| match line {
                Line::Whole(line) => String::from_utf8(line).unwrap(),
                Line::TooLong => panic!("none is"),
            }).collect();
            let whole = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(found, whole.lines().map(str::trim_end).collect::<Vec<_>>());
        }
    }
}
