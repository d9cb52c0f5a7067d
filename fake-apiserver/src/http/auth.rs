//! Who asks: a client certificate or a bearer token becomes a user. What the user may do, the registry says.
//!
//! Upstream: `k8s.io/apiserver/pkg/authentication/request` and `RequestInfo` in `pkg/endpoints/request/requestinfo.go`,
//! from which authorization takes what it looks at.

use http::{HeaderMap, Method, header::AUTHORIZATION};
use ring::digest;

use super::{
    path::{self, RequestInfo, Verb},
    query::Query,
};
use crate::{
    access::{Attributes, Place, What},
    base::{
        Status, User, names,
        selector::FieldSelector,
        user::{AUTHENTICATED, MASTERS},
    },
    registry::Registry,
};

/// The user of the in-memory door, and of the kubeconfig's certificate.
pub(super) const ADMIN: &str = "kubernetes-admin";

/// The user of the in-memory door.
pub(crate) fn admin() -> User {
    User::new(ADMIN, [MASTERS, AUTHENTICATED])
}

/// The user of a request: by its token, else by the connection's certificate, else nobody. Upstream looks at a certificate
/// first and then at nothing else; here who names a token means it, also over a connection that could do without.
///
/// # Errors
/// 401 for a token that stands for nobody.
pub(super) fn authenticate(
    registry: &Registry,
    connection: Option<&User>,
    headers: &HeaderMap,
) -> Result<User, Status> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut words = header.trim().split(' ');
    let (scheme, token) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Ok(connection.cloned().unwrap_or_else(User::anonymous));
    }
    let known = registry.authenticate(token, None);
    known.map(|known| known.user).map_err(|_| Status::unauthorized())
}

/// What authorization looks at in a request, but for its user.
#[derive(Debug)]
pub(super) struct Asked {
    verb: String,
    /// The path, decoded.
    path: String,
    /// Namespace and name as authorization sees them; `None` for a path that is no resource's.
    place: Option<(String, String)>,
}

impl Asked {
    /// Reads a request's method, path and query.
    pub(super) fn of(method: &Method, path: &str, info: &RequestInfo, query: &Query) -> Self {
        let path = path::percent_decoded(path);
        let RequestInfo::Resource(resource) = info else {
            return Self { verb: method.as_str().to_ascii_lowercase(), path, place: None };
        };
        let (mut namespace, mut name) = (resource.namespace.clone(), resource.name.clone());
        if namespace.is_empty() && resource.gvr.resource == "namespaces" {
            namespace.clone_from(&name); // who asks for a namespace asks inside it
        }
        let verb = match *method {
            _ if resource.watch => "watch",
            Method::POST => "create",
            Method::GET | Method::HEAD if !name.is_empty() => "get",
            Method::GET | Method::HEAD => {
                let selector = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).ok();
                let one = selector.as_ref().and_then(|selector| selector.exact("metadata.name"));
                if let Some(one) = one.filter(|one| names::path_segment(one, false).is_empty()) {
                    name = one.to_owned();
                }
                if query.flag("watch").unwrap_or_default() { "watch" } else { "list" }
            }
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if name.is_empty() => Verb::DeleteCollection.name(),
            Method::DELETE => "delete",
            _ => "",
        };
        Self { verb: verb.into(), path, place: Some((namespace, name)) }
    }

    /// The verb, as roles name it.
    pub(super) fn verb(&self) -> &str {
        &self.verb
    }

    /// As a question about a user; `info` is what this was made of.
    pub(super) fn by<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> Attributes<'a> {
        let what = match (info, &self.place) {
            (RequestInfo::Resource(resource), Some((namespace, name))) => What::Resource(Place {
                group: &resource.gvr.group,
                resource: &resource.gvr.resource,
                subresource: &resource.subresource,
                namespace,
                name,
            }),
            _ => What::Path(&self.path),
        };
        Attributes { user, verb: &self.verb, what }
    }
}

/// The object identifier by which a certificate's subject tells a UID: 1.3.6.1.4.1.57683.2.
const UID: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

