//! Built-in kinds: k8s-openapi's schemas, joined with the facts on lists and maps that those lack.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use super::{Checks, Has, ListType, Node, Schema, Type, gotypes};

/// One root of the built-in definitions.
struct Root {
    api_version: &'static str,
    kind: &'static str,
    definition: &'static str,
    generate: fn(&mut SchemaGenerator),
}

fn generate<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let _ = generator.subschema_for::<T>();
}

macro_rules! root {
    ($api_version:literal $prefix:literal [$($path:ident)::+] $kind:ident) => {
        Root {
            api_version: $api_version,
            kind: stringify!($kind),
            definition: concat!($prefix, ".", stringify!($kind)),
            generate: generate::<$($path)::+::$kind>,
        }
    };
}

macro_rules! roots {
    ($($api_version:literal $prefix:literal $path:tt { $($kind:ident)* })*) => {
        static ROOTS: &[Root] = &[$($(root!($api_version $prefix $path $kind),)*)*];
    };
}

roots! {
    "v1" "io.k8s.api.core.v1" [api::core::v1] {
        Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim
        Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
    }
    "apps/v1" "io.k8s.api.apps.v1" [api::apps::v1] { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    "events.k8s.io/v1" "io.k8s.api.events.v1" [api::events::v1] { Event }
    "authentication.k8s.io/v1" "io.k8s.api.authentication.v1" [api::authentication::v1] {
        SelfSubjectReview TokenRequest TokenReview
    }
    "authorization.k8s.io/v1" "io.k8s.api.authorization.v1" [api::authorization::v1] {
        LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    }
    "autoscaling/v1" "io.k8s.api.autoscaling.v1" [api::autoscaling::v1] { HorizontalPodAutoscaler Scale }
    "autoscaling/v2" "io.k8s.api.autoscaling.v2" [api::autoscaling::v2] { HorizontalPodAutoscaler }
    "batch/v1" "io.k8s.api.batch.v1" [api::batch::v1] { CronJob Job }
    "certificates.k8s.io/v1" "io.k8s.api.certificates.v1" [api::certificates::v1] { CertificateSigningRequest }
    "coordination.k8s.io/v1" "io.k8s.api.coordination.v1" [api::coordination::v1] { Lease }
    "discovery.k8s.io/v1" "io.k8s.api.discovery.v1" [api::discovery::v1] { EndpointSlice }
    "flowcontrol.apiserver.k8s.io/v1" "io.k8s.api.flowcontrol.v1" [api::flowcontrol::v1] {
        FlowSchema PriorityLevelConfiguration
    }
    "networking.k8s.io/v1" "io.k8s.api.networking.v1" [api::networking::v1] {
        IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR
    }
    "node.k8s.io/v1" "io.k8s.api.node.v1" [api::node::v1] { RuntimeClass }
    "policy/v1" "io.k8s.api.policy.v1" [api::policy::v1] { Eviction PodDisruptionBudget }
    "rbac.authorization.k8s.io/v1" "io.k8s.api.rbac.v1" [api::rbac::v1] { ClusterRole ClusterRoleBinding Role RoleBinding }
    "resource.k8s.io/v1" "io.k8s.api.resource.v1" [api::resource::v1] {
        DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice
    }
    "scheduling.k8s.io/v1" "io.k8s.api.scheduling.v1" [api::scheduling::v1] { PriorityClass }
    "storage.k8s.io/v1" "io.k8s.api.storage.v1" [api::storage::v1] {
        CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
    }
    "admissionregistration.k8s.io/v1" "io.k8s.api.admissionregistration.v1" [api::admissionregistration::v1] {
        MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
    }
    "apiextensions.k8s.io/v1" "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
        [apiextensions_apiserver::pkg::apis::apiextensions::v1] { CustomResourceDefinition }
    "apiregistration.k8s.io/v1" "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"
        [kube_aggregator::pkg::apis::apiregistration::v1] { APIService }
    "meta.k8s.io/v1" "io.k8s.apimachinery.pkg.apis.meta.v1" [apimachinery::pkg::apis::meta::v1] {
        DeleteOptions LabelSelector ObjectMeta Status
    }
}

/// Facts on a definition's members; `""` is the definition itself.
type Facts = BTreeMap<String, BTreeMap<String, Map<String, Value>>>;

static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let by_short: BTreeMap<String, _> =
        serde_json::from_str(include_str!("builtin-lists.json")).expect("the facts are JSON");
    by_short.into_iter().map(|(short, facts)| (full_name(&short), facts)).collect()
});

