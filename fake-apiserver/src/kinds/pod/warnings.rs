//! What upstream warns of in pods and pod templates (`pkg/api/pod/warnings.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::{
    storage,
    util::{as_quantity, at, child, get, has, indexed, int, int_or_zero, items, members, strings, text},
    warnings::{ip, label_as_name},
};
use crate::base::{Object, names, quantity::Quantity, status::go_quote};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Labels of nodes that have other names now.
const OLD_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Annotations that nothing reads any more.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Volumes that went out of use; the second is the name that upstream shows.
const OLD_VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What is said of a node's label that has another name now.
pub(in super::super) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why)
}

/// Warnings of a new pod; an update has none.
pub(in super::super) fn of_pod(new: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let value = new.to_value();
    let mut warnings = label_as_name(new, "this is used in the Pod's hostname");
    let spec = get(&value, "spec");
    warnings.extend(armor_annotations(&value, "", true));
    warnings.extend(of(spec, get(&value, "metadata"), ""));
    warnings
}

/// Warnings of a pod template at a path.
pub(in super::super) fn of_template(template: &Value, path: &str) -> Vec<String> {
    if template.is_null() { Vec::new() } else { of(get(template, "spec"), get(template, "metadata"), path) }
}

/// Warnings of a node selector's term.
pub(in super::super) fn of_node_term(term: &Value, values: bool, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (path, expression) in indexed(term, path, "matchExpressions") {
        let key = text(expression, "key");
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.key: {key} is {why}"));
        }
        for (path, value) in indexed(expression, &path, "values").filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            warnings.extend(names::label_value(value).iter().map(|why| format!("{path}: {value} is invalid, {why}")));
        }
    }
    warnings
}

fn of(spec: &Value, metadata: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let (at_spec, at_meta) = (child(path, "spec"), child(path, "metadata.annotations"));
    let annotations = strings(metadata, "annotations");
    scheduling(&mut warnings, spec, &at_spec);
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.contains_key(*key)) {
        warnings.push(format!("{at_meta}[{key}]: {why}"));
    }
    for (path, volume) in indexed(spec, &at_spec, "volumes") {
        for (_, shown, why) in OLD_VOLUMES.iter().filter(|(key, ..)| has(volume, key)) {
            warnings.push(format!("{path}.{shown}: {why}"));
        }
        let template = at(volume, &["ephemeral", "volumeClaimTemplate"]);
        if !template.is_null() {
            let path = format!("{path}.ephemeral.volumeClaimTemplate.spec");
            warnings.extend(storage::claim_spec_warnings(get(template, "spec"), &path));
        }
    }
    overlaps(&mut warnings, spec);
    duplicates(&mut warnings, spec, &at_spec, "hostAliases", "ip");
    duplicates(&mut warnings, spec, &at_spec, "imagePullSecrets", "name");
    for (path, secret) in indexed(spec, &at_spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{path}.name: invalid empty name \"\""));
        }
    }
    fractions(&mut warnings, get(spec, "overhead"), &child(&at_spec, "overhead"));
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    if at(spec, &["securityContext", "seccompProfile"]).is_null() && annotations.contains_key(key) {
        warnings.push(format!("{at_meta}[{key}]: {seccomp}"));
    }
    let armor = armor_annotations_by_container(spec, metadata, path, false);
    for (path, container) in containers(spec, &at_spec) {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", text(container, "name"));
        if at(container, &["securityContext", "seccompProfile"]).is_null() && annotations.contains_key(&key) {
            warnings.push(format!("{at_meta}[{key}]: {seccomp}"));
        }
        if at_spec != "spec" {
            warnings.extend(armor.get(text(container, "name")).cloned());
        }
        // upstream looks at memory in both lists first, then at storage
        for name in ["memory", "ephemeral-storage"] {
            for kind in ["limits", "requests"] {
                let path = format!("{path}.resources.{kind}");
                fraction(&mut warnings, at(container, &["resources", kind]), &path, name);
            }
        }
        variables(&mut warnings, container, &path);
    }
    ports(&mut warnings, spec, &at_spec);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{at_spec}.terminationGracePeriodSeconds: {why}"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (at(spec, &["affinity", kind]), format!("{at_spec}.affinity.{kind}"));
        let none = "a null labelSelector results in matching no pod";
        for (path, _) in indexed(terms, &path, REQUIRED).filter(|(_, term)| !has(term, "labelSelector")) {
            warnings.push(format!("{path}.labelSelector: {none}"));
        }
        for (path, term) in indexed(terms, &path, PREFERRED) {
            if !has(get(term, "podAffinityTerm"), "labelSelector") {
                warnings.push(format!("{path}.podAffinityTerm.labelSelector: {none}"));
            }
        }
    }
    for (path, server) in indexed(get(spec, "dnsConfig"), &child(&at_spec, "dnsConfig"), "nameservers") {
        warnings.extend(ip(&path, server.as_str().unwrap_or_default()));
    }
    for (path, alias) in indexed(spec, &at_spec, "hostAliases") {
        warnings.extend(ip(&format!("{path}.ip"), text(alias, "ip")));
    }
    warnings
}

