//! A Docker Engine as far as the provider uses one: containers are records, and the commands in them are programs of this
//! machine, in the folder that is bound to `/workspace`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::Command,
    sync::{broadcast, watch},
    task::JoinHandle,
};

/// Images whose names begin so are nowhere.
pub(crate) const NOWHERE: &str = "registry.invalid/";

struct Container {
    name: String,
    body: Value,
    state: &'static str,
    started: Option<String>,
    created: i64,
    /// Says to its commands that it has stopped.
    stopped: watch::Sender<bool>,
}

struct Exec {
    container: String,
    body: Value,
    code: Option<i32>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<String, Exec>,
    images: BTreeSet<String>,
    runtimes: Vec<&'static str>,
    serial: u64,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<String>,
    folder: PathBuf,
}

/// An engine that listens on a socket of its own.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        for container in self.shared.lock().containers.values() {
            container.stopped.send_replace(true);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn tell(&self, id: &str, action: &str) {
        let event = json!({"Type": "container", "Action": action, "Actor": {"ID": id}, "time": 0});
        // Nobody need listen.
        let _ = self.events.send(event.to_string());
    }
}

impl Engine {
    pub(crate) fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let state = State { images: ["busybox:1.36".to_owned()].into(), runtimes: vec!["runc"], ..State::default() };
        let shared =
            Shared { state: Mutex::new(state), events: broadcast::Sender::new(1024), folder: folder.path().to_owned() };
        let engine = Self { shared: Arc::new(shared), folder, listening: Mutex::default() };
        engine.listen()?;
        Ok(engine)
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    /// Listens, again after [`stop`](Self::stop).
    pub(crate) fn listen(&self) -> io::Result<()> {
        let socket = self.folder.path().join("docker.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket)?;
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(shared.clone(), stream));
            }
        });
        *self.listening.lock().expect("no panic under this lock") = Some(task);
        Ok(())
    }

    /// Cuts all connections and takes no more.
    pub(crate) fn stop(&self) {
        if let Some(task) = self.listening.lock().expect("no panic under this lock").take() {
            task.abort();
        }
    }

    pub(crate) fn add_runtime(&self, name: &'static str) {
        self.shared.lock().runtimes.push(name);
    }

    /// What the containers were made from, by name.
    pub(crate) fn containers(&self) -> BTreeMap<String, Value> {
        let state = self.shared.lock();
        state.containers.values().map(|container| (container.name.clone(), container.body.clone())).collect()
    }

    /// What was asked to be run, whole.
    pub(crate) fn execs(&self) -> Vec<Value> {
        self.shared.lock().execs.values().map(|exec| exec.body.clone()).collect()
    }

    /// Ends a container, as `docker kill` by somebody else would.
    pub(crate) fn kill(&self, id: &str) {
        if let Some(container) = self.shared.lock().containers.get_mut(id) {
            container.state = "exited";
            container.stopped.send_replace(true);
        }
        self.shared.tell(id, "die");
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    body: Value,
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16));
        match byte {
            b'%' => {
                let (high, low) = (hex(rest.next()).unwrap_or(0), hex(rest.next()).unwrap_or(0));
                bytes.push((high * 16 + low) as u8);
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_request(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if from.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        from.read_line(&mut header).await?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    // `/v1.47/info`, or `/version` before it is known.
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned()));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    Ok(Some(Request {
        method,
        path: decoded(&versioned.unwrap_or_else(|| path.to_owned())),
        query: pairs.map(|(key, value)| (key.to_owned(), decoded(value))).collect(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }))
}

async fn respond(to: &mut OwnedWriteHalf, status: u16, body: &Value) -> io::Result<()> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    to.write_all(head.as_bytes()).await?;
    to.write_all(text.as_bytes()).await
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let Some(request) = read_request(&mut read).await? else { return Ok(()) };
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["events"]) => events(&shared, write).await,
        ("POST", ["exec", id, "start"]) => run(&shared, id, read, write).await,
        _ => {
            let (status, body) = answer(&shared, &request, &parts);
            respond(&mut write, status, &body).await
        }
    }
}

async fn events(shared: &Shared, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut events = shared.events.subscribe();
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").await?;
    while let Ok(event) = events.recv().await {
        to.write_all(format!("{event}\n").as_bytes()).await?;
    }
    Ok(())
}

