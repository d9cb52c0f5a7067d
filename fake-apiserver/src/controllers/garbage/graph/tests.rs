use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn gvr() -> Arc<Gvr> {
    Gvr::new("", "v1", "configmaps").into()
}

fn node(name: &str, owners: &[(&str, bool)]) -> Node {
    let owners = owners.iter().map(|(uid, block)| OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: (*uid).into(),
        uid: (*uid).into(),
        controller: false,
        block_owner_deletion: *block,
    });
    Node {
        gvr: gvr(),
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: "ns".into(),
        name: name.into(),
        owners: owners.collect(),
        deleting: false,
        deleting_dependents: false,
        orphaning: false,
    }
}

fn attempt(uid: &str) -> Work {
    Work::Attempt(uid.into())
}

#[test]
fn an_object_is_looked_at_when_its_owner_is_unknown_and_when_its_owner_goes() {
    let mut graph = Graph::default();
    assert_eq!(graph.observe("child", node("child", &[("owner", false)])), [attempt("child")]);
    assert_eq!(graph.observe("owner", node("owner", &[])), []);
    assert_eq!(graph.observe("late", node("late", &[("owner", false)])), []);
    assert_eq!(graph.forget("owner"), [attempt("child"), attempt("late")]);
}

#[test]
fn an_owner_in_foreground_deletion_is_looked_at_when_a_dependent_goes_or_lets_it_go() {
    let mut graph = Graph::default();
    graph.observe("owner", node("owner", &[]));
    graph.observe("a", node("a", &[("owner", true)]));
    graph.observe("b", node("b", &[("owner", true)]));
    let waiting = Node { deleting: true, deleting_dependents: true, ..node("owner", &[]) };
    assert_eq!(graph.observe("owner", waiting.clone()), [attempt("a"), attempt("b"), attempt("owner")]);
    assert_eq!(graph.observe("owner", waiting), [], "only the beginning counts");
    assert_eq!(graph.observe("a", node("a", &[("owner", false)])), [attempt("owner")]);
    assert_eq!(graph.blocking_dependents("owner").map(|(uid, _)| uid).collect::<Vec<_>>(), ["b"]);
    assert_eq!(graph.forget("b"), [attempt("owner")]);
}

#[rstest]
#[case::another_namespace(Node { namespace: "other".into(), ..node("owner", &[]) }, true)]
#[case::another_name(Node { name: "renamed".into(), ..node("owner", &[]) }, false)]
#[case::another_kind(Node { kind: "Secret".into(), ..node("owner", &[]) }, false)]
fn a_reference_with_a_living_uid_but_wrong_coordinates_is_looked_at(#[case] owner: Node, #[case] told: bool) {
    let child = node("child", &[("owner", false)]);
    let mut expected = vec![attempt("child")];
    if told {
        expected.insert(0, Work::Report("child".into(), "owner".into()));
    }
    let mut graph = Graph::default();
    graph.observe("owner", owner.clone());
    assert_eq!(graph.observe("child", child.clone()), expected, "the owner seen first");
    let mut graph = Graph::default();
    graph.observe("child", child);
    assert_eq!(graph.observe("owner", owner), expected, "the dependent seen first");
}

#[test]
fn an_orphaning_deletion_is_carried_out_once() {
    let mut graph = Graph::default();
    graph.observe("owner", node("owner", &[]));
    let orphaning = Node { deleting: true, orphaning: true, ..node("owner", &[]) };
    assert_eq!(graph.observe("owner", orphaning.clone()), [Work::Orphan("owner".into())]);
    assert_eq!(graph.observe("owner", orphaning), []);
}

