//! What a cluster with Agent Sandbox does, as its users see it.

mod claims;
mod examples;
mod lifecycle;
mod warm_pools;

/// One test for each target. The fake in memory runs in virtual time, so that waiting costs nothing.
macro_rules! on_every_target {
    ($scenarios:ident: $($scenario:ident,)+) => {$(
        mod $scenario {
            use anyhow::Result;
            use e2e::Target;

            use super::$scenarios;

            #[tokio::test(start_paused = true)]
            async fn in_memory() -> Result<()> {
                Target::memory().await?.run($scenarios::$scenario).await
            }

            #[tokio::test]
            async fn over_https() -> Result<()> {
                Target::https().await?.run($scenarios::$scenario).await
            }

            #[tokio::test]
            async fn on_a_real_cluster() -> Result<()> {
                match Target::real().await? {
                    Some(cluster) => cluster.run($scenarios::$scenario).await,
                    None => {
                        eprintln!("not run: K8S_E2E is not `true`");
                        Ok(())
                    }
                }
            }
        }
    )+};
}
pub(crate) use on_every_target;
