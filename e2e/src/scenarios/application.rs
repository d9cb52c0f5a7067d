//! The provider's program as a child of this process, and its HTTP API as a client sees it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::world::Agents;

/// How long the program may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running program. It ends with this value.
pub(super) struct Application {
    child: Child,
    address: String,
    token: String,
    folder: PathBuf,
    /// Answers so far.
    seen: String,
    /// What earlier programs on the folder have logged.
    log: String,
}

impl Application {
    /// Where the runner of agents lies in sandboxes.
    pub(super) const RUNNER: &str = "/workspace/.tools/agent-runner";

    /// Starts the program with its things in the folder, and all of its log there.
    pub(super) async fn start(agents: &Agents, folder: &Path) -> Result<Self> {
        let (program, first) = &agents.program;
        let log = File::create(folder.join("log")).context("no log")?;
        let mut command = Command::new(program);
        command.args(first).args(["--bind", "127.0.0.1:0", "--rate-limit", "0", "--agent-runner", Self::RUNNER]);
        command.arg("--data-dir").arg(folder).args(&agents.cluster).env("AGENT_SANDBOX_LOG", "trace");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let ready = async {
            let (mut lines, mut address) = (BufReader::new(stdout).lines(), None);
            while let Some(line) = lines.next_line().await? {
                address = address.or(line.strip_prefix("ready http://").map(str::to_owned));
                // Its last word; who stops listening before makes it fail.
                if let Some(address) = address.take_if(|_| line.starts_with("  try")) {
                    return Ok(address);
                }
            }
            bail!("the application ended: {}", fs::read_to_string(folder.join("log")).unwrap_or_default());
        };
        let address = tokio::time::timeout(PATIENCE, ready).await.context("the application is not ready")??;
        let token = fs::read_to_string(folder.join("token")).context("no token")?.trim().to_owned();
        Ok(Self { child, address, token, folder: folder.to_owned(), seen: String::new(), log: String::new() })
    }

    /// Kills the program, with no word to it, and starts it anew on what it has left.
    pub(super) async fn kill_and_start_again(&mut self, agents: &Agents) -> Result<()> {
        self.child.kill().await.context("it was killed already")?;
        let log = self.log.clone() + &fs::read_to_string(self.folder.join("log"))?;
        let seen = std::mem::take(&mut self.seen);
        *self = Self { seen, log, ..Self::start(agents, &self.folder.clone()).await? };
        Ok(())
    }

    /// Asks it to end and waits for that. The answer is all that it answered, and all that it logged.
    pub(super) async fn end(mut self) -> Result<(String, String)> {
        let id = self.child.id().context("it runs")?.to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().await.context("no kill")?;
        ensure!(told.success(), "it could not be told to end");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("it does not end")??;
        let log = self.log + &fs::read_to_string(self.folder.join("log"))?;
        ensure!(status.success(), "it ended with {status}");
        Ok((self.seen, log))
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Waits until sandboxes can be had.
    pub(super) async fn has_provider(&mut self, deadline: Duration) -> Result<()> {
        let waiting = async {
            loop {
                let found = self.get("/api/sandbox/provider").await?;
                if found["state"] == "ready" && found["choosing"] == false {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(ready) => ready,
            Err(_) => bail!("no sandboxes can be had: {}", self.get("/api/sandbox/provider").await?),
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Value> {
        self.call("GET", path, None).await
    }

    pub(super) async fn post(&mut self, path: &str, body: Value) -> Result<Value> {
        self.call("POST", path, Some(body)).await
    }

    pub(super) async fn put(&mut self, path: &str, body: Value) -> Result<Value> {
        self.call("PUT", path, Some(body)).await
    }

    pub(super) async fn patch(&mut self, path: &str, body: Value) -> Result<Value> {
        self.call("PATCH", path, Some(body)).await
    }

    /// The data of a good answer.
    async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let authorization = format!("Authorization: Bearer {}\r\n", self.token);
        let answer = self.ask(method, path, &authorization, body).await?;
        self.seen.push_str(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        let mut body: Value = serde_json::from_str(body).with_context(|| format!("{method} {path}: {answer}"))?;
        ensure!(body["ok"] == true, "{method} {path}: {}: {body}", head.lines().next().unwrap_or_default());
        Ok(body["data"].take())
    }

    /// The status of an answer to who has no credentials.
    pub(super) async fn status_without_token(&self, path: &str) -> Result<u16> {
        let answer = self.ask("GET", path, "", None).await?;
        let status = answer.split(' ').nth(1).context("a status")?;
        Ok(status.parse()?)
    }

    async fn ask(&self, method: &str, path: &str, headers: &str, body: Option<Value>) -> Result<String> {
        let mut stream = self.send(method, path, &format!("Connection: close\r\n{headers}"), body).await?;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        read.with_context(|| format!("{method} {path} is not answered"))??;
        Ok(String::from_utf8(answer)?)
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: Option<Value>) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).await.context("the application does not answer")?;
        let (host, body) = (&self.address, body.as_ref().map(Value::to_string).unwrap_or_default());
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all((head + &body).as_bytes()).await?;
        Ok(stream)
    }

    /// The stream of a session from that event on.
    pub(super) async fn events(&self, session: &str, offset: u64) -> Result<Events> {
        let path = format!("/api/sessions/{session}/stream?offset={offset}");
        let headers = format!("Authorization: Bearer {}\r\nAccept: text/event-stream\r\n", self.token);
        let stream = self.send("GET", &path, &headers, None).await?;
        Ok(Events { lines: BufReader::new(stream).lines(), seen: Vec::new() })
    }
}

/// Server-sent events as they come.
pub(super) struct Events {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
    seen: Vec<Value>,
}

impl Events {
    /// The next event of that type; those before it are passed over.
    pub(super) async fn until(&mut self, kind: &str, deadline: Duration) -> Result<Value> {
        let reading = async {
            // The chunks' lengths, and the events' ids, stand on lines of their own.
            while let Some(line) = self.lines.next_line().await? {
                let Some(data) = line.strip_prefix("data:") else { continue };
                let event: Value = serde_json::from_str(data.trim())?;
                if event["type"] == "connected" {
                    continue;
                }
                self.seen.push(event.clone());
                if event["type"] == kind {
                    return Ok(event);
                }
            }
            bail!("the stream has ended")
        };
        match tokio::time::timeout(deadline, reading).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(error)) => Err(error.context(format!("no {kind} after {}", self.text()))),
            Err(_) => bail!("no {kind} after {}", self.text()),
        }
    }

    /// The offsets of all events so far.
    pub(super) fn offsets(&self) -> Vec<u64> {
        self.seen.iter().filter_map(|event| event["offset"].as_u64()).collect()
    }

    /// All events so far.
    pub(super) fn text(&self) -> String {
        json!(self.seen).to_string()
    }
}
