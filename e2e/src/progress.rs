//! What is seen while scenarios run: lines that change on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
    sync::{Arc, Mutex},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    runner::{Outcome, Verdict},
    world::Steps,
};

/// Where progress is shown.
#[derive(Clone)]
pub enum Progress {
    /// Nowhere: the outcome says all.
    Silent,
    /// A line on stderr for each step.
    Lines,
    /// A line on the terminal for each scenario that runs.
    Terminal(MultiProgress, Arc<Mutex<BTreeMap<&'static str, ProgressBar>>>),
}

impl Progress {
    /// As stderr is a terminal or not.
    pub fn of_stderr() -> Self {
        match stderr().is_terminal() {
            true => Self::Terminal(MultiProgress::new(), Arc::default()),
            false => Self::Lines,
        }
    }

    /// The steps of a scenario that begins.
    pub(crate) fn steps(&self, name: &'static str) -> Steps {
        match self {
            Self::Silent => Steps::new(|_| {}),
            Self::Lines => Steps::new(move |step| eprintln!("{name}: {step}")),
            Self::Terminal(all, bars) => {
                let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})");
                let bar = all.add(ProgressBar::new_spinner().with_prefix(name));
                bar.set_style(style.expect("a constant template"));
                bar.enable_steady_tick(Duration::from_millis(120));
                bars.lock().expect("no panic under this lock").insert(name, bar.clone());
                Steps::new(move |step| bar.set_message(step.to_owned()))
            }
        }
    }

    /// Says how a scenario ended.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        let Outcome { name, verdict, took, .. } = outcome;
        let line = match verdict {
            Verdict::Passed => format!("passed   {name} ({} ms)", took.as_millis()),
            Verdict::Skipped(why) => format!("skipped  {name}: {why}"),
            Verdict::Failed(why) => format!("FAILED   {name}: {}", why.lines().next().unwrap_or_default()),
        };
        match self {
            Self::Silent => {}
            Self::Lines => eprintln!("{line}"),
            Self::Terminal(all, bars) => {
                if let Some(bar) = bars.lock().expect("no panic under this lock").remove(name) {
                    bar.finish_and_clear();
                }
                let _ = all.println(line); // the terminal has gone
            }
        }
    }
}
