//! What form an answer takes: JSON or YAML, the object itself, a table, or its metadata alone.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation` and go-restful's check of `Accept` before it.

use crate::base::Status;

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it is YAML and not JSON.
    pub(super) yaml: bool,
    /// What is shown.
    pub(super) shape: Shape,
}

/// What an answer shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// All of it.
    Whole,
    /// Its cells; the text is the version of `meta.k8s.io` asked for.
    Table(String),
    /// Its metadata.
    Partial(String),
    /// The metadata of a list's objects.
    PartialList(String),
}

/// Who answers, and hence which check comes first and what its error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A built-in kind, one object.
    Item,
    /// A built-in kind, a collection: these routes can also stream.
    Collection,
    /// A custom kind.
    Custom,
}

/// One entry of `Accept`.
#[derive(Debug)]
struct Entry {
    kind: String,
    subkind: String,
    /// Quality in thousandths.
    quality: u32,
    params: Vec<(String, String)>,
}

const YAML_AND_JSON: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// The entries of an `Accept` header, the most wanted first.
fn entries(accept: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = accept
        .split(',')
        .filter_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let (kind, subkind) = parts.next()?.split_once('/')?;
            let mut found = Entry { kind: kind.into(), subkind: subkind.into(), quality: 1000, params: Vec::new() };
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                if key == "q" {
                    found.quality = value.parse::<f64>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
                } else {
                    found.params.push((key.into(), value.trim_matches('"').into()));
                }
            }
            Some(found)
        })
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.quality));
    entries
}

impl Entry {
    fn param(&self, key: &str) -> &str {
        self.params.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    fn takes(&self, kind: &str, subkind: &str) -> bool {
        (self.kind == kind || self.kind == "*") && (self.subkind == subkind || self.subkind == "*")
    }

    /// The shape that the entry asks for; `None` if there is no such.
    fn shape(&self) -> Option<Shape> {
        let (group, version) = (self.param("g"), self.param("v"));
        match self.param("as") {
            "" => Some(Shape::Whole),
            _ if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") => None,
            "Table" => Some(Shape::Table(version.into())),
            "PartialObjectMetadata" => Some(Shape::Partial(version.into())),
            "PartialObjectMetadataList" => Some(Shape::PartialList(version.into())),
            _ => None,
        }
    }
}

/// The form that an `Accept` header asks for.
///
/// # Errors
/// 406 if there is none that can be written.
pub(super) fn negotiate(accept: &str, route: Route) -> Result<Answer, Status> {
    if accept.trim().is_empty() {
        return Ok(Answer { yaml: false, shape: Shape::Whole });
    }
    match route {
        Route::Custom => {}
        Route::Item if produces(accept) => {}
        Route::Collection if produces(accept) => {}
        Route::Item => return Err(not_produced(YAML_AND_JSON)),
        Route::Collection => return Err(not_produced(&format!("{YAML_AND_JSON}, {STREAMS}"))),
    }
    for entry in entries(accept) {
        let Some(shape) = entry.shape() else { continue };
        for (subkind, yaml) in [("json", false), ("yaml", true)] {
            if entry.takes("application", subkind) {
                return Ok(Answer { yaml, shape });
            }
        }
    }
    Err(Status::not_acceptable(format!("only the following media types are accepted: {YAML_AND_JSON}")))
}

/// Whether go-restful finds a form among those of the route; it does not know `application/*`.
fn produces(accept: &str) -> bool {
    accept.split(',').any(|entry| {
        let kind = entry.split(';').next().unwrap_or_default().trim();
        matches!(kind, "*/*" | "application/json" | "application/yaml" | "application/vnd.kubernetes.protobuf")
    })
}

fn not_produced(types: &str) -> Status {
    Status {
        details: Some(Default::default()),
        ..Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {types}"))
    }
}

/// Which aggregated discovery document an `Accept` header asks for (`v2` or `v2beta1`), `None` for the plain one.
pub(super) fn discovery(accept: &str) -> Option<&'static str> {
    for entry in entries(accept) {
        if !entry.takes("application", "json") {
            continue;
        }
        match (entry.param("g"), entry.param("v"), entry.param("as")) {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => return Some("v2"),
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => return Some("v2beta1"),
            (_, _, "") => return None,
            _ => {}
        }
    }
    None
}

/// Whether an `Accept` header takes plain JSON.
pub(super) fn takes_json(accept: &str) -> bool {
    accept.trim().is_empty() || entries(accept).iter().any(|entry| entry.takes("application", "json"))
}

/// Whether an `Accept-Encoding` header takes gzip.
pub(super) fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", false, Shape::Whole)]
    #[case("*/*", false, Shape::Whole)]
    #[case("application/json", false, Shape::Whole)]
    #[case("application/yaml", true, Shape::Whole)]
    #[case("application/json;q=0.5, application/yaml", true, Shape::Whole)]
    #[case("application/vnd.kubernetes.protobuf,application/json", false, Shape::Whole)]
    #[case("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", false, Shape::Table("v1".into()))]
    #[case("application/json;as=Table;v=v1beta1;g=meta.k8s.io", false, Shape::Table("v1beta1".into()))]
    #[case("application/json;as=Nothing;v=v1;g=meta.k8s.io,application/json", false, Shape::Whole)]
    #[case("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", false, Shape::Partial("v1".into()))]
    #[case("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", false, Shape::PartialList("v1".into()))]
    fn an_accept_header_asks_for_a_form(#[case] accept: &str, #[case] yaml: bool, #[case] shape: Shape) {
        assert_eq!(negotiate(accept, Route::Item).unwrap(), Answer { yaml, shape });
    }

    #[rstest]
    #[case(
        "text/csv",
        Route::Item,
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )]
    #[case(
        "text/csv",
        Route::Collection,
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    )]
    #[case(
        "text/csv",
        Route::Custom,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )]
    #[case(
        "application/json;as=Nothing;g=meta.k8s.io;v=v1",
        Route::Item,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )]
    fn a_form_that_is_not_written_is_not_acceptable(#[case] accept: &str, #[case] route: Route, #[case] text: &str) {
        let status = negotiate(accept, route).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (406, text));
    }

    #[rstest]
    #[case("application/json", None)]
    #[case("", None)]
    #[case("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Some("v2"))]
    #[case(
        "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        Some("v2beta1")
    )]
    fn aggregated_discovery_is_asked_for_by_parameters(#[case] accept: &str, #[case] expected: Option<&str>) {
        assert_eq!(discovery(accept), expected);
    }
}
