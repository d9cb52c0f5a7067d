//! What the watches have told: the pools' free members, which claims wait for which pool, when each was first seen. Each
//! kind's function takes a change in and says which claims it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use jiff::Timestamp;

use super::{
    Key,
    adopt::{check_adoptable, pool_of, refers_to},
    pool_name,
    queue::{Candidate, Pool, WarmQueue},
    status::is_relevant,
};
use crate::{actor::Change, base::Object};

#[derive(Debug, Default)]
struct Notes {
    warm: WarmQueue,
    /// The claims of each pool that are not being deleted, and whether they wait for a Sandbox.
    claims: BTreeMap<Pool, BTreeMap<String, bool>>,
    /// The pools of each template.
    pools: BTreeMap<(String, String), BTreeSet<String>>,
    /// UID and first sight of each claim.
    first: BTreeMap<Key, (String, Timestamp)>,
}

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    notes: Mutex<Notes>,
}

fn key(object: &Object) -> Key {
    (object.namespace().into(), object.name().into())
}

fn pool_of_claim(claim: &Object) -> Pool {
    (claim.namespace().into(), pool_name(claim).into())
}

fn template_of_pool(pool: &Object) -> (String, String) {
    (pool.namespace().into(), pool.str_at(&["spec", "sandboxTemplateRef", "name"]).into())
}

impl Seen {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no panic under this lock")
    }

    /// A claim: it is its own concern.
    pub(super) fn claim(&self, change: &Change, now: Timestamp) -> Vec<Key> {
        let mut notes = self.notes();
        let key = key(change.object());
        if let Some(old) = change.before() {
            let pool = pool_of_claim(old);
            if let Some(names) = notes.claims.get_mut(&pool) {
                names.remove(old.name());
                if names.is_empty() {
                    notes.claims.remove(&pool);
                }
            }
        }
        match change {
            Change::Applied { new, .. } => {
                if !new.is_deleting() {
                    let waits = new.str_at(&["status", "sandbox", "name"]).is_empty();
                    notes.claims.entry(pool_of_claim(new)).or_default().insert(new.name().into(), waits);
                }
                if notes.first.get(&key).is_none_or(|(uid, _)| uid != new.uid()) {
                    notes.first.insert(key.clone(), (new.uid().into(), now));
                }
            }
            Change::Gone(_) => {
                notes.first.remove(&key);
            }
        }
        vec![key]
    }

    /// A Sandbox: its claim's concern where that looks at what has changed; and perhaps a member to be taken.
    pub(super) fn sandbox(&self, change: &Change) -> Vec<Key> {
        let now = change.object();
        let mut notes = self.notes();
        let pool = |sandbox: &Object| pool_of(sandbox).map(|name| (sandbox.namespace().to_owned(), name));
        match change {
            Change::Gone(last) => {
                if let Some(pool) = pool(last) {
                    notes.warm.remove(&pool, last.name());
                }
            }
            Change::Applied { new, old } => {
                let node = |sandbox: &Object| sandbox.str_at(&["status", "nodeName"]).to_owned();
                let came = old.as_deref().is_none_or(|old| {
                    check_adoptable(old).is_err() || pool_of(old) != pool_of(new) || node(old) != node(new)
                });
                if came
                    && check_adoptable(new).is_ok()
                    && let Some(pool) = pool(new)
                {
                    notes.warm.push(pool, Candidate { name: new.name().into(), node: node(new) });
                }
                if old.as_deref().is_some_and(|old| !is_relevant(old, new)) {
                    return Vec::new();
                }
            }
        }
        let claims = [Some(now), change.before()].into_iter().flatten().filter_map(|sandbox| {
            let owner = sandbox.controller().filter(|owner| refers_to(owner, "SandboxClaim"))?;
            Some((sandbox.namespace().to_owned(), owner.name))
        });
        claims.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A pool: the concern of the claims that wait for it, when it comes, goes, or is another.
    pub(super) fn pool(&self, change: &Change) -> Vec<Key> {
        let mut notes = self.notes();
        let pool = key(change.object());
        if let Some(old) = change.before()
            && let Some(pools) = notes.pools.get_mut(&template_of_pool(old))
        {
            pools.remove(old.name());
        }
        let concerns = match change {
            Change::Applied { new, old } => {
                notes.pools.entry(template_of_pool(new)).or_default().insert(new.name().into());
                old.as_deref().is_none_or(|old| old.generation() != new.generation())
            }
            Change::Gone(_) => {
                notes.warm.forget(&pool);
                true
            }
        };
        let claims = notes.claims.get(&pool).filter(|_| concerns).into_iter().flatten();
        claims.filter(|(_, waits)| **waits).map(|(name, _)| (pool.0.clone(), name.clone())).collect()
    }

    /// A template: when it comes, the concern of all claims of the pools that use it.
    pub(super) fn template(&self, change: &Change) -> Vec<Key> {
        let Change::Applied { new, old: None } = change else { return Vec::new() };
        let notes = self.notes();
        let pools = notes.pools.get(&key(new)).into_iter().flatten();
        let claims = pools.filter_map(|pool| notes.claims.get(&(new.namespace().to_owned(), pool.clone())));
        claims.flat_map(BTreeMap::keys).map(|name| (new.namespace().to_owned(), name.clone())).collect()
    }

    /// A claim is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.notes().first.remove(key);
    }

    /// When a claim was first seen.
    pub(super) fn first_sight(&self, claim: &Object) -> Option<Timestamp> {
        let notes = self.notes();
        let (uid, time) = notes.first.get(&key(claim))?;
        (uid == claim.uid()).then_some(*time)
    }

    /// Takes the next free member of a pool.
    pub(super) fn pop(&self, pool: &Pool) -> Option<Candidate> {
        self.notes().warm.pop(pool)
    }

    /// Puts free members back, at the end.
    pub(super) fn put_back(&self, pool: &Pool, candidates: impl IntoIterator<Item = Candidate>) {
        let mut notes = self.notes();
        for candidate in candidates {
            notes.warm.push(pool.clone(), candidate);
        }
    }
}
