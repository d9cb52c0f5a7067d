//! Runs one case through one door and tells where the answers differ from the recorded ones.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use fake_apiserver::cluster::Cluster;
use http::header;
use http_body_util::Full;

use crate::{
    case::{Case, Do, Step, Variables},
    compare::{Difference, differences, pointer, pointer_mut, reached, unescape},
    door::{Door, Kind, TOKEN, Watch},
    json::Json,
    normal::{Normaliser, text_of},
};

/// The differences of a case, by step.
pub(crate) type Outcome = BTreeMap<usize, Vec<Difference>>;

/// Real time after which a case hangs: on virtual time it takes well under a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a request may take if the step does not say.
const REQUEST_SECONDS: f64 = 60.0;
/// How long a wait waits if the step does not say.
const WAIT_SECONDS: f64 = 30.0;
/// How long events may take to come if the step does not say.
const EVENTS_SECONDS: f64 = 10.0;
/// Time between two tries of a wait.
const RETRY: Duration = Duration::from_millis(100);
/// Time between two looks at a watch.
const LOOK: Duration = Duration::from_millis(20);
/// Time in which an event too many has to show.
const TOO_MANY: Duration = Duration::from_millis(150);

/// Runs a case in a cluster of its own, on a thread of its own.
pub(crate) fn run(case: &Case, kind: Kind) -> Outcome {
    let (done, outcome) = mpsc::channel();
    let own = case.clone();
    let thread = thread::Builder::new()
        .name(case.id.clone())
        .spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(kind == Kind::Memory).build().expect("a runtime");
            // Nobody listens any more if patience ran out.
            drop(done.send(runtime.block_on(Run::all(&own, kind))));
        })
        .expect("a thread");
    match outcome.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => broken(case, 0, &format!("it did not end in {PATIENCE:?} of real time")),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().expect_err("it ended without an outcome");
            broken(case, 0, &format!("it panicked: {}", panic_text(panic.as_ref())))
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// All judged steps from one on fail.
fn broken(case: &Case, from: usize, why: &str) -> Outcome {
    let difference = Difference::new("/", &"the case to run".into(), &why.into());
    let judged = case.steps.iter().enumerate().skip(from).filter(|(_, step)| step.is_judged());
    judged.map(|(number, _)| (number, vec![difference.clone()])).collect()
}

struct Run<'a> {
    case: &'a Case,
    door: Door<'a>,
    variables: Variables,
    normal: Normaliser,
    /// Open watches, and how many of their events were taken.
    watches: BTreeMap<String, (Watch, usize)>,
}

impl<'a> Run<'a> {
    async fn all(case: &Case, kind: Kind) -> Outcome {
        // The other cases were recorded without Agent Sandbox.
        let sandbox = case.area == "agent-sandbox";
        let builder = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(sandbox).token(TOKEN);
        let cluster = match builder.start().await {
            Ok(cluster) => cluster,
            Err(status) => return broken(case, 0, &format!("the cluster did not start: {status:?}")),
        };
        let outcome = match Door::open(&cluster, kind).await {
            Ok(door) => Run::new(case, door).judge().await,
            Err(error) => broken(case, 0, &format!("the door did not open: {error:#}")),
        };
        cluster.shutdown().await;
        outcome
    }

    fn new(case: &'a Case, door: Door<'a>) -> Self {
        let variables = Variables::new(&case.id, door.clock().clone());
        let normal = Normaliser::new(vec![(variables.ns.clone(), "ns".into()), (variables.id.clone(), "id".into())]);
        Self { case, door, variables, normal, watches: BTreeMap::new() }
    }

    async fn judge(mut self) -> Outcome {
        let mut outcome = match self.prepare().await {
            Ok(()) => self.steps().await,
            Err(error) => broken(self.case, 0, &format!("setup: {error:#}")),
        };
        self.watches.clear();
        if let Err(error) = self.clear_up().await {
            for (step, found) in broken(self.case, 0, &format!("teardown: {error:#}")) {
                outcome.entry(step).or_default().extend(found);
            }
        }
        outcome
    }

