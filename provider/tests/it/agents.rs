//! Agents, as an application runs them: real runners in folders of this machine.

use std::{sync::Arc, time::Duration};

use agent_sandbox_provider::{
    Code, Error, SandboxProvider, SandboxStatus,
    agent::{AgentConfig, AgentService, StartAgent},
    records::{
        Agent, AgentStatus, ApiKey, Column, LastAgentStatus, Phase, Project, Session, SessionStatus, StreamEvent, Task,
        Worktree,
    },
    store::{Record, Store},
};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::local::{LocalProvider, LocalSandbox};

/// The agents' key; it must not be seen anywhere.
pub(crate) const KEY: &str = "sk-ant-0123456789-never-to-be-seen";

/// Long enough for any machine; what waits so long has failed.
const LONG: Duration = Duration::from_secs(30);

/// A store, a provider and a service of agents on them.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) provider: Arc<LocalProvider>,
    pub(crate) service: AgentService,
    pub(crate) config: AgentConfig,
}

impl World {
    /// With a project `p`, whose sandbox has a repository.
    pub(crate) fn new() -> Self {
        let world = Self::bare();
        world.provider.add("p").init_repository();
        world
    }

    /// With a project `p`.
    pub(crate) fn bare() -> Self {
        let config = AgentConfig {
            runner: vec![env!("CARGO_BIN_EXE_agent-runner").into()],
            grace: Duration::from_secs(1),
            ..AgentConfig::default()
        };
        let (store, provider) = (Store::in_memory().expect("a store"), LocalProvider::new());
        store
            .write(|tx| {
                tx.put(&Project::new("p", "Project", "/nowhere"))?;
                tx.put(&ApiKey { id: "anthropic".into(), value: KEY.into(), updated_at: Timestamp::now() })
            })
            .expect("stored");
        let service = AgentService::new(store.clone(), config.clone());
        service.set_provider(Some(provider.clone()));
        Self { store, provider, service, config }
    }

