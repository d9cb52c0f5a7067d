//! Who comes in, and how much of what.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{TOKEN, World, bare, request, text};

/// Routes that answer to anyone.
const OPEN: [&str; 5] = ["/api/health", "/api/healthz", "/api/readyz", "/healthz", "/readyz"];

#[tokio::test(start_paused = true)]
async fn a_caller_without_credentials_gets_401_everywhere_but_health() {
    let world = World::new().await;
    let mut routes = world.routes().await;
    routes.push(("GET".into(), "/no/such/route".into()));
    for (method, path) in routes {
        let response = world.send(bare(&method, &path, None)).await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
            continue;
        }
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        if path != "/login" {
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
            let body: Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(body["error"]["code"], "UNAUTHORIZED", "{method} {path}");
        }
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_route_of_the_document_is_there_and_nothing_else() {
    let world = World::new().await;
    for (method, path) in world.routes().await {
        if path == "/login" || path.starts_with("/api/tasks/x/") {
            continue; // not found is what they must say of x; another test asks them
        }
        let response = world.send(request(&method, &path, None)).await;
        assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        if response.status() == StatusCode::NOT_FOUND {
            assert!(!text(response).await.contains("no such route"), "{method} {path}");
        }
    }
    assert_eq!(world.bad("GET", "/api/nothing", None).await, "404 NOT_FOUND");
    assert_eq!(world.bad("DELETE", "/api/settings", None).await, "405 METHOD_NOT_ALLOWED");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_token_itself_is_taken() {
    let world = World::new().await;
    for given in [
        TOKEN.to_owned(),
        format!("Basic {TOKEN}"),
        "Bearer the-token-of-these-tests-012345678x".into(),
        "Bearer the-token".into(),
        "Bearer ".into(),
    ] {
        let asked = with(bare("GET", "/api/settings", None), &[("authorization", &given)]);
        let (status, answer) = world.read(asked).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{given}");
        assert!(!answer.to_string().contains(TOKEN));
    }
    let asked = bare("GET", &format!("/api/settings?token={TOKEN}&access_token={TOKEN}"), None);
    assert_eq!(world.send(asked).await.status(), StatusCode::UNAUTHORIZED, "a token in a URL ends in logs");
    world.end().await;
}

fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test(start_paused = true)]
async fn a_person_logs_in_with_the_token_and_changes_things_from_our_pages_only() {
    let world = World::new().await;
    let page = world.send(with(bare("GET", "/settings/sandbox", None), &[("accept", "text/html")])).await;
    assert_eq!(page.status(), StatusCode::UNAUTHORIZED);
    assert!(text(page).await.contains("action=\"/login\""), "whoever has no cookie is asked for the token");

    let login = |token: &str| {
        let request = Request::post("/login").header("content-type", "application/x-www-form-urlencoded");
        request.body(Body::from(format!("token={token}"))).unwrap()
    };
    let refused = world.send(login("wrong")).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers().get("set-cookie").is_none());
    let accepted = world.send(login(TOKEN)).await;
    assert_eq!(accepted.status(), StatusCode::SEE_OTHER);
    let cookie = accepted.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("agentpane_session=") && !cookie.contains(TOKEN));
    for rule in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(rule), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();

    let host = ("host", "127.0.0.1:3001");
    let read = with(bare("GET", "/api/settings", None), &[("cookie", &cookie), host]);
    assert_eq!(world.send(read).await.status(), StatusCode::OK);
    let change = |origin: Option<&str>| {
        let asked = bare("PUT", "/api/settings", Some(json!({"settings": {"default_model": "m"}})));
        let asked = with(asked, &[("cookie", &cookie), host]);
        match origin {
            None => asked,
            Some(origin) => with(asked, &[("origin", origin)]),
        }
    };
    for foreign in [None, Some("http://evil.example"), Some("http://127.0.0.1:3002"), Some("null")] {
        let (status, answer) = world.read(change(foreign)).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("FORBIDDEN")), "{foreign:?}");
    }
    assert_eq!(world.send(change(Some("http://127.0.0.1:3001"))).await.status(), StatusCode::OK);

    let out = with(bare("POST", "/logout", None), &[("cookie", &cookie), host, ("origin", "http://127.0.0.1:3001")]);
    assert_eq!(world.send(out).await.status(), StatusCode::SEE_OTHER);
    let read = with(bare("GET", "/api/settings", None), &[("cookie", &cookie), host]);
    assert_eq!(world.send(read).await.status(), StatusCode::UNAUTHORIZED);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_has_its_requests_a_minute_and_is_told_when_to_come_again() {
    let world = World::with(None, |setup| setup.rate = 3).await;
    for _ in 0..3 {
        assert_eq!(world.send(bare("GET", "/api/settings", None)).await.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = world.send(request("GET", "/api/settings", None)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "guesses count too");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    let body: Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["error"]["code"], "RATE_LIMITED");
    assert_eq!(world.send(bare("GET", "/healthz", None)).await.status(), StatusCode::OK, "probes are not counted");
    tokio::time::advance(Duration::from_secs(wait)).await;
    world.good("GET", "/api/settings", None).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_header_about_the_caller_is_not_believed() {
    let world = World::with(None, |setup| setup.rate = 3).await;
    let ask = async |number: u32| {
        let other = format!("10.0.0.{number}");
        let forwarded = format!("for={other}");
        let headers = [("x-forwarded-for", other.as_str()), ("x-real-ip", &other), ("forwarded", &forwarded)];
        world.send(with(request("GET", "/api/settings", None), &headers)).await.status()
    };
    for number in 0..3 {
        assert_eq!(ask(number).await, StatusCode::OK);
    }
    assert_eq!(ask(3).await, StatusCode::TOO_MANY_REQUESTS, "it is the same caller, whatever it says");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let world = World::new().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (method, path) in [("PUT", "/api/settings"), ("POST", "/login")] {
        let begin = futures::stream::iter([Ok::<_, std::io::Error>("{")]);
        let mut asked = with(request(method, path, None), &[form]);
        *asked.body_mut() = Body::from_stream(begin.chain(futures::stream::pending()));
        let begun = tokio::time::Instant::now();
        let (status, answer) = world.read(asked).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (408, &json!("REQUEST_TIMEOUT")), "{method} {path}");
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_or_too_large_is_refused() {
    let world = World::new().await;
    let long = format!("/api/settings?keys={}", "a".repeat(5000));
    assert_eq!(world.bad("GET", &long, None).await, "414 URI_TOO_LONG");
    let large = json!({"settings": {"default_model": "a".repeat(1024 * 1024)}});
    assert_eq!(world.bad("PUT", "/api/settings", Some(large.clone())).await, "413 PAYLOAD_TOO_LARGE");
    let parts = futures::stream::iter(vec![Ok::<_, std::io::Error>(large.to_string())]);
    let mut unannounced = request("PUT", "/api/settings", None);
    *unannounced.body_mut() = Body::from_stream(parts);
    let (status, _) = world.read(unannounced).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_id_is_letters_digits_underscores_and_dashes() {
    let world = World::new().await;
    let long = "a".repeat(101);
    let routes: Vec<_> =
        world.routes().await.into_iter().filter(|(_, path)| path.split('/').any(|part| part == "x")).collect();
    assert!(routes.len() > 10);
    for (method, path) in routes.iter().filter(|(_, path)| !path.starts_with("/assets")) {
        for bad in ["a%20b", "a.b", "%2e%2e", "a%2fb", "%c3%a9", "%ff", "a%00", long.as_str()] {
            let path = path.replace("/x", &format!("/{bad}"));
            let body = (method != "GET").then(|| json!({}));
            assert_eq!(world.bad(method, &path, body).await, "400 INVALID_ID", "{method} {path}");
        }
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn health_needs_no_credentials_and_tells_no_secrets() {
    let world = World::new().await;
    let (status, answer) = world.read(bare("GET", "/api/health", None)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["data"]["checks"]["database"]["status"], "ok");
    assert_eq!(answer["data"]["checks"]["sandbox"], json!({"status": "ok", "provider": "local", "containerCount": 0}));
    world.application.stop().cancel();
    let (status, answer) = world.read(bare("GET", "/readyz", None)).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &json!("SHUTTING_DOWN")));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn figures_are_told_by_route_and_not_by_path() {
    let world = World::new().await;
    world.bad("GET", "/api/tasks/a-task-of-nobody", None).await;
    world.bad("GET", "/api/somewhere/else", None).await;
    let figures = text(world.send(request("GET", "/metrics", None)).await).await;
    for line in [
        r#"agent_sandbox_http_requests_total{method="GET",route="/api/tasks/{id}",status="404"} 1"#,
        r#"agent_sandbox_http_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"agent_sandbox_http_request_duration_seconds_count{route="/api/tasks/{id}"} 1"#,
        "agent_sandbox_sse_clients 0",
        "agent_sandbox_agents_running 0",
        r#"agent_sandbox_sandboxes{status="running"} 0"#,
        "agent_sandbox_provider_available 1",
    ] {
        assert!(figures.contains(line), "{line} is not in\n{figures}");
    }
    assert!(!figures.contains("a-task-of-nobody"));
    world.end().await;
}
