//! Who asks: a client certificate or a bearer token becomes a user. There is no access control beyond that: whoever is
//! known may do everything, whoever is not may look at the health of the server and its version.

use std::collections::BTreeMap;

use http::{HeaderMap, header::AUTHORIZATION};

use super::path::RequestInfo;
use crate::{
    base::{Status, status::Details},
    registry::User,
};

/// The user of the in-memory door, and of the kubeconfig's certificate.
pub(super) const ADMIN: &str = "kubernetes-admin";

/// The group that may do everything.
pub(super) const MASTERS: &str = "system:masters";

/// Bearer tokens and the users they stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(BTreeMap<String, User>);

impl Tokens {
    /// Accepts a token for a user of `system:masters`.
    pub(crate) fn add_admin(&mut self, token: &str) {
        self.0.insert(token.into(), user(ADMIN, &[MASTERS]));
    }
}

/// An authenticated user.
pub(super) fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
    User { name: name.into(), uid: String::new(), groups }
}

/// The user of the in-memory door.
pub(super) fn admin() -> User {
    user(ADMIN, &[MASTERS])
}

/// The user of a request: by its token, else by the connection's certificate, else nobody. A wrong token is an error even
/// beside a good certificate, where upstream would not look at it: whoever sends one wants to know.
///
/// # Errors
/// 401 for a token that nobody has.
pub(super) fn authenticate(connection: Option<&User>, headers: &HeaderMap, tokens: &Tokens) -> Result<User, Status> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) | None => "",
    };
    match (connection, token) {
        (Some(user), _) => Ok(user.clone()),
        (None, "") => Ok(User {
            name: "system:anonymous".into(),
            uid: String::new(),
            groups: vec!["system:unauthenticated".into()],
        }),
        (_, token) => tokens.0.get(token).cloned().ok_or_else(Status::unauthorized),
    }
}

/// Whether the user may ask this.
///
/// # Errors
/// 403 with upstream's words.
pub(super) fn authorize(user: &User, info: &RequestInfo, verb: &str, path: &str) -> Result<(), Status> {
    if user.groups.iter().any(|group| group == "system:authenticated") {
        return Ok(());
    }
    let who = &user.name;
    match info {
        RequestInfo::Health { .. } | RequestInfo::ServerVersion => Ok(()),
        RequestInfo::Resource(resource) => {
            let (gvr, name) = (&resource.gvr, &resource.name);
            let what = match resource.subresource.as_str() {
                "" => gvr.resource.clone(),
                sub => format!("{}/{sub}", gvr.resource),
            };
            let scope = match resource.namespace.as_str() {
                "" => "at the cluster scope".into(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            let why =
                format!("User \"{who}\" cannot {verb} resource \"{what}\" in API group \"{}\" {scope}", gvr.group);
            Err(Status::forbidden(&gvr.group, &gvr.resource, name, &why))
        }
        RequestInfo::Root
        | RequestInfo::CoreVersions
        | RequestInfo::Groups
        | RequestInfo::Group(_)
        | RequestInfo::Version { .. }
        | RequestInfo::Metrics
        | RequestInfo::OpenApiV2
        | RequestInfo::OpenApiIndex
        | RequestInfo::OpenApi { .. }
        | RequestInfo::Unknown => {
            let mut status = Status::forbidden("", "", "", "");
            status.message = format!("forbidden: User \"{who}\" cannot {verb} path \"{path}\"");
            status.details = Some(Details::default());
            Err(status)
        }
    }
}

/// The user that a client certificate names: common name and organizations of its subject.
pub(super) fn certificate_user(der: &[u8]) -> Option<User> {
    let (mut name, mut groups) = (String::new(), Vec::new());
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
                [0x55, 0x04, 0x03] => name = value,
                [0x55, 0x04, 0x0a] => groups.push(value),
                _ => {}
            }
        }
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    (!name.is_empty()).then(|| user(&name, &groups))
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

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        headers
    }

    #[rstest]
    #[case("Bearer secret", Ok("kubernetes-admin"))]
    #[case("bearer secret", Ok("kubernetes-admin"))]
    #[case("Bearer wrong", Err(401))]
    #[case("Basic dTpw", Ok("system:anonymous"))]
    #[case("", Ok("system:anonymous"))]
    fn a_token_is_a_user_or_a_401(#[case] authorization: &str, #[case] expected: Result<&str, u16>) {
        let mut tokens = Tokens::default();
        tokens.add_admin("secret");
        let found = authenticate(None, &headers(authorization), &tokens);
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
    fn nobody_may_look_at_health_and_version_alone(#[case] path: &str, #[case] expected: Option<&str>) {
        let nobody = authenticate(None, &headers(""), &Tokens::default()).unwrap();
        let info = RequestInfo::parse(path);
        let verb = if matches!(info, RequestInfo::Resource(_)) { "list" } else { "get" };
        let found = authorize(&nobody, &info, verb, path);
        assert_eq!(found.err().map(|status| status.message).as_deref(), expected);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_nobody() {
        assert_eq!(certificate_user(&[]), None);
        assert_eq!(certificate_user(&[0x30, 0x82, 0xff]), None);
        assert_eq!(certificate_user(&[0x30, 0xff, 1, 2, 3]), None);
    }
}
