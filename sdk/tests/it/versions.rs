//! One program on clusters of all ages.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use agent_sandbox_sdk::{
    AgentSandboxClient, Error, Kind, Objects,
    conversion::{Version, convert},
    crds,
    v1beta1::{
        OperatingMode, PodTemplate, Sandbox, SandboxClaim, SandboxClaimSpec, SandboxSpec, SandboxTemplate,
        SandboxTemplateRef, SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef, SandboxWarmPoolSpec,
    },
};
use anyhow::{Context, Result};
use fake_apiserver::{Rule, cluster::Cluster};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        wait::{await_condition, conditions::is_crd_established},
        watcher::{Config, Event},
    },
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use crate::our_definitions;

const SOON: Duration = Duration::from_secs(10);

async fn cluster_with(definitions: Vec<CustomResourceDefinition>) -> Result<(Cluster, AgentSandboxClient)> {
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    let api = Api::<CustomResourceDefinition>::all(cluster.client());
    for crd in definitions {
        let name = crd.name_any();
        api.create(&PostParams::default(), &crd).await.with_context(|| format!("{name} is taken"))?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(SOON, established).await.with_context(|| format!("{name} is served"))??;
    }
    let client = AgentSandboxClient::new(cluster.client());
    Ok((cluster, client))
}

/// Our definitions as a cluster before v0.5.0 would have them.
fn only_older() -> Vec<CustomResourceDefinition> {
    let mut all = our_definitions();
    for crd in &mut all {
        crd.spec.conversion = None;
        crd.spec.versions.retain(|version| version.name == "v1alpha1");
        crd.spec.versions[0].storage = true;
    }
    all
}

/// Upstream's definitions of v0.1.1, if they lie in `shared/upstream` beside the workspace or further up.
fn v0_1_1() -> Option<Vec<CustomResourceDefinition>> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let folder = ours.ancestors().skip(1).map(|dir| dir.join("shared/upstream/crds")).find(|dir| dir.is_dir())?;
    let read = |crd: &CustomResourceDefinition| {
        let path = folder.join(format!("v0.1.1-{}_{}.yaml", crd.spec.group, crd.spec.names.plural));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_saphyr::from_str(&text).expect("upstream's definition is a definition")
    };
    Some(our_definitions().iter().map(read).collect())
}

fn pods() -> PodTemplate {
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    PodTemplate::of(PodSpec { containers: vec![main], ..Default::default() })
}

/// The program: every operation on every kind. It does not know which versions the cluster has.
async fn program(client: &AgentSandboxClient) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let templates = client.templates();
    let template = SandboxTemplateSpec { pod_template: pods(), ..Default::default() };
    templates.create(&SandboxTemplate::new("tpl", template)).await?;

    let pools = client.warm_pools();
    let sandbox_template_ref = SandboxTemplateRef { name: "tpl".into() };
    let pool = SandboxWarmPoolSpec { sandbox_template_ref, replicas: Some(2), ..Default::default() };
    pools.apply(&SandboxWarmPool::new("pool", pool), false).await?;
    said.push(format!("pool of {:?}", pools.scale("pool", 3).await?.spec.replicas));

    let claims = client.claims();
    let wish = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "pool".into() }, ..Default::default() };
    claims.create(&SandboxClaim::new("mine", wish)).await?;

    let sandboxes = client.sandboxes();
    let mut events = std::pin::pin!(sandboxes.watch(Config::default()));
    let spec = SandboxSpec { pod_template: pods(), ..Default::default() };
    sandboxes.create(&Sandbox::new("a", spec)).await?;
    said.push(format!("suspended: {}", client.suspend("a").await?.operating_mode()));
    said.push(format!("resumed: {}", client.resume("a").await?.operating_mode()));
    let labelled = sandboxes.patch("a", &json!({"metadata": {"labels": {"team": "red"}}})).await?;
    said.push(format!("labels: {:?}", labelled.labels()));
    let mut changed = sandboxes.get("a").await?;
    changed.labels_mut().clear();
    changed.spec.operating_mode = Some(OperatingMode::Suspended);
    let changed = sandboxes.update(&changed).await?;
    said.push(format!("updated: {} {:?}", changed.operating_mode(), changed.labels()));
    let error = sandboxes.update(&labelled).await.expect_err("an old revision");
    said.push(format!("stale: conflict {}, {error}", error.is_conflict()));
    while let Some(event) = tokio::time::timeout(SOON, futures::TryStreamExt::try_next(&mut events)).await?? {
        if let Event::Apply(sandbox) | Event::InitApply(sandbox) = event {
            said.push(format!("seen: {} {:?}", sandbox.operating_mode(), sandbox.labels()));
            if sandbox.resource_version() == changed.resource_version() {
                break;
            }
        }
    }
    said.push(format!("listed: {}", sandboxes.list(&ListParams::default()).await?.len()));
    said.push(format!("there: {} {}", sandboxes.exists("a").await?, sandboxes.exists("b").await?));
    sandboxes.delete_this(&changed).await?;
    sandboxes.wait_gone("a", SOON).await?;
    said.push(format!("there: {}", sandboxes.exists("a").await?));
    let again = sandboxes.delete("a").await.expect_err("it is gone");
    said.push(format!("gone: {}", again.is_not_found()));
    let names = (claims.get("mine").await?.name_any(), pools.get("pool").await?.spec.sandbox_template_ref.name);
    said.push(format!(
        "claim {} of template {}, {} templates",
        names.0,
        names.1,
        templates.list(&ListParams::default()).await?.len()
    ));
    Ok(said)
}

