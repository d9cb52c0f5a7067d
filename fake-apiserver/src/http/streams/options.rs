//! The queries of `pods/log`, `pods/exec` and `pods/attach`, checked as upstream checks them.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    base::{FieldError, Status},
    kubelet::{LogOptions, Source, Wanted},
};

/// A query, in order.
pub(super) type Pairs = [(String, String)];

fn get<'a>(query: &'a Pairs, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A flag as `runtime.Convert_Slice_string_To_bool` reads it: there, and neither `0` nor `false`.
fn flag(query: &Pairs, name: &str) -> Option<bool> {
    get(query, name).map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

fn number(query: &Pairs, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = get(query, name).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(number) => Ok(Some(number)),
        Err(error) => {
            let range =
                matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow);
            let why = if range { "value out of range" } else { "invalid syntax" };
            Err(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}")))
        }
    }
}

/// The options of a log; `ValidatePodLogOptions`.
pub(super) fn log(query: &Pairs, pod: &str) -> Result<LogOptions, Status> {
    let mut errors = Vec::new();
    let since_time = match get(query, "sinceTime").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match text.parse::<Timestamp>() {
            Ok(time) => Some(time),
            Err(_) => {
                let layout = "2006-01-02T15:04:05Z07:00";
                return Err(Status::bad_request(format!(
                    "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
                )));
            }
        },
    };
    let tail_lines = number(query, "tailLines")?;
    let limit_bytes = number(query, "limitBytes")?;
    let since_seconds = number(query, "sinceSeconds")?;
    if let Some(lines) = tail_lines.filter(|lines| *lines < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("tailLines", &Value::from(lines), detail));
    }
    if let Some(bytes) = limit_bytes.filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid("limitBytes", &Value::from(bytes), "must be greater than 0"));
    }
    match since_seconds {
        Some(_) if since_time.is_some() => {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", detail));
        }
        Some(seconds) if seconds < 1 => {
            errors.push(FieldError::invalid("sinceSeconds", &Value::from(seconds), "must be greater than 0"));
        }
        _ => {}
    }
    let source = match get(query, "stream").unwrap_or_default() {
        "" | "All" => None,
        "Stdout" => Some(Source::Stdout),
        "Stderr" => Some(Source::Stderr),
        other => {
            let supported = ["All", "Stderr", "Stdout"];
            errors.push(FieldError::not_supported("stream", &Value::from(other), &supported));
            None
        }
    };
    if source.is_some() && tail_lines.is_some() {
        errors.push(FieldError::forbidden("", "`tailLines` and specific `stream` are mutually exclusive for now"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, &errors));
    }
    Ok(LogOptions {
        container: get(query, "container").unwrap_or_default().into(),
        follow: flag(query, "follow").unwrap_or_default(),
        previous: flag(query, "previous").unwrap_or_default(),
        since_seconds,
        since_time,
        timestamps: flag(query, "timestamps").unwrap_or_default(),
        tail_lines,
        limit_bytes,
        source,
    })
}

/// What exec and attach ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) container: String,
    pub(super) command: Vec<String>,
    pub(super) wanted: Wanted,
}

/// The options of exec and attach.
pub(super) fn remote(query: &Pairs) -> Remote {
    let on = |name| flag(query, name).unwrap_or_default();
    Remote {
        container: get(query, "container").unwrap_or_default().into(),
        command: query.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect(),
        // A terminal has one output: as in the kubelet, asking for its errors too means nothing.
        wanted: Wanted { stdin: on("stdin"), stdout: on("stdout"), stderr: on("stderr") && !on("tty"), tty: on("tty") },
    }
}

impl Remote {
    /// As a kubelet wants it (`streamParams` in `pkg/registry/core/pod/strategy.go`).
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let Wanted { stdin, stdout, stderr, tty } = self.wanted;
        let flags = [("input", stdin), ("output", stdout), ("error", stderr), ("tty", tty)];
        let flags = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.into(), "1".into()));
        flags.chain(self.command.iter().map(|word| ("command".into(), word.clone()))).collect()
    }
}

/// The options of exec and attach, as a kubelet is asked.
pub(super) fn at_node(query: &Pairs) -> Remote {
    let on = |name| flag(query, name).unwrap_or_default();
    Remote {
        wanted: Wanted { stdin: on("input"), stdout: on("output"), stderr: on("error") && !on("tty"), tty: on("tty") },
        ..remote(query)
    }
}

/// The query of a port-forward, as a kubelet is asked.
pub(super) fn port_pairs(query: &Pairs) -> Vec<(String, String)> {
    let ports: Vec<&str> = query.iter().filter(|(key, _)| key == "ports").map(|(_, value)| value.as_str()).collect();
    if ports.is_empty() { Vec::new() } else { vec![("port".into(), ports.join(","))] }
}

/// The query of a log, as a kubelet is asked: the container stands in its path.
pub(super) fn log_pairs(query: &Pairs) -> Vec<(String, String)> {
    query.iter().filter(|(key, _)| key != "container").cloned().collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[rstest]
    #[case("tailLines=abc", 400, "strconv.ParseInt: parsing \"abc\": invalid syntax")]
    #[case(
        "tailLines=-1",
        422,
        "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    )]
    #[case("limitBytes=0", 422, "PodLogOptions \"p\" is invalid: limitBytes: Invalid value: 0: must be greater than 0")]
    #[case(
        "sinceSeconds=0",
        422,
        "PodLogOptions \"p\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0"
    )]
    #[case(
        "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
        422,
        "PodLogOptions \"p\" is invalid: : Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
    )]
    fn wrong_log_options_are_refused(#[case] text: &str, #[case] code: u16, #[case] message: &str) {
        let status = log(&query(text), "p").unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }

    #[test]
    fn log_options_are_read() {
        let options = log(
            &query("container=c&follow=true&previous=0&timestamps&tailLines=5&sinceTime=2026-01-01T00:00:00Z"),
            "p",
        );
        let expected = LogOptions {
            container: "c".into(),
            follow: true,
            timestamps: true,
            tail_lines: Some(5),
            since_time: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            ..LogOptions::default()
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn a_kubelet_is_asked_for_what_the_client_wants() {
        let asked = remote(&query("command=sh&command=-c&command=a%26b&stdin=true&stdout=1&stderr=0"));
        let passed = at_node(&asked.pairs());
        assert_eq!((passed.command, passed.wanted), (asked.command, asked.wanted));
    }

    #[test]
    fn a_command_has_as_many_words_as_the_query_names() {
        let remote = remote(&query("command=sh&command=-c&command=ls&stdin=true&stdout=1&stderr=true&tty=true"));
        assert_eq!(remote.command, ["sh", "-c", "ls"]);
        assert_eq!(remote.wanted, Wanted { stdin: true, stdout: true, stderr: false, tty: true });
    }
}
