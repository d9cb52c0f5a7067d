//! What an API server may answer, and what answers in its place: by hand. Each is an error of its own, which names the
//! object, says what to do, knows whether another try makes sense, and holds no secret.

use std::{
    convert::Infallible,
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent_sandbox_sdk::{
    AgentSandboxClient, CallError, Error, ExecError, LogsError, WaitError,
    informer::Change,
    kubeconfig::ConnectOptions,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec},
};
use anyhow::{Context, Result};
use fake_apiserver::Cluster;
use http::{Request, Response};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::{api::LogParams, client::Body, runtime::watcher::Config};
use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{any, method, path},
};

const GROUP: &str = "/apis/agents.x-k8s.io/v1beta1";
const OBJECT: &str = "/apis/agents.x-k8s.io/v1beta1/namespaces/default/sandboxes/a";
const TOKEN: &str = "s3cr3t-t0ken";
const SECRET: &str = "hunter2";

/// A client by a kubeconfig with a token.
async fn client(server: &str, authority: &str) -> Result<(AgentSandboxClient, TempDir)> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("ca"), authority)?;
    let authority = match authority {
        "" => String::new(),
        _ => format!(", certificate-authority: {}", folder.path().join("ca").display()),
    };
    let text = format!(
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
         clusters: [{{name: a, cluster: {{server: '{server}'{authority}}}}}]\nusers: [{{name: a, user: {{token: {TOKEN}}}}}]"
    );
    std::fs::write(folder.path().join("config"), text)?;
    let options = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..Default::default() };
    Ok((AgentSandboxClient::connect(&options).await?, folder))
}

/// All that an error says, without a secret.
fn told(error: &(dyn StdError + 'static)) -> String {
    let chain: Vec<_> =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    let (chain, debug) = (chain.join(": "), format!("{error:?}"));
    for secret in [TOKEN, SECRET] {
        assert!(!chain.contains(secret) && !debug.contains(secret), "{chain}\n{debug}");
    }
    chain
}

fn call(error: &Error) -> &CallError {
    let source = error.source().expect("a cause");
    source.downcast_ref().unwrap_or_else(|| panic!("{error:?} comes of a call"))
}

fn status(code: u16, reason: &str, message: &str, retry_after: Option<u32>) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code, "details": {"retryAfterSeconds": retry_after.unwrap_or_default()}})
}

/// A server that knows of sandboxes.
async fn server() -> MockServer {
    let server = MockServer::start().await;
    let resources =
        json!([{"name": "sandboxes", "singularName": "", "namespaced": true, "kind": "Sandbox", "verbs": ["get"]}]);
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "agents.x-k8s.io/v1beta1",
        "resources": resources});
    Mock::given(path(GROUP)).respond_with(ResponseTemplate::new(200).set_body_json(list)).mount(&server).await;
    server
}

fn sandbox(name: &str) -> Sandbox {
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    let pod = PodSpec { containers: vec![main], ..Default::default() };
    Sandbox::new(name, SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() })
}

#[rstest]
#[case::malformed(200, "application/json", "{\"kind\": \"Sandbox\", hunter2", "its answer is no JSON: line 1", false)]
#[case::cut_off(200, "application/json", "{\"kind\": \"Sandbox\", \"meta", "its answer ends too early", false)]
#[case::other_json(
    200,
    "application/json",
    "{\"metadata\": {\"name\": {\"a\": \"hunter2\"}}}",
    "JSON of another shape",
    false
)]
#[case::no_text(200, "application/json", "\u{0}\u{1}", "no API server answered", false)]
#[case::a_page(200, "text/html", "<html><body>Please log in</body></html>", "is there a proxy between", false)]
#[case::a_page_for_nothing(404, "text/html", "<html><body>Not here</body></html>", "HTTP 404", false)]
#[case::a_redirect(302, "text/html", "", "no API server answered", false)]
#[case::a_gateway(
    502,
    "text/html",
    "<html><h1>Bad\n Gateway</h1>",
    "HTTP 502: is there a proxy between, or is the address another service's? (<html><h1>Bad Gateway</h1>)",
    true
)]
#[case::unknown(
    401,
    "application/json",
    r#"{"kind":"Status","message":"Unauthorized","reason":"Unauthorized","code":401}"#,
    "the server said: Unauthorized (401",
    false
)]
#[case::failing(
    500,
    "application/json",
    r#"{"kind":"Status","message":"etcdserver: leader changed","reason":"InternalError","code":500}"#,
    "etcdserver: leader changed",
    true
)]
#[case::in_plain_text(
    503,
    "text/plain",
    "apiserver is shutting down",
    "apiserver is shutting down (503 ServiceUnavailable)",
    true
)]
#[tokio::test]
async fn a_strange_answer_is_told_as_what_it_is(
    #[case] code: u16,
    #[case] kind: &str,
    #[case] body: &str,
    #[case] words: &str,
    #[case] retryable: bool,
) -> Result<()> {
    let server = server().await;
    let answer =
        ResponseTemplate::new(code).set_body_raw(body, kind).insert_header("Location", "https://login.example/");
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let (client, _folder) = client(&server.uri(), "").await?;
    // What changes something is not sent again by itself.
    let error = client.resume("a").await.unwrap_err();
    let text = told(&error);
    assert!(text.starts_with("sandbox default/a was not changed: ") && text.contains(words), "{text}");
    assert_eq!((error.is_retryable(), error.is_not_found()), (retryable, false), "{error:?}");
    let found = client.sandboxes().exists("a").await;
    assert!(found.is_err(), "that is no answer to whether there is one: {found:?}");
    Ok(())
}

