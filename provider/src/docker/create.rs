//! A container comes to be, or nothing does.

use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions, StartContainerOptions};
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    container::body,
    failures::{is_absent_image, of, status},
};
use crate::{Code, Error, SandboxConfig, SandboxEvent, labels, machine::Machine, tracker::Record};

/// What every container's name begins with.
const PREFIX: &str = "agentpane-";

pub(super) fn exists(project_id: &str, why: &str) -> Error {
    Error::new(Code::ContainerAlreadyExists, format!("project {project_id} has a sandbox already: {why}"))
        .with("projectId", project_id)
}

impl Inner {
    /// Makes the sandbox of a project that is reserved. `cancel` says that nobody waits for it any more.
    pub(super) async fn make_container(
        &self,
        config: &SandboxConfig,
        id: &str,
        cancel: &CancellationToken,
    ) -> Result<Record, Error> {
        let given_up = |why: &str| Error::new(Code::ContainerCreationFailed, why);
        tokio::select! {
            image = self.ensure_image(&config.image) => image,
            () = cancel.cancelled() => Err(given_up("nobody waits for it any more")),
            () = self.stop.cancelled() => Err(given_up("the provider was shut down")),
        }?;
        // What was asked of the engine is seen to its end; then it is taken back.
        let container = self.place(config, id).await?;
        let begun = if cancel.is_cancelled() || self.stop.is_cancelled() {
            Err(given_up("nobody waits for it any more"))
        } else {
            self.begin(config, id, &container).await
        };
        if let Err(begun) = begun {
            if let Err(error) = self.remove(id, &container).await {
                tracing::warn!(container, %error, "a container that did not come to be is not taken back");
            }
            return Err(begun);
        }
        self.refresh().await?;
        let gone = || Error::new(Code::ContainerStartFailed, "the container went as soon as it was there");
        self.tracker.record(id).ok_or_else(gone)
    }

    async fn ensure_image(&self, image: &str) -> Result<(), Error> {
        if self.has_image(image).await? {
            return Ok(());
        }
        if self.options.pull {
            return self.pull(image).await;
        }
        let message = format!("image {image} is not on the engine, and is not to be pulled");
        Err(Error::new(Code::SandboxImageNotFound, message).with("image", image))
    }

    /// Makes the container. Its name follows from the project, so that of several who make one, one does.
    async fn place(&self, config: &SandboxConfig, id: &str) -> Result<String, Error> {
        self.refresh().await?;
        if let Some(found) = self.tracker.of_project(&config.project_id) {
            let info = &found.info;
            if !info.status.can_be_remade() {
                return Err(exists(&config.project_id, &format!("{} is {:?}", info.container_id, info.status)));
            }
            self.remove(&info.id, &info.container_id).await?;
        }
        let runsc = self.options.gvisor && self.has_runsc().await?;
        let name = format!("{PREFIX}{}", labels::name_of(&config.project_id));
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let made = self.docker.create_container(Some(options), body(config, &self.options, id, runsc)).await;
        match made {
            Ok(made) => Ok(made.id),
            Err(error) if status(&error) == Some(409) => {
                Err(exists(&config.project_id, &format!("there is a container {name}")))
            }
            Err(error) => {
                let is_mount = error.to_string().contains("mount");
                let code = match status(&error) {
                    Some(404) if is_absent_image(&error) => Code::SandboxImageNotFound,
                    Some(400) if is_mount => Code::VolumeMountFailed,
                    _ => Code::ContainerCreationFailed,
                };
                Err(of(error, &format!("container {name} was not created"), code)
                    .with("projectId", config.project_id.as_str()))
            }
        }
    }

    async fn begin(&self, config: &SandboxConfig, id: &str, container: &str) -> Result<(), Error> {
        let (sandbox_id, project_id) = (id.to_owned(), config.project_id.clone());
        self.tracker.tell(SandboxEvent::Created { sandbox_id, project_id, container_id: container.into() });
        self.tracker.tell(SandboxEvent::Starting { sandbox_id: id.into() });
        let what = format!("container {container} was not started");
        let failed = |error| of(error, &what, Code::ContainerStartFailed).with("containerId", container);
        self.docker.start_container(container, None::<StartContainerOptions>).await.map_err(failed)?;
        let found = self.docker.inspect_container(container, None::<InspectContainerOptions>).await.map_err(failed)?;
        let state = found.state.unwrap_or_default();
        if state.running == Some(true) {
            return Ok(());
        }
        let (code, said) = (state.exit_code.unwrap_or(-1), state.error.unwrap_or_default());
        let message = format!("container {container} ended as soon as it was started, with exit code {code} {said}");
        Err(Error::new(Code::ContainerStartFailed, message.trim_end()).with("containerId", container))
    }
}
