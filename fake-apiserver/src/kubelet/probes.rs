//! Startup, readiness and liveness probes of a container: when they are asked, and what comes of the answers.
//!
//! Upstream: `pkg/kubelet/prober/prober.go`, `worker.go`.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    handler::{Handler, Patient},
    script::{Failing, Script},
};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl Purpose {
    pub(super) const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Readiness => "readinessProbe",
            Self::Liveness => "livenessProbe",
        }
    }

    /// As events begin.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What a probe has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It has succeeded often enough.
    Passed,
    /// It failed: what it said, and whether it has failed often enough.
    Failed { output: String, enough: bool },
}

/// A finding about a run of a container.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) purpose: Purpose,
    pub(super) finding: Finding,
    /// How long the container has to end if it has to.
    pub(super) grace: Option<u64>,
}

/// A probe of a container.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) purpose: Purpose,
    handler: Handler,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u64,
    failures: u64,
    grace: Option<u64>,
    failing: Option<Failing>,
}

impl Probe {
    /// A container's probe for a purpose, if it has one.
    pub(super) fn of(container: &Value, purpose: Purpose, script: &Script) -> Option<Self> {
        let probe = container.get(purpose.field()).filter(|probe| !probe.is_null())?;
        let number = |field: &str, default: u64| probe.get(field).and_then(Value::as_u64).unwrap_or(default);
        let handler = Handler::of(probe, container)?;
        let seconds = |field: &str, default: u64| Duration::from_secs(number(field, default));
        Some(Self {
            purpose,
            handler,
            delay: seconds("initialDelaySeconds", 0),
            period: seconds("periodSeconds", 10).max(Duration::from_secs(1)),
            timeout: seconds("timeoutSeconds", 1).max(Duration::from_secs(1)),
            successes: number("successThreshold", 1).max(1),
            failures: number("failureThreshold", 3).max(1),
            grace: probe.get("terminationGracePeriodSeconds").and_then(Value::as_u64),
            failing: script.probes.get(&purpose.word().to_lowercase()).cloned(),
        })
    }

    /// Probes a run of a container until it ends, or until nothing can change any more.
    pub(super) async fn run(self, name: String, id: String, patient: Patient, report: mpsc::UnboundedSender<Probed>) {
        let (control, clock) = (patient.instance.control.clone(), patient.clock.clone());
        let probing = async {
            let start = clock.now();
            clock.sleep(self.delay).await;
            let (mut good, mut bad) = (0, 0);
            loop {
                let age = Duration::try_from(clock.now().duration_since(start)).unwrap_or_default();
                let finding = match self.ask(&patient, age).await {
                    Ok(()) => {
                        (good, bad) = (good + 1, 0);
                        (good == self.successes).then_some(Finding::Passed)
                    }
                    Err(output) => {
                        (good, bad) = (0, bad + 1);
                        Some(Finding::Failed { output, enough: bad >= self.failures })
                    }
                };
                let enough = matches!(finding, Some(Finding::Failed { enough: true, .. }));
                let passed = good >= self.successes;
                if let Some(finding) = finding {
                    let (name, id) = (name.clone(), id.clone());
                    let _ = report.send(Probed { name, id, purpose: self.purpose, finding, grace: self.grace }); // the worker is gone: nobody asks
                }
                // After the first success a startup probe is done; after too many failures the container is.
                let over = match self.purpose {
                    Purpose::Startup => passed || enough,
                    Purpose::Liveness => enough,
                    Purpose::Readiness => false,
                };
                let settled = passed && self.handler.passes(&patient) && !self.may_fail_after(age);
                if over || settled {
                    return;
                }
                clock.sleep(self.period).await;
            }
        };
        tokio::select! {
            biased;
            _ = control.wait() => {}
            () = probing => {}
        }
    }

    fn fails_at(&self, age: Duration) -> bool {
        self.failing.as_ref().is_some_and(|failing| {
            let from = failing.after.unwrap_or_default();
            age >= from && failing.lasting.is_none_or(|lasting| age < from.saturating_add(lasting))
        })
    }

    fn may_fail_after(&self, age: Duration) -> bool {
        self.failing.as_ref().is_some_and(|failing| {
            let from = failing.after.unwrap_or_default();
            failing.lasting.is_none_or(|lasting| age < from.saturating_add(lasting))
        })
    }

    /// Asks once; what is said if the answer is bad.
    async fn ask(&self, patient: &Patient, age: Duration) -> Result<(), String> {
        if self.fails_at(age) {
            return Err(self.handler.refusal().into());
        }
        self.handler.run(patient, Some(self.timeout), true).await
    }
}
