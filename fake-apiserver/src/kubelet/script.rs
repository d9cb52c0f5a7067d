//! What an image does when it is run: a [`Script`], chosen by the pod's annotation or by the image's name.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::base::Object;

/// The annotation of a pod that holds its script, as JSON or YAML.
pub const ANNOTATION: &str = "fake-apiserver.dev/script";

/// What a container does. Everything left out does what the container's command says, and an image without a command that
/// the small shell knows runs until it is stopped.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Script {
    /// How long pulling the image takes.
    #[serde(deserialize_with = "duration")]
    pub pull_delay: Option<Duration>,
    /// Why the image cannot be pulled.
    pub pull_error: Option<String>,
    /// How long it takes to start, once the image is there.
    #[serde(deserialize_with = "duration")]
    pub start_delay: Option<Duration>,
    /// How long it runs before it exits.
    #[serde(deserialize_with = "duration")]
    pub run: Option<Duration>,
    /// The code it exits with; alone, it exits at once.
    pub exit_code: Option<i32>,
    /// How long it goes on after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub stop_delay: Option<Duration>,
    /// What it prints.
    pub log: Vec<LogLine>,
    /// What its commands answer when they are called by exec; first match wins.
    pub exec: Vec<ExecRule>,
    /// What answers on its ports: a command for each, called for every connection, with the connection as its input and
    /// output. Where nothing is named, connections are refused.
    #[serde(deserialize_with = "ports")]
    pub ports: BTreeMap<u16, Vec<String>>,
    /// Which of its probes (`startup`, `readiness`, `liveness`) fail, and when.
    pub probes: BTreeMap<String, Failing>,
    /// Scripts of single containers, by name; they replace this one.
    pub containers: BTreeMap<String, Script>,
}

/// When a probe fails.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Failing {
    /// From when on, counted from the start; at once by default.
    #[serde(deserialize_with = "duration")]
    pub after: Option<Duration>,
    /// For how long; for ever by default.
    #[serde(deserialize_with = "duration")]
    pub lasting: Option<Duration>,
}

/// A line that a script prints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogLine {
    /// When, counted from the start.
    pub after: Duration,
    /// The text, without its newline.
    pub text: String,
    /// Whether it goes to standard error.
    pub stderr: bool,
}

/// What a command answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExecRule {
    /// The first words of the command: a list, or a text split at spaces.
    #[serde(deserialize_with = "words")]
    pub command: Vec<String>,
    /// What it prints.
    pub stdout: String,
    /// What it prints as errors.
    pub stderr: String,
    /// Its exit code.
    pub exit_code: i32,
    /// How long it takes.
    #[serde(deserialize_with = "duration")]
    pub delay: Option<Duration>,
}

impl ExecRule {
    /// Whether the rule answers for a command.
    pub fn matches(&self, words: &[String]) -> bool {
        !self.command.is_empty() && words.starts_with(&self.command)
    }
}

impl Script {
    /// The script in a text of JSON or YAML.
    ///
    /// # Errors
    /// If the text is no script; the message says where.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// The script of one container of a pod: from its annotation, else from the images, else none.
    ///
    /// # Errors
    /// If the annotation holds no script.
    pub fn choose(pod: &Object, container: &str, image: &str, images: &[(String, Script)]) -> Result<Self, String> {
        let script = match pod.annotation(ANNOTATION) {
            Some(text) => Self::parse(text).map_err(|error| format!("annotation {ANNOTATION}: {error}"))?,
            None => images
                .iter()
                .find(|(name, _)| match name.strip_suffix('*') {
                    Some(prefix) => image.starts_with(prefix),
                    None => image == name,
                })
                .map(|(_, script)| script.clone())
                .unwrap_or_default(),
        };
        Ok(script.containers.get(container).cloned().unwrap_or(script))
    }

    /// Whether the script itself says when the container ends, whatever its command is.
    pub fn ends(&self) -> bool {
        self.run.is_some() || self.exit_code.is_some()
    }
}

