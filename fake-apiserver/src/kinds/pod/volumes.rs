//! Volumes of a pod.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    super::{
        meta,
        storage::validate_claim_spec,
        util::{
            Errors, child, complain, flag, get, has, indexed, int, int_or_zero, items, one_of, quantity, required, text,
        },
    },
    NAMES_OF_SOURCES,
};
use crate::base::{
    FieldError,
    names::{self, range_error},
};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Judges the volumes of a pod; gives those that are right, by name.
pub(super) fn validate<'a>(
    errors: &mut Errors,
    spec: &'a Value,
    path: &str,
    pod: &str,
) -> BTreeMap<&'a str, &'a Value> {
    let mut volumes = BTreeMap::new();
    for (path, volume) in indexed(spec, path, "volumes") {
        let before = errors.len();
        let name = text(volume, "name");
        source(errors, volume, &path, pod);
        let field = child(&path, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else {
            complain(errors, &field, name, names::dns1123_label(name));
        }
        if volumes.contains_key(name) {
            errors.push(FieldError::duplicate(&field, &name.into()));
        }
        if errors.len() == before {
            volumes.insert(name, volume);
        }
    }
    volumes
}

/// Judges the one source that a volume must have.
fn source(errors: &mut Errors, volume: &Value, path: &str, pod: &str) {
    let sources: Vec<_> = NAMES_OF_SOURCES.iter().filter(|source| has(volume, source)).copied().collect();
    if sources.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for (i, key) in sources.into_iter().enumerate() {
        if i > 0 {
            // upstream's own slips
            let shown = match key {
                "downwardAPI" => "downwarAPI",
                "cephfs" => "cephFS",
                key => key,
            };
            errors.push(FieldError::forbidden(&child(path, shown), "may not specify more than 1 volume type"));
            continue;
        }
        let (source, path) = (get(volume, key), &child(path, key));
        match key {
            "emptyDir" if quantity(source, "sizeLimit").is_some_and(|limit| limit.is_negative()) => {
                let why = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(&child(path, "sizeLimit"), why));
            }
            "hostPath" => host_path(errors, source, path),
            "gitRepo" => {
                required(errors, source, path, "repository");
                local_path(errors, text(source, "directory"), &child(path, "directory"));
            }
            "secret" => {
                required(errors, source, path, "secretName");
                mode(errors, source, path, "defaultMode");
                keys(errors, source, path);
            }
            "configMap" => {
                required(errors, source, path, "name");
                mode(errors, source, path, "defaultMode");
                keys(errors, source, path);
            }
            "persistentVolumeClaim" => {
                required(errors, source, path, "claimName");
            }
            "downwardAPI" => {
                mode(errors, source, path, "defaultMode");
                items(source, "items").iter().for_each(|item| downward(errors, item, path));
            }
            "projected" => projected(errors, source, path),
            "csi" => {
                let driver = text(source, "driver");
                if required(errors, source, path, "driver") {
                    csi_driver(errors, driver, &child(path, "driver"));
                }
                if has(source, "nodePublishSecretRef") && text(get(source, "nodePublishSecretRef"), "name").is_empty() {
                    errors.push(FieldError::required(&format!("{path}.nodePublishSecretRef.name"), ""));
                }
            }
            "ephemeral" => ephemeral(errors, volume, path, pod),
            "image" => {
                required(errors, source, path, "reference");
                one_of(errors, source, path, "pullPolicy", &["Always", "IfNotPresent", "Never"], true);
            }
            "nfs" => {
                required(errors, source, path, "server");
                required(errors, source, path, "path");
                if !text(source, "path").starts_with('/') {
                    let why = "must be an absolute path";
                    errors.push(FieldError::invalid(&child(path, "path"), &text(source, "path").into(), why));
                }
            }
            "iscsi" => {
                required(errors, source, path, "targetPortal");
                let name = text(source, "iqn");
                if required(errors, source, path, "iqn")
                    && !["iqn", "eui", "naa"].iter().any(|form| name.starts_with(form))
                {
                    let why = "must be valid format starting with iqn, eui, or naa";
                    errors.push(FieldError::invalid(&child(path, "iqn"), &name.into(), why));
                }
                if !(0..=255).contains(&int_or_zero(source, "lun")) {
                    let why = range_error(0, 255);
                    errors.push(FieldError::invalid(&child(path, "lun"), get(source, "lun"), &why));
                }
                if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && !has(source, "secretRef") {
                    errors.push(FieldError::required(&child(path, "secretRef"), ""));
                }
            }
            "gcePersistentDisk" | "awsElasticBlockStore" => {
                // the former's path is upstream's own
                let (path, name) = if key == "gcePersistentDisk" {
                    (path.replace("gcePersistentDisk", "persistentDisk"), "pdName")
                } else {
                    (path.clone(), "volumeID")
                };
                required(errors, source, &path, name);
                if !(0..=255).contains(&int_or_zero(source, "partition")) {
                    let why = range_error(1, 255);
                    errors.push(FieldError::invalid(&child(&path, "partition"), get(source, "partition"), &why));
                }
            }
            "glusterfs" => {
                required(errors, source, path, "endpoints");
                required(errors, source, path, "path");
            }
            "rbd" => {
                if items(source, "monitors").is_empty() {
                    errors.push(FieldError::required(&child(path, "monitors"), ""));
                }
                required(errors, source, path, "image");
            }
            "cephfs" if items(source, "monitors").is_empty() => {
                errors.push(FieldError::required(&child(path, "monitors"), ""));
            }
            "cinder" => {
                required(errors, source, path, "volumeID");
            }
            "azureFile" => {
                required(errors, source, path, "secretName");
                required(errors, source, path, "shareName");
            }
            "azureDisk" => {
                required(errors, source, path, "diskName");
                required(errors, source, path, "diskURI");
                let (uri, managed) = (text(source, "diskURI"), text(source, "kind") == "Managed");
                one_of(errors, source, path, "cachingMode", &["None", "ReadOnly", "ReadWrite"], false);
                one_of(errors, source, path, "kind", &["Dedicated", "Managed", "Shared"], false);
                let (start, form) = if managed {
                    let form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/\
                                {disk-id}";
                    ("/subscriptions/", form)
                } else {
                    let form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
                    ("https://", form)
                };
                if !uri.starts_with(start) {
                    errors.push(FieldError::not_supported(&child(path, "diskURI"), &uri.into(), &[form]));
                }
            }
            "fc" => {
                let (targets, field) = (items(source, "targetWWNs"), child(path, "targetWWNs"));
                let others = !items(source, "wwids").is_empty();
                if targets.is_empty() && !others {
                    let why = "must specify either targetWWNs or wwids, but not both";
                    errors.push(FieldError::required(&field, why));
                }
                if !targets.is_empty() && others {
                    let why = "targetWWNs and wwids can not be specified simultaneously";
                    errors.push(FieldError::invalid(&field, get(source, "targetWWNs"), why));
                }
                if !targets.is_empty() && !has(source, "lun") {
                    let why = "lun is required if targetWWNs is specified";
                    errors.push(FieldError::required(&child(path, "lun"), why));
                } else if !targets.is_empty() && !(0..=255).contains(&int_or_zero(source, "lun")) {
                    let why = range_error(0, 255);
                    errors.push(FieldError::invalid(&child(path, "lun"), get(source, "lun"), &why));
                }
            }
            "vsphereVolume" => {
                required(errors, source, path, "volumePath");
            }
            "flexVolume" => {
                required(errors, source, path, "driver");
                for (key, _) in super::super::util::members(source, "options") {
                    let space = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
                    if space.ends_with(".kubernetes.io") || space.ends_with(".k8s.io") {
                        let (field, why) =
                            (format!("{path}.options[{key}]"), "kubernetes.io and k8s.io namespaces are reserved");
                        errors.push(FieldError::invalid(&field, &key.as_str().into(), why));
                    }
                }
            }
            "scaleIO" => {
                for key in ["gateway", "system", "volumeName"] {
                    required(errors, source, path, key);
                }
            }
            "portworxVolume" => _ = required(errors, source, path, "volumeID"),
            "photonPersistentDisk" => _ = required(errors, source, path, "pdID"),
            "storageos" => {
                let name = text(source, "volumeName");
                if required(errors, source, path, "volumeName") {
                    complain(errors, &child(path, "volumeName"), name, names::dns1123_label(name));
                }
                let namespace = text(source, "volumeNamespace");
                if !namespace.is_empty() {
                    complain(errors, &child(path, "volumeNamespace"), namespace, names::dns1123_label(namespace));
                }
                if has(source, "secretRef") && text(get(source, "secretRef"), "name").is_empty() {
                    errors.push(FieldError::required(&format!("{path}.secretRef.name"), ""));
                }
            }
            "flocker" => {
                let (name, id) = (text(source, "datasetName"), text(source, "datasetUUID"));
                if name.is_empty() && id.is_empty() {
                    errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
                }
                if !name.is_empty() && !id.is_empty() {
                    let why = "datasetName and datasetUUID can not be specified simultaneously";
                    errors.push(FieldError::invalid(path, &"resource".into(), why));
                }
                if name.contains('/') {
                    errors.push(FieldError::invalid(&child(path, "datasetName"), &name.into(), "must not contain '/'"));
                }
            }
            "quobyte" => {
                const WHY: &str = "must be a host:port pair or multiple pairs separated by commas";
                let (registry, field) = (text(source, "registry"), child(path, "registry"));
                if registry.is_empty() {
                    errors.push(FieldError::required(&field, WHY));
                }
                for _ in registry.split(',').filter(|pair| !registry.is_empty() && pair.matches(':').count() != 1) {
                    errors.push(FieldError::invalid(&field, &registry.into(), WHY));
                }
                required(errors, source, path, "volume");
            }
            _ => {}
        }
    }
}

