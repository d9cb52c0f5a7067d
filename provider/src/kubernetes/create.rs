//! A sandbox comes to be, or nothing does.
//!
//! Its object has a name that follows from the project, so that two creations meet at the server, whoever starts them. What
//! was asked of the server is seen to its end, also when nobody waits for it any more; then it is taken back.

use std::time::Duration;

use agent_sandbox_sdk::v1beta1::{Sandbox as SandboxObject, SandboxClaim};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    failures::{is_settled, of_sdk, of_wait, pod_failure, verdict},
    instance::suspend,
    manifest,
    record::record,
};
use crate::{
    Code, Error, SandboxConfig, SandboxEvent, SandboxStatus, StopReason, audit::audit, labels, tracker::Record,
};

/// How long a sandbox that is being deleted is waited for.
const GONE: Duration = Duration::from_secs(60);

/// How often a sandbox that is not to be is deleted before it is left to those who clean up.
const ATTEMPTS: u32 = 5;

/// What stands on the cluster, not yet ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    /// A new object, which goes if it does not become ready.
    New,
    /// An object that was there before, with somebody's workspace: it is stopped again.
    Remade,
    /// A claim, which goes with what it got.
    Claim,
}

pub(super) fn exists(project_id: &str, why: &str) -> Error {
    Error::new(Code::PodAlreadyExists, format!("project {project_id} has a sandbox already: {why}"))
        .with("projectId", project_id)
}

impl Inner {
    /// Makes the sandbox of a project that is reserved. `cancel` says that nobody waits for it any more.
    pub(super) async fn make_sandbox(
        &self,
        config: &SandboxConfig,
        id: &str,
        cancel: &CancellationToken,
    ) -> Result<Record, Error> {
        let (name, placed) = self.place(config, id).await?;
        let settled = tokio::select! {
            settled = self.settle(&name, placed, config, id) => settled,
            () = cancel.cancelled() => Err(Error::new(Code::PodCreationFailed, "nobody waits for it any more")),
            () = self.stop.cancelled() => Err(Error::new(Code::PodCreationFailed, "the provider was shut down")),
        };
        match settled {
            Ok(sandbox) => record(&sandbox).ok_or_else(|| Error::new(Code::K8sInternal, "a sandbox without labels")),
            Err(error) => {
                self.take_back(&name, placed, id).await;
                Err(error)
            }
        }
    }

    /// Puts the sandbox's object, or a claim for one, on the cluster.
    async fn place(&self, config: &SandboxConfig, id: &str) -> Result<(String, Placed), Error> {
        self.prepare().await?;
        let project = config.project_id.as_str();
        let name = labels::name_of(project);
        if let Some(found) = self.existing(project).await? {
            return Ok((self.remake(found, config, id).await?, Placed::Remade));
        }
        let failed = |error: agent_sandbox_sdk::Error| {
            if error.is_already_exists() {
                return exists(project, &format!("there is an object {name} on the cluster"));
            }
            of_sdk(error, Code::PodCreationFailed).with("podName", name.as_str())
        };
        let placed = if self.options.warm_pool.as_ref().is_some_and(|pool| pool.serves(config)) {
            let claim = manifest::claim(config, &self.options, id);
            self.client.claims().create(&claim).await.map_err(failed).map(|_| Placed::Claim)
        } else {
            let sandbox = manifest::sandbox(config, &self.options, id);
            self.client.create(&sandbox).await.map_err(failed).map(|_| Placed::New)
        };
        match placed {
            Ok(placed) => {
                if let Err(error) = self.check_alone(&name, placed, project).await {
                    self.take_back(&name, placed, id).await;
                    return Err(error);
                }
                Ok((name, placed))
            }
            Err(error) => {
                if error.code() == Code::NamespaceNotFound {
                    self.forget_prepared().await;
                }
                Err(error)
            }
        }
    }

    /// Two applications, one with a pool and one without, do not meet at one name: each looks for the other's object after
    /// it has made its own.
    async fn check_alone(&self, name: &str, placed: Placed, project: &str) -> Result<(), Error> {
        let other = match placed {
            Placed::Claim => match self.client.get(name).await {
                // What the controller makes for the claim has the claim's name.
                Ok(sandbox) => sandbox.owner_references().is_empty(),
                Err(_) => false,
            },
            // A cluster without claims has no other.
            Placed::New => self.client.claims().exists(name).await.unwrap_or(false),
            Placed::Remade => false,
        };
        if other { Err(exists(project, "another application makes one")) } else { Ok(()) }
    }

