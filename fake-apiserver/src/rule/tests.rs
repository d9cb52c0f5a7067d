use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::{clock::Clock, ids::Ids};

fn rules() -> Rules {
    rules_at("2026-01-01T00:00:00Z").0
}

fn rules_at(time: &str) -> (Rules, Clock) {
    let clock = Clock::starting_at(time.parse().unwrap());
    (Rules::new(clock.clone(), Ids::seeded(1)), clock)
}

const UPDATE: Call<'static> = Call {
    verb: "update",
    group: "agents.x-k8s.io",
    resource: "sandboxes",
    subresource: "",
    namespace: "ns",
    name: "a",
    user: "alice",
};

fn code(rules: &Rules, call: &Call<'_>) -> u16 {
    match rules.request(call) {
        Some(Verdict::Fail(status, _)) => status.code,
        Some(other) => panic!("{other:?}"),
        None => 200,
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_wins_and_one_goes_with_its_guard() {
    let rules = rules();
    let first = rules.install(Rule::fail(Failure::of(503)).verbs(["get"]));
    let second = rules.install(Rule::fail(Failure::of(409)).resources(["sandboxes"]));
    let third = rules.install(Rule::fail(Failure::of(500)));
    assert_eq!(code(&rules, &UPDATE), 409);
    drop(second);
    assert_eq!(code(&rules, &UPDATE), 500);
    assert_eq!((first.id(), first.hits(), third.hits()), (1, 0, 1));
    let kept = third.keep();
    drop(first);
    assert_eq!(rules.list().iter().map(|rule| rule.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(rules.install(Rule::compact()).keep(), 4, "a number is never given twice");
    assert!(rules.uninstall(kept) && !rules.uninstall(kept));
}

#[rstest]
#[case::everything(Rule::compact(), true)]
#[case::verb(Rule::compact().verbs(["get", "update"]), true)]
#[case::other_verb(Rule::compact().verbs(["get"]), false)]
#[case::with_its_group(Rule::compact().resources(["sandboxes.agents.x-k8s.io"]), true)]
#[case::with_another_group(Rule::compact().resources(["sandboxes.example.com"]), false)]
#[case::any_of_several(Rule::compact().resources(["pods", "sandboxes"]), true)]
#[case::a_subresource_is_another(Rule::compact().resources(["sandboxes/status"]), false)]
#[case::by_its_beginning(Rule::compact().user("ali*").namespace("ns").name("*"), true)]
#[case::other_name(Rule::compact().name("b"), false)]
fn what_a_rule_is_about(#[case] rule: Rule, #[case] matches: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let rules = rules();
        let _guard = rules.install(rule);
        assert_eq!(rules.request(&UPDATE).is_some(), matches);
    });
}

#[tokio::test]
async fn subresources_are_named_as_roles_name_them() {
    let rules = rules();
    let _guard = rules.install(Rule::fail(Failure::of(409)).resources(["sandboxes/*"]));
    assert_eq!(code(&rules, &Call { subresource: "status", ..UPDATE }), 409);
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_hit_the_third_and_fourth_match_or_only_for_some_time() {
    let (rules, clock) = rules_at("2026-01-01T00:00:00Z");
    let counted = rules.install(Rule::fail(Failure::of(429)).skip(2).times(2));
    assert_eq!([(); 6].map(|()| code(&rules, &UPDATE)), [200, 200, 429, 429, 200, 200]);
    drop(counted);
    let (from, until) = ("2026-01-01T00:00:10Z".parse().unwrap(), "2026-01-01T00:00:20Z".parse().unwrap());
    let _timed = rules.install(Rule::fail(Failure::of(503)).from(from).until(until));
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(code(&rules, &UPDATE));
        clock.sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(codes, [200, 503, 200]);
}

#[tokio::test]
async fn a_probability_is_met_and_the_same_in_each_run() {
    let hits = || {
        let rules = rules();
        let _guard = rules.install(Rule::fail(Failure::of(500)).probability(0.25));
        (0..1000).map(|_| code(&rules, &UPDATE) == 500).collect::<Vec<_>>()
    };
    let first = hits();
    assert_eq!(first, hits());
    assert!((200..300).contains(&first.iter().filter(|hit| **hit).count()));
}

#[tokio::test]
async fn failures_are_in_the_servers_own_words() {
    let message = |failure: Failure| {
        let status = failure.status(&UPDATE);
        (status.code, status.reason, status.message)
    };
    let modified = "Operation cannot be fulfilled on sandboxes.agents.x-k8s.io \"a\": the object has been modified; please \
                    apply your changes to the latest version and try again";
    assert_eq!(message(Failure::of(409)), (409, "Conflict", modified.into()));
    assert_eq!(message(Failure::of(503)).1, "ServiceUnavailable");
    let own = Failure { reason: Some("NotFound".into()), message: Some("no more".into()), ..Failure::of(410) };
    assert_eq!(message(own), (410, "NotFound", "no more".into()));
    assert_eq!(Failure::of(429).retry_after(7).status(&UPDATE).details.unwrap().retry_after_seconds, 7);
}

#[rstest]
#[case(r#"{"when":{"probability":2},"then":{"compact":{}}}"#, "from 0 to 1")]
#[case(r#"{"when":{"node":"a"},"then":{"compact":{}}}"#, "\"node\"")]
#[case(r#"{"when":{"node":"a","times":3},"then":{"stopNode":{}}}"#, "\"times\"")]
#[case(r#"{"then":{"fail":{"code":200}}}"#, "400 to 599")]
#[case(r#"{"then":{"fail":{"code":500,"reason":"Nope"}}}"#, "Nope")]
#[case(r#"{"then":{"restart":{}}}"#, "times")]
#[case(r#"{"when":{"verb":"get"},"then":{"compact":{}}}"#, "verb")]
#[case(r#"{"then":{"explode":{}}}"#, "explode")]
#[case(r#"{"then":{"delay":{"for":"-1s"}}}"#, "negative")]
#[case(r#"{"when":{}}"#, "then")]
fn what_is_no_rule_is_refused_with_the_reason(#[case] text: &str, #[case] why: &str) {
    let error = text.parse::<Rule>().unwrap_err();
    assert!(error.contains(why), "{error}");
}

fn action() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (400..600_u16, proptest::option::of(0..9_u32), any::<bool>()).prop_map(|(code, retry_after_seconds, late)| {
            Rule::fail(Failure { retry_after_seconds, late, ..Failure::of(code) })
        }),
        (0..10_000_000_u64).prop_map(|millis| Rule::delay(Duration::from_millis(millis))),
        any::<u64>().prop_map(Rule::give_way),
        any::<bool>().prop_map(Rule::drop_connection),
        Just(Rule::compact()),
    ]
}

proptest! {
    #[test]
    fn a_printed_rule_reads_back_as_itself(
        rule in action(), verbs in proptest::collection::vec("[a-z]{1,5}", 0..3), user in proptest::option::of(".{0,8}"),
        skip in 0..5_u64, times in proptest::option::of(0..5_u64), millionths in proptest::option::of(0..=1_000_000_u32),
    ) {
        let mut rule = rule.verbs(verbs).skip(skip);
        if let Some(user) = user {
            rule = rule.user(&user);
        }
        if let Some(times) = times {
            rule = rule.times(times);
        }
        if let Some(part) = millionths {
            rule = rule.probability(f64::from(part) / 1e6);
        }
        prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }

    #[test]
    fn a_storm_is_the_same_for_its_seed_and_reads_back_from_its_print(seed in any::<u64>()) {
        let storm = Rule::storm(seed);
        let printed: Vec<_> = storm.iter().map(ToString::to_string).collect();
        let read: Vec<Rule> = printed.iter().map(|line| line.parse().unwrap()).collect();
        prop_assert_eq!(&read, &storm);
        prop_assert_eq!(read, Rule::storm(seed));
    }
}

#[test]
fn storms_of_different_seeds_are_different() {
    assert_ne!(Rule::storm(1), Rule::storm(2));
}

#[tokio::test]
async fn a_watch_is_cut_after_as_many_events_as_the_rule_says_counted_from_its_installation() {
    let rules = rules();
    let mut watch = rules.watched(&Call { verb: "watch", name: "", ..UPDATE });
    watch.handed_out(5);
    assert_eq!(watch.ending(), None);
    let _guard = rules.install(Rule::expire_watch(2).resources(["sandboxes"]));
    watch.changed().await;
    let mut endings = Vec::new();
    for _ in 0..3 {
        endings.push(watch.ending());
        watch.handed_out(1);
    }
    assert_eq!(endings, [None, None, Some(Ending::Expired)]);
}