#[rstest]
#[case::no_owner(&[], false, &[], Verdict::Keep)]
#[case::living(&[("a", OwnerState::Solid)], false, &[], Verdict::Keep)]
#[case::one_of_two(&[("a", OwnerState::Solid), ("b", OwnerState::Dangling)], false, &[], Verdict::Strip(vec!["b".into()]))]
#[case::living_and_waiting(
    &[("a", OwnerState::Waiting), ("b", OwnerState::Solid)], true, &[], Verdict::Strip(vec!["a".into()])
)]
#[case::dangling(&[("a", OwnerState::Dangling)], true, &[], Verdict::Delete { propagation: "Background", unblock: false })]
#[case::waiting(&[("a", OwnerState::Waiting)], false, &[], Verdict::Delete { propagation: "Background", unblock: false })]
#[case::waiting_with_dependents(
    &[("a", OwnerState::Waiting)], true, &[], Verdict::Delete { propagation: "Foreground", unblock: false }
)]
#[case::orphaning_already(
    &[("a", OwnerState::Dangling)], true, &[ORPHAN], Verdict::Delete { propagation: "Orphan", unblock: false }
)]
#[case::foreground_already(
    &[("a", OwnerState::Dangling)], true, &[FOREGROUND], Verdict::Delete { propagation: "Foreground", unblock: false }
)]
fn the_verdict_follows_the_owners(
    #[case] owners: &[(&str, OwnerState)],
    #[case] has_dependents: bool,
    #[case] finalizers: &[&str],
    #[case] verdict: Verdict,
) {
    let child = node("child", &[]);
    let dependents = if has_dependents { vec![&child] } else { vec![] };
    assert_eq!(judge(owners, &dependents, finalizers), verdict);
}

#[test]
fn a_circle_that_waits_for_itself_is_unblocked() {
    let child = Node { deleting: true, deleting_dependents: true, ..node("child", &[]) };
    let verdict = judge(&[("a", OwnerState::Waiting)], &[&child], &[]);
    assert_eq!(verdict, Verdict::Delete { propagation: "Foreground", unblock: true });
}

/// A world of objects that does what the collector says, at once.
#[derive(Debug, Default)]
struct World {
    objects: BTreeMap<String, Node>,
    graph: Graph,
    queue: Vec<Work>,
}

impl World {
    fn put(&mut self, uid: &str, node: Node) {
        self.objects.insert(uid.into(), node.clone());
        let work = self.graph.observe(uid, node);
        self.queue.extend(work);
    }

    fn remove(&mut self, uid: &str) {
        if self.objects.remove(uid).is_some() {
            let work = self.graph.forget(uid);
            self.queue.extend(work);
        }
    }

    /// Begins a deletion as the API does: gone at once, or waiting with the policy's finalizer.
    fn delete(&mut self, uid: &str, propagation: &str) {
        let Some(node) = self.objects.get(uid).cloned() else { return };
        match propagation {
            "Foreground" => self.put(uid, Node { deleting: true, deleting_dependents: true, ..node }),
            "Orphan" => self.put(uid, Node { deleting: true, orphaning: true, ..node }),
            _ => self.remove(uid),
        }
    }

    fn attend(&mut self, work: &Work) {
        match work {
            Work::Report(..) => {}
            Work::Orphan(uid) => {
                let dependents: Vec<_> = self.graph.dependents(uid).map(|(uid, _)| uid.to_owned()).collect();
                for dependent in dependents {
                    let mut node = self.objects[&dependent].clone();
                    node.owners.retain(|owner| owner.uid != *uid);
                    self.put(&dependent, node);
                }
                self.remove(uid);
            }
            Work::Attempt(uid) => {
                let Some(node) = self.objects.get(uid).cloned() else { return };
                if node.deleting && !node.deleting_dependents {
                    return;
                }
                if node.deleting_dependents {
                    let blocking: Vec<_> = self
                        .graph
                        .blocking_dependents(uid)
                        .map(|(uid, node)| (uid.to_owned(), node.deleting_dependents))
                        .collect();
                    if blocking.is_empty() {
                        self.remove(uid);
                    }
                    let idle = blocking.into_iter().filter(|(_, deleting)| !deleting);
                    self.queue.extend(idle.map(|(uid, _)| Work::Attempt(uid)));
                    return;
                }
                let states: Vec<_> = node
                    .owners
                    .iter()
                    .map(|owner| {
                        let state = match self.objects.get(&owner.uid) {
                            None => OwnerState::Dangling,
                            Some(live) if live.deleting_dependents => OwnerState::Waiting,
                            Some(_) => OwnerState::Solid,
                        };
                        (owner.uid.as_str(), state)
                    })
                    .collect();
                let dependents: Vec<_> = self.graph.dependents(uid).map(|(_, node)| node).collect();
                match judge(&states, &dependents, &[]) {
                    Verdict::Keep => {}
                    Verdict::Strip(stale) => {
                        let mut node = node.clone();
                        node.owners.retain(|owner| !stale.contains(&owner.uid));
                        self.put(uid, node);
                    }
                    Verdict::Delete { propagation, unblock } => {
                        if unblock {
                            let mut node = node.clone();
                            node.owners.iter_mut().for_each(|owner| owner.block_owner_deletion = false);
                            self.put(uid, node);
                        }
                        self.delete(uid, propagation);
                    }
                }
            }
        }
    }

