//! The scenarios as data: a name that is a claim, what the target must have, and the story.

mod agents;
mod application;
mod claims;
mod exec;
mod health;
mod isolation;
mod lifecycle;
mod migration;
mod sandboxes;
mod sweep;
mod upgrade;
mod warm_pools;

use std::fmt;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::World;

/// Something that not every target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Commands in containers, and their logs.
    Exec,
    /// Containers are processes with all that an image holds, not a simulated shell.
    Processes,
    /// v1alpha1 is served beside v1beta1, and somebody converts.
    Conversion,
    /// The controller is installed where health checks look for it.
    Installation,
    /// The runtime class `gvisor` is gVisor.
    Gvisor,
    /// Network policies cut connections off.
    NetworkPolicy,
    /// Agents can be brought in: there are a runner that containers can run and a program that drives it.
    Agents,
    /// Minutes cost nothing: time is virtual.
    VirtualTime,
}

impl Feature {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::Exec,
        Self::Processes,
        Self::Conversion,
        Self::Installation,
        Self::Gvisor,
        Self::NetworkPolicy,
        Self::Agents,
        Self::VirtualTime,
    ];
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec => "exec",
            Self::Processes => "processes",
            Self::Conversion => "conversion",
            Self::Installation => "installation",
            Self::Gvisor => "gvisor",
            Self::NetworkPolicy => "network-policy",
            Self::Agents => "agents",
            Self::VirtualTime => "virtual-time",
        })
    }
}

impl std::str::FromStr for Feature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|feature| feature.to_string() == text);
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            format!("{text:?} is no feature; there are {}", all.join(", "))
        })
    }
}

/// What a scenario does.
pub type Story = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it claims, as one word with the group before it: `lifecycle::a_sandbox_…`.
    pub name: &'static str,
    /// What the target must have.
    pub needs: &'static [Feature],
    /// What it does.
    pub story: Story,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Ends a scenario that turns out to have nothing to stand on, which is no failure.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

macro_rules! scenarios {
    ($($group:ident::$name:ident [$($need:ident),*];)+) => {
        &[$(Scenario {
            name: concat!(stringify!($group), "::", stringify!($name)),
            needs: &[$(Feature::$need),*],
            story: |world| Box::pin($group::$name(world)),
        }),+]
    };
}

/// All scenarios.
pub const ALL: &[Scenario] = scenarios! {
    health::the_cluster_is_fit_for_sandboxes [];
    health::the_controller_is_found_and_everything_is_healthy [Installation];
    lifecycle::a_sandbox_lives_and_takes_its_belongings_with_it [Exec];
    lifecycle::a_sandbox_that_is_to_be_deleted_at_its_end_leaves_nothing [];
    lifecycle::a_sandbox_that_cannot_start_says_why [];
    lifecycle::a_sandbox_is_listed_by_its_label_and_found_by_its_name [];
    exec::commands_answer_with_their_streams_and_codes [Exec];
    exec::output_comes_while_an_endless_command_runs_and_leaving_it_does_not_hang [Exec];
    exec::an_endless_command_is_killed_and_says_how_it_ended [Exec, Processes];
    exec::files_go_in_and_come_out_as_they_were [Exec];
    exec::a_suspended_sandbox_keeps_the_files_of_its_volumes_and_nothing_else [Exec];
    exec::sessions_of_tmux_are_made_written_to_read_and_ended [Exec, Processes];
    claims::a_claim_takes_a_member_of_its_pool_and_the_pool_makes_another [Exec];
    claims::a_claim_with_an_environment_gets_a_sandbox_of_its_own_and_another_when_it_is_lost [Exec];
    claims::claims_end_as_they_say [];
    claims::ten_claims_at_once_get_ten_sandboxes [];
    warm_pools::a_pool_keeps_as_many_ready_as_it_is_told [];
    warm_pools::a_changed_template_reaches_a_pool_as_its_strategy_says [];
    isolation::a_template_brings_its_network_policy [];
    isolation::a_policy_cuts_a_sandbox_off [Exec, NetworkPolicy];
    isolation::a_sandbox_runs_under_the_runtime_class_that_it_names [];
    isolation::the_kernel_of_a_sandbox_is_gvisors [Exec, Gvisor];
    upgrade::objects_of_v1alpha1_go_on_as_v1beta1 [Conversion];
    upgrade::a_claim_of_v1alpha1_is_served_by_a_shadow_pool [Conversion];
    migration::pods_of_phase_one_become_sandboxes_with_their_files [Exec];
    sweep::a_sweep_by_label_takes_what_carries_it_and_nothing_else [];
    sandboxes::a_projects_sandbox_is_made_used_listed_stopped_made_again_and_destroyed [Exec];
    sandboxes::a_restarted_application_finds_its_sandboxes_again [Exec];
    sandboxes::a_sandbox_that_nobody_uses_is_shut_down_and_keeps_its_files [Exec, VirtualTime];
    agents::a_task_is_planned_approved_and_carried_out_in_a_sandbox [Exec, Processes, Agents];
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_features_are_read_as_they_are_written() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for feature in Feature::ALL {
            assert_eq!(feature.to_string().parse(), Ok(feature));
        }
        assert!("speed".parse::<Feature>().unwrap_err().contains("network-policy"));
    }
}
