use serde_json::json;

use super::*;

#[test]
fn sandboxes_are_counted_by_what_they_are() {
    let mut plain = Object::new("agents.x-k8s.io/v1beta1", "Sandbox", "ns", "a");
    plain.set_at(&["metadata", "labels", CREATED_BY], "somebody");
    let mut pooled = Object::new("agents.x-k8s.io/v1beta1", "Sandbox", "ns", "b");
    pooled.set_at(&["metadata", "labels", LAUNCH_TYPE], "warm");
    pooled.set_at(&["metadata", "annotations", TEMPLATE_REF], "tpl");
    let owner = json!({"apiVersion": "extensions.agents.x-k8s.io/v1alpha1", "kind": "SandboxWarmPool", "name": "p",
        "uid": "u", "controller": true});
    pooled.set_at(&["metadata", "ownerReferences"], json!([owner]));
    pooled
        .set_at(&["status", "conditions"], json!([{"type": "Ready", "status": "True", "reason": "DependenciesReady"}]));
    let Samples::Gauge(counts) = count([&plain, &pooled, &pooled].into_iter()).samples else { panic!("a gauge") };
    let key = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Values>();
    assert_eq!(counts[&key(&["ns", "false", "false", "cold", "unknown", "None", "unknown"])], 1);
    assert_eq!(counts[&key(&["ns", "true", "false", "warm", "tpl", "SandboxWarmPool", "unknown"])], 2);
}

#[test]
fn a_time_counts_in_every_bucket_that_is_long_enough() {
    let mut histogram = Histogram::default();
    for millis in [99, 100, 251, 300_000] {
        histogram.observe(STARTUP, Duration::from_millis(millis));
    }
    assert_eq!(histogram.buckets[..3], [(100, 2), (250, 2), (500, 3)]);
    assert_eq!(histogram.buckets.last(), Some(&(240_000, 3)));
    assert_eq!((histogram.count, histogram.sum), (4, 300_450.0));
}
