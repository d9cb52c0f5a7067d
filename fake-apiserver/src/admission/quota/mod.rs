//! `ResourceQuota`: what a namespace may use of things that can be counted, and what its quotas are charged.
//!
//! Upstream: `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`, `pkg/quota/v1/evaluator/core`.

mod evaluator;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

pub use self::evaluator::{Counted, replenishes};
use super::{Attributes, Operation, View};
use crate::base::{
    Object, Status, Stored,
    quantity::Quantity,
    value::{as_quantity, at, get, items, text, texts},
};

/// Amounts by the name of what is counted.
pub type Amounts = BTreeMap<String, Quantity>;

/// What a write makes of a quota.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The quota as it was looked at.
    pub quota: Arc<Stored>,
    /// Its `status.used` from now on.
    pub used: Amounts,
}

/// One selector of a quota's `scopes` and `scopeSelector`.
pub(super) struct Scope {
    pub(super) name: String,
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

fn scopes(quota: &Object) -> Vec<Scope> {
    let value = quota.to_value();
    let spec = get(&value, "spec");
    let plain = texts(spec, "scopes").into_iter().map(|name| Scope {
        name: name.into(),
        operator: "Exists".into(),
        values: Vec::new(),
    });
    let selected = items(get(spec, "scopeSelector"), "matchExpressions").iter().map(|expression| Scope {
        name: text(expression, "scopeName").into(),
        operator: text(expression, "operator").into(),
        values: texts(expression, "values").into_iter().map(str::to_owned).collect(),
    });
    plain.chain(selected).collect()
}

/// The amounts of a map.
fn amounts(map: &Value) -> Amounts {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(name, amount)| Some((name.clone(), as_quantity(amount)?))).collect()
}

/// Sums of amounts.
fn plus(mut sums: Amounts, amounts: &Amounts) -> Amounts {
    for (name, amount) in amounts {
        let sum = sums.get(name).map_or_else(|| amount.clone(), |sum| sum.plus(amount));
        sums.insert(name.clone(), sum);
    }
    sums
}

fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// What a write charges the quotas of its namespace; none where it uses nothing that they count.
///
/// # Errors
/// 403 where a quota would be exceeded, does not know its use yet, or asks for amounts that the object does not give.
pub fn charges(
    attributes: &Attributes<'_>,
    object: &Object,
    view: View<'_>,
    now: Timestamp,
) -> Result<Vec<Charge>, Status> {
    let counted = Counted::new(attributes.group, attributes.resource);
    if attributes.namespace.is_empty() || !counted.handles(attributes, object) {
        return Ok(Vec::new());
    }
    let forbidden =
        |why: &str| Status::forbidden(attributes.group, attributes.resource, attributes.shown_name(object), why);
    let mut concerned = Vec::new();
    for quota in view.list("resourcequotas", attributes.namespace) {
        let value = quota.to_value();
        let [hard, used] = ["hard", "used"].map(|key| amounts(at(&value, &["status", key])));
        let matching = counted.matching(hard.keys());
        if matching.is_empty() || !counted.in_scopes(&scopes(&quota), object) {
            continue;
        }
        if let Some(missing) = counted.missing(&matching, object) {
            return Err(forbidden(&format!("failed quota: {}: must specify {missing}", quota.name())));
        }
        if !matching.iter().all(|name| used.contains_key(name)) {
            let names = matching.join(",");
            return Err(forbidden(&format!("status unknown for quota: {}, resources: {names}", quota.name())));
        }
        concerned.push((quota, hard, used));
    }
    let usage = counted.usage(object, now);
    let mut charges = Vec::new();
    for (quota, hard, used) in concerned {
        let before = attributes.old.filter(|_| attributes.operation == Operation::Update);
        let mut wanted = match before.filter(|old| counted.in_scopes(&scopes(&quota), old)) {
            None => usage.clone(),
            Some(old) => {
                let had = counted.usage(old, now);
                let more = |(name, amount): (&String, &Quantity)| {
                    let more = had.get(name).map_or_else(|| amount.clone(), |had| amount.minus(had));
                    (name.clone(), more)
                };
                usage.iter().map(more).filter(|(_, amount)| !amount.is_negative()).collect()
            }
        };
        wanted.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
        let next = plus(used.clone(), &wanted);
        let over = |name: &String| hard.get(name).zip(next.get(name)).is_some_and(|(hard, next)| next > hard);
        let exceeded: Vec<&String> = wanted.keys().filter(|name| over(name)).collect();
        if !exceeded.is_empty() && attributes.subresource != "status" {
            let only = |amounts: &Amounts| {
                let kept = amounts.iter().filter(|(name, _)| exceeded.contains(name));
                shown(&kept.map(|(name, amount)| (name.clone(), amount.clone())).collect())
            };
            return Err(forbidden(&format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name(),
                only(&wanted),
                only(&used),
                only(&hard)
            )));
        }
        if !wanted.is_empty() {
            charges.push(Charge { quota, used: next });
        }
    }
    Ok(charges)
}

/// What is used of what a quota counts, given the objects of each resource (group, plural) that it counts.
pub fn usage(quota: &Object, objects: &BTreeMap<Counted, Vec<Arc<Stored>>>, now: Timestamp) -> Amounts {
    let hard = hard(quota);
    let scopes = scopes(quota);
    let mut sums = Amounts::new();
    for (counted, objects) in objects {
        let names = counted.matching(hard.keys());
        let mut sum: Amounts = names.into_iter().map(|name| (name, Quantity::zero())).collect();
        for object in objects.iter().filter(|object| counted.in_scopes(&scopes, object)) {
            let used = counted.usage(object, now);
            sum = plus(sum, &used);
        }
        sum.retain(|name, _| hard.contains_key(name));
        sums = plus(sums, &sum);
    }
    sums
}

/// What a quota's spec limits.
pub fn hard(quota: &Object) -> Amounts {
    quota.at(&["spec", "hard"]).map(amounts).unwrap_or_default()
}

#[cfg(test)]
mod tests;
