//! The command line: `serve` until a signal comes, or `run` a command against a cluster of its own.

mod controllers;
mod record;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use clap::{ArgAction, Args, Parser, Subcommand};
use jiff::SignedDuration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    base::gaps::{GAPS, Gap},
    cluster::Cluster,
    sandbox,
};

/// Exit status when the cluster cannot start.
const MISUSE: u8 = 2;

/// A Kubernetes API server in a process, with a simulated kubelet and the Agent Sandbox controllers.
#[derive(Debug, Parser)]
#[command(name = "fake-apiserver", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves until SIGINT or SIGTERM; prints `ready URL kubeconfig FILE` when it may be used.
    Serve(Options),
    /// Runs the Agent Sandbox controllers and the kubelet against another API server, until SIGINT or SIGTERM.
    Controllers(controllers::Options),
    /// Prints what the real API server has and this one does not, and what happens instead.
    Gaps,
    /// Passes requests on to a real cluster, and writes a transcript of them that can be replayed; until SIGINT or SIGTERM.
    Record(record::Options),
    /// Serves while a command runs with KUBECONFIG set, and exits with the command's status.
    Run {
        #[command(flatten)]
        options: Options,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Args, Clone, Debug)]
struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// File to write the kubeconfig to; a temporary one by default, removed at the end.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A bearer token to accept, for a user of system:masters.
    #[arg(long)]
    token: Option<String>,
    /// Seed of UIDs, generated names and all other chance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// No node and no kubelet: pods stay Pending.
    #[arg(long)]
    no_kubelet: bool,
    /// No Agent Sandbox controllers.
    #[arg(long)]
    no_sandbox_controllers: bool,
    #[command(flatten)]
    sandbox: SandboxFlags,
    /// Containers are real, isolated processes of this machine.
    #[arg(long)]
    real_processes: bool,
    /// Time stands still until `POST /fake.agent-sandbox/v1/clock/advance` moves it.
    #[arg(long)]
    virtual_time: bool,
}

/// Flags of upstream's agent-sandbox-controller, by their names there.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Agent Sandbox controllers")]
struct SandboxFlags {
    /// What the names of Services end in.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// How long a change of a running pod's metadata waits for others, one second at most.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    sandbox_write_behind_window: Duration,
    /// Claims are served without telling of it in events.
    #[arg(long, default_value_t = false, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_claim_events: bool,
    /// Claims do not say when they were first seen.
    #[arg(long, default_value_t = false, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_claim_observability_annotations: bool,
    /// A cluster autoscaler may evict the members of pools.
    #[arg(long, default_value_t = true, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_warm_pool_eviction: bool,
    /// How many members one pass over a pool creates or deletes at most.
    #[arg(long, value_name = "NUMBER", default_value = "300")]
    sandbox_warm_pool_max_batch_size: NonZeroUsize,
    /// How long after members of a pool were taken new ones are made.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    sandbox_warm_pool_replenish_delay: Duration,
    /// How many members a pool makes per second at most; 0 for any number.
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = rate)]
    sandbox_warm_pool_max_refill_rate: f64,
    /// How long a member of a pool may take to become ready before it is replaced.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = positive_duration)]
    sandbox_warm_pool_readiness_grace_period: Duration,
    /// How many Sandboxes are looked at at a time.
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    sandbox_concurrent_workers: NonZeroUsize,
    /// How many claims are looked at at a time.
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    sandbox_claim_concurrent_workers: NonZeroUsize,
    /// How many pools are looked at at a time.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    sandbox_warm_pool_concurrent_workers: NonZeroUsize,
    /// How many templates are looked at at a time.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    sandbox_template_concurrent_workers: NonZeroUsize,
    /// How often a pool is looked at that holds members which cannot be scheduled.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = positive_duration)]
    sandbox_warm_pool_unschedulable_recheck_interval: Duration,
}