#[tokio::test]
async fn an_object_that_does_not_fit_is_told_without_its_values() -> Result<()> {
    let server = server().await;
    let body = json!({"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "metadata": {"name": "a"},
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "env": SECRET}]}}}});
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(&server).await;
    let (client, _folder) = client(&server.uri(), "").await?;
    let error = client.get("a").await.unwrap_err();
    assert_eq!(told(&error), "sandbox default/a cannot be understood: the object is no Sandbox: expected a sequence");
    assert!(!error.is_retryable());
    Ok(())
}

#[tokio::test]
async fn a_busy_server_is_waited_for_as_long_as_it_asks_and_no_longer_than_seconds() -> Result<()> {
    let server = server().await;
    let busy = |seconds: u32| {
        ResponseTemplate::new(429).insert_header("Retry-After", seconds.to_string()).set_body_json(status(
            429,
            "TooManyRequests",
            "please wait",
            Some(seconds),
        ))
    };
    let object = serde_json::to_value(sandbox("a"))?;
    Mock::given(method("GET")).and(path(OBJECT)).respond_with(busy(1)).up_to_n_times(1).mount(&server).await;
    Mock::given(method("GET"))
        .and(path(OBJECT))
        .respond_with(ResponseTemplate::new(200).set_body_json(object))
        .mount(&server)
        .await;
    Mock::given(method("DELETE")).respond_with(busy(3600)).expect(1).mount(&server).await;
    let (client, _folder) = client(&server.uri(), "").await?;
    let started = std::time::Instant::now();
    client.get("a").await?;
    assert!(started.elapsed() >= Duration::from_secs(1), "the server was given the time that it asked for");
    let error = client.delete("a").await.unwrap_err();
    assert_eq!(call(&error).retry_after(), Some(Duration::from_secs(3600)));
    assert!(error.is_retryable());
    assert_eq!(told(&error), "sandbox default/a was not deleted: the server said: please wait (429 TooManyRequests)");
    Ok(())
}

#[tokio::test]
async fn a_storm_of_failures_ends_and_changes_are_made_once_at_most() -> Result<()> {
    let server = server().await;
    let away = || ResponseTemplate::new(504).set_body_json(status(504, "Timeout", "no answer in time", None));
    Mock::given(method("GET")).and(path(OBJECT)).respond_with(away()).expect(5).mount(&server).await;
    Mock::given(method("POST")).respond_with(away()).expect(1).mount(&server).await;
    let (client, _folder) = client(&server.uri(), "").await?;
    let new = sandbox("a");
    let (read, made) = tokio::join!(client.get("a"), client.create(&new));
    for error in [read.unwrap_err(), made.unwrap_err()] {
        assert!(error.is_retryable() && told(&error).contains("no answer in time (504 Timeout)"), "{error:?}");
    }
    Ok(())
}

/// A server by hand: each connection is read once, answered with these bytes, and closed.
async fn raw(answer: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    Ok(address.to_string())
}

#[tokio::test]
async fn a_connection_that_is_refused_or_lost_is_told_as_that() -> Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let (to_nobody, _folder) = client(&format!("http://{nobody}"), "").await?;
    let error = to_nobody.get("a").await.unwrap_err();
    assert!(matches!(call(&error), CallError::Unreachable(_)) && error.is_retryable(), "{error:?}");
    let text = told(&error);
    assert!(
        text.starts_with("sandbox default/a was not read: no connection to the API server: is the cluster up"),
        "{text}"
    );
    assert!(text.contains("Connection refused"), "{text}");

    for lost in ["", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"kind\": "] {
        let server = raw(lost).await?;
        let (client, _folder) = client(&format!("http://{server}"), "").await?;
        let error = client.create(&sandbox("a")).await.unwrap_err();
        assert!(matches!(call(&error), CallError::Interrupted(_)) && error.is_retryable(), "{error:?}");
        assert!(told(&error).contains("whether the server acted is not known"), "{error:?}");
        let error = client.logs("a", &LogParams::default()).await.unwrap_err();
        assert!(matches!(error, LogsError::PodLookupFailed { .. }) && error.is_retryable(), "{error:?}");
        told(&error);
    }
    Ok(())
}

