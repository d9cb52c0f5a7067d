//! Labels and annotations that the controllers set and read.

/// Annotation on a Sandbox: the name of its pod.
pub const POD_NAME: &str = "agents.x-k8s.io/pod-name";

/// Label on the pod, Service and volume claims of a Sandbox: the hash of its name.
pub const SANDBOX_NAME_HASH: &str = "agents.x-k8s.io/sandbox-name-hash";

/// Label that says which client made an object.
pub const CREATED_BY: &str = "agents.x-k8s.io/created-by";

/// Label that an operator puts on a pod, Service or volume claim to let a Sandbox adopt it (value `true`).
pub const ADOPTABLE: &str = "agents.x-k8s.io/adoptable";