fn host_path(errors: &mut Errors, source: &Value, path: &str) {
    if !required(errors, source, path, "path") {
        return;
    }
    no_backsteps(errors, text(source, "path"), &child(path, "path"));
    let kinds = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    one_of(errors, source, path, "type", &kinds, false);
}

/// A path may not have `..` as a part.
pub(in super::super) fn no_backsteps(errors: &mut Errors, path: &str, field: &str) {
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(field, &path.into(), "must not contain '..'"));
    }
}

/// A path must be relative and go down.
pub(super) fn local_path(errors: &mut Errors, path: &str, field: &str) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(field, &path.into(), "must be a relative path"));
    }
    no_backsteps(errors, path, field);
}

/// A path must be relative, go down, and not begin with `..`, as the kubelet keeps such names for itself.
fn unreserved_path(errors: &mut Errors, path: &str, field: &str) {
    local_path(errors, path, field);
    // a part that is `..` has been told of
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errors.push(FieldError::invalid(field, &path.into(), "must not start with '..'"));
    }
}

fn mode(errors: &mut Errors, source: &Value, path: &str, key: &str) {
    if let Some(mode) = int(source, key).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(&child(path, key), &mode.into(), FILE_MODE));
    }
}

fn keys(errors: &mut Errors, source: &Value, path: &str) {
    for (path, item) in indexed(source, path, "items") {
        required(errors, item, &path, "key");
        required(errors, item, &path, "path");
        unreserved_path(errors, text(item, "path"), &child(&path, "path"));
        mode(errors, item, &path, "mode");
    }
}

