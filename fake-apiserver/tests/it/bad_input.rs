//! What no good client sends: each gets a clear answer or a clean close, and the server goes on.

use std::{fs, path::Path, time::Duration};

use rstest::rstest;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::Door;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "Content-Type: application/json\r\n";
const YAML: &str = "Content-Type: application/yaml\r\n";

fn nested(levels: usize) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
}

#[rstest]
#[case(JSON, "{not json", 400, "invalid character 'n' looking for beginning of object key string ({not json)")]
#[case(JSON, "", 400, "unexpected end of JSON input (<empty>)")]
#[case(JSON, "[]", 400, "json: cannot unmarshal array into Go value")]
#[case(YAML, "a: [unclosed", 400, "(must be of type ConfigMap): yaml: line 1: did not find")]
#[case(YAML, "a: &a [*a]", 400, "(must be of type ConfigMap): yaml: ")]
#[case(JSON, &nested(101), 400, "exceeded max depth")]
#[case(JSON, &nested(100_000), 400, "exceeded max depth")]
#[case(JSON, &" ".repeat(3 * 1024 * 1024 + 1), 413, "Request entity too large: limit is 3145728")]
#[case("Content-Type: text/plain\r\n", "{}", 415, "the body of the request was in an unknown format")]
#[case("Content-Type: nonsense\r\n", "{}", 415, "the body of the request was in an unknown format")]
#[case(
    "Content-Type: application/vnd.kubernetes.protobuf\r\n",
    "k8s",
    400,
    "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6b3873)"
)]
#[case("Accept: text/csv\r\n", "{}", 406, "Not Acceptable")]
#[tokio::test]
async fn a_bad_body_or_form_is_told_apart(
    #[case] headers: &str,
    #[case] body: &str,
    #[case] code: u16,
    #[case] text: &str,
) {
    let door = Door::open().await;
    let answer = door.request("POST", MAPS, headers, body.as_bytes()).await;
    assert_eq!(answer.code, code, "{answer:?}");
    assert!(answer.message().contains(text), "{}", answer.message());
    assert_eq!(answer.json()["kind"], "Status");
    door.is_well().await;
}

#[tokio::test]
async fn each_body_of_the_collection_of_bad_ones_is_refused_with_a_status() {
    let door = Door::open().await;
    let here = br#"{"metadata":{"name":"here"},"data":{"a":"b"}}"#;
    assert_eq!(door.request("POST", MAPS, JSON, here).await.code, 201);
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/bad-bodies");
    let in_order = |folder: &Path| {
        let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let mut count = 0;
    for folder in in_order(&collection) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let (to, form) = name.split_once('.').unwrap();
        let (method, path) = match to {
            "create-config-map" => ("POST", MAPS),
            "create-pod" => ("POST", "/api/v1/namespaces/default/pods"),
            "create-definition" => ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
            "create-policy" => ("POST", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"),
            "patch" => ("PATCH", "/api/v1/namespaces/default/configmaps/here?fieldManager=bad&fieldValidation=Strict"),
            other => panic!("nobody says where {other} is sent"),
        };
        let form = if form == "pb" { "vnd.kubernetes.protobuf" } else { form };
        for file in in_order(&folder) {
            let body = fs::read(&file).unwrap();
            let answer = door.request(method, path, &format!("Content-Type: application/{form}\r\n"), &body).await;
            let (file, status) = (file.display(), answer.json());
            assert!((400..=500).contains(&answer.code), "{file}: {} {status}", answer.code);
            assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &answer.code.into()), "{file}");
            assert!(!answer.message().is_empty(), "{file}: {status}");
            count += 1;
        }
    }
    assert!(count > 100, "{count} bodies were found");
    door.is_well().await;
}

#[rstest]
#[case("GET", "/nowhere", 404)]
#[case("GET", "/apis/nope.example.com/v1/things", 404)]
#[case("GET", "/api/v1/nothings", 404)]
#[case("POST", "/api/v1/namespaces/default/configmaps/one", 405)]
#[case("OPTIONS", MAPS, 405)]
#[case("BREW", MAPS, 405)]
#[case("GET", "/api/v1/namespaces/default/configmaps?limit=x", 400)]
#[case("GET", "/api/v1/namespaces/%ff%00/configmaps/%2e%2e", 404)]
#[tokio::test]
async fn a_path_or_method_that_nobody_serves_is_refused(#[case] method: &str, #[case] path: &str, #[case] code: u16) {
    let door = Door::open().await;
    let answer = door.request(method, path, "", b"").await;
    assert_eq!(answer.code, code, "{answer:?}");
    door.is_well().await;
}

#[tokio::test]
async fn half_a_handshake_that_ends_is_no_harm() {
    let door = Door::open().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    drop(stream);
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // an alert, then a close or a reset
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not served");
    door.is_well().await;
}

/// Lets the cluster's time pass until the server has closed the connection.
async fn is_closed_in_time(door: &Door, mut stream: impl AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let mut closed = std::pin::pin!(stream.read_to_end(&mut rest));
    for _ in 0..1000 {
        tokio::select! {
            biased;
            _ = &mut closed => return,
            () = door.cluster.clock().advance(Duration::from_secs(1)) => {}
        }
    }
    panic!("the connection is still open\n{}", door.cluster.dump().await);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let door = Door::open().await;
    is_closed_in_time(&door, TcpStream::connect(door.address).await.unwrap()).await;
    is_closed_in_time(&door, door.tls(&[b"http/1.1"]).await).await;
    is_closed_in_time(&door, door.tls(&[b"h2"]).await).await;
    door.is_well().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let door = Door::open().await;
    let mut stream = door.tls(&[]).await;
    stream.write_all(b"GET /api HTTP/1.1\r\nHost: loc").await.unwrap();
    stream.flush().await.unwrap();
    is_closed_in_time(&door, stream).await;
    door.is_well().await;
}

#[tokio::test]
async fn a_watch_that_is_never_read_holds_nobody_up() {
    let door = Door::open().await;
    let mut stream = door.tls(&[]).await;
    let head = format!(
        "GET {MAPS}?watch=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        crate::raw::TOKEN
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let data = "x".repeat(500_000);
    for number in 0..40 {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m{number}"}},"data":{{"d":"{data}"}}}}"#
        );
        assert_eq!(door.request("POST", MAPS, JSON, body.as_bytes()).await.code, 201);
    }
    door.is_well().await;
    drop(stream);
    door.cluster.shutdown().await;
}
