//! The life of a warm pool, on every target.

use e2e::warm_pools;

crate::on_every_target! {
    warm_pools:
    a_pool_keeps_as_many_ready_as_it_is_told,
    a_changed_template_reaches_a_pool_as_its_strategy_says,
}
