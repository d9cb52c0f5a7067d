//! The program `e2e`: runs scenarios on a target, sets a minikube up and takes it down, compares two targets.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::{
    Scenario, Target, fidelity, migration,
    progress::Progress,
    report,
    runner::{self, Stop},
    scenarios,
    setup::{self, Down, Up},
    target::{TargetKind, TargetOptions},
};

/// Exit status of a run that could not begin.
const MISUSE: u8 = 2;

/// Exit status of a run that was broken off.
const BROKEN_OFF: u8 = 130;

/// Scenarios of Agent Sandbox, from the laptop's memory to minikube with gVisor.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the scenarios on a target.
    Run(RunOptions),
    /// Lists the scenarios, and what each needs.
    List,
    /// Sets up a minikube with gVisor, the controller and the manifests; to be run again if it was broken off.
    MinikubeUp(Up),
    /// Takes down what minikube-up has made.
    MinikubeDown(Down),
    /// Runs conformance cases and scenarios on two targets, and prints where they differ, as Markdown.
    Fidelity(fidelity::Options),
    /// Looks at sandboxes that are bare pods (Phase 1), and says what each would become as a Sandbox and what would not be as
    /// it was; changes nothing.
    Migration(migration::Options),
}

#[derive(Args, Clone, Debug)]
struct RunOptions {
    /// memory, https, processes, outside, kube-apiserver (KUBEBUILDER_ASSETS), kubeconfig, k3s (Docker) or minikube.
    #[arg(long, env = "E2E_TARGET", default_value = "memory")]
    target: TargetKind,
    /// Only scenarios whose name has this in it; may be given again.
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// How many scenarios at a time; by default as many as the target stands.
    #[arg(long)]
    jobs: Option<usize>,
    /// The kubeconfig's context, for kubeconfig and minikube.
    #[arg(long)]
    context: Option<String>,
    /// File for JUnit's XML.
    #[arg(long, value_name = "FILE", env = "E2E_JUNIT")]
    junit: Option<PathBuf>,
    /// File for a report in Markdown.
    #[arg(long, value_name = "FILE", env = "E2E_REPORT")]
    report: Option<PathBuf>,
    /// No steps, the table alone.
    #[arg(long)]
    quiet: bool,
}

/// Runs the program with the arguments of the process. As `e2e fake-apiserver …` it is that program, and as
/// `e2e agent-sandbox-provider …` that one: targets and scenarios with other processes start them so.
pub fn main() -> ExitCode {
    let arguments = || env::args_os().skip(1);
    match arguments().next().as_ref().and_then(|first| first.to_str()) {
        Some("fake-apiserver") => return fake_apiserver::cli::main_with(arguments()),
        Some("agent-sandbox-provider") => return agent_sandbox_provider::serve::main_with(arguments()),
        _ => {}
    }
    let cli = Cli::parse();
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot listen for signals")),
    };
    let done = match &cli.command {
        Command::Run(options) => run(options, &stop),
        Command::List => list(),
        Command::MinikubeUp(options) => setup::up(options, &stop).map(|()| ExitCode::SUCCESS),
        Command::MinikubeDown(options) => setup::down(options, &stop).map(|()| ExitCode::SUCCESS),
        Command::Fidelity(options) => fidelity::run(options, &stop),
        Command::Migration(options) => migration::run(options, &stop),
    };
    match done {
        Ok(_) if stop.is_set() => ExitCode::from(BROKEN_OFF),
        Ok(code) => code,
        Err(error) if stop.is_set() => {
            fail(&error);
            ExitCode::from(BROKEN_OFF)
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("e2e: {error:#}");
    ExitCode::from(MISUSE)
}

/// The scenarios whose names have one of the parts in them; all without parts.
///
/// # Errors
/// If there are none.
pub(crate) fn chosen(parts: &[String]) -> Result<Vec<Scenario>> {
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()));
    let chosen: Vec<Scenario> = scenarios::ALL.iter().copied().filter(|scenario| wanted(scenario.name)).collect();
    if chosen.is_empty() {
        bail!("no scenario has {} in its name; `e2e list` prints them", parts.join(" or "));
    }
    Ok(chosen)
}

fn run(options: &RunOptions, stop: &Stop) -> Result<ExitCode> {
    let chosen = chosen(&options.filter)?;
    let wanted = TargetOptions { context: options.context.clone(), stop: stop.clone(), ..TargetOptions::default() };
    let mut target = Target::open(options.target, &wanted)?;
    if let Some(jobs) = options.jobs {
        target = target.with_jobs(jobs);
    }
    let progress = if options.quiet { Progress::Silent } else { Progress::of_stderr() };
    let run = runner::run(&target, &chosen, &progress);
    eprint!("{}", report::failures(&run));
    print!("{}", report::table(&run));
    write(options.junit.as_deref(), || report::junit(&run))?;
    write(options.report.as_deref(), || report::markdown(&run))?;
    Ok(if run.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, text()).with_context(|| format!("cannot write {}", path.display()))
}

fn list() -> Result<ExitCode> {
    for Scenario { name, needs, .. } in scenarios::ALL {
        let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
        println!("{name}{}{}", if needs.is_empty() { "" } else { "  needs " }, needs.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
