//! What the controllers count and time, by upstream's names.
//!
//! Values, not text: whoever serves `/metrics` writes them out. Upstream: `internal/metrics`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    keys::{CREATED_BY, EXTENSIONS_GROUP, LAUNCH_TYPE, TEMPLATE_REF, sandboxes},
    metadata::known_creator,
};
use crate::{
    actor::Api,
    base::{Object, Status, Stored, names::split_api_version},
};

/// Upper ends, in milliseconds, of the buckets of a claim's start.
const STARTUP: &[u32] =
    &[100, 250, 500, 750, 1000, 1250, 1500, 2000, 2500, 5000, 10000, 30000, 60000, 120_000, 240_000];
/// Upper ends, in milliseconds, of the buckets of a Sandbox's creation.
const CREATION: &[u32] =
    &[50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120_000, 240_000, 300_000, 600_000];

/// Label values, in the order of the family's label names.
type Values = Vec<String>;

/// A family of measurements as Prometheus has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// The measurements, by label values.
    pub samples: Samples,
}

/// The measurements of a family.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Counts that only grow.
    Counter(BTreeMap<Values, u64>),
    /// Counts of the moment.
    Gauge(BTreeMap<Values, u64>),
    /// Times in milliseconds.
    Histogram(BTreeMap<Values, Histogram>),
}

/// Times by bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper end of each bucket, and how many times are no longer than that.
    pub buckets: Vec<(u32, u64)>,
    /// How many times there are.
    pub count: u64,
    /// Their sum, in milliseconds.
    pub sum: f64,
}

impl Histogram {
    fn observe(&mut self, bounds: &[u32], time: Duration) {
        if self.buckets.is_empty() {
            self.buckets = bounds.iter().map(|bound| (*bound, 0)).collect();
        }
        let millis = time.as_secs_f64() * 1000.0;
        for (bound, count) in &mut self.buckets {
            if millis <= f64::from(*bound) {
                *count += 1;
            }
        }
        self.count += 1;
        self.sum += millis;
    }
}

/// What is timed when a claim is first ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latency {
    /// Since a webhook saw the claim; only claims that one annotated have it.
    Claim,
    /// Since the controller saw the claim.
    Controller,
    /// Since the client says that it asked.
    Client,
    /// From a Sandbox's creation until it was ready.
    Creation,
}

impl Latency {
    const ALL: [Self; 4] = [Self::Client, Self::Controller, Self::Claim, Self::Creation];

    fn name(self) -> &'static str {
        match self {
            Self::Claim => "agent_sandbox_claim_startup_latency_ms",
            Self::Controller => "agent_sandbox_claim_controller_startup_latency_ms",
            Self::Client => "agent_sandbox_client_claim_startup_latency_ms",
            Self::Creation => "agent_sandbox_creation_latency_ms",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Claim => "End-to-end latency from SandboxClaim creation to Sandbox Ready state in milliseconds.",
            Self::Controller => {
                "Latency from controller first observed SandboxClaim to Sandbox Ready state in milliseconds."
            }
            Self::Client => {
                "End-to-end latency from client request to SandboxClaim Ready state in milliseconds. Note: This metric \
                 may be affected by clock skew between the client and controller."
            }
            Self::Creation => {
                "Latency from Sandbox creation to Pod Ready state in milliseconds. For warm launches, this measures \
                 controller synchronization overhead since the Pod is pre-provisioned."
            }
        }
    }

    fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Claim | Self::Controller | Self::Client => &["launch_type", "sandbox_template"],
            Self::Creation => &["namespace", "launch_type", "sandbox_template"],
        }
    }

    fn bounds(self) -> &'static [u32] {
        if self == Self::Creation { CREATION } else { STARTUP }
    }
}

/// What is counted once for each claim that gets a Sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimCreation {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the template.
    pub sandbox_template: String,
    /// `warm` or `cold`.
    pub launch_type: String,
    /// Name of the pool.
    pub warmpool_name: String,
    /// Whether the pod was `ready` then, or `not_ready`.
    pub pod_condition: String,
    /// Who made the claim.
    pub created_by: String,
}

/// What the controllers have counted and timed so far; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    claims: BTreeMap<Values, u64>,
    times: BTreeMap<Latency, BTreeMap<Values, Histogram>>,
}

impl Metrics {
    /// Counts a claim that got a Sandbox.
    pub fn claim_created(&self, claim: ClaimCreation) {
        let ClaimCreation { namespace, sandbox_template, launch_type, warmpool_name, pod_condition, created_by } =
            claim;
        let created_by = known_creator(&created_by).to_owned();
        let key = vec![namespace, sandbox_template, launch_type, warmpool_name, pod_condition, created_by];
        *self.0.lock().expect("no panic under this lock").claims.entry(key).or_default() += 1;
    }

    /// Records a time, under the values of [`Latency`]'s labels: launch type and template, for a Sandbox's creation after
    /// the namespace.
    pub fn took(&self, latency: Latency, labels: &[&str], time: Duration) {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let mut recorded = self.0.lock().expect("no panic under this lock");
        recorded.times.entry(latency).or_default().entry(labels).or_default().observe(latency.bounds(), time);
    }