fn scheduling(warnings: &mut Vec<String>, spec: &Value, path: &str) {
    for (key, _) in members(spec, "nodeSelector") {
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    let affinity = at(spec, &["affinity", "nodeAffinity"]);
    let field = format!("{path}.affinity.nodeAffinity");
    for (path, term) in indexed(get(affinity, REQUIRED), &child(&field, REQUIRED), "nodeSelectorTerms") {
        warnings.extend(of_node_term(term, false, &path));
    }
    for (path, term) in indexed(affinity, &field, PREFERRED) {
        warnings.extend(of_node_term(get(term, "preference"), true, &child(&path, "preference")));
    }
    for (path, constraint) in indexed(spec, path, "topologySpreadConstraints") {
        let key = text(constraint, "topologyKey");
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.topologyKey: {key} is {why}"));
        }
        if !has(constraint, "labelSelector") {
            warnings.push(format!("{path}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
}

/// All containers with their paths, in upstream's order.
fn containers<'a>(spec: &'a Value, path: &'a str) -> impl Iterator<Item = (String, &'a Value)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(move |list| indexed(spec, path, list))
}

fn duplicates(warnings: &mut Vec<String>, spec: &Value, path: &str, list: &str, key: &str) {
    let mut seen = BTreeSet::new();
    for (path, item) in indexed(spec, path, list) {
        let value = text(item, key);
        if !seen.insert(value) {
            warnings.push(format!("{path}.{key}: duplicate {key} {}", go_quote(value)));
        }
    }
}

fn fractions(warnings: &mut Vec<String>, amounts: &Value, path: &str) {
    for name in ["memory", "ephemeral-storage"] {
        fraction(warnings, amounts, path, name);
    }
}

fn fraction(warnings: &mut Vec<String>, amounts: &Value, path: &str, name: &str) {
    if let Some(amount) = as_quantity(get(amounts, name)).filter(Quantity::is_fractional) {
        let shown = go_quote(&amount.to_string());
        warnings.push(format!("{path}[{name}]: fractional byte value {shown} is invalid, must be an integer"));
    }
}

fn variables(warnings: &mut Vec<String>, container: &Value, path: &str) {
    let mut seen = BTreeSet::new();
    for (path, variable) in indexed(container, path, "env") {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let reference = format!("$({name})");
        let builds_on = !has(variable, "valueFrom") && value != reference && value.contains(&reference);
        if !seen.insert(name) && !builds_on {
            let quoted = go_quote(name);
            warnings
                .push(format!("{path}: hides previous definition of {quoted}, which may be dropped when using apply"));
        }
    }
}

/// Where ports stand, with their host's address and port.
type Places<'a> = Vec<(String, &'a str, i64)>;

fn ports(warnings: &mut Vec<String>, spec: &Value, path: &str) {
    let mut taken: BTreeMap<(i64, &str), Places<'_>> = BTreeMap::new();
    let all = || containers(spec, path).flat_map(|(path, container)| indexed(container, &path, "ports"));
    for (path, port) in all() {
        let (number, protocol) = (int_or_zero(port, "containerPort"), text(port, "protocol"));
        let (ip, host) = (text(port, "hostIP"), int_or_zero(port, "hostPort"));
        if !ip.is_empty() && host == 0 {
            let name = text(port, "name");
            warnings.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{name} HostPort:{host} ContainerPort:{number} \
                 Protocol:{protocol} HostIP:{ip}}}"
            ));
        }
        let others = taken.entry((number, protocol)).or_default();
        for (other, other_ip, other_host) in others.iter() {
            let how = if ip == *other_ip && host == *other_host {
                "duplicate"
            } else if host == 0 || *other_host == 0 {
                "overlapping"
            } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!("{path}: {how} port definition with {other}"));
        }
        others.push((path, ip, host));
    }
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for (path, port) in all() {
        let name = text(port, "name");
        if name.is_empty() {
            continue;
        }
        match named.get(name) {
            Some(other) => warnings.push(format!(
                "{path}: duplicate port name {} with {other}, services and probes that select ports by name will use \
                 {other}",
                go_quote(name)
            )),
            None => {
                named.insert(name, path);
            }
        }
    }
}

/// A path in a volume, and what is mapped to it.
type Mapped = (String, String);

fn shown((path, source): &Mapped) -> String {
    if source.is_empty() { go_quote(path) } else { format!("{} ({source})", go_quote(path)) }
}

