//! `/metrics`: what was asked of the server, and how much it stores, as a text that Prometheus reads. Durations are the
//! cluster's: on virtual time most are zero.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/metrics` and `pkg/storage/etcd3/metrics`.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex};

use http::Method;

use super::path::{RequestInfo, Verb};
use crate::{base::limits, discovery, registry::Registry};

/// The form of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Upper bounds of a duration's buckets, in milliseconds; upstream's.
const BUCKETS_MILLIS: [i64; 24] = [
    5,
    25,
    50,
    100,
    200,
    400,
    600,
    800,
    1000,
    1250,
    1500,
    2000,
    3000,
    4000,
    5000,
    6000,
    8000,
    10_000,
    15_000,
    20_000,
    30_000,
    45_000,
    60_000,
    i64::MAX,
];

/// What a request is counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    verb: String,
    dry_run: bool,
}

impl Labels {
    /// The labels of a request; `None` for one that upstream does not count.
    pub(super) fn of(
        info: &RequestInfo,
        method: &Method,
        verb: Option<Verb>,
        apply: bool,
        dry_run: bool,
    ) -> Option<Self> {
        let plain = |subresource: &str, component| {
            let verb = method.as_str().to_owned();
            Some(Self { subresource: subresource.into(), component, verb, ..Self::default() })
        };
        match info {
            RequestInfo::Resource(path) => Some(Self {
                group: path.gvr.group.clone(),
                version: path.gvr.version.clone(),
                resource: path.gvr.resource.clone(),
                subresource: path.subresource.clone(),
                scope: match () {
                    () if !path.name.is_empty() || verb == Some(Verb::Create) => "resource",
                    () if !path.namespace.is_empty() => "namespace",
                    () => "cluster",
                },
                component: "apiserver",
                verb: match verb? {
                    Verb::List => "LIST",
                    Verb::Watch => "WATCH",
                    Verb::DeleteCollection => "DELETECOLLECTION",
                    Verb::Patch if apply => "APPLY",
                    Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => method.as_str(),
                }
                .into(),
                dry_run,
            }),
            RequestInfo::CoreVersions => plain("api", "apiserver"),
            RequestInfo::Groups => plain("apis", "apiserver"),
            RequestInfo::Health { endpoint, .. } => plain(&format!("/{endpoint}"), ""),
            RequestInfo::OpenApiIndex => plain("openapi/v3", ""),
            RequestInfo::OpenApi { .. } => plain("openapi/v3/", ""),
            RequestInfo::Root
            | RequestInfo::Group(_)
            | RequestInfo::Version { .. }
            | RequestInfo::ServerVersion
            | RequestInfo::Issuer
            | RequestInfo::KeySet
            | RequestInfo::Metrics
            | RequestInfo::OpenApiV2
            | RequestInfo::Control(_)
            | RequestInfo::Unknown => None,
        }
    }

    fn dry_run(&self) -> &'static str {
        if self.dry_run { "All" } else { "" }
    }
}

/// Durations of requests with the same labels.
#[derive(Clone, Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS_MILLIS.len()],
    millis: i64,
}

/// What is counted. Bounded: labels beyond `limits::METRIC_SERIES` are not.
#[derive(Debug, Default)]
pub(super) struct Metrics(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    by_labels: BTreeMap<Labels, Series>,
    /// How many pairs of labels and status code there are.
    series: usize,
}

/// Requests with the same labels.
#[derive(Debug, Default)]
struct Series {
    by_code: BTreeMap<u16, u64>,
    durations: Histogram,
}

