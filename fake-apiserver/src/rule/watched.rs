//! A running watch, as rules see it.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::{Action, Call, Rules};

/// How a rule ends a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As after its time.
    Cut,
    /// With the error 410.
    Expired,
    /// With the connection, in the midst of an event.
    Broken,
}

/// A watch that rules may end.
#[derive(Debug)]
pub struct Watched {
    rules: Rules,
    group: String,
    resource: String,
    namespace: String,
    name: String,
    user: String,
    /// How many events were handed out.
    handed: u64,
    /// How many events had been handed out when each rule was first asked.
    since: BTreeMap<u64, u64>,
    changes: watch::Receiver<u64>,
}

impl Watched {
    pub(super) fn new(rules: Rules, call: &Call<'_>) -> Self {
        let Call { group, resource, namespace, name, user, .. } = *call;
        let own = str::to_owned;
        let changes = rules.0.changed.subscribe();
        Self {
            rules,
            group: own(group),
            resource: own(resource),
            namespace: own(namespace),
            name: own(name),
            user: own(user),
            handed: 0,
            since: BTreeMap::new(),
            changes,
        }
    }

    /// Whether the watch ends before its next event.
    pub fn ending(&mut self) -> Option<Ending> {
        if self.rules.is_empty() {
            return None;
        }
        let Self { rules, group, resource, namespace, name, user, handed, since, changes: _ } = self;
        let call = Call { verb: "watch", group, resource, subresource: "", namespace, name, user };
        rules.first(
            |when| when.is_about(&call),
            |id, then| {
                let (ending, after) = match then {
                    Action::CutWatch { after } => (Ending::Cut, *after),
                    Action::ExpireWatch { after } => (Ending::Expired, *after),
                    Action::BreakWatch { after } => (Ending::Broken, *after),
                    _ => return None,
                };
                let since = *since.entry(id).or_insert(*handed);
                (*handed - since >= after).then_some(ending)
            },
        )
    }

    /// Counts events that were handed out.
    pub fn handed_out(&mut self, events: u64) {
        self.handed += events;
    }

    /// Waits until the rules are others. Cancel-safe.
    pub async fn changed(&mut self) {
        self.rules.turned(&mut self.changes).await;
    }
}
