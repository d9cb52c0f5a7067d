//! What a container finds around it: variables, words of its command, files of its volumes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Inner,
    api::{Api, core},
    shell::{
        decode_base64,
        fs::{Fs, Tree},
    },
};
use crate::base::{Object, Status, Stored};

/// The pod that a container belongs to.
pub(super) struct Context<'a> {
    pub(super) pod: &'a Stored,
    pub(super) host_ip: &'a str,
    pub(super) ip: Option<&'a str>,
}

/// The pod's host name.
pub(super) fn hostname(pod: &Object) -> String {
    let name = match pod.str_at(&["spec", "hostname"]) {
        "" => pod.name(),
        name => name,
    };
    let end = name.char_indices().map(|(at, _)| at).nth(63).unwrap_or(name.len()); // as in the kernel
    name[..end].trim_end_matches(['-', '.']).to_owned()
}

/// A container's variables; the inner error names a ConfigMap, Secret or key that must be there and is not, in the
/// kubelet's words (`pkg/kubelet/kubelet_pods.go`).
pub(super) async fn variables(
    api: &Api,
    context: &Context<'_>,
    spec: &Value,
) -> Result<Result<BTreeMap<String, String>, String>, Status> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), hostname(context.pod)),
        ("HOME".to_owned(), "/root".to_owned()),
        ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()),
    ]);
    let namespace = context.pod.namespace();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    for source in spec.get("envFrom").and_then(Value::as_array).into_iter().flatten() {
        for (field, resource, kind) in [("configMapRef", "configmaps", "configmap"), ("secretRef", "secrets", "secret")]
        {
            let Some(reference) = source.get(field) else { continue };
            let Some(object) = api.find(&core(resource), namespace, &text(reference, "name")).await? else {
                if is_optional(reference) {
                    continue;
                }
                return Ok(Err(format!("{kind} {:?} not found", text(reference, "name"))));
            };
            for (key, value) in data(&object) {
                let value = String::from_utf8_lossy(&value).into_owned();
                env.insert(format!("{}{key}", text(source, "prefix")), value);
            }
        }
    }
    for variable in spec.get("env").and_then(Value::as_array).into_iter().flatten() {
        let name = text(variable, "name");
        let value = match variable.get("valueFrom") {
            None => Some(expand(&text(variable, "value"), &env)),
            Some(from) => {
                if let Some(field) = from.get("fieldRef") {
                    field_value(context, &text(field, "fieldPath"))
                } else if let Some(reference) = from.get("configMapKeyRef") {
                    match key_value(api, ("configmaps", "configmap", "ConfigMap"), namespace, reference).await? {
                        Ok(value) => value,
                        Err(missing) => return Ok(Err(missing)),
                    }
                } else if let Some(reference) = from.get("secretKeyRef") {
                    match key_value(api, ("secrets", "secret", "Secret"), namespace, reference).await? {
                        Ok(value) => value,
                        Err(missing) => return Ok(Err(missing)),
                    }
                } else {
                    None
                }
            }
        };
        if let Some(value) = value {
            env.insert(name, value);
        }
    }
    Ok(Ok(env))
}

fn is_optional(reference: &Value) -> bool {
    reference.get("optional").and_then(Value::as_bool).unwrap_or_default()
}

/// The value of a key; the inner error says what is missing, unless it may be.
async fn key_value(
    api: &Api,
    (resource, lower, kind): (&str, &str, &str),
    namespace: &str,
    reference: &Value,
) -> Result<Result<Option<String>, String>, Status> {
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    let (name, key) = (text("name"), text("key"));
    let Some(object) = api.find(&core(resource), namespace, name).await? else {
        let missing = format!("{lower} {name:?} not found");
        return Ok(if is_optional(reference) { Ok(None) } else { Err(missing) });
    };
    Ok(match data(&object).remove(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if is_optional(reference) => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
    })
}

/// What a ConfigMap or a Secret holds.
fn data(object: &Object) -> BTreeMap<String, Vec<u8>> {
    let map = |field: &str| object.get(field).and_then(Value::as_object).into_iter().flatten();
    let plain = object.kind() != "Secret";
    let mut all = BTreeMap::new();
    for (key, value) in map("data") {
        let text = value.as_str().unwrap_or_default().as_bytes();
        all.insert(key.clone(), if plain { text.to_vec() } else { decode_base64(text).unwrap_or_default() });
    }
    for (key, value) in map("binaryData") {
        all.insert(key.clone(), decode_base64(value.as_str().unwrap_or_default().as_bytes()).unwrap_or_default());
    }
    all
}