impl Metrics {
    /// Counts a request that was answered.
    pub(super) fn count(&self, labels: Labels, code: u16, millis: i64) {
        let mut counted = self.0.lock().expect("no panic under this lock");
        let Counted { by_labels, series } = &mut *counted;
        if *series >= limits::METRIC_SERIES {
            return;
        }
        let Series { by_code, durations } = by_labels.entry(labels).or_default();
        durations.millis += millis;
        for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS_MILLIS) {
            *bucket += u64::from(millis <= bound);
        }
        *by_code.entry(code).or_insert_with(|| {
            *series += 1;
            0
        }) += 1;
    }

    /// The text.
    pub(super) fn text(&self, registry: &Registry) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[String]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for line in lines {
                let _ = writeln!(out, "{line}");
            }
        };
        let counted = self.0.lock().expect("no panic under this lock");
        family(
            "apiserver_request_duration_seconds",
            "histogram",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, \
             subresource, scope and component.",
            &counted
                .by_labels
                .iter()
                .flat_map(|(labels, found)| durations(labels, &found.durations))
                .collect::<Vec<_>>(),
        );
        let by_labels = counted.by_labels.iter();
        let counts = by_labels.flat_map(|(labels, found)| found.by_code.iter().map(move |(code, n)| (code, labels, n)));
        let mut counts: Vec<_> = counts.collect();
        counts.sort();
        let requests = counts.into_iter().map(|(code, labels, count)| {
            let pairs = render(&[&[("code", code.to_string())], &label_pairs(labels)[..]].concat());
            format!("apiserver_request_total{pairs} {count}")
        });
        family(
            "apiserver_request_total",
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, \
             scope, component, and HTTP response code.",
            &requests.collect::<Vec<_>>(),
        );
        drop(counted);
        let mut objects: Vec<_> =
            registry.stored_counts().into_iter().map(|(gvr, count)| (gvr.group, gvr.resource, count)).collect();
        objects.sort();
        let lines = objects.iter().map(|(group, resource, count)| {
            let pairs = render(&[("group", group.clone()), ("resource", resource.clone())]);
            format!("apiserver_resource_objects{pairs} {count}")
        });
        family(
            "apiserver_resource_objects",
            "gauge",
            "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the \
             value will be -1.",
            &lines.collect::<Vec<_>>(),
        );
        let lines = objects.iter().map(|(group, resource, count)| {
            let dot = if group.is_empty() { "" } else { "." };
            format!("apiserver_storage_objects{} {count}", render(&[("resource", format!("{resource}{dot}{group}"))]))
        });
        family(
            "apiserver_storage_objects",
            "gauge",
            "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time \
             of last check split by kind. In case of a fetching error, the value will be -1.",
            &lines.collect::<Vec<_>>(),
        );
        let version = discovery::server_version();
        let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
        let pairs = render(&[
            ("build_date", text("buildDate")),
            ("compiler", text("compiler")),
            ("git_commit", text("gitCommit")),
            ("git_tree_state", text("gitTreeState")),
            ("git_version", text("gitVersion")),
            ("go_version", text("goVersion")),
            ("major", text("major")),
            ("minor", text("minor")),
            ("platform", text("platform")),
        ]);
        family(
            "kubernetes_build_info",
            "gauge",
            "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, \
             build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
            &[format!("kubernetes_build_info{pairs} 1")],
        );
        out
    }
}

fn durations(labels: &Labels, found: &Histogram) -> Vec<String> {
    let pairs = label_pairs(labels);
    let name = "apiserver_request_duration_seconds";
    let bucket = |(bound, count): (i64, &u64)| {
        let bound = if bound == i64::MAX { "+Inf".to_owned() } else { (bound as f64 / 1000.0).to_string() };
        format!("{name}_bucket{} {count}", render(&[&pairs[..], &[("le", bound)]].concat()))
    };
    let mut lines: Vec<String> = BUCKETS_MILLIS.into_iter().zip(&found.buckets).map(bucket).collect();
    lines.push(format!("{name}_sum{} {}", render(&pairs), found.millis as f64 / 1000.0));
    lines.push(format!("{name}_count{} {}", render(&pairs), found.buckets[BUCKETS_MILLIS.len() - 1]));
    lines
}

/// The labels in the order of their names.
fn label_pairs(labels: &Labels) -> [(&'static str, String); 8] {
    [
        ("component", labels.component.into()),
        ("dry_run", labels.dry_run().into()),
        ("group", labels.group.clone()),
        ("resource", labels.resource.clone()),
        ("scope", labels.scope.into()),
        ("subresource", labels.subresource.clone()),
        ("verb", labels.verb.clone()),
        ("version", labels.version.clone()),
    ]
}

fn render(pairs: &[(&str, String)]) -> String {
    let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{clock::Clock, ids::Ids};

    #[rstest]
    #[case("GET", "/api/v1/pods", false, "LIST", "cluster")]
    #[case("GET", "/api/v1/namespaces/a/pods", true, "WATCH", "namespace")]
    #[case("POST", "/api/v1/namespaces/a/pods", false, "POST", "resource")]
    #[case("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", false, "APPLY", "resource")]
    #[case("DELETE", "/api/v1/namespaces/a/pods", false, "DELETECOLLECTION", "namespace")]
    #[case("GET", "/readyz", false, "GET", "")]
    fn a_request_is_counted_under_verb_and_scope(
        #[case] method: &str,
        #[case] path: &str,
        #[case] watch: bool,
        #[case] verb: &str,
        #[case] scope: &str,
    ) {
        let (method, info) = (Method::from_bytes(method.as_bytes()).unwrap(), RequestInfo::parse(path));
        let asked = match &info {
            RequestInfo::Resource(path) => Verb::of(&method, path, watch),
            _ => None,
        };
        let labels = Labels::of(&info, &method, asked, true, false).unwrap();
        assert_eq!((labels.verb.as_str(), labels.scope), (verb, scope));
    }

    #[tokio::test]
    async fn what_is_answered_shows_in_the_text() {
        let metrics = Metrics::default();
        let info = RequestInfo::parse("/healthz");
        let labels = || Labels::of(&info, &Method::GET, None, false, false).unwrap();
        metrics.count(labels(), 200, 30);
        metrics.count(labels(), 200, 0);
        let registry = Registry::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH), Ids::seeded(1));
        let text = metrics.text(&registry);
        let pairs =
            r#"component="",dry_run="",group="",resource="",scope="",subresource="/healthz",verb="GET",version="""#;
        for line in [
            format!("apiserver_request_total{{code=\"200\",{pairs}}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{pairs},le=\"0.025\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{pairs},le=\"+Inf\"}} 2"),
            format!("apiserver_request_duration_seconds_sum{{{pairs}}} 0.03"),
            "apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