/// A duration: `1h2m3.5s`, `300ms`, or a number of seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    Some(total)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Number(f64),
    Text(String),
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<TextOrNumber>::deserialize(deserializer)? {
        None => Ok(None),
        Some(TextOrNumber::Number(seconds)) => {
            Duration::try_from_secs_f64(seconds).map(Some).map_err(|error| de::Error::custom(error.to_string()))
        }
        Some(TextOrNumber::Text(text)) => match parse_duration(&text) {
            Some(duration) => Ok(Some(duration)),
            None => Err(de::Error::custom(format!("{text:?} is no duration; write 1.5s, 300ms or 2m"))),
        },
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn words(self) -> Vec<String> {
        match self {
            Self::One(text) => text.split_whitespace().map(str::to_owned).collect(),
            Self::Many(words) => words,
        }
    }
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    OneOrMany::deserialize(deserializer).map(OneOrMany::words)
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u16, Vec<String>>, D::Error> {
    let all = BTreeMap::<String, OneOrMany>::deserialize(deserializer)?;
    let port = |(port, command): (String, OneOrMany)| match port.parse::<u16>() {
        Ok(number @ 1..) => Ok((number, command.words())),
        _ => Err(de::Error::custom(format!("{port:?} is no port; write a number from 1 to 65535"))),
    };
    all.into_iter().map(port).collect()
}

impl<'de> Deserialize<'de> for LogLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        struct Long {
            #[serde(deserialize_with = "duration")]
            after: Option<Duration>,
            text: String,
            stderr: bool,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Short(String),
            Long(Long),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Short(text) => Self { text, ..Self::default() },
            Either::Long(Long { after, text, stderr }) => Self { after: after.unwrap_or_default(), text, stderr },
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_script_is_read_from_yaml_and_from_json() {
        let yaml = "run: 1m30s\nexitCode: 3\nlog: [hello, {after: 2, text: late, stderr: true}]\nexec:\n- command: git status\n  stdout: clean\n  delay: 300ms\n";
        let json = json!({
            "run": 90, "exitCode": 3, "log": ["hello", { "after": "2s", "text": "late", "stderr": true }],
            "exec": [{ "command": ["git", "status"], "stdout": "clean", "delay": 0.3 }],
        });
        let script = Script::parse(yaml).unwrap();
        assert_eq!(script, Script::parse(&json.to_string()).unwrap());
        assert_eq!(script.run, Some(Duration::from_secs(90)));
        assert_eq!(script.log[1].after, Duration::from_secs(2));
        assert!(script.exec[0].matches(&["git".into(), "status".into(), "-s".into()]));
        assert!(!script.exec[0].matches(&["git".into()]));
    }

    #[test]
    fn ports_are_numbers_in_yaml_and_texts_in_json() {
        let ports = Script::parse("ports: {80: cat, 8080: [sh, -c, echo hi]}").unwrap().ports;
        assert_eq!(ports, Script::parse(r#"{"ports": {"80": "cat", "8080": ["sh", "-c", "echo hi"]}}"#).unwrap().ports);
        assert_eq!(ports[&8080], ["sh", "-c", "echo hi"]);
    }

    #[test]
    fn a_misspelt_script_is_refused() {
        assert!(Script::parse("runs: 3s").unwrap_err().contains("runs"));
        assert!(Script::parse("run: soon").unwrap_err().contains("soon"));
        assert!(Script::parse("ports: {http: cat}").unwrap_err().contains("\"http\" is no port"));
    }

    #[rstest]
    #[case("1h1m1s", Some(3661.0))]
    #[case("1.5s", Some(1.5))]
    #[case("250ms", Some(0.25))]
    #[case("7", Some(7.0))]
    #[case("-1s", None)]
    #[case("1x", None)]
    #[case("s", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<f64>) {
        assert_eq!(parse_duration(text).map(|d| d.as_secs_f64()), seconds);
    }

    #[test]
    fn the_annotation_goes_before_the_image_and_the_container_before_the_pod() {
        let images = [("busybox:*".to_owned(), Script { exit_code: Some(1), ..Script::default() })];
        let mut pod = Object::new("v1", "Pod", "default", "p");
        let code = |pod: &Object, name| Script::choose(pod, name, "busybox:1.36", &images).unwrap().exit_code;
        assert_eq!(code(&pod, "a"), Some(1));
        pod.set_at(
            &["metadata", "annotations"],
            json!({ ANNOTATION: "{exitCode: 2, containers: {b: {exitCode: 3}}}" }),
        );
        assert_eq!((code(&pod, "a"), code(&pod, "b")), (Some(2), Some(3)));
    }
}
