//! Claims get volumes: binds them at once, takes away their protection when nobody uses them, and removes the volumes of
//! claims that are gone. The part that the volume controllers play in a cluster.

use serde_json::{Value, json};

use super::api::{Api, core};
use crate::base::{Object, Status};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const PROVISIONER: &str = "fake-apiserver.dev/volumes";

/// Whether a claim is bound to a volume.
pub(super) fn bound(claim: &Object) -> bool {
    claim.str_at(&["status", "phase"]) == "Bound"
}

/// Brings one claim on; `used` says whether a pod that may still run names it.
pub(super) async fn tend(api: &Api, claim: &Object, used: bool) -> Result<(), Status> {
    if claim.is_deleting() {
        if !used && claim.finalizers().contains(&CLAIM_FINALIZER) {
            let patch = json!({ "metadata": {
                "uid": claim.uid(),
                "$deleteFromPrimitiveList/finalizers": [CLAIM_FINALIZER],
            } });
            let place = (claim.namespace(), claim.name(), "");
            return api.patch(&core("persistentvolumeclaims"), place, patch).await.map(drop);
        }
        return Ok(());
    }
    if bound(claim) {
        return Ok(());
    }
    let name = match claim.str_at(&["spec", "volumeName"]) {
        "" => format!("pvc-{}", claim.uid()),
        name => name.to_owned(),
    };
    let existing = api.find(&core("persistentvolumes"), "", &name).await?;
    let volume = match existing {
        Some(volume) => volume,
        // A claim that names a volume waits for that one.
        None if !claim.str_at(&["spec", "volumeName"]).is_empty() => return Ok(()),
        None => api.create(&core("persistentvolumes"), volume(claim, &name)).await?,
    };
    let taken = volume.str_at(&["spec", "claimRef", "uid"]);
    if !taken.is_empty() && taken != claim.uid() {
        return Ok(());
    }
    let reference = json!({ "spec": { "claimRef": claim_reference(claim) } });
    if taken.is_empty() {
        api.patch(&core("persistentvolumes"), ("", &name, ""), reference).await?;
    }
    let place = (claim.namespace(), claim.name());
    let bind = json!({
        "metadata": { "uid": claim.uid(), "annotations": {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        } },
        "spec": { "volumeName": name },
    });
    api.patch(&core("persistentvolumeclaims"), (place.0, place.1, ""), bind).await?;
    api.patch(&core("persistentvolumes"), ("", &name, "status"), json!({ "status": { "phase": "Bound" } })).await?;
    let status = json!({ "status": {
        "phase": "Bound",
        "accessModes": volume.at(&["spec", "accessModes"]),
        "capacity": volume.at(&["spec", "capacity"]),
    } });
    api.patch(&core("persistentvolumeclaims"), (place.0, place.1, "status"), status).await.map(drop)
}

/// Removes the volume of a claim that is gone, unless it is to be kept.
pub(super) async fn release(api: &Api, claim: &Object) -> Result<(), Status> {
    let name = claim.str_at(&["spec", "volumeName"]);
    if name.is_empty() {
        return Ok(());
    }
    let Some(volume) = api.find(&core("persistentvolumes"), "", name).await? else { return Ok(()) };
    if volume.str_at(&["spec", "claimRef", "uid"]) != claim.uid() {
        return Ok(());
    }
    if volume.str_at(&["spec", "persistentVolumeReclaimPolicy"]) != "Delete" {
        let released = json!({ "status": { "phase": "Released" } });
        return api.patch(&core("persistentvolumes"), ("", name, "status"), released).await.map(drop);
    }
    api.delete(&core("persistentvolumes"), &volume).await?;
    if volume.finalizers().contains(&VOLUME_FINALIZER) {
        let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": [VOLUME_FINALIZER] } });
        match api.patch(&core("persistentvolumes"), ("", name, ""), patch).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

fn claim_reference(claim: &Object) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(),
        "uid": claim.uid(), "resourceVersion": claim.resource_version(),
    })
}

fn volume(claim: &Object, name: &str) -> Object {
    let mut volume = Object::new("v1", "PersistentVolume", "", name);
    volume.metadata_mut().insert("annotations".into(), json!({ "pv.kubernetes.io/provisioned-by": PROVISIONER }));
    let capacity = claim.at(&["spec", "resources", "requests"]).cloned().unwrap_or_else(|| json!({ "storage": "1Gi" }));
    volume.set(
        "spec",
        json!({
            "accessModes": claim.at(&["spec", "accessModes"]).cloned().unwrap_or_else(|| json!(["ReadWriteOnce"])),
            "capacity": capacity,
            "claimRef": claim_reference(claim),
            "hostPath": { "path": format!("/var/lib/fake-apiserver/{name}"), "type": "DirectoryOrCreate" },
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": claim.str_at(&["spec", "storageClassName"]),
            "volumeMode": claim.at(&["spec", "volumeMode"]).cloned().unwrap_or_else(|| "Filesystem".into()),
        }),
    );
    volume
}
