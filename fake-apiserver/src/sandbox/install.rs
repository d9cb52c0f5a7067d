//! Puts the CustomResourceDefinitions of the sandbox kinds into a cluster.

use std::fmt;

use super::{conversion, system};
use crate::{
    actor::{Api, Server},
    base::{Gvr, Object, Status},
};

/// Why the kinds could not be installed.
#[derive(Debug)]
pub enum InstallError {
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
            Self::Refused { name, .. } => write!(f, "the API refused {name}"),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { status, .. } => Some(status),
        }
    }
}

/// The definitions, as JSON made of the manifests that the project's typed client writes.
const DEFINITIONS: [&str; 4] = [
    include_str!(concat!(env!("OUT_DIR"), "/agents.x-k8s.io_sandboxes.json")),
    include_str!(concat!(env!("OUT_DIR"), "/extensions.agents.x-k8s.io_sandboxtemplates.json")),
    include_str!(concat!(env!("OUT_DIR"), "/extensions.agents.x-k8s.io_sandboxwarmpools.json")),
    include_str!(concat!(env!("OUT_DIR"), "/extensions.agents.x-k8s.io_sandboxclaims.json")),
];

/// The definitions of the sandbox kinds. Each is read when it is asked for: as values they are large.
///
/// # Panics
/// If a definition of the project cannot be read, which a test would show.
pub fn definitions() -> impl Iterator<Item = Object> {
    DEFINITIONS.into_iter().map(|text| serde_json::from_str(text).expect("the definitions of the project are read"))
}

/// Creates these definitions; in this process' server also the namespace with what looks like an installation, and answers
/// for the webhook that converts between the kinds' versions. What exists already is left as it is.
///
/// # Errors
/// If the API refuses an object.
pub async fn install(server: &Server, definitions: impl IntoIterator<Item = Object>) -> Result<(), InstallError> {
    if let Server::Here(registry) = server {
        registry.answer_conversions(system::NAMESPACE, system::WEBHOOK, conversion::convert);
    }
    let api = Api::new(server.clone(), "system:admin", "kubectl-create");
    let gvr = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    for definition in definitions {
        let name = definition.name().to_owned();
        match api.create(&gvr, definition).await {
            Err(status) if !status.is_already_exists() => return Err(InstallError::Refused { name, status }),
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
