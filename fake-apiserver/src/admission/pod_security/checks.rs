//! What the policies look at, each check as upstream's file of the same name under `policy/` has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Level, Violation};
use crate::base::{
    status::go_quote,
    value::{at, flag, get, has, int, int_or_zero, items, strings, text, texts},
};

/// A check: looks at the metadata and spec of a pod.
type Check = fn(&Value, &Value) -> Option<Violation>;

/// A check through the versions of Kubernetes.
struct Versions {
    id: &'static str,
    /// First minor version, and the check from there on.
    from: &'static [(u64, Check)],
    /// The baseline check that this one of the restricted level stands for.
    instead_of: &'static str,
}

const fn check(id: &'static str, from: &'static [(u64, Check)]) -> Versions {
    Versions { id, from, instead_of: "" }
}

/// The checks of both levels; reports are in the order of the names.
static BASELINE: [Versions; 12] = [
    check("appArmorProfile", &[(0, app_armor)]),
    check("capabilities_baseline", &[(0, capabilities_added)]),
    check("hostNamespaces", &[(0, host_namespaces)]),
    check("hostPathVolumes", &[(0, host_path_volumes)]),
    check("hostPorts", &[(0, host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, host_probes)]),
    check("privileged", &[(0, privileged)]),
    check("procMount", &[(0, proc_mount), (35, |m, s| shares_users(s).then(|| proc_mount(m, s))?)]),
    check("seLinuxOptions", &[(0, |_, s| se_linux(s, false)), (31, |_, s| se_linux(s, true))]),
    check("seccompProfile_baseline", &[(0, seccomp_annotations), (19, |_, s| seccomp(s, false))]),
    check(
        "sysctls",
        &[
            (0, |_, s| sysctls(s, 5)),
            (27, |_, s| sysctls(s, 6)),
            (29, |_, s| sysctls(s, 10)),
            (32, |_, s| sysctls(s, 12)),
        ],
    ),
    check("windowsHostProcess", &[(0, windows_host_process)]),
];

static RESTRICTED: [Versions; 7] = [
    check(
        "allowPrivilegeEscalation",
        &[(8, privilege_escalation), (25, |m, s| unless_windows(m, s, privilege_escalation))],
    ),
    Versions {
        id: "capabilities_restricted",
        from: &[(22, capabilities_dropped), (25, |m, s| unless_windows(m, s, capabilities_dropped))],
        instead_of: "capabilities_baseline",
    },
    Versions { id: "procMount_restricted", from: &[(35, proc_mount)], instead_of: "procMount" },
    Versions { id: "restrictedVolumes", from: &[(0, volume_types)], instead_of: "hostPathVolumes" },
    check("runAsNonRoot", &[(0, run_as_non_root), (35, |m, s| shares_users(s).then(|| run_as_non_root(m, s))?)]),
    check("runAsUser", &[(23, run_as_user), (35, |m, s| shares_users(s).then(|| run_as_user(m, s))?)]),
    Versions {
        id: "seccompProfile_restricted",
        from: &[(19, |_, s| seccomp(s, true)), (25, |m, s| unless_windows(m, s, |_, s| seccomp(s, true)))],
        instead_of: "seccompProfile_baseline",
    },
];

impl Versions {
    fn at(&self, minor: u64) -> Option<Check> {
        self.from.iter().rev().find(|(from, _)| *from <= minor).map(|(_, check)| *check)
    }
}

/// The checks of a level as of a minor version, in the order in which they report.
pub(super) fn of(level: Level, minor: u64) -> Vec<Check> {
    let strict: Vec<_> = match level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => RESTRICTED.iter().filter_map(|check| Some((check, check.at(minor)?))).collect(),
    };
    let kept = BASELINE.iter().filter(|base| !strict.iter().any(|(check, _)| check.instead_of == base.id));
    kept.filter_map(|check| check.at(minor)).chain(strict.iter().map(|(_, check)| *check)).collect()
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail })
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<S: AsRef<str>>(list: impl IntoIterator<Item = S>) -> String {
    list.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// All containers in upstream's order: init, main, ephemeral ones.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
}

/// Names of the containers that a test holds for.
fn which(spec: &Value, test: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(spec).filter(|container| test(container)).map(|container| text(container, "name")).collect()
}

fn security(of: &Value) -> &Value {
    get(of, "securityContext")
}

/// `pod and containers "a"`: who set something; `None` where nobody did.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut who = Vec::new();
    if pod {
        who.push("pod".to_owned());
    }
    if !containers.is_empty() {
        who.push(named(containers));
    }
    Some(who.join(" and ")).filter(|_| !who.is_empty())
}

/// Whether the users of a pod are those of the node: from 1.35 on some checks are for such pods only.
fn shares_users(spec: &Value) -> bool {
    get(spec, "hostUsers") != &Value::Bool(false)
}

/// From 1.25 on some checks leave Windows pods alone, which cannot have the fields.
fn unless_windows(metadata: &Value, spec: &Value, check: Check) -> Option<Violation> {
    if text(get(spec, "os"), "name") == "windows" { None } else { check(metadata, spec) }
}