/// The downward API.
fn field_value(context: &Context<'_>, path: &str) -> Option<String> {
    let pod = context.pod;
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels['") {
        return Some(pod.label(key).unwrap_or_default().into());
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return Some(pod.annotation(key).unwrap_or_default().into());
    }
    let lines = |map: BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
    };
    match path {
        "status.podIP" | "status.podIPs" => context.ip.map(str::to_owned),
        "status.hostIP" | "status.hostIPs" => Some(context.host_ip.into()),
        "metadata.labels" => Some(lines(pod.labels())),
        "metadata.annotations" => Some(lines(pod.annotations())),
        path => {
            let path: Vec<&str> = path.split('.').collect();
            pod.at(&path).and_then(Value::as_str).map(str::to_owned)
        }
    }
}

/// Words of a command, with `$(NAME)` replaced.
pub(super) fn words(list: Option<&Value>, env: &BTreeMap<String, String>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(|word| expand(word, env)).collect()
}

/// Replaces `$(NAME)`; `$$` is a dollar sign, and what is not known stays (`third_party/forked/golang/expansion`).
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|after| after.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// A pod's volumes, made when they are first mounted, and shared by its containers.
#[derive(Default)]
pub(super) struct Volumes(BTreeMap<String, Tree>);

impl Volumes {
    /// The file system of a container, its volumes mounted.
    pub(super) async fn mount(
        &mut self,
        kubelet: &Arc<Inner>,
        context: &Context<'_>,
        spec: &Value,
    ) -> Result<Fs, Status> {
        let now = kubelet.clock().now();
        let mut fs = Fs::new(&hostname(context.pod), now);
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        for mount in spec.get("volumeMounts").and_then(Value::as_array).into_iter().flatten() {
            let name = text(mount, "name");
            let tree = match self.0.get(&name) {
                Some(tree) => tree.clone(),
                None => {
                    let volumes = context.pod.at(&["spec", "volumes"]).and_then(Value::as_array);
                    let volume = volumes.into_iter().flatten().find(|volume| text(volume, "name") == name);
                    let tree = match volume {
                        Some(volume) => tree(kubelet, context, volume, now).await?,
                        None => Tree::default(),
                    };
                    self.0.insert(name, tree.clone());
                    tree
                }
            };
            let read_only = mount.get("readOnly").and_then(Value::as_bool).unwrap_or_default();
            fs.mount(&text(mount, "mountPath"), tree, &text(mount, "subPath"), read_only, now);
        }
        if let Some(cwd) = spec.get("workingDir").and_then(Value::as_str) {
            let _ = fs.make_dir(cwd, true, now); // where a file stands instead, the program will say so
        }
        Ok(fs)
    }
}

async fn tree(kubelet: &Arc<Inner>, context: &Context<'_>, volume: &Value, now: Timestamp) -> Result<Tree, Status> {
    if let Some(claim) = super::scheduler::claim_of(context.pod, volume) {
        return Ok(kubelet.claim_tree(context.pod.namespace(), &claim));
    }
    let mut files = BTreeMap::new();
    for (source, in_projection) in [(volume, false)].into_iter().chain(
        volume
            .get("projected")
            .and_then(|p| p.get("sources"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|s| (s, true)),
    ) {
        for (field, resource, key) in [
            ("configMap", "configmaps", "name"),
            ("secret", "secrets", if in_projection { "name" } else { "secretName" }),
        ] {
            let Some(reference) = source.get(field) else { continue };
            let name = reference.get(key).and_then(Value::as_str).unwrap_or_default();
            let Some(object) = kubelet.node_api.find(&core(resource), context.pod.namespace(), name).await? else {
                continue;
            };
            let mut all = data(&object);
            match reference.get("items").and_then(Value::as_array) {
                None => files.append(&mut all),
                Some(items) => {
                    for item in items {
                        let text = |field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default();
                        if let Some(value) = all.remove(text("key")) {
                            files.insert(text("path").to_owned(), value);
                        }
                    }
                }
            }
        }
        let items = source.get("downwardAPI").and_then(|api| api.get("items")).and_then(Value::as_array);
        for item in items.into_iter().flatten() {
            let path = item.get("fieldRef").and_then(|field| field.get("fieldPath")).and_then(Value::as_str);
            let value = path.and_then(|path| field_value(context, path));
            if let (Some(value), Some(file)) = (value, item.get("path").and_then(Value::as_str)) {
                files.insert(file.to_owned(), value.into_bytes());
            }
        }
        if let Some(wanted) = source.get("serviceAccountToken") {
            let path = wanted.get("path").and_then(Value::as_str).unwrap_or("token");
            files.insert(path.to_owned(), kubelet.node_api.token(context.pod, wanted).await?.into_bytes());
        }
    }
    Ok(Tree::of_files(files, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_unknown_ones_stay() {
        let env = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
        assert_eq!(expand("$(A)-$$(A)-$(B)-$A-$", &env), "x-$(A)-$(B)-$A-$");
    }
}