impl SandboxFlags {
    fn settings(self) -> sandbox::Settings {
        sandbox::Settings {
            cluster_domain: self.cluster_domain,
            sandbox_write_behind_window: self.sandbox_write_behind_window,
            disable_claim_events: self.disable_claim_events,
            disable_claim_observability_annotations: self.disable_claim_observability_annotations,
            warm_pools: sandbox::PoolSettings {
                enable_warm_pool_eviction: self.enable_warm_pool_eviction,
                max_batch_size: self.sandbox_warm_pool_max_batch_size.get(),
                replenish_delay: self.sandbox_warm_pool_replenish_delay,
                max_refill_rate: self.sandbox_warm_pool_max_refill_rate,
                readiness_grace_period: self.sandbox_warm_pool_readiness_grace_period,
                unschedulable_recheck_interval: self.sandbox_warm_pool_unschedulable_recheck_interval,
            },
            workers: sandbox::Workers {
                sandboxes: self.sandbox_concurrent_workers,
                claims: self.sandbox_claim_concurrent_workers,
                warm_pools: self.sandbox_warm_pool_concurrent_workers,
                templates: self.sandbox_template_concurrent_workers,
            },
            ..sandbox::Settings::default()
        }
    }
}

/// A duration as Go writes them: `90s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = if text == "0" { Ok(SignedDuration::ZERO) } else { text.parse::<SignedDuration>() };
    let duration = parsed.map_err(|error| error.to_string())?;
    Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())
}

/// A number per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if rate.is_finite() && rate >= 0.0 { Ok(rate) } else { Err("must be a finite number, 0 or more".to_owned()) }
}

/// As [`duration`], more than none.
fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be a positive duration".to_owned()),
        duration => Ok(duration),
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Runs the program with these arguments, of which the first is its name: for programs that hold this one.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(MISUSE);
            let _ = error.print(); // nobody to tell if stderr is gone
            return ExitCode::from(code);
        }
    };
    let filter =
        EnvFilter::try_from_env("FAKE_APISERVER_LOG").unwrap_or_else(|_| EnvFilter::new("warn,kube_client=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let hint = cli.command.is_none();
    let defaults = || match Cli::parse_from(["fake-apiserver", "serve"]).command {
        Some(Command::Serve(options)) => options,
        Some(Command::Controllers(_) | Command::Record(_) | Command::Gaps | Command::Run { .. }) | None => {
            unreachable!("parsed as serve just above")
        }
    };
    let (options, command) = match cli.command {
        None => (defaults(), None),
        Some(Command::Serve(options)) => (options, None),
        Some(Command::Controllers(options)) => return block_on(controllers::run(options)),
        Some(Command::Record(options)) => return block_on(record::run(options)),
        Some(Command::Gaps) => return print_gaps(),
        Some(Command::Run { options, command }) => (options, Some(command)),
    };
    block_on(run(options, command, hint))
}

fn block_on(run: impl Future<Output = Result<ExitCode, String>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    match runtime.block_on(run) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn print_gaps() -> ExitCode {
    let mut out = io::stdout().lock();
    for Gap { feature, instead } in GAPS {
        if writeln!(out, "{feature}\n    {instead}").is_err() {
            return ExitCode::from(1); // whoever read it has gone
        }
    }
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    eprintln!("fake-apiserver: {message}");
    ExitCode::from(MISUSE)
}

async fn run(options: Options, command: Option<Vec<String>>, hint: bool) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut builder = Cluster::builder()
        .system_time()
        .seed(options.seed)
        .kubelet(!options.no_kubelet)
        .sandbox_controllers(!options.no_sandbox_controllers)
        .sandbox_settings(options.sandbox.settings())
        .real_processes(options.real_processes);
    if options.virtual_time {
        builder = builder.virtual_time();
    }
    if let Some(token) = &options.token {
        builder = builder.token(token);
    }
    let cluster = builder.start().await.map_err(|status| format!("the cluster does not start: {status}"))?;
    let door = cluster.serve_https(options.bind).await;
    let door = door.map_err(|error| format!("cannot listen on {}: {error}", options.bind))?;
    let file = KubeconfigFile::write(options.kubeconfig, &door.render())?;
    let code = match command {
        None => {
            println!("ready {} kubeconfig {}", door.server, file.path().display());
            if hint {
                let path = file.path().display();
                println!("  export KUBECONFIG={path}");
                println!("  kubectl get nodes,namespaces");
                println!("  kubectl api-resources --api-group=agents.x-k8s.io");
            }
            io::stdout().flush().map_err(|error| format!("cannot write to stdout: {error}"))?;
            signals.next().await;
            ExitCode::SUCCESS
        }
        Some(command) => child(&command, file.path(), &mut signals).await?,
    };
    cluster.shutdown().await;
    drop(file);
    Ok(code)
}

/// Runs the command, passes signals on to it, and gives its status.
async fn child(command: &[String], kubeconfig: &Path, signals: &mut Signals) -> Result<ExitCode, String> {
    let (program, arguments) = command.split_first().expect("clap asks for at least one");
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let status = tokio::select! {
        biased;
        status = child.wait() => status,
        signal = signals.next() => {
            // A terminal sends its signals to the whole group; others have to be passed on.
            if let (Some(id), true) = (child.id(), signal == SignalKind::terminate()) {
                let _ = tokio::process::Command::new("kill").arg(id.to_string()).status().await;
            }
            child.wait().await
        }
    };
    let status = status.map_err(|error| format!("cannot wait for {program}: {error}"))?;
    Ok(ExitCode::from(code_of(status)))
}

/// The exit status that a shell would give.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// The kubeconfig on disk, readable for its owner alone; a temporary one goes with this value.
enum KubeconfigFile {
    Named(PathBuf),
    Temporary { path: PathBuf, _folder: tempfile::TempDir },
}

impl KubeconfigFile {
    /// Writes it whole or not at all.
    fn write(wanted: Option<PathBuf>, text: &str) -> Result<Self, String> {
        let file = match wanted {
            Some(path) => Self::Named(path),
            None => {
                let folder = tempfile::Builder::new().prefix("fake-apiserver-").tempdir();
                let folder = folder.map_err(|error| format!("cannot make a folder for the kubeconfig: {error}"))?;
                Self::Temporary { path: folder.path().join("kubeconfig"), _folder: folder }
            }
        };
        let path = file.path();
        replace(path, text).map_err(|error| format!("cannot write the kubeconfig {}: {error}", path.display()))?;
        Ok(file)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Named(path) | Self::Temporary { path, .. } => path,
        }
    }
}

