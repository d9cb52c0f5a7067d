//! What upstream warns of in built-in kinds, beside pods (`WarningsOnCreate` and `WarningsOnUpdate` of the strategies).

use std::net::IpAddr;

use serde_json::Value;

use super::{
    pod::warnings::{of_node_term, of_template, old_label},
    storage,
    util::{as_quantity, at, get, has, indexed, int, int_or_zero, items, members, text, texts},
};
use crate::base::{Object, names, status::go_quote};

/// A name that is no DNS label but becomes part of one.
pub(super) fn label_as_name(object: &Object, what: &str) -> Vec<String> {
    let complaints = names::dns1123_label(object.name());
    if complaints.is_empty() {
        return Vec::new();
    }
    let list = complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    vec![format!(
        "metadata.name: {what}, which can result in surprising behavior; a DNS label is recommended: [{list}]"
    )]
}

/// An address with its IPv4 parts' leading zeros dropped, as Go's `ParseIPSloppy` reads it.
pub(super) fn sloppy(value: &str) -> Option<IpAddr> {
    let plain = |part: &str| part.parse::<u8>().ok().map(|number| number.to_string());
    let parts: Option<Vec<_>> = value.split('.').map(plain).collect();
    value.parse().ok().or_else(|| parts?.join(".").parse().ok())
}

/// What is said of an address that is written in an unusual way.
pub(super) fn ip(field: &str, value: &str) -> Option<String> {
    let address = sloppy(value)?;
    let mapped = match address {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    let shown = mapped.map_or_else(|| address.to_string(), |mapped| mapped.to_string());
    if mapped.is_some() || value.parse::<IpAddr>().is_err() {
        let (value, shown) = (go_quote(value), go_quote(&shown));
        return Some(format!("{field}: non-standard IP address {value} is invalid: use {shown}"));
    }
    (shown != value).then(|| {
        let (value, shown) = (go_quote(value), go_quote(&shown));
        format!("{field}: IPv6 address {value} should be in RFC 5952 canonical format ({shown})")
    })
}

/// A range's own address, and the length of its prefix.
pub(super) fn network(value: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = value.split_once('/')?;
    let (ip, bits) = (sloppy(address)?, length.parse::<u32>().ok()?);
    let base = match ip {
        IpAddr::V4(ip) => {
            let rest = 32_u32.checked_sub(bits)?;
            let base = u32::from(ip).checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
            std::net::Ipv4Addr::from(base).into()
        }
        IpAddr::V6(ip) => {
            let rest = 128_u32.checked_sub(bits)?;
            let base = u128::from(ip).checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
            std::net::Ipv6Addr::from(base).into()
        }
    };
    Some((base, bits))
}

/// What is said of a range of addresses that is written in an unusual way.
pub(super) fn cidr(field: &str, value: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some((address, length)) = value.split_once('/') else { return warnings };
    let (Some(ip), Some((base, bits))) = (sloppy(address), network(value)) else { return warnings };
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let network = format!("{base}/{bits}");
    let (quoted, shown) = (go_quote(value), go_quote(&network));
    if base != ip {
        let single = go_quote(&format!("{ip}/{width}"));
        warnings.push(format!(
            "{field}: CIDR value {quoted} is ambiguous in this context (should be {shown} or {single}?)"
        ));
    }
    let odd = address.parse::<IpAddr>().is_err() || length.starts_with('0') && length.len() > 1;
    if odd || matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        warnings.push(format!("{field}: non-standard CIDR value {quoted} is invalid: use {shown}"));
    }
    if warnings.is_empty() && ip.is_ipv6() && network != value {
        warnings.push(format!("{field}: IPv6 CIDR value {quoted} should be in RFC 5952 canonical format ({shown})"));
    }
    warnings
}

/// Whether an update leaves the spec as it is, so that nothing is said of it again.
fn unchanged(new: &Object, old: Option<&Object>) -> bool {
    old.is_some_and(|old| old.generation() == new.generation())
}

fn template_at(new: &Object, path: &[&str]) -> Vec<String> {
    of_template(at(&new.to_value(), path), &path.join("."))
}

/// A kind whose pods are named after it.
pub(super) fn workload(new: &Object, old: Option<&Object>) -> Vec<String> {
    if unchanged(new, old) {
        return Vec::new();
    }
    let mut warnings = naming(new, old);
    warnings.extend(template_at(new, &["spec", "template"]));
    warnings
}

fn naming(new: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() { Vec::new() } else { label_as_name(new, "this is used in Pod names and hostnames") }
}

