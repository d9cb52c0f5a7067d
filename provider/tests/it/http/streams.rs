//! Sessions: streams of events, and what is left of them.

use std::time::Duration;

use agent_sandbox_provider::records::{Channel, Session, SessionStatus, StreamEvent};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{World, request};

const SESSION: &str = "s1";

impl World {
    async fn session(&self) {
        let now = Timestamp::now();
        let session = Session {
            id: SESSION.into(),
            project_id: "p".into(),
            task_id: Some("t".into()),
            agent_id: None,
            status: SessionStatus::Active,
            title: Some("A title".into()),
            url: "/projects/p/sessions/s1".into(),
            created_at: now,
            updated_at: now,
            closed_at: None,
        };
        self.store.write(|tx| tx.put(&session)).unwrap();
    }

    async fn happens(&self, kind: &str, data: Value) -> u64 {
        let event = StreamEvent::now(Channel::ContainerAgent, kind, data);
        self.application.agents.streams().publish(SESSION, event).await.unwrap()
    }

    pub(super) async fn open(&self, request: Request<Body>) -> Events {
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }
}

/// What a client of server-sent events sees.
pub(super) struct Events {
    body: Body,
    text: String,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Event { id: Option<String>, data: Value },
    Comment(String),
    End,
}

impl Events {
    async fn next(&mut self) -> Seen {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let seen = match field("data:") {
                    Some(data) => {
                        assert_eq!(field("event:"), None, "events have no name");
                        Seen::Event { id: field("id:").map(str::to_owned), data: serde_json::from_str(data).unwrap() }
                    }
                    None => Seen::Comment(block.trim_start_matches(':').trim().to_owned()),
                };
                self.text = rest.to_owned();
                return seen;
            }
            match self.body.frame().await {
                None => return Seen::End,
                Some(frame) => {
                    let bytes = frame.unwrap().into_data().unwrap();
                    self.text.push_str(std::str::from_utf8(&bytes).unwrap());
                }
            }
        }
    }

    /// The next event's offset and type; its offset stands in it twice.
    pub(super) async fn event(&mut self) -> (u64, String) {
        match self.next().await {
            Seen::Event { id, data } => {
                let offset = data["offset"].as_u64().unwrap();
                assert_eq!(id, Some(offset.to_string()));
                assert!(data["timestamp"].is_i64() && data["data"].is_object(), "{data}");
                (offset, data["type"].as_str().unwrap().to_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hello(&mut self) -> Value {
        match self.next().await {
            Seen::Event { id: None, data } => data,
            other => panic!("{other:?}"),
        }
    }
}

fn stream(query: &str) -> Request<Body> {
    request("GET", &format!("/api/sessions/{SESSION}/stream{query}"), None)
}

#[tokio::test(start_paused = true)]
async fn what_happened_and_what_happens_is_one_sequence() {
    let world = World::new().await;
    world.session().await;
    for turn in 1..=3 {
        assert_eq!(world.happens("container-agent:turn", json!({"turn": turn})).await, turn);
    }
    let mut events = world.open(stream("")).await;
    let hello = events.hello().await;
    assert_eq!((&hello["type"], &hello["sessionId"], &hello["offset"]), (&json!("connected"), &json!("s1"), &json!(1)));
    for offset in 1..=3 {
        assert_eq!(events.event().await, (offset, "container-agent:turn".into()));
    }
    world.happens("container-agent:message", json!({"content": "live"})).await;
    assert_eq!(events.event().await, (4, "container-agent:message".into()));

    let mut later = world.open(stream("?offset=3")).await;
    assert_eq!(later.hello().await["offset"], 3);
    assert_eq!(later.event().await.0, 3);
    let mut again = stream("?offset=1");
    again.headers_mut().insert("last-event-id", "3".parse().unwrap());
    let mut again = world.open(again).await;
    again.hello().await;
    assert_eq!(again.event().await.0, 4, "the browser's header goes before the URL that it comes with");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_gives_a_sign_of_life_every_quarter_of_a_minute() {
    let world = World::new().await;
    world.session().await;
    let mut events = world.open(stream("")).await;
    events.hello().await;
    let began = tokio::time::Instant::now();
    for round in 1..=2 {
        assert_eq!(events.next().await, Seen::Comment("ping".into()));
        assert_eq!(began.elapsed().as_secs(), 15 * round);
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_an_hour_and_its_client_goes_on_where_it_was() {
    let world = World::new().await;
    world.session().await;
    world.happens("container-agent:turn", json!({"turn": 1})).await;
    let mut events = world.open(stream("")).await;
    events.hello().await;
    assert_eq!(events.event().await.0, 1);
    let began = tokio::time::Instant::now();
    while let Seen::Comment(_) = events.next().await {}
    assert_eq!((began.elapsed().as_secs(), events.next().await), (3600, Seen::End));
    world.happens("container-agent:turn", json!({"turn": 2})).await;
    let mut again = stream("");
    again.headers_mut().insert("last-event-id", "1".parse().unwrap());
    let mut again = world.open(again).await;
    again.hello().await;
    assert_eq!(again.event().await.0, 2);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_streams_and_a_client_that_goes_is_not_counted() {
    let world = World::new().await;
    world.session().await;
    let clients = async || {
        let figures = super::text(world.send(request("GET", "/metrics", None)).await).await;
        figures.lines().find_map(|line| line.strip_prefix("agent_sandbox_sse_clients ")).unwrap().to_owned()
    };
    let mut one = world.open(stream("")).await;
    let two = world.open(stream("")).await;
    assert_eq!(clients().await, "2");
    drop(two);
    assert_eq!(clients().await, "1");
    one.hello().await;
    world.application.stop().cancel();
    let end = tokio::time::timeout(Duration::from_secs(1), one.next()).await;
    assert_eq!(end.expect("it ends at once"), Seen::End);
    drop(one);
    assert_eq!(clients().await, "0");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_in_a_stream_is_a_number() {
    let world = World::new().await;
    world.session().await;
    for (query, last) in [
        ("?offset=-1", ""),
        ("?offset=first", ""),
        ("?offset=18446744073709551615", ""),
        ("", "x"),
        ("", "18446744073709551615"),
    ] {
        let mut asked = stream(query);
        asked.headers_mut().insert("last-event-id", last.parse().unwrap());
        let (status, answer) = world.read(asked).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (400, &json!("VALIDATION_ERROR")), "{query} {last}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn so_many_streams_are_open_at_once_and_no_more() {
    let world = World::new().await;
    world.session().await;
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(world.send(stream("")).await);
    }
    let (status, answer) = world.read(stream("")).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (429, &json!("TOO_MANY_STREAMS")));
    open.pop();
    assert_eq!(world.send(stream("")).await.status(), StatusCode::OK);
    drop(open);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_export_has_so_many_events_and_says_when_there_are_more() {
    let world = World::new().await;
    world.session().await;
    let event = StreamEvent::now(Channel::ContainerAgent, "container-agent:turn", json!({}));
    world.store.write(|tx| (0..=10_000).try_for_each(|_| tx.append(SESSION, &event).map(|_| ()))).unwrap();
    let export = world.good("POST", "/api/sessions/s1/export", None).await;
    let content: Value = serde_json::from_str(export["content"].as_str().unwrap()).unwrap();
    assert_eq!((content["events"].as_array().unwrap().len(), &export["truncated"]), (10_000, &json!(true)));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_read_in_pages_summed_up_and_exported() {
    let world = World::new().await;
    world.session().await;
    world.happens("container-agent:started", json!({"model": "m"})).await;
    for turn in 1..=2 {
        world.happens("container-agent:turn", json!({"turn": turn})).await;
    }
    world.happens("container-agent:tool:start", json!({"toolName": "Write"})).await;
    world.happens("container-agent:file_changed", json!({"path": "a.txt", "action": "create"})).await;
    world.happens("container-agent:file_changed", json!({"path": "a.txt", "action": "modify"})).await;
    world.happens("container-agent:message", json!({"role": "assistant", "content": "All *done*."})).await;
    world.happens("container-agent:complete", json!({"status": "completed", "turnCount": 2})).await;

    let page = world.good("GET", "/api/sessions/s1/events?limit=3&offset=2", None).await;
    let offsets: Vec<_> = page["events"].as_array().unwrap().iter().map(|event| event["offset"].clone()).collect();
    assert_eq!(
        (offsets, &page["nextOffset"], &page["totalCount"]),
        (vec![json!(2), json!(3), json!(4)], &json!(5), &json!(8))
    );

    let summary = world.good("GET", "/api/sessions/s1/summary", None).await;
    assert_eq!(
        (&summary["eventCount"], &summary["turnCount"], &summary["toolCalls"]),
        (&json!(8), &json!(2), &json!(1))
    );
    assert_eq!((&summary["filesChanged"], &summary["result"]), (&json!(["a.txt"]), &json!("completed")));
    assert_eq!((&summary["taskId"], &summary["status"]), (&json!("t"), &json!("active")));

    let export = world.good("POST", "/api/sessions/s1/export", None).await;
    let content: Value = serde_json::from_str(export["content"].as_str().unwrap()).unwrap();
    assert_eq!(content["events"].as_array().unwrap().len(), 8);
    assert_eq!((&export["filename"], &export["truncated"]), (&json!("session-s1.json"), &json!(false)));
    let export = world.good("POST", "/api/sessions/s1/export", Some(json!({"format": "markdown"}))).await;
    let content = export["content"].as_str().unwrap();
    assert!(content.starts_with("# A title\n") && content.contains("All *done*."), "{content}");

    for path in ["stream", "events", "summary"] {
        assert_eq!(world.bad("GET", &format!("/api/sessions/none/{path}"), None).await, "404 NOT_FOUND");
    }
    assert_eq!(world.bad("POST", "/api/sessions/none/export", None).await, "404 NOT_FOUND");
    let pdf = Some(json!({"format": "pdf"}));
    assert_eq!(world.bad("POST", "/api/sessions/s1/export", pdf).await, "400 VALIDATION_ERROR");
    world.end().await;
}
