//! Puts the CustomResourceDefinitions of the sandbox kinds into a cluster.

use std::{fmt, sync::LazyLock};

use serde_json::Value;

use super::{conversion, system};
use crate::{
    actor::{Api, Server},
    base::{Gvr, Object, Status},
};

/// Why the kinds could not be installed.
#[derive(Debug)]
pub enum InstallError {
    /// A manifest is not YAML, or no object.
    Manifest(String),
    /// The API refused an object.
    Refused {
        /// Name of the object.
        name: String,
        /// The API's answer.
        status: Status,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(why) => write!(f, "cannot read a definition's manifest: {why}"),
            Self::Refused { name, .. } => write!(f, "the API refused {name}"),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Manifest(_) => None,
            Self::Refused { status, .. } => Some(status),
        }
    }
}

/// The manifests of the definitions, as the project's typed client makes them.
const MANIFESTS: [&str; 4] = [
    include_str!("../../../manifests/crds/agents.x-k8s.io_sandboxes.yaml"),
    include_str!("../../../manifests/crds/extensions.agents.x-k8s.io_sandboxtemplates.yaml"),
    include_str!("../../../manifests/crds/extensions.agents.x-k8s.io_sandboxwarmpools.yaml"),
    include_str!("../../../manifests/crds/extensions.agents.x-k8s.io_sandboxclaims.yaml"),
];

/// The definitions of the sandbox kinds, read once per process.
///
/// # Panics
/// If a manifest of the project cannot be read, which a test would show.
pub fn definitions() -> &'static [Object] {
    static DEFINITIONS: LazyLock<Vec<Object>> = LazyLock::new(|| {
        MANIFESTS.iter().map(|text| definition(text).expect("the manifests of the project are read")).collect()
    });
    &DEFINITIONS
}

/// Reads a definition's manifest.
///
/// # Errors
/// If it is not YAML, or no object.
fn definition(manifest: &str) -> Result<Object, InstallError> {
    let value: Value = serde_saphyr::from_str(manifest).map_err(|error| InstallError::Manifest(error.to_string()))?;
    Object::from_value(value).ok_or_else(|| InstallError::Manifest("not a map".into()))
}

/// Creates these definitions; in this process' server also the namespace with what looks like an installation, and answers
/// for the webhook that converts between the kinds' versions. What exists already is left as it is.
///
/// # Errors
/// If the API refuses an object.
pub async fn install(server: &Server, definitions: &[Object]) -> Result<(), InstallError> {
    if let Server::Here(registry) = server {
        registry.answer_conversions(system::NAMESPACE, system::WEBHOOK, conversion::convert);
    }
    let api = Api::new(server.clone(), "system:admin", "kubectl-create");
    let gvr = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    for definition in definitions {
        match api.create(&gvr, definition.clone()).await {
            Err(status) if !status.is_already_exists() => {
                return Err(InstallError::Refused { name: definition.name().to_owned(), status });
            }
            Ok(_) | Err(_) => {}
        }
    }
    match server {
        Server::Here(_) => {
            let installed = system::install(&api).await;
            installed.map_err(|(name, status)| InstallError::Refused { name, status })
        }
        // A Deployment there would start upstream's controllers beside these.
        Server::There(_) => Ok(()),
    }
}