/// The user that a client certificate names: common name, organizations and UID of its subject.
pub(super) fn certificate_user(der: &[u8]) -> Option<User> {
    let mut user = User::default();
    let certificate = Der(der).enter(0x30)?; // Certificate
    let mut fields = certificate.enter(0x30)?; // TBSCertificate
    if fields.0.first() == Some(&0xa0) {
        fields.next()?; // version
    }
    for _ in 0..4 {
        fields.next()?; // serial number, signature, issuer, validity
    }
    let mut subject = fields.enter(0x30)?;
    while let Some((0x31, set)) = subject.next() {
        let mut set = Der(set);
        while let Some((0x30, pair)) = set.next() {
            let mut pair = Der(pair);
            let (Some((0x06, oid)), Some((_, value))) = (pair.next(), pair.next()) else { return None };
            let value = String::from_utf8_lossy(value).into_owned();
            match oid {
                [0x55, 0x04, 0x03] => user.name = value,
                [0x55, 0x04, 0x0a] => user.groups.push(value),
                oid if *oid == UID => user.uid = value,
                _ => {}
            }
        }
    }
    user.groups.push(AUTHENTICATED.into());
    let hash = digest::digest(&digest::SHA256, der);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={hash}")]);
    (!user.name.is_empty()).then_some(user)
}

/// DER values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match *first {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length =
                    digits.iter().try_fold(0usize, |sum, digit| Some(sum.checked_mul(256)? + usize::from(*digit)));
                (length?, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The values inside the next value, if it has this tag.
    fn enter(&self, tag: u8) -> Option<Der<'a>> {
        let mut copy = Der(self.0);
        copy.next().filter(|(found, _)| *found == tag).map(|(_, content)| Der(content))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{clock::Clock, ids::Ids};

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        headers
    }

    fn registry() -> Registry {
        let registry = Registry::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Ids::seeded(0));
        registry.make_first_roles();
        registry.add_token("secret", admin());
        registry
    }

    #[rstest]
    #[case("Bearer secret", Ok("kubernetes-admin"))]
    #[case("bearer secret", Ok("kubernetes-admin"))]
    #[case("Bearer wrong", Err(401))]
    #[case("Bearer  secret", Ok("system:anonymous"))]
    #[case("Basic dTpw", Ok("system:anonymous"))]
    #[case("", Ok("system:anonymous"))]
    fn a_token_is_a_user_or_a_401(#[case] authorization: &str, #[case] expected: Result<&str, u16>) {
        let found = authenticate(&registry(), None, &headers(authorization));
        assert_eq!(found.map(|user| user.name).map_err(|status| status.code), expected.map(str::to_owned));
    }

    #[rstest]
    #[case("/healthz", None)]
    #[case("/version", None)]
    #[case("/api", Some("forbidden: User \"system:anonymous\" cannot get path \"/api\""))]
    #[case(
        "/api/v1/namespaces/a/pods",
        Some(
            "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\""
        )
    )]
    #[case(
        "/api/v1/namespaces/a/pods?watch=1",
        Some(
            "pods is forbidden: User \"system:anonymous\" cannot watch resource \"pods\" in API group \"\" in the namespace \"a\""
        )
    )]
    #[case(
        "/api/v1/pods?fieldSelector=metadata.name%3Dx",
        Some(
            "pods \"x\" is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        )
    )]
    #[case(
        "/api/v1/namespaces/a",
        Some(
            "namespaces \"a\" is forbidden: User \"system:anonymous\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"a\""
        )
    )]
    fn nobody_may_look_at_health_and_version_alone(#[case] uri: &str, #[case] expected: Option<&str>) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = RequestInfo::parse(path);
        let asked = Asked::of(&Method::GET, path, &info, &Query::parse(query));
        let nobody = User::anonymous();
        let found = registry().permit(&asked.by(&nobody, &info));
        assert_eq!(found.err().map(|status| status.message).as_deref(), expected);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_nobody() {
        assert_eq!(certificate_user(&[]), None);
        assert_eq!(certificate_user(&[0x30, 0x82, 0xff]), None);
        assert_eq!(certificate_user(&[0x30, 0xff, 1, 2, 3]), None);
    }
}