    /// The project's object, if it may be made again.
    async fn existing(&self, project: &str) -> Result<Option<SandboxObject>, Error> {
        let selector = format!("{}={}", labels::PROJECT_ID, labels::label_value(project));
        let sandboxes = self.client.sandboxes();
        let found = sandboxes.list(&ListParams::default().labels(&selector)).await;
        let found = found.map_err(|error| of_sdk(error, Code::PodCreationFailed))?;
        let mut stopped = None;
        for sandbox in found {
            let Some(record) = record(&sandbox).filter(|record| record.info.project_id == project) else { continue };
            if sandbox.metadata.deletion_timestamp.is_some() {
                let name = sandbox.name_any();
                let gone = sandboxes.wait_gone(&name, GONE).await;
                gone.map_err(|error| exists(project, &format!("{name} is being deleted: {error}")))?;
            } else if record.info.status.can_be_remade() {
                stopped = Some(sandbox);
            } else {
                let why = format!("{} is {:?}", record.info.container_id, record.info.status);
                return Err(exists(project, &why).with("podName", record.info.container_id));
            }
        }
        if stopped.is_none() {
            self.remove_left_claim(project).await?;
        }
        Ok(stopped)
    }

    /// A claim without a sandbox of ours is one that another application waits with, or that it has left when it died.
    async fn remove_left_claim(&self, project: &str) -> Result<(), Error> {
        let (claims, name) = (self.client.claims(), labels::name_of(project));
        // A cluster without claims, or one that does not show them, has none for us.
        let Ok(claim) = claims.get(&name).await else { return Ok(()) };
        let made = labels::timestamp(claim.annotations().get(labels::MADE_AT)).unwrap_or_default();
        let age = Duration::try_from(self.options.clock.now().duration_since(made)).unwrap_or_default();
        if age < self.options.ready_timeout + GONE {
            return Err(exists(project, &format!("there is a claim {name} for one")));
        }
        self.delete(claims.clone(), &claim).await?;
        let gone = claims.wait_gone(&name, GONE).await;
        gone.map_err(|error| exists(project, &format!("claim {name} is being deleted: {error}")))
    }

    /// Makes a stopped sandbox anew, on its volumes. Of several who try, one is faster.
    async fn remake(&self, mut found: SandboxObject, config: &SandboxConfig, id: &str) -> Result<String, Error> {
        let sandboxes = self.client.sandboxes();
        let name = found.name_any();
        let failed = |error: agent_sandbox_sdk::Error| {
            if error.is_conflict() || error.is_not_found() {
                return exists(&config.project_id, "another application makes one");
            }
            of_sdk(error, Code::PodCreationFailed).with("podName", name.as_str())
        };
        // A pod that has failed stays until its sandbox is suspended.
        if record(&found).is_some_and(|record| record.info.status == SandboxStatus::Error) {
            let revision = found.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": revision}, "spec": {"operatingMode": "Suspended"}});
            sandboxes.patch(&name, &patch).await.map_err(failed)?;
            let suspended = sandboxes.wait_suspended(&name, GONE).await;
            found = suspended.map_err(|error| of_wait(error, &name, GONE))?;
        }
        manifest::remake(&mut found, config, &self.options, id);
        sandboxes.update(&found).await.map_err(failed)?;
        Ok(name)
    }

    /// Waits until the sandbox runs, or it is clear that it will not.
    async fn settle(
        &self,
        name: &str,
        placed: Placed,
        config: &SandboxConfig,
        id: &str,
    ) -> Result<SandboxObject, Error> {
        let timeout = self.options.ready_timeout;
        let (client, grace) = (&self.client, self.options.unschedulable_grace);
        let pods = Api::<Pod>::namespaced(client.kube(), client.namespace());
        let (sandbox_id, project_id) = (id.to_owned(), config.project_id.clone());
        self.tracker.tell(SandboxEvent::Created { sandbox_id, project_id, container_id: name.into() });
        self.tracker.tell(SandboxEvent::Starting { sandbox_id: id.into() });
        let ready = async {
            if placed == Placed::Claim {
                let claim = client.claims().wait_ready(name, timeout).await;
                let claim = claim.map_err(|error| of_wait(error, name, timeout))?;
                return self.adopt(&claim, config, id).await;
            }
            let settled = client.sandboxes().wait_until(name, "Ready", is_settled, timeout).await;
            let sandbox = settled.map_err(|error| of_wait(error, name, timeout))?;
            match verdict(&sandbox) {
                None => Ok(sandbox),
                Some(error) => Err(error),
            }
        };
        // A claim that gets a new sandbox gives it its own name, and the pod has the sandbox's.
        tokio::select! {
            ready = ready => ready,
            error = pod_failure(pods, name, grace) => Err(error),
        }
    }

