//! Requests that nobody would send: recorded ones, broken in drawn ways. Each gets an answer in time, and the server goes on.
//!
//! `FUZZ_CASES=20000 cargo test -p fake-apiserver --test it fuzz` draws more than the few of a usual run, and `FUZZ_SEED=2`
//! others. A request that ends the process (a stack that overflows) stands in the file that `FUZZ_TRACE` names.

use std::{
    fs,
    path::Path,
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use fake_apiserver::cluster::Cluster;
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long one request may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is broken: a recorded request, or a body as Go's protobuf serializer writes it.
#[derive(Clone, Debug)]
struct Seed {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn fixtures(folder: &str, extension: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder);
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|one| one == extension));
    found.sort();
    assert!(!found.is_empty(), "there are {extension} fixtures");
    found
}

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let mut seeds = Vec::new();
    for path in fixtures("conformance", "json") {
        let case: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let steps = ["setup", "steps", "teardown"].iter().filter_map(|part| case[part].as_array()).flatten();
        for step in steps.filter(|step| step["method"].is_string()) {
            let body = match &step["body"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            let filled = |text: &str| text.replace("{ns}", "default").replace("{id}", "fuzz");
            let headers = step["headers"].as_object().into_iter().flatten();
            let mut headers: Vec<_> =
                headers.map(|(key, value)| (key.clone(), filled(value.as_str().unwrap_or_default()))).collect();
            if !headers.iter().any(|(key, _)| key.eq_ignore_ascii_case("content-type")) && !body.is_empty() {
                headers.push(("Content-Type".into(), "application/json".into()));
            }
            seeds.push(Seed {
                method: step["method"].as_str().unwrap().into(),
                path: filled(step["path"].as_str().unwrap()),
                headers,
                body: filled(&body).into_bytes(),
            });
        }
    }
    for path in fixtures("protobuf", "pb") {
        seeds.push(Seed {
            method: "POST".into(),
            path: "/api/v1/namespaces/default/pods".into(),
            headers: vec![("Content-Type".into(), "application/vnd.kubernetes.protobuf".into())],
            body: fs::read(path).unwrap(),
        });
    }
    seeds
});

