//! The life of a Sandbox, on every target.

use e2e::lifecycle;

use crate::on_every_target;

on_every_target! {
    lifecycle:
    a_sandbox_lives_and_takes_its_belongings_with_it,
    a_sandbox_that_is_to_be_deleted_at_its_end_leaves_nothing,
    a_sandbox_that_cannot_start_says_why,
}
