//! Probes over the network, and lifecycle hooks.

use rstest::rstest;

use super::*;

fn waiting(events: &[String], told: &str) -> bool {
    events.iter().any(|event| event.contains(told))
}

impl Cluster {
    async fn is_ready(&self, name: &str) {
        let ready = |pod: Option<&Object>| {
            pod.is_some_and(|pod| {
                pod.at(&["status", "conditions"]).is_some() && condition(pod, "Ready")["status"] == "True"
            })
        };
        self.until("pods", name, ready).await;
    }

    async fn sh(&self, text: &str) -> String {
        let command = ["sh", "-c", text].map(str::to_owned).to_vec();
        let process = self.kubelet.exec("default", "p", "", command, OUT).unwrap();
        read(process.pipes.stdout).await
    }

    /// Waits until an event about the pod says this.
    async fn told(&self, text: &str) {
        for _ in 0..1000 {
            if waiting(&self.events("p").await, text) {
                return;
            }
            self.registry.clock().sleep(Duration::from_millis(500)).await;
        }
        panic!("{text}: {:#?}", self.events("p").await);
    }

    fn seconds(&self) -> i64 {
        self.registry.clock().now().as_second()
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_asks_what_listens_in_the_pod() {
    let cluster = Cluster::start(Settings::default()).await;
    let answers = r#"[ -e /tmp/moved ] && read l && case "$l" in *old*) printf 'HTTP/1.1 302 Found\r\nLocation: /new\r\n\r\n'; exit;; esac;
        if [ -e /tmp/well ]; then printf 'HTTP/1.1 204 No Content\r\n\r\n'; else printf 'HTTP/1.1 500 Ill\r\n\r\n'; fi"#;
    let script = json!({ "ports": { "8080": ["sh", "-c", answers] } }).to_string();
    let members = json!({
        "ports": [{ "name": "web", "containerPort": 8080 }],
        "readinessProbe": { "httpGet": { "port": "web", "path": "/old" }, "periodSeconds": 1 },
    });
    cluster.pod("p", json!({ ANNOTATION: script }), probed(members)).await;
    cluster.told("Readiness probe failed: HTTP probe failed with statuscode: 500").await;
    cluster.sh("touch /tmp/well /tmp/moved").await;
    cluster.is_ready("p").await;
    cluster.shutdown().await;
}

#[rstest]
#[case::http(
    json!({ "httpGet": { "port": 81 } }),
    "Get \"http://10.244.0.2:81/\": dial tcp 10.244.0.2:81: connect: connection refused"
)]
#[case::silent(
    json!({ "httpGet": { "port": 82, "path": "/x" }, "timeoutSeconds": 3 }),
    "Get \"http://10.244.0.2:82/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
)]
#[case::closed(json!({ "httpGet": { "port": 83 } }), "Get \"http://10.244.0.2:83/\": EOF")]
#[case::tcp(json!({ "tcpSocket": { "port": 81 } }), "dial tcp 10.244.0.2:81: connect: connection refused")]
#[case::grpc(
    json!({ "grpc": { "port": 81 } }),
    "error: failed to connect service at \"10.244.0.2:81\": connection error: desc = \"transport: dial tcp \
     10.244.0.2:81: connect: connection refused\""
)]
#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_answers_says_so_and_the_container_is_started_again(
    #[case] mut probe: Value,
    #[case] said: &str,
) {
    let cluster = Cluster::start(Settings::default()).await;
    probe["periodSeconds"] = json!(1);
    let script = json!({ "ports": { "82": "sleep infinity", "83": "true" } }).to_string();
    cluster.pod("p", json!({ ANNOTATION: script }), probed(json!({ "livenessProbe": probe }))).await;
    cluster.told(&format!("Unhealthy x1: Liveness probe failed: {said}")).await;
    cluster.told("Container c failed liveness probe, will be restarted").await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_when_the_hook_after_its_start_is_through_and_ends_when_that_before_its_end_is() {
    let cluster = Cluster::start(Settings::default()).await;
    let script = r#"{"ports": {"80": ["sh", "-c", "read l; printf \"$l\\n\" >> /tmp/asked; printf 'HTTP/1.1 500 Ill\r\n\r\n'"]}}"#;
    let lifecycle = json!({
        "postStart": { "exec": { "command": ["sh", "-c", "sleep 10; touch /tmp/begun"] } },
        "preStop": { "sleep": { "seconds": 3 } },
    });
    cluster.pod("p", json!({ ANNOTATION: script }), probed(json!({ "lifecycle": lifecycle }))).await;
    cluster.running("p").await;
    assert_eq!(cluster.registry.clock().now_text(), "2026-01-01T00:00:11Z");
    assert_eq!(cluster.sh("ls /tmp").await, "begun\n");
    let before = cluster.seconds();
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    assert_eq!(cluster.seconds() - before, 3);
    let events = cluster.events("p").await;
    assert!(waiting(&events, "Killing x1: Stopping container c") && !waiting(&events, "Failed"), "{events:#?}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_before_the_end_has_no_more_time_than_the_container() {
    let cluster = Cluster::start(Settings::default()).await;
    let hook = json!({ "preStop": { "exec": { "command": ["sleep", "1000"] } } });
    cluster.pod("p", json!({ ANNOTATION: "stopDelay: 60s" }), probed(json!({ "lifecycle": hook }))).await;
    cluster.running("p").await;
    let before = cluster.seconds();
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    assert_eq!(cluster.seconds() - before, 5 + 2, "its time, and the least that a container has to end");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_hook_is_told_and_after_a_start_it_ends_the_container() {
    let cluster = Cluster::start(Settings::default()).await;
    let lifecycle = json!({
        "postStart": { "exec": { "command": ["sh", "-c", "echo secret; [ -e /tmp/never ]"] } },
        "preStop": { "httpGet": { "port": 81 } },
    });
    let script = json!({ "ports": { "80": "true" } }).to_string();
    cluster.pod("p", json!({ ANNOTATION: script }), probed(json!({ "lifecycle": lifecycle }))).await;
    for told in ["FailedPostStartHook x1: PostStartHook failed", "Killing x1: FailedPostStartHook"] {
        cluster.told(told).await;
    }
    cluster.told("FailedPreStopHook x1: PreStopHook failed").await;
    cluster.told("BackOff").await;
    let events = cluster.events("p").await;
    assert!(!waiting(&events, "secret"), "{events:#?}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_does_not_wait_for_the_hook_after_its_start() {
    let cluster = Cluster::start(Settings::default()).await;
    let hook = json!({ "postStart": { "exec": { "command": ["sleep", "100000"] } } });
    cluster.pod("p", json!({}), probed(json!({ "lifecycle": hook }))).await;
    cluster.told("Started x1").await;
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    assert!(cluster.registry.clock().now_text().as_str() < "2026-01-01T00:01:00Z");
    cluster.shutdown().await;
}