    /// Kills the service, as far as that can be done in a process, and starts another on the same store.
    pub(crate) fn restart(&mut self) {
        self.service = AgentService::new(self.store.clone(), self.config.clone());
        self.service.set_provider(Some(self.provider.clone()));
    }

    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut AgentConfig)) {
        change(&mut self.config);
        self.service.configure(self.config.clone());
    }

    pub(crate) fn sandbox(&self) -> Arc<LocalSandbox> {
        self.provider.sandbox("p")
    }

    /// A task whose description is a script for the runner.
    pub(crate) fn task(&self, id: &str, script: &str) {
        let mut task = Task::new(id, "p", "Say hello");
        task.description = script.into();
        self.store.write(|tx| tx.put(&task)).expect("stored");
    }

    pub(crate) fn get<R: Record>(&self, id: &str) -> R {
        self.find(id).unwrap_or_else(|| panic!("no {id}"))
    }

    pub(crate) fn find<R: Record>(&self, id: &str) -> Option<R> {
        self.store.read(|tx| tx.get(id)).expect("read")
    }

    /// All events of the stream.
    pub(crate) fn events(&self, session: &str) -> Vec<StreamEvent> {
        let events = self.service.streams().read(session, 0, 1_000_000).expect("events");
        for (place, (offset, _)) in events.iter().enumerate() {
            assert_eq!(*offset, place as u64 + 1, "offsets have no holes");
        }
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// The last parts of the names of the stream's events, but for those that are told to be boring.
    pub(crate) fn kinds(&self, session: &str, boring: &[&str]) -> Vec<String> {
        let kinds = self.events(session).into_iter().map(|event| event.kind.replace("container-agent:", ""));
        kinds.filter(|kind| !boring.contains(&kind.as_str())).collect()
    }

    /// How often an event of that kind is in the stream.
    pub(crate) fn count(&self, session: &str, kind: &str) -> usize {
        self.kinds(session, &[]).iter().filter(|found| *found == kind).count()
    }

    /// The next event of that kind in the stream, from that offset on, and its offset.
    pub(crate) async fn wait(&self, session: &str, from: u64, kind: &str) -> (u64, StreamEvent) {
        let mut events = Box::pin(self.service.streams().subscribe(session, from));
        let found = async {
            loop {
                let (offset, event) = events.next().await.expect("the stream goes on").expect("an event");
                if event.kind.strip_prefix("container-agent:") == Some(kind) {
                    return (offset, event);
                }
            }
        };
        let Ok(found) = tokio::time::timeout(LONG, found).await else {
            panic!("no {kind} from {from} on in {:#?}", self.events(session));
        };
        found
    }

    /// Starts a plan and waits for it. Says the session.
    pub(crate) async fn planned(&self, id: &str, script: &str) -> String {
        self.task(id, script);
        let run = self.service.start_agent(StartAgent::plan(id)).await.expect("started");
        self.wait(&run.session_id, 0, "plan_ready").await;
        run.session_id
    }

    /// Starts the work at once. Says the session.
    pub(crate) async fn executing(&self, id: &str, script: &str) -> String {
        self.task(id, script);
        let start = StartAgent { phase: Phase::Execute, ..StartAgent::plan(id) };
        self.service.start_agent(start).await.expect("started").session_id
    }

    /// Nothing of the task's agents works or lies about.
    pub(crate) fn assert_put_away(&self, id: &str) {
        assert_eq!(self.sandbox().processes(&format!("AGENT_TASK_ID={id}\0")), [] as [u32; 0], "orphans");
        let folder = self.sandbox().path("workspace/.agent");
        let left: Vec<_> = std::fs::read_dir(folder).map_or_else(|_| Vec::new(), |folder| folder.flatten().collect());
        assert!(left.iter().all(|entry| entry.file_name() == ".gitignore"), "{left:?}");
        let task: Task = self.get(id);
        assert_eq!(task.run_id, None);
        assert!(!self.service.is_running(id).expect("read"));
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.expect_err("refused").code()
}

#[tokio::test]
async fn a_task_is_planned_approved_carried_out_and_waits_for_its_reviewer() {
    let world = World::new();
    let script = "@turn\n@ask run the tests\n@say Let me see\n@plan\n@turn\n@write src/hello.txt Hello\\n\n@run cat src/hello.txt";
    let session = world.planned("task-123456", script).await;

    let task: Task = world.get("task-123456");
    assert_eq!((task.column, task.last_agent_status), (Column::WaitingApproval, Some(LastAgentStatus::Planning)));
    let plan = world.service.pending_plan("task-123456").expect("read").expect("a plan");
    assert!(plan.plan.contains("@write src/hello.txt"), "{plan:?}");
    assert_eq!(plan.allowed_prompts, [json!({ "tool": "Bash", "prompt": "run the tests" })]);
    // S-8: the predecessor's agent went on planning.
    let agent: Agent = world.get("agent-task-123456");
    assert_eq!((agent.status, agent.current_turn), (AgentStatus::Paused, 1));
    assert_eq!(world.get::<Session>(&session).status, SessionStatus::Paused);
    world.assert_put_away("task-123456");

    let run = world.service.approve_plan("task-123456").await.expect("approved");
    assert_eq!((run.session_id.as_str(), run.phase), (session.as_str(), Phase::Execute));
    let (_, complete) = world.wait(&session, 0, "complete").await;
    assert_eq!(complete.data["status"], "completed");

    let task: Task = world.get("task-123456");
    assert_eq!((task.column, task.last_agent_status), (Column::WaitingApproval, Some(LastAgentStatus::Completed)));
    assert_eq!((task.agent_id.as_deref(), task.session_id.as_deref()), (None, None));
    assert!(task.completed_at.is_some());
    assert_eq!(task.branch.as_deref(), Some("say-hello-123456"));
    let worktree: Worktree = world.get(task.worktree_id.as_deref().expect("a worktree"));
    assert!(worktree.path.ends_with("/workspace/.worktrees/say-hello-123456"), "{worktree:?}");
    let sandbox = world.sandbox();
    assert_eq!(sandbox.sh("git show say-hello-123456:src/hello.txt"), "Hello\n", "it is committed");
    assert_eq!(sandbox.sh("git status --porcelain"), "", "the project's own folder is as it was");
    assert_eq!(world.get::<Agent>("agent-task-123456").status, AgentStatus::Completed);
    assert_eq!(world.get::<Session>(&session).status, SessionStatus::Closed);
    world.assert_put_away("task-123456");

    let kinds = world.kinds(&session, &["token", "message"]).join(" ");
    let expected = "status status worktree status status started turn plan_ready \
                    status status worktree status status started turn \
                    tool:start tool:result file_changed tool:start tool:result complete";
    assert_eq!(kinds, expected);
    let stages: Vec<_> =
        world.events(&session).into_iter().filter_map(|event| event.data.get("stage").cloned()).collect();
    assert_eq!(stages[..4], ["initializing", "creating_sandbox", "executing", "running"]);
    for event in world.events(&session) {
        assert_eq!((&event.data["taskId"], &event.data["projectId"]), (&json!("task-123456"), &json!("p")));
        assert_eq!(event.data.get("accumulated"), None);
    }
    let resumed = world.events(&session).iter().any(|event| {
        event
            .data
            .get("content")
            .is_some_and(|text| text.as_str().is_some_and(|text| text.starts_with("Going on with scripted-")))
    });
    assert!(resumed, "the conversation goes on in the same sandbox");
}

#[tokio::test]
async fn a_project_without_a_sandbox_gets_one_unless_told_otherwise() {
    let mut world = World::bare();
    world.configure(|config| config.create_sandbox = false);
    world.task("t", "");
    let start = || world.service.start_agent(StartAgent::plan("t"));
    assert_eq!(code(start().await), Code::ContainerNotFound);
    // S-10: what did not start leaves nothing half done.
    let task: Task = world.get("t");
    assert_eq!((task.run_id, task.agent_id, task.last_agent_status), (None, None, Some(LastAgentStatus::Error)));
    assert_eq!(world.get::<Agent>("agent-t").status, AgentStatus::Error);
    world.configure(|config| config.create_sandbox = true);
    let run = world.service.start_agent(StartAgent::plan("t")).await.expect("started");
    world.wait(&run.session_id, 0, "plan_ready").await;
    let told = world.events(&run.session_id).into_iter().find(|event| event.data.get("role") == Some(&json!("system")));
    let told = told.expect("a message").data["content"].to_string();
    assert!(told.contains("is no git repository"), "{told}");
}

/// S-1: the predecessor went on reading while it committed, found that the runner had ended without a word, and removed the
/// worktree.
#[tokio::test]
async fn work_is_complete_once_however_long_its_commit_takes() {
    let world = World::new();
    world.sandbox().sh(
        "git config filter.slow.clean 'sleep 1; cat' && echo '*.txt filter=slow' > .gitattributes && git add -A && \
         git commit -qm slow",
    );
    let session = world.planned("t", "@plan\n@write a.txt A").await;
    world.service.approve_plan("t").await.expect("approved");
    world.wait(&session, 0, "complete").await;
    world.wait(&session, 0, "complete").await;
    assert_eq!((world.count(&session, "complete"), world.count(&session, "error")), (1, 0));
    let task: Task = world.get("t");
    assert_eq!(task.last_agent_status, Some(LastAgentStatus::Completed));
    assert_eq!(world.sandbox().sh(&format!("git show {}:a.txt", task.branch.expect("a branch"))), "A");
}

/// S-2: the predecessor's timer of the plan stopped the execution.
#[tokio::test]
async fn the_time_that_a_plan_takes_and_waits_does_not_count_for_its_execution() {
    let mut world = World::new();
    world.configure(|config| config.max_runtime = Duration::from_millis(1500));
    let session = world.planned("t", "@sleep 0.8\n@plan\n@sleep 0.9").await;
    world.service.approve_plan("t").await.expect("approved");
    world.wait(&session, 0, "complete").await;
    assert_eq!(world.count(&session, "cancelled"), 0);
}

#[tokio::test]
async fn an_agent_that_works_too_long_is_stopped_and_the_stream_says_why() {
    let mut world = World::new();
    world.configure(|config| config.max_runtime = Duration::from_millis(300));
    let session = world.executing("t", "@hang").await;
    let (_, event) = world.wait(&session, 0, "cancelled").await;
    assert!(event.data["reason"].as_str().expect("a reason").contains("as long as it may"), "{event:?}");
    world.assert_put_away("t");
}

/// S-3: the predecessor never found its plans again.
#[tokio::test]
async fn a_plan_waits_through_a_restart_and_can_be_approved_or_turned_down_then() {
    let mut world = World::new();
    let approved = world.planned("a", "@plan\n@write a.txt A").await;
    let refused = world.planned("r", "@plan\n@write r.txt R").await;
    let (kept, worktree) =
        (world.get::<Task>("a").worktree_id, world.get::<Task>("r").worktree_id.expect("a worktree"));
    world.restart();
    let recovered = world.service.recover().await.expect("recovered");
    assert_eq!((recovered.runs.len(), recovered.freed_tasks.len()), (0, 0), "nothing had been going on");
    // S-4: the predecessor unlinked the worktrees of all tasks.
    assert_eq!(world.get::<Task>("a").worktree_id, kept);

    assert!(world.service.pending_plan("a").expect("read").is_some());
    world.service.approve_plan("a").await.expect("approved");
    world.wait(&approved, 0, "complete").await;
    assert_eq!(world.sandbox().sh("git show say-hello-a:a.txt"), "A");

    world.service.reject_plan("r", Some("too bold")).await.expect("turned down");
    let task: Task = world.get("r");
    assert_eq!((task.column, task.plan.as_deref(), task.worktree_id.as_deref()), (Column::Backlog, None, None));
    assert_eq!(task.rejection_reason.as_deref(), Some("too bold"));
    assert_eq!(world.kinds(&refused, &[]).last().map(String::as_str), Some("plan:rejected"));
    assert_eq!(world.get::<Agent>("agent-r").status, AgentStatus::Idle);
    until("its worktree is gone", || world.find::<Worktree>(&worktree).is_none()).await;
    assert_eq!(world.sandbox().sh("git branch --list 'say-hello-r*'"), "", "nothing was in it");
    assert_eq!(code(world.service.reject_plan("r", None).await), Code::PlanNotFound);
}

/// S-5: the predecessor said twice that an agent was stopped, or that it had failed.
#[rstest::rstest]
#[case::that_listens("@turn\n@sleep 100")]
#[case::that_does_not("@turn\n@hang")]
#[tokio::test]
async fn stopping_an_agent_is_told_once(#[case] script: &str) {
    let world = World::new();
    let session = world.executing("t", script).await;
    world.wait(&session, 0, "turn").await;
    assert_eq!(world.service.running_agents().len(), 1);
    let (first, second) = tokio::join!(world.service.stop_agent("t"), world.service.stop_agent("t"));
    first.expect("stopped");
    second.expect("stopped as well");
    assert_eq!((world.count(&session, "cancelled"), world.count(&session, "error")), (1, 0));
    let task: Task = world.get("t");
    assert_eq!((task.column, task.last_agent_status), (Column::InProgress, Some(LastAgentStatus::Cancelled)));
    world.assert_put_away("t");
    assert_eq!(world.service.running_agents(), []);
    assert_eq!(code(world.service.stop_agent("t").await), Code::AgentNotRunning);
}

/// S-9, P2-2.
#[tokio::test]
async fn the_key_is_in_no_event_error_record_or_command() {
    let world = World::new();
    let leak = "@print $CLAUDE_OAUTH_TOKEN\n@complain $CLAUDE_OAUTH_TOKEN\n@run echo $CLAUDE_OAUTH_TOKEN\n@turn\n";
    let session = world.planned("t", &format!("{leak}@plan\n{leak}@exit 3")).await;
    world.service.approve_plan("t").await.expect("approved");
    let (_, error) = world.wait(&session, 0, "error").await;
    assert!(error.data["error"].as_str().expect("text").contains("exit status 3"), "{error:?}");
    let events = serde_json::to_string(&world.events(&session)).expect("JSON");
    assert!(events.contains("[redacted]"), "the agent did say it: {events}");
    let records = world.store.read(|tx| {
        let tasks: Vec<Task> = tx.list()?;
        Ok(format!("{tasks:?} {:?} {:?}", tx.list::<Agent>()?, tx.list::<ApiKey>()?))
    });
    let seen = [events, world.provider.log(), records.expect("read"), format!("{:?}", world.service)];
    for text in seen {
        assert!(!text.contains(KEY), "{text}");
    }
}

/// S-10: the predecessor left agents that started for ever.
#[tokio::test]
async fn a_start_that_is_refused_changes_nothing() {
    let world = World::new();
    world.task("t", "");
    let before: Task = world.get("t");
    let start = |id: &str| world.service.start_agent(StartAgent::plan(id));
    assert_eq!(code(start("none").await), Code::TaskNotFound);
    let long = StartAgent { prompt: Some("x".repeat(200_000)), ..StartAgent::plan("t") };
    assert_eq!(code(world.service.start_agent(long).await), Code::ResourceLimitExceeded);
    world.store.write(|tx| tx.put(&Task::new("homeless", "nowhere", "x"))).expect("stored");
    assert_eq!(code(start("homeless").await), Code::ProjectNotFound);
    world.store.write(|tx| tx.delete::<ApiKey>("anthropic")).expect("deleted");
    assert_eq!(code(start("t").await), Code::ApiKeyNotConfigured);
    world.service.set_provider(None);
    assert_eq!(code(start("t").await), Code::ProviderNotAvailable);
    assert_eq!(world.get::<Task>("t"), before);
    assert_eq!(world.find::<Agent>("agent-t"), None);
    assert_eq!(code(world.service.approve_plan("t").await), Code::PlanNotFound);
}

#[tokio::test]
async fn a_runner_that_is_not_there_is_an_error_of_the_task_with_what_the_shell_said() {
    let mut world = World::new();
    world.configure(|config| config.runner = vec!["no-such-runner".into()]);
    let session = world.executing("t", "").await;
    let (_, error) = world.wait(&session, 0, "error").await;
    let text = error.data["error"].as_str().expect("text");
    assert!(text.contains("exit status 127") && text.contains("not found"), "{text}");
    assert_eq!(world.get::<Task>("t").last_agent_status, Some(LastAgentStatus::Error));
    world.assert_put_away("t");
}

#[tokio::test]
async fn a_start_that_was_asked_for_and_not_begun_is_made_by_the_restart() {
    let mut world = World::new();
    world.task("t", "@plan\n");
    let mut task: Task = world.get("t");
    (task.column, task.start_requested_at) = (Column::InProgress, Some(Timestamp::now()));
    world.store.write(|tx| tx.put(&task)).expect("stored");
    world.restart();
    let recovered = world.service.recover().await.expect("recovered");
    assert_eq!(recovered.started_tasks, ["t"]);
    let session = world.get::<Task>("t").session_id.expect("a session");
    world.wait(&session, 0, "plan_ready").await;
    assert_eq!(world.get::<Task>("t").start_requested_at, None);
    // One that is refused is not asked for again and again.
    task.id = "u".into();
    task.project_id = "nowhere".into();
    world.store.write(|tx| tx.put(&task)).expect("stored");
    let recovered = world.service.recover().await.expect("recovered");
    assert_eq!((recovered.started_tasks.len(), world.get::<Task>("u").start_requested_at), (0, None));
}

/// S-11: the predecessor recognised a session that was there by the text of an error.
#[tokio::test]
async fn a_session_and_an_agent_that_are_there_are_used() {
    let world = World::new();
    world.task("t", "@plan\n");
    let now = Timestamp::now();
    let session = Session {
        id: "mine".into(),
        project_id: "p".into(),
        task_id: None,
        agent_id: None,
        status: SessionStatus::Closed,
        title: Some("Mine".into()),
        url: String::new(),
        created_at: now,
        updated_at: now,
        closed_at: Some(now),
    };
    world.store.write(|tx| tx.put(&session)).expect("stored");
    for _ in 0..2 {
        let start = StartAgent { session_id: Some("mine".into()), ..StartAgent::plan("t") };
        let from = world.service.streams().last_offset("mine").expect("read") + 1;
        world.service.start_agent(start).await.expect("started");
        world.wait("mine", from, "plan_ready").await;
    }
    let session: Session = world.get("mine");
    assert_eq!((session.title.as_deref(), session.created_at, session.closed_at), (Some("Mine"), now, None));
}

/// S-12: what ended before anyone listened is heard all the same.
#[tokio::test]
async fn an_agent_that_ended_while_nobody_listened_is_heard_out() {
    let mut world = World::new();
    let session = world.executing("t", "@say Hello there\n@sleep 0.3\n@append a.txt A").await;
    world.restart();
    let sandbox = world.sandbox();
    until("the runner has ended", || sandbox.processes("AGENT_TASK_ID=t\0").is_empty()).await;
    assert_eq!(world.service.recover().await.expect("recovered").runs.len(), 1);
    world.wait(&session, 0, "complete").await;
    assert_eq!(sandbox.sh("git show say-hello-t:a.txt"), "A");
    assert_eq!((world.count(&session, "token"), world.count(&session, "message")), (2, 1));
    world.assert_put_away("t");
}

#[tokio::test]
async fn an_agent_that_takes_all_its_turns_has_its_work_kept_and_looked_at() {
    let world = World::new();
    world.task("t", "@plan\n@write a.txt A\n@turn\n@turn\n@turn\n@write b.txt B");
    let start = StartAgent { max_turns: Some(2), ..StartAgent::plan("t") };
    let session = world.service.start_agent(start).await.expect("started").session_id;
    world.wait(&session, 0, "plan_ready").await;
    let mut project: Project = world.get("p");
    project.max_turns = Some(2);
    world.store.write(|tx| tx.put(&project)).expect("stored");
    world.service.approve_plan("t").await.expect("approved");
    let (_, event) = world.wait(&session, 0, "complete").await;
    assert_eq!((&event.data["status"], &event.data["turnCount"]), (&json!("turn_limit"), &json!(2)));
    let task: Task = world.get("t");
    assert_eq!((task.column, task.last_agent_status), (Column::WaitingApproval, Some(LastAgentStatus::TurnLimit)));
    assert_eq!(world.sandbox().sh("git ls-tree --name-only say-hello-t"), "README\na.txt\n");
}

/// The predecessor removed the worktree by force.
#[tokio::test]
async fn work_that_is_not_committed_outlives_the_failure_of_its_agent_and_is_gone_on_with() {
    let world = World::new();
    let session = world.planned("t", "@plan\n@write half.txt done\n@fail out of ideas").await;
    world.service.approve_plan("t").await.expect("approved");
    let (_, event) = world.wait(&session, 0, "error").await;
    assert_eq!((&event.data["error"], &event.data["code"]), (&json!("out of ideas"), &json!("STREAM_ERROR")));
    let task: Task = world.get("t");
    assert_eq!((task.column, task.last_agent_status), (Column::InProgress, Some(LastAgentStatus::Error)));
    assert!(task.worktree_id.is_some());
    let told = world.events(&session).into_iter().rev().find(|event| event.data.get("role") == Some(&json!("system")));
    let told = told.expect("a message").data["content"].to_string();
    assert!(told.contains("is kept"), "{told}");
    let again = world.planned("t", "@run cat half.txt\n@plan\n").await;
    let result = world.events(&again).into_iter().find(|event| event.kind.ends_with("tool:result")).expect("a result");
    assert_eq!(result.data["result"], "done");
    // Nothing is in the worktree of another that fails: it goes.
    world.task("u", "@fail at once\n@plan\n");
    let session = world.service.start_agent(StartAgent::plan("u")).await.expect("started").session_id;
    world.wait(&session, 0, "error").await;
    assert_eq!(world.get::<Task>("u").worktree_id, None);
    assert_eq!(world.sandbox().sh("git branch --list 'say-hello-u'"), "");
}

#[tokio::test]
async fn a_runner_that_fails_before_its_first_event_is_heard_on_stderr() {
    let mut world = World::new();
    world.configure(|config| {
        config.runner = vec!["env".into(), "AGENT_CWD=/".into(), env!("CARGO_BIN_EXE_agent-runner").into()]
    });
    let session = world.executing("t", "").await;
    let (_, error) = world.wait(&session, 0, "error").await;
    assert!(error.data["error"].as_str().expect("text").contains("is not in AGENT_WORKSPACE_ROOT"), "{error:?}");
}

#[tokio::test]
async fn what_is_left_out_of_the_stream_is_said_and_the_rest_is_there() {
    let world = World::new();
    let long = "@run head -c 2000000 /dev/zero | tr '\\0' x\n";
    let session = world.executing("t", &format!("@print {{\"type\":\n{long}@flood 3000 20\n@turn")).await;
    world.wait(&session, 0, "complete").await;
    assert_eq!((world.count(&session, "token"), world.count(&session, "turn")), (3000, 1));
    let events = world.events(&session);
    let told: Vec<&Value> = events.iter().filter_map(|event| event.data.get("content")).collect();
    assert!(
        told.iter().any(|text| text.as_str().is_some_and(|text| text.contains("more than 1048576 are not read"))),
        "{told:?}"
    );
}

#[tokio::test]
async fn of_many_starts_at_once_one_is_made() {
    let world = World::new();
    world.task("t", "@append starts.txt x\n@sleep 0.2\n@plan\n@append runs.txt x\n@sleep 0.2");
    let start = || world.service.start_agent(StartAgent::plan("t"));
    let (a, b, c) = tokio::join!(start(), start(), start());
    let (made, refused): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 2));
    assert!(refused.into_iter().all(|refused| code(refused) == Code::AgentAlreadyRunning));
    let session = made.into_iter().flatten().next().expect("one").session_id;
    world.wait(&session, 0, "plan_ready").await;
    let (a, b) = tokio::join!(world.service.approve_plan("t"), world.service.approve_plan("t"));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    assert_eq!(code(a.and(b)), Code::PlanNotFound);
    world.wait(&session, 0, "complete").await;
    let show = |file: &str| world.sandbox().sh(&format!("git show say-hello-t:{file}"));
    assert_eq!((show("starts.txt").as_str(), show("runs.txt").as_str()), ("x", "x"));
}