    /// Works until nothing is left to do; in a drawn order, for the collector has no say in it.
    fn settle(&mut self, mut pick: impl FnMut(usize) -> usize) {
        let mut steps = 0;
        while !self.queue.is_empty() {
            let work = self.queue.remove(pick(self.queue.len()));
            self.attend(&work);
            steps += 1;
            assert!(steps < 10_000, "the collector must come to rest");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Creates the object, owned by these (some of which may not exist).
    Create(u8, Vec<(u8, bool)>),
    Delete(u8, &'static str),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, proptest::collection::vec((0..12_u8, any::<bool>()), 0..3))
            .prop_map(|(uid, owners)| Step::Create(uid, owners)),
        2 => (0..12_u8, proptest::sample::select(vec!["Background", "Foreground", "Orphan"]))
            .prop_map(|(uid, policy)| Step::Delete(uid, policy)),
        1 => Just(Step::Settle),
    ]
}

proptest! {
    #[test]
    fn at_rest_nothing_lives_without_a_living_owner_and_nothing_with_one_has_died(
        steps in proptest::collection::vec(step(), 1..60),
        seed in any::<u64>(),
    ) {
        let mut world = World::default();
        let mut state = seed | 1;
        let mut pick = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % bound
        };
        let mut generation = BTreeMap::<u8, u32>::new();
        for step in steps {
            let current = |generation: &BTreeMap<u8, u32>, uid: u8| {
                format!("u{uid}-{}", generation.get(&uid).copied().unwrap_or_default())
            };
            match step {
                Step::Create(uid, owners) => {
                    if world.objects.contains_key(&current(&generation, uid)) {
                        continue;
                    }
                    *generation.entry(uid).or_default() += 1;
                    let owners: BTreeMap<_, _> = owners
                        .into_iter()
                        .filter(|(owner, _)| *owner != uid)
                        .map(|(owner, block)| (current(&generation, owner), block))
                        .collect();
                    let owners: Vec<_> = owners.iter().map(|(uid, block)| (uid.as_str(), *block)).collect();
                    let uid = current(&generation, uid);
                    world.put(&uid, node(&uid, &owners));
                }
                Step::Delete(uid, policy) => {
                    let uid = current(&generation, uid);
                    if world.objects.get(&uid).is_some_and(|node| !node.deleting) {
                        world.delete(&uid, policy);
                    }
                }
                Step::Settle => world.settle(&mut pick),
            }
        }
        // The objects that stand on something that nobody deletes: they must all be there at rest.
        let before = world.objects.clone();
        let mut safe: BTreeSet<_> = before
            .iter()
            .filter(|(_, node)| node.owners.is_empty() && !node.deleting)
            .map(|(uid, _)| uid.clone())
            .collect();
        loop {
            let more: Vec<_> = before
                .iter()
                .filter(|(uid, node)| {
                    !safe.contains(*uid) && !node.deleting && node.owners.iter().any(|owner| safe.contains(&owner.uid))
                })
                .map(|(uid, _)| uid.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            safe.extend(more);
        }
        world.settle(&mut pick);
        for (uid, node) in &world.objects {
            prop_assert!(!node.deleting, "{uid} is stuck: {node:?}");
            for owner in &node.owners {
                prop_assert!(world.objects.contains_key(&owner.uid), "{uid} names the dead {}", owner.uid);
            }
        }
        for uid in safe {
            prop_assert!(world.objects.contains_key(&uid), "{uid} had a living owner and died");
        }
    }
}
