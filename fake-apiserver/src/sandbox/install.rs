//! Puts the CustomResourceDefinitions of the sandbox kinds into a cluster.

use std::fmt;

use serde_json::Value;

use crate::{
    actor::{Api, Server},
    base::{Gvr, Object, Status},
};

/// Why the definitions could not be installed.
#[derive(Debug)]
pub enum InstallError {
    /// A manifest is not YAML, or no object.
    Manifest(String),
    /// The API refused a definition.
    Refused {
        /// Name of the definition.
        name: String,
        /// The API's answer.
        status: Status,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(why) => write!(f, "cannot read a definition's manifest: {why}"),
            Self::Refused { name, .. } => write!(f, "the API refused the definition {name}"),
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

/// Reads a definition's manifest.
///
/// # Errors
/// If it is not YAML, or no object.
pub fn definition(manifest: &str) -> Result<Object, InstallError> {
    let value: Value = serde_saphyr::from_str(manifest).map_err(|error| InstallError::Manifest(error.to_string()))?;
    Object::from_value(value).ok_or_else(|| InstallError::Manifest("not a map".into()))
}

/// Creates these definitions. One that exists already is left as it is.
///
/// # Errors
/// If the API refuses one.
pub async fn install(server: &Server, definitions: &[Object]) -> Result<(), InstallError> {
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
    Ok(())
}