/// Definitions compiled so far, by name.
static NODES: Mutex<BTreeMap<String, Arc<Node>>> = Mutex::new(BTreeMap::new());

/// Whole schemas asked for so far, by name.
static SCHEMAS: Mutex<BTreeMap<String, Arc<Schema>>> = Mutex::new(BTreeMap::new());

/// `core.v1.PodSpec` becomes `io.k8s.api.core.v1.PodSpec`.
fn full_name(short: &str) -> String {
    let prefix = match short.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis",
        Some(_) | None => "io.k8s.api",
    };
    format!("{prefix}.{short}")
}

/// The definition of a built-in kind.
pub(super) fn definition_of(api_version: &str, kind: &str) -> Option<&'static str> {
    ROOTS.iter().find(|root| root.api_version == api_version && root.kind == kind).map(|root| root.definition)
}

/// The schema of a definition, compiled on first use.
///
/// # Panics
/// If there is no such definition.
pub(super) fn schema(definition: &str) -> Arc<Schema> {
    if let Some(schema) = lock(&SCHEMAS).get(definition) {
        return Arc::clone(schema);
    }
    let root = node(definition).unwrap_or_else(|| panic!("{definition} is no built-in definition"));
    let schema = Arc::new(Schema { root, builtin: true });
    Arc::clone(lock(&SCHEMAS).entry(definition.to_owned()).or_insert(schema))
}

/// A poisoned lock still guards a whole map: entries are made before they are put in.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn node(definition: &str) -> Option<Arc<Node>> {
    let mut known = lock(&NODES);
    if let Some(node) = known.get(definition) {
        return Some(Arc::clone(node));
    }
    let root = ROOTS.iter().find(|root| root.definition == definition);
    // A part of a kind: every root is looked into, once per process and part.
    for root in root.map_or(ROOTS, std::slice::from_ref) {
        let mut generator = SchemaGenerator::default();
        (root.generate)(&mut generator);
        let definitions = generator.take_definitions(false);
        if definitions.contains_key(definition) {
            let mut compiler = Compiler { definitions: &definitions, known: &mut known, open: Vec::new() };
            return compiler.definition(definition);
        }
    }
    None
}

struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    known: &'a mut BTreeMap<String, Arc<Node>>,
    /// Definitions under way, to cut recursion.
    open: Vec<String>,
}

impl Compiler<'_> {
    fn definition(&mut self, name: &str) -> Option<Arc<Node>> {
        if let Some(node) = self.known.get(name) {
            return Some(Arc::clone(node));
        }
        if self.open.iter().any(|open| open == name) {
            // A schema of schemas: whoever decodes the inner ones looks them up by their name.
            let definition = name.to_owned();
            let kind = Some(Type::Object);
            return Some(Arc::new(Node { kind, preserve_unknown: true, definition, ..Node::default() }));
        }
        let source = self.definitions.get(name)?.as_object()?;
        self.open.push(name.to_owned());
        let facts = FACTS.get(name);
        let mut node = self.node(source, facts);
        self.open.pop();
        node.definition = name.to_owned();
        if let Some(own) = facts.and_then(|facts| facts.get("")) {
            apply_facts(&mut node, own);
        }
        gotypes::complete(name, &mut node);
        let node = Arc::new(node);
        self.known.insert(name.to_owned(), Arc::clone(&node));
        Some(node)
    }

    fn value(&mut self, source: &Value) -> Arc<Node> {
        let Some(source) = source.as_object() else { return Arc::new(Node::default()) };
        if let Some(reference) = source.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            if let Some(mut node) = self.definition(name) {
                // A field has a text of its own beside that of its type.
                if let Some(own) = source.get("description").and_then(Value::as_str) {
                    Arc::make_mut(&mut node).description = own.to_owned();
                }
                return node;
            }
        }
        Arc::new(self.node(source, None))
    }

    fn node(&mut self, source: &Map<String, Value>, facts: Option<&BTreeMap<String, Map<String, Value>>>) -> Node {
        let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut node = Node {
            kind: Type::parse(text("type")),
            format: text("format").to_owned(),
            description: text("description").to_owned(),
            int_or_string: source.get("x-kubernetes-int-or-string").is_some_and(|v| v == true),
            ..Node::default()
        };
        for (name, property) in source.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mut child = self.value(property);
            if let Some(facts) = facts.and_then(|facts| facts.get(name)) {
                apply_facts(Arc::make_mut(&mut child), facts);
            }
            node.properties.insert(name.clone(), child);
        }
        node.additional = source.get("additionalProperties").map(|additional| self.value(additional));
        node.items = source.get("items").map(|items| self.value(items));
        let required = source.get("required").and_then(Value::as_array).into_iter().flatten();
        node.required = required.filter_map(Value::as_str).map(str::to_owned).collect();
        let no_members = node.properties.is_empty() && node.additional.is_none();
        node.preserve_unknown = node.kind == Some(Type::Object) && no_members;
        node
    }
}

