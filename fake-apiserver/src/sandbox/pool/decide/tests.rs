use std::collections::VecDeque;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pool(spec: Value) -> Object {
    object(json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxWarmPool",
        "metadata": {"name": "pool", "namespace": "ns", "uid": "p1", "generation": 4},
        "spec": spec,
    }))
}

fn template(name: &str, image: &str) -> Object {
    object(json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"podTemplate": {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "main", "image": image, "resources": {"limits": {"cpu": "1000m"}}}]},
        }},
    }))
}

/// A member as the pool makes it of a template.
fn made_of(template: &Object) -> Object {
    let mut member = Wanted::new(template.clone()).member(&pool(json!({})), true);
    member.metadata_mut().insert("name".into(), "pool-abcde".into());
    member.metadata_mut().insert("uid".into(), "m1".into());
    member
}

fn member(object: Object) -> Member {
    Member::of(&Arc::new(Stored::new(object)))
}

#[test]
fn a_member_is_marked_secured_and_written_as_upstreams_types_write_it() {
    let member = Wanted::new(template("tpl", "x")).member(&pool(json!({})), true);
    let labels = member.labels();
    assert_eq!(
        labels.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "agents.x-k8s.io/created-by",
            "agents.x-k8s.io/launch-type",
            "agents.x-k8s.io/sandbox-pod-template-hash",
            "agents.x-k8s.io/sandbox-template-hash",
            "agents.x-k8s.io/sandbox-template-ref-hash",
            "agents.x-k8s.io/warm-pool-sandbox",
        ]
    );
    assert_eq!((labels[WARM_POOL].as_str(), labels[TEMPLATE_REF_HASH].as_str()), ("91dd7983", "9d22159f"));
    assert_eq!((member.generate_name(), member.name()), ("pool-", ""));
    assert_eq!(member.annotation(TEMPLATE_REF), Some("tpl"));
    let owner = member.controller().unwrap();
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.block_owner_deletion), ("SandboxWarmPool", "p1", true));
    let pod = member.at(&["spec", "podTemplate"]).unwrap();
    assert_eq!(pod["metadata"]["annotations"], json!({SAFE_TO_EVICT: "true"}));
    assert_eq!(pod["metadata"]["labels"].as_object().unwrap().len(), 5);
    assert_eq!(pod["metadata"]["labels"]["app"], "x");
    assert_eq!(
        pod["spec"],
        json!({
            "automountServiceAccountToken": false, "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["8.8.8.8", "1.1.1.1"]},
            "containers": [{"name": "main", "image": "x", "resources": {"limits": {"cpu": "1"}}}],
        })
    );
}

#[rstest]
#[case::by_default(json!(null), true, json!({SAFE_TO_EVICT: "true"}))]
#[case::switched_off(json!(null), false, json!(null))]
#[case::the_template_says(json!({SAFE_TO_EVICT: "false"}), true, json!({SAFE_TO_EVICT: "false"}))]
fn a_member_may_be_evicted_unless_told_otherwise(
    #[case] annotations: Value,
    #[case] evictable: bool,
    #[case] expected: Value,
) {
    let mut template = template("tpl", "x");
    template.set_at(&["spec", "podTemplate", "metadata", "annotations"], annotations);
    let member = Wanted::new(template).member(&pool(json!({})), evictable);
    assert_eq!(member.at(&["spec", "podTemplate", "metadata", "annotations"]).unwrap_or(&Value::Null), &expected);
}

/// How a template or a member is changed.
type Change = fn(&mut Object);