fn app_armor(metadata: &Value, spec: &Value) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad = |of: &Value| {
        let profile = get(security(of), "appArmorProfile");
        (!profile.is_null() && !["RuntimeDefault", "Localhost"].contains(&text(profile, "type")))
            .then(|| text(profile, "type").to_owned())
    };
    let mut values: Vec<String> = containers(spec).chain([spec]).filter_map(bad).collect();
    values.sort();
    values.dedup();
    let who = setters(bad(spec).is_some(), &which(spec, |container| bad(container).is_some()));
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations: Vec<_> = strings(metadata, "annotations")
        .into_iter()
        .filter(|(key, value)| key.starts_with(PREFIX) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(&value)))
        .collect();
    let annotated =
        (!annotations.is_empty()).then(|| plural("annotation", "annotations", annotations.len()).to_owned());
    values.extend(annotations);
    let who = who.into_iter().chain(annotated).collect::<Vec<_>>().join(" and ");
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(reason, format!("{who} must not set AppArmor profile type to {}", quoted(values)))
}

fn capabilities_added(_: &Value, spec: &Value) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (who, what) = adding(spec, &ALLOWED)?;
    violation("non-default capabilities", format!("{who} must not include {what} in securityContext.capabilities.add"))
}

/// The containers that add capabilities beside the allowed ones, and these.
fn adding(spec: &Value, allowed: &[&str]) -> Option<(String, String)> {
    let added = |container: &Value| -> Vec<String> {
        let added = texts(get(security(container), "capabilities"), "add").into_iter();
        added.filter(|name| !allowed.contains(name)).map(str::to_owned).collect()
    };
    let who = which(spec, |container| !added(container).is_empty());
    let what: BTreeSet<_> = containers(spec).flat_map(added).collect();
    (!who.is_empty()).then(|| (named(&who), quoted(what)))
}

fn capabilities_dropped(_: &Value, spec: &Value) -> Option<Violation> {
    let keeps = |container: &Value| !texts(get(security(container), "capabilities"), "drop").contains(&"ALL");
    let missing = which(spec, keeps);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&missing)));
    }
    if let Some((who, what)) = adding(spec, &["NET_BIND_SERVICE"]) {
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(_: &Value, spec: &Value) -> Option<Violation> {
    let shared: Vec<_> = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| flag(spec, key)).collect();
    let list = shared.iter().map(|key| format!("{key}=true")).collect::<Vec<_>>().join(", ");
    if shared.is_empty() { None } else { violation("host namespaces", list) }
}

fn host_path_volumes(_: &Value, spec: &Value) -> Option<Violation> {
    let volumes: Vec<_> =
        items(spec, "volumes").iter().filter(|v| has(v, "hostPath")).map(|volume| text(volume, "name")).collect();
    let detail = || format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(&volumes));
    if volumes.is_empty() { None } else { violation("hostPath volumes", detail()) }
}

fn host_ports(_: &Value, spec: &Value) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = items(container, "ports").iter().map(|port| int_or_zero(port, "hostPort"));
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let who = which(spec, |container| !ports(container).is_empty());
    let what: BTreeSet<_> = containers(spec).flat_map(ports).collect();
    if who.is_empty() {
        return None;
    }
    let (uses, noun) = (plural("uses", "use", who.len()), plural("hostPort", "hostPorts", what.len()));
    let list = what.into_iter().collect::<Vec<_>>().join(", ");
    violation("hostPort", format!("{} {uses} {noun} {list}", named(&who)))
}

fn host_probes(_: &Value, spec: &Value) -> Option<Violation> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().map(|path| at(container, path));
        let hosts = handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(get(handler, kind), "host")));
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let who: BTreeSet<_> = which(spec, |container| !hosts(container).is_empty()).into_iter().collect();
    let who: Vec<_> = who.into_iter().collect();
    let what: BTreeSet<_> = containers(spec).flat_map(hosts).collect();
    if who.is_empty() {
        return None;
    }
    let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", what.len());
    let uses = plural("uses", "use", who.len());
    violation("probe or lifecycle host", format!("{} {uses} {noun} {}", named(&who), quoted(what)))
}

fn privileged(_: &Value, spec: &Value) -> Option<Violation> {
    let who = which(spec, |container| flag(security(container), "privileged"));
    let detail = || format!("{} must not set securityContext.privileged=true", named(&who));
    if who.is_empty() { None } else { violation("privileged", detail()) }
}

fn proc_mount(_: &Value, spec: &Value) -> Option<Violation> {
    let mount = |container: &Value| {
        let mount = get(security(container), "procMount").as_str();
        mount.filter(|mount| *mount != "Default").map(str::to_owned)
    };
    let who = which(spec, |container| mount(container).is_some());
    let what: BTreeSet<_> = containers(spec).filter_map(mount).collect();
    let detail = || format!("{} must not set securityContext.procMount to {}", named(&who), quoted(what));
    if who.is_empty() { None } else { violation("procMount", detail()) }
}

