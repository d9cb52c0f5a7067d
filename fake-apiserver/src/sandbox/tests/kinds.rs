//! Templates, the older version, and what is easily got wrong about Sandboxes.

use super::*;

fn older() -> Gvr {
    Gvr::new(GROUP, "v1alpha1", "sandboxes")
}

fn template(spec: Value) -> Object {
    let mut template = Object::new(EXTENSIONS_API_VERSION, "SandboxTemplate", "ns", "tpl");
    template.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}));
    for (key, value) in spec.as_object().unwrap() {
        template.set_at(&["spec", key], value.clone());
    }
    template
}

#[tokio::test(start_paused = true)]
async fn a_templates_policy_is_made_repaired_and_given_up() {
    let world = World::start().await;
    let name = "tpl-network-policy";
    world.create(&templates(), template(json!({}))).await;
    world.settle().await;
    let made = world.get(&network_policies(), name).await.unwrap();
    assert_eq!(made.controller().unwrap().kind, "SandboxTemplate");
    let labelled = world.get(&templates(), "tpl").await.unwrap();
    assert_eq!(labelled.label(TEMPLATE_REF_HASH), Some("9d22159f"));

    world.patch(&network_policies(), name, json!({"spec": {"egress": []}})).await;
    assert_eq!(world.get(&network_policies(), name).await.unwrap().get("spec"), made.get("spec"));
    world.api.delete(&network_policies(), "ns", name, &now()).await.unwrap();
    world.settle().await;
    assert!(world.exists(&network_policies(), name).await, "a policy that is deleted comes back");

    // The server fills in what the template leaves open; that is no difference to be repaired for ever.
    world.patch(&templates(), "tpl", json!({"spec": {"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}}})).await;
    let custom = world.get(&network_policies(), name).await.unwrap();
    assert_eq!(custom.at(&["spec", "ingress"]), None);
    assert_eq!(custom.at(&["spec", "egress"]), Some(&json!([{"ports": [{"port": 53, "protocol": "TCP"}]}])));
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.get(&network_policies(), name).await, Some(custom));

    world.patch(&templates(), "tpl", json!({"spec": {"networkPolicyManagement": "Unmanaged"}})).await;
    assert!(!world.exists(&network_policies(), name).await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_somebody_else_is_left_alone_until_it_goes() {
    let world = World::start().await;
    let mut own = Object::new("networking.k8s.io/v1", "NetworkPolicy", "ns", "tpl-network-policy");
    own.set("spec", json!({"podSelector": {}}));
    let own = world.create(&network_policies(), own).await;
    world.create(&templates(), template(json!({}))).await;
    world.settle().await;
    let found = world.get(&network_policies(), own.name()).await.unwrap();
    assert_eq!(found.resource_version(), own.resource_version());
    world.api.delete(&network_policies(), "ns", own.name(), &now()).await.unwrap();
    world.pass(Duration::from_secs(1000)).await;
    assert!(world.get(&network_policies(), own.name()).await.unwrap().controller().is_some());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_written_in_the_older_version_is_suspended_and_counted_there() {
    let world = World::start().await;
    let mut sandbox = Object::new("agents.x-k8s.io/v1alpha1", "Sandbox", "ns", "sb");
    sandbox.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}));
    let made = world.create(&older(), sandbox).await;
    assert_eq!(made.at(&["spec", "replicas"]), Some(&json!(1)));
    world.settle().await;
    world.pod_runs().await;
    let newer = world.get(&sandboxes(), "sb").await.unwrap();
    assert_eq!(newer.str_at(&["spec", "operatingMode"]), "Running");
    assert!(newer.annotation(&older_state("Sandbox")).is_some());
    assert_eq!(world.condition("Ready").await, "True/DependenciesReady: Pod is Ready");

    world.patch(&older(), "sb", json!({"spec": {"replicas": 0}})).await;
    assert_eq!(world.get(&sandboxes(), "sb").await.unwrap().str_at(&["spec", "operatingMode"]), "Suspended");
    // What was counted when the older version was last written stands there for ever.
    world.spec(json!({"operatingMode": "Running"})).await;
    let shown = world.get(&older(), "sb").await.unwrap();
    assert_eq!(shown.at(&["spec", "replicas"]), Some(&json!(1)));
    assert_eq!(shown.at(&["status", "replicas"]), None);
    assert_eq!(shown.annotations().len(), 1, "the state is not shown in the older version");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ownership_moves_by_what_a_write_means_in_the_owners_version() {
    let world = World::start().await;
    let mut sandbox = Object::new("agents.x-k8s.io/v1alpha1", "Sandbox", "ns", "sb");
    sandbox.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}));
    world.create(&older(), sandbox).await;
    let owners = |object: Object, version: &str| {
        let entries = object.at(&["metadata", "managedFields"]).and_then(Value::as_array).cloned().unwrap();
        let of = entries.iter().find(|entry| entry["apiVersion"].as_str().unwrap().ends_with(version));
        of.map(|entry| entry["fieldsV1"]["f:spec"].clone()).unwrap_or_default()
    };
    let before = owners(world.get(&sandboxes(), "sb").await.unwrap(), "v1alpha1");
    assert_eq!(before["f:replicas"], json!({}));
    world.spec(json!({"operatingMode": "Suspended"})).await;
    let after = owners(world.get(&sandboxes(), "sb").await.unwrap(), "v1alpha1");
    assert_eq!(after["f:replicas"], Value::Null, "the mode is what replicas are in the newer version");
    assert_eq!(after["f:podTemplate"], before["f:podTemplate"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_converted_cannot_be_read_in_the_other_version() {
    let world = World::start().await;
    world.sandbox(json!({})).await;
    let broken = json!({"metadata": {"annotations": {older_state("Sandbox"): "<"}}});
    world.patch(&sandboxes(), "sb", broken).await;
    let error = world.api.get(&older(), "ns", "sb").await.unwrap_err();
    assert_eq!(
        error.message,
        "conversion webhook for agents.x-k8s.io/v1beta1, Kind=Sandbox failed: failed to unmarshal v1alpha1 Sandbox state: \
         invalid character '<' looking for beginning of value"
    );
    assert_eq!(error.code, 500);
    assert!(world.exists(&sandboxes(), "sb").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_claim_in_the_older_version_drops_its_volumes() {
    let world = World::start().await;
    let mut claim = Object::new(EXTENSIONS_API_VERSION, "SandboxClaim", "ns", "c");
    let data = json!({"metadata": {"name": "data"}, "spec": {}});
    claim.set("spec", json!({"warmPoolRef": {"name": "pool"}, "volumeClaimTemplates": [data]}));
    world.create(&claims(), claim).await;
    let older = Gvr::new(EXTENSIONS_GROUP, "v1alpha1", "sandboxclaims");
    world.patch(&older, "c", json!({"metadata": {"labels": {"a": "b"}}})).await;
    let claim = world.get(&claims(), "c").await.unwrap();
    assert_eq!(claim.at(&["spec", "volumeClaimTemplates"]), None);
    assert_eq!(claim.str_at(&["spec", "warmPoolRef", "name"]), "pool");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_word_about_services_none_is_made_and_an_own_one_is_waited_for() {
    let world = World::start().await;
    let sandbox = world.sandbox(json!({})).await;
    world.pod_runs().await;
    assert!(!world.exists(&services(), "sb").await);
    assert_eq!(world.condition("Ready").await, "True/DependenciesReady: Pod is Ready");
    let mut service = Object::new("v1", "Service", "ns", "sb");
    service.set_at(&["metadata", "labels"], json!({NAME_HASH: name_hash("sb")}));
    service.set_at(&["metadata", "ownerReferences"], json!([ownership::controller_reference(&sandbox)]));
    service.set("spec", json!({"clusterIP": "None", "selector": {NAME_HASH: name_hash("sb")}}));
    world.create(&services(), service).await;
    world.settle().await;
    assert_eq!(world.condition("Ready").await, "True/DependenciesReady: Pod is Ready; Service Exists");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn volumes_outlive_an_expiry_that_keeps_the_sandbox() {
    let world = World::start().await;
    let data = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    world.sandbox(json!({"volumeClaimTemplates": [data], "shutdownTime": "2026-01-01T00:01:00Z"})).await;
    world.pass(Duration::from_secs(120)).await;
    assert!(!world.exists(&pods(), "sb").await);
    assert!(world.exists(&volume_claims(), "data-sb").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_somebody_else_keeps_a_sandbox_from_being_suspended() {
    let world = World::start().await;
    let mut pod = Object::new("v1", "Pod", "ns", "sb");
    pod.set("spec", json!({"containers": [{"name": "main", "image": "x"}]}));
    world.create(&pods(), pod).await;
    world.sandbox(json!({"operatingMode": "Suspended"})).await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(
        world.condition("Suspended").await,
        "False/PodNotOwned: Refused to delete pod because it is not owned by this sandbox"
    );
    assert!(world.exists(&pods(), "sb").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_pods_metadata_wait_for_each_other_where_that_is_wanted() {
    let settings = Settings { sandbox_write_behind_window: Duration::from_secs(30), ..Settings::default() };
    let world = World::with(settings).await;
    world.sandbox(json!({})).await;
    world.spec(json!({"podTemplate": {"metadata": {"labels": {"a": "1"}}}})).await;
    assert_eq!(world.get(&pods(), "sb").await.unwrap().label("a"), None);
    world.spec(json!({"podTemplate": {"metadata": {"labels": {"b": "2"}}}})).await;
    world.pass(Duration::from_secs(1)).await; // the longest wait, whatever the window
    let pod = world.get(&pods(), "sb").await.unwrap();
    assert_eq!((pod.label("a"), pod.label("b")), (Some("1"), Some("2")));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_installation_can_be_found() {
    let world = World::start().await;
    let deployments = Gvr::new("apps", "v1", "deployments");
    let deployment = world.api.get(&deployments, "agent-sandbox-system", "agent-sandbox-controller").await.unwrap();
    let deployment = deployment.unwrap();
    assert_eq!(deployment.at(&["status", "readyReplicas"]), Some(&json!(1)));
    assert_eq!(deployment.label("app"), Some("agent-sandbox-controller"));
    let image = deployment.at(&["spec", "template", "spec", "containers"]).unwrap()[0]["image"].as_str().unwrap();
    assert!(image.starts_with("registry.k8s.io/agent-sandbox/agent-sandbox-controller:v"), "{image}");
    world.stop().await;
}
