//! What things are called: kinds, resources, keys, and the syntax of names.

use std::{fmt, sync::Arc};

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvk {
    /// API group, `""` for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

/// Group, version and resource (the plural name in paths).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvr {
    /// API group, `""` for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural, lower-case resource name.
    pub resource: String,
}

impl Gvr {
    /// From its three parts.
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// `group/version`, or the version alone for the core group: what stands in `apiVersion`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}", self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// What stands in `apiVersion` for a group and version.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// Group and version out of an `apiVersion`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Where an object lives in the store: its resource's bucket (`plural.group`), namespace and name.
///
/// Keys order as etcd orders the paths of a bucket: by namespace, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The bucket, shared by all versions of a resource.
    pub bucket: Arc<str>,
    /// Namespace, `""` for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Why a text is not allowed, one message a rule; empty where it is fine. The messages are those of
/// `k8s.io/apimachinery/pkg/util/validation`.
pub type Complaints = Vec<String>;

/// A check of an object's name; `prefix` where a suffix will be added (`generateName`).
pub type NameCheck = fn(name: &str, prefix: bool) -> Complaints;

/// `msg (e.g. 'a',  or 'b', regex used for validation is '…')`.
fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    let quoted: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    if quoted.is_empty() {
        format!("{message} (regex used for validation is '{regex}')")
    } else {
        format!("{message} (e.g. {}regex used for validation is '{regex}')", quoted.join(" or "))
    }
}

fn max_length(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be between … and …, inclusive`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn matches_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| is_lower_alphanumeric(*byte))
        && bytes.last().is_some_and(|byte| is_lower_alphanumeric(*byte))
        && bytes.iter().all(|byte| is_lower_alphanumeric(*byte) || *byte == b'-')
}

fn matches_dns_subdomain(text: &str) -> bool {
    text.split('.').all(matches_dns_label)
}

const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_REGEX: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// A label as of RFC 1123.
pub fn dns1123_label(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(max_length(63));
    }
    if !matches_dns_label(text) {
        errors.push(if matches_dns_subdomain(text) {
            "must not contain dots".into()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL_REGEX,
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

/// A subdomain as of RFC 1123.
pub fn dns1123_subdomain(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(max_length(253));
    }
    if !matches_dns_subdomain(text) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN_REGEX,
            &["example.com"],
        ));
    }
    errors
}

/// A subdomain whose first label is `*`.
pub fn wildcard_dns1123_subdomain(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(max_length(253));
    }
    if !text.strip_prefix("*.").is_some_and(matches_dns_subdomain) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_REGEX}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// A label as of RFC 1035: as RFC 1123, and a letter first.
pub fn dns1035_label(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(max_length(63));
    }
    if !(matches_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

const QUALIFIED_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn matches_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A label key, annotation key, finalizer, condition type: a name with an optional DNS prefix and `/`.
pub fn qualified_name(text: &str) -> Complaints {
    let examples = ["MyName", "my.name", "123-abc"];
    let (mut errors, parts) = (Vec::new(), text.split('/').collect::<Vec<_>>());
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            } else {
                let complaints = dns1123_subdomain(prefix).into_iter();
                // this copy of the rule counts bytes upstream (`pkg/api/validate/content`)
                errors.extend(complaints.map(|text| {
                    format!("prefix part {}", text.replace("no more than 253 characters", "no more than 253 bytes"))
                }));
            }
            name
        }
        _ => {
            let rule = regex_error(QUALIFIED_RULE, QUALIFIED_REGEX, &examples);
            return vec![format!(
                "a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".into());
    }
    if !matches_qualified(name) {
        errors.push(format!("name part {}", regex_error(QUALIFIED_RULE, QUALIFIED_REGEX, &examples)));
    }
    errors
}

/// A label's value.
pub fn label_value(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".into());
    }
    if !text.is_empty() && !matches_qualified(text) {
        errors.push(regex_error(
            &format!("a valid label must be an empty string or {}", QUALIFIED_RULE.replacen("must ", "", 1)),
            &format!("({QUALIFIED_REGEX})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A name that can stand in a path; all that RBAC asks of names.
pub fn path_segment(name: &str, prefix: bool) -> Complaints {
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"].iter().filter(|text| name.contains(**text)).map(|text| format!("may not contain '{text}'")).collect()
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(max_length(253));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => errors.push("must not be '.'".into()),
        ".." => errors.push("must not be '..'".into()),
        text if text.starts_with("..") => errors.push("must not start with '..'".into()),
        _ => {}
    }
    errors
}

/// The name of an environment variable, by the relaxed rule of Kubernetes 1.34 and later.
pub fn env_var_name(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.is_empty() {
        errors.push("environment variable name must be non-empty".into());
    }
    if !text.chars().all(|c| matches!(c, ' '..='~') && c != '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    errors
}

/// The name of a port.
pub fn port_name(text: &str) -> Complaints {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(max_length(15));
    }
    if text.is_empty() || !text.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// The number of a port.
pub fn port_number(port: i64) -> Complaints {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range_error(1, 65535)] }
}

/// A name for an HTTP header.
pub fn http_header_name(text: &str) -> Complaints {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(rule, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A share such as `25%`.
pub fn percent(text: &str) -> Complaints {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let rule = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(rule, "[0-9]+%", &["1%", "93%"])]
}

/// What a `generateName` is judged by: the trailing dash does not count, as a suffix follows it.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    if prefix && name.len() > 1 && name.ends_with('-') && name.is_char_boundary(name.len() - 2) {
        format!("{}a", &name[..name.len() - 2]).into()
    } else {
        name.into()
    }
}

/// Names of most kinds.
pub fn name_is_subdomain(name: &str, prefix: bool) -> Complaints {
    dns1123_subdomain(&masked(name, prefix))
}

/// Names of namespaces.
pub fn name_is_label(name: &str, prefix: bool) -> Complaints {
    dns1123_label(&masked(name, prefix))
}

/// Names of services.
pub fn name_is_1035_label(name: &str, prefix: bool) -> Complaints {
    dns1035_label(&masked(name, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_with_dots_is_told_so_and_not_by_regex() {
        assert_eq!(dns1123_label("has.dot"), ["must not contain dots"]);
        assert!(dns1123_label("Has.Dot")[0].starts_with("a lowercase RFC 1123 label must consist"));
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn a_generated_name_may_end_in_a_dash() {
        assert!(name_is_subdomain("gen-", true).is_empty());
        assert!(!name_is_subdomain("gen-", false).is_empty());
        assert!(!name_is_subdomain("Bad_", true).is_empty());
    }

    #[test]
    fn qualified_names_complain_of_each_part() {
        assert!(qualified_name("example.com/Some_Name.x").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(qualified_name("a/")[0].starts_with("name part must be non-empty"));
        assert_eq!(qualified_name("a/").len(), 2, "the empty name fails the pattern, too");
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist"));
        assert_eq!(
            qualified_name("bad key!"),
            ["name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]
        );
    }

    #[test]
    fn label_values_have_upstreams_text() {
        assert!(label_value("").is_empty());
        assert_eq!(
            label_value("bad value!"),
            ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                 must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
                 used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
        );
        assert_eq!(label_value(&"x".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn path_segments_refuse_what_a_path_cannot_hold() {
        assert!(path_segment("system:node:x", false).is_empty());
        assert_eq!(path_segment("..", false), ["may not be '..'"]);
        assert_eq!(path_segment("a/b%", false), ["may not contain '/'", "may not contain '%'"]);
    }
}