fn downward(errors: &mut Errors, item: &Value, path: &str) {
    required(errors, item, path, "path");
    unreserved_path(errors, text(item, "path"), &child(path, "path"));
    let (field, resource) = (get(item, "fieldRef"), get(item, "resourceFieldRef"));
    if !field.is_null() {
        let known = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
        super::containers::field_ref(errors, field, &child(path, "fieldRef"), &known);
        if !resource.is_null() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, &"resource".into(), why));
        }
    } else if !resource.is_null() {
        super::containers::resource_ref(errors, resource, &child(path, "resourceFieldRef"), true);
    } else {
        errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(errors, item, path, "mode");
}

fn projected(errors: &mut Errors, volume: &Value, path: &str) {
    mode(errors, volume, path, "defaultMode");
    let mut paths = Vec::new();
    for (source_path, source) in indexed(volume, path, "sources") {
        let mut claim = |errors: &mut Errors, taken: &str, shown: &str| {
            if taken.is_empty() {
                return;
            }
            if paths.contains(&taken.to_owned()) {
                errors.push(FieldError::invalid(path, &shown.into(), "conflicting duplicate paths"));
            } else {
                paths.push(taken.to_owned());
            }
        };
        let mut count = 0;
        for key in ["secret", "configMap"].into_iter().filter(|key| has(source, key)) {
            let (source, source_path) = (get(source, key), child(&source_path, key));
            count += 1;
            required(errors, source, &source_path, "name");
            keys(errors, source, &source_path);
            items(source, "items").iter().for_each(|item| claim(errors, text(item, "path"), text(source, "name")));
        }
        if has(source, "downwardAPI") {
            count += 1;
            for item in items(get(source, "downwardAPI"), "items") {
                downward(errors, item, &child(&source_path, "downwardAPI"));
                claim(errors, text(item, "path"), text(item, "path"));
            }
        }
        if has(source, "serviceAccountToken") {
            count += 1;
            let (token, token_path) = (get(source, "serviceAccountToken"), child(&source_path, "serviceAccountToken"));
            let seconds = int_or_zero(token, "expirationSeconds");
            let why = match seconds {
                ..600 => Some("may not specify a duration less than 10 minutes"),
                600..=0x1_0000_0000 => None,
                _ => Some("may not specify a duration larger than 2^32 seconds"),
            };
            if let Some(why) = why {
                errors.push(FieldError::invalid(&child(&token_path, "expirationSeconds"), &seconds.into(), why));
            }
            // upstream names the volume, not the source, in this path
            if required(errors, token, path, "path") {
                unreserved_path(errors, text(token, "path"), &child(path, "path"));
            }
            claim(errors, text(token, "path"), text(token, "path"));
        }
        if count > 1 {
            errors.push(FieldError::forbidden(&source_path, "may not specify more than 1 volume type per source"));
        }
    }
}

