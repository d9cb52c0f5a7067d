//! What all sandboxes share: their namespace, their network policy, their pool. Applied, so that it may be done again and by
//! several applications.

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};

use super::{
    Inner,
    failures::{of_kube, of_sdk},
    manifest,
};
use crate::{Code, Error, audit::audit, labels};

/// Who owns the fields that are applied.
const MANAGER: &str = "agent-sandbox-provider";

impl Inner {
    /// Makes what is missing, once; after a failure it is tried again.
    pub(super) async fn prepare(&self) -> Result<(), Error> {
        let mut prepared = self.prepared.lock().await;
        if !*prepared {
            self.ensure_namespace().await?;
            self.ensure_policy().await?;
            self.ensure_pool().await?;
            *prepared = true;
        }
        Ok(())
    }

    /// The namespace has gone: everything is made anew with the next sandbox.
    pub(super) async fn forget_prepared(&self) {
        *self.prepared.lock().await = false;
    }

    async fn ensure_namespace(&self) -> Result<(), Error> {
        let name = self.client.namespace();
        let namespaces = Api::<Namespace>::all(self.client.kube());
        let missing = match namespaces.get_opt(name).await {
            Ok(found) => found.is_none(),
            // Who may not look may still work in it; if it is not there, the server says so soon.
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
            Err(error) => {
                let what = format!("namespace {name} was not read");
                return Err(of_kube(error, &what, Code::NamespaceCreationFailed).with("namespace", name));
            }
        };
        if !missing {
            return Ok(());
        }
        if !self.options.create_namespace {
            let message = format!("namespace {name} does not exist: create it, or allow that it is created");
            return Err(Error::new(Code::NamespaceNotFound, message).with("namespace", name));
        }
        match namespaces.create(&PostParams::default(), &manifest::namespace(name)).await {
            Ok(_) => {
                audit!(info, "namespace.created", namespace = name);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => {
                let what = format!("namespace {name} does not exist and was not created");
                Err(of_kube(error, &what, Code::NamespaceCreationFailed).with("namespace", name))
            }
        }
    }

    async fn ensure_policy(&self) -> Result<(), Error> {
        let (name, namespace) = (manifest::POLICY, self.client.namespace());
        let policies = Api::<NetworkPolicy>::namespaced(self.client.kube(), namespace);
        let of = |error, what: &str, code| {
            of_kube(error, &format!("network policy {name} was not {what}"), code).with("policyName", name)
        };
        let Some(access) = &self.options.network else {
            return match policies.delete(name, &DeleteParams::default()).await {
                Ok(_) => {
                    audit!(info, "network_policy.deleted", resource_name = name, namespace);
                    Ok(())
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                Err(error) => Err(of(error, "deleted", Code::NetworkPolicyDeletionFailed)),
            };
        };
        let policy = manifest::network_policy(access)?;
        let params = PatchParams::apply(MANAGER).force();
        match policies.patch(name, &params, &Patch::Apply(&policy)).await {
            Ok(_) => {
                let egress_rules = policy.spec.and_then(|spec| spec.egress).map_or(0, |rules| rules.len());
                audit!(info, "network_policy.created", resource_name = name, namespace, egress_rules);
                Ok(())
            }
            Err(error) => Err(of(error, "applied", Code::NetworkPolicyCreationFailed)),
        }
    }

    async fn ensure_pool(&self) -> Result<(), Error> {
        let Some(pool) = &self.options.warm_pool else { return self.remove_pool().await };
        let failed = |error| of_sdk(error, Code::WarmPoolAllocationFailed);
        let template = manifest::pool_template(pool, &self.options);
        self.client.templates().apply(&template, true).await.map_err(failed)?;
        self.client.warm_pools().apply(&manifest::pool(pool), true).await.map_err(failed)?;
        audit!(info, "warm_pool.prewarm", resource_name = manifest::POOL, requested = pool.size);
        Ok(())
    }

    /// Nobody claims from a pool that is switched off: it would only cost. Sandboxes that came from it stay.
    async fn remove_pool(&self) -> Result<(), Error> {
        let pools = self.client.warm_pools();
        let found = match pools.get(manifest::POOL).await {
            Ok(found) => found,
            // Without pools there is none, and who may not see them has none either.
            Err(_) => return Ok(()),
        };
        if found.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::MANAGED)) {
            match pools.delete_this(&found).await {
                Err(error) if !error.is_not_found() => {
                    return Err(of_sdk(error, Code::WarmPoolAllocationFailed));
                }
                _ => audit!(info, "warm_pool.pod_deleted", resource_name = manifest::POOL),
            }
        }
        Ok(())
    }
}