#[tokio::test(start_paused = true)]
async fn one_program_runs_on_old_and_new_clusters_and_says_the_same() -> Result<()> {
    let (cluster, client) = cluster_with(our_definitions()).await?;
    assert_eq!(client.sandboxes().version().await?, Version::V1beta1);
    let wanted = program(&client).await?;
    cluster.shutdown().await;
    assert_eq!(wanted[1], "suspended: Suspended", "{wanted:#?}");

    let mut older = vec![("only the older version", only_older())];
    match v0_1_1() {
        Some(definitions) => older.push(("v0.1.1", definitions)),
        None => eprintln!("not checked with v0.1.1: no folder shared/upstream beside or above the workspace"),
    }
    for (what, definitions) in older {
        let (cluster, client) = cluster_with(definitions).await?;
        for version in [client.sandboxes().version().await?, client.warm_pools().version().await?] {
            assert_eq!(version, Version::V1alpha1, "{what}");
        }
        assert_eq!(program(&client).await.with_context(|| what)?, wanted, "{what}");
        let claim = raw::<SandboxClaim>(&cluster, "v1alpha1").get("mine").await?;
        assert_eq!(claim.data["spec"]["sandboxTemplateRef"]["name"], "tpl", "{what}: the pool's template");
        cluster.shutdown().await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_the_kinds_is_told_from_one_without_the_object() -> Result<()> {
    let (cluster, client) = cluster_with(vec![crds::sandbox()]).await?;
    assert!(client.sandboxes().get("a").await.unwrap_err().is_not_found());
    let error = client.claims().get("a").await.unwrap_err();
    assert!(matches!(error, Error::NotServed { .. }) && !error.is_not_found() && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("sandboxclaims.extensions.agents.x-k8s.io"), "{error}");
    let definition = crds::sandbox_claim();
    Api::<CustomResourceDefinition>::all(cluster.client()).create(&PostParams::default(), &definition).await?;
    assert!(client.claims().get("a").await.unwrap_err().is_not_found(), "what was missing is looked for again");
    cluster.shutdown().await;
    Ok(())
}

fn raw<K: Kind>(cluster: &Cluster, version: &str) -> Api<DynamicObject> {
    let mut resource = ApiResource::erase::<K>(&());
    resource.version = version.into();
    resource.api_version = format!("{}/{version}", resource.group);
    Api::default_namespaced_with(cluster.client(), &resource)
}

/// The webhook's own bookkeeping aside, what the API serves in one version is our conversion of the other.
async fn same_as_served<K: Kind>(cluster: &Cluster, version: &str, spec: Value, status: Option<Value>) -> Result<()> {
    let kind = K::kind(&()).into_owned();
    let (older, newer) = (raw::<K>(cluster, "v1alpha1"), raw::<K>(cluster, "v1beta1"));
    let written = if version == "v1alpha1" { &older } else { &newer };
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("from-{version}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut object = DynamicObject::new(&name, &ApiResource::erase::<K>(&()));
    object.types = None;
    object.data = json!({"apiVersion": format!("{}/{version}", K::group(&())), "kind": kind, "spec": spec});
    written.create(&PostParams::default(), &object).await.with_context(|| format!("{kind} {spec}"))?;
    if let Some(status) = status {
        let patch = Patch::Merge(json!({"status": status}));
        written.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    let plain = |object: DynamicObject| -> Result<Value> {
        let mut object = serde_json::to_value(object)?;
        let metadata = object["metadata"].as_object_mut().context("metadata")?;
        metadata.retain(|key, _| ["annotations", "name", "namespace", "uid"].contains(&key.as_str()));
        Ok(object)
    };
    let (older, newer) = (plain(older.get(&name).await?)?, plain(newer.get(&name).await?)?);
    assert_eq!(convert(newer.clone(), Version::V1alpha1)?, older, "{kind} made older");
    let key = format!("api.agents.x-k8s.io/v1alpha1-{}-state", kind.to_lowercase());
    let state = |object: &mut Value| -> Option<Value> {
        let annotations = object["metadata"]["annotations"].as_object_mut()?;
        let kept: Value = serde_json::from_str(annotations.remove(&key)?.as_str()?).ok()?;
        let members = (&kept["apiVersion"], &kept["kind"], &kept["spec"]);
        Some(json!([members.0, members.1, members.2]))
    };
    let (mut ours, mut served) = (convert(older, Version::V1beta1)?, newer);
    let (our_state, their_state) = (state(&mut ours), state(&mut served));
    if version == "v1alpha1" {
        // A pool's controller has written this one since; the older version does not have it.
        if let Some(status) = served.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("observedGeneration");
        }
        assert_eq!(ours, served, "{kind} made newer");
        assert!(our_state.is_some());
        assert_eq!(our_state, their_state, "what is kept of an older {kind}");
    } else {
        // What was written in the stored version has not been through the webhook.
        assert_eq!(their_state, None, "nothing is kept of a newer {kind}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn our_conversion_is_the_one_that_the_cluster_serves() -> Result<()> {
    let cluster = Cluster::builder().seed(1).kubelet(false).start().await?;
    let pod = json!({"spec": {"containers": [{"name": "main", "image": "x"}], "initContainers": [{"name": "first", "image": "x"}]}});
    let volumes = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    for (version, spec) in [
        ("v1alpha1", json!({"podTemplate": pod})),
        ("v1alpha1", json!({"podTemplate": pod, "replicas": 0, "service": true})),
        ("v1beta1", json!({"podTemplate": pod, "volumeClaimTemplates": volumes})),
        ("v1beta1", json!({"podTemplate": pod, "operatingMode": "Suspended", "shutdownTime": "2040-01-02T03:04:05Z"})),
    ] {
        same_as_served::<Sandbox>(&cluster, version, spec, None).await?;
    }
    for (version, spec) in [
        ("v1alpha1", json!({"podTemplate": pod, "networkPolicyManagement": "Unmanaged"})),
        (
            "v1beta1",
            json!({"podTemplate": pod, "volumeClaimTemplatesPolicy": "Overrides", "volumeClaimTemplates": volumes}),
        ),
    ] {
        same_as_served::<SandboxTemplate>(&cluster, version, spec, None).await?;
    }
    for (version, spec) in [
        ("v1alpha1", json!({"sandboxTemplateRef": {"name": "tpl"}, "replicas": 0})),
        ("v1beta1", json!({"sandboxTemplateRef": {"name": "tpl"}, "updateStrategy": {"type": "Recreate"}})),
    ] {
        same_as_served::<SandboxWarmPool>(&cluster, version, spec, None).await?;
    }
    for (version, spec, sandbox) in [
        ("v1alpha1", json!({"sandboxTemplateRef": {"name": "no"}}), None),
        ("v1alpha1", json!({"sandboxTemplateRef": {"name": "no"}, "warmpool": "none"}), None),
        ("v1alpha1", json!({"sandboxTemplateRef": {"name": "no"}, "warmpool": "pool", "env": []}), None),
        (
            "v1beta1",
            json!({"warmPoolRef": {"name": "shadow-pool-t"}, "lifecycle": {"ttlSecondsAfterFinished": 0}}),
            None,
        ),
        ("v1beta1", json!({"warmPoolRef": {"name": "plain"}}), Some(json!({"sandbox": {"name": "plain-x7k2p"}}))),
    ] {
        same_as_served::<SandboxClaim>(&cluster, version, spec, sandbox).await?;
    }
    cluster.shutdown().await;
    Ok(())
}

/// Parts of pods, with what Go's encoder leaves out, adds and writes otherwise.
fn drawn_pod() -> impl Strategy<Value = Value> {
    let amount = prop_oneof![
        Just("1000m"),
        Just("0.5"),
        Just("1"),
        Just("1500m"),
        Just("1024Mi"),
        Just("1.5Gi"),
        Just("0.1Ki"),
        Just("1e3"),
        Just("1k"),
        Just("+2"),
        Just(".5Gi"),
        Just("0"),
        Just("100000000n"),
        Just("1E"),
        Just("2000000u"),
    ];
    let amount = prop_oneof![amount.prop_map(Value::from), (0..5000_i64).prop_map(Value::from)];
    let parts = |choices: Vec<(&'static str, Value)>| {
        prop::sample::subsequence(choices.clone(), 0..=choices.len())
            .prop_map(|parts| parts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
    };
    let container = parts(vec![
        ("args", json!([])),
        ("command", json!(["a", ""])),
        ("tty", json!(false)),
        ("stdin", json!(true)),
        ("workingDir", json!("")),
        ("imagePullPolicy", json!("")),
        ("securityContext", json!({})),
        (
            "env",
            json!([{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]),
        ),
        ("ports", json!([{"containerPort": 1, "hostPort": 0, "name": ""}])),
        ("volumeMounts", json!([{"name": "v", "mountPath": "/v", "readOnly": false, "subPath": ""}])),
        (
            "livenessProbe",
            json!({"httpGet": {"port": 80, "path": ""}, "periodSeconds": 0, "terminationGracePeriodSeconds": 1}),
        ),
        ("envFrom", json!([{"configMapRef": {"name": "c", "optional": false}, "prefix": ""}])),
        ("lifecycle", json!({"preStop": {"sleep": {"seconds": 0}}})),
    ]);
    let pod = parts(vec![
        ("hostNetwork", json!(false)),
        ("hostPID", json!(true)),
        ("nodeSelector", json!({})),
        ("nodeName", json!("")),
        ("securityContext", json!({"runAsNonRoot": false, "supplementalGroups": []})),
        ("tolerations", json!([])),
        ("terminationGracePeriodSeconds", json!(0)),
        ("overhead", json!({"cpu": "1000m"})),
        ("imagePullSecrets", json!([{"name": "s"}])),
        ("automountServiceAccountToken", json!(false)),
        (
            "volumes",
            json!([{"name": "v", "emptyDir": {"medium": "", "sizeLimit": "1024Mi"}}, {"name": "w", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "", "items": []}}, {"name": "h", "hostPath": {"path": "/x", "type": ""}}]),
        ),
        ("affinity", json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}})),
        ("dnsConfig", json!({"options": [{"name": "n", "value": ""}], "searches": []})),
    ]);
    (container, prop::option::of((amount.clone(), amount)), pod).prop_map(|(container, amounts, mut pod)| {
        let mut main = container;
        main.extend([("name".to_owned(), json!("main")), ("image".to_owned(), json!("x"))]);
        if let Some((limit, request)) = amounts {
            main.insert(
                "resources".into(),
                json!({"limits": {"cpu": limit}, "requests": {"memory": request}, "claims": []}),
            );
        }
        pod.insert("containers".into(), json!([main]));
        json!({"spec": pod})
    })
}

#[tokio::test(start_paused = true)]
async fn our_conversion_of_drawn_objects_is_the_one_that_the_cluster_serves() -> Result<()> {
    const DRAWN: usize = 40;
    let cluster = Cluster::builder().seed(1).kubelet(false).start().await?;
    // Nobody else writes between two looks at an object.
    let paused = |controller: String| cluster.rules().install(Rule::pause(&controller));
    let _paused: Vec<_> = cluster.rules().controllers().into_iter().map(paused).collect();
    let mut runner = TestRunner::deterministic();
    let pods = drawn_pod();
    for at in 0..DRAWN {
        let pod = pods.new_tree(&mut runner).map_err(|why| anyhow::anyhow!("{why}"))?.current();
        let volumes = json!([{"metadata": {"name": "v", "labels": {}}, "spec": {"resources": {"requests": {"storage": "1024Mi"}}, "volumeName": ""}}]);
        let shown = pod.to_string();
        let (version, extra) = match at % 4 {
            0 => ("v1alpha1", json!({"replicas": at % 3 % 2})),
            1 => ("v1beta1", json!({"volumeClaimTemplates": volumes, "shutdownTime": "2040-01-02T03:04:05+02:00"})),
            2 => ("v1alpha1", json!({"volumeClaimTemplates": [], "service": false})),
            _ => ("v1beta1", json!({})),
        };
        let mut spec = json!({"podTemplate": pod});
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let checked = same_as_served::<Sandbox>(&cluster, version, spec.clone(), None).await;
        checked.with_context(|| format!("drawn {at}: {shown}"))?;
        for key in ["replicas", "shutdownTime"] {
            spec.as_object_mut().expect("a spec").remove(key);
        }
        let rules = json!({"ingress": [], "egress": [{"to": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {}}}], "ports": []}]});
        spec["networkPolicy"] = rules;
        let checked = same_as_served::<SandboxTemplate>(&cluster, version, spec, None).await;
        checked.with_context(|| format!("drawn {at}: {shown}"))?;
    }
    cluster.shutdown().await;
    Ok(())
}

