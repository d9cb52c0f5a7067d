//! Streams: one space of offsets for what was and what comes.

use std::time::Duration;

use agent_sandbox_provider::{
    agent::Streams,
    records::{Channel, StreamEvent},
    store::Store,
};
use futures::{StreamExt, future::join_all};
use serde_json::json;

fn number(n: u64) -> StreamEvent {
    StreamEvent::now(Channel::Sandbox, "sandbox:test", json!({ "n": n }))
}

fn n(event: &StreamEvent) -> u64 {
    event.data["n"].as_u64().expect("a number")
}

/// S-6: the predecessor read the last offset and then wrote the next, so that two writers met at the same.
#[tokio::test]
async fn events_of_many_writers_have_one_order_without_holes() {
    let streams = Streams::new(Store::in_memory().expect("a store"));
    let writers = (0..8).map(|_| {
        let streams = streams.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                streams.publish("s", number(n)).await.expect("published");
            }
        })
    });
    join_all(writers).await;
    let offsets: Vec<u64> = streams.read("s", 0, 1000).expect("events").into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, (1..=200).collect::<Vec<_>>());
    assert_eq!(streams.last_offset("s").expect("the last"), 200);
    assert_eq!(streams.last_offset("another").expect("none"), 0);
}

/// S-7: the predecessor counted replayed events anew, and lost those that came between replay and subscription.
#[tokio::test]
async fn a_subscriber_that_comes_at_any_time_sees_each_event_once_and_in_order() {
    let store = Store::in_memory().expect("a store");
    let streams = Streams::new(store.clone());
    let publish = tokio::spawn(async move {
        for n in 1..=300 {
            streams.publish("s", number(n)).await.expect("published");
        }
    });
    // Each at its own time, some of them through a service that was started later on the same store.
    let subscribers = (0..10).map(|i: u64| {
        let streams = Streams::new(store.clone());
        tokio::spawn(async move {
            let from = i * 13;
            // Those that begin in the future wait for it.
            let other = streams.clone();
            let poke = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    other.wake("s");
                }
            });
            let seen: Vec<(u64, u64)> = streams
                .subscribe("s", from)
                .map(|event| event.expect("an event"))
                .map(|(offset, event)| (offset, n(&event)))
                .take(301 - usize::try_from(from.max(1)).expect("small"))
                .collect()
                .await;
            poke.abort();
            assert_eq!(seen, (from.max(1)..=300).map(|n| (n, n)).collect::<Vec<_>>(), "from {from}");
        })
    });
    for subscriber in join_all(subscribers).await {
        subscriber.expect("what it saw");
    }
    publish.await.expect("published");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_woken_by_what_happens_in_its_stream_and_by_nothing_else() {
    let streams = Streams::new(Store::in_memory().expect("a store"));
    let mut events = Box::pin(streams.subscribe("s", 0));
    streams.publish("t", number(1)).await.expect("published");
    assert!(tokio::time::timeout(Duration::from_secs(5), events.next()).await.is_err(), "it is not its stream");
    streams.publish("s", number(2)).await.expect("published");
    let (offset, event) = events.next().await.expect("one").expect("an event");
    assert_eq!((offset, n(&event)), (1, 2));
}
