//! Claims and pools, on every target.

use e2e::claims;

use crate::on_every_target;

on_every_target! {
    claims:
    a_claim_takes_a_member_of_its_pool_and_the_pool_makes_another,
    a_claim_with_an_environment_gets_a_sandbox_of_its_own_and_another_when_it_is_lost,
    claims_end_as_they_say,
}