fn apply_facts(node: &mut Node, facts: &Map<String, Value>) {
    let text = |key: &str| facts.get(key).and_then(Value::as_str);
    match text("listType") {
        Some("set") => node.list_type = ListType::Set,
        Some("map") => {
            let keys = facts.get("listMapKeys").and_then(Value::as_array).into_iter().flatten();
            node.list_type = ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect());
        }
        Some(_) => node.list_type = ListType::Atomic,
        None => {}
    }
    match text("mapType") {
        Some("atomic") => node.map_atomic = true,
        Some(_) => node.map_atomic = false,
        None => {}
    }
    if let Some(key) = text("mergeKey") {
        node.merge_key = Some(key.to_owned());
    }
    for strategy in text("patchStrategy").unwrap_or_default().split(',') {
        match strategy {
            "merge" => node.patch_merge = true,
            "retainKeys" => node.retain_keys = true,
            _ => {}
        }
    }
    if let Some(default) = facts.get("default") {
        node.default = Some(default.clone());
        node.has = Has { defaults: true, ..node.has };
    }
    if let Some(allowed) = facts.get("enum").and_then(Value::as_array) {
        node.checks.get_or_insert_with(Box::<Checks>::default).allowed = allowed.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_definition() {
        for root in ROOTS {
            let schema = schema(root.definition);
            assert_eq!(schema.root.definition, root.definition);
            assert_eq!(definition_of(root.api_version, root.kind), Some(root.definition));
            assert!(!schema.root.properties.is_empty(), "{} has members", root.definition);
        }
    }

    #[test]
    fn every_fact_has_its_member() {
        for root in ROOTS {
            schema(root.definition);
        }
        let known = lock(&NODES);
        for (definition, facts) in FACTS.iter() {
            let Some(node) = known.get(definition) else { continue };
            for member in facts.keys().filter(|member| !member.is_empty()) {
                assert!(node.properties.contains_key(member), "{definition} has no {member}");
            }
        }
        assert!(known.contains_key("io.k8s.api.core.v1.PodSpec"));
    }

    #[test]
    fn containers_merge_by_name_and_volumes_retain_keys() {
        let pod = schema("io.k8s.api.core.v1.Pod");
        let spec = &pod.root.properties["spec"];
        assert_eq!(spec.definition, "io.k8s.api.core.v1.PodSpec");
        assert_eq!(spec.properties["containers"].list_type, ListType::Map(vec!["name".into()]));
        assert_eq!(spec.properties["containers"].merge_key.as_deref(), Some("name"));
        assert!(spec.properties["volumes"].patch_merge && spec.properties["volumes"].retain_keys);
        assert!(spec.properties["nodeSelector"].map_atomic);
    }

    #[test]
    fn definitions_are_shared_between_kinds() {
        let pod = schema("io.k8s.api.core.v1.Pod");
        let deployment = schema("io.k8s.api.apps.v1.Deployment");
        let inner = &deployment.root.properties["spec"].properties["template"].properties["spec"];
        let containers = |spec: &Node| Arc::clone(&spec.properties["containers"]);
        assert!(Arc::ptr_eq(&containers(&pod.root.properties["spec"]), &containers(inner)));
    }
}
