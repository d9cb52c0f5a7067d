//! Images, as far as a cluster lets one: its nodes tell what they have, and a pod brings one to a node.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use super::{
    Inner,
    failures::{of_kube, pod_failure},
};
use crate::{Code, Error, labels};

/// Whether two names are of the same image: a name without registry or tag has the usual ones.
fn is_same(a: &str, b: &str) -> bool {
    full(a) == full(b)
}

fn full(image: &str) -> String {
    let (first, rest) = image.split_once('/').map_or((None, image), |(first, rest)| (Some(first), rest));
    let has_registry = first.is_some_and(|first| first.contains(['.', ':']) || first == "localhost");
    let mut name = match (has_registry, first) {
        (true, _) => image.to_owned(),
        (false, Some(_)) => format!("docker.io/{image}"),
        (false, None) => format!("docker.io/library/{rest}"),
    };
    if !name.contains('@') && !name.rsplit('/').next().unwrap_or_default().contains(':') {
        name.push_str(":latest");
    }
    name
}

fn named(image: &str) -> Result<(), Error> {
    if image.trim().is_empty() || image.contains(char::is_whitespace) {
        let message = format!("{image:?} is no name of an image");
        return Err(Error::new(Code::ImageNotFound, message).with("image", image));
    }
    Ok(())
}

impl Inner {
    /// Whether a node says that it has the image. A node names some fifty at most, so that a no may be wrong.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, Error> {
        if named(image).is_err() {
            return Ok(false);
        }
        let nodes = Api::<Node>::all(self.client.kube()).list(&ListParams::default().limit(500)).await;
        let nodes =
            nodes.map_err(|error| of_kube(error, "the nodes were not asked for their images", Code::ApiError))?;
        let images = nodes.items.iter().flat_map(|node| node.status.iter().flat_map(|status| status.images.iter()));
        let mut names = images.flatten().flat_map(|image| image.names.iter().flatten());
        Ok(names.any(|name| is_same(name, image)))
    }

    /// Brings the image to a node by a pod that does nothing with it.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Error> {
        named(image)?;
        self.prepare().await?;
        let pods = Api::<Pod>::namespaced(self.client.kube(), self.client.namespace());
        let name = format!("agentpane-pull-{}", labels::new_id());
        let pod = json!({
            "metadata": {"name": name, "labels": {labels::MANAGED: "true"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "activeDeadlineSeconds": self.options.ready_timeout.as_secs().max(1),
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": labels::USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "pull",
                    "image": image,
                    "command": ["true"],
                    "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod by construction");
        let failed = |error| of_kube(error, &format!("no pod could be made to pull {image}"), Code::ImagePullFailed);
        pods.create(&PostParams::default(), &pod).await.map_err(failed)?;
        let pulled = await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
            let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
            // The runtime names the image once it has it, whether or not the container then runs.
            statuses.into_iter().flatten().any(|status| !status.image_id.is_empty())
        });
        let timeout = self.options.ready_timeout;
        let outcome = tokio::select! {
            pulled = pulled => pulled.map(|_| ()).map_err(|error| {
                Error::new(Code::ImagePullFailed, format!("the pull of {image} was lost sight of")).because(error)
            }),
            error = pod_failure(pods.clone(), &name, self.options.unschedulable_grace) => Err(error),
            () = tokio::time::sleep(timeout) => {
                let message = format!("image {image} was not pulled within {timeout:?}");
                Err(Error::new(Code::ImagePullFailed, message))
            }
        };
        if let Err(error) = pods.delete(&name, &DeleteParams::default().grace_period(0)).await {
            tracing::warn!(pod = name, %error, "a pod that has pulled an image is not deleted");
        }
        outcome.map_err(|error| error.with("image", image))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("busybox", "docker.io/library/busybox:latest", true)]
    #[case("srlynch1/agent-sandbox:latest", "docker.io/srlynch1/agent-sandbox", true)]
    #[case("localhost:5000/a", "localhost:5000/a:latest", true)]
    #[case("a:1", "a:2", false)]
    #[case("ghcr.io/x/a:1", "x/a:1", false)]
    fn images_are_compared_by_their_full_names(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
        assert_eq!(is_same(a, b), same);
    }
}
