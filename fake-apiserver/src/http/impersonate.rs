//! Requests in somebody else's name: what the `Impersonate-` headers ask for, and whether the user may.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`, whose constrained modes come first and the old
//! `impersonate` verb last. The error of a request that no mode allows is that of the first mode that had one.

use std::{collections::BTreeMap, sync::Mutex};

use http::HeaderMap;

use super::path::percent_decoded;
use crate::{
    access::{Attributes, Place, What},
    base::{
        Status, User, names,
        status::go_quote,
        user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, account_groups, as_account, as_node},
    },
    registry::Registry,
};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// The group of the kinds by which the rights to impersonate are named.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// From so many groups or extra values on, a right to all of them is asked for first.
const MANY: usize = 4;

/// Users whose last mode is remembered; all are forgotten beyond. Upstream's cache holds as many.
const REMEMBERED: usize = 10_000;

/// The user that the headers ask for, as they tell of it; `None` where they ask for none.
///
/// # Errors
/// 400 for groups, a UID or extra values without a name.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let one = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut user = User { name: one(USER), uid: one(UID), ..User::default() };
    user.groups = headers.get_all(GROUP).iter().map(text).collect();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            user.extra.entry(percent_decoded(key)).or_default().push(text(value));
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    let message = format!("requested {} without impersonating a user name", go_syntax(&user));
    Err(Status::bad_request(message))
}

/// A user as Go's `%#v` prints it.
fn go_syntax(user: &User) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| go_quote(value)).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".into() } else { list(&user.groups) };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".into()
    } else {
        let pairs: Vec<String> =
            user.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    let (name, uid) = (go_quote(&user.name), go_quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{extra}}}")
}

/// A way to be allowed to impersonate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A service account as the node that its pod is on.
    AssociatedNode,
    /// As any node.
    ArbitraryNode,
    /// As a service account.
    ServiceAccount,
    /// As anybody else.
    UserInfo,
    /// By the verb `impersonate`, whatever the request.
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// Which mode each user came through last: it is tried first.
#[derive(Debug, Default)]
pub(super) struct Modes(Mutex<BTreeMap<String, Mode>>);

impl Modes {
    /// The wanted user, with the groups that go with it, if who asks may make this request in that name.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub(super) fn become_user(
        &self,
        registry: &Registry,
        wanted: User,
        request: &Attributes<'_>,
    ) -> Result<User, Status> {
        let who = &request.user.name;
        let last = self.0.lock().expect("no panic under this lock").get(who).copied();
        let others = MODES.into_iter().filter(|mode| Some(*mode) != last);
        let mut first_error = None;
        for mode in last.into_iter().chain(others) {
            match mode.try_on(registry, &wanted, request) {
                None => {}
                Some(Ok(user)) => {
                    let mut modes = self.0.lock().expect("no panic under this lock");
                    if modes.len() >= REMEMBERED {
                        modes.clear();
                    }
                    modes.insert(who.clone(), mode);
                    return Ok(user);
                }
                Some(Err(error)) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.expect("the last mode applies to everybody"))
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    /// Whether a user of this kind is impersonated this way.
    fn applies(self, wanted: &User, requestor: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = as_node(&wanted.name);
        match self {
            Self::AssociatedNode => {
                only_name
                    && as_account(&requestor.name).is_some()
                    && node == Some(requestor.extra_value("authentication.kubernetes.io/node-name"))
            }
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && as_account(&wanted.name).is_some(),
            Self::UserInfo => node.is_none() && as_account(&wanted.name).is_none(),
            Self::Legacy => true,
        }
    }

    fn try_on(self, registry: &Registry, wanted: &User, request: &Attributes<'_>) -> Option<Result<User, Status>> {
        self.applies(wanted, request.user).then(|| {
            if self != Self::Legacy {
                let verb = format!("impersonate-on:{}:{}", self.name(), request.verb);
                registry.permit(&Attributes { verb: &verb, ..*request })?;
            }
            Check { registry, requestor: request.user, mode: self }.user(wanted)
        })
    }
}

/// The rights to each part of a wanted user.
struct Check<'a> {
    registry: &'a Registry,
    requestor: &'a User,
    mode: Mode,
}

