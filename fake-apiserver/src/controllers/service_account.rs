//! What every namespace gets: the service account `default`, and the certificate to know the API server by.
//!
//! Upstream: `pkg/controller/serviceaccount/serviceaccounts_controller.go` and
//! `pkg/controller/certificates/rootcacertpublisher/publisher.go`.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Change, Outcome, Server, Source},
    base::{Gvr, Object, Status},
};

const ACCOUNT: &str = "default";
const CERTIFICATE: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                                endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                                guaranteed across distributions of Kubernetes clusters.";

fn namespaces() -> Gvr {
    Gvr::new("", "v1", "namespaces")
}

/// The namespaces themselves, and those in which an object of that name changes: both keyed by namespace.
fn sources(gvr: Gvr, name: &'static str) -> Vec<Source<String>> {
    vec![
        Source::all(namespaces(), |change| match change {
            Change::Applied { new, .. } => vec![new.name().to_owned()],
            Change::Gone(_) => Vec::new(),
        }),
        Source::all(gvr, |change| vec![change.object().namespace().to_owned()]).named(name),
    ]
}

/// Keeps a service account `default` in each active namespace, until the token is cancelled.
pub async fn run_default_account(server: Server, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:service-account-controller";
    let api = Api::new(server, user, KUBE_CONTROLLER_MANAGER);
    let sources = sources(service_accounts(), ACCOUNT);
    actor::run(api.clone(), sources, token, move |namespace| ensure_account(api.clone(), namespace)).await;
}

fn service_accounts() -> Gvr {
    Gvr::new("", "v1", "serviceaccounts")
}

async fn ensure_account(api: Api, namespace: String) -> Result<Outcome, Status> {
    let Some(live) = api.get(&namespaces(), "", &namespace).await? else { return Ok(Outcome::Done) };
    if live.str_at(&["status", "phase"]) != "Active" {
        return Ok(Outcome::Done);
    }
    if api.get(&service_accounts(), &namespace, ACCOUNT).await?.is_none() {
        let account = Object::new("v1", "ServiceAccount", &namespace, ACCOUNT);
        let created = api.create(&service_accounts(), account).await;
        tolerate(created.map(drop), |error| error.is_already_exists() || is_terminating(error))?;
    }
    Ok(Outcome::Done)
}

/// Keeps the certificate in each namespace, until the token is cancelled.
pub async fn run_root_ca(server: Server, root_ca: Arc<str>, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:root-ca-cert-publisher";
    let api = Api::new(server, user, KUBE_CONTROLLER_MANAGER);
    let sources = sources(config_maps(), CERTIFICATE);
    actor::run(api.clone(), sources, token, move |namespace| {
        ensure_certificate(api.clone(), root_ca.clone(), namespace)
    })
    .await;
}

fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

async fn ensure_certificate(api: Api, root_ca: Arc<str>, namespace: String) -> Result<Outcome, Status> {
    let Some(live) = api.get(&namespaces(), "", &namespace).await? else { return Ok(Outcome::Done) };
    if live.str_at(&["status", "phase"]) != "Active" {
        return Ok(Outcome::Done);
    }
    let old = api.get(&config_maps(), &namespace, CERTIFICATE).await?;
    let Some(new) = certificate(old.as_deref().map(|old| old.object()), &namespace, &root_ca) else {
        return Ok(Outcome::Done);
    };
    let written = match old {
        None => api.create(&config_maps(), new).await,
        Some(_) => api.update(&config_maps(), new, "").await,
    };
    // The namespace may go, or have gone, meanwhile; then there is nothing to do.
    tolerate(written.map(drop), |error| error.is_not_found() || is_terminating(error))?;
    Ok(Outcome::Done)
}

/// The config map as it should be; `None` if it is so.
fn certificate(old: Option<&Object>, namespace: &str, root_ca: &str) -> Option<Object> {
    let data = json!({"ca.crt": root_ca});
    let Some(old) = old else {
        let mut new = Object::new("v1", "ConfigMap", namespace, CERTIFICATE);
        new.set_at(&["metadata", "annotations"], json!({DESCRIPTION: DESCRIPTION_TEXT}));
        new.set("data", data);
        return Some(new);
    };
    let described = old.annotation(DESCRIPTION).is_some_and(|text| !text.is_empty());
    if described && old.get("data") == Some(&data) {
        return None;
    }
    let mut new = old.clone();
    new.set("data", data);
    if old.annotation(DESCRIPTION).is_none() {
        new.set_at(&["metadata", "annotations", DESCRIPTION], DESCRIPTION_TEXT);
    }
    Some(new)
}

fn tolerate(result: Result<(), Status>, harmless: impl Fn(&Status) -> bool) -> Result<(), Status> {
    match result {
        Err(error) if !harmless(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_terminating(error: &Status) -> bool {
    let causes = error.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_whole_and_left_alone_when_it_is() {
        let made = certificate(None, "ns", "PEM").unwrap();
        assert_eq!(made.str_at(&["data", "ca.crt"]), "PEM");
        assert!(made.annotation(DESCRIPTION).unwrap().starts_with("Contains a CA bundle that can be used to verify"));
        assert_eq!(certificate(Some(&made), "ns", "PEM"), None);

        let mut edited = made.clone();
        edited.set("data", json!({"ca.crt": "PEM", "more": "x"}));
        assert_eq!(certificate(Some(&edited), "ns", "PEM").as_ref(), Some(&made));

        let mut bare = made.clone();
        bare.remove_at(&["metadata", "annotations"]);
        assert_eq!(certificate(Some(&bare), "ns", "PEM"), Some(made));
    }
}