/// A server whose certificate is for a name and a span of years, and that certificate as an authority.
async fn with_certificate(name: &str, years: (i32, i32)) -> Result<(String, String)> {
    let mut wanted = CertificateParams::new([name.to_owned()])?;
    (wanted.not_before, wanted.not_after) = (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
    let key = KeyPair::generate()?;
    let certificate = wanted.self_signed(&key)?;
    let authority = certificate.pem();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = acceptor.accept(socket).await; // the client hangs up
        }
    });
    Ok((address.to_string(), authority))
}

#[tokio::test]
async fn a_server_that_is_not_to_be_trusted_is_told_at_once_also_by_a_wait() -> Result<()> {
    let (good, _) = with_certificate("127.0.0.1", (2020, 2100)).await?;
    let (expired, of_expired) = with_certificate("127.0.0.1", (2020, 2021)).await?;
    let (misnamed, of_misnamed) = with_certificate("other.example", (2020, 2100)).await?;
    let plain = raw("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await?;
    for (server, authority, words) in [
        (good, of_expired.clone(), "invalid peer certificate"),
        (expired, of_expired.clone(), "expired"),
        (misnamed, of_misnamed, "not valid for name"),
        (plain, of_expired, "corrupt message"),
    ] {
        let (client, _folder) = client(&format!("https://{server}"), &authority).await?;
        let error = client.get("a").await.unwrap_err();
        let text = told(&error);
        assert!(matches!(call(&error), CallError::Untrusted(_)) && !error.is_retryable(), "{error:?}");
        assert!(text.contains("check the kubeconfig's certificate-authority") && text.contains(words), "{text}");
        let waited = client.wait_ready("a", Duration::from_secs(600)).await.unwrap_err();
        assert!(matches!(waited, WaitError::NotWatched { .. }) && !waited.is_retryable(), "{waited:?}");
        assert!(told(&waited).contains(words));
    }
    Ok(())
}

/// A client of a server in this process.
fn answering<A>(answer: impl Fn(Request<Body>) -> A + Clone + Send + 'static) -> AgentSandboxClient
where
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = tower::service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    AgentSandboxClient::new(kube::Client::new(service, "default"))
}

/// Connected, and nobody there: also a client that was made elsewhere comes back.
#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_given_up() -> Result<()> {
    let client = answering(|_| std::future::pending());
    let started = tokio::time::Instant::now();
    let error = client.get("a").await.unwrap_err();
    assert_eq!(
        told(&error),
        "sandbox default/a was not read: no answer within 75s; whether the server acted is not known"
    );
    assert!(error.is_retryable() && started.elapsed() < Duration::from_secs(80));
    let error = client.exec("a", ["true"]).await.unwrap_err();
    assert!(matches!(&error, ExecError::PodLookupFailed { .. }) && error.is_retryable(), "{error:?}");
    let waited = client.wait_ready("a", Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(
        waited.to_string(),
        "sandbox default/a was not Ready after 10s: the controller has said nothing about it"
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_meets_a_proxy_did_not_start() -> Result<()> {
    let server = server().await;
    let object = serde_json::to_value(sandbox("a"))?;
    Mock::given(path(OBJECT)).respond_with(ResponseTemplate::new(200).set_body_json(object)).mount(&server).await;
    let page = ResponseTemplate::new(200).set_body_raw("<html>no upgrades here", "text/html");
    Mock::given(any()).respond_with(page).mount(&server).await;
    let (client, _folder) = client(&server.uri(), "").await?;
    let error = client.exec("a", ["true"]).await.unwrap_err();
    assert!(matches!(&error, ExecError::StartFailed { source: CallError::NotTheServer { code: Some(200), .. }, .. }));
    assert!(
        told(&error).starts_with("no command could be started in sandbox default/a (container main): no API server")
    );
    assert!(!error.is_retryable());
    Ok(())
}

/// A server that is being started: the first questions are answered by its load balancer.
#[tokio::test(start_paused = true)]
async fn waits_and_informers_outlive_a_server_that_is_not_up_yet() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let (behind, asked) = (cluster.client(), Arc::new(AtomicUsize::new(0)));
    let starting = answering(move |request: Request<Body>| {
        let (behind, at) = (behind.clone(), asked.fetch_add(1, Ordering::Relaxed));
        async move {
            if at < 3 {
                let page = Body::from(b"<html>503 Service Temporarily Unavailable".to_vec());
                return Response::builder().status(503).body(page).expect("an answer");
            }
            behind.send(request).await.expect("the cluster answers")
        }
    });
    AgentSandboxClient::new(cluster.client()).create(&sandbox("a")).await?;
    let mut informer = starting.sandboxes().informer(Config::default());
    let mut interruptions = 0;
    loop {
        match informer.next().await.context("it goes on")? {
            Change::Interrupted(error) => {
                interruptions += 1;
                assert!(told(&error).starts_with("the watch on objects of kind sandbox in default was interrupted"));
            }
            Change::Synced => break,
            _ => {}
        }
    }
    assert_eq!((interruptions, informer.view().list().len()), (3, 1));
    starting.wait_ready("a", Duration::from_secs(60)).await?;
    cluster.shutdown().await;
    Ok(())
}
