//! What the controller's watches have shown: members by pool, pools by template; and what is remembered of each pool.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use super::{
    super::keys::{EXTENSIONS_GROUP, WARM_POOL, name_hash, sandboxes, templates, warm_pools},
    decide::Member,
    memory::Memory,
};
use crate::{
    actor::{Change, Source},
    base::{Object, names::split_api_version},
};

/// Namespace and name of a pool.
pub(super) type Key = (String, String);

/// What has been seen; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    /// Sandboxes with a pool's label, by namespace, value of the label, and name.
    members: BTreeMap<(String, String), BTreeMap<String, Arc<Member>>>,
    /// Names of the pools that refer to a template, by the template's namespace and name.
    by_template: BTreeMap<(String, String), BTreeSet<String>>,
    pools: BTreeMap<Key, Memory>,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock().expect("no panic under this lock"))
    }

    /// What the controller watches; what it sees is taken in here.
    pub(super) fn sources(&self) -> Vec<Source<Key>> {
        let (pools, members, by_template) = (self.clone(), self.clone(), self.clone());
        vec![
            Source::all(warm_pools(), move |change| {
                pools.with(|world| world.note_pool(change));
                vec![key(change.object())]
            }),
            Source::all(sandboxes(), move |change| members.with(|world| world.note_sandbox(change))),
            Source::all(templates(), move |change| {
                let (namespace, name) = key(change.object());
                let pools = by_template.with(|world| world.by_template.get(&(namespace.clone(), name)).cloned());
                pools.into_iter().flatten().map(|pool| (namespace.clone(), pool)).collect()
            }),
        ]
    }

    /// The Sandboxes with a pool's label, by name.
    pub(super) fn members(&self, pool: &Object) -> Vec<Arc<Member>> {
        let place = (pool.namespace().to_owned(), name_hash(pool.name()));
        self.with(|world| {
            world.members.get(&place).map(|members| members.values().cloned().collect()).unwrap_or_default()
        })
    }

    /// Does something with what is remembered of a pool.
    pub(super) fn remember<T>(&self, key: &Key, act: impl FnOnce(&mut Memory) -> T) -> T {
        self.with(|world| match world.pools.get_mut(key) {
            Some(memory) => act(memory),
            None => act(world.pools.entry(key.clone()).or_default()),
        })
    }

    /// Forgets a pool that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.with(|world| world.pools.remove(key));
    }
}

impl World {
    fn note_pool(&mut self, change: &Change) {
        let template = |pool: &Object| {
            (pool.namespace().to_owned(), pool.str_at(&["spec", "sandboxTemplateRef", "name"]).to_owned())
        };
        if let Some(old) = change.before()
            && let Some(names) = self.by_template.get_mut(&template(old))
        {
            names.remove(old.name());
            if names.is_empty() {
                self.by_template.remove(&template(old));
            }
        }
        if let Change::Applied { new, .. } = change {
            self.by_template.entry(template(new)).or_default().insert(new.name().to_owned());
        }
    }

    /// Takes in a Sandbox; the pools that control it, before or after the change.
    fn note_sandbox(&mut self, change: &Change) -> Vec<Key> {
        if let Some(old) = change.before()
            && let Some(place) = place(old)
            && let Some(members) = self.members.get_mut(&place)
        {
            members.remove(old.name());
            if members.is_empty() {
                self.members.remove(&place);
            }
        }
        let pool = controlling_pool(change.object());
        let before = change.before().and_then(|old| controlling_pool(old));
        let memory = pool.as_ref().and_then(|pool| self.pools.get_mut(pool));
        match change {
            Change::Applied { new, old } => {
                if let (None, Some(memory)) = (old, memory) {
                    memory.expectations.lower_creations(1);
                }
                if let Some(place) = place(new) {
                    let members = self.members.entry(place).or_default();
                    members.insert(new.name().to_owned(), Arc::new(Member::of(new)));
                }
            }
            Change::Gone(last) => {
                if let Some(memory) = memory {
                    memory.expectations.deletion_seen(last.uid());
                }
            }
        }
        pool.into_iter().chain(before).collect()
    }
}

fn key(object: &Object) -> Key {
    (object.namespace().to_owned(), object.name().to_owned())
}

/// Where a Sandbox stands among the members.
fn place(sandbox: &Object) -> Option<(String, String)> {
    Some((sandbox.namespace().to_owned(), sandbox.label(WARM_POOL)?.to_owned()))
}

/// The pool that controls a Sandbox.
fn controlling_pool(sandbox: &Object) -> Option<Key> {
    let owner = sandbox.controller()?;
    let pool = owner.kind == "SandboxWarmPool" && split_api_version(&owner.api_version).0 == EXTENSIONS_GROUP;
    pool.then(|| (sandbox.namespace().to_owned(), owner.name))
}