fn no(status: u16, message: impl Into<String>) -> (u16, Value) {
    (status, json!({"message": message.into()}))
}

fn answer(shared: &Shared, request: &Request, parts: &[&str]) -> (u16, Value) {
    let mut guard = shared.lock();
    let state = &mut *guard;
    let query = |key: &str| request.query.get(key).cloned().unwrap_or_default();
    match (request.method.as_str(), parts) {
        ("GET", ["version"]) => (200, json!({"Version": "28.5.1", "ApiVersion": "1.47"})),
        ("GET", ["info"]) => {
            let runtimes: serde_json::Map<_, _> =
                state.runtimes.iter().map(|name| ((*name).to_owned(), json!({"path": name}))).collect();
            (200, json!({"Runtimes": runtimes}))
        }
        ("GET", ["images", name @ .., "json"]) => {
            let name = name.join("/");
            if state.images.contains(&name) {
                (200, json!({"Id": "sha256:1"}))
            } else {
                no(404, format!("No such image: {name}"))
            }
        }
        ("POST", ["images", "create"]) => {
            let (image, tag) = (query("fromImage"), query("tag"));
            if image.starts_with(NOWHERE) {
                return no(404, format!("pull access denied for {image}, repository does not exist"));
            }
            state.images.insert(if tag.is_empty() { image } else { format!("{image}:{tag}") });
            (200, json!({"status": "Pull complete"}))
        }
        ("GET", ["containers", "json"]) => {
            let filters: Value = serde_json::from_str(&query("filters")).unwrap_or_default();
            let label = filters["label"][0].as_str().unwrap_or_default().to_owned();
            let chosen =
                state.containers.iter().filter(|(_, c)| label.is_empty() || !c.body["Labels"][&label].is_null());
            let line = |(id, container): (&String, &Container)| {
                json!({"Id": id, "Names": [format!("/{}", container.name)], "Image": container.body["Image"],
                    "Labels": container.body["Labels"], "State": container.state, "Created": container.created})
            };
            (200, chosen.map(line).collect())
        }
        ("POST", ["containers", "create"]) => {
            let name = query("name");
            let image = request.body["Image"].as_str().unwrap_or_default();
            if !state.images.contains(image) {
                return no(404, format!("No such image: {image}"));
            }
            if state.containers.values().any(|container| container.name == name) {
                return no(409, format!("Conflict. The container name \"/{name}\" is already in use"));
            }
            for mount in request.body["HostConfig"]["Mounts"].as_array().into_iter().flatten() {
                let source = mount["Source"].as_str().unwrap_or_default();
                if !Path::new(source).is_dir() {
                    let why =
                        format!("invalid mount config for type \"bind\": bind source path does not exist: {source}");
                    return no(400, why);
                }
            }
            state.serial += 1;
            let id = format!("{:064x}", state.serial);
            let container = Container {
                name,
                body: request.body.clone(),
                state: "created",
                started: None,
                created: jiff::Timestamp::now().as_second(),
                stopped: watch::Sender::new(false),
            };
            state.containers.insert(id.clone(), container);
            drop(guard);
            shared.tell(&id, "create");
            (201, json!({"Id": id, "Warnings": []}))
        }
        ("POST" | "GET" | "DELETE", ["containers", id, action @ ..]) => {
            let id = (*id).to_owned();
            let Some(container) = state.containers.get_mut(&id) else {
                return no(404, format!("No such container: {id}"));
            };
            match (request.method.as_str(), action) {
                ("GET", ["json"]) => {
                    let running = container.state == "running";
                    let state = json!({"Running": running, "StartedAt": container.started, "Status": container.state});
                    (200, json!({"Id": id, "State": state, "HostConfig": container.body["HostConfig"]}))
                }
                ("GET", ["stats"]) => (200, json!({"memory_stats": {"usage": 10 << 20}})),
                ("POST", ["start"]) => {
                    container.state = "running";
                    container.started = Some(jiff::Timestamp::now().to_string());
                    drop(guard);
                    shared.tell(&id, "start");
                    (204, Value::Null)
                }
                ("POST", ["stop"]) => {
                    if container.state != "running" {
                        return (304, Value::Null);
                    }
                    container.state = "exited";
                    container.stopped.send_replace(true);
                    drop(guard);
                    shared.tell(&id, "die");
                    (204, Value::Null)
                }
                ("POST", ["exec"]) => {
                    if container.state != "running" {
                        return no(409, format!("container {id} is not running"));
                    }
                    state.serial += 1;
                    let exec = format!("{:064x}", state.serial);
                    state.execs.insert(exec.clone(), Exec { container: id, body: request.body.clone(), code: None });
                    (201, json!({"Id": exec}))
                }
                ("DELETE", []) => {
                    if let Some(container) = state.containers.remove(&id) {
                        container.stopped.send_replace(true);
                    }
                    drop(guard);
                    shared.tell(&id, "destroy");
                    (204, Value::Null)
                }
                _ => no(404, "page not found"),
            }
        }
        ("GET", ["exec", id, "json"]) => match state.execs.get(*id) {
            Some(exec) => (200, json!({"ID": id, "Running": exec.code.is_none(), "ExitCode": exec.code, "Pid": 1})),
            None => no(404, format!("No such exec instance: {id}")),
        },
        _ => no(404, "page not found"),
    }
}

