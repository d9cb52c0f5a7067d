//! Rules drawn by chance.

use std::time::Duration;

use super::{Failure, Rule};
use crate::ids::Ids;

/// A fault, and the greatest part of matches that it hits, in thousandths.
type Fault = (fn(&Ids) -> Rule, u64);

/// What may go wrong in a storm.
const WEATHER: [Fault; 12] = [
    (|_| Rule::fail(Failure::of(409)).verbs(["update", "patch"]), 150),
    (|ids| Rule::fail(Failure::of(429).retry_after(1 + below(ids, 3))), 60),
    (|_| Rule::fail(Failure::of(500)), 60),
    (|_| Rule::fail(Failure::of(503)), 60),
    (|_| Rule::fail(Failure::of(504).late()), 60),
    (|_| Rule::drop_connection(false), 40),
    (|_| Rule::drop_connection(true), 40),
    (|ids| Rule::delay(Duration::from_millis(1 + ids.below(2000))), 200),
    (|_| Rule::compact(), 40),
    (|ids| Rule::cut_watch(ids.below(5)), 300),
    (|ids| Rule::expire_watch(ids.below(5)), 200),
    (|ids| Rule::break_watch(ids.below(5)), 100),
];

fn below(ids: &Ids, bound: u32) -> u32 {
    u32::try_from(ids.below(u64::from(bound))).unwrap_or_default()
}

impl Rule {
    /// Some rules, drawn from a seed, that each hit a small part of all requests or watches: conflicts, errors with and
    /// without effect, lost connections, delays, cut and expired watches, compactions. The same seed gives the same rules;
    /// print them, and a failure can be replayed from what was printed.
    pub fn storm(seed: u64) -> Vec<Self> {
        let ids = Ids::seeded(seed ^ 0x0057_0a11);
        let mut rules = Vec::new();
        for (make, most) in WEATHER {
            let rule = make(&ids);
            let part = 1 + ids.below(most);
            if ids.below(2) == 0 {
                rules.push(rule.probability(part as f64 / 1000.0));
            }
        }
        rules
    }
}
