//! The store against a model: a map for the present, and a copy of that map for every revision there ever was.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::{Change, Range, Stale, Store, TooOld};
use crate::base::{Key, Object, Stored};

/// Small enough that histories outgrow it.
const CAPACITY: usize = 8;
const BUCKET: &str = "things";

type Place = (String, String);
type State = BTreeMap<Place, (u64, u32)>;

#[derive(Clone, Debug)]
enum Step {
    Put { place: Place, value: u32, stale: bool },
    Delete { place: Place },
    Compact,
}

/// What the store ought to hold.
#[derive(Clone, Debug)]
struct Model {
    /// The state after each revision, the first one before any write.
    history: BTreeMap<u64, State>,
    /// Revisions from this on can be read back.
    oldest: u64,
    /// Revisions of the events that are still kept.
    kept: Vec<u64>,
}

impl Model {
    fn now(&self) -> (u64, &State) {
        let (revision, state) = self.history.last_key_value().expect("never empty");
        (*revision, state)
    }

    fn write(&mut self, change: impl FnOnce(u64, &mut State)) {
        let (revision, state) = self.now();
        let (revision, mut state) = (revision + 1, state.clone());
        change(revision, &mut state);
        self.history.insert(revision, state);
        self.kept.push(revision);
        if self.kept.len() > CAPACITY {
            self.oldest = self.kept.remove(0);
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { history: BTreeMap::from([(1, State::new())]), oldest: 0, kept: Vec::new() }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let place = || ("[ab]", "[xyz]").prop_map(|(namespace, name)| (namespace, name));
        prop_oneof![
            6 => (place(), any::<u32>(), prop::bool::weighted(0.2))
                .prop_map(|(place, value, stale)| Step::Put { place, value, stale }),
            3 => place().prop_map(|place| Step::Delete { place }),
            1 => Just(Step::Compact),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        match step {
            Step::Put { stale: true, .. } => {}
            Step::Put { place, value, stale: false } => model.write(|revision, state| {
                state.insert(place.clone(), (revision, *value));
            }),
            Step::Delete { place } if model.now().1.contains_key(place) => model.write(|_, state| {
                state.remove(place);
            }),
            Step::Delete { .. } => {}
            // A bucket that nothing was ever written to has no history to forget.
            Step::Compact if model.history.len() > 1 => {
                model.oldest = model.now().0;
                model.kept.clear();
            }
            Step::Compact => {}
        }
        model
    }
}

struct Real(Arc<Store>);

fn key((namespace, name): &Place) -> Key {
    Key { bucket: BUCKET.into(), namespace: namespace.clone(), name: name.clone() }
}

fn make(place: &Place, value: u32) -> impl FnOnce(u64) -> Stored {
    let mut object = Object::new("v1", "Thing", &place.0, &place.1);
    object.set("value", value);
    move |revision| {
        object.metadata_mut().insert("resourceVersion".into(), revision.to_string().into());
        Stored::new(object)
    }
}

fn read(stored: &Stored) -> (Place, (u64, u32)) {
    let value = stored.get("value").and_then(serde_json::Value::as_u64).unwrap() as u32;
    ((stored.namespace().into(), stored.name().into()), (stored.resource_version().parse().unwrap(), value))
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self(Arc::new(Store::new(CAPACITY)))
    }

    fn apply(real: Self, model: &Model, step: Step) -> Self {
        match step {
            Step::Put { place, value, stale } => {
                let actual = real.0.get(&key(&place)).1.map(|entry| entry.revision);
                let expected = if stale { Some(actual.unwrap_or(0) + 1000) } else { actual };
                let result = real.0.commit(&key(&place), expected, Change::Put(Box::new(make(&place, value))));
                match stale {
                    true => assert_eq!(result.unwrap_err(), Stale { actual }),
                    false => assert_eq!(result.unwrap().revision, model.now().0),
                }
            }
            Step::Delete { place } => {
                if let Some(entry) = real.0.get(&key(&place)).1 {
                    let (_, (_, value)) = read(&entry.value);
                    let last = Change::Delete(Box::new(make(&place, value)));
                    real.0.commit(&key(&place), Some(entry.revision), last).unwrap();
                }
            }
            Step::Compact => real.0.compact(),
        }
        real
    }

    fn check_invariants(real: &Self, model: &Model) {
        let store = &real.0;
        let (revision, now) = model.now();
        assert_eq!(store.revision(), revision);

        for namespace in [None, Some("a"), Some("b")] {
            let in_namespace = |place: &Place| namespace.is_none_or(|namespace| namespace == place.0);
            let (at, entries) = store.list(BUCKET, namespace);
            assert_eq!(at, revision);
            let listed: Vec<_> = entries.iter().map(|entry| read(&entry.value)).collect();
            let wanted: Vec<_> =
                now.iter().filter(|(place, _)| in_namespace(place)).map(|(p, v)| (p.clone(), *v)).collect();
            assert_eq!(listed, wanted, "the list and the model differ, or the order is not that of the keys");

            for (&past, state) in &model.history {
                let wanted: State =
                    state.iter().filter(|(place, _)| in_namespace(place)).map(|(p, v)| (p.clone(), *v)).collect();
                let range = Range { namespace, at: Some(past), ..Range::default() };
                let read_back = store.page(BUCKET, &range, &|_| true);
                let watch = store.watch(&BUCKET.into(), namespace, None, past);
                if past < model.oldest {
                    assert_eq!(read_back.unwrap_err(), TooOld { oldest: model.oldest });
                    assert_eq!(watch.unwrap_err(), TooOld { oldest: model.oldest });
                    continue;
                }
                let read_back: State = read_back.unwrap().entries.iter().map(|entry| read(&entry.value)).collect();
                assert_eq!(read_back, wanted, "the state after revision {past}");

                // Pages of one go through the same values, and know what is left.
                let mut paged: Vec<(Place, _)> = Vec::new();
                for left in (0..wanted.len()).rev() {
                    let last = paged.last().map(|(place, _)| place.clone());
                    let after = last.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
                    let page = store.page(BUCKET, &Range { after, limit: 1, ..range }, &|_| true).unwrap();
                    assert_eq!((page.revision, page.entries.len(), page.rest), (revision, 1, left));
                    paged.push(read(&page.entries[0].value));
                }
                assert_eq!(paged, wanted.clone().into_iter().collect::<Vec<_>>());

                // Whoever lists at a revision and replays a watch from there ends in the present.
                let mut replayed = wanted;
                let mut last = past;
                for event in watch.unwrap().poll().unwrap() {
                    assert!(event.revision > last, "events come in order, each once");
                    last = event.revision;
                    let (place, value) = read(&event.value);
                    assert_eq!(value.0, event.revision);
                    let before = event.old.map(|old| read(&old.value).1);
                    let known = if event.deleted { replayed.remove(&place) } else { replayed.insert(place, value) };
                    assert_eq!(known, before, "an event knows what it replaced");
                }
                let present: State =
                    now.iter().filter(|(place, _)| in_namespace(place)).map(|(p, v)| (p.clone(), *v)).collect();
                assert_eq!(replayed, present, "a watch from revision {past}");
            }
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_with_a_history_that_watches_and_old_lists_agree_on(sequential 1..40 => Real);
}

#[tokio::test]
async fn a_waiting_watch_wakes_for_its_own_bucket_and_namespace_only() {
    let store = Arc::new(Store::new(CAPACITY));
    let mut watch = store.watch(&BUCKET.into(), Some("a"), None, store.revision()).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await.unwrap() });
    for place in [("b", "other"), ("a", "mine")] {
        let place = (place.0.to_owned(), place.1.to_owned());
        store.commit(&key(&place), None, Change::Put(Box::new(make(&place, 1)))).unwrap();
        tokio::task::yield_now().await;
    }
    let events = waiting.await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].value.name(), "mine");
}

