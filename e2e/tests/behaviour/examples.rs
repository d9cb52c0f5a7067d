//! Real input: every v1beta1 Sandbox among upstream's examples becomes Ready on the fake.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use agent_sandbox_sdk::v1beta1::Sandbox;
use anyhow::{Context, Result, ensure};
use e2e::{Target, World, world::Steps};
use k8s_openapi::api::core::v1::{Node, PodSpec};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    discovery,
};
use serde_json::{Value, json};

/// `shared/upstream/examples` beside the workspace or further up.
fn examples() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    workspace.ancestors().skip(1).map(|dir| dir.join("shared/upstream/examples")).find(|dir| dir.is_dir())
}

/// The documents of a file. Some examples are templates for other tools and no YAML.
fn documents(text: &str) -> Vec<Value> {
    // `defaultMode: 0400` is octal for kubectl, which reads YAML 1.1.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).unwrap_or_default()
}

fn is_sandbox(document: &Value) -> bool {
    document["apiVersion"] == "agents.x-k8s.io/v1beta1" && document["kind"] == "Sandbox"
}

#[test]
fn every_example_becomes_ready() -> Result<()> {
    let Some(dir) = examples() else {
        eprintln!("not run: no folder shared/upstream/examples beside or above the workspace");
        return Ok(());
    };
    let mut files: Vec<_> = fs::read_dir(&dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut examples = Vec::new();
    for path in files {
        let documents = documents(&fs::read_to_string(&path)?);
        if documents.iter().any(is_sandbox) {
            examples.push((path, documents));
        }
    }
    ensure!(examples.len() >= 20, "only {} examples hold a Sandbox", examples.len());
    // One cluster for all, a namespace for each: to start a cluster takes longer than most examples.
    let story = async |world: &World| {
        for (path, documents) in examples {
            let own = world.another().await?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            example_becomes_ready(&own, documents).await.with_context(|| name)?;
            own.tear_down().await?;
        }
        Ok(())
    };
    Target::memory().run(Steps::new(|_| {}), story).0
}

/// Creates what the file holds and what it takes for granted, then waits for its Sandboxes.
async fn example_becomes_ready(world: &World, documents: Vec<Value>) -> Result<()> {
    let (sandboxes, others): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_sandbox);
    let mut present = BTreeSet::new();
    for other in others {
        let key = (text(&other["kind"]), text(&other["metadata"]["name"]));
        // A file may hold kinds of other projects, which no cluster has by itself.
        if create(world, other).await? {
            present.insert(key);
        }
    }
    for sandbox in &sandboxes {
        let typed: Sandbox = serde_json::from_value(sandbox.clone()).context("it fits our type")?;
        provide(world, &typed.spec.pod_template.spec, &typed, &mut present).await?;
    }
    let mut names = Vec::new();
    for sandbox in sandboxes {
        names.push(text(&sandbox["metadata"]["name"]));
        ensure!(create(world, sandbox).await?, "the kind Sandbox is served");
    }
    for name in names {
        world.sandboxes().wait_ready(&name, world.deadline()).await.with_context(|| format!("sandbox {name}"))?;
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Creates an object as it stands, but in the scenario's namespace. Says whether its kind is served.
async fn create(world: &World, mut object: Value) -> Result<bool> {
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let gvk = GroupVersionKind::gvk(group, version, &kind);
    let Ok((resource, capabilities)) = discovery::pinned_kind(&world.client(), &gvk).await else {
        return Ok(false);
    };
    let metadata = object["metadata"].as_object_mut().context("an object has metadata")?;
    metadata.remove("namespace");
    let namespaced = capabilities.scope == discovery::Scope::Namespaced;
    let api = api(world.client(), &resource, namespaced.then(|| world.namespace()));
    let typed: DynamicObject = serde_json::from_value(object)?;
    match api.create(&PostParams::default(), &typed).await {
        // Another example has brought it along.
        Err(kube::Error::Api(status)) if status.is_already_exists() && !namespaced => {}
        made => drop(made.with_context(|| format!("{kind} {} is not taken", typed.name_any()))?),
    }
    Ok(true)
}

fn api(client: Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

/// Makes what an example expects the cluster to have: service accounts, configuration, claims, runtime classes, and a
/// node with the labels that it selects.
async fn provide(
    world: &World,
    pod: &PodSpec,
    sandbox: &Sandbox,
    present: &mut BTreeSet<(String, String)>,
) -> Result<()> {
    let mut wanted: Vec<Value> = Vec::new();
    if let Some(name) = &pod.service_account_name {
        wanted.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    }
    if let Some(name) = &pod.runtime_class_name {
        wanted.push(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
            "handler": "any"}));
    }
    // Whatever key of it is asked for, it is there.
    let mut keyed: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for container in pod.init_containers.iter().flatten().chain(&pod.containers) {
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if let Some(key) = &source.config_map_key_ref {
                keyed.entry(("ConfigMap", key.name.clone())).or_default().insert(key.key.clone());
            }
            if let Some(key) = &source.secret_key_ref {
                keyed.entry(("Secret", key.name.clone())).or_default().insert(key.key.clone());
            }
        }
        for source in container.env_from.iter().flatten() {
            keyed.extend(source.config_map_ref.iter().map(|r| (("ConfigMap", r.name.clone()), BTreeSet::new())));
            keyed.extend(source.secret_ref.iter().map(|r| (("Secret", r.name.clone()), BTreeSet::new())));
        }
    }
    for volume in pod.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            let keys = keyed.entry(("ConfigMap", source.name.clone())).or_default();
            keys.extend(source.items.iter().flatten().map(|item| item.key.clone()));
            keys.extend(files_named(pod, &volume.name));
        }
        if let Some(source) = &volume.secret {
            let keys = keyed.entry(("Secret", source.secret_name.clone().unwrap_or_default())).or_default();
            keys.extend(source.items.iter().flatten().map(|item| item.key.clone()));
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let of_sandbox = sandbox.spec.volume_claim_templates.iter().flatten().any(|template| {
                template.metadata.as_ref().and_then(|metadata| metadata.name.as_ref()) == Some(&volume.name)
            });
            if !of_sandbox {
                wanted.push(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"name": source.claim_name},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
            }
        }
    }
    for ((kind, name), keys) in keyed {
        let data: BTreeMap<_, _> = keys.into_iter().map(|key| (key, "value")).collect();
        let field = if kind == "Secret" { "stringData" } else { "data" };
        wanted.push(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data}));
    }
    for object in wanted {
        if present.insert((text(&object["kind"]), text(&object["metadata"]["name"]))) {
            let what = object["kind"].clone();
            ensure!(create(world, object).await?, "the kind {what} is served");
        }
    }
    if let Some(labels) = &pod.node_selector {
        let nodes = Api::<Node>::all(world.client());
        for node in nodes.list(&ListParams::default()).await? {
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await?;
        }
    }
    Ok(())
}

/// Files of a volume that the commands of a pod's containers name.
fn files_named(pod: &PodSpec, volume: &str) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for container in pod.init_containers.iter().flatten().chain(&pod.containers) {
        let words = container.command.iter().chain(&container.args).flatten().flat_map(|text| text.split_whitespace());
        let words: Vec<&str> = words.collect();
        for mount in container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume) {
            let inside = words.iter().filter_map(|word| word.strip_prefix(&mount.mount_path)?.strip_prefix('/'));
            files.extend(inside.map(str::to_owned));
        }
    }
    files
}
