//! Whether sandboxes can be had from the cluster.

use agent_sandbox_sdk::health::{Topic, Verdict};

use super::{Inner, manifest};
use crate::{HealthCheck, HealthRow};

impl Inner {
    pub(super) async fn health(&self) -> HealthCheck {
        let health = self.client.health().await;
        let mut rows: Vec<HealthRow> = Vec::new();
        for row in &health.rows {
            let name = match row.topic {
                Topic::Cluster => "cluster",
                Topic::Kinds | Topic::Definitions => "crds",
                Topic::Controller => "controller",
                Topic::Namespace => "namespace",
                Topic::RuntimeClasses => "runtimeClasses",
                Topic::Permissions => "permissions",
                _ => "other",
            };
            let mut row = HealthRow {
                name: name.into(),
                ok: row.verdict != Verdict::Bad,
                found: row.found.clone(),
                advice: Some(row.advice.clone()).filter(|advice| !advice.is_empty()),
            };
            self.excuse(&mut row);
            rows.push(row);
        }
        if rows.first().is_some_and(|row| row.ok) {
            if let Some(class) = &self.options.runtime_class {
                let known = rows.iter().find(|row| row.name == "runtimeClasses");
                if let Some(known) = known.filter(|known| !known.found.contains(&format!("{class} ("))) {
                    let found = format!("runtime class {class} is not there: {}", known.found);
                    let advice = Some("create it on the cluster, or choose another".into());
                    rows.push(HealthRow { name: "runtimeClass".into(), ok: false, found, advice });
                }
            }
            rows.extend(self.pool_row().await);
        }
        let bad: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.found.as_str()).collect();
        let message = if bad.is_empty() { None } else { Some(bad.join("; ")) };
        HealthCheck { healthy: message.is_none(), message, rows }
    }

    /// What the SDK finds bad and this provider does without.
    fn excuse(&self, row: &mut HealthRow) {
        let needs_pool = self.options.warm_pool.is_some();
        if !row.ok && row.name == "crds" && !needs_pool && !row.found.starts_with("sandboxes") {
            row.ok = row.found.ends_with("are not served");
            row.advice = Some("only a warm pool would need them".into());
        }
        if !row.ok && row.name == "namespace" && self.options.create_namespace && row.found.ends_with("does not exist")
        {
            row.ok = true;
            row.advice = Some("it is created with the first sandbox".into());
        }
    }

    async fn pool_row(&self) -> Option<HealthRow> {
        let wanted = self.options.warm_pool.as_ref()?.size;
        let name = "warmPool".to_owned();
        Some(match self.client.warm_pools().get(manifest::POOL).await {
            Ok(pool) => {
                let ready = pool.status.and_then(|status| status.ready_replicas).unwrap_or(0);
                let found = format!("{ready} of {wanted} sandboxes wait in {}", manifest::POOL);
                HealthRow { name, ok: true, found, advice: None }
            }
            Err(error) => {
                let advice = Some("it is applied with the first sandbox".into());
                HealthRow { name, ok: error.is_not_found(), found: error.to_string(), advice }
            }
        })
    }
}