/// Features are read from the cluster's definitions, not concluded from its version.
#[tokio::test(start_paused = true)]
async fn what_a_cluster_can_do_is_probed() -> Result<()> {
    let (cluster, client) = cluster_with(our_definitions()).await?;
    assert!(client.sandboxes().has_field("spec.operatingMode").await?);
    assert!(!client.sandboxes().has_field("spec.replicas").await?);
    assert!(client.claims().has_field("spec.env.containerName").await?, "through a list");
    assert!(!client.claims().has_field("spec.env.nothing").await?);
    cluster.shutdown().await;
    let (cluster, client) = cluster_with(only_older()).await?;
    assert!(client.sandboxes().has_field("spec.replicas").await?);
    assert!(!client.claims().has_field("spec.volumeClaimTemplates").await?);
    cluster.shutdown().await;
    if let Some(definitions) = v0_1_1() {
        let (cluster, client) = cluster_with(definitions).await?;
        assert!(client.sandboxes().has_field("spec.shutdownPolicy").await?);
        assert!(!client.sandboxes().has_field("spec.service").await?);
        assert!(!client.claims().has_field("spec.warmpool").await?);
        cluster.shutdown().await;
    }
    Ok(())
}

/// A small use of the generic form, so that a helper for any kind can be written.
#[tokio::test(start_paused = true)]
async fn a_helper_can_be_written_for_any_kind() -> Result<()> {
    async fn count<K: Kind>(objects: &Objects<K>) -> Result<usize, Error> {
        Ok(objects.list(&ListParams::default()).await?.len())
    }
    let (cluster, client) = cluster_with(our_definitions()).await?;
    assert_eq!(count(&client.claims()).await? + count(&client.templates()).await?, 0);
    cluster.shutdown().await;
    Ok(())
}
