//! A minikube with gVisor, the controller and the manifests: set up in steps that look before they act, so that a run that
//! was broken off is taken up by the next one; and taken down again.
//!
//! What was made is written down before it is made, in a file for each profile: only that is taken down.

pub mod command;
mod made;
mod tools;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_sandbox_sdk::{
    AgentSandboxClient,
    health::{Health, Verdict},
    kubeconfig::{ConnectOptions, Environment},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use semver::Version;
use serde_json::Value;

use self::{
    command::Tool,
    made::{Made, Thing},
};
use crate::runner::Stop;

/// The profile, and the kubeconfig's context, unless another is named.
pub const PROFILE: &str = "agent-sandbox";

/// Where the controller lives.
const SYSTEM: &str = "agent-sandbox-system";
const CONTROLLER: &str = "agent-sandbox-controller";

/// The namespace of `manifests/`.
const NAMESPACE: &str = "sandboxes";

/// The manifests, in the order in which they can be applied.
pub const MANIFESTS: [&str; 9] = [
    "namespace.yaml",
    "runtime-class.yaml",
    "limit-range.yaml",
    "resource-quota.yaml",
    "rbac.yaml",
    "network-policy.yaml",
    "sandbox-template.yaml",
    "sandbox-warm-pool.yaml",
    "sandbox.yaml",
];

/// Those of [`MANIFESTS`] that a set-up cluster begins with; a Sandbox is for its user to make.
const APPLIED: usize = MANIFESTS.len() - 1;

const DEFINITIONS: [&str; 4] = [
    "sandboxes.agents.x-k8s.io",
    "sandboxclaims.extensions.agents.x-k8s.io",
    "sandboxtemplates.extensions.agents.x-k8s.io",
    "sandboxwarmpools.extensions.agents.x-k8s.io",
];

/// What to set up.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// minikube's profile, which is the kubeconfig's context too.
    #[arg(long, default_value = PROFILE, env = "MINIKUBE_PROFILE")]
    pub profile: String,
    /// Processors of the machine.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..))]
    pub cpus: u16,
    /// Memory of the machine, as minikube takes it.
    #[arg(long, default_value = "8g")]
    pub memory: String,
    /// minikube's driver; its own choice by default.
    #[arg(long)]
    pub driver: Option<String>,
    /// Network plugin; the default enforces network policies.
    #[arg(long, default_value = "calico")]
    pub cni: String,
    /// Without gVisor.
    #[arg(long)]
    pub no_gvisor: bool,
    /// Release of the controller.
    #[arg(long, default_value = "v0.5.6", value_parser = release)]
    pub release: Version,
    /// The folder with the manifests.
    #[arg(long, default_value = "manifests", value_name = "FOLDER")]
    pub manifests: PathBuf,
    /// How long one command may take, in seconds; an image may have to be pulled.
    #[arg(long, default_value_t = 600)]
    pub step_timeout: u64,
}

/// What to take down.
#[derive(Args, Clone, Debug)]
pub struct Down {
    /// minikube's profile.
    #[arg(long, default_value = PROFILE, env = "MINIKUBE_PROFILE")]
    pub profile: String,
    /// How long one command may take, in seconds.
    #[arg(long, default_value_t = 600)]
    pub step_timeout: u64,
}

/// `v1.2.3` or `1.2.3`.
fn release(text: &str) -> Result<Version, String> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    Version::parse(bare).map_err(|error| format!("{text:?} is no release such as v0.5.6: {error}"))
}

/// The files of a release, in the order in which they are applied: their names changed with v0.5.2.
fn assets(release: &Version) -> &'static [&'static str] {
    match *release >= Version::new(0, 5, 2) {
        true => &["sandbox-with-extensions.yaml"],
        false => &["manifest.yaml", "extensions.yaml"],
    }
}

/// The programs, and how long they may take.
struct Machine {
    minikube: Tool,
    kubectl: Tool,
    profile: String,
    step: Duration,
    made: Made,
    begun: Instant,
}

/// Sets up.
///
/// # Errors
/// At the first step that fails; the text says which, why, and that another run goes on from there.
pub fn up(options: &Up, stop: &Stop) -> Result<()> {
    let machine = Machine::look(&options.profile, options.step_timeout, options.driver.as_deref(), stop)?;
    let steps: [(&str, &dyn Fn() -> Result<String>); 6] = [
        ("the cluster", &|| machine.start(options)),
        ("gVisor", &|| machine.gvisor(options)),
        ("the controller", &|| machine.install(options)),
        ("the definitions", &|| machine.established()),
        ("the manifests", &|| machine.apply(options)),
        ("health", &|| machine.health()),
    ];
    machine.through(&steps, "minikube-up")
}

