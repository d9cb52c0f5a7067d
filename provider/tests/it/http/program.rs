//! The program, over a real port.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// The longest that anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A secret that agents would get.
const KEY: &str = "sk-ant-a-key-that-nobody-may-see-0123456789";

struct Program {
    child: Child,
    address: String,
    token: String,
    /// What it printed when it was ready.
    said: String,
    log: PathBuf,
}

fn program(folder: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-sandbox-provider"));
    command.args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(folder).args(flags);
    command.env("AGENT_SANDBOX_LOG", "trace").env("HOME", folder).env_remove("KUBECONFIG").env_remove("K8S_KUBECONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Program {
    /// With the folder as its home, too.
    async fn start(folder: &Path) -> Self {
        let log = folder.join("log");
        // To a file: whoever is slow to read a pipe holds up the program.
        let mut child = program(folder, &[]).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut said, mut address) = (String::new(), None);
        while !said.contains("\n  try ") {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it gets ready").unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended after {said}"));
            if let Some(url) = line.strip_prefix("ready http://") {
                address = Some(url.to_owned());
            }
            said.push_str(&line);
            said.push('\n');
        }
        let token = fs::read_to_string(folder.join("token")).unwrap().trim().to_owned();
        Self { child, address: address.expect("it says where"), token, said, log }
    }

    /// Head and body of an answer, as they come over the wire.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value, String) {
        let (host, length) = (&self.address, body.len());
        let answer = self
            .raw(&format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_default(), answer)
    }

    /// Tells it to end, and gives what it left on stderr.
    async fn end(mut self) -> String {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_program_serves_all_of_it_tells_no_secret_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Program::start(folder.path()).await;
    let token = first.token.clone();
    assert!(!first.said.contains(&token), "it says where the token is, not what");
    assert!(first.said.contains(&format!("{}", folder.path().join("token").display())), "{}", first.said);
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("token"), mode("kubeconfig")), (0o600, 0o600));

    let mut seen = Vec::new();
    let (status, provider, answer) = first.ask("GET", "/api/sandbox/provider", &token, "").await;
    assert_eq!((status, &provider["data"]["state"]), (200, &json!("ready")), "{answer}");
    seen.push(answer);
    let (status, made, answer) = first.ask("POST", "/api/projects", &token, r#"{"name": "p"}"#).await;
    assert_eq!(status, 201, "{answer}");
    let project = made["data"]["id"].as_str().unwrap().to_owned();
    let (status, _, answer) =
        first.ask("PUT", "/api/api-keys/anthropic", &token, &json!({"value": KEY}).to_string()).await;
    assert_eq!(status, 200, "{answer}");
    seen.push(answer);
    let body = json!({"projectId": project}).to_string();
    let (status, sandbox, answer) = first.ask("POST", "/api/sandboxes", &token, &body).await;
    assert_eq!(status, 201, "{answer}");
    seen.push(answer);
    // What is wrong with a request is said without saying it again.
    for (method, path, token, body) in [
        ("GET", "/api/settings", "a-token-that-is-wrong-0123456789", String::new()),
        ("PUT", "/api/api-keys/anthropic", token.as_str(), format!("{{\"value\": \"{KEY}")),
        ("PUT", "/api/api-keys/anthropic", token.as_str(), json!({"value": format!("{KEY} {KEY}")}).to_string()),
        ("PUT", "/api/api-keys/anthropic", token.as_str(), json!({"value": [KEY]}).to_string()),
        ("GET", &format!("/api/sandbox/status/{project}"), token.as_str(), String::new()),
        ("GET", "/metrics", token.as_str(), String::new()),
    ] {
        seen.push(first.ask(method, path, token, &body).await.2);
    }
    let host = &first.address;
    let (form, length) = (format!("token={token}"), token.len() + 6);
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
    );
    let answer = first.raw(&login).await;
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    let cookie = answer.split("agentpane_session=").nth(1).unwrap().split(';').next().unwrap().to_owned();

    match Command::new("kubectl")
        .args(["get", "sandboxes", "-o", "name"])
        .env("KUBECONFIG", folder.path().join("kubeconfig"))
        .output()
        .await
    {
        Ok(shown) => {
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let name = sandbox["data"]["containerId"].as_str().unwrap();
            assert!(shown.contains(name), "kubectl shows {shown}, not {name}");
        }
        Err(_) => eprintln!("skipped: kubectl is not installed"),
    }

    let second = program(folder.path(), &[]).output().await.unwrap();
    assert_eq!(second.status.code(), Some(2));
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("agent-sandbox-provider: the store") && message.contains("another process"), "{message}");

    let said = first.said.clone();
    let log = first.end().await;
    assert!(log.contains("request") && log.contains("/api/projects"), "the log is there");
    seen.extend([said, log]);

    // A cluster of its own, as the settings will name it.
    let cluster = fake_apiserver::Cluster::builder().system_time().start().await.unwrap();
    let door = cluster.serve_https(([127, 0, 0, 1], 0).into()).await.unwrap();
    fs::create_dir(folder.path().join(".kube")).unwrap();
    fs::write(folder.path().join(".kube/config"), door.render()).unwrap();

    let again = Program::start(folder.path()).await;
    assert_eq!(again.token, token);
    let (status, found, answer) = again.ask("GET", &format!("/api/projects/{project}"), &token, "").await;
    assert_eq!((status, &found["data"]["name"]), (200, &json!("p")), "{answer}");
    let settings = json!({"settings": {"sandbox.kubernetes": {"kubeConfigPath": "~/.kube/config"}}}).to_string();
    assert_eq!(again.ask("PUT", "/api/settings", &token, &settings).await.0, 200);
    let chosen =
        async { while again.ask("GET", "/api/sandbox/provider", &token, "").await.1["data"]["choosing"] != false {} };
    tokio::time::timeout(PATIENCE, chosen).await.expect("it is settled");
    let (status, asked, answer) = again.ask("GET", "/api/sandbox/k8s/status", &token, "").await;
    assert_eq!((status, asked["data"]["server"].as_str()), (200, Some(door.server.as_str())), "{answer}");
    let (status, made, answer) = again.ask("POST", "/api/sandboxes", &token, &body).await;
    assert_eq!(status, 201, "{answer}");
    let name = made["data"]["containerId"].as_str().unwrap();
    assert!(cluster.dump().await.contains(name), "it is on the cluster that the settings name");
    cluster.shutdown().await;
    seen.push(again.end().await);
    for text in &seen {
        for (what, secret) in [("token", &token), ("key", &KEY.to_owned()), ("cookie", &cookie)] {
            let at = text.find(secret.as_str());
            assert!(at.is_none(), "the {what} is told: {}", &text[at.unwrap().saturating_sub(300)..at.unwrap()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let short = folder.path().join("short");
    fs::write(&short, "short").unwrap();
    for (flags, wanted) in [
        (vec!["--bind", "0.0.0.0:0"], "--allow-remote"),
        (vec!["--bind", "somewhere"], "invalid value 'somewhere'"),
        (vec!["--token-file", short.to_str().unwrap()], "less than 20 letters"),
        (vec!["--data-dir", "/dev/null/here"], "cannot make the data folder /dev/null/here"),
        (vec!["--bind", &taken], "cannot listen on"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-sandbox-provider"));
        if !flags.contains(&"--data-dir") {
            command.arg("--data-dir").arg(folder.path());
        }
        let ended = tokio::time::timeout(PATIENCE, command.args(&flags).output()).await.expect("it ends").unwrap();
        let message = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {message}");
        assert!(message.contains(wanted), "{flags:?}: {message}");
    }
}
