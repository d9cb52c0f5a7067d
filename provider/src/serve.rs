//! The program: from the command line to a server that ends when it is told to.

use std::{
    ffi::OsString,
    fs::DirBuilder,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

use crate::{
    Clock,
    application::{Application, Setup, connect, store_file},
    config::Config,
    embedded::Embedded,
    http::{Auth, Clusters, causes},
    listener, log,
    selection::Target,
    store::Store,
};

/// Exit status when it cannot start.
const MISUSE: u8 = 2;

/// How long the start waits for sandboxes on the embedded cluster.
const EMBEDDED: Duration = Duration::from_secs(5);

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Runs the program with these arguments, of which the first is its name.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let config = match Config::try_parse_from(arguments) {
        Ok(config) => config,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(MISUSE);
            let _ = error.print(); // nobody to tell if stderr is gone
            return ExitCode::from(code);
        }
    };
    let wanted = EnvFilter::try_from_env("AGENT_SANDBOX_LOG");
    let wanted = wanted.unwrap_or_else(|_| EnvFilter::new("warn,kube_client=error"));
    log::to(io::stderr, io::stderr().is_terminal(), wanted).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    match runtime.block_on(run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("agent-sandbox-provider: {message}");
    ExitCode::from(MISUSE)
}

async fn run(config: &Config) -> Result<(), String> {
    config.check_bind()?;
    // Before anything is made, so that what comes early is not lost.
    let signals = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut interrupt, mut terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);

    let folder = config.data_dir()?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| format!("cannot make the data folder {}: {error}", folder.display()))?;
    let store = Store::open(store_file(&folder)).map_err(|error| told(&error))?;
    let token = config.token_file.clone().unwrap_or_else(|| folder.join("token"));
    let auth = Auth::open(&store, &token).map_err(|error| told(&error))?;
    let listener = TcpListener::bind(config.bind).await;
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", config.bind))?;
    let address = listener.local_addr().map_err(|error| format!("cannot listen on {}: {error}", config.bind))?;

    let base = config.target();
    let embedded = match base {
        Target::Embedded => Some(Embedded::start(&folder, config.real_processes).await?),
        Target::Cluster(_) => None,
    };
    let client = embedded.as_ref().map(Embedded::client);
    let kubeconfig = embedded.as_ref().map(|embedded| embedded.kubeconfig().to_owned());
    let clusters = Clusters { base, embedded: client.clone().map(|client| (client, kubeconfig.clone())) };
    let connect = connect(client, Clock::default());
    let setup = Setup { store, auth, clusters, connect, agents: config.agents(), rate: config.rate_limit };
    let application = Application::start(setup).map_err(|error| told(&error))?;
    application.selection.settled().await;
    if embedded.is_some() {
        // It is ours, and on its way. What the settings name instead may never come.
        let _ = tokio::time::timeout(EMBEDDED, application.selection.ready()).await;
    }
    announce(address, &token, kubeconfig.as_deref()).map_err(|error| format!("cannot write to stdout: {error}"))?;

    let stop = application.stop().clone();
    let serving = tokio::spawn(listener::serve(listener, application.router.clone(), stop.clone()));
    let mut signal = async || {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    signal().await;
    stop.cancel();
    let end = async {
        // First whoever is still being answered, then what works behind.
        let served = serving.await;
        application.shutdown(config.shutdown()).await;
        if let Some(embedded) = embedded {
            embedded.shutdown().await;
        }
        served
    };
    tokio::select! {
        biased;
        served = end => match served {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("could not serve: {error}")),
        },
        () = tokio::time::sleep(config.shutdown()) => {
            tracing::warn!("not everything ended within {} s", config.shutdown_seconds);
            Ok(())
        }
        // Who asks twice does not want to wait.
        () = signal() => Ok(()),
    }
}

fn told(error: &crate::Error) -> String {
    match causes(error) {
        causes if causes.is_empty() => error.to_string(),
        causes => format!("{error} ({causes})"),
    }
}

/// Tells where it is and how to come in.
fn announce(address: SocketAddr, token: &Path, kubeconfig: Option<&Path>) -> io::Result<()> {
    let token: PathBuf = std::path::absolute(token)?;
    let mut out = io::stdout().lock();
    writeln!(out, "ready http://{address}")?;
    writeln!(out, "  token       {}", token.display())?;
    writeln!(out, "  settings    http://{address}/settings/sandbox")?;
    if let Some(kubeconfig) = kubeconfig {
        writeln!(out, "  kubeconfig  {}", std::path::absolute(kubeconfig)?.display())?;
    }
    writeln!(
        out,
        "  try         curl -H \"Authorization: Bearer $(cat {})\" http://{address}/api/sandbox/provider",
        token.display()
    )?;
    out.flush()
}