/// Takes down what [`up`] made, and nothing else.
///
/// # Errors
/// At the first step that fails.
pub fn down(options: &Down, stop: &Stop) -> Result<()> {
    let machine = Machine::look(&options.profile, options.step_timeout, None, stop)?;
    if !machine.made.any() {
        println!("nothing to take down: minikube-up has made nothing for the profile {}", options.profile);
        return Ok(());
    }
    let steps: [(&str, &dyn Fn() -> Result<String>); 3] = [
        ("the cluster", &|| machine.delete()),
        ("the manifests", &|| machine.unapply()),
        ("the controller", &|| machine.uninstall()),
    ];
    machine.through(&steps, "minikube-down")?;
    machine.made.forget()
}

impl Machine {
    fn look(profile: &str, step: u64, driver: Option<&str>, stop: &Stop) -> Result<Self> {
        let (minikube, kubectl) = tools::check(driver, stop)?;
        Ok(Self {
            minikube,
            kubectl,
            profile: profile.into(),
            step: Duration::from_secs(step),
            made: Made::of(profile)?,
            begun: Instant::now(),
        })
    }

    fn through(&self, steps: &[(&str, &dyn Fn() -> Result<String>)], name: &str) -> Result<()> {
        for (at, (what, step)) in steps.iter().enumerate() {
            let found = step().with_context(|| {
                format!("step {} of {}, {what}; run {name} again to go on from here", at + 1, steps.len())
            })?;
            println!("[{}/{}] {what}: {found} ({} s)", at + 1, steps.len(), self.begun.elapsed().as_secs());
        }
        Ok(())
    }

    fn minikube(&self, words: &[&str]) -> Result<String> {
        let words: Vec<&str> = words.iter().copied().chain(["--profile", &self.profile]).collect();
        self.minikube.run(&words, self.step)
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        let words: Vec<&str> = ["--context", self.profile.as_str()].into_iter().chain(words.iter().copied()).collect();
        self.kubectl.run(&words, self.step)
    }

    /// Whether the profile exists, and whether all of it runs. minikube says it in its answer; its exit code mixes both.
    fn state(&self) -> Result<(bool, bool)> {
        let answer = self.minikube.run(&["profile", "list", "--output", "json"], self.step);
        // Without any profile minikube fails, and says so in JSON.
        let Ok(text) = answer else { return Ok((false, false)) };
        let list: Value = serde_json::from_str(&text).context("`minikube profile list` does not answer in JSON")?;
        let valid = list["valid"].as_array().into_iter().flatten();
        let found = valid.into_iter().find(|one| one["Name"] == self.profile.as_str());
        let runs = found.is_some_and(|one| matches!(one["Status"].as_str(), Some("OK" | "Running")));
        Ok((found.is_some(), runs))
    }

    fn start(&self, options: &Up) -> Result<String> {
        let (exists, runs) = self.state()?;
        if !exists {
            self.made.note(Thing::Cluster)?;
        }
        if !runs {
            let cpus = options.cpus.to_string();
            let mut words = vec!["start", "--cpus", &cpus, "--memory", &options.memory];
            words.extend(["--container-runtime", "containerd", "--cni", &options.cni]);
            words.extend(options.driver.iter().flat_map(|driver| ["--driver", driver.as_str()]));
            self.minikube(&words)?;
        }
        let nodes: Value = serde_json::from_str(&self.kubectl(&["get", "nodes", "--output", "json"])?)?;
        let runtime = nodes["items"][0]["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
        if !options.no_gvisor && !runtime.starts_with("containerd://") {
            bail!(
                "the cluster {} runs containers by {runtime:?}, and gVisor needs containerd: `just minikube-down` (or \
                 `minikube delete --profile {}`) and set up again, or use --no-gvisor",
                self.profile,
                self.profile
            );
        }
        let how = if runs { "runs already" } else { "started" };
        Ok(format!("{how}, profile {}, {runtime}", self.profile))
    }

    fn gvisor(&self, options: &Up) -> Result<String> {
        if options.no_gvisor {
            return Ok("left out".into());
        }
        let addons: Value = serde_json::from_str(&self.minikube(&["addons", "list", "--output", "json"])?)
            .context("`minikube addons list` does not answer in JSON")?;
        let how = match addons["gvisor"]["Status"].as_str() {
            None => bail!("this minikube has no addon gvisor; install a newer one, or use --no-gvisor"),
            Some("enabled") => "enabled already",
            Some(_) => {
                self.minikube(&["addons", "enable", "gvisor"])?;
                "enabled"
            }
        };
        let within = format!("--timeout={}s", self.step.as_secs());
        let pods = ["--for=condition=Ready", "pod", "--selector", "kubernetes.io/minikube-addons=gvisor"];
        self.kubectl(&[&["wait", "--namespace", "kube-system", &within], &pods[..]].concat())?;
        Ok(how.into())
    }

    fn install(&self, options: &Up) -> Result<String> {
        let tag = format!("v{}", options.release);
        let found = self.kubectl(&[
            "get",
            "deployment",
            CONTROLLER,
            "--namespace",
            SYSTEM,
            "--ignore-not-found",
            "--output",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ]);
        // Without its namespace there is no controller either, and kubectl says so as an error.
        let image = found.unwrap_or_default();
        let there = image.rsplit_once(':').is_some_and(|(_, found)| found == tag);
        if !there {
            if image.is_empty() {
                self.made.note(Thing::Controller(options.release.clone()))?;
            }
            for asset in assets(&options.release) {
                self.kubectl(&[
                    "apply",
                    "--server-side",
                    "--force-conflicts",
                    "--filename",
                    &url(&options.release, asset),
                ])?;
            }
        }
        let within = format!("--timeout={}s", self.step.as_secs());
        let deployment = format!("deployment/{CONTROLLER}");
        self.kubectl(&["rollout", "status", &deployment, "--namespace", SYSTEM, &within])?;
        Ok(if there { format!("{tag} is there already") } else { format!("{tag} installed") })
    }

    fn established(&self) -> Result<String> {
        let within = format!("--timeout={}s", self.step.as_secs());
        let definitions: Vec<String> = DEFINITIONS.iter().map(|name| format!("crd/{name}")).collect();
        let mut words = vec!["wait", "--for=condition=Established", &within];
        words.extend(definitions.iter().map(String::as_str));
        self.kubectl(&words)?;
        Ok(format!("{} established", DEFINITIONS.len()))
    }

    fn apply(&self, options: &Up) -> Result<String> {
        let files = &MANIFESTS[..APPLIED];
        let folder = fs::canonicalize(&options.manifests)
            .with_context(|| format!("no folder {} with the manifests", options.manifests.display()))?;
        self.made.note(Thing::Manifests(folder.clone()))?;
        for file in files {
            let path = path_text(&folder, file)?;
            self.kubectl(&["apply", "--server-side", "--force-conflicts", "--validate=strict", "--filename", &path])?;
        }
        Ok(format!("{} applied", files.len()))
    }

    fn health(&self) -> Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = ConnectOptions {
            context: Some(self.profile.clone()),
            namespace: Some(NAMESPACE.into()),
            ..Default::default()
        };
        let health = runtime.block_on(async {
            let client = options.find(&Environment::of_process())?.connect().await?;
            Ok::<_, agent_sandbox_sdk::kubeconfig::KubeconfigError>(
                AgentSandboxClient::new(client).in_namespace(NAMESPACE).health().await,
            )
        })?;
        println!("{}", table(&health));
        match health.is_healthy() {
            true => Ok("good".into()),
            false => bail!("something will not work; see the table above"),
        }
    }