/// One way to break a request.
#[derive(Clone, Debug)]
enum Break {
    /// Another value somewhere in the body.
    Value(Index, Value),
    /// Something of the body is gone.
    Remove(Index),
    /// Another name for a member of the body.
    Rename(Index, String),
    /// An expression, wherever the body has one.
    Expression(Index, String),
    /// Other bytes at a place of the body.
    Bytes(Index, Vec<u8>),
    /// The body ends early.
    Cut(Index),
    /// The body of another request.
    Body(Index),
    /// A word more in the query.
    Query(&'static str, String),
    /// Another part of the path.
    Segment(Index, String),
    /// Another header.
    Header(&'static str, String),
    /// Another method.
    Method(&'static str),
    /// The body many times over, in a list.
    Many(u16),
}

fn nested(levels: usize, open: &str, close: &str) -> String {
    format!("{}{}", open.repeat(levels), close.repeat(levels))
}

/// Texts that mean something to somebody who parses.
fn text() -> impl Strategy<Value = String> {
    let known = [
        "",
        " ",
        "0",
        "-1",
        "1e308",
        "-1e-400",
        "9223372036854775808",
        "99999999999999999999Ei",
        "1.5m",
        "-0",
        "0x10",
        "1e1000000000",
        "0.0000000000000000000000000000001n",
        "a in (b,c",
        "a notin (),b",
        "!a,=b",
        "a==,b!=",
        "metadata.name=x\\,y",
        "/",
        "..",
        "%",
        "%zz",
        "%00",
        "a/b/c",
        "*",
        "nil",
        "true",
        "null",
        "~",
        "{}",
        "[",
        "&a [*a]",
        "!!binary x",
        "---",
        "a: b: c",
        "$(X)",
        "${x}",
        "2026-13-45T99:99:99Z",
        "-1h",
        "9999999h",
        "* * * * 60",
        "@every 1ns",
        "((a+)+)+$",
        "[[:foo:]]",
        "\u{0}",
        "\u{fffd}",
        "\u{1f4a5}",
        "\u{202e}",
        "ﬀ",
        "v1",
        "v1beta99",
        "apps/v1/x",
        "system:masters",
        "k8s\u{0}",
        "eyJydiI6MX0",
        "=",
        ">",
        "1%",
        "-5%",
        "0777",
        "::1",
        "256.1.1.1",
        "10.0.0.0/99",
        "a.b",
        ".spec.x",
        "[0]",
        "['a']",
        "{.a[?(@.b)]}",
        "self.metadata.name",
    ];
    prop_oneof![
        8 => select(known.map(str::to_owned).to_vec()),
        2 => any::<String>(),
        1 => (1_usize..3000, select(vec!["a", "(", "[", "\"", "a.", "a,", "%25", "{\"a\":", "1+"])).prop_map(|(n, part)| part.repeat(n)),
        1 => expression(),
    ]
}

/// CEL, right and wrong.
fn expression() -> impl Strategy<Value = String> {
    let leaves = [
        "self",
        "oldSelf",
        "object",
        "oldObject",
        "request",
        "params",
        "variables.x",
        "self.spec",
        "self.spec.a",
        "1",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615u",
        "0.0",
        "1e308",
        "'a'",
        "b'\\xff'",
        "true",
        "null",
        "[]",
        "{}",
        "[1, 2, 3]",
        "{'a': 1}",
        "{'a': [1, 'x']}",
        "duration('1h')",
        "timestamp('2026-01-01T00:00:00Z')",
        "x",
        "type(1)",
        "int",
        "optional.none()",
        "object.metadata",
        "object.data",
        "object.spec.template",
        "dyn(1)",
        "'\\u00e4'",
        "r'\\d'",
        "authorizer",
    ];
    let leaf =
        prop_oneof![8 => select(leaves.map(str::to_owned).to_vec()), 1 => "[a-z\\[\\](){}'\".,?:+*/&|!<>=0-9 ]{0,12}"];
    leaf.prop_recursive(6, 48, 3, |inner| {
        let operators = ["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"];
        let calls = [
            "size", "string", "int", "uint", "double", "bytes", "duration", "timestamp", "quantity", "ip", "cidr", "url", "semver", "dyn",
            "has", "lowerAscii", "trim", "sum", "isSorted", "min", "max", "flatten", "charAt", "split", "join", "substring", "replace",
            "indexOf", "reverse", "matches", "find", "findAll", "format", "contains", "startsWith", "isQuantity", "getHost", "orValue",
            "hasValue", "sets.contains", "math.greatest", "base64.decode", "strings.quote", "format.dns1123Label", "validate",
        ];
        let macros = ["all", "exists", "exists_one", "map", "filter", "transformList", "transformMap"];
        prop_oneof![
            4 => (inner.clone(), select(operators.to_vec()), inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            3 => (inner.clone(), select(calls.to_vec()), prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(on, name, args)| format!("({on}).{name}({})", args.join(", "))),
            2 => (select(calls.to_vec()), prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(name, args)| format!("{name}({})", args.join(", "))),
            3 => (inner.clone(), select(macros.to_vec()), inner.clone()).prop_map(|(on, name, body)| format!("({on}).{name}(x, {body})")),
            1 => (inner.clone(), select(macros.to_vec()), inner.clone())
                .prop_map(|(on, name, body)| format!("({on}).{name}(x, y, {body})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => (inner.clone(), 1_usize..400).prop_map(|(a, n)| nested(n, "(", ")").replacen("()", &format!("({a})"), 1)),
            1 => (inner.clone(), 1_usize..200).prop_map(|(a, n)| vec![a; n.min(200)].join(" + ")),
            1 => (select(vec!["!", "-", "[", "{'a': "]), inner, 1_usize..300).prop_map(|(op, a, n)| format!("{}{a}", op.repeat(n))),
        ]
    })
}

fn value() -> impl Strategy<Value = Value> {
    let deep = |levels: usize| {
        (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
    };
    prop_oneof![
        4 => text().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        3 => select(vec![json!(null), json!(true), json!(false), json!(0), json!(-1), json!([]), json!({}), json!([null]), json!({"": ""}),
            json!({"$patch": "delete"}), json!({"$retainKeys": ["a"]}), json!([{"$patch": "replace"}]), json!({"name": null}),
            json!({"$deleteFromPrimitiveList/finalizers": ["x"]}), json!({"$setElementOrder/containers": [{"name": "x"}]}),
            json!([{"op": "copy", "from": "", "path": "/a"}]), json!({"f:metadata": {"f:labels": {"k:{\"": {}, "v:": {}, "i:99": {}}}}),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), json!({"not": {"not": {"anyOf": [{}]}}})]),
        1 => (1_usize..300).prop_map(deep),
        1 => (1_usize..3000).prop_map(|n| json!(vec!["x"; n])),
        1 => (1_usize..2000).prop_map(|n| (0..n).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()),
    ]
}

fn breaks() -> impl Strategy<Value = Break> {
    const KEYS: [&str; 20] = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "watch",
        "timeoutSeconds",
        "sendInitialEvents",
        "allowWatchBookmarks",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "propagationPolicy",
        "gracePeriodSeconds",
        "includeObject",
        "pretty",
        "command",
        "tailLines",
    ];
    const TYPES: [&str; 8] = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/*;q=2",
    ];
    const HEADERS: [&str; 6] =
        ["Accept", "Content-Type", "Impersonate-User", "Impersonate-Extra-%zz", "Accept-Encoding", "User-Agent"];
    let index = any::<Index>;
    prop_oneof![
        6 => (index(), value()).prop_map(|(at, value)| Break::Value(at, value)),
        2 => index().prop_map(Break::Remove),
        1 => (index(), text()).prop_map(|(at, name)| Break::Rename(at, name)),
        3 => (index(), expression()).prop_map(|(at, source)| Break::Expression(at, source)),
        2 => (index(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(at, bytes)| Break::Bytes(at, bytes)),
        1 => (index(), select(vec!["{", "}", "[", "]", "\"", ":", ",", "\\u", "- ", "\n", "*", "&a ", "1e9", "\t", "#", "|"]))
            .prop_map(|(at, token)| Break::Bytes(at, token.into())),
        1 => index().prop_map(Break::Cut),
        1 => index().prop_map(Break::Body),
        2 => (select(KEYS.to_vec()), text()).prop_map(|(key, value)| Break::Query(key, value)),
        1 => (index(), text()).prop_map(|(at, part)| Break::Segment(at, part)),
        2 => select(TYPES.to_vec()).prop_map(|kind| Break::Header("Content-Type", kind.to_owned())),
        1 => (select(HEADERS.to_vec()), text()).prop_map(|(key, value)| Break::Header(key, value)),
        1 => select(vec!["GET", "POST", "PUT", "PATCH", "DELETE"]).prop_map(Break::Method),
        1 => (1_u16..2000).prop_map(Break::Many),
    ]
}

/// How many values stand in a value, itself counted.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at a place, in the order of the text.
fn at(value: &mut Value, place: usize) -> &mut Value {
    if place == 0 {
        return value;
    }
    let mut left = place - 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(members) => members.values_mut().collect(),
        _ => unreachable!("the place is within the value"),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return at(child, left);
        }
        left -= size;
    }
    unreachable!("the place is within the value")
}

/// Every text of the body that is an expression.
fn expressions<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| expressions(item, found)),
        Value::Object(members) => {
            for (key, member) in members {
                match key.as_str() {
                    "rule" | "expression" | "messageExpression" | "valueExpression" => found.push(member),
                    _ => expressions(member, found),
                }
            }
        }
        _ => {}
    }
}

impl Seed {
    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        if let Ok(mut value) = serde_json::from_slice(&self.body) {
            change(&mut value);
            self.body = value.to_string().into_bytes();
        }
    }

    fn broken(mut self, breaks: &[Break]) -> Self {
        for one in breaks {
            match one {
                Break::Value(index, other) => self.edit(|value| {
                    let place = index.index(count(value));
                    *at(value, place) = other.clone();
                }),
                Break::Remove(index) => self.edit(|value| {
                    let place = index.index(count(value));
                    match at(value, place) {
                        Value::Array(items) => drop(items.pop()),
                        Value::Object(members) => {
                            let key = members.keys().nth(index.index(members.len().max(1))).cloned();
                            key.map(|key| members.remove(&key));
                        }
                        other => *other = Value::Null,
                    }
                }),
                Break::Rename(index, name) => self.edit(|value| {
                    let place = index.index(count(value));
                    if let Value::Object(members) = at(value, place)
                        && let Some(key) = members.keys().next().cloned()
                        && let Some(member) = members.remove(&key)
                    {
                        members.insert(name.clone(), member);
                    }
                }),
                Break::Expression(index, source) => self.edit(|value| {
                    let mut found = Vec::new();
                    expressions(value, &mut found);
                    if !found.is_empty() {
                        *found.swap_remove(index.index(found.len())) = source.as_str().into();
                    }
                }),
                Break::Bytes(index, bytes) => {
                    let place = index.index(self.body.len() + 1);
                    let end = (place + bytes.len() / 2).min(self.body.len());
                    self.body.splice(place..end, bytes.iter().copied());
                }
                Break::Cut(index) => self.body.truncate(index.index(self.body.len() + 1)),
                Break::Body(index) => self.body = index.get(&SEEDS).body.clone(),
                Break::Query(key, value) => {
                    let mark = if self.path.contains('?') { '&' } else { '?' };
                    self.path.push_str(&format!("{mark}{key}={}", encoded(value)));
                }
                Break::Segment(index, part) => {
                    let mut parts: Vec<_> = self.path.split('/').map(str::to_owned).collect();
                    let place = index.index(parts.len());
                    parts[place] = encoded(part);
                    self.path = parts.join("/");
                }
                Break::Header(key, value) => {
                    self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(key));
                    let value = value.chars().filter(|c| !c.is_control()).take(1000).collect();
                    self.headers.push(((*key).to_owned(), value));
                }
                Break::Method(method) => self.method = (*method).to_owned(),
                Break::Many(times) => {
                    let times = usize::from(*times).min(2_000_000 / self.body.len().max(1));
                    let body = vec![String::from_utf8_lossy(&self.body).into_owned(); times];
                    self.body = format!("[{}]", body.join(",")).into_bytes();
                }
            }
        }
        // The line of a request is words between spaces, and a head that is too long is refused before anything is read.
        self.path = self.path.chars().filter(|c| !c.is_control() && *c != ' ').take(6000).collect();
        if !self.path.starts_with('/') {
            self.path.insert(0, '/');
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", self.method, self.path);
        for (key, value) in &self.headers {
            head.push_str(&format!("{key}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        [head.into_bytes(), self.body.clone()].concat()
    }
}

fn encoded(text: &str) -> String {
    // what is a percent sign already stays one, so that wrong escapes come through
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_graphic() && !b"#".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}

/// The whole answer to what is sent on a connection of its own.
async fn exchange(cluster: &Cluster, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(cluster.connect());
    let mut answer = Vec::new();
    let send = async {
        let _ = writer.write_all(bytes).await; // the server may answer before it has read all
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = send => {}
    }
    answer
}

fn judge(request: &Seed, answer: &[u8]) -> Result<(), TestCaseError> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return Err(TestCaseError::fail(format!("no answer: {:?}", String::from_utf8_lossy(answer))));
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let code: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    prop_assert!((200..600).contains(&code), "{head}");
    let text = String::from_utf8_lossy(&answer[end + 4..]);
    prop_assert!(!text.contains("panicked"), "{text}");
    let is_json = head.contains("content-type: application/json") && !head.contains("transfer-encoding: chunked");
    if code >= 400 && is_json && request.method != "HEAD" {
        let status: Value = serde_json::from_slice(&answer[end + 4..]).unwrap_or_default();
        prop_assert!(status["kind"] == "Status" || status["status"].is_object(), "{head}\n{text}");
        prop_assert!(status["code"] == code || status["status"].is_object(), "{head}\n{text}");
    }
    Ok(())
}

/// Ends the program where a request takes longer than any may; a loop would otherwise go on for ever.
struct Watchdog(mpsc::Sender<Option<String>>);

impl Watchdog {
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel::<Option<String>>();
        thread::spawn(move || {
            while let Ok(Some(request)) = receiver.recv() {
                match receiver.recv_timeout(LIMIT) {
                    Ok(_) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        eprintln!("no answer in {LIMIT:?} to\n{request}");
                        std::process::abort();
                    }
                }
            }
        });
        Self(sender)
    }

    fn watch<T>(&self, request: String, call: impl FnOnce() -> T) -> T {
        self.0.send(Some(request)).unwrap();
        let result = call();
        self.0.send(None).unwrap();
        result
    }
}

#[test]
fn whatever_is_sent_is_answered_in_time_and_the_server_goes_on() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (cases, seed) = (number("FUZZ_CASES").unwrap_or(300), number("FUZZ_SEED").unwrap_or(1));
    let config = Config {
        cases: u32::try_from(cases).expect("so many cases are never drawn"),
        failure_persistence: None,
        max_shrink_iters: 200,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let cluster = runtime.block_on(Cluster::builder().kubelet(false).sandbox_controllers(false).start()).unwrap();
    let (watchdog, trace) = (Watchdog::start(), std::env::var("FUZZ_TRACE").ok());
    let drawn = (any::<Index>(), prop::collection::vec(breaks(), 1..5));
    let result = TestRunner::new(config).run(&drawn, |(index, breaks)| {
        let request = index.get(&SEEDS).clone().broken(&breaks);
        let bytes = request.bytes();
        if let Some(file) = &trace {
            fs::write(file, &bytes).unwrap();
        }
        let shown = String::from_utf8_lossy(&bytes).chars().take(4000).collect();
        let answer = watchdog.watch(shown, || runtime.block_on(exchange(&cluster, &bytes)));
        judge(&request, &answer)
    });
    if let Err(failure) = result {
        panic!("FUZZ_CASES={cases} FUZZ_SEED={seed}: {failure}");
    }
    let health = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(runtime.block_on(exchange(&cluster, health)).starts_with(b"HTTP/1.1 200"));
    runtime.block_on(cluster.shutdown());
}