impl Check<'_> {
    fn constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    fn verb(&self) -> String {
        if self.constrained() { format!("impersonate:{}", self.mode.name()) } else { "impersonate".into() }
    }

    fn permit(&self, place: Place<'_>) -> Result<(), Status> {
        let (user, verb) = (self.requestor, self.verb());
        self.registry.permit(&Attributes { user, verb: &verb, what: What::Resource(place) })
    }

    fn refuse(&self, place: Place<'_>, why: &str) -> Status {
        let (user, verb) = (self.requestor, self.verb());
        Attributes { user, verb: &verb, what: What::Resource(place) }.refusal(why)
    }

    /// The group of `users`, `groups`, `serviceaccounts` and `nodes`.
    fn group(&self) -> &'static str {
        if self.constrained() { AUTHENTICATION } else { "" }
    }

    fn user(&self, wanted: &User) -> Result<User, Status> {
        let mut user = wanted.clone();
        self.name(&mut user)?;
        if !wanted.uid.is_empty() {
            self.permit(Place { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..Place::default() })?;
        }
        self.groups(&wanted.groups)?;
        self.extra(&wanted.extra)?;
        let group = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !user.is_in(group) && !user.is_in(UNAUTHENTICATED) {
            user.groups.push(group.into());
        }
        Ok(user)
    }

    fn name(&self, user: &mut User) -> Result<(), Status> {
        let name = user.name.clone();
        let mut place = Place { group: self.group(), resource: "users", name: &name, ..Place::default() };
        if let Some(node) = as_node(&name).filter(|_| self.constrained()) {
            place.resource = "nodes";
            place.name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec!["system:nodes".into()];
        }
        if let Some((namespace, account)) = as_account(&name) {
            (place.resource, place.namespace, place.name) = ("serviceaccounts", namespace, account);
            if user.groups.is_empty() {
                user.groups = account_groups(namespace);
            }
        }
        self.permit(place)
    }

    fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let place = |name| Place { group: self.group(), resource: "groups", name, ..Place::default() };
        if self.constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(self.refuse(place(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == MASTERS) {
                return Err(self.refuse(place(MASTERS), "impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.permit(place("*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.permit(place(group)))
    }

    fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let place = |subresource, name| Place {
            group: AUTHENTICATION,
            resource: "userextras",
            subresource,
            name,
            ..Place::default()
        };
        if self.constrained() {
            for (key, values) in extra {
                if let Some(why) = extra_problem(key, values) {
                    return Err(self.refuse(place("", ""), &why));
                }
            }
            let many = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && self.permit(place("*", "*")).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.permit(place(key, value))?;
            }
        }
        Ok(())
    }
}

/// What is wrong with an extra value where it must be one that authentication could have given.
fn extra_problem(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    let problems = domain_path_problems(key);
    if !problems.is_empty() {
        let texts: Vec<String> = problems.iter().map(|problem| format!("extra.key: {problem}")).collect();
        let text = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        return Some(format!("impersonating an invalid key in extra is not allowed: {text}"));
    }
    if key.chars().any(char::is_uppercase) {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {}", go_quote(key)));
    }
    let empty = values.iter().any(String::is_empty);
    empty.then(|| "impersonating the empty string value in extra is not allowed".into())
}

/// Why a text is no domain with a path behind it. Upstream's `IsDomainPrefixedPath`.
fn domain_path_problems(text: &str) -> Vec<String> {
    let Some((domain, path)) = text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![format!("Invalid value: {}: {why}", go_quote(text))];
    };
    let wrong = names::dns1123_subdomain(domain);
    if !wrong.is_empty() {
        return wrong.iter().map(|why| format!("Invalid value: {}: {why}", go_quote(domain))).collect();
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if path.chars().all(good) {
        return Vec::new();
    }
    let regex = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    vec![format!("Invalid value: {}: Invalid path (regex used for validation is '{regex}')", go_quote(path))]
}
