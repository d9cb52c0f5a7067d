//! Method and path become a [`RequestInfo`] here, once; later code matches on it and never looks at the URL again.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use http::Method;

use crate::base::Gvr;

/// What a request's path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestInfo {
    /// `/`: the list of paths.
    Root,
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all other groups.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Version {
        /// Group, `""` for the core group.
        group: String,
        /// Version.
        version: String,
    },
    /// A resource, its objects, or their subresources.
    Resource(ResourcePath),
    /// `/version`.
    ServerVersion,
    /// `/healthz`, `/livez` and `/readyz`, with the one check that is asked for, `""` for all.
    Health {
        /// `healthz`, `livez` or `readyz`.
        endpoint: &'static str,
        /// Name of the check.
        check: String,
    },
    /// `/metrics`.
    Metrics,
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`: which documents there are.
    OpenApiIndex,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`.
    OpenApi {
        /// Group, `""` for the core group.
        group: String,
        /// Version.
        version: String,
    },
    /// `/.well-known/openid-configuration`: who issues the tokens of service accounts.
    Issuer,
    /// `/openid/v1/jwks`: the keys by which to check them.
    KeySet,
    /// `/fake.agent-sandbox/…`: what follows.
    Control(Vec<String>),
    /// None of these.
    Unknown,
}

/// A path below a group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourcePath {
    /// Group, version and plural.
    pub(super) gvr: Gvr,
    /// Namespace, `""` where the path has none.
    pub(super) namespace: String,
    /// Name, `""` for a collection.
    pub(super) name: String,
    /// Subresource, `""` for the object itself.
    pub(super) subresource: String,
    /// What follows a subresource (`proxy/metrics`), without the slash.
    pub(super) rest: String,
    /// Whether the path is one of the old `/watch/` ones.
    pub(super) watch: bool,
}

/// What a request to a resource does; names as in discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Reads one object.
    Get,
    /// Reads a collection.
    List,
    /// Follows a collection or one object.
    Watch,
    /// Creates an object, or posts to a subresource.
    Create,
    /// Replaces an object.
    Update,
    /// Patches an object.
    Patch,
    /// Deletes an object.
    Delete,
    /// Deletes a collection.
    DeleteCollection,
}

impl Verb {
    /// The verb of a method on a path; `watch` is what the query says. `None` for methods that no resource serves.
    pub(super) fn of(method: &Method, path: &ResourcePath, watch: bool) -> Option<Self> {
        let collection = path.name.is_empty();
        Some(match *method {
            Method::GET if path.watch || watch && collection => Self::Watch,
            Method::GET if collection => Self::List,
            Method::GET if watch && path.subresource.is_empty() => Self::Watch,
            Method::GET => Self::Get,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if collection => Self::DeleteCollection,
            Method::DELETE => Self::Delete,
            _ => return None,
        })
    }

    /// The verb as discovery names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether a path with a name takes this verb; the others take one without.
    pub(super) fn wants_name(self) -> bool {
        match self {
            Self::Get | Self::Update | Self::Patch | Self::Delete => true,
            Self::List | Self::Watch | Self::Create | Self::DeleteCollection => false,
        }
    }
}

impl RequestInfo {
    /// What a path is about; the path is still percent-encoded.
    pub(super) fn parse(path: &str) -> Self {
        let decoded: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(percent_decoded).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [] => Self::Root,
            ["api"] => Self::CoreVersions,
            ["api", version] => Self::Version { group: String::new(), version: (*version).into() },
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["apis", group, version] => Self::Version { group: (*group).into(), version: (*version).into() },
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            ["version"] => Self::ServerVersion,
            ["healthz", check @ ..] => Self::health("healthz", check, path),
            ["livez", check @ ..] => Self::health("livez", check, path),
            ["readyz", check @ ..] => Self::health("readyz", check, path),
            ["metrics"] => Self::Metrics,
            [".well-known", "openid-configuration"] => Self::Issuer,
            ["openid", "v1", "jwks"] => Self::KeySet,
            [root, rest @ ..] if *root == super::control::ROOT => {
                Self::Control(rest.iter().map(|part| (*part).to_owned()).collect())
            }
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiIndex,
            ["openapi", "v3", "api", version] => Self::OpenApi { group: String::new(), version: (*version).into() },
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApi { group: (*group).into(), version: (*version).into() }
            }
            _ => Self::Unknown,
        }
    }

    fn health(endpoint: &'static str, check: &[&str], path: &str) -> Self {
        if path.ends_with('/') { Self::Unknown } else { Self::Health { endpoint, check: check.join("/") } }
    }

    fn resource(group: &str, version: &str, parts: &[&str]) -> Self {
        let (watch, parts) = match parts {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            parts => (false, parts),
        };
        let (namespace, parts): (&str, &[&str]) = match parts {
            // The namespace's own subresources come before resources that live in it.
            ["namespaces", _, "status" | "finalize"] => ("", parts),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (namespace, rest),
            parts => ("", parts),
        };
        let [resource, tail @ ..] = parts else { return Self::Unknown };
        let part = |index: usize| tail.get(index).copied().unwrap_or_default().to_owned();
        Self::Resource(ResourcePath {
            gvr: Gvr::new(group, version, resource),
            namespace: namespace.into(),
            name: part(0),
            subresource: part(1),
            rest: tail.get(2..).unwrap_or_default().join("/"),
            watch,
        })
    }
}

