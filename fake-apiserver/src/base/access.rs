//! A question about access: who wants to do what, and to what.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go` (the words of a refusal).

use std::sync::Arc;

use super::{
    Status, User,
    status::{Details, go_quote},
};

/// Whether a request is allowed: `Ok` if so, both with the reason, often `""`.
pub type Authorize = Arc<dyn Fn(&Attributes<'_>) -> Result<String, String> + Send + Sync>;

/// What a user asks for.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// What is to be done.
    pub verb: &'a str,
    /// To what.
    pub what: What<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A resource, or an object of it.
    Resource(Place<'a>),
    /// A path that is no resource's.
    Path(&'a str),
}

/// A resource, or an object of it; `""` for what a request does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
}

impl Attributes<'_> {
    /// The refusal of the request; `reason` is what the roles said of it.
    pub fn refusal(&self, reason: &str) -> Status {
        let Self { user, verb, what } = self;
        let who = go_quote(&user.name);
        let (place, text) = match what {
            What::Path(path) => (Place::default(), format!("User {who} cannot {verb} path {}", go_quote(path))),
            What::Resource(place) => {
                let Place { group, resource, subresource, namespace, .. } = place;
                let slash = if subresource.is_empty() { "" } else { "/" };
                let scope = match *namespace {
                    "" => "at the cluster scope".into(),
                    namespace => format!("in the namespace {}", go_quote(namespace)),
                };
                let what = format!("resource \"{resource}{slash}{subresource}\" in API group {}", go_quote(group));
                (*place, format!("User {who} cannot {verb} {what} {scope}"))
            }
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let text = if reason.is_empty() { text } else { format!("{text}: {reason}") };
        let mut status = Status::forbidden(place.group, place.resource, place.name, &text);
        if place.resource.is_empty() {
            status.message = format!("forbidden: {text}");
            let details = Details { group: place.group.into(), name: place.name.into(), ..Details::default() };
            status.details = Some(details);
        }
        status
    }
}