/// The command of an exec: a program of this machine.
fn command(folder: &Path, container: &Container, body: &Value) -> Command {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let words = texts(&body["Cmd"]);
    let mut command = Command::new(words.first().map(String::as_str).unwrap_or_default());
    command.args(words.iter().skip(1)).env_clear().process_group(0).kill_on_drop(true);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", folder);
    command.env("TMUX_TMPDIR", folder);
    for variable in texts(&container.body["Env"]).iter().chain(&texts(&body["Env"])) {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    let place = body["WorkingDir"].as_str().or(container.body["WorkingDir"].as_str()).unwrap_or("/");
    let mounts = container.body["HostConfig"]["Mounts"].as_array();
    let on_host = mounts.into_iter().flatten().find_map(|mount| {
        let inside = Path::new(place).strip_prefix(mount["Target"].as_str()?).ok()?;
        Some(Path::new(mount["Source"].as_str()?).join(inside))
    });
    command.current_dir(on_host.unwrap_or_else(|| place.into()));
    command.stdin(if body["AttachStdin"] == true { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(
    shared: &Arc<Shared>,
    id: &str,
    mut from: BufReader<OwnedReadHalf>,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    let (mut call, mut stopped, program) = {
        let state = shared.lock();
        let Some(exec) = state.execs.get(id) else { return Ok(()) };
        let Some(container) = state.containers.get(&exec.container) else { return Ok(()) };
        let program = exec.body["Cmd"][0].as_str().unwrap_or_default().to_owned();
        (command(&shared.folder, container, &exec.body), container.stopped.subscribe(), program)
    };
    let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
                Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    to.write_all(head.as_bytes()).await?;
    let end = |code: i32| {
        if let Some(exec) = shared.lock().execs.get_mut(id) {
            exec.code = Some(code);
        }
    };
    let mut child = match call.spawn() {
        Ok(child) => child,
        Err(_) => {
            let text =
                format!("OCI runtime exec failed: exec: {program:?}: executable file not found in $PATH: unknown\r\n");
            frame(&mut to, 1, text.as_bytes()).await?;
            end(127);
            return Ok(());
        }
    };
    let pid = child.id();
    if let Some(mut input) = child.stdin.take() {
        tokio::spawn(async move {
            if tokio::io::copy(&mut from, &mut input).await.is_ok() {
                let _ = input.shutdown().await;
            }
        });
    }
    let to = Arc::new(tokio::sync::Mutex::new(to));
    let out = carry(child.stdout.take(), to.clone(), 1);
    let err = carry(child.stderr.take(), to.clone(), 2);
    let printed = async { tokio::join!(out, err) };
    tokio::select! {
        _ = printed => {}
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            // All that the command has started: its group.
            if let Some(pid) = pid {
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).status().await;
            }
        }
    }
    let status = child.wait().await?;
    use std::os::unix::process::ExitStatusExt;
    end(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
    to.lock().await.shutdown().await
}

async fn frame(to: &mut (impl AsyncWrite + Unpin), stream: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes();
    to.write_all(&[stream, 0, 0, 0, length[0], length[1], length[2], length[3]]).await?;
    to.write_all(bytes).await
}

async fn carry(
    from: Option<impl AsyncRead + Unpin>,
    to: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    stream: u8,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut bytes = vec![0; 8192];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        frame(&mut *to.lock().await, stream, &bytes[..count]).await?;
    }
}