/// Writes a file beside the path and moves it there, so that nobody reads half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let beside = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside); // there is none if it could not be made
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kubeconfig_is_for_its_owner_alone_and_a_temporary_one_goes_in_the_end() {
        let file = KubeconfigFile::write(None, "text").unwrap();
        let path = file.path().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_kubeconfig_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(KubeconfigFile::write(Some(taken), "text").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    fn settings(flags: &[&str]) -> Result<sandbox::Settings, String> {
        let arguments = ["fake-apiserver", "serve"].iter().chain(flags);
        match Cli::try_parse_from(arguments).map_err(|error| error.to_string())?.command {
            Some(Command::Serve(options)) => Ok(options.sandbox.settings()),
            _ => unreachable!("parsed as serve"),
        }
    }

    #[test]
    fn without_flags_the_controllers_behave_as_upstreams_do_without() {
        assert_eq!(settings(&[]), Ok(sandbox::Settings::default()));
    }

    #[test]
    fn the_controllers_flags_are_written_as_for_upstreams() {
        let flags = [
            "--cluster-domain=example.org",
            "--sandbox-write-behind-window=500ms",
            "--disable-claim-events",
            "--enable-warm-pool-eviction=false",
            "--sandbox-warm-pool-readiness-grace-period=1m30s",
            "--sandbox-claim-concurrent-workers=50",
        ];
        let found = settings(&flags).unwrap();
        assert_eq!(found.cluster_domain, "example.org");
        assert_eq!(found.sandbox_write_behind_window, Duration::from_millis(500));
        assert!(found.disable_claim_events && !found.warm_pools.enable_warm_pool_eviction);
        assert_eq!(found.workers.claims.get(), 50);
        assert_eq!(found.warm_pools.readiness_grace_period, Duration::from_secs(90));
        assert!(settings(&["--sandbox-warm-pool-readiness-grace-period=0"]).is_err());
        assert!(settings(&["--sandbox-warm-pool-replenish-delay=-1s"]).is_err());
    }
}