#[tokio::test]
async fn a_plan_whose_execution_cannot_begin_waits_on() {
    let world = World::new();
    let session = world.planned("t", "@plan\n@write a.txt A").await;
    world.sandbox().sh("rm -rf .agent && touch .agent");
    assert_eq!(code(world.service.approve_plan("t").await), Code::AgentStartFailed);
    let task: Task = world.get("t");
    assert_eq!((task.column, task.last_agent_status), (Column::WaitingApproval, Some(LastAgentStatus::Planning)));
    assert_eq!(world.count(&session, "error"), 1);
    world.sandbox().sh("rm .agent");
    world.service.approve_plan("t").await.expect("approved");
    world.wait(&session, 0, "complete").await;
}

#[tokio::test]
async fn an_agent_goes_on_while_the_application_is_shut_down() {
    let mut world = World::new();
    let session = world.executing("t", "@turn\n@sleep 0.5\n@turn").await;
    world.service.shutdown().await;
    assert!(!world.sandbox().processes("AGENT_TASK_ID=t\0").is_empty());
    world.restart();
    world.service.recover().await.expect("recovered");
    let again = world.service.recover().await.expect("again");
    assert_eq!(again.runs.len(), 1, "{again:?}");
    world.wait(&session, 0, "complete").await;
    assert_eq!(world.count(&session, "turn"), 2);
}