#[test]
fn a_member_is_stale_if_its_blueprint_differs() {
    let unmanaged: Change = |template| template.set_at(&["spec", "networkPolicyManagement"], "Unmanaged");
    let orphaned: Change = |member| drop(member.remove_at(&["metadata", "ownerReferences"]));
    let same: Change = |_| ();
    let cases: [(&str, Change, Change, bool); 13] = [
        ("nothing", same, same, false),
        ("an image", |t| set_image(t, "y"), same, true),
        ("metadata", |t| t.set_at(&["spec", "podTemplate", "metadata", "labels", "app"], "y"), same, false),
        ("a quantity written otherwise", |t| set_cpu(t, "1"), same, false),
        ("another quantity", |t| set_cpu(t, "2"), same, true),
        ("a service", |t| t.set_at(&["spec", "service"], false), same, true),
        ("the network policy", unmanaged, same, false),
        ("and no hash", unmanaged, |m| m.set_at(&["metadata", "labels", TEMPLATE_HASH], ""), true),
        ("a foreign hash", same, |m| m.set_at(&["metadata", "labels", TEMPLATE_HASH], "0"), false),
        ("the member", same, |m| set_image(m, "y"), false),
        ("an orphan", |t| set_image(t, "y"), orphaned, true),
        ("an orphan of the same", same, orphaned, false),
        ("its template", same, |m| m.set_at(&["metadata", "labels", TEMPLATE_REF_HASH], "0"), true),
    ];
    for (what, template_to, member_to, stale) in cases {
        let mut template = template("tpl", "x");
        let mut made = made_of(&template);
        template_to(&mut template);
        member_to(&mut made);
        let wanted = Wanted::new(template);
        assert_eq!(Staleness::new(&wanted).is_stale(&member(made)), stale, "{what}");
    }
}

#[test]
fn an_orphans_label_is_not_believed() {
    let template = template("tpl", "x");
    let mut made = made_of(&template);
    set_image(&mut made, "y");
    made.remove_at(&["metadata", "ownerReferences"]);
    assert!(Staleness::new(&Wanted::new(template)).is_stale(&member(made)));
}

fn set_image(object: &mut Object, image: &str) {
    let containers = object.at(&["spec", "podTemplate", "spec", "containers"]).cloned().unwrap();
    let mut containers = containers.as_array().cloned().unwrap();
    containers[0]["image"] = image.into();
    object.set_at(&["spec", "podTemplate", "spec", "containers"], containers);
}

fn set_cpu(object: &mut Object, cpu: &str) {
    let container = json!({"name": "main", "image": "x", "resources": {"limits": {"cpu": cpu}}});
    object.set_at(&["spec", "podTemplate", "spec", "containers"], vec![container]);
}

