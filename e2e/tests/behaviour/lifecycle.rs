//! The life of a Sandbox, on every target.

use anyhow::Result;
use e2e::{Target, lifecycle};

/// One test for each target. The fake in memory runs in virtual time, so that waiting costs nothing.
macro_rules! on_every_target {
    ($($scenario:ident,)+) => {$(
        mod $scenario {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn in_memory() -> Result<()> {
                Target::memory().await?.run(lifecycle::$scenario).await
            }

            #[tokio::test]
            async fn over_https() -> Result<()> {
                Target::https().await?.run(lifecycle::$scenario).await
            }

            #[tokio::test]
            async fn on_a_real_cluster() -> Result<()> {
                match Target::real().await? {
                    Some(cluster) => cluster.run(lifecycle::$scenario).await,
                    None => {
                        eprintln!("not run: K8S_E2E is not `true`");
                        Ok(())
                    }
                }
            }
        }
    )+};
}

on_every_target! {
    a_sandbox_lives_and_takes_its_belongings_with_it,
    a_sandbox_that_is_to_be_deleted_at_its_end_leaves_nothing,
    a_sandbox_that_cannot_start_says_why,
}
