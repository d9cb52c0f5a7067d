//! Runs scenarios on a target, several at a time, each on a thread with a runtime of its own, so that time stands still
//! for those of the in-memory fake alone.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::sync::watch;

use crate::{Feature, Scenario, Target, progress::Progress, scenarios::Skip};

/// Breaks scenarios off. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self::never()
    }
}

impl Stop {
    /// One that only [`now`](Self::now) sets off.
    pub fn never() -> Self {
        Self(watch::Sender::new(false))
    }

    /// One that SIGINT and SIGTERM set off, once; the second signal ends the process as it always does.
    ///
    /// # Errors
    /// If signals cannot be listened for.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let stop = Self::never();
        let heard = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::spawn(move || {
            runtime.block_on(async {
                for again in [false, true] {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if again {
                        eprintln!("stopped at once, without tidying up");
                        std::process::exit(130);
                    }
                    eprintln!("breaking off and tidying up; once more to stop at once");
                    heard.now();
                }
            });
        });
        Ok(stop)
    }

    /// Sets it off.
    pub fn now(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is set off.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn stopped(&self) {
        let mut set = self.0.subscribe();
        let _ = set.wait_for(|set| *set).await; // this value holds the sender
    }
}

/// How one scenario went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it claims.
    Passed,
    /// Not run: what is missing.
    Skipped(String),
    /// Another way: the error, and what there was in its namespace then.
    Failed(String),
}

/// One scenario's outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// How long it took, by the wall clock.
    pub took: Duration,
    /// What it did, with the time since it began.
    pub steps: Vec<(Duration, String)>,
}

/// All outcomes on a target.
#[derive(Clone, Debug)]
pub struct Run {
    /// The target's name.
    pub target: String,
    /// In the order of the list.
    pub outcomes: Vec<Outcome>,
    /// How long all of it took, by the wall clock.
    pub took: Duration,
    /// Whether it was broken off.
    pub interrupted: bool,
}

impl Run {
    /// Whether nothing failed and nothing was left out by a break.
    pub fn is_good(&self) -> bool {
        !self.interrupted && self.failures().next().is_none()
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = (&Outcome, &str)> {
        self.outcomes.iter().filter_map(|outcome| match &outcome.verdict {
            Verdict::Failed(why) => Some((outcome, why.as_str())),
            Verdict::Passed | Verdict::Skipped(_) => None,
        })
    }
}

/// Runs scenarios on a target. Its `stop` ends it early: what runs is broken off and tidied up, the rest is left out.
pub fn run(target: &Target, scenarios: &[Scenario], progress: &Progress) -> Run {
    let stop = target.stop();
    let begun = Instant::now();
    let queue: Mutex<VecDeque<(usize, Scenario)>> = Mutex::new(scenarios.iter().copied().enumerate().collect());
    let done: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let next = || queue.lock().expect("no panic under this lock").pop_front();
    let work = || {
        while let Some((place, scenario)) = next() {
            if stop.is_set() {
                return;
            }
            let outcome = one(target, scenario, progress);
            progress.ended(&outcome);
            done.lock().expect("no panic under this lock").push((place, outcome));
        }
    };
    thread::scope(|scope| {
        for _ in 0..target.jobs().min(scenarios.len()) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("no panic under this lock");
    done.sort_by_key(|(place, _)| *place);
    let outcomes = done.into_iter().map(|(_, outcome)| outcome).collect();
    Run { target: target.name().to_owned(), outcomes, took: begun.elapsed(), interrupted: stop.is_set() }
}

fn one(target: &Target, scenario: Scenario, progress: &Progress) -> Outcome {
    let Scenario { name, needs, story } = scenario;
    let missing: Vec<String> = needs.iter().filter(|need| !target.has(**need)).map(Feature::to_string).collect();
    if !missing.is_empty() {
        let why = format!("the target has no {}", missing.join(" and no "));
        return Outcome { name, verdict: Verdict::Skipped(why), took: Duration::ZERO, steps: Vec::new() };
    }
    let begun = Instant::now();
    let steps = progress.steps(name);
    let ran = catch_unwind(AssertUnwindSafe(|| target.run(steps, async |world| story(world).await)));
    let (result, steps) = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        (Err(anyhow::anyhow!("the scenario panicked: {text}")), Vec::new())
    });
    Outcome { name, verdict: verdict(result), took: begun.elapsed(), steps }
}

fn verdict(result: Result<()>) -> Verdict {
    match result {
        Ok(()) => Verdict::Passed,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(why)) => Verdict::Skipped(why.clone()),
            None => Verdict::Failed(format!("{error:#}")),
        },
    }
}
