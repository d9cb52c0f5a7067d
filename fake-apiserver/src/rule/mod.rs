//! Faults as rules: what goes wrong, where, how often. Knows no objects and carries nothing out: who stands at one of the
//! [`Point`]s asks [`Rules`], and does what the answer says.
//!
//! The first rule that matches wins, in the order in which they were installed. A rule is in force as long as its
//! [`Guard`] lives. Written out, a rule is one line of JSON, which [`Rule`] reads back:
//!
//! ```
//! use fake_apiserver::rule::{Failure, Rule};
//!
//! let rule = Rule::fail(Failure::of(409)).verbs(["update", "patch"]).resources(["sandboxes"]).times(3);
//! let line = r#"{"when":{"verbs":["update","patch"],"resources":["sandboxes"],"times":3},"then":{"fail":{"code":409}}}"#;
//! assert_eq!(rule.to_string(), line);
//! assert_eq!(line.parse::<Rule>().unwrap(), rule);
//! ```

mod describe;
mod rules;
mod storm;
mod watched;

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    rules::{Guard, Installed, Rules, Verdict},
    watched::{Ending, Watched},
};
use crate::base::{Status, status::Details};

/// Where rules are asked. The list is closed: nothing goes wrong anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A request to a resource, by a client or by one of the cluster's own actors, before it is looked at; and after it had
    /// its effect.
    Request,
    /// A running watch, each time that it has something to hand out.
    Watch,
    /// The kubelet pulls an image.
    Pull,
    /// A node is at work.
    Node,
    /// A controller has something to do.
    Controller,
    /// A webhook is about to be called.
    Webhook,
}

/// What a rule does to what it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The request waits that long, in the cluster's time, and is then carried out.
    Delay {
        /// How long.
        #[serde(rename = "for", with = "describe::duration")]
        time: Duration,
    },
    /// The request lets others go first: of so many turns some, by chance. For interleavings.
    Yield {
        /// How many turns at most.
        turns: u64,
    },
    /// The request is answered with an error.
    Fail(Failure),
    /// The connection ends without an answer.
    Drop {
        /// Whether the request has its effect before.
        #[serde(default, skip_serializing_if = "is_false")]
        late: bool,
    },
    /// The history is forgotten before the request is looked at, as by etcd's compaction: older watches and pages get 410.
    Compact {},
    /// The watch ends, as after its time.
    CutWatch {
        /// How many more events are handed out; 0 ends it now.
        #[serde(default)]
        after: u64,
    },
    /// The watch ends with the error 410, as if its place in the history were forgotten.
    ExpireWatch {
        /// How many more events are handed out; 0 ends it now.
        #[serde(default)]
        after: u64,
    },
    /// The watch's connection ends, in the midst of the next event if there is one. Actors see a watch that ends.
    BreakWatch {
        /// How many more events are handed out; 0 ends it now.
        #[serde(default)]
        after: u64,
    },
    /// The image cannot be pulled.
    FailPull {
        /// What the registry says.
        message: String,
    },
    /// The node is dead: its kubelet does nothing, and nobody gets an answer from it.
    StopNode {},
    /// The controller does nothing, and goes on where it was when the rule is gone.
    Pause {},
    /// The controller ends in the midst of what it does, forgets everything, and starts again.
    Restart {},
    /// Nobody answers where the webhook is.
    StopWebhook {},
}

impl Action {
    /// Where the action happens.
    pub fn point(&self) -> Point {
        match self {
            Self::Delay { .. } | Self::Yield { .. } | Self::Fail(_) | Self::Drop { .. } | Self::Compact {} => {
                Point::Request
            }
            Self::CutWatch { .. } | Self::ExpireWatch { .. } | Self::BreakWatch { .. } => Point::Watch,
            Self::FailPull { .. } => Point::Pull,
            Self::StopNode {} => Point::Node,
            Self::Pause {} | Self::Restart {} => Point::Controller,
            Self::StopWebhook {} => Point::Webhook,
        }
    }

    /// Whether the action lasts while the rule is in force, and is not counted.
    fn is_state(&self) -> bool {
        matches!(self, Self::StopNode {} | Self::Pause {} | Self::StopWebhook {})
    }
}

/// An error that a request is answered with; reason and message are the server's own for the code where none are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The HTTP status, 400 to 599.
    pub code: u16,
    /// `reason` of the Status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `message` of the Status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Seconds of `Retry-After`; for 429 one by default, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
    /// Whether the request has its effect before: the client cannot know.
    #[serde(default, skip_serializing_if = "is_false")]
    pub late: bool,
}