    /// All families that have measurements, by name; the Sandboxes are counted now.
    ///
    /// # Errors
    /// If the Sandboxes cannot be listed.
    pub async fn families(&self, api: &Api) -> Result<Vec<Family>, Status> {
        let (list, _) = api.list(&sandboxes(), "", "").await?;
        let mut families = vec![count(list.iter().map(|sandbox| Stored::object(sandbox))), build_info()];
        let recorded = self.0.lock().expect("no panic under this lock");
        families.push(Family {
            name: "agent_sandbox_claim_creation_total",
            help: "Total number of SandboxClaims created, labeled by namespace, sandbox template, launch type, warmpool \
                   name, pod condition, and created_by.",
            labels: &["namespace", "sandbox_template", "launch_type", "warmpool_name", "pod_condition", "created_by"],
            samples: Samples::Counter(recorded.claims.clone()),
        });
        families.extend(Latency::ALL.into_iter().map(|latency| Family {
            name: latency.name(),
            help: latency.help(),
            labels: latency.labels(),
            samples: Samples::Histogram(recorded.times.get(&latency).cloned().unwrap_or_default()),
        }));
        families.retain(|family| match &family.samples {
            Samples::Counter(samples) | Samples::Gauge(samples) => !samples.is_empty(),
            Samples::Histogram(samples) => !samples.is_empty(),
        });
        families.sort_by_key(|family| family.name);
        Ok(families)
    }
}

/// Families as a text that Prometheus reads.
pub fn metrics_text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, help, labels, samples } in families {
        let kind = match samples {
            Samples::Counter(_) => "counter",
            Samples::Gauge(_) => "gauge",
            Samples::Histogram(_) => "histogram",
        };
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        match samples {
            Samples::Counter(counts) | Samples::Gauge(counts) => {
                for (values, count) in counts {
                    let _ = writeln!(out, "{name}{} {count}", pairs(labels, values, None));
                }
            }
            Samples::Histogram(times) => {
                for (values, Histogram { buckets, count, sum }) in times {
                    let ends = buckets.iter().map(|(end, count)| (end.to_string(), *count));
                    for (end, count) in ends.chain([("+Inf".to_owned(), *count)]) {
                        let _ = writeln!(out, "{name}_bucket{} {count}", pairs(labels, values, Some(&end)));
                    }
                    let _ = writeln!(out, "{name}_sum{0} {sum}\n{name}_count{0} {count}", pairs(labels, values, None));
                }
            }
        }
    }
    out
}

/// Labels in the order of their names, as client libraries write them; the bucket's end comes last.
fn pairs(names: &[&str], values: &[String], end: Option<&str>) -> String {
    let quoted = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let mut pairs: Vec<_> =
        names.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    pairs.sort();
    pairs.extend(end.map(|end| format!("le=\"{end}\"")));
    format!("{{{}}}", pairs.join(","))
}

/// What is emulated; what only a build of upstream's knows is `unknown`, as in a build of upstream's that was told nothing.
fn build_info() -> Family {
    let version = super::system::IMAGE.rsplit_once(':').map_or("unknown", |(_, tag)| tag);
    let values = [version, "unknown", "unknown", "unknown", "gc", "linux/amd64"].map(str::to_owned).to_vec();
    Family {
        name: "agent_sandbox_build_info",
        help: "Agent sandbox controller build metadata exposed as labels with a constant value of 1.",
        labels: &["git_version", "git_commit", "build_date", "go_version", "compiler", "platform"],
        samples: Samples::Gauge(BTreeMap::from([(values, 1)])),
    }
}

/// How many Sandboxes there are of each sort.
fn count<'a>(sandboxes: impl Iterator<Item = &'a Object>) -> Family {
    let mut counts: BTreeMap<Values, u64> = BTreeMap::new();
    for sandbox in sandboxes {
        *counts.entry(sort_of(sandbox)).or_default() += 1;
    }
    Family {
        name: "agent_sandboxes",
        help: "Monitor the point-in-time number of sandboxes in the cluster.",
        labels: &[
            "namespace",
            "ready_condition",
            "expired",
            "launch_type",
            "sandbox_template",
            "owned_by",
            "created_by",
        ],
        samples: Samples::Gauge(counts),
    }
}

fn sort_of(sandbox: &Object) -> Values {
    let conditions = sandbox.at(&["status", "conditions"]).and_then(serde_json::Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let is = |member: &str, value: &str| ready.is_some_and(|condition| condition[member] == value).to_string();
    let owner = sandbox.controller().filter(|owner| {
        split_api_version(&owner.api_version).0 == EXTENSIONS_GROUP
            && ["SandboxClaim", "SandboxWarmPool"].contains(&owner.kind.as_str())
    });
    let template = sandbox.annotation(TEMPLATE_REF).filter(|template| !template.is_empty());
    vec![
        sandbox.namespace().into(),
        is("status", "True"),
        is("reason", "SandboxExpired"),
        if sandbox.label(LAUNCH_TYPE) == Some("warm") { "warm" } else { "cold" }.into(),
        template.unwrap_or("unknown").into(),
        owner.map_or_else(|| "None".into(), |owner| owner.kind),
        sandbox.label(CREATED_BY).map_or("unknown", known_creator).into(),
    ]
}

#[cfg(test)]
mod tests;