#[tokio::test]
async fn a_sandbox_that_is_stopped_ends_its_agents_and_is_made_anew_for_the_next() {
    let world = World::new();
    let session = world.executing("t", "@hang").await;
    world
        .provider
        .get("p")
        .await
        .expect("asked")
        .expect("it")
        .stop(agent_sandbox_provider::StopReason::Manual)
        .await
        .expect("stopped");
    let (_, error) = world.wait(&session, 0, "error").await;
    assert_eq!(error.data["code"], "SANDBOX_CONTAINER_NOT_RUNNING");
    assert_eq!(world.sandbox().status_now(), SandboxStatus::Stopped);
    world.planned("t", "@plan\n").await;
    assert_eq!(world.sandbox().status_now(), SandboxStatus::Running);
}

/// Waits for something that nothing tells of.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in {LONG:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_session_that_has_grown_long_is_not_gone_on_with() {
    let mut world = World::new();
    let first = world.planned("t", "@flood 20 5\n@plan\nthe plan").await;
    world.service.reject_plan("t", None).await.expect("turned down");
    let again = world.service.start_agent(StartAgent::plan("t")).await.expect("started").session_id;
    assert_eq!(again, first, "it is short");
    until("it has planned", || world.get::<Task>("t").run_id.is_none()).await;
    world.service.reject_plan("t", None).await.expect("turned down");
    world.configure(|config| config.max_session_events = 20);
    let other = world.service.start_agent(StartAgent::plan("t")).await.expect("started").session_id;
    assert_ne!(other, first);
    assert_eq!(world.get::<Task>("t").session_id, Some(other.clone()));
    world.wait(&other, 0, "plan_ready").await;
}
