//! Two targets side by side: which scenarios go another way.

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{
    Target, cli,
    progress::Progress,
    runner::{self, Outcome, Run, Stop, Verdict},
    target::{TargetKind, TargetOptions},
};

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The one.
    #[arg(long, default_value = "memory")]
    one: TargetKind,
    /// The other.
    #[arg(long, default_value = "kube-apiserver")]
    other: TargetKind,
    /// Only scenarios whose name has this in it; may be given again.
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// File for the table; stdout by default.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the scenarios on both.
///
/// # Errors
/// If a target cannot be had.
pub fn run(options: &Options, stop: &Stop) -> Result<ExitCode> {
    let chosen = cli::chosen(&options.filter)?;
    let wanted = TargetOptions { stop: stop.clone(), ..TargetOptions::default() };
    let on = |kind| -> Result<Run> { Ok(runner::run(&Target::open(kind, &wanted)?, &chosen, &Progress::of_stderr())) };
    let (one, other) = (on(options.one)?, on(options.other)?);
    let table = table(&one, &other);
    match &options.report {
        Some(path) => cli::write(Some(path), || table.clone())?,
        None => print!("{table}"),
    }
    Ok(if differences(&one, &other).next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Scenarios that passed on one target and failed on the other. What a target cannot run is no difference.
fn differences<'a>(one: &'a Run, other: &'a Run) -> impl Iterator<Item = (&'a Outcome, &'a Outcome)> {
    let pairs = one
        .outcomes
        .iter()
        .filter_map(|first| Some((first, other.outcomes.iter().find(|second| second.name == first.name)?)));
    pairs.filter(|(first, second)| {
        matches!(
            (&first.verdict, &second.verdict),
            (Verdict::Passed, Verdict::Failed(_)) | (Verdict::Failed(_), Verdict::Passed)
        )
    })
}

/// The comparison as Markdown.
pub fn table(one: &Run, other: &Run) -> String {
    let mut text = format!("| scenario | {} | {} |\n|---|---|---|\n", one.target, other.target);
    let shown = |outcome: &Outcome| match &outcome.verdict {
        Verdict::Passed => "passes",
        Verdict::Skipped(_) => "not run",
        Verdict::Failed(_) => "**fails**",
    };
    for first in &one.outcomes {
        let second = other.outcomes.iter().find(|second| second.name == first.name);
        let second = second.map_or("not run", shown);
        let _ = writeln!(text, "| `{}` | {} | {second} |", first.name, shown(first));
    }
    let ran = |run: &Run, name: &str| {
        run.outcomes.iter().any(|one| one.name == name && !matches!(one.verdict, Verdict::Skipped(_)))
    };
    let both = one.outcomes.iter().filter(|first| ran(one, first.name) && ran(other, first.name)).count();
    let count = differences(one, other).count();
    let _ = writeln!(text, "\nOf {both} scenarios that ran on both, {count} differ.");
    for (first, second) in differences(one, other) {
        for (run, outcome) in [(one, first), (other, second)] {
            if let Verdict::Failed(why) = &outcome.verdict {
                let _ = writeln!(
                    text,
                    "\n`{}` on {}: {}",
                    outcome.name,
                    run.target,
                    why.lines().next().unwrap_or_default()
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_passes_on_one_and_fails_on_the_other_differs_and_what_is_left_out_does_not() {
        let run = |target: &str, verdicts: [Verdict; 3]| {
            let names = ["a::same", "a::other", "a::left_out"];
            let outcomes = names.into_iter().zip(verdicts).map(|(name, verdict)| Outcome {
                name,
                verdict,
                took: Duration::from_millis(20),
                steps: Vec::new(),
            });
            Run { target: target.into(), outcomes: outcomes.collect(), took: Duration::ZERO, interrupted: false }
        };
        let one = run("memory", [Verdict::Passed, Verdict::Passed, Verdict::Skipped("none".into())]);
        let other = run("real", [Verdict::Passed, Verdict::Failed("it is red\nthere was".into()), Verdict::Passed]);
        let text = table(&one, &other);
        assert!(text.contains("| `a::other` | passes | **fails** |"), "{text}");
        assert!(text.contains("Of 2 scenarios that ran on both, 1 differ."), "{text}");
        assert!(text.ends_with("`a::other` on real: it is red\n"), "{text}");
    }
}