fn volume_types(_: &Value, spec: &Value) -> Option<Violation> {
    const FINE: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const KNOWN: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let bad: Vec<_> =
        items(spec, "volumes").iter().filter(|volume| !FINE.iter().any(|kind| has(volume, kind))).collect();
    if bad.is_empty() {
        return None;
    }
    let kind = |volume: &&Value| KNOWN.into_iter().find(|kind| has(volume, kind)).unwrap_or("unknown");
    let kinds: BTreeSet<_> = bad.iter().map(kind).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|volume| text(volume, "name"))),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    violation("restricted volume types", detail)
}

fn run_as_non_root(_: &Value, spec: &Value) -> Option<Violation> {
    let asked = |of: &Value| get(security(of), "runAsNonRoot").as_bool();
    let pod = asked(spec);
    let refusing = which(spec, |container| asked(container) == Some(false));
    if let Some(who) = setters(pod == Some(false), &refusing) {
        return violation("runAsNonRoot != true", format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = which(spec, |container| asked(container).is_none() && pod != Some(true));
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent));
    if silent.is_empty() { None } else { violation("runAsNonRoot != true", detail()) }
}

fn run_as_user(_: &Value, spec: &Value) -> Option<Violation> {
    let root = |of: &Value| int(security(of), "runAsUser") == Some(0);
    let who = setters(root(spec), &which(spec, root))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn se_linux(spec: &Value, engine: bool) -> Option<Violation> {
    let types = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let allowed = &types[..if engine { 5 } else { 4 }];
    let options = |of: &Value| get(security(of), "seLinuxOptions").clone();
    let wrong_type = |of: &Value| !allowed.contains(&text(&options(of), "type"));
    let sets = |of: &Value, key: &str| !text(&options(of), key).is_empty();
    let bad = |of: &Value| wrong_type(of) || sets(of, "user") || sets(of, "role");
    let who = setters(bad(spec), &which(spec, bad))?;
    let all = || containers(spec).chain([spec]);
    let wrong: BTreeSet<_> =
        all().filter(|of| wrong_type(of)).map(|of| text(&options(of), "type").to_owned()).collect();
    let mut what = Vec::new();
    if !wrong.is_empty() {
        what.push(format!("{} {}", plural("type", "types", wrong.len()), quoted(wrong)));
    }
    for key in ["user", "role"] {
        if all().any(|of| sets(of, key)) {
            what.push(format!("{key} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

fn seccomp_annotations(metadata: &Value, spec: &Value) -> Option<Violation> {
    let annotations: BTreeMap<_, _> = strings(metadata, "annotations");
    let of_containers =
        containers(spec).map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "name")));
    let keys = [String::from("seccomp.security.alpha.kubernetes.io/pod")].into_iter().chain(of_containers);
    let fine = |value: &str| ["runtime/default", "docker/default"].contains(&value) || value.starts_with("localhost/");
    let forbidden: BTreeSet<_> = keys
        .filter_map(|key| Some((annotations.get(&key).filter(|value| !fine(value))?, key)))
        .map(|(value, key)| format!("{key}={}", go_quote(value)))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let noun = plural("annotation", "annotations", forbidden.len());
    let list = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {noun} {list}"))
}

/// Seccomp profiles that are given must be right; on the restricted level they must be given.
fn seccomp(spec: &Value, required: bool) -> Option<Violation> {
    let profile = |of: &Value| {
        let profile = get(security(of), "seccompProfile");
        (!profile.is_null()).then(|| text(profile, "type").to_owned())
    };
    let wrong = |of: &Value| profile(of).filter(|kind| !["Localhost", "RuntimeDefault"].contains(&kind.as_str()));
    if let Some(who) = setters(wrong(spec).is_some(), &which(spec, |container| wrong(container).is_some())) {
        let what: BTreeSet<_> = containers(spec).chain([spec]).filter_map(wrong).collect();
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(what));
        return violation("seccompProfile", detail);
    }
    let silent = which(spec, |container| required && profile(container).is_none() && profile(spec).is_none());
    if silent.is_empty() {
        return None;
    }
    let must = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    violation("seccompProfile", format!("pod or {} {must}", named(&silent)))
}

/// The first so many of these are allowed.
fn sysctls(spec: &Value, allowed: usize) -> Option<Violation> {
    const SAFE: [&str; 12] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    let names = items(security(spec), "sysctls").iter().map(|sysctl| text(sysctl, "name"));
    let forbidden: Vec<_> = names.filter(|name| !SAFE[..allowed].contains(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(_: &Value, spec: &Value) -> Option<Violation> {
    let set = |of: &Value| flag(get(security(of), "windowsOptions"), "hostProcess");
    let who = setters(set(spec), &which(spec, set))?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(_: &Value, spec: &Value) -> Option<Violation> {
    let allows = |container: &Value| get(security(container), "allowPrivilegeEscalation") != &Value::Bool(false);
    let who = which(spec, allows);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&who));
    if who.is_empty() { None } else { violation("allowPrivilegeEscalation != false", detail()) }
}
