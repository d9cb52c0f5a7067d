//! [`Rules`]: the rules of a cluster, in force as long as their guards live; who stands at a point asks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::{Action, Call, Parts, Rule, Watched, When, takes};
use crate::{
    base::{Status, limits},
    clock::Clock,
    ids::Ids,
};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It waits that long first.
    Delay(Duration),
    /// It lets others have so many turns first.
    Yield(u64),
    /// It is answered with an error; with `true` after it had its effect.
    Fail(Box<Status>, bool),
    /// It is not answered; with `true` after it had its effect.
    Drop(bool),
    /// The history is forgotten first.
    Compact,
}

/// A rule that is installed, as [`Rules::list`] shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// Its number: never given twice.
    pub id: u64,
    /// How often it did something.
    pub hits: u64,
    /// The rule.
    pub rule: Rule,
    /// How many matches there were, hit or not.
    #[serde(skip)]
    seen: u64,
}

/// The rules of a cluster; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Rules(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    clock: Clock,
    ids: Ids,
    state: Mutex<State>,
    /// How many rules there are: most of the time none, and nobody takes the lock.
    count: AtomicUsize,
    pub(super) changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    rules: BTreeMap<u64, Installed>,
    controllers: BTreeSet<String>,
}

impl Rules {
    /// No rules, in a cluster's time and with its chance.
    pub fn new(clock: Clock, ids: Ids) -> Self {
        let (changed, _) = watch::channel(0);
        Self(Arc::new(Inner { clock, ids, state: Mutex::default(), count: AtomicUsize::new(0), changed }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic under this lock")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) == 0
    }

    /// Puts a rule in force, behind those that are there, until the guard is dropped.
    ///
    /// # Panics
    /// If the rule says what cannot be (a probability of 2), which is the caller's mistake; or beyond
    /// `limits::RULES` rules.
    pub fn install(&self, rule: Rule) -> Guard {
        match self.try_install(rule) {
            Ok(guard) => guard,
            Err(why) => panic!("the rule cannot be installed: {why}"),
        }
    }

    /// As [`Rules::install`], of a rule that somebody else wrote.
    ///
    /// # Errors
    /// What is wrong with it, or that there are too many.
    pub fn try_install(&self, rule: Rule) -> Result<Guard, String> {
        rule.check()?;
        let mut state = self.lock();
        if state.rules.len() >= limits::RULES {
            return Err(format!("there are {} rules already, and no more are kept", limits::RULES));
        }
        state.last += 1;
        let id = state.last;
        state.rules.insert(id, Installed { id, hits: 0, rule, seen: 0 });
        self.0.count.store(state.rules.len(), Ordering::Relaxed);
        drop(state);
        self.0.changed.send_modify(|changes| *changes += 1);
        Ok(Guard { rules: self.clone(), id, kept: false })
    }

    /// Takes a rule away; `false` if there is none of that number.
    pub fn uninstall(&self, id: u64) -> bool {
        let mut state = self.lock();
        let gone = state.rules.remove(&id).is_some();
        self.0.count.store(state.rules.len(), Ordering::Relaxed);
        drop(state);
        if gone {
            self.0.changed.send_modify(|changes| *changes += 1);
        }
        gone
    }

    /// The rules in force, in the order in which they are asked.
    pub fn list(&self) -> Vec<Installed> {
        self.lock().rules.values().cloned().collect()
    }

    /// The controllers that have started so far, by the names that rules take.
    pub fn controllers(&self) -> Vec<String> {
        self.lock().controllers.iter().cloned().collect()
    }

    /// A controller of that name is there.
    pub(crate) fn note_controller(&self, name: &str) {
        self.lock().controllers.insert(name.to_owned());
    }

    /// The first rule that is about this and does it now; its hit is counted.
    pub(super) fn first<T>(
        &self,
        about: impl Fn(&When) -> bool,
        mut what: impl FnMut(u64, &Action) -> Option<T>,
    ) -> Option<T> {
        let now = self.0.clock.now();
        let mut state = self.lock();
        for (id, installed) in &mut state.rules {
            let Parts { when, then } = &installed.rule.0;
            if !when.is_in_time(now) || !about(when) {
                continue;
            }
            let used_up = when.times.is_some_and(|times| installed.hits >= times);
            if used_up {
                continue;
            }
            let Some(answer) = what(*id, then) else { continue };
            if !then.is_state() {
                installed.seen += 1;
                let drawn = when.probability.is_none_or(|part| {
                    // A draw of a million: finer chances than that are none.
                    (self.0.ids.below(1_000_000) as f64) < part * 1e6
                });
                if installed.seen <= when.skip || !drawn {
                    continue;
                }
                installed.hits += 1;
            }
            return Some(answer);
        }
        None
    }

    /// What becomes of a request; `None` for what it would without rules.
    pub fn request(&self, call: &Call<'_>) -> Option<Verdict> {
        self.0.clock.stir();
        if self.is_empty() {
            return None;
        }
        self.first(
            |when| when.is_about(call),
            |_, then| {
                Some(match then {
                    Action::Delay { time } => Verdict::Delay(*time),
                    Action::Yield { turns } => Verdict::Yield(self.0.ids.below(turns.saturating_add(1))),
                    Action::Fail(failure) => Verdict::Fail(Box::new(failure.status(call)), failure.late),
                    Action::Drop { late } => Verdict::Drop(*late),
                    Action::Compact {} => Verdict::Compact,
                    _ => return None,
                })
            },
        )
    }

    /// A watch, to be asked about with each of its events.
    pub fn watched(&self, call: &Call<'_>) -> Watched {
        Watched::new(self.clone(), call)
    }

    /// Why an image cannot be pulled for a pod.
    pub fn pull(&self, namespace: &str, pod: &str, image: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        self.first(
            |when| {
                takes(when.image.as_deref(), image)
                    && takes(when.namespace.as_deref(), namespace)
                    && takes(when.name.as_deref(), pod)
            },
            |_, then| if let Action::FailPull { message } = then { Some(message.clone()) } else { None },
        )
    }

    /// Whether a node is dead.
    pub fn is_down(&self, node: &str) -> bool {
        let of = |when: &When| takes(when.node.as_deref(), node);
        !self.is_empty() && self.first(of, |_, then| matches!(then, Action::StopNode {}).then_some(())).is_some()
    }

    /// Whether a controller does nothing.
    pub fn is_paused(&self, controller: &str) -> bool {
        let of = |when: &When| takes(when.controller.as_deref(), controller);
        !self.is_empty() && self.first(of, |_, then| matches!(then, Action::Pause {}).then_some(())).is_some()
    }

    /// Whether a controller is to start again, now that it has something to do.
    pub fn restarts(&self, controller: &str) -> bool {
        let of = |when: &When| takes(when.controller.as_deref(), controller);
        !self.is_empty() && self.first(of, |_, then| matches!(then, Action::Restart {}).then_some(())).is_some()
    }

    /// Whether nobody answers where a webhook is.
    pub fn is_webhook_down(&self, webhook: &str) -> bool {
        let of = |when: &When| takes(when.webhook.as_deref(), webhook);
        !self.is_empty() && self.first(of, |_, then| matches!(then, Action::StopWebhook {}).then_some(())).is_some()
    }

    /// Waits until the rules in force are others: one came or went, or its time did. Cancel-safe, but what changes before
    /// the first poll is not seen.
    pub async fn changed(&self) {
        self.turned(&mut self.0.changed.subscribe()).await;
    }

    pub(super) async fn turned(&self, changes: &mut watch::Receiver<u64>) {
        let clock = &self.0.clock;
        let turn = self.next_turn(clock.now());
        let time = async {
            match turn {
                Some(time) => clock.sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = changes.changed() => {}
            () = time => {}
        }
    }

    /// When the next rule begins or ends by itself.
    fn next_turn(&self, now: Timestamp) -> Option<Timestamp> {
        let state = self.lock();
        let times = state.rules.values().flat_map(|installed| {
            let When { from, until, .. } = &installed.rule.0.when;
            [*from, *until].into_iter().flatten()
        });
        times.filter(|time| *time > now).min()
    }
}

/// Keeps a rule in force; dropping it takes the rule away.
#[derive(Debug)]
#[must_use = "a rule is gone with its guard; `keep` it, or hold the guard"]
pub struct Guard {
    rules: Rules,
    id: u64,
    kept: bool,
}

impl Guard {
    /// The rule's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How often the rule did something so far; 0 once it was uninstalled.
    pub fn hits(&self) -> u64 {
        self.rules.lock().rules.get(&self.id).map_or(0, |installed| installed.hits)
    }

    /// Leaves the rule in force for as long as the cluster lives, or until [`Rules::uninstall`]; gives its number.
    pub fn keep(mut self) -> u64 {
        self.kept = true;
        self.id
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.kept {
            self.rules.uninstall(self.id);
        }
    }
}
