//! Writes which pods serve services: Endpoints and EndpointSlices.
//!
//! Upstream: `pkg/controller/endpoint/endpoints_controller.go`, `k8s.io/endpointslice/reconciler.go`, `utils.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{Key, api_of, controller_reference, core, key_of, labels_in, pods};
use crate::{
    actor::{self, Api, Change, DeletePolicy, Outcome, Server, Source},
    base::{Gvr, Object, Status, Stored},
    clock::time_text,
};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Copied to what is written for a service without a cluster address.
const HEADLESS: &str = "service.kubernetes.io/headless";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Endpoints of one slice (`--max-endpoints-per-slice`), and addresses of an Endpoints object.
const PER_SLICE: usize = 100;
const PER_OBJECT: usize = 1000;

fn slices() -> Gvr {
    Gvr::new("discovery.k8s.io", "v1", "endpointslices")
}

/// A label and its value, in a namespace.
type Label = (String, String, String);

/// What is known of services and pods, so that a change of a pod finds its services without asking.
#[derive(Debug, Default)]
struct Index {
    /// The selectors of services.
    selectors: BTreeMap<Key, BTreeMap<String, String>>,
    /// Services by the first label that they select.
    services: BTreeMap<Label, BTreeSet<Key>>,
    /// Pods by each of their labels.
    pods: BTreeMap<Label, BTreeMap<String, Arc<Stored>>>,
}

fn labels_of<'a>(namespace: &str, labels: &'a BTreeMap<String, String>) -> impl Iterator<Item = Label> + use<'a> {
    let namespace = namespace.to_owned();
    labels.iter().map(move |(key, value)| (namespace.clone(), key.clone(), value.clone()))
}

impl Index {
    fn see_service(&mut self, change: &Change) -> Vec<Key> {
        let service = change.object();
        let key = key_of(service);
        if let Some(old) = self.selectors.remove(&key)
            && let Some(label) = labels_of(&key.0, &old).next()
            && let Some(services) = self.services.get_mut(&label)
        {
            services.remove(&key);
            if services.is_empty() {
                self.services.remove(&label);
            }
        }
        if matches!(change, Change::Applied { .. }) {
            let selector = labels_in(service.at(&["spec", "selector"]));
            let first = labels_of(&key.0, &selector).next();
            if let Some(label) = first {
                self.services.entry(label).or_default().insert(key.clone());
                self.selectors.insert(key.clone(), selector);
            }
        }
        vec![key]
    }

    fn see_pod(&mut self, change: &Change) -> Vec<Key> {
        let pod = change.object();
        let before = change.before().map(|old| old.labels()).unwrap_or_default();
        let now = if matches!(change, Change::Gone(_)) { BTreeMap::new() } else { pod.labels() };
        for label in labels_of(pod.namespace(), &before) {
            if let Some(pods) = self.pods.get_mut(&label) {
                pods.remove(pod.name());
                if pods.is_empty() {
                    self.pods.remove(&label);
                }
            }
        }
        for label in labels_of(pod.namespace(), &now) {
            self.pods.entry(label).or_default().insert(pod.name().to_owned(), pod.clone());
        }
        let mut keys = BTreeSet::new();
        for labels in [&before, &now] {
            for label in labels_of(pod.namespace(), labels) {
                let services = self.services.get(&label).into_iter().flatten();
                keys.extend(services.filter(|key| selects(&self.selectors[*key], labels)).cloned());
            }
        }
        keys.into_iter().collect()
    }

    /// The pods that a service selects, by name; `None` for a service that selects by no label.
    fn pods_of(&self, key: &Key) -> Option<Vec<Arc<Stored>>> {
        let selector = self.selectors.get(key)?;
        let candidates = labels_of(&key.0, selector).filter_map(|label| self.pods.get(&label));
        let fewest = labels_of(&key.0, selector).all(|label| self.pods.contains_key(&label));
        let fewest = candidates.min_by_key(|pods| pods.len()).filter(|_| fewest);
        let chosen = fewest.into_iter().flat_map(BTreeMap::values);
        Some(chosen.filter(|pod| selects(selector, &pod.labels())).cloned().collect())
    }
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server.clone(), "endpoint-controller");
    let slice_api = api_of(server, "endpointslice-controller");
    let index: Arc<Mutex<Index>> = Arc::default();
    let (services, of_pods) = (index.clone(), index.clone());
    let sources = vec![
        Source::all(core("services"), move |change| {
            services.lock().expect("no panic under this lock").see_service(change)
        }),
        Source::all(core("pods"), move |change| of_pods.lock().expect("no panic under this lock").see_pod(change)),
    ];
    actor::run(api.clone(), sources, token, move |key| reconcile(api.clone(), slice_api.clone(), index.clone(), key))
        .await;
}

