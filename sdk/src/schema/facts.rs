//! What a published pod spec schema says beyond its types: the few defaults, and the bounds of a condition.

use serde_json::Value;

/// A literal in a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Literal {
    Text(&'static str),
    Bool(bool),
    Number(i64),
    Texts(&'static [&'static str]),
}

impl Literal {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Bool(bool) => bool.into(),
            Self::Number(number) => number.into(),
            Self::Texts(texts) => texts.into(),
        }
    }
}

use Literal::{Bool, Number, Text, Texts};

/// Definition, field, default. All other defaults of a pod come with the pod itself, not with its template.
pub(super) const DEFAULTS: &[(&str, &str, Literal)] = &[
    ("core.v1.AzureDiskVolumeSource", "fsType", Text("ext4")),
    ("core.v1.AzureDiskVolumeSource", "readOnly", Bool(false)),
    ("core.v1.ConfigMapEnvSource", "name", Text("")),
    ("core.v1.ConfigMapKeySelector", "name", Text("")),
    ("core.v1.ConfigMapProjection", "name", Text("")),
    ("core.v1.ConfigMapVolumeSource", "name", Text("")),
    ("core.v1.ContainerPort", "protocol", Text("TCP")),
    ("core.v1.FileKeySelector", "optional", Bool(false)),
    ("core.v1.GRPCAction", "service", Text("")),
    ("core.v1.ISCSIVolumeSource", "iscsiInterface", Text("default")),
    ("core.v1.LocalObjectReference", "name", Text("")),
    ("core.v1.RBDVolumeSource", "keyring", Text("/etc/ceph/keyring")),
    ("core.v1.RBDVolumeSource", "pool", Text("rbd")),
    ("core.v1.RBDVolumeSource", "user", Text("admin")),
    ("core.v1.ScaleIOVolumeSource", "fsType", Text("xfs")),
    ("core.v1.ScaleIOVolumeSource", "storageMode", Text("ThinProvisioned")),
    ("core.v1.SecretEnvSource", "name", Text("")),
    ("core.v1.SecretKeySelector", "name", Text("")),
    ("core.v1.SecretProjection", "name", Text("")),
];

/// Field of a condition, keyword, bound.
pub(super) const CONDITION_BOUNDS: &[(&str, &str, Literal)] = &[
    ("message", "maxLength", Number(32768)),
    ("observedGeneration", "minimum", Number(0)),
    ("reason", "maxLength", Number(1024)),
    ("reason", "minLength", Number(1)),
    ("reason", "pattern", Text("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")),
    ("status", "enum", Texts(&["True", "False", "Unknown"])),
    ("type", "maxLength", Number(316)),
    (
        "type",
        "pattern",
        Text(
            r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        ),
    ),
];

/// What a quantity written as a string looks like.
pub(crate) const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
