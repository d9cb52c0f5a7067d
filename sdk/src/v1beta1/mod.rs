//! The kinds of Agent Sandbox in version v1beta1, the one that they are stored in.
//!
//! One file per kind. Enumerations are open: a value that this crate does not know is kept in `Other` and written back
//! as it was read, so that an older client does no harm to a newer object.

mod claim;
mod sandbox;
mod template;
mod warm_pool;

pub use self::{
    claim::{
        ClaimLifecycle, ClaimShutdownPolicy, ClaimedSandbox, EnvVar, SandboxClaim, SandboxClaimSpec,
        SandboxClaimStatus, SandboxWarmPoolRef,
    },
    sandbox::{
        OperatingMode, PodMetadata, PodTemplate, Sandbox, SandboxSpec, SandboxStatus, ShutdownPolicy,
        VolumeClaimMetadata, VolumeClaimTemplate,
    },
    template::{
        EnvVarsInjectionPolicy, NetworkPolicyManagement, NetworkRules, SandboxTemplate, SandboxTemplateSpec,
        VolumeClaimTemplatesPolicy,
    },
    warm_pool::{
        SandboxTemplateRef, SandboxWarmPool, SandboxWarmPoolSpec, SandboxWarmPoolStatus, UpdateStrategy,
        UpdateStrategyType,
    },
};

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::{Value, json};

    use super::*;
    use crate::v1alpha1;

    fn round_trips<T: Serialize + DeserializeOwned + Debug>(value: Value) {
        let read: T = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), value, "{read:?}");
    }

    /// Values that this crate does not know are kept, and what is absent stays absent.
    #[test]
    fn what_was_read_is_written_back() {
        let data =
            json!({"metadata": {"name": "data", "labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        round_trips::<SandboxTemplateSpec>(json!({
            "podTemplate": {"metadata": {}, "spec": {"containers": [{"name": "main", "image": "x"}]}},
            "networkPolicy": {"egress": [{"ports": [{"port": "dns", "protocol": "UDP"}]}], "ingress": []},
            "networkPolicyManagement": "Later", "envVarsInjectionPolicy": "Allowed",
            "volumeClaimTemplatesPolicy": "Overrides", "volumeClaimTemplates": [data], "service": false,
        }));
        round_trips::<SandboxClaimSpec>(json!({
            "warmPoolRef": {"name": "pool"}, "env": [{"name": "A", "value": "", "containerName": "main"}],
            "lifecycle": {"shutdownPolicy": "DeleteForeground", "ttlSecondsAfterFinished": 0},
            "additionalPodMetadata": {"labels": {"sandbox.users.io/user": "alice"}}, "volumeClaimTemplates": [data],
        }));
        round_trips::<SandboxClaimSpec>(json!({"warmPoolRef": {"name": "pool"}}));
        round_trips::<SandboxClaimStatus>(json!({"sandbox": {"name": "pool-x7k2p", "podIPs": ["10.0.0.7"]}}));
        round_trips::<SandboxWarmPoolSpec>(json!({
            "sandboxTemplateRef": {"name": "tpl"}, "replicas": 0, "updateStrategy": {"type": "Rolling"},
        }));
        round_trips::<SandboxWarmPoolStatus>(json!({
            "replicas": 3, "readyReplicas": 2, "selector": "a=b", "observedGeneration": 4,
        }));
        round_trips::<SandboxWarmPoolStatus>(json!({}));
        round_trips::<v1alpha1::SandboxClaimSpec>(json!({"sandboxTemplateRef": {"name": "tpl"}, "warmpool": "none"}));
        round_trips::<v1alpha1::SandboxWarmPoolSpec>(json!({"sandboxTemplateRef": {"name": "tpl"}, "replicas": 2}));
        round_trips::<v1alpha1::SandboxStatus>(json!({"replicas": 1, "serviceFQDN": "a.b.svc"}));
    }
}
