//! Agents, while things go wrong: whatever is lost or killed, and wherever, the work is done once and its plan is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent_sandbox_provider::{
    ExecOptions, SandboxStatus,
    agent::StartAgent,
    records::{Column, LastAgentStatus, Run, Task},
};
use futures::{StreamExt, stream};
use tokio::sync::Notify;

use crate::{
    agents::{World, until},
    local::Fault,
};

/// Plans once, executes once: each leaves an `x`.
const SCRIPT: &str = "@append plans.txt x\n@say Thinking\n@turn\n@plan\n@turn\n@append runs.txt x\n@say Working\n@turn";

/// From the start to the review, as a person would who looks again after each restart.
async fn work(world: &World) {
    loop {
        let task: Task = world.get("t");
        match (task.run_id, task.last_agent_status) {
            (Some(run), _) => {
                let run: Option<Run> = world.find(&run);
                let Some(run) = run else { continue };
                let last = world.service.streams().last_offset(&run.session_id).expect("read");
                // Woken by anything that happens.
                let mut events = Box::pin(world.service.streams().subscribe(&run.session_id, last + 1));
                let _ = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
            }
            (None, None) => drop(world.service.start_agent(StartAgent::plan("t")).await.expect("started")),
            (None, Some(LastAgentStatus::Planning)) => drop(world.service.approve_plan("t").await.expect("approved")),
            (None, Some(_)) => return,
        }
    }
}

/// The work was done once, and is told once.
fn assert_done(world: &World, session: &str, case: &str) {
    let task: Task = world.get("t");
    assert_eq!(
        (task.column, task.last_agent_status),
        (Column::WaitingApproval, Some(LastAgentStatus::Completed)),
        "{case}: {:#?}",
        world.kinds(session, &["token"])
    );
    let show = |file: &str| world.sandbox().sh(&format!("git show say-hello-t:{file}"));
    assert_eq!((show("plans.txt").as_str(), show("runs.txt").as_str()), ("x", "x"), "{case}: it ran once");
    let told = world.kinds(session, &["status", "worktree"]).join(" ");
    let expected = "started tool:start tool:result file_changed token message turn plan_ready \
                    started token token token token message turn tool:start tool:result file_changed token message turn complete";
    assert_eq!(told, expected, "{case}");
    world.assert_put_away("t");
}

/// How many commands a run without faults calls, and its session.
async fn commands() -> usize {
    let world = World::new();
    world.task("t", SCRIPT);
    world.provider.set_faults(|_, _| None);
    work(&world).await;
    world.provider.commands()
}

async fn killed_at(number: usize, fault: Fault) {
    let case = format!("killed at command {number}, {fault:?}");
    let mut world = World::new();
    world.task("t", SCRIPT);
    let reached = Arc::new(Notify::new());
    let bell = reached.clone();
    let rung = AtomicUsize::new(0);
    world.provider.set_faults(move |n, _| {
        let here = n == number && rung.fetch_add(1, Ordering::SeqCst) == 0;
        here.then(|| {
            bell.notify_one();
            fault
        })
    });
    let finished = tokio::select! {
        () = work(&world) => true,
        () = reached.notified() => false,
    };
    if fault == Fault::HangAfter && !finished {
        // The command is at work; when it has done what it does nobody can tell, so the kill comes at some time.
        tokio::time::sleep(Duration::from_millis(60 * (number as u64 % 3))).await;
    }
    let session = world.get::<Task>("t").session_id;
    world.restart();
    world.provider.no_faults();
    world.service.recover().await.expect("recovered");
    work(&world).await;
    assert_done(&world, &session.unwrap_or_else(|| panic!("{case}: a session")), &case);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_killed_while_a_command_works_goes_on_from_there() {
    let commands = commands().await;
    assert!(commands >= 7, "{commands} commands: a worktree, two starts, two readings, two ends, a commit");
    let each = stream::iter(0..commands).for_each_concurrent(6, |number| killed_at(number, Fault::HangAfter));
    each.await;
}

/// A command; called again after a loss, it is the same.
fn call(options: &ExecOptions) -> (String, Vec<String>, Option<Vec<u8>>) {
    (options.cmd.clone(), options.args.clone(), options.stdin.clone())
}

/// One run, with a kill before each of its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_killed_between_all_steps_goes_on_each_time() {
    let mut world = World::new();
    world.task("t", SCRIPT);
    let reached = Arc::new(Notify::new());
    let (bell, seen) = (reached.clone(), Mutex::new(BTreeSet::new()));
    world.provider.set_faults(move |_, options| {
        let is_new = seen.lock().expect("no panic under this lock").insert(call(options));
        is_new.then(|| {
            bell.notify_one();
            Fault::HangBefore
        })
    });
    let (mut kills, mut session) = (0, None);
    loop {
        tokio::select! {
            () = work(&world) => break,
            () = reached.notified() => {}
        }
        kills += 1;
        session = session.or(world.get::<Task>("t").session_id);
        assert!(kills < 100, "it gets nowhere");
        world.restart();
        world.service.recover().await.expect("recovered");
    }
    assert!(kills >= 7, "{kills}");
    assert_done(&world, &session.expect("a session"), &format!("killed {kills} times"));
}