async fn reconcile(api: Api, slice_api: Api, index: Arc<Mutex<Index>>, key: Key) -> Result<Outcome, Status> {
    let (namespace, name) = &key;
    let service = api.get(&core("services"), namespace, name).await?;
    let Some(service) = service.filter(|service| !service.is_deleting()) else {
        // Slices are owned by the service; its Endpoints object is not.
        let gone = api.delete(&core("endpoints"), namespace, name, &DeletePolicy::default()).await;
        return match gone {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(()) | Err(_) => Ok(Outcome::Done),
        };
    };
    let pods = index.lock().expect("no panic under this lock").pods_of(&key);
    let Some(pods) = pods.filter(|_| service.str_at(&["spec", "type"]) != "ExternalName") else {
        return Ok(Outcome::Done); // somebody else says where it is
    };
    write_endpoints(&api, &service, &pods).await?;
    write_slices(&slice_api, &service, &pods).await?;
    Ok(Outcome::Done)
}

/// An endpoint: a pod with an address.
struct Endpoint<'a> {
    pod: &'a Object,
    ip: &'a str,
    ready: bool,
}

/// The pods of a service that have addresses.
fn endpoints<'a>(service: &Object, pods: &'a [Arc<Stored>]) -> Vec<Endpoint<'a>> {
    let publish = service.at(&["spec", "publishNotReadyAddresses"]) == Some(&Value::Bool(true));
    let here = pods.iter().filter(|pod| !matches!(pods::phase(pod), "Succeeded" | "Failed"));
    here.map(|pod| pod.object())
        .map(|pod| {
            let ready = publish || pods::is_ready(pod) && !pod.is_deleting();
            Endpoint { pod, ip: pod.str_at(&["status", "podIP"]), ready }
        })
        .filter(|endpoint| !endpoint.ip.is_empty())
        .collect()
}

/// The ports of a service as a pod has them: one that is a name may differ from pod to pod (`FindPort`).
fn ports_of(service: &Object, pod: &Object, with_app_protocol: bool) -> Vec<Value> {
    let ports = service.at(&["spec", "ports"]).and_then(Value::as_array);
    let resolve = |port: &Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let number = match port.get("targetPort") {
            Some(Value::String(name)) => {
                let all = ["containers", "initContainers"].map(|field| pod.at(&["spec", field]));
                let all = all.into_iter().flatten().filter_map(Value::as_array).flatten();
                let mut ports = all.filter_map(|container| container.get("ports")?.as_array()).flatten();
                let named = ports.find(|port| {
                    port.get("name").and_then(Value::as_str) == Some(name)
                        && port.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == protocol
                });
                named?.get("containerPort")?.as_i64()?
            }
            Some(target) => target.as_i64()?,
            None => port.get("port")?.as_i64()?,
        };
        let mut found = json!({ "port": number, "protocol": protocol });
        if let Some(name) = port.get("name").and_then(Value::as_str) {
            found["name"] = name.into();
        }
        if let (true, Some(protocol)) = (with_app_protocol, port.get("appProtocol")) {
            found["appProtocol"] = protocol.clone();
        }
        Some(found)
    };
    ports.into_iter().flatten().filter_map(resolve).collect()
}

fn target(pod: &Object) -> Value {
    json!({ "kind": "Pod", "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() })
}

/// The name of an endpoint in the service's domain.
fn hostname<'a>(service: &Object, pod: &'a Object) -> Option<&'a str> {
    let host = pod.str_at(&["spec", "hostname"]);
    (!host.is_empty() && pod.str_at(&["spec", "subdomain"]) == service.name()).then_some(host)
}

fn headless(service: &Object) -> bool {
    matches!(service.str_at(&["spec", "clusterIP"]), "" | "None")
}

/// When the endpoints changed last, as their objects say.
fn trigger(api: &Api) -> String {
    time_text(api.clock().now())
}

/// Ports, and the addresses that are and are not ready.
type Subset = (Vec<Value>, Vec<Value>, Vec<Value>);