impl Failure {
    /// The server's own error of a code.
    pub fn of(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// After the request had its effect.
    #[must_use]
    pub fn late(self) -> Self {
        Self { late: true, ..self }
    }

    fn status(&self, call: &Call<'_>) -> Status {
        let Call { group, resource, name, .. } = *call;
        let mut status = match self.code {
            404 => Status::not_found(group, resource, name),
            403 => Status::forbidden(group, resource, name, "by a rule of the test"),
            409 => Status::modified(group, resource, name),
            410 => Status::expired("The resourceVersion for the provided list is too old."),
            429 => Status::too_many_requests(
                "the server has received too many requests and has asked us to try again later",
                1,
            ),
            500 => Status::internal("etcdserver: request timed out"),
            code => {
                let (reason, message) = match code {
                    401 => ("Unauthorized", "Unauthorized"),
                    503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
                    504 => ("Timeout", "Timeout: request did not complete within the allotted timeout"),
                    _ => ("", "an error on the server (\"by a rule of the test\") has prevented the request"),
                };
                Status::received(code, reason, message.into())
            }
        };
        if let Some(reason) = &self.reason {
            let message = std::mem::take(&mut status.message);
            status = Status { details: status.details, ..Status::received(self.code, reason, message) };
        }
        if let Some(message) = &self.message {
            status.message.clone_from(message);
        }
        if let Some(seconds) = self.retry_after_seconds {
            status.details.get_or_insert_with(Details::default).retry_after_seconds = seconds;
        }
        status
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What a rule is about. What is left out matches everything; a text that ends in `*` matches all that begin so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct When {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verbs: Vec<String>,
    /// As roles name them, `pods`, `pods/status`, `pods/*`; with the group, if that matters: `sandboxes.agents.x-k8s.io`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<String>,
    /// So many matches pass first.
    #[serde(skip_serializing_if = "is_zero")]
    skip: u64,
    /// Then so many are hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    /// Of all matches this part, by the cluster's chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default)]
    when: When,
    then: Action,
}

/// What goes wrong, where, and how often. See the [module](self) for its form in JSON.
///
/// A text that ends in `*` matches all that begin so. Without a limit a rule matches always.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rule(Parts);

impl Rule {
    fn new(then: Action) -> Self {
        Self(Parts { when: When::default(), then })
    }

    /// Requests are answered with an error.
    pub fn fail(failure: Failure) -> Self {
        Self::new(Action::Fail(failure))
    }

    /// Requests wait, in the cluster's time.
    pub fn delay(time: Duration) -> Self {
        Self::new(Action::Delay { time })
    }

    /// Requests let others go first: of so many turns some, by chance.
    pub fn give_way(turns: u64) -> Self {
        Self::new(Action::Yield { turns })
    }

    /// Connections end without an answer; with `late` after the request had its effect.
    pub fn drop_connection(late: bool) -> Self {
        Self::new(Action::Drop { late })
    }

    /// Requests find the history forgotten: older watches and pages get 410.
    pub fn compact() -> Self {
        Self::new(Action::Compact {})
    }

    /// Watches end after so many more events; 0 ends them now.
    pub fn cut_watch(after: u64) -> Self {
        Self::new(Action::CutWatch { after })
    }

    /// Watches end with the error 410 after so many more events; 0 ends them now.
    pub fn expire_watch(after: u64) -> Self {
        Self::new(Action::ExpireWatch { after })
    }

    /// The connections of watches end in the midst of an event, after so many more whole ones; 0 ends them now.
    pub fn break_watch(after: u64) -> Self {
        Self::new(Action::BreakWatch { after })
    }

    /// An image cannot be pulled.
    pub fn fail_pull(image: &str, message: &str) -> Self {
        let mut rule = Self::new(Action::FailPull { message: message.into() });
        rule.0.when.image = Some(image.into());
        rule
    }

    /// A node is dead while the rule is in force.
    pub fn stop_node(node: &str) -> Self {
        let mut rule = Self::new(Action::StopNode {});
        rule.0.when.node = Some(node.into());
        rule
    }

    /// A controller does nothing while the rule is in force; its name is that of [`Rules::controllers`].
    pub fn pause(controller: &str) -> Self {
        let mut rule = Self::new(Action::Pause {});
        rule.0.when.controller = Some(controller.into());
        rule
    }

    /// A controller ends in the midst of what it does and starts again: once, if nothing else is said.
    pub fn restart(controller: &str) -> Self {
        let mut rule = Self::new(Action::Restart {});
        rule.0.when.controller = Some(controller.into());
        rule.0.when.times = Some(1);
        rule
    }

    /// A webhook cannot be reached while the rule is in force; its name is that in its configuration.
    pub fn stop_webhook(webhook: &str) -> Self {
        let mut rule = Self::new(Action::StopWebhook {});
        rule.0.when.webhook = Some(webhook.into());
        rule
    }

    /// Requests of these verbs alone, as roles name them.
    #[must_use]
    pub fn verbs<S: Into<String>>(mut self, verbs: impl IntoIterator<Item = S>) -> Self {
        self.0.when.verbs = verbs.into_iter().map(Into::into).collect();
        self
    }

    /// Requests and watches of these resources alone, as roles name them: `pods`, `pods/status`, `pods/*`; with the group,
    /// if that matters: `sandboxes.agents.x-k8s.io`.
    #[must_use]
    pub fn resources<S: Into<String>>(mut self, resources: impl IntoIterator<Item = S>) -> Self {
        self.0.when.resources = resources.into_iter().map(Into::into).collect();
        self
    }

    /// What is in this namespace alone.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.when.namespace = Some(namespace.into());
        self
    }

    /// What has this name alone.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.0.when.name = Some(name.into());
        self
    }

    /// What this user does alone; actors have users too, `system:serviceaccount:kube-system:*`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.0.when.user = Some(user.into());
        self
    }

