//! The node that the kubelet pretends to be: its Node object and its lease.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::api::{Api, core, micro, retry_delay};
use crate::{
    base::{Gvr, Object, Status},
    clock::{Clock, time_text},
};

/// How long a lease lasts, and how often it is renewed (`nodeLeaseDurationSeconds` and a quarter of it).
const LEASE_SECONDS: u64 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// The version that the node's kubelet says it has.
const VERSION: &str = "v1.36.3";

/// The feature by which a kubelet says that it takes WebSockets (`ExtendWebSocketsToKubelet`): an API server then passes
/// them on as they are, where it would translate them to SPDY.
const WEB_SOCKETS: &str = "ExtendWebSocketsToKubelet";

/// Where the node is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// At an address that nobody can dial.
    Simulated(String),
    /// Behind a door of this process.
    Door(SocketAddr),
}

/// The Node object.
pub(super) fn node(name: &str, place: &Place, pod_cidr: &str, now: &str, boot: &str) -> Object {
    let (address, hostname, port) = match place {
        Place::Simulated(address) => (address.clone(), name.to_owned(), 10250),
        // An API server prefers a node's Hostname, and nobody resolves this one's name.
        Place::Door(door) => (door.ip().to_string(), door.ip().to_string(), door.port()),
    };
    let mut node = Object::new("v1", "Node", "", name);
    node.metadata_mut().insert(
        "labels".into(),
        json!({
            "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        }),
    );
    node.set("spec", json!({ "podCIDR": pod_cidr, "podCIDRs": [pod_cidr], "providerID": format!("fake://{name}") }));
    let capacity = json!({
        "cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "65000", "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    });
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    node.set(
        "status",
        json!({
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                { "type": "InternalIP", "address": address }, { "type": "Hostname", "address": hostname },
            ],
            "conditions": [
                condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": "6.12.0-scripted",
                "osImage": "Scripted Linux", "containerRuntimeVersion": "containerd://2.2.0",
                "kubeletVersion": VERSION, "kubeProxyVersion": "", "bootID": boot, "machineID": boot.replace('-', ""),
                "systemUUID": boot,
            },
        }),
    );
    if let Place::Door(_) = place {
        node.set_at(&["status", "declaredFeatures"], json!([WEB_SOCKETS]));
    }
    node
}

/// Registers the node, and keeps its lease until the token is cancelled.
pub(super) async fn keep(
    api: Api,
    clock: Clock,
    name: String,
    place: Place,
    pod_cidr: String,
    stop: CancellationToken,
) {
    let boot = api.ids().uid();
    let mut failures = 0;
    loop {
        let kept = match register(&api, &clock, &name, &place, &pod_cidr, &boot).await {
            Ok(()) => renew(&api, &clock, &name).await,
            Err(error) => Err(error),
        };
        let wait = match kept {
            Ok(()) => {
                failures = 0;
                RENEW
            }
            Err(error) => {
                tracing::warn!(node = name, %error, "node not registered or lease not renewed; trying again");
                failures += 1;
                retry_delay(failures).min(RENEW)
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep(wait) => {}
        }
    }
}

async fn register(
    api: &Api,
    clock: &Clock,
    name: &str,
    place: &Place,
    pod_cidr: &str,
    boot: &str,
) -> Result<(), Status> {
    let found = api.find(&core("nodes"), "", name).await?;
    let conditions = found.as_ref().and_then(|found| found.at(&["status", "conditions"])?.as_array());
    let lost = conditions.into_iter().flatten().any(|condition| condition["status"] == "Unknown");
    // One from before this process had another door.
    let boot_id = found.as_ref().and_then(|found| found.at(&["status", "nodeInfo", "bootID"])?.as_str());
    let moved = matches!(place, Place::Door(_)) && boot_id.is_some_and(|id| id != boot);
    if found.is_some() && !lost && !moved {
        return Ok(());
    }
    let node = node(name, place, pod_cidr, &time_text(clock.now()), boot);
    let status = node.get("status").cloned().unwrap_or_default();
    if lost && !moved {
        // Whoever took this kubelet for dead is told otherwise.
        let conditions = status.get("conditions").cloned().unwrap_or_default();
        let patch = json!({ "status": { "conditions": conditions } });
        return api.patch(&core("nodes"), ("", name, "status"), patch).await.map(drop);
    }
    match api.create(&core("nodes"), node).await {
        Err(status) if !status.is_already_exists() => return Err(status),
        _ => {}
    }
    // As upstream: what create leaves out is written through the subresource.
    api.patch(&core("nodes"), ("", name, "status"), json!({ "status": status })).await.map(drop)
}

/// The runtimes for sandboxes that the nodes have beside the usual one: runtime class and handler.
const RUNTIMES: [(&str, &str); 2] = [("gvisor", "runsc"), ("kata", "kata")];

/// Makes the runtime classes once; who deletes one has it gone.
pub(super) async fn offer_runtimes(api: Api, stop: CancellationToken) {
    let classes = Gvr::new("node.k8s.io", "v1", "runtimeclasses");
    for (name, handler) in RUNTIMES {
        let mut class = Object::new("node.k8s.io/v1", "RuntimeClass", "", name);
        class.set("handler", handler);
        let mut failures = 0;
        let make = async {
            while let Err(error) = api.create(&classes, class.clone()).await {
                if error.is_already_exists() {
                    return;
                }
                tracing::warn!(class = name, %error, "runtime class not made; trying again");
                failures += 1;
                api.clock().sleep(retry_delay(failures)).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = make => {}
        }
    }
}

async fn renew(api: &Api, clock: &Clock, name: &str) -> Result<(), Status> {
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let now = micro(clock.now());
    if api.find(&leases, "kube-node-lease", name).await?.is_some() {
        let patch = json!({ "spec": { "renewTime": now } });
        return api.patch(&leases, ("kube-node-lease", name, ""), patch).await.map(drop);
    }
    let Some(node) = api.find(&core("nodes"), "", name).await? else { return Ok(()) };
    let mut lease = Object::new("coordination.k8s.io/v1", "Lease", "kube-node-lease", name);
    lease.metadata_mut().insert(
        "ownerReferences".into(),
        json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid() }]),
    );
    lease.set("spec", json!({ "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now }));
    api.create(&leases, lease).await.map(drop)
}