pub(super) fn daemon_set(new: &Object, old: Option<&Object>) -> Vec<String> {
    if unchanged(new, old) { Vec::new() } else { template_at(new, &["spec", "template"]) }
}

pub(super) fn pod_template(new: &Object, old: Option<&Object>) -> Vec<String> {
    if unchanged(new, old) { Vec::new() } else { template_at(new, &["template"]) }
}

pub(super) fn stateful_set(new: &Object, old: Option<&Object>) -> Vec<String> {
    let value = new.to_value();
    let spec = get(&value, "spec");
    let mut warnings = daemon_set(new, old);
    for (path, claim) in indexed(spec, "spec", "volumeClaimTemplates") {
        // the paths of the two doors differ upstream
        let path = if old.is_some() { format!("{path}.Spec") } else { path };
        warnings.extend(storage::claim_spec_warnings(get(claim, "spec"), &path));
    }
    if int(spec, "revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.push(format!("spec.revisionHistoryLimit: {why}"));
    }
    warnings
}

pub(super) fn job(new: &Object, old: Option<&Object>) -> Vec<String> {
    if unchanged(new, old) {
        return Vec::new();
    }
    let mut warnings = naming(new, old);
    warnings.extend(job_spec(get(&new.to_value(), "spec"), "spec"));
    warnings
}

fn job_spec(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let many = int_or_zero(spec, "completions") > 100_000 && int_or_zero(spec, "parallelism") > 10_000;
    if text(spec, "completionMode") == "Indexed" && many {
        warnings.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    warnings.extend(of_template(get(spec, "template"), &format!("{path}.template")));
    warnings
}

pub(super) fn cron_job(new: &Object, old: Option<&Object>) -> Vec<String> {
    let value = new.to_value();
    let mut warnings = Vec::new();
    if !unchanged(new, old) {
        warnings.extend(naming(new, old));
        warnings.extend(job_spec(at(&value, &["spec", "jobTemplate", "spec"]), "spec.jobTemplate.spec"));
    }
    if old.is_some() && text(get(&value, "spec"), "schedule").contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .into(),
        );
    }
    warnings
}

