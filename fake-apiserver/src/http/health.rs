//! `/healthz`, `/livez` and `/readyz`: a server that answers is healthy, and says so as upstream does.
//!
//! Upstream: `k8s.io/apiserver/pkg/server/healthz` and `server/genericapiserver.go`, which installs the checks.

use super::{
    query::Query,
    respond::{self, Response},
};
use crate::base::status::go_quote;

/// The checks that every endpoint begins with.
const FIRST: &[&str] = &["ping", "log"];

/// What the server did when it started: upstream checks that it is done, in the order in which it did it.
const HOOKS: &[&str] = &[
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "peer-endpoint-reconciler-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "storage-readiness",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
    AUTOREGISTER,
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
];

/// A check among the hooks that is none.
const AUTOREGISTER: &str = "autoregister-completion";

/// The names of an endpoint's checks, in order.
fn checks(endpoint: &str) -> Vec<String> {
    let ready = endpoint == "readyz";
    let second: &[&str] =
        if ready { &["etcd", "etcd-readiness", "informer-sync"] } else { &["loopback-serving-certificate", "etcd"] };
    let last: &[&str] = if ready { &["shutdown"] } else { &[] };
    let plain = |names: &[&'static str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let hooks = HOOKS.iter().map(|hook| match *hook {
        AUTOREGISTER => hook.to_string(),
        hook => format!("poststarthook/{hook}"),
    });
    [plain(FIRST), plain(second), hooks.collect(), plain(last)].concat()
}

/// Answers for an endpoint, or for one check of it.
pub(super) fn answer(endpoint: &str, check: &str, query: &Query) -> Response {
    let checks = checks(endpoint);
    if !check.is_empty() {
        let known = checks.iter().any(|name| name == check);
        return if known { respond::bytes(200, "text/plain; charset=utf-8", "ok") } else { respond::page_not_found() };
    }
    if query.get("verbose").is_none() {
        return respond::text(200, "ok");
    }
    let mut excluded: Vec<&str> =
        query.pairs().iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    excluded.sort_unstable();
    excluded.dedup();
    let mut text = String::new();
    for check in &checks {
        let verdict = if excluded.contains(&check.as_str()) { "excluded: ok" } else { "ok" };
        text.push_str(&format!("[+]{check} {verdict}\n"));
    }
    excluded.retain(|name| !checks.iter().any(|check| check == name));
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| go_quote(name)).collect();
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(",")));
    }
    text.push_str(&format!("{endpoint} check passed\n"));
    respond::text(200, text)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use rstest::rstest;

    use super::*;

    async fn shown(endpoint: &str, check: &str, query: &str) -> (u16, String) {
        let response = answer(endpoint, check, &Query::parse(query));
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[rstest]
    #[case("readyz", "", "", "ok")]
    #[case("readyz", "", "exclude=etcd", "ok")]
    #[case("readyz", "etcd", "verbose", "ok")]
    #[case("livez", "poststarthook/rbac/bootstrap-roles", "", "ok")]
    #[tokio::test]
    async fn a_server_that_answers_is_healthy(
        #[case] endpoint: &str,
        #[case] check: &str,
        #[case] query: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(shown(endpoint, check, query).await, (200, expected.into()));
    }

    #[rstest]
    #[case("readyz", "nope")]
    #[case("livez", "shutdown")]
    #[case("readyz", "poststarthook")]
    #[tokio::test]
    async fn a_check_that_an_endpoint_does_not_have_is_not_found(#[case] endpoint: &str, #[case] check: &str) {
        assert_eq!(shown(endpoint, check, "").await.0, 404);
    }

    #[tokio::test]
    async fn verbose_lists_the_checks_and_what_was_excluded() {
        let (_, text) = shown("readyz", "", "verbose&exclude=zz&exclude=etcd&exclude=nope").await;
        assert!(text.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n[+]etcd-readiness ok\n"), "{text}");
        assert!(text.contains("[+]poststarthook/kube-apiserver-autoregistration ok\n[+]autoregister-completion ok\n"));
        assert!(text.ends_with(
            "[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"nope\",\"zz\"\nreadyz check passed\n"
        ));
        assert!(
            shown("livez", "", "verbose")
                .await
                .1
                .ends_with("[+]poststarthook/apiservice-openapiv3-controller ok\nlivez check passed\n")
        );
    }
}
