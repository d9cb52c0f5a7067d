//! Turns the manifests of the Agent Sandbox kinds into JSON: at run time their YAML would be the greater part of a start.

use std::{env, error::Error, fs, path::Path};

use serde_json::Value;

const MANIFESTS: [&str; 4] = [
    "agents.x-k8s.io_sandboxes",
    "extensions.agents.x-k8s.io_sandboxtemplates",
    "extensions.agents.x-k8s.io_sandboxwarmpools",
    "extensions.agents.x-k8s.io_sandboxclaims",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    println!("cargo::rerun-if-changed=build.rs");
    for name in MANIFESTS {
        let manifest = Path::new("../manifests/crds").join(name).with_added_extension("yaml");
        println!("cargo::rerun-if-changed={}", manifest.display());
        let value: Value = serde_saphyr::from_str(&fs::read_to_string(&manifest)?)?;
        fs::write(Path::new(&out).join(name).with_added_extension("json"), value.to_string())?;
    }
    Ok(())
}
