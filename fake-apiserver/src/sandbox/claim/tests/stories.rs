//! What a user of claims sees, in a cluster on virtual time.

use super::*;

async fn members(world: &World) -> Vec<String> {
    let all = world.list(crate::sandbox::keys::sandboxes()).await;
    all.iter().filter(|sandbox| sandbox.label(WARM_POOL).is_some()).map(|sandbox| sandbox.name().to_owned()).collect()
}

async fn notes(world: &World) -> Vec<String> {
    let events = world.list(Gvr::new("events.k8s.io", "v1", "events")).await;
    let ours = events.iter().filter(|event| event.str_at(&["reportingController"]) == REPORTER);
    ours.map(|event| {
        format!("{} {}: {}", event.str_at(&["reason"]), event.str_at(&["action"]), event.str_at(&["note"]))
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn a_claim_on_a_full_pool_is_ready_at_once_with_a_member_that_was_ready_before_it() {
    let world = World::start(1).await;
    world.pool(2).await;
    let before = members(&world).await;
    let created = world.claim("c", json!({})).await;
    world.api.clock().sleep(Duration::from_millis(1)).await;
    let claim = world.get(claims(), "c").await.unwrap();
    let name = claim.str_at(&["status", "sandbox", "name"]).to_owned();
    assert!(before.contains(&name), "{name} of {before:?}");
    assert_eq!(world.shown("c").await, format!("True/DependenciesReady {name}"));
    let since = claim.at(&["status", "conditions"]).unwrap()[0]["lastTransitionTime"].as_str().unwrap().to_owned();
    assert!(since.parse::<Timestamp>().unwrap() < created.creation_timestamp().unwrap(), "{since}");
    assert!(claim.annotation(FIRST_READY).is_some_and(|time| time != UNKNOWN));
    assert!(claim.annotation(FIRST_OBSERVED).is_some());
    assert_eq!(claim.annotation(ASSIGNED), Some(name.as_str()));

    let sandbox = world.get(sandboxes(), &name).await.unwrap();
    assert_eq!(sandbox.controller().unwrap().uid, claim.uid());
    assert_eq!(sandbox.owner_references().len(), 1);
    let pod = world.get(pods(), &name).await.unwrap();
    assert_eq!((pod.label(WARM_POOL), pod.label(CLAIM_UID)), (None, None), "the claim's UID never reaches a pod");
    assert_eq!(pod.annotation(SAFE_TO_EVICT), None);
    assert_eq!(notes(&world).await, [format!("SandboxAdopted Adoption: Adopted warm pool Sandbox \"{name}\"")]);

    world.pass(10).await;
    let after = members(&world).await;
    assert!(after.len() == 2 && !after.contains(&name), "the pool has another instead: {after:?}");
    let rest = world.get(claims(), "c").await.unwrap();
    world.pass(3600).await;
    assert_eq!(world.get(claims(), "c").await, Some(rest), "at rest nothing is written");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_on_an_empty_pool_gets_a_sandbox_of_its_own_and_a_new_one_when_that_is_lost() {
    let world = World::start(1).await;
    world.pool(0).await;
    world.claim("c", json!({})).await;
    world.api.clock().sleep(Duration::from_millis(1)).await;
    assert_eq!(world.shown("c").await, "False/DependenciesNotReady c");
    world.pass(5).await;
    assert_eq!(world.shown("c").await, "True/DependenciesReady c");
    assert_eq!(notes(&world).await, ["SandboxProvisioned Provisioning: Created Sandbox \"c\""]);
    let first = world.get(sandboxes(), "c").await.unwrap();
    assert_eq!(first.label(LAUNCH_TYPE), Some("cold"));

    world.delete(sandboxes(), "c").await;
    world.pass(60).await;
    let second = world.get(sandboxes(), "c").await.unwrap();
    assert_ne!(first.uid(), second.uid());
    assert_eq!(world.shown("c").await, "True/DependenciesReady c");

    world.delete(claims(), "c").await;
    world.pass(60).await;
    assert_eq!(world.get(sandboxes(), "c").await, None);
    assert_eq!(world.get(pods(), "c").await, None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_member_is_replaced_by_another() {
    let world = World::start(1).await;
    world.pool(1).await;
    world.claim("c", json!({})).await;
    world.pass(10).await;
    let first = world.get(claims(), "c").await.unwrap().str_at(&["status", "sandbox", "name"]).to_owned();
    world.delete(sandboxes(), &first).await;
    world.pass(60).await;
    let claim = world.get(claims(), "c").await.unwrap();
    let second = claim.str_at(&["status", "sandbox", "name"]);
    assert!(second != first && second.starts_with("pool-"), "{second}");
    assert_eq!(claim.annotation(ASSIGNED), Some(second));
    assert_eq!(world.shown("c").await, format!("True/DependenciesReady {second}"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_two_seconds_for_members_without_an_address_and_then_gets_its_own() {
    let world = World::start(1).await;
    world.pool(1).await;
    let name = members(&world).await.remove(0);
    world.patch(sandboxes(), &name, json!({"spec": {"operatingMode": "Suspended"}})).await;
    world.pass(60).await;
    world.claim("c", json!({})).await;
    world.api.clock().sleep(Duration::from_millis(1900)).await;
    assert_eq!(world.shown("c").await, "/", "nothing is said while it may pass");
    world.pass(5).await;
    assert_eq!(world.shown("c").await, "True/DependenciesReady c");

    // One that comes to have an address within the time is taken.
    world.claim("d", json!({})).await;
    world.patch(sandboxes(), &name, json!({"spec": {"operatingMode": "Running"}})).await;
    world.pass(5).await;
    assert_eq!(world.shown("d").await, format!("True/DependenciesReady {name}"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_says_what_is_missing_and_is_served_when_it_comes() {
    let world = World::start(1).await;
    world.claim("c", json!({})).await;
    world.pass(1).await;
    assert_eq!(world.shown("c").await, "False/WarmPoolNotFound");
    let spec = json!({"replicas": 0, "sandboxTemplateRef": {"name": "tpl"}});
    world.extension(warm_pools(), "SandboxWarmPool", "pool", spec).await;
    world.pass(1).await;
    assert_eq!(world.shown("c").await, "False/TemplateNotFound");
    world.template(json!({})).await;
    world.pass(1).await;
    assert_eq!(world.shown("c").await, "False/DependenciesNotReady c");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn environment_and_volumes_are_served_cold_even_where_members_wait() {
    let world = World::start(1).await;
    world.template(json!({"envVarsInjectionPolicy": "Allowed", "volumeClaimTemplatesPolicy": "Allowed"})).await;
    let spec = json!({"replicas": 1, "sandboxTemplateRef": {"name": "tpl"}});
    world.extension(warm_pools(), "SandboxWarmPool", "pool", spec).await;
    world.pass(10).await;
    world.claim("env", json!({"env": [{"name": "A", "value": "1"}]})).await;
    let volume = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    world.claim("vol", json!({"volumeClaimTemplates": [volume]})).await;
    world.pass(10).await;
    assert_eq!(world.shown("env").await, "True/DependenciesReady env");
    assert_eq!(world.shown("vol").await, "True/DependenciesReady vol");
    let pod = world.get(pods(), "env").await.unwrap();
    assert_eq!(pod.at(&["spec", "containers"]).unwrap()[0]["env"], json!([{"name": "A", "value": "1"}]));
    assert!(world.get(volume_claims(), "data-vol").await.is_some());
    assert_eq!(members(&world).await.len(), 1);
    world.stop().await;
}

#[rstest]
#[case::kept("Retain", true)]
#[case::deleted("Delete", false)]
#[case::deleted_after_what_it_has("DeleteForeground", false)]
#[tokio::test(start_paused = true)]
async fn an_expired_claim_loses_its_sandbox_and_with_it_perhaps_itself(#[case] policy: &str, #[case] kept: bool) {
    let world = World::start(1).await;
    world.pool(0).await;
    let lifecycle = json!({"shutdownTime": "2026-01-01T00:10:00Z", "shutdownPolicy": policy});
    world.claim("c", json!({"lifecycle": lifecycle})).await;
    world.pass(500).await;
    assert_eq!(world.shown("c").await, "True/DependenciesReady c");
    world.pass(200).await;
    assert_eq!((world.get(sandboxes(), "c").await, world.get(pods(), "c").await), (None, None));
    let mut told = vec!["ClaimExpired Claim Expired: Claim expired".to_owned()];
    if kept {
        assert_eq!(world.shown("c").await, "False/ClaimExpired");
    } else {
        assert_eq!(world.get(claims(), "c").await, None);
        told.push(format!("ClaimExpired Deleting: Deleting Claim (ShutdownPolicy={policy})"));
    }
    told.push("SandboxProvisioned Provisioning: Created Sandbox \"c\"".into());
    let mut notes = notes(&world).await;
    notes.sort();
    assert_eq!(notes, told);

    if kept {
        world.patch(claims(), "c", json!({"spec": {"lifecycle": null}})).await;
        world.pass(10).await;
        assert_eq!(world.shown("c").await, "True/DependenciesReady c", "it lives again when its time is moved");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_some_time_after_its_pod_has() {
    let world = World::start(1).await;
    world.pool(0).await;
    let pod_template = json!({"spec": {
        "containers": [{"name": "main", "image": "x", "command": ["sh", "-c", "exit 3"]}], "restartPolicy": "Never",
    }});
    world.patch(templates(), "tpl", json!({"spec": {"podTemplate": pod_template}})).await;
    world.claim("c", json!({"lifecycle": {"ttlSecondsAfterFinished": 100}})).await;
    world.pass(50).await;
    assert_eq!(world.shown("c").await, "False/PodFailed c");
    world.pass(100).await;
    assert_eq!(world.shown("c").await, "False/ClaimExpired");
    let claim = world.get(claims(), "c").await.unwrap();
    let list = claim.at(&["status", "conditions"]).and_then(Value::as_array).unwrap();
    let kinds: Vec<_> = list.iter().map(|condition| condition["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Finished", "Ready"], "that it had finished is remembered");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_expiry_is_seen_before_the_claim_goes() {
    let world = World::start(1).await;
    world.pool(0).await;
    let created =
        world.claim("c", json!({"lifecycle": {"shutdownTime": "2025-12-31T00:00:00Z", "shutdownPolicy": "Delete"}}));
    let after = created.await.resource_version().parse().unwrap();
    world.pass(10).await;
    let mut watcher = world.api.watch(&claims(), "ns", "", after).await.unwrap();
    let mut marked = Vec::new();
    for event in watcher.next().await.unwrap() {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = &event else {
            continue;
        };
        marked.push((matches!(event, WatchEvent::Deleted(_)), ClaimStatus::of(object).is_marked_expired()));
    }
    assert!(marked.contains(&(false, true)) && marked.last() == Some(&(true, true)), "{marked:?}");
    assert_eq!(world.get(sandboxes(), "c").await, None, "it never had a Sandbox");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_templates_metadata_reaches_bound_sandboxes_with_the_next_pass_and_its_spec_does_not() {
    let world = World::start(1).await;
    world.pool(1).await;
    world.claim("c", json!({})).await;
    world.pass(10).await;
    let name = world.get(claims(), "c").await.unwrap().str_at(&["status", "sandbox", "name"]).to_owned();
    let pod_template =
        json!({"metadata": {"labels": {"app": "y"}}, "spec": {"containers": [{"name": "main", "image": "z"}]}});
    world.patch(templates(), "tpl", json!({"spec": {"podTemplate": pod_template}})).await;
    world.patch(claims(), "c", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    world.pass(10).await;
    let pod = world.get(pods(), &name).await.unwrap();
    assert_eq!(pod.label("app"), Some("y"));
    assert_eq!(pod.at(&["spec", "containers"]).unwrap()[0]["image"], "x");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn refused_claims_wait_for_a_change_and_others_try_again() {
    let world = World::start(1).await;
    world.pool(0).await;
    world.claim("refused", json!({"env": [{"name": "A", "value": "1"}]})).await;
    world.claim("bad", json!({"additionalPodMetadata": {"labels": {"team": "x"}}})).await;
    let mut taken = Object::new("agents.x-k8s.io/v1beta1", "Sandbox", "ns", "taken");
    taken.set("spec", template(json!({})).get("spec").unwrap().clone());
    world.create(sandboxes(), taken).await;
    world.claim("taken", json!({})).await;
    world.pass(10).await;
    assert_eq!(world.shown("refused").await, "False/EnvVarsInjectionRejected");
    assert_eq!(world.shown("bad").await, "False/InvalidMetadata");
    assert_eq!(world.shown("taken").await, "False/ReconcilerError");
    // The template's policy wakes nobody; a change of the claim does.
    world.patch(templates(), "tpl", json!({"spec": {"envVarsInjectionPolicy": "Allowed"}})).await;
    world.pass(600).await;
    assert_eq!(world.shown("refused").await, "False/EnvVarsInjectionRejected");
    world.patch(claims(), "refused", json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    world.delete(sandboxes(), "taken").await;
    world.pass(2000).await;
    assert_eq!(world.shown("refused").await, "True/DependenciesReady refused");
    assert_eq!(world.shown("taken").await, "True/DependenciesReady taken");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn members_are_taken_from_the_nodes_in_turn() {
    let world = World::with_nodes(1, &["n1", "n2"]).await;
    world.pool(4).await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        // The pool is told to shrink, so that nothing comes after.
        world.claim(name, json!({})).await;
        world.api.clock().sleep(Duration::from_millis(1)).await;
        let sandbox = world.get(claims(), name).await.unwrap().str_at(&["status", "sandbox", "name"]).to_owned();
        nodes.push(world.get(sandboxes(), &sandbox).await.unwrap().str_at(&["status", "nodeName"]).to_owned());
    }
    assert_eq!(nodes.iter().filter(|node| *node == "n1").count(), 2, "{nodes:?}");
    assert!(nodes[0] != nodes[1] && nodes[2] != nodes[3], "{nodes:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_a_controller_left_behind_is_kept_by_the_next() {
    let mut world = World::start(1).await;
    world.pool(2).await;
    world.controllers.cancel();
    world.pass(1).await;
    let names = members(&world).await;
    world.claim("c", json!({})).await;
    world.patch(claims(), "c", json!({"metadata": {"annotations": {ASSIGNED: names[1]}}})).await;
    world.claim("z", json!({})).await;
    world.patch(claims(), "z", json!({"metadata": {"annotations": {ASSIGNED: "pool-gone"}}})).await;
    world.claim("old", json!({})).await;
    world.patch(claims(), "old", json!({"metadata": {"labels": {ASSIGNED: names[0]}}})).await;
    world.restart(Settings::default());
    world.pass(10).await;
    assert_eq!(world.shown("c").await, format!("True/DependenciesReady {}", names[1]));
    assert_eq!(world.shown("old").await, format!("True/DependenciesReady {}", names[0]));
    let old = world.get(claims(), "old").await.unwrap();
    assert_eq!((old.annotation(ASSIGNED), old.label(ASSIGNED)), (Some(names[0].as_str()), None));
    assert!(!world.shown("z").await.contains("pool-gone"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_replaces_the_stale_does_not_hand_them_out() {
    let world = World::start(1).await;
    world.template(json!({})).await;
    let spec = json!({
        "replicas": 1, "sandboxTemplateRef": {"name": "tpl"}, "updateStrategy": {"type": "Recreate"},
    });
    world.extension(warm_pools(), "SandboxWarmPool", "pool", spec).await;
    world.pass(10).await;
    let stale = members(&world).await;
    // A claim of the same moment as the new template: the pool has not replaced its member yet.
    world.patch(sandboxes(), &stale[0], json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let containers = json!([{"name": "main", "image": "new"}]);
    world.patch(templates(), "tpl", json!({"spec": {"podTemplate": {"spec": {"containers": containers}}}})).await;
    world.claim("c", json!({})).await;
    world.pass(10).await;
    assert_eq!(world.shown("c").await, "True/DependenciesReady c");
    let pod = world.get(pods(), "c").await.unwrap();
    assert_eq!(pod.at(&["spec", "containers"]).unwrap()[0]["image"], "new");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_flags_silence_events_and_annotations() {
    let mut world = World::start(1).await;
    world.restart(Settings {
        disable_claim_events: true,
        disable_claim_observability_annotations: true,
        allowed_label_domains: vec!["example.com".into()],
        ..Settings::default()
    });
    world.pool(1).await;
    world.claim("c", json!({"additionalPodMetadata": {"labels": {"a.example.com/x": "y"}}})).await;
    world.pass(10).await;
    assert!(world.shown("c").await.starts_with("True/DependenciesReady pool-"));
    assert!(notes(&world).await.is_empty());
    assert_eq!(world.get(claims(), "c").await.unwrap().annotation(FIRST_OBSERVED), None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_network_policy_of_an_older_release_goes_and_others_stay() {
    let world = World::start(1).await;
    world.pool(0).await;
    let claim = world.claim("c", json!({})).await;
    for (name, owned) in [("c-network-policy", true), ("d-network-policy", false)] {
        let mut policy = Object::new("networking.k8s.io/v1", "NetworkPolicy", "ns", name);
        policy.set("spec", json!({"podSelector": {}}));
        if owned {
            let owner = crate::sandbox::ownership::controller_reference(&claim);
            policy.set_at(&["metadata", "ownerReferences"], vec![owner]);
        }
        world.create(network_policies(), policy).await;
    }
    world.claim("d", json!({})).await;
    world.pass(10).await;
    assert_eq!(world.get(network_policies(), "c-network-policy").await, None);
    assert!(world.get(network_policies(), "d-network-policy").await.is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_claims_at_once_each_take_a_member_of_their_own() {
    let count = 100;
    let world = World::start(1).await;
    world.pool(count).await;
    let before: std::collections::BTreeSet<_> = members(&world).await.into_iter().collect();
    for number in 0..count {
        world.claim(&format!("c{number}"), json!({})).await;
    }
    world.api.clock().sleep(Duration::from_millis(1)).await;
    let mut taken = std::collections::BTreeSet::new();
    for claim in world.list(claims()).await {
        taken.insert(claim.str_at(&["status", "sandbox", "name"]).to_owned());
        assert!(ClaimStatus::of(&claim).is_ready(), "{}", claim.name());
    }
    assert_eq!(taken, before);
    world.stop().await;
}
