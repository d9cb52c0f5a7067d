//! A recorded case: the file's form, and the variables in it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use fake_apiserver::clock::{Clock, time_text};
use jiff::SignedDuration;
use regex::{Captures, Regex};
use serde::Deserialize;

use crate::json::Json;

/// A case as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The file's name without `.json`; names inside of files are not unique.
    #[serde(skip)]
    pub(crate) id: String,
    #[serde(rename = "name")]
    _name: String,
    pub(crate) area: String,
    #[serde(default, rename = "about")]
    _about: String,
    /// Keys passed over in all answers.
    #[serde(default)]
    pub(crate) ignore: Vec<String>,
    #[serde(default)]
    pub(crate) setup: Vec<Step>,
    pub(crate) steps: Vec<Step>,
    #[serde(default)]
    pub(crate) teardown: Vec<Step>,
}

/// What a step does.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Do {
    /// One request, one answer.
    #[default]
    Request,
    /// A GET again and again until its answer is as asked.
    Wait,
    /// Opens a watch.
    Watch,
    /// The next events of a watch.
    Events,
    /// Ends a watch.
    Stop,
    /// Lets time pass.
    Sleep,
}

/// One step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(default, rename = "do")]
    pub(crate) what: Do,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) headers: Json,
    #[serde(default)]
    pub(crate) body: Json,
    /// Pointers that alone are compared, if there are any.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    /// Pointers and the values that a wait waits for.
    #[serde(default)]
    pub(crate) until: Vec<(String, Json)>,
    /// The status that a wait waits for; 200 if absent.
    pub(crate) status: Option<u16>,
    /// Longest time of a request, a wait or the coming of events.
    #[serde(rename = "timeout")]
    pub(crate) timeout_seconds: Option<f64>,
    /// How long a sleep is.
    #[serde(default)]
    pub(crate) seconds: f64,
    /// Words and the pointers whose values they keep for later steps.
    #[serde(default)]
    pub(crate) save: Json,
    /// The same, and the words also stand for the values in what is compared.
    #[serde(default)]
    pub(crate) name: Json,
    /// Pointers of lists whose order is open.
    #[serde(default)]
    pub(crate) unordered: Vec<String>,
    /// Nothing is compared.
    #[serde(default)]
    pub(crate) quiet: bool,
    /// Keys passed over in this answer.
    #[serde(default)]
    pub(crate) ignore: Vec<String>,
    /// Which watch is meant.
    #[serde(default)]
    pub(crate) id: String,
    /// How many events are to come.
    #[serde(default)]
    pub(crate) count: usize,
    /// Whether a bookmark with annotations counts as an event.
    #[serde(default)]
    pub(crate) bookmarks: bool,
    /// The recorded answer.
    pub(crate) expect: Option<Json>,
}

impl Step {
    /// Whether its answer is compared.
    pub(crate) fn is_judged(&self) -> bool {
        !self.quiet && !matches!(self.what, Do::Stop | Do::Sleep)
    }
}

impl Case {
    /// Reads a file of cases' form.
    pub(crate) fn parse(id: &str, text: &str) -> Self {
        let mut case: Self = serde_json::from_str(text).unwrap_or_else(|error| panic!("{id}: {error}"));
        case.id = id.into();
        case
    }

    /// All cases of the folder, by name.
    pub(crate) fn all() -> Vec<Self> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder())
            .expect("the folder of cases")
            .map(|entry| entry.expect("an entry of the folder of cases").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter(|path| path.file_stem().is_some_and(|stem| stem != "known-differences"))
            .collect();
        files.sort();
        files
            .iter()
            .map(|path| {
                let text = fs::read_to_string(path).expect("a readable case");
                Self::parse(&path.file_stem().expect("a file's name").to_string_lossy(), &text)
            })
            .collect()
    }
}

/// Where the cases are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/conformance")
}

/// What stands for `{ns}`, `{id}`, `${word}` and times.
#[derive(Debug)]
pub(crate) struct Variables {
    /// The case's random mark.
    pub(crate) id: String,
    /// The case's namespace.
    pub(crate) ns: String,
    /// Kept values, in the order in which they were first kept.
    kept: Vec<(String, String)>,
    clock: Clock,
}

static NOW: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{now(?<seconds>[-+][0-9]+)s\}").expect("a constant pattern"));

/// Letters and digits of generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Variables {
    /// Those of a case; the mark follows from its name, so that each run is the same.
    pub(crate) fn new(case: &str, clock: Clock) -> Self {
        let mut hash =
            case.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mut id = String::new();
        for _ in 0..8 {
            let size = ALPHABET.len() as u64;
            id.push(char::from(ALPHABET[usize::try_from(hash % size).expect("below 27")]));
            hash /= size;
        }
        Self { ns: format!("case-{id}"), id, kept: Vec::new(), clock }
    }

    /// Keeps a value for later steps.
    pub(crate) fn keep(&mut self, word: &str, value: String) {
        match self.kept.iter_mut().find(|(known, _)| known == word) {
            Some((_, old)) => *old = value,
            None => self.kept.push((word.into(), value)),
        }
    }

    /// A text with everything put in.
    pub(crate) fn fill(&self, text: &str) -> String {
        let now = self.clock.now();
        let mut text = NOW
            .replace_all(text, |found: &Captures<'_>| {
                let seconds = found["seconds"].parse().expect("digits");
                time_text(now.saturating_add(SignedDuration::from_secs(seconds)).expect("no calendar unit"))
            })
            .into_owned();
        let own = [("ns", &self.ns), ("id", &self.id)];
        for (word, value) in own.into_iter().chain(self.kept.iter().map(|(word, value)| (word.as_str(), value))) {
            text = text.replace(&format!("${{{word}}}"), value);
        }
        text.replace("{ns}", &self.ns).replace("{id}", &self.id)
    }

    /// A value with everything put in, keys too.
    pub(crate) fn fill_json(&self, value: &Json) -> Json {
        match value {
            Json::Text(text) => Json::Text(self.fill(text)),
            Json::List(items) => Json::List(items.iter().map(|item| self.fill_json(item)).collect()),
            Json::Map(entries) => {
                Json::Map(entries.iter().map(|(key, value)| (self.fill(key), self.fill_json(value))).collect())
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn variables_are_put_into_texts_and_keys_and_times_come_from_the_clusters_clock() {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let mut variables = Variables::new("some-case", clock.clone());
        variables.keep("rv", "7".into());
        variables.keep("rv", "8".into());
        clock.sleep(std::time::Duration::from_millis(1500)).await;
        let value: Json =
            serde_json::from_str(r#"{"in-{ns}":"${rv} {id} ${ns}","at":["{now+5s}","{now-1s}"],"n":1}"#).unwrap();
        let (ns, id) = (&variables.ns, &variables.id);
        let want = format!(r#"{{"in-{ns}":"8 {id} {ns}","at":["2026-01-01T00:00:06Z","2026-01-01T00:00:00Z"],"n":1}}"#);
        assert_eq!(variables.fill_json(&value).to_string(), want);
    }

    #[test]
    fn every_case_can_be_read_and_has_something_recorded_for_each_judged_step() {
        for case in Case::all() {
            for (number, step) in case.steps.iter().enumerate() {
                assert!(!step.is_judged() || step.expect.is_some(), "{} step {number}", case.id);
            }
        }
    }
}
