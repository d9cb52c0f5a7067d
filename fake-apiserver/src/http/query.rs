//! The query of a URL: options of a request, read as Go's conversion of query values reads them.
//!
//! Upstream: `k8s.io/apimachinery/pkg/runtime/converter.go` (how a text becomes a bool or a number) and
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation` (what a value may be).

use serde_json::json;

use super::path::percent_decoded;
use crate::{
    base::{FieldError, Status, status::go_quote},
    registry::{FieldValidation, ListOptions},
};

/// The words of a query, decoded, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// Which options a write is checked as; the name stands in the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// `CreateOptions`.
    Create,
    /// `UpdateOptions`.
    Update,
    /// `PatchOptions` of an apply patch.
    Apply,
    /// `PatchOptions` of any other patch.
    Patch,
}

/// Options of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WriteOptions {
    pub(super) dry_run: bool,
    pub(super) manager: String,
    pub(super) validation: FieldValidation,
    pub(super) force: bool,
}

/// Characters of a field manager's name; upstream's `FieldManagerMaxLength`.
const MANAGER_BYTES: usize = 128;

impl Query {
    /// Reads a raw query.
    pub(super) fn parse(raw: &str) -> Self {
        let words = raw.split('&').filter(|word| !word.is_empty()).map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (percent_decoded(&key.replace('+', " ")), percent_decoded(&value.replace('+', " ")))
        });
        Self(words.collect())
    }

    /// All words, for those who read their own (exec, log).
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of a word.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().into()
    }

    /// A bool: true unless absent, `false` or `0`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 with Go's words.
    pub(super) fn int(&self, key: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let sign = text.strip_prefix(['+', '-']).unwrap_or(text);
        if sign.is_empty() || !sign.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Status::bad_request(format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(text))));
        }
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {}: value out of range", go_quote(text)))
        })
    }

    /// Options of list and watch.
    ///
    /// # Errors
    /// 400 for a number that is none.
    pub(super) fn list_options(&self) -> Result<ListOptions, Status> {
        self.int("timeoutSeconds")?;
        Ok(ListOptions {
            label_selector: self.text("labelSelector"),
            field_selector: self.text("fieldSelector"),
            limit: self.int("limit")?.unwrap_or_default(),
            continue_token: self.text("continue"),
            resource_version: self.text("resourceVersion"),
            resource_version_match: self.text("resourceVersionMatch"),
            send_initial_events: self.flag("sendInitialEvents"),
            allow_bookmarks: self.flag("allowWatchBookmarks").unwrap_or_default(),
        })
    }

    /// Every `dryRun` of the query.
    pub(super) fn dry_run(&self) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.clone()).collect()
    }

    /// Options of a write, checked; without a manager the User-Agent up to its first `/` is one.
    ///
    /// # Errors
    /// 422 that names every wrong option.
    pub(super) fn write_options(&self, writing: Writing, user_agent: &str) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let given = self.text("fieldManager");
        match writing {
            Writing::Apply if given.is_empty() => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            Writing::Patch if self.flag("force").is_some() => {
                errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
            Writing::Create | Writing::Update | Writing::Apply | Writing::Patch => {}
        }
        if given.len() > MANAGER_BYTES {
            errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES));
        }
        for (position, c) in given.char_indices().filter(|(_, c)| c.is_control()) {
            let detail = format!("invalid character U+{:04X} (at position {position})", c as u32);
            errors.push(FieldError::invalid("fieldManager", &json!(given), &detail));
        }
        let dry_run = self.dry_run();
        errors.extend(dry_run_error(&dry_run));
        let validation = self.text("fieldValidation");
        let validation = match validation.as_str() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            _ => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", &json!(validation), &supported));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            let kind = match writing {
                Writing::Create => "CreateOptions",
                Writing::Update => "UpdateOptions",
                Writing::Apply | Writing::Patch => "PatchOptions",
            };
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        let manager = if given.is_empty() { manager_of(user_agent) } else { given };
        let force = self.flag("force").unwrap_or_default();
        Ok(WriteOptions { dry_run: !dry_run.is_empty(), manager, validation, force })
    }
}

/// The error of a `dryRun` that asks for anything but `All`.
pub(super) fn dry_run_error(values: &[String]) -> Option<FieldError> {
    let wrong = values.iter().any(|value| value != "All");
    wrong.then(|| FieldError::not_supported("dryRun", &json!(values), &["All"]))
}

/// The field manager that a User-Agent stands for.
fn manager_of(user_agent: &str) -> String {
    let program = user_agent.split('/').next().unwrap_or_default();
    let mut manager = String::new();
    for c in program.chars().filter(|c| !c.is_control() && *c != '\u{FFFD}') {
        if manager.len() + c.len_utf8() > MANAGER_BYTES {
            break;
        }
        manager.push(c);
    }
    manager
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("watch=true", Some(true))]
    #[case("watch=maybe", Some(true))]
    #[case("watch=", Some(true))]
    #[case("watch", Some(true))]
    #[case("watch=0", Some(false))]
    #[case("watch=False", Some(false))]
    #[case("", None)]
    fn a_bool_is_true_unless_it_says_false(#[case] raw: &str, #[case] expected: Option<bool>) {
        assert_eq!(Query::parse(raw).flag("watch"), expected);
    }

    #[rstest]
    #[case("limit=5", Ok(Some(5)))]
    #[case("limit=-1", Ok(Some(-1)))]
    #[case("", Ok(None))]
    #[case("limit=x", Err("strconv.ParseInt: parsing \"x\": invalid syntax"))]
    #[case("limit=", Err("strconv.ParseInt: parsing \"\": invalid syntax"))]
    #[case("limit=99999999999999999999", Err("strconv.ParseInt: parsing \"99999999999999999999\": value out of range"))]
    fn a_number_is_read_as_go_reads_it(#[case] raw: &str, #[case] expected: Result<Option<i64>, &str>) {
        assert_eq!(Query::parse(raw).int("limit").map_err(|status| status.message), expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case(
        Writing::Create,
        "dryRun=Some",
        "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
    )]
    #[case(
        Writing::Update,
        "fieldValidation=X",
        "UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"X\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
    )]
    #[case(
        Writing::Apply,
        "",
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    )]
    #[case(
        Writing::Patch,
        "force=true",
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    )]
    fn a_wrong_option_is_named(#[case] writing: Writing, #[case] raw: &str, #[case] expected: &str) {
        assert_eq!(Query::parse(raw).write_options(writing, "test").unwrap_err().message, expected);
    }

    #[test]
    fn the_program_in_the_user_agent_is_the_default_manager() {
        let manager = |agent| Query::default().write_options(Writing::Create, agent).unwrap().manager;
        assert_eq!(manager("kubectl/v1.32.0 (linux/amd64)"), "kubectl");
        assert_eq!(manager("conformance"), "conformance");
        assert_eq!(manager(&"x".repeat(200)).len(), 128);
    }

    #[test]
    fn words_are_decoded() {
        let query = Query::parse("command=a+b&command=%2Fbin%2Fsh&tty");
        let words: Vec<_> = query.pairs().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(words, [("command", "a b"), ("command", "/bin/sh"), ("tty", "")]);
    }
}
