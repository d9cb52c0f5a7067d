//! Which members of the pools can be taken, and which one is next (`extensions/controllers/queue`, and `pickSmart` of
//! `sandboxclaim_controller.go`).
//!
//! The order is upstream's; the picking is not a scan, so that a thousand claims do not look at a thousand members each.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// A pool: namespace and name.
pub(super) type Pool = (String, String);

/// A queued member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Name of the Sandbox.
    pub(super) name: String,
    /// Its node, `""` while it has none.
    pub(super) node: String,
}

/// The members of one pool, oldest first.
#[derive(Debug, Default)]
struct Members {
    next: u64,
    by_age: BTreeMap<u64, Candidate>,
    ages: BTreeMap<String, u64>,
    /// Ages by node; `""` for members without one.
    by_node: BTreeMap<String, BTreeSet<u64>>,
    /// The nodes with their number of members and the age of the oldest, best first.
    ranking: BTreeSet<(Reverse<usize>, u64, String)>,
}

impl Members {
    fn rank(&self, node: &str) -> Option<(Reverse<usize>, u64, String)> {
        let ages = self.by_node.get(node).filter(|_| !node.is_empty())?;
        Some((Reverse(ages.len()), *ages.first()?, node.to_owned()))
    }

    fn at_node(&mut self, node: &str, change: impl FnOnce(&mut BTreeSet<u64>)) {
        if let Some(rank) = self.rank(node) {
            self.ranking.remove(&rank);
        }
        let ages = self.by_node.entry(node.to_owned()).or_default();
        change(ages);
        if ages.is_empty() {
            self.by_node.remove(node);
        }
        self.ranking.extend(self.rank(node));
    }

    fn push(&mut self, candidate: Candidate) {
        if let Some(&age) = self.ages.get(&candidate.name) {
            let old = self.by_age.insert(age, candidate.clone()).map(|old| old.node).unwrap_or_default();
            if old != candidate.node {
                self.at_node(&old, |ages| {
                    ages.remove(&age);
                });
                self.at_node(&candidate.node, |ages| {
                    ages.insert(age);
                });
            }
            return;
        }
        let age = self.next;
        self.next += 1;
        self.ages.insert(candidate.name.clone(), age);
        self.at_node(&candidate.node, |ages| {
            ages.insert(age);
        });
        self.by_age.insert(age, candidate);
    }

    fn remove(&mut self, name: &str) -> Option<Candidate> {
        let age = self.ages.remove(name)?;
        let candidate = self.by_age.remove(&age)?;
        self.at_node(&candidate.node, |ages| {
            ages.remove(&age);
        });
        Some(candidate)
    }

    /// Of the nodes with the most members the one with the oldest of these; without nodes the oldest member.
    fn pop(&mut self) -> Option<Candidate> {
        let age = match self.ranking.first() {
            Some((_, oldest, _)) => *oldest,
            None => *self.by_age.keys().next()?,
        };
        let name = self.by_age.get(&age)?.name.clone();
        self.remove(&name)
    }
}

/// The members of all pools.
#[derive(Debug, Default)]
pub(super) struct WarmQueue {
    pools: BTreeMap<Pool, Members>,
}

impl WarmQueue {
    /// Adds a member at the end; one that is there keeps its place and is told its node.
    pub(super) fn push(&mut self, pool: Pool, candidate: Candidate) {
        self.pools.entry(pool).or_default().push(candidate);
    }

    /// Takes the next member out.
    pub(super) fn pop(&mut self, pool: &Pool) -> Option<Candidate> {
        self.pools.get_mut(pool)?.pop()
    }

    /// Takes a member out that is no more.
    pub(super) fn remove(&mut self, pool: &Pool, name: &str) {
        if let Some(members) = self.pools.get_mut(pool) {
            members.remove(name);
        }
    }

    /// Forgets a pool.
    pub(super) fn forget(&mut self, pool: &Pool) {
        self.pools.remove(pool);
    }
}