#[test]
fn a_volume_claim_template_counts_by_place_name_and_spec() {
    let claim = |name: &str, size: &str, label: &str| {
        json!({
            "metadata": {"name": name, "labels": {"l": label}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        })
    };
    let with = |claims: Value| {
        let mut template = template("tpl", "x");
        template.set_at(&["spec", "volumeClaimTemplates"], claims);
        template
    };
    let made = member(made_of(&with(json!([claim("a", "1Gi", "1"), claim("b", "1Gi", "1")]))));
    for (claims, stale) in [
        (json!([claim("a", "1024Mi", "2"), claim("b", "1Gi", "1")]), false),
        (json!([claim("b", "1Gi", "1"), claim("a", "1Gi", "1")]), true),
        (json!([claim("a", "2Gi", "1"), claim("b", "1Gi", "1")]), true),
        (json!([claim("a", "1Gi", "1")]), true),
    ] {
        let wanted = Wanted::new(with(claims.clone()));
        assert_eq!(Staleness::new(&wanted).is_stale(&made), stale, "{claims}");
    }
}

fn reference(uid: &str) -> Value {
    json!({"apiVersion": "g/v1", "kind": "K", "name": "n", "uid": uid, "controller": true})
}

const OWNED: &str = "p1";
const FOREIGN: &str = "other";

#[rstest]
#[case::kept(Some(OWNED), "warm", false, false, "OnReplenish", false, Class::Active)]
#[case::kept_though_stale(Some(OWNED), "warm", false, false, "OnReplenish", true, Class::Active)]
#[case::replaced(Some(OWNED), "warm", false, false, "Recreate", true, Class::Stale { owned: true })]
#[case::fresh(Some(OWNED), "warm", false, false, "Recreate", false, Class::Active)]
#[case::an_unknown_strategy(Some(OWNED), "warm", false, false, "Tomorrow", true, Class::Active)]
#[case::unlabelled(Some(OWNED), "", false, false, "OnReplenish", false, Class::Unlabelled)]
#[case::labelled_cold(Some(OWNED), "cold", false, false, "OnReplenish", false, Class::Unlabelled)]
#[case::orphan(None, "", false, false, "OnReplenish", false, Class::Orphan)]
#[case::stale_orphan(None, "", false, false, "OnReplenish", true, Class::Stale { owned: false })]
#[case::foreign(Some(FOREIGN), "warm", false, false, "Recreate", true, Class::Foreign)]
#[case::deleting(Some(OWNED), "warm", true, false, "Recreate", true, Class::Terminating)]
#[case::deleted_and_not_seen(Some(OWNED), "warm", false, true, "Recreate", true, Class::Terminating)]
#[case::a_foreign_one_deleting(Some(FOREIGN), "warm", true, false, "Recreate", true, Class::Foreign)]
#[case::an_orphan_deleting(None, "warm", true, false, "Recreate", true, Class::Foreign)]
fn what_a_sandbox_is_to_the_pool(
    #[case] owner: Option<&str>,
    #[case] launch_type: &str,
    #[case] deleting: bool,
    #[case] pending: bool,
    #[case] strategy: &str,
    #[case] stale: bool,
    #[case] expected: Class,
) {
    let mut made = made_of(&template("tpl", "x"));
    made.set_at(&["metadata", "labels", LAUNCH_TYPE], launch_type);
    match owner {
        Some(uid) => {
            made.set_at(&["metadata", "ownerReferences"], vec![reference(uid)]);
        }
        None => {
            made.remove_at(&["metadata", "ownerReferences"]);
        }
    }
    if deleting {
        made.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    }
    let wanted = Wanted::new(template("tpl", if stale { "y" } else { "x" }));
    let pool = pool(json!({"updateStrategy": {"type": strategy}}));
    assert_eq!(classify(&member(made), &pool, pending, Some(&mut Staleness::new(&wanted))), expected);
}

#[test]
fn without_its_template_a_pool_deletes_nothing_and_takes_over_what_is_nobodys() {
    let mut orphan = made_of(&template("tpl", "x"));
    orphan.remove_at(&["metadata", "ownerReferences"]);
    let pool = pool(json!({"updateStrategy": {"type": "Recreate"}}));
    assert_eq!(classify(&member(orphan), &pool, false, None), Class::Orphan);
    assert_eq!(classify(&member(made_of(&template("tpl", "x"))), &pool, false, None), Class::Active);
}

#[rstest]
#[case(0, Health::Waiting(Duration::from_secs(302)))]
#[case(300, Health::Waiting(Duration::from_secs(2)))]
#[case(301, Health::Overdue)]
fn a_member_has_five_minutes_to_become_ready(#[case] age: i64, #[case] expected: Health) {
    let grace = Duration::from_secs(300);
    let mut made = made_of(&template("tpl", "x"));
    made.set_at(&["metadata", "creationTimestamp"], crate::clock::time_text(at(0)));
    assert_eq!(health(&member(made.clone()), at(age), grace), expected);
    made.set("status", json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    assert_eq!(health(&member(made), at(age), grace), Health::Ready);
}

#[rstest]
#[case(json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]), true)]
#[case(json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]), false)]
#[case(json!([{"type": "PodScheduled", "status": "True", "reason": "Unschedulable"}]), false)]
#[case(json!([{"type": "Ready", "status": "False", "reason": "Unschedulable"}]), false)]
#[case(json!([]), false)]
fn a_pod_is_unschedulable_if_the_scheduler_says_so(#[case] conditions: Value, #[case] expected: bool) {
    let mut pod = object(json!({"status": {"conditions": conditions}}));
    assert_eq!(is_unschedulable(&pod), expected);
    pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert!(!is_unschedulable(&pod));
}

#[rstest]
#[case::full(3, 3, 0, true, 0, 0)]
#[case::empty(3, 0, 0, true, 3, 0)]
#[case::no_template(3, 0, 0, false, 0, 0)]
#[case::those_on_their_way_out_hold_their_places(3, 1, 2, true, 0, 0)]
#[case::but_do_not_make_a_surplus(3, 3, 2, true, 0, 0)]
#[case::surplus(3, 5, 1, true, 0, 2)]
#[case::surplus_without_template(0, 2, 0, false, 0, 2)]
#[case::one_batch_up(1_000, 0, 0, true, 300, 0)]
#[case::one_batch_down(0, 1_000, 0, true, 0, 300)]
fn a_pool_is_filled_and_emptied(
    #[case] desired: usize,
    #[case] active: usize,
    #[case] terminating: usize,
    #[case] template: bool,
    #[case] create: usize,
    #[case] delete: usize,
) {
    let counts = Counts { desired, active, ready: 0, terminating };
    let plan = plan(&counts, template, &Settings::default(), &mut Memory::default(), at(0));
    assert_eq!(plan, Plan { create, delete, wake: None });
}

#[test]
fn a_pool_waits_to_see_its_own_writes_and_pays_no_tokens_for_that() {
    let mut memory = Memory::default();
    memory.expectations.expect_deletion("m1", at(0));
    let settings = Settings { max_refill_rate: 1.0, ..Settings::default() };
    let short = Counts { desired: 3, active: 2, ..Counts::default() };
    let wait = Plan { create: 0, delete: 0, wake: Some(Duration::from_secs(30)) };
    assert_eq!(plan(&short, true, &settings, &mut memory, at(0)), wait);
    let long = Counts { desired: 1, active: 2, ..Counts::default() };
    assert_eq!(plan(&long, true, &settings, &mut memory, at(0)), wait);
    memory.expectations.deletion_seen("m1");
    assert_eq!(plan(&short, true, &settings, &mut memory, at(0)).create, 1);
}

#[test]
fn a_paced_pool_wakes_for_the_next_token_and_a_held_one_for_the_end_of_its_wait() {
    let settings = Settings { max_refill_rate: 2.0, ..Settings::default() };
    let mut memory = Memory::default();
    let empty = Counts { desired: 9, ..Counts::default() };
    assert_eq!(plan(&empty, true, &settings, &mut memory, at(0)), Plan { create: 2, delete: 0, wake: None });
    let after = Plan { create: 0, delete: 0, wake: Some(Duration::from_millis(500)) };
    assert_eq!(plan(&empty, true, &settings, &mut memory, at(0)), after);

    let settings = Settings { replenish_delay: Duration::from_secs(10), ..Settings::default() };
    let mut memory = Memory::default();
    let full = Counts { desired: 3, active: 3, ..Counts::default() };
    assert_eq!(plan(&full, true, &settings, &mut memory, at(0)), Plan::default());
    let taken = Counts { active: 1, ..full };
    let hold = Plan { create: 0, delete: 0, wake: Some(Duration::from_secs(10)) };
    assert_eq!(plan(&taken, true, &settings, &mut memory, at(0)), hold);
    assert_eq!(plan(&taken, true, &settings, &mut memory, at(10)).create, 2);
}

#[test]
fn the_surplus_is_what_is_not_ready_and_then_what_is_newest() {
    let named = |name: &str, created: i64, ready: &str| {
        let mut made = made_of(&template("tpl", "x"));
        made.metadata_mut().insert("name".into(), name.into());
        made.set_at(&["metadata", "creationTimestamp"], crate::clock::time_text(at(created)));
        made.set("status", json!({"conditions": [{"type": "Ready", "status": ready}]}));
        Arc::new(member(made))
    };
    let mut members =
        [named("old", 0, "True"), named("new", 9, "True"), named("slow", 0, "False"), named("slower", 5, "False")];
    scale_down_order(&mut members);
    let names: Vec<_> = members.iter().map(|member| member.object.name()).collect();
    assert_eq!(names, ["slower", "slow", "new", "old"]);
}

#[rstest]
#[case(0, &[])]
#[case(1, &[1])]
#[case(8, &[1, 2, 4, 1])]
#[case(300, &[1, 2, 4, 8, 16, 32, 64, 128, 45])]
fn batches_double(#[case] count: usize, #[case] sizes: &[usize]) {
    assert_eq!(batches(count).collect::<Vec<_>>(), sizes);
}

#[test]
fn a_status_says_what_changed_and_leaves_zeros_out() {
    let mut pool = pool(json!({}));
    let selector = "agents.x-k8s.io/warm-pool-sandbox=91dd7983";
    let counts = |active, ready| Counts { active, ready, ..Counts::default() };
    let first = status(&pool, &counts(0, 0));
    assert_eq!(Value::from(first.clone()), json!({"observedGeneration": 4, "selector": selector}));
    assert_eq!(status_patch(&pool, &first), Some(json!({"status": first})));
    let mut conditions = first.clone();
    conditions.insert("somebodyElses".into(), 1.into());
    pool.set("status", conditions);
    assert_eq!(status_patch(&pool, &first), None);
    let three = status(&pool, &counts(3, 1));
    assert_eq!(status_patch(&pool, &three), Some(json!({"status": {"replicas": 3, "readyReplicas": 1}})));
    pool.set("status", three);
    assert_eq!(status_patch(&pool, &status(&pool, &counts(3, 0))), Some(json!({"status": {"readyReplicas": null}})));
}

#[rstest]
#[case(0, "0s")]
#[case(1_500, "1.5µs")]
#[case(2_000_000, "2ms")]
#[case(1_500_000_000, "1.5s")]
#[case(300_000_000_000, "5m0s")]
#[case(3_600_000_000_000, "1h0m0s")]
#[case(90_000_000_010, "1m30.00000001s")]
fn durations_read_as_in_go(#[case] nanos: u64, #[case] text: &str) {
    assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
}

#[derive(Clone, Debug)]
enum Step {
    /// The watch delivers so many events.
    See(usize),
    Scale(usize),
    /// A member (any, counted around) becomes ready.
    Ready(usize),
    /// A claim takes one.
    Take(usize),
    /// Somebody deletes one.
    Delete(usize),
    /// Somebody puts a finalizer on one.
    Hold(usize),
    /// All finalizers go.
    Release,
    Pass,
    /// Time passes, and everything is seen.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_usize).prop_map(Step::See),
        1 => (0..12_usize).prop_map(Step::Scale),
        2 => any::<usize>().prop_map(Step::Ready),
        1 => any::<usize>().prop_map(Step::Take),
        1 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::Hold),
        1 => Just(Step::Release),
        5 => Just(Step::Pass),
        1 => (1..400_i64).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Thing {
    created: i64,
    ready: bool,
    deleting: bool,
    held: bool,
}

/// What the watch tells.
#[derive(Clone, Debug)]
enum Told {
    Is(usize, Thing),
    Gone(usize),
    /// It is a claim's now.
    Taken(usize),
}

/// A pool's members: as they are, and as the controller has seen them.
#[derive(Debug, Default)]
struct Model {
    real: BTreeMap<usize, Thing>,
    seen: BTreeMap<usize, Thing>,
    untold: VecDeque<Told>,
    memory: Memory,
    desired: usize,
    now: i64,
    next: usize,
}

impl Model {
    fn pick(&self, index: usize) -> Option<usize> {
        let count = self.real.len();
        (count > 0).then(|| *self.real.keys().nth(index % count).unwrap())
    }

    fn change(&mut self, id: usize, act: impl FnOnce(&mut Thing)) {
        if let Some(thing) = self.real.get_mut(&id) {
            act(thing);
            self.untold.push_back(Told::Is(id, thing.clone()));
        }
    }

    fn see(&mut self, count: usize) {
        for told in self.untold.drain(..count.min(self.untold.len())) {
            match told {
                Told::Is(id, thing) => {
                    if self.seen.insert(id, thing).is_none() {
                        self.memory.expectations.lower_creations(1);
                    }
                }
                Told::Gone(id) => {
                    self.seen.remove(&id);
                    self.memory.expectations.deletion_seen(&id.to_string());
                }
                Told::Taken(id) => {
                    self.seen.remove(&id);
                }
            }
        }
    }

    fn remove(&mut self, id: usize) {
        match self.real.get(&id) {
            Some(thing) if thing.held => self.change(id, |thing| thing.deleting = true),
            Some(_) => {
                self.real.remove(&id);
                self.untold.push_back(Told::Gone(id));
            }
            None => {}
        }
    }

    /// A delete by the controller.
    fn delete(&mut self, id: usize) -> bool {
        self.memory.expectations.expect_deletion(&id.to_string(), at(self.now));
        let found = self.real.contains_key(&id);
        self.remove(id);
        if !found {
            self.memory.expectations.deletion_seen(&id.to_string());
        }
        found
    }

    /// The members that are not on their way out, in truth.
    fn living(&self) -> usize {
        self.real.values().filter(|thing| !thing.deleting).count()
    }

    fn pass(&mut self, settings: &Settings) -> Plan {
        let pool = pool(json!({"replicas": self.desired}));
        let all_seen = self.untold.is_empty();
        let (mut active, mut terminating) = (Vec::new(), 0);
        for (&id, thing) in &self.seen.clone() {
            let member = seen_member(id, thing);
            let pending = self.memory.expectations.is_pending(&member.uid, at(self.now));
            match classify(&member, &pool, pending, None) {
                Class::Terminating => terminating += 1,
                Class::Active => match health(&member, at(self.now), settings.readiness_grace_period) {
                    Health::Overdue if self.delete(id) => terminating += 1,
                    Health::Overdue | Health::Ready | Health::Waiting(_) => active.push(Arc::new(member)),
                },
                other => panic!("{other:?}"),
            }
        }
        let living = self.living();
        let counts = Counts { desired: desired(&pool), active: active.len(), ready: 0, terminating };
        let plan = plan(&counts, true, settings, &mut self.memory, at(self.now));
        assert!(plan.create <= settings.max_batch_size && plan.delete <= settings.max_batch_size, "{plan:?}");
        assert!(plan.delete <= active.len().saturating_sub(self.desired), "{plan:?} of {}", active.len());
        for _ in 0..plan.create {
            let thing = Thing { created: self.now, ready: false, deleting: false, held: false };
            self.real.insert(self.next, thing.clone());
            self.untold.push_back(Told::Is(self.next, thing));
            self.next += 1;
        }
        if plan.create > 0 {
            assert!(self.real.len() <= self.desired, "{} members for {}", self.real.len(), self.desired);
        }
        scale_down_order(&mut active);
        for member in active.iter().take(plan.delete) {
            self.delete(member.uid.parse().unwrap());
        }
        if all_seen && plan.delete > 0 {
            assert!(self.living() >= self.desired.min(living), "{} of {} left", self.living(), self.desired);
        }
        plan
    }
}

fn seen_member(id: usize, thing: &Thing) -> Member {
    let mut made = Object::new(API_VERSION, "Sandbox", "ns", &id.to_string());
    made.set_at(&["metadata", "uid"], id.to_string());
    made.set_at(&["metadata", "labels"], json!({LAUNCH_TYPE: "warm"}));
    made.set_at(&["metadata", "ownerReferences"], vec![reference(OWNED)]);
    made.set_at(&["metadata", "creationTimestamp"], crate::clock::time_text(at(thing.created)));
    if thing.deleting {
        made.set_at(&["metadata", "deletionTimestamp"], crate::clock::time_text(at(thing.created)));
    }
    if thing.ready {
        made.set("status", json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    }
    member(made)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_never_has_too_many_by_its_own_doing_and_comes_to_rest_as_wanted(
        steps in proptest::collection::vec(step(), 1..80),
        batch in 1..5_usize,
    ) {
        let settings = Settings { max_batch_size: batch, ..Settings::default() };
        let mut model = Model { desired: 3, ..Model::default() };
        for step in steps {
            match step {
                Step::See(count) => model.see(count),
                Step::Scale(count) => model.desired = count,
                Step::Ready(index) => {
                    if let Some(id) = model.pick(index) {
                        model.change(id, |thing| thing.ready = true);
                    }
                }
                Step::Take(index) => {
                    if let Some(id) = model.pick(index).filter(|id| !model.real[id].deleting) {
                        model.real.remove(&id);
                        model.untold.push_back(Told::Taken(id));
                    }
                }
                Step::Delete(index) => {
                    if let Some(id) = model.pick(index) {
                        model.remove(id);
                    }
                }
                Step::Hold(index) => {
                    if let Some(id) = model.pick(index).filter(|id| !model.real[id].deleting) {
                        model.change(id, |thing| thing.held = true);
                    }
                }
                Step::Release => release(&mut model),
                Step::Pass => {
                    model.pass(&settings);
                }
                Step::Wait(seconds) => {
                    model.see(usize::MAX);
                    model.now += seconds;
                }
            }
        }
        release(&mut model);
        let mut quiet = false;
        for _ in 0..60 {
            model.see(usize::MAX);
            for id in model.real.keys().copied().collect::<Vec<_>>() {
                model.change(id, |thing| thing.ready = true);
            }
            model.see(usize::MAX);
            quiet = model.pass(&settings) == Plan::default() && model.untold.is_empty();
            model.now += 30;
        }
        prop_assert!(quiet);
        prop_assert_eq!(model.real.len(), model.desired);
        prop_assert_eq!(&model.real, &model.seen);
    }
}

/// Takes all finalizers away.
fn release(model: &mut Model) {
    for id in model.real.keys().copied().collect::<Vec<_>>() {
        let held = model.real[&id].held;
        if held {
            model.change(id, |thing| thing.held = false);
        }
        if model.real[&id].deleting && held {
            model.remove(id);
        }
    }
}