    /// The first so many matches pass.
    #[must_use]
    pub fn skip(mut self, matches: u64) -> Self {
        self.0.when.skip = matches;
        self
    }

    /// No more than so many matches are hit.
    #[must_use]
    pub fn times(mut self, hits: u64) -> Self {
        self.0.when.times = Some(hits);
        self
    }

    /// Of all matches this part is hit, 0 to 1, by the cluster's chance.
    #[must_use]
    pub fn probability(mut self, part: f64) -> Self {
        self.0.when.probability = Some(part);
        self
    }

    /// From this time on, in the cluster's time.
    #[must_use]
    pub fn from(mut self, time: Timestamp) -> Self {
        self.0.when.from = Some(time);
        self
    }

    /// Before this time, in the cluster's time.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.0.when.until = Some(time);
        self
    }

    /// What it does.
    pub fn action(&self) -> &Action {
        &self.0.then
    }

    /// Whether the rule says something that cannot be: a limit on what is not counted, a node of a request.
    fn check(&self) -> Result<(), String> {
        let Parts { when, then } = &self.0;
        let point = then.point();
        let request = matches!(point, Point::Request | Point::Watch);
        let given = [
            ("verbs", !when.verbs.is_empty(), point == Point::Request),
            ("resources", !when.resources.is_empty(), request),
            ("namespace", when.namespace.is_some(), request || point == Point::Pull),
            ("name", when.name.is_some(), request || point == Point::Pull),
            ("user", when.user.is_some(), request),
            ("image", when.image.is_some(), point == Point::Pull),
            ("node", when.node.is_some(), point == Point::Node),
            ("controller", when.controller.is_some(), point == Point::Controller),
            ("webhook", when.webhook.is_some(), point == Point::Webhook),
            ("skip", when.skip > 0, !then.is_state()),
            ("times", when.times.is_some(), !then.is_state()),
            ("probability", when.probability.is_some(), !then.is_state()),
        ];
        if let Some((member, ..)) = given.iter().find(|(_, given, fits)| *given && !fits) {
            return Err(format!("{member:?} says nothing about what this rule does; leave it out"));
        }
        if when.probability.is_some_and(|part| !(0.0..=1.0).contains(&part)) {
            return Err("\"probability\" must be from 0 to 1".into());
        }
        match then {
            Action::Fail(Failure { code, .. }) if !(400..600).contains(code) => {
                Err(format!("\"code\" must be from 400 to 599, not {code}"))
            }
            Action::Fail(Failure { code, reason: Some(reason), .. })
                if Status::received(*code, reason, String::new()).reason != reason =>
            {
                Err(format!("{reason:?} is no reason that the server gives"))
            }
            Action::Restart {} if when.times.is_none() && when.probability.is_none_or(|part| part >= 1.0) => {
                Err("a controller that always starts again does nothing else; say how many \"times\"".into())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Rule {
    type Err = String;

    /// Reads a rule in its JSON form; the error says what is wrong with it.
    fn from_str(text: &str) -> Result<Self, String> {
        let rule: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        rule.check().map(|()| rule)
    }
}

/// Whether a pattern takes a text: all of it, or with a `*` at the end what stands before that.
fn takes(pattern: Option<&str>, text: &str) -> bool {
    match pattern {
        None => true,
        Some(pattern) => match pattern.strip_suffix('*') {
            Some(prefix) => text.starts_with(prefix),
            None => pattern == text,
        },
    }
}

/// A request, as rules look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// Verb, as roles name it.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource, `""` for the object itself.
    pub subresource: &'a str,
    /// Namespace, `""` for none or all.
    pub namespace: &'a str,
    /// Name, `""` for a collection or a name not made yet.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a str,
}

impl Call<'_> {
    fn is_of(&self, pattern: &str) -> bool {
        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        if pattern == "*" {
            return true;
        }
        let (plural, group) = match resource.split_once('.') {
            Some((plural, group)) => (plural, Some(group)),
            None => (resource, None),
        };
        takes(Some(plural), self.resource)
            && group.is_none_or(|group| group == self.group)
            && takes(Some(subresource), self.subresource)
    }
}

impl When {
    /// Whether a rule is about a request. The name of a watch or list is that of its one object, if it has one.
    fn is_about(&self, call: &Call<'_>) -> bool {
        (self.verbs.is_empty() || self.verbs.iter().any(|verb| takes(Some(verb), call.verb)))
            && (self.resources.is_empty() || self.resources.iter().any(|pattern| call.is_of(pattern)))
            && takes(self.namespace.as_deref(), call.namespace)
            && takes(self.name.as_deref(), call.name)
            && takes(self.user.as_deref(), call.user)
    }

    fn is_in_time(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests;
