//! Stories of autoscalers in both of their versions.

use serde_json::{Value, json};

use super::World;

const V1: (&str, &str, &str) = ("autoscaling", "v1", "horizontalpodautoscalers");
const V2: (&str, &str, &str) = ("autoscaling", "v2", "horizontalpodautoscalers");
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn autoscaler(more: Value) -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let mut spec = json!({"scaleTargetRef": target, "maxReplicas": 5});
    crate::base::patch::merge(&mut spec, &more).expect("maps merge");
    json!({"metadata": {"name": "h"}, "spec": spec})
}

#[tokio::test]
async fn what_v2_says_stands_in_annotations_of_v1_and_survives_a_write_there() {
    let world = World::new().await;
    let selector = json!({"matchLabels": {"a": "b"}});
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Pods", "pods": {"metric": {"name": "p", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "o"},
            "target": {"type": "AverageValue", "averageValue": "5"}}},
    ]);
    let policies = json!([{"type": "Pods", "value": 1, "periodSeconds": 60}]);
    let behavior = json!({"scaleDown": {"policies": policies, "stabilizationWindowSeconds": 10}});
    let written =
        world.create(V2, "demo", autoscaler(json!({"metrics": metrics, "behavior": behavior}))).await.unwrap();

    let shown = world.get(V1, "demo", "h").await.unwrap();
    assert_eq!(shown.at(&["spec", "targetCPUUtilizationPercentage"]), Some(&json!(50)));
    assert_eq!((shown.at(&["spec", "metrics"]), shown.at(&["spec", "behavior"])), (None, None));
    let said = r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},{"type":"Pods","pods":{"metricName":"p","targetAverageValue":"10","selector":{"matchLabels":{"a":"b"}}}},{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"o","targetValue":"0","averageValue":"5"}}]"#;
    assert_eq!(shown.annotation(METRICS), Some(said));
    let said = r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":10,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":60}],"Tolerance":null}}"#;
    assert_eq!(shown.annotation(BEHAVIOR), Some(said));

    world.merge(V1, "demo", "h", json!({"spec": {"maxReplicas": 9}})).await.unwrap();
    let after = world.get(V2, "demo", "h").await.unwrap();
    assert_eq!(after.at(&["spec", "maxReplicas"]), Some(&json!(9)));
    assert_eq!(after.at(&["spec", "behavior"]), written.at(&["spec", "behavior"]));
    let mut moved = metrics.as_array().unwrap().clone();
    moved.rotate_left(1); // the share of CPU, which v1 has a member for, comes last
    assert_eq!(after.at(&["spec", "metrics"]), Some(&Value::Array(moved)));
    assert_eq!(after.annotation(METRICS), None);

    let junk = json!({"metadata": {"annotations": {METRICS: null, BEHAVIOR: "junk"}}});
    world.merge(V1, "demo", "h", junk).await.unwrap();
    let after = world.get(V2, "demo", "h").await.unwrap();
    assert_eq!((after.at(&["spec", "behavior"]), after.annotation(BEHAVIOR)), (None, None));
    assert_eq!(after.at(&["spec", "metrics"]).and_then(Value::as_array).map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_autoscaler_that_says_nothing_aims_at_80_percent_of_cpu_in_both_versions() {
    let world = World::new().await;
    let made = world.create(V1, "demo", autoscaler(json!({}))).await.unwrap();
    assert_eq!(made.at(&["spec", "targetCPUUtilizationPercentage"]), Some(&json!(80)));
    let shown = world.get(V2, "demo", "h").await.unwrap();
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    assert_eq!(shown.at(&["spec", "metrics"]).unwrap()[0]["resource"]["target"], target);
}

#[tokio::test]
async fn metrics_and_behavior_are_checked_in_both_versions() {
    let world = World::new().await;
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "", "target": {"type": "Bogus", "averageUtilization": 0, "averageValue": "0"}}},
        {"type": "Resource", "pods": {"metric": {"name": "a/b"}, "target": {"type": "Value"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "A", "target": {"type": "Utilization"}}},
    ]);
    let policies = json!([{"type": "P", "value": 0, "periodSeconds": 1801}]);
    let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "X", "policies": policies}});
    let error =
        world.create(V2, "demo", autoscaler(json!({"metrics": metrics, "behavior": behavior}))).await.unwrap_err();
    let said: Vec<String> =
        error.details.unwrap().causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    let expected = [
        "spec.metrics[0].resource.name: Required value: must specify a resource name",
        "spec.metrics[0].resource.target.type: Invalid value: \"Bogus\": must be either Utilization, Value, or AverageValue",
        "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive",
        "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
        "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
        "spec.metrics[1].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
        "spec.metrics[1].pods.target.averageValue: Required value: must specify a positive target averageValue",
        "spec.metrics[1].resource: Required value: must populate information for the given metric source",
    ];
    assert_eq!(&said[..expected.len()], expected);
    let rest = [
        "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"X\": supported values: \"Disabled\", \"Max\", \"Min\"",
        "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"P\": supported values: \"Percent\", \"Pods\"",
        "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
        "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
    ];
    assert_eq!(&said[said.len() - rest.len()..], rest);

    let mut old = autoscaler(json!({"scaleTargetRef": {"apiVersion": "v1"}}));
    old["metadata"]["annotations"] =
        json!({METRICS: r#"[{"type":"Pods","pods":{"metricName":"x","targetAverageValue":"0"}}]"#});
    let error = world.create(V1, "demo", old).await.unwrap_err();
    let said: Vec<String> =
        error.details.unwrap().causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    assert_eq!(
        said,
        [
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
            "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
        ]
    );
}