fn overlaps(warnings: &mut Vec<String>, spec: &Value) {
    for volume in items(spec, "volumes") {
        let name = go_quote(text(volume, "name"));
        let named = |kind: &str, name: &str| format!("{kind} {}", go_quote(name));
        let plain = [
            ("configMap", named("ConfigMap", text(get(volume, "configMap"), "name"))),
            ("secret", named("Secret", text(get(volume, "secret"), "secretName"))),
            ("downwardAPI", "DownwardAPI".to_owned()),
        ];
        for (key, what) in plain {
            let mut seen = Vec::new();
            for item in items(get(volume, key), "items") {
                clash(warnings, &mut seen, (text(item, "path").to_owned(), String::new()), &name, &what);
            }
        }
        let mut seen = Vec::new();
        for source in items(get(volume, "projected"), "sources") {
            if source.as_object().is_none_or(|source| source.values().all(Value::is_null)) {
                warnings.push(format!("volume {name} (Projected) has no sources provided"));
                continue;
            }
            for mapped in projected(source) {
                clash(warnings, &mut seen, mapped, &name, "Projected");
            }
        }
    }
}

/// The paths of one source of a projected volume.
fn projected(source: &Value) -> Vec<Mapped> {
    let named = |kind: &str, name: &str| format!("{kind} {}", go_quote(name));
    let list = |key: &str, what: String| -> Vec<Mapped> {
        items(get(source, key), "items").iter().map(|item| (text(item, "path").to_owned(), what.clone())).collect()
    };
    let with_items = |key: &str| !items(get(source, key), "items").is_empty();
    let path = |key: &str, member: &str| text(get(source, key), member).to_owned();
    if with_items("configMap") {
        list("configMap", named("ConfigMap", &path("configMap", "name")))
    } else if with_items("secret") {
        list("secret", named("Secret", &path("secret", "name")))
    } else if with_items("downwardAPI") {
        list("downwardAPI", "DownwardAPI".into())
    } else if has(source, "serviceAccountToken") {
        vec![(path("serviceAccountToken", "path"), "ServiceAccountToken".into())]
    } else if has(source, "clusterTrustBundle") {
        let bundle = get(source, "clusterTrustBundle");
        let name = if has(bundle, "name") { text(bundle, "name") } else { text(bundle, "signerName") };
        vec![(path("clusterTrustBundle", "path"), named("ClusterTrustBundle", name))]
    } else {
        let parts =
            [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
        let paths = parts.map(|(key, what)| (path("podCertificate", key), format!("PodCertificate {what}")));
        paths.into_iter().filter(|(path, _)| !path.is_empty()).collect()
    }
}

fn clash(warnings: &mut Vec<String>, seen: &mut Vec<Mapped>, (path, source): Mapped, volume: &str, what: &str) {
    let this = (path.trim_end_matches('/').to_owned(), source);
    let below = |inner: &str, outer: &str| format!("{inner}/").starts_with(&format!("{outer}/"));
    for other in seen.iter().filter(|other| !this.0.is_empty() && !other.0.is_empty()) {
        if below(&other.0, &this.0) || below(&this.0, &other.0) {
            let (this, other) = (shown(&this), shown(other));
            warnings.push(format!("volume {volume} ({what}): overlapping paths: {this} with {other}"));
        }
    }
    seen.push(this);
}

/// What stands before a container's name in the annotation of its AppArmor profile.
pub(super) const ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The profile that an AppArmor annotation stands for, `None` where it stands for none.
pub(super) fn armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(serde_json::json!({"type": "Unconfined"})),
        "runtime/default" => Some(serde_json::json!({"type": "RuntimeDefault"})),
        other => {
            let path = other.strip_prefix("localhost/").filter(|path| !path.is_empty())?;
            Some(serde_json::json!({"type": "Localhost", "localhostProfile": path}))
        }
    }
}

fn armor_annotations(object: &Value, path: &str, pod: bool) -> Vec<String> {
    armor_annotations_by_container(get(object, "spec"), get(object, "metadata"), path, pod).into_values().collect()
}

/// What is said of AppArmor annotations, by container. A pod's field was filled from its annotation before, so there the
/// two agreeing is what is told of (`applyAppArmorVersionSkew`).
fn armor_annotations_by_container(spec: &Value, metadata: &Value, path: &str, pod: bool) -> BTreeMap<String, String> {
    let annotations = strings(metadata, "annotations");
    let whole = at(spec, &["securityContext", "appArmorProfile"]);
    let mut told = BTreeMap::new();
    for (_, container) in containers(spec, "") {
        let name = text(container, "name");
        let key = format!("{ARMOR}{name}");
        let Some(annotation) = annotations.get(&key) else { continue };
        let (profile, own) = (armor_profile(annotation), at(container, &["securityContext", "appArmorProfile"]));
        let same = profile.as_ref() == Some(whole);
        let old = if pod { profile.is_none() && own.is_null() || profile.as_ref() == Some(own) } else { own.is_null() };
        if old && !same {
            let field = child(path, "metadata.annotations");
            let why = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            told.insert(name.to_owned(), format!("{field}[{key}]: {why}"));
        }
    }
    told
}