    fn delete(&self) -> Result<String> {
        if !self.made.has_cluster() {
            return Ok("not made by minikube-up, so it stays".into());
        }
        if self.state()?.0 {
            self.minikube(&["delete"])?;
        }
        Ok("deleted, with all that was in it".into())
    }

    fn unapply(&self) -> Result<String> {
        let folder = match self.made.manifests() {
            Some(folder) if !self.made.has_cluster() => folder,
            _ => return Ok("nothing to do".into()),
        };
        for file in MANIFESTS[..APPLIED].iter().rev() {
            let path = path_text(folder, file)?;
            self.kubectl(&["delete", "--ignore-not-found", "--filename", &path])?;
        }
        Ok("deleted".into())
    }

    fn uninstall(&self) -> Result<String> {
        let release = match self.made.controller() {
            Some(release) if !self.made.has_cluster() => release,
            _ => return Ok("nothing to do".into()),
        };
        for asset in assets(release).iter().rev() {
            self.kubectl(&["delete", "--ignore-not-found", "--filename", &url(release, asset)])?;
        }
        Ok("deleted".into())
    }
}

fn url(release: &Version, asset: &str) -> String {
    format!("https://github.com/kubernetes-sigs/agent-sandbox/releases/download/v{release}/{asset}")
}

fn path_text(folder: &Path, file: &str) -> Result<String> {
    let path = folder.join(file);
    path.into_os_string().into_string().ok().context("the manifests' folder has a name that is no text")
}

/// The health check as a table.
fn table(health: &Health) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["", "what", "found", "what to do"]);
    for row in &health.rows {
        let mark = match row.verdict {
            Verdict::Good => "ok",
            Verdict::Bad => "no",
            _ => "??",
        };
        table.add_row([mark.to_owned(), format!("{:?}", row.topic), row.found.clone(), row.advice.clone()]);
    }
    table
}

/// Where notes are kept between runs: `XDG_STATE_HOME`, or `.local/state` in the home folder.
fn notes() -> Result<PathBuf> {
    let base = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".local/state")));
    Ok(base.context("there is no home folder to keep notes in")?.join("agent-sandbox-e2e"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_named_with_a_v_or_without_and_have_their_files() {
        for text in ["v0.5.6", "0.5.6"] {
            assert_eq!(release(text).unwrap(), Version::new(0, 5, 6));
        }
        assert!(release("newest").unwrap_err().contains("v0.5.6"));
        assert_eq!(assets(&Version::new(0, 5, 1)), ["manifest.yaml", "extensions.yaml"]);
        assert_eq!(assets(&Version::new(0, 5, 2)), ["sandbox-with-extensions.yaml"]);
    }
}