async fn write_endpoints(api: &Api, service: &Stored, pods: &[Arc<Stored>]) -> Result<(), Status> {
    let mut subsets: BTreeMap<String, Subset> = BTreeMap::new();
    for endpoint in endpoints(service, pods).into_iter().take(PER_OBJECT) {
        let Endpoint { pod, ip, ready } = endpoint;
        let ports = ports_of(service, pod, true);
        if ports.is_empty() && !headless(service) {
            continue;
        }
        let mut address = json!({ "ip": ip, "nodeName": pod.str_at(&["spec", "nodeName"]), "targetRef": target(pod) });
        if let Some(name) = hostname(service, pod) {
            address["hostname"] = name.into();
        }
        let subset = subsets.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        if ready { subset.1.push(address) } else { subset.2.push(address) }
    }
    let subsets: Vec<Value> = subsets
        .into_values()
        .map(|(ports, ready, unready)| {
            let mut subset = Map::new();
            for (field, list) in [("addresses", ready), ("notReadyAddresses", unready), ("ports", ports)] {
                if !list.is_empty() {
                    subset.insert(field.into(), list.into());
                }
            }
            subset.into()
        })
        .collect();
    let mut labels = service.labels();
    labels.remove(HEADLESS);
    if headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert("endpoints.kubernetes.io/managed-by".into(), "endpoint-controller".into());
    let old = api.get(&core("endpoints"), service.namespace(), service.name()).await?;
    let mut object = match &old {
        Some(old) => old.object().clone(),
        None => Object::new("v1", "Endpoints", service.namespace(), service.name()),
    };
    object.set_at(&["metadata", "labels"], json!(labels));
    match subsets.is_empty() {
        true => drop(object.remove("subsets")),
        false => object.set("subsets", subsets),
    }
    match old {
        None => {
            object.set_at(&["metadata", "annotations", LAST_CHANGE], trigger(api));
            api.create(&core("endpoints"), object).await.map(drop)
        }
        Some(old) if object == *old.object() => Ok(()),
        Some(_) => {
            object.set_at(&["metadata", "annotations", LAST_CHANGE], trigger(api));
            api.update(&core("endpoints"), object, "").await.map(drop)
        }
    }
}

async fn write_slices(api: &Api, service: &Stored, pods: &[Arc<Stored>]) -> Result<(), Status> {
    let mut wanted: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for endpoint in endpoints(service, pods) {
        let Endpoint { pod, ip, ready } = endpoint;
        let serving = pods::is_ready(pod) || ready && !pod.is_deleting();
        let mut value = json!({
            "addresses": [ip],
            "conditions": { "ready": ready, "serving": serving, "terminating": pod.is_deleting() },
            "nodeName": pod.str_at(&["spec", "nodeName"]), "targetRef": target(pod),
        });
        if let Some(name) = hostname(service, pod) {
            value["hostname"] = name.into();
        }
        let ports = ports_of(service, pod, true);
        wanted.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new())).1.push(value);
    }
    if wanted.is_empty() {
        // A service without pods has one slice that says so.
        wanted.insert(String::new(), (Vec::new(), Vec::new()));
    }
    let mut wanted: Vec<(Vec<Value>, Vec<Value>)> = wanted
        .into_values()
        .flat_map(|(ports, all)| match all.is_empty() {
            true => vec![(ports, all)],
            false => all.chunks(PER_SLICE).map(|part| (ports.clone(), part.to_vec())).collect(),
        })
        .collect();
    let mut labels = service.labels();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.insert(SERVICE_NAME.into(), service.name().into());
    if headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let selector = format!("{SERVICE_NAME}={},{MANAGED_BY}={MANAGER}", service.name());
    let (old, _) = api.list(&slices(), service.namespace(), &selector).await?;
    for slice in old {
        let mut object = slice.object().clone();
        // The slice that has these ports already is kept for them.
        let ports = |value: &Object| value.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
        let at = wanted.iter().position(|(wanted, _)| *wanted == ports(&slice));
        let at = at.or((!wanted.is_empty()).then_some(0));
        let Some((ports, endpoints)) = at.map(|at| wanted.remove(at)) else {
            api.delete(&slices(), slice.namespace(), slice.name(), &DeletePolicy::default()).await?;
            continue;
        };
        fill(&mut object, &labels, ports, endpoints, slice.get("ports"));
        if object != *slice.object() {
            object.set_at(&["metadata", "annotations", LAST_CHANGE], trigger(api));
            api.update(&slices(), object, "").await?;
        }
    }
    for (ports, endpoints) in wanted {
        let mut object = Object::new("discovery.k8s.io/v1", "EndpointSlice", service.namespace(), "");
        object.metadata_mut().remove("name");
        object.set_at(&["metadata", "generateName"], format!("{}-", service.name()));
        object.set_at(&["metadata", "ownerReferences"], json!([controller_reference(service)]));
        object.set_at(&["metadata", "annotations", LAST_CHANGE], trigger(api));
        object.set("addressType", "IPv4");
        fill(&mut object, &labels, ports, endpoints, None);
        api.create(&slices(), object).await?;
    }
    Ok(())
}

fn fill(
    object: &mut Object,
    labels: &BTreeMap<String, String>,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
    before: Option<&Value>,
) {
    object.set_at(&["metadata", "labels"], json!(labels));
    object.set("endpoints", endpoints);
    // Where there are none, what the server has made of none stays.
    match (ports.is_empty(), before) {
        (true, Some(before)) if before.as_array().is_none_or(Vec::is_empty) => object.set("ports", before.clone()),
        _ => object.set("ports", ports),
    }
}