/// The name of a CSI driver.
fn csi_driver(errors: &mut Errors, driver: &str, field: &str) {
    if driver.len() > 63 {
        errors.push(FieldError::too_long(field, 63));
    }
    complain(errors, field, driver, names::dns1123_subdomain(&driver.to_lowercase()));
}

fn ephemeral(errors: &mut Errors, volume: &Value, path: &str, pod: &str) {
    let template = get(get(volume, "ephemeral"), "volumeClaimTemplate");
    let path = child(path, "volumeClaimTemplate");
    if template.is_null() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let meta_path = child(&path, "metadata");
    let metadata = get(template, "metadata");
    meta::labels(errors, metadata, &meta_path);
    meta::annotations(errors, metadata, &meta_path);
    const OTHERS: [&str; 7] =
        ["name", "generateName", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers"];
    for key in OTHERS.into_iter().filter(|key| has(metadata, key) && get(metadata, key) != "") {
        errors.push(FieldError::forbidden(&child(&meta_path, key), "cannot be set"));
    }
    errors.extend(validate_claim_spec(get(template, "spec"), &child(&path, "spec")));
    if !pod.is_empty() {
        let claim = format!("{pod}-{}", text(volume, "name"));
        for why in names::dns1123_subdomain(&claim) {
            let why = format!("PVC name {claim:?}: {why}");
            let field = path.replace(".ephemeral.volumeClaimTemplate", ".name");
            errors.push(FieldError::invalid(&field, &text(volume, "name").into(), &why));
        }
    }
}

/// Judges how containers mount and use volumes.
pub(super) fn mounts(errors: &mut Errors, container: &Value, path: &str, volumes: &BTreeMap<&str, &Value>) {
    let mut paths = Vec::new();
    let devices: Vec<_> = items(container, "volumeDevices").iter().collect();
    for (path, mount) in indexed(container, path, "volumeMounts") {
        let (name, at) = (text(mount, "name"), text(mount, "mountPath"));
        let list = path.rsplit_once('[').map_or(path.as_str(), |(list, _)| list).to_owned();
        required(errors, mount, &path, "name");
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(&child(&path, "name"), &name.into()));
        }
        required(errors, mount, &path, "mountPath");
        if paths.contains(&at) {
            errors.push(FieldError::invalid(&child(&path, "mountPath"), &at.into(), "must be unique"));
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            let why = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(&child(&path, "name"), &name.into(), why));
        }
        if devices.iter().any(|device| text(device, "devicePath") == at) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&child(&path, "mountPath"), &at.into(), why));
        }
        paths.push(at);
        let (sub, sub_expr) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        // upstream names the list, not the mount, in the paths of these
        local_path(errors, sub, &child(&list, "subPath"));
        if !sub_expr.is_empty() {
            if !sub.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&child(&path, "subPathExpr"), &sub_expr.into(), why));
            }
            local_path(errors, sub_expr, &child(&list, "subPathExpr"));
        }
        propagation(errors, mount, container, &child(&list, "mountPropagation"));
        let recursive = text(mount, "recursiveReadOnly");
        if !recursive.is_empty() && recursive != "Disabled" {
            let field = child(&list, "recursiveReadOnly");
            if !["IfPossible", "Enabled"].contains(&recursive) {
                let known = ["Disabled", "Enabled", "IfPossible"];
                errors.push(FieldError::not_supported(&field, &recursive.into(), &known));
            } else if !flag(mount, "readOnly") {
                let why = "may only be specified when readOnly is true";
                errors.push(FieldError::forbidden(&field, why));
            } else if !["", "None"].contains(&text(mount, "mountPropagation")) {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(&field, why));
            }
        }
    }
    let mounts: Vec<_> = items(container, "volumeMounts").iter().collect();
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for (path, device) in indexed(container, path, "volumeDevices") {
        let (name, at) = (text(device, "name"), text(device, "devicePath"));
        let (name_field, path_field) = (child(&path, "name"), child(&path, "devicePath"));
        required(errors, device, &path, "name");
        if names.contains(&name) {
            errors.push(FieldError::invalid(&name_field, &name.into(), "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(&name_field, &name.into())),
            Some(volume) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name_field, &name.into(), why));
            }
            Some(_) => {}
        }
        required(errors, device, &path, "devicePath");
        if paths.contains(&at) {
            errors.push(FieldError::invalid(&path_field, &at.into(), "must be unique"));
        }
        if at.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&path_field, &at.into(), "can not contain backsteps ('..')"));
        } else {
            paths.push(at);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.push(FieldError::invalid(&name_field, &name.into(), "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == at) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&path_field, &at.into(), why));
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
}

fn propagation(errors: &mut Errors, mount: &Value, container: &Value, field: &str) {
    let propagation = text(mount, "mountPropagation");
    let known = ["Bidirectional", "HostToContainer", "None"];
    if !propagation.is_empty() && !known.contains(&propagation) {
        errors.push(FieldError::not_supported(field, &propagation.into(), &known));
    }
    if propagation == "Bidirectional" && !flag(get(container, "securityContext"), "privileged") {
        errors.push(FieldError::forbidden(
            field,
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
}