pub(super) fn service(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    let spec = get(&value, "spec");
    let kind = text(spec, "type");
    let external = kind == "ExternalName";
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let outside = !items(spec, "externalIPs").is_empty();
    if new.annotation("service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .into(),
        );
    }
    let mut addresses = |list: &str| {
        for (path, address) in indexed(spec, "spec", list) {
            warnings.extend(ip(&path, address.as_str().unwrap_or_default()));
        }
    };
    if !["", "None"].contains(&text(spec, "clusterIP")) {
        addresses("clusterIPs");
    }
    if headless {
        if !text(spec, "loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if outside {
            warnings.push("spec.externalIPs is ignored for headless services".into());
        }
        if text(spec, "sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    for (path, address) in indexed(spec, "spec", "externalIPs") {
        warnings.extend(ip(&path, address.as_str().unwrap_or_default()));
    }
    if outside && !headless && !external {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    warnings.extend(ip("spec.loadBalancerIP", text(spec, "loadBalancerIP")));
    for (path, range) in indexed(spec, "spec", "loadBalancerSourceRanges") {
        warnings.extend(cidr(&path, range.as_str().unwrap_or_default()));
    }
    if external && outside {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !external && !text(spec, "externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    warnings
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn claim(new: &Object, _: Option<&Object>) -> Vec<String> {
    let mut warnings = Vec::new();
    if new.annotation(BETA_CLASS).is_some() {
        let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        warnings.push(format!("metadata.annotations[{BETA_CLASS}]: {why}"));
    }
    warnings.extend(storage::claim_spec_warnings(get(&new.to_value(), "spec"), "spec"));
    warnings
}

pub(super) fn volume(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    let spec = get(&value, "spec");
    let annotations = [
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    for (key, why) in annotations.iter().filter(|(key, _)| new.annotation(key).is_some()) {
        warnings.push(format!("metadata.annotations[{key}]: {why}"));
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .into(),
        );
    }
    let required = "spec.nodeAffinity.required";
    for (path, term) in indexed(at(spec, &["nodeAffinity", "required"]), required, "nodeSelectorTerms") {
        warnings.extend(of_node_term(term, false, &path));
    }
    let old = [
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (_, shown, why) in old.iter().filter(|(key, ..)| has(spec, key)) {
        warnings.push(format!("spec.{shown}: {why}"));
    }
    warnings
}

pub(super) fn secret(new: &Object, _: Option<&Object>) -> Vec<String> {
    if new.str_at(&["type"]) != "kubernetes.io/tls" {
        return Vec::new();
    }
    let has_pem = |key: &str| {
        let encoded = new.at(&["data", key]).and_then(Value::as_str).unwrap_or_default();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("-----BEGIN ")
    };
    let parts = [("tls.crt", "certificate"), ("tls.key", "key")];
    let missing = parts.iter().find(|(key, _)| !has_pem(key));
    missing.map(|(_, noun)| format!("tls: failed to find any PEM data in {noun} input")).into_iter().collect()
}

pub(super) fn service_account(new: &Object, old: Option<&Object>) -> Vec<String> {
    const KEY: &str = "kubernetes.io/enforce-mountable-secrets";
    let set = |account: &Object| account.annotation(KEY).is_some();
    if !set(new) || old.is_some_and(set) {
        return Vec::new();
    }
    let why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    vec![format!("metadata.annotations[{KEY}]: {why}")]
}

pub(super) fn node(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    let spec = get(&value, "spec");
    if has(spec, "configSource") {
        warnings.push("spec.configSource: the feature is removed".into());
    }
    if !text(spec, "externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    for (path, range) in indexed(spec, "spec", "podCIDRs") {
        warnings.extend(cidr(&path, range.as_str().unwrap_or_default()));
    }
    warnings
}

pub(super) fn endpoints(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    for (path, subset) in indexed(&value, "", "subsets") {
        for list in ["addresses", "notReadyAddresses"] {
            for (path, address) in indexed(subset, &path, list) {
                warnings.extend(ip(&format!("{path}.ip"), text(address, "ip")));
            }
        }
    }
    warnings
}

pub(super) fn endpoint_slice(new: &Object, old: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    if old.is_none() && text(&value, "addressType") == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
    }
    for (path, endpoint) in indexed(&value, "", "endpoints") {
        for (path, address) in indexed(endpoint, &path, "addresses") {
            warnings.extend(ip(&path, address.as_str().unwrap_or_default()));
        }
    }
    warnings
}

pub(super) fn network_policy(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in indexed(get(&value, "spec"), "spec", direction) {
            for (path, peer) in indexed(rule, &path, peers).filter(|(_, peer)| has(peer, "ipBlock")) {
                let (block, path) = (get(peer, "ipBlock"), format!("{path}.ipBlock"));
                warnings.extend(cidr(&format!("{path}.cidr"), text(block, "cidr")));
                for (i, range) in texts(block, "except").into_iter().enumerate() {
                    warnings.extend(cidr(&format!("{path}.except[{i}]"), range));
                }
            }
        }
    }
    warnings
}

pub(super) fn ingress(new: &Object, old: Option<&Object>) -> Vec<String> {
    let named = new.at(&["spec", "ingressClassName"]).is_some_and(|class| !class.is_null());
    if old.is_some() || named || new.annotation("kubernetes.io/ingress.class").is_none() {
        return Vec::new();
    }
    let text = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
    vec![text.into()]
}

pub(super) fn resource_quota(new: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let value = new.to_value();
    let hard = at(&value, &["spec", "hard"]);
    let amount = |name: &str| Some((name.to_owned(), as_quantity(get(hard, name))?));
    let mut warnings = Vec::new();
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let bare = || amount(name).filter(|_| ["cpu", "memory"].contains(&name));
        let request = amount(&format!("requests.{name}")).or_else(bare);
        if let (Some((request, asked)), Some((limit, most))) = (request, amount(&format!("limits.{name}")))
            && asked > most
        {
            warnings.push(format!("ResourceQuota {request} ({asked}) should be less than {limit} ({most})"));
        }
    }
    warnings
}

pub(super) fn storage_class(new: &Object, _: Option<&Object>) -> Vec<String> {
    let (mut warnings, value) = (Vec::new(), new.to_value());
    for (path, topology) in indexed(&value, "", "allowedTopologies") {
        for (path, expression) in indexed(topology, &path, "matchLabelExpressions") {
            if let Some(why) = old_label(text(expression, "key")) {
                warnings.push(format!("{path}.key: {why}"));
            }
        }
    }
    warnings
}

pub(super) fn runtime_class(new: &Object, _: Option<&Object>) -> Vec<String> {
    let value = new.to_value();
    let scheduling = get(&value, "scheduling");
    let old = members(scheduling, "nodeSelector").filter_map(|(key, _)| old_label(key));
    old.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
}