    async fn prepare(&mut self) -> anyhow::Result<()> {
        let namespace = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"{ns}"}}"#;
        let step = Step {
            method: Some("POST".into()),
            path: "/api/v1/namespaces".into(),
            body: serde_json::from_str(namespace)?,
            ..Step::default()
        };
        self.step(&step).await?;
        for (number, step) in self.case.setup.iter().enumerate() {
            self.step(step).await.with_context(|| format!("step {number}"))?;
        }
        Ok(())
    }

    async fn clear_up(&mut self) -> anyhow::Result<()> {
        for step in &self.case.teardown {
            self.step(step).await?;
        }
        let path = "/api/v1/namespaces/{ns}".into();
        self.step(&Step { method: Some("DELETE".into()), path, ..Step::default() }).await?;
        Ok(())
    }

    async fn steps(&mut self) -> Outcome {
        let mut outcome = Outcome::new();
        for (number, step) in self.case.steps.iter().enumerate() {
            let answer = match self.step(step).await {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(error) => {
                    outcome.extend(broken(self.case, number, &format!("{error:#}")));
                    break;
                }
            };
            // Also of an answer that nobody compares the values take up marks.
            let answer = self.seen(step, answer);
            if step.quiet {
                continue;
            }
            let ignore = step.ignore.iter().chain(&self.case.ignore).map(String::as_str).collect::<BTreeSet<_>>();
            let found = differences(step.expect.as_ref().unwrap_or(&Json::Null), &answer, &ignore);
            if !found.is_empty() {
                outcome.insert(number, found);
            }
        }
        outcome
    }

    /// Does one step; the answer to compare, or none.
    async fn step(&mut self, step: &Step) -> anyhow::Result<Option<Json>> {
        match step.what {
            Do::Request => {
                let answer = self.request(step).await?;
                self.keep(step, &answer);
                Ok(Some(answer))
            }
            Do::Wait => self.wait(step).await.map(Some),
            Do::Watch => {
                let request = self.http(step)?;
                let limit = seconds(REQUEST_SECONDS);
                let opened = self.door.clock().timeout(limit, self.door.watch(request)).await;
                let watch = opened.ok_or_else(|| anyhow!("a watch without an answer after {limit:?}"))??;
                let status = Json::Number(watch.status.as_u16().into());
                self.watches.insert(step.id.clone(), (watch, 0));
                Ok(Some(Json::Map(vec![("status".into(), status)])))
            }
            Do::Events => self.events(step).await.map(Some),
            Do::Stop => {
                self.watches.remove(&step.id).ok_or_else(|| anyhow!("no watch {:?}", step.id))?;
                Ok(None)
            }
            Do::Sleep => {
                self.door.pass(seconds(step.seconds)).await;
                Ok(None)
            }
        }
    }

    /// Asks again until the answer is as asked, or time runs out.
    async fn wait(&mut self, step: &Step) -> anyhow::Result<Json> {
        let start = self.door.clock().now();
        let limit = seconds(step.timeout_seconds.unwrap_or(WAIT_SECONDS));
        let status = Json::Number(step.status.unwrap_or(200).into());
        loop {
            let mut answer = self.request(step).await?;
            let body = answer.get("body").unwrap_or(&Json::Null);
            let good = answer.get("status") == Some(&status)
                && step
                    .until
                    .iter()
                    .all(|(path, value)| reached(body, &self.variables.fill(path), &self.variables.fill_json(value)));
            let passed = Duration::try_from(self.door.clock().now().duration_since(start)).unwrap_or_default();
            if good || passed > limit {
                if !good {
                    answer.set("timedOut", Json::Bool(true));
                }
                self.keep(step, &answer);
                return Ok(answer);
            }
            self.door.pass(RETRY).await;
        }
    }

    /// The next events of a watch: as many as asked for, and what comes right after them.
    async fn events(&mut self, step: &Step) -> anyhow::Result<Json> {
        let start = self.door.clock().now();
        let limit = seconds(step.timeout_seconds.unwrap_or(EVENTS_SECONDS));
        let Some((watch, taken)) = self.watches.get_mut(&step.id) else { bail!("no watch {:?}", step.id) };
        while watch.events(*taken).len() < step.count && !watch.has_ended() {
            if Duration::try_from(self.door.clock().now().duration_since(start)).unwrap_or_default() > limit {
                break;
            }
            self.door.pass(LOOK).await;
        }
        self.door.pass(TOO_MANY).await;
        let mut events = watch.events(*taken);
        *taken += events.len();
        // Of bookmarks only the one that ends the initial events is sure to come; it alone has annotations.
        events.retain(|event| {
            let annotations = pointer(event, "/object/metadata/annotations");
            event.get("type").and_then(Json::as_str) != Some("BOOKMARK")
                || (step.bookmarks && annotations.is_some_and(Json::is_truthy))
        });
        Ok(Json::Map(vec![("events".into(), Json::List(events))]))
    }

    /// Sends a step's request: its status, media type, body and warnings.
    async fn request(&mut self, step: &Step) -> anyhow::Result<Json> {
        let request = self.http(step)?;
        let limit = seconds(step.timeout_seconds.unwrap_or(REQUEST_SECONDS));
        let clock = self.door.clock().clone();
        let response = clock.timeout(limit, self.door.send(request)).await;
        let response = response.ok_or_else(|| anyhow!("no answer after {limit:?}"))??;
        let kind = response.head.headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("?"));
        let body = match serde_json::from_slice(&response.body) {
            Ok(body) => body,
            Err(_) if response.body.is_empty() => Json::Null,
            Err(_) => Json::Text(String::from_utf8_lossy(&response.body).into_owned()),
        };
        let mut answer = vec![
            ("status".into(), Json::Number(response.head.status.as_u16().into())),
            ("type".into(), kind.split(';').next().unwrap_or_default().into()),
            ("body".into(), body),
        ];
        let warnings = response.head.headers.get_all(header::WARNING);
        let warnings: Vec<Json> =
            warnings.iter().map(|value| Json::Text(String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
        if !warnings.is_empty() {
            answer.push(("warning".into(), Json::List(warnings)));
        }
        Ok(Json::Map(answer))
    }

    /// A step's request as it goes out.
    fn http(&self, step: &Step) -> anyhow::Result<http::Request<Full<Bytes>>> {
        let path = self.variables.fill(&step.path);
        let method = step.method.as_deref().unwrap_or("GET");
        let mut headers = BTreeMap::from([
            ("host".into(), "kubernetes.default.svc".into()),
            ("user-agent".into(), "conformance".into()),
            ("accept".into(), "application/json".into()),
            ("authorization".into(), format!("Bearer {TOKEN}")),
        ]);
        let body = match self.variables.fill_json(&step.body) {
            Json::Null => None,
            Json::Text(text) => Some(text),
            body @ (Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Map(_)) => {
                headers.insert("content-type".into(), "application/json".into());
                Some(body.to_string())
            }
        };
        for (name, value) in step.headers.entries() {
            match value.as_str() {
                Some(value) => headers.insert(name.to_lowercase(), value.into()),
                None => headers.remove(&name.to_lowercase()),
            };
        }
        let mut request = http::Request::builder().method(method).uri(&path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        request.body(body).with_context(|| format!("{method} {path}"))
    }

    /// Keeps the values that a step saves or names.
    fn keep(&mut self, step: &Step, answer: &Json) {
        let body = answer.get("body").unwrap_or(&Json::Null);
        let value = |path: &Json| path.as_str().and_then(|path| pointer(body, path)).unwrap_or(&Json::Null);
        for (word, path) in step.save.entries() {
            self.variables.keep(word, text_of(value(path)));
        }
        for (word, path) in step.name.entries() {
            let value = value(path);
            self.variables.keep(word, text_of(value));
            if *value != Json::Null {
                self.normal.name(word, &text_of(value));
            }
        }
    }

    /// The normalised answer. Of a step with `only` nothing but those pointers takes up marks.
    fn seen(&mut self, step: &Step, mut answer: Json) -> Json {
        let mut seen = if step.only.is_empty() {
            self.normal.walk(&answer, "", None)
        } else {
            let body = answer.remove("body").unwrap_or_default();
            let mut picked = Json::Map(Vec::new());
            for path in &step.only {
                let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
                let value = pointer(&body, path).unwrap_or(&Json::Null);
                let value = self.normal.walk(value, &unescape(last), pointer(&body, parent));
                picked.set(path, value);
            }
            let mut seen = self.normal.walk(&answer, "", None);
            seen.set("body", picked);
            seen
        };
        for path in &step.unordered {
            let body = seen.get_mut("body");
            let list =
                body.and_then(|body| if step.only.is_empty() { pointer_mut(body, path) } else { body.get_mut(path) });
            if let Some(Json::List(items)) = list {
                items.sort_by_cached_key(Json::sort_key);
            }
        }
        seen
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