#[tokio::test]
async fn a_watch_that_reads_too_slowly_is_told_so_instead_of_missing_events() {
    let store = Arc::new(Store::new(CAPACITY));
    let mut watch = store.watch(&BUCKET.into(), None, None, store.revision()).unwrap();
    for number in 0..=CAPACITY {
        let place = ("a".to_owned(), format!("thing-{number}"));
        store.commit(&key(&place), None, Change::Put(Box::new(make(&place, 1)))).unwrap();
    }
    assert!(watch.next().await.is_err());
}

#[tokio::test]
async fn a_watch_that_is_up_to_date_outlives_a_storm_elsewhere_and_a_compaction() {
    let store = Arc::new(Store::new(CAPACITY));
    let mut watch = store.watch(&BUCKET.into(), Some("a"), Some("mine"), store.revision()).unwrap();
    let put = |namespace: &str, name: &str| {
        let place = (namespace.to_owned(), name.to_owned());
        store.commit(&key(&place), None, Change::Put(Box::new(make(&place, 1)))).unwrap();
    };
    for number in 0..3 * CAPACITY {
        put("a", &format!("other-{number}"));
    }
    assert_eq!(watch.seen(), store.revision());
    store.compact();
    put("b", "mine");
    put("a", "mine");
    let events = watch.next().await.unwrap();
    assert_eq!(events.iter().map(|event| event.value.namespace()).collect::<Vec<_>>(), ["a"]);
}