/// One run, in which each command is lost twice in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_connection_is_lost_is_called_again_and_does_its_work_once() {
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        let world = World::new();
        world.task("t", SCRIPT);
        let calls = Mutex::new(BTreeMap::new());
        world.provider.set_faults(move |_, options| {
            let mut calls = calls.lock().expect("no panic under this lock");
            let number = calls.entry(call(options)).or_insert(0);
            *number += 1;
            (*number <= 2).then_some(fault)
        });
        let session = async {
            until("a session", || world.get::<Task>("t").session_id.is_some()).await;
            world.get::<Task>("t").session_id.expect("a session")
        };
        let (session, ()) = tokio::join!(session, work(&world));
        assert_done(&world, &session, &format!("each command is lost, {fault:?}"));
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_again_and_again_loses_and_repeats_nothing() {
    let world = World::new();
    let script = "@flood 200 10\n@sleep 0.15\n".repeat(6);
    let session = world.executing("t", &format!("{script}@turn")).await;
    let sandbox = world.sandbox();
    let cut = async {
        loop {
            tokio::time::sleep(Duration::from_millis(70)).await;
            sandbox.cut();
        }
    };
    tokio::select! {
        () = cut => {}
        _ = world.wait(&session, 0, "complete") => {}
    }
    assert_eq!((world.count(&session, "token"), world.count(&session, "turn")), (1200, 1));
    world.assert_put_away("t");
}

#[tokio::test]
async fn an_agent_whose_pod_is_replaced_is_an_error_and_its_work_stays() {
    let world = World::new();
    let session = world.planned("t", "@plan\n@write half.txt done\n@turn\n@sleep 100").await;
    let plan = world.get::<Task>("t").plan;
    world.service.approve_plan("t").await.expect("approved");
    world.wait(&session, 0, "turn").await;
    world.sandbox().replace();
    let (_, error) = world.wait(&session, 0, "error").await;
    assert!(error.data["error"].as_str().expect("text").contains("was replaced"), "{error:?}");
    let task: Task = world.get("t");
    assert_eq!((task.last_agent_status, task.plan), (Some(LastAgentStatus::Error), plan));
    assert_eq!(world.sandbox().sh("cat .worktrees/say-hello-t/half.txt"), "done");
    world.assert_put_away("t");
}

#[tokio::test]
async fn a_plan_that_was_made_before_its_pod_went_is_read_from_the_volume() {
    let mut world = World::new();
    world.task("t", "@sleep 0.2\n@plan\nthe plan");
    let session = world.service.start_agent(StartAgent::plan("t")).await.expect("started").session_id;
    world.restart();
    let sandbox = world.sandbox();
    until("the runner has ended", || sandbox.processes("AGENT_TASK_ID=t\0").is_empty()).await;
    sandbox.replace();
    world.service.recover().await.expect("recovered");
    world.wait(&session, 0, "plan_ready").await;
    assert!(world.service.pending_plan("t").expect("read").is_some_and(|plan| plan.plan.contains("the plan")));
    // The conversation went with the pod: the execution begins a new one, with the plan.
    world.service.approve_plan("t").await.expect("approved");
    world.wait(&session, 0, "complete").await;
    assert!(!serde_json::to_string(&world.events(&session)).expect("JSON").contains("Going on with"));
}

#[tokio::test]
async fn a_sandbox_that_is_deleted_is_an_error_of_its_task_and_nothing_is_stuck() {
    let world = World::new();
    let session = world.executing("t", "@turn\n@hang").await;
    world.wait(&session, 0, "turn").await;
    world.provider.delete("p");
    let (_, error) = world.wait(&session, 0, "error").await;
    assert_eq!(error.data["code"], "SANDBOX_CONTAINER_NOT_FOUND");
    let task: Task = world.get("t");
    assert_eq!((task.run_id, task.last_agent_status), (None, Some(LastAgentStatus::Error)));
}

#[tokio::test]
async fn a_sandbox_that_is_out_of_reach_for_too_long_is_given_up_and_what_runs_there_is_ended_by_the_next_start() {
    let mut world = World::new();
    world.configure(|config| config.out_of_reach = Duration::from_millis(300));
    let session = world.executing("t", "@turn\n@hang").await;
    world.wait(&session, 0, "turn").await;
    world.sandbox().set_status(SandboxStatus::Creating);
    world.sandbox().cut();
    world.wait(&session, 0, "error").await;
    let left = world.sandbox().processes("AGENT_TASK_ID=t\0");
    assert!(!left.is_empty(), "nobody could reach it");
    world.sandbox().set_status(SandboxStatus::Running);
    world.planned("t", "@plan\n").await;
    let now = world.sandbox().processes("AGENT_TASK_ID=t\0");
    assert!(left.iter().all(|pid| !now.contains(pid)), "{left:?} {now:?}");
}