/// A path segment or query word with its `%XX` decoded; what is not valid UTF-8 becomes U+FFFD.
pub(super) fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.into();
    }
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn resource(gvr: (&str, &str, &str), namespace: &str, name: &str, subresource: &str) -> RequestInfo {
        RequestInfo::Resource(ResourcePath {
            gvr: Gvr::new(gvr.0, gvr.1, gvr.2),
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
            rest: String::new(),
            watch: false,
        })
    }

    #[rstest]
    #[case("/", RequestInfo::Root)]
    #[case("/api", RequestInfo::CoreVersions)]
    #[case("/api/", RequestInfo::CoreVersions)]
    #[case("/apis", RequestInfo::Groups)]
    #[case("/apis/apps", RequestInfo::Group("apps".into()))]
    #[case("/api/v1", RequestInfo::Version { group: "".into(), version: "v1".into() })]
    #[case("/apis/apps/v1", RequestInfo::Version { group: "apps".into(), version: "v1".into() })]
    #[case("/api/v1/pods", resource(("", "v1", "pods"), "", "", ""))]
    #[case("/api/v1/nodes/a", resource(("", "v1", "nodes"), "", "a", ""))]
    #[case("/api/v1/nodes/a/status", resource(("", "v1", "nodes"), "", "a", "status"))]
    #[case("/api/v1/namespaces", resource(("", "v1", "namespaces"), "", "", ""))]
    #[case("/api/v1/namespaces/a", resource(("", "v1", "namespaces"), "", "a", ""))]
    #[case("/api/v1/namespaces/a/status", resource(("", "v1", "namespaces"), "", "a", "status"))]
    #[case("/api/v1/namespaces/a/finalize", resource(("", "v1", "namespaces"), "", "a", "finalize"))]
    #[case("/api/v1/namespaces/a/pods", resource(("", "v1", "pods"), "a", "", ""))]
    #[case("/api/v1/namespaces/a/pods/b/exec", resource(("", "v1", "pods"), "a", "b", "exec"))]
    #[case("/apis/x.y/v1/namespaces/a/things/b%20c", resource(("x.y", "v1", "things"), "a", "b c", ""))]
    #[case("/version", RequestInfo::ServerVersion)]
    #[case("/healthz", RequestInfo::Health { endpoint: "healthz", check: "".into() })]
    #[case("/readyz/poststarthook/x", RequestInfo::Health { endpoint: "readyz", check: "poststarthook/x".into() })]
    #[case("/openapi/v3", RequestInfo::OpenApiIndex)]
    #[case("/openapi/v3/apis/apps/v1", RequestInfo::OpenApi { group: "apps".into(), version: "v1".into() })]
    #[case("/openapi/v3/api/v1", RequestInfo::OpenApi { group: "".into(), version: "v1".into() })]
    #[case("/nowhere", RequestInfo::Unknown)]
    #[case("/version/x", RequestInfo::Unknown)]
    fn a_path_says_what_it_is_about(#[case] path: &str, #[case] expected: RequestInfo) {
        assert_eq!(RequestInfo::parse(path), expected);
    }

    #[rstest]
    #[case("/api/v1/watch/pods", "", "")]
    #[case("/api/v1/watch/namespaces/a/pods", "a", "")]
    #[case("/api/v1/watch/namespaces/a/pods/b", "a", "b")]
    fn an_old_watch_path_watches(#[case] path: &str, #[case] namespace: &str, #[case] name: &str) {
        let RequestInfo::Resource(found) = RequestInfo::parse(path) else { panic!("{path} is no resource") };
        assert_eq!((found.gvr.resource.as_str(), &*found.namespace, &*found.name), ("pods", namespace, name));
        assert_eq!(Verb::of(&Method::GET, &found, false), Some(Verb::Watch));
    }

    #[test]
    fn what_follows_a_subresource_is_kept() {
        let RequestInfo::Resource(found) = RequestInfo::parse("/api/v1/namespaces/a/services/web:80/proxy/x/y") else {
            panic!("no resource")
        };
        assert_eq!((&*found.name, &*found.subresource, &*found.rest), ("web:80", "proxy", "x/y"));
    }

    #[rstest]
    #[case(Method::GET, "/api/v1/pods", false, Some(Verb::List))]
    #[case(Method::GET, "/api/v1/pods", true, Some(Verb::Watch))]
    #[case(Method::GET, "/api/v1/nodes/a", false, Some(Verb::Get))]
    #[case(Method::GET, "/api/v1/nodes/a", true, Some(Verb::Watch))]
    #[case(Method::DELETE, "/api/v1/nodes/a", false, Some(Verb::Delete))]
    #[case(Method::DELETE, "/api/v1/nodes", false, Some(Verb::DeleteCollection))]
    #[case(Method::PUT, "/api/v1/nodes/a/status", false, Some(Verb::Update))]
    #[case(Method::HEAD, "/api/v1/nodes/a", false, None)]
    #[case(Method::OPTIONS, "/api/v1/nodes", false, None)]
    fn a_method_and_a_path_make_a_verb(
        #[case] method: Method,
        #[case] path: &str,
        #[case] watch: bool,
        #[case] expected: Option<Verb>,
    ) {
        let RequestInfo::Resource(path) = RequestInfo::parse(path) else { panic!("{path} is no resource") };
        assert_eq!(Verb::of(&method, &path, watch), expected);
    }
}
