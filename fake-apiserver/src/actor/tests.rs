use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;

use super::*;
use crate::{base::Object, clock::Clock, ids::Ids, registry::Registry};

fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

async fn api() -> Api {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let api = Api::new(Registry::new(clock, Ids::seeded(1)), "system:admin", "test");
    api.create(&Gvr::new("", "v1", "namespaces"), Object::new("v1", "Namespace", "", "ns")).await.unwrap();
    api
}

async fn put(api: &Api, name: &str) {
    api.create(&config_maps(), Object::new("v1", "ConfigMap", "ns", name)).await.unwrap();
}

async fn touch(api: &Api, name: &str, value: &str) {
    api.patch(&config_maps(), "ns", name, "", json!({"data": {"k": value}})).await.unwrap();
}

async fn remove(api: &Api, name: &str) {
    api.delete(&config_maps(), "ns", name, &DeletePolicy::default()).await.unwrap();
}

fn shown(changes: &[Change]) -> Vec<String> {
    let show = |change: &Change| match change {
        Change::Applied { new, old: None } => format!("+{}", new.name()),
        Change::Applied { new, old: Some(_) } => format!("~{}", new.name()),
        Change::Gone(last) => format!("-{}", last.name()),
    };
    changes.iter().map(show).collect()
}

#[tokio::test(start_paused = true)]
async fn an_informer_misses_nothing_when_history_is_cut_away() {
    let api = api().await;
    put(&api, "a").await;
    put(&api, "b").await;
    let mut informer = Informer::new(api.clone(), config_maps(), "", "");
    assert_eq!(shown(&informer.next().await), ["+a", "+b"]);
    put(&api, "c").await;
    assert_eq!(shown(&informer.next().await), ["+c"]);

    remove(&api, "a").await;
    touch(&api, "b", "1").await;
    put(&api, "d").await;
    api.compact_for_test();
    assert_eq!(shown(&informer.next().await), ["-a", "~b", "+d"]);
    remove(&api, "c").await;
    assert_eq!(shown(&informer.next().await), ["-c"]);
}

#[tokio::test(start_paused = true)]
async fn an_informer_sees_what_leaves_its_selector_go() {
    let api = api().await;
    put(&api, "a").await;
    api.patch(&config_maps(), "ns", "a", "", json!({"metadata": {"labels": {"x": "1"}}})).await.unwrap();
    let mut informer = Informer::new(api.clone(), config_maps(), "", "x");
    assert_eq!(shown(&informer.next().await), ["+a"]);
    api.patch(&config_maps(), "ns", "a", "", json!({"metadata": {"labels": null}})).await.unwrap();
    assert_eq!(shown(&informer.next().await), ["-a"]);
}

#[tokio::test(start_paused = true)]
async fn an_actor_retries_what_fails_returns_at_the_time_asked_for_and_ends_with_its_token() {
    let api = api().await;
    put(&api, "a").await;
    let token = CancellationToken::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let source = Source::all(config_maps(), |change| vec![change.object().name().to_owned()]);
    let (clock, log) = (api.clock().clone(), seen.clone());
    let start = clock.now();
    let actor = tokio::spawn(run(api.clone(), vec![source], token.clone(), move |key: String| {
        let (clock, log) = (clock.clone(), log.clone());
        async move {
            let mut log = log.lock().unwrap();
            log.push((key, clock.now().duration_since(start).as_millis()));
            match log.len() {
                1 | 2 => Err(Status::bad_request("not yet")),
                3 => Ok(Outcome::After(Duration::from_secs(60))),
                _ => Ok(Outcome::Done),
            }
        }
    }));
    api.clock().sleep(Duration::from_secs(3600)).await;
    let times: Vec<_> = seen.lock().unwrap().iter().map(|(_, time)| *time).collect();
    assert_eq!(times, [0, 5, 15, 60_015]);
    touch(&api, "a", "1").await;
    api.clock().sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.lock().unwrap().len(), 5);
    token.cancel();
    actor.await.unwrap();
}

/// Two candidates for one lease, on one server.
fn candidates(api: &Api) -> [Candidate; 2] {
    ["a", "b"].map(|identity| Candidate::new(api.clone(), "ns", "lock", identity))
}

async fn holder(api: &Api) -> (String, i64) {
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let lease = api.get(&leases, "ns", "lock").await.unwrap().unwrap();
    let transitions = lease.at(&["spec", "leaseTransitions"]).unwrap().as_i64().unwrap();
    (lease.str_at(&["spec", "holderIdentity"]).to_owned(), transitions)
}

#[tokio::test(start_paused = true)]
async fn a_second_candidate_leads_soon_after_the_first_gives_up() {
    let api = api().await;
    let [first, second] = candidates(&api);
    let (stop, never) = (CancellationToken::new(), CancellationToken::new());
    assert!(first.acquire(&never).await);
    let held = tokio::spawn({
        let (first, stop) = (first.clone(), stop.clone());
        async move { first.hold(&stop).await }
    });
    // As long as it is renewed nobody else gets it.
    assert_eq!(api.clock().timeout(Duration::from_secs(600), second.acquire(&never)).await, None);
    assert_eq!(holder(&api).await, ("a".into(), 0));
    let before = api.clock().now();
    stop.cancel();
    assert_eq!(held.await.unwrap(), Ok(()));
    assert!(second.acquire(&never).await);
    assert_eq!(holder(&api).await, ("b".into(), 1));
    assert!(api.clock().now().duration_since(before).as_secs() <= 4, "a lease that was given up is taken at once");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_vanished_is_followed_when_its_lease_has_run_out_and_knows_it_when_it_is_back() {
    let api = api().await;
    let [first, second] = candidates(&api);
    let never = CancellationToken::new();
    assert!(first.acquire(&never).await);
    let before = api.clock().now();
    assert!(second.acquire(&never).await); // the first no longer renews
    let waited = api.clock().now().duration_since(before).as_secs();
    assert!((15..=18).contains(&waited), "{waited} s");
    // The one that comes back sees a lease that is not its own, and must not go on.
    assert!(first.hold(&never).await.is_err());
}
