//! Lets a volume go once no claim has it, and a class of volume attributes once nobody names it: takes the finalizers away
//! that admission puts on them.
//!
//! Upstream: `pkg/controller/volume/pvprotection`, `pkg/controller/volume/vacprotection`.

use tokio_util::sync::CancellationToken;

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Outcome, Server, Source},
    base::{Gvr, Object, Status},
};

/// What is looked at: a volume, or a class of volume attributes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Volume(String),
    Class(String),
}

fn volumes() -> Gvr {
    Gvr::new("", "v1", "persistentvolumes")
}

fn claims() -> Gvr {
    Gvr::new("", "v1", "persistentvolumeclaims")
}

fn classes() -> Gvr {
    Gvr::new("storage.k8s.io", "v1", "volumeattributesclasses")
}

/// Drops the protection of volumes and classes until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:pv-protection-controller";
    let api = Api::new(server, user, KUBE_CONTROLLER_MANAGER);
    let named = |objects: [Option<&Object>; 2]| -> Vec<Work> {
        objects.into_iter().flatten().flat_map(class_names).map(Work::Class).collect()
    };
    let sources = vec![
        Source::all(volumes(), move |change| {
            let (volume, before) = (change.object().object(), change.before().map(|before| before.object()));
            let mut work = named([Some(volume), before]);
            work.push(Work::Volume(volume.name().to_owned()));
            work
        }),
        Source::all(claims(), move |change| {
            named([Some(change.object().object()), change.before().map(|before| before.object())])
        }),
        Source::all(classes(), |change| vec![Work::Class(change.object().name().to_owned())]),
    ];
    actor::run(api.clone(), sources, token, move |work| reconcile(api.clone(), work)).await;
}

/// The classes that a claim or volume names.
fn class_names(object: &Object) -> Vec<String> {
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    paths.iter().map(|path| object.str_at(path).to_owned()).filter(|name| !name.is_empty()).collect()
}

async fn reconcile(api: Api, work: Work) -> Result<Outcome, Status> {
    let (gvr, name, finalizer) = match &work {
        Work::Volume(name) => (volumes(), name, "kubernetes.io/pv-protection"),
        Work::Class(name) => (classes(), name, "kubernetes.io/vac-protection"),
    };
    let Some(object) = api.get(&gvr, "", name).await? else { return Ok(Outcome::Done) };
    if !object.is_deleting() || !object.finalizers().contains(&finalizer) {
        return Ok(Outcome::Done);
    }
    let used = match &work {
        Work::Volume(_) => object.str_at(&["status", "phase"]) == "Bound",
        Work::Class(name) => {
            let (mut users, _) = api.list(&claims(), "", "").await?;
            users.extend(api.list(&volumes(), "", "").await?.0);
            users.iter().any(|user| class_names(user).contains(name))
        }
    };
    if used {
        return Ok(Outcome::Done); // a change of who uses it brings it back here
    }
    let mut object = object.object().clone();
    let kept = object.finalizers().into_iter().filter(|kept| *kept != finalizer).map(str::to_owned).collect();
    object.set_finalizers(kept);
    match api.update(&gvr, object, "").await {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(Outcome::Done),
    }
}