    /// Labels what a claim has got as the project's sandbox: a pool cannot know whom its sandboxes will be for.
    async fn adopt(&self, claim: &SandboxClaim, config: &SandboxConfig, id: &str) -> Result<SandboxObject, Error> {
        let name = claim.sandbox_name().unwrap_or_default();
        let sandboxes = self.client.sandboxes();
        let labels = manifest::labels(id, &config.project_id);
        let now = self.options.clock.now();
        let patch = json!({
            "metadata": {"labels": labels, "annotations": manifest::annotations(config, now)},
            "spec": {
                "shutdownTime": manifest::first_shutdown(config, &self.options, now),
                "shutdownPolicy": "Retain",
            },
        });
        let failed = |error| of_sdk(error, Code::WarmPoolAllocationFailed).with("podName", name);
        let sandbox = sandboxes.patch(name, &patch).await.map_err(failed)?;
        self.label_pod(&sandbox, &labels).await;
        let timeout = self.options.ready_timeout;
        let ready = sandboxes.wait_ready(name, timeout).await.map_err(|error| of_wait(error, name, timeout))?;
        audit!(info, "warm_pool.allocation", sandbox_id = id, resource_name = name);
        Ok(ready)
    }

    /// The labels of a pod whose template is the pool's. Nothing here depends on them, only other tools do.
    async fn label_pod(&self, sandbox: &SandboxObject, labels: &impl serde::Serialize) {
        let pods = Api::<Pod>::namespaced(self.client.kube(), self.client.namespace());
        let pod = sandbox.pod_name().unwrap_or_default();
        let patch = json!({"metadata": {"labels": labels}});
        let params = kube::api::PatchParams::default();
        if let Err(error) = pods.patch(pod, &params, &kube::api::Patch::Merge(&patch)).await {
            tracing::warn!(pod, %error, "a pod from the pool has not got its sandbox's labels");
        }
    }

    /// Takes back what was placed under `id`. Who fails at it says so: the next to clean up finds it by its labels.
    async fn take_back(&self, name: &str, placed: Placed, id: &str) {
        let mut pause = Duration::from_millis(200);
        for _ in 0..ATTEMPTS {
            let done = match placed {
                Placed::Remade => suspend(self, name, id, StopReason::Error).await,
                Placed::New => match self.client.get(name).await {
                    Ok(sandbox) if is_of(sandbox.labels(), id) => self.delete(self.client.sandboxes(), &sandbox).await,
                    Ok(_) => Ok(()),
                    Err(error) => absent(error),
                },
                Placed::Claim => match self.client.claims().get(name).await {
                    Ok(claim) if is_of(claim.labels(), id) => self.delete(self.client.claims(), &claim).await,
                    Ok(_) => Ok(()),
                    Err(error) => absent(error),
                },
            };
            match done {
                Ok(()) => {
                    if placed != Placed::Remade {
                        self.tracker.deleted(id);
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(name, %error, "a sandbox that did not come to be is not taken back yet");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }

    async fn delete<K: agent_sandbox_sdk::Kind>(
        &self,
        objects: agent_sandbox_sdk::Objects<K>,
        object: &K,
    ) -> Result<(), Error> {
        match objects.delete_this(object).await {
            Ok(()) => Ok(()),
            // Gone, or another's by now.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => absent(error),
        }
    }

    /// Deletes a sandbox, its claim if it has one, and with it its volumes. Whether it was there.
    pub(super) async fn remove_sandbox(&self, id: &str, name: &str) -> Result<bool, Error> {
        let sandbox = match self.client.get(name).await {
            Ok(sandbox) if is_of(sandbox.labels(), id) => sandbox,
            Ok(_) => return Ok(false),
            Err(error) => return absent(error).map(|()| false),
        };
        let owner = sandbox.owner_references().iter().find(|owner| owner.kind == "SandboxClaim").cloned();
        match owner {
            Some(owner) => match self.client.claims().get(&owner.name).await {
                Ok(claim) => self.delete(self.client.claims(), &claim).await?,
                Err(error) => absent(error)?,
            },
            None => self.delete(self.client.sandboxes(), &sandbox).await?,
        }
        let gone = self.client.sandboxes().wait_gone(name, GONE).await;
        gone.map_err(|error| {
            Error::new(Code::PodDeletionFailed, format!("sandbox {name} is not gone: {error}")).with("podName", name)
        })?;
        audit!(info, "pod.deleted", sandbox_id = id, resource_name = name);
        self.tracker.deleted(id);
        Ok(true)
    }
}

fn is_of(labels: &std::collections::BTreeMap<String, String>, id: &str) -> bool {
    labels.get(labels::SANDBOX_ID).is_some_and(|found| found == id)
}

fn absent(error: agent_sandbox_sdk::Error) -> Result<(), Error> {
    if error.is_not_found() { Ok(()) } else { Err(of_sdk(error, Code::PodDeletionFailed)) }
}
