//! Actors under rules: paused, started again, or as dead as their node.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Server;
use crate::rule::Rules;

/// What a rule can keep from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject<'a> {
    /// A controller, by name.
    Controller(&'a str),
    /// What a node does.
    Node(&'a str),
}

impl Subject<'_> {
    fn rests(self, rules: &Rules) -> bool {
        match self {
            Self::Controller(name) => rules.is_paused(name),
            Self::Node(name) => rules.is_down(name),
        }
    }
}

/// A future that is polled only while no rule keeps its subject from running: as a process that was stopped, it goes on
/// where it was. The end of the token reaches it all the same.
struct Supervised<'a> {
    rules: &'a Rules,
    subject: Subject<'a>,
    token: &'a CancellationToken,
    changed: BoxFuture<'a, ()>,
    cancelled: BoxFuture<'a, ()>,
}

impl<'a> Supervised<'a> {
    fn new(rules: &'a Rules, subject: Subject<'a>, token: &'a CancellationToken) -> Self {
        Self { rules, subject, token, changed: rules.changed().boxed(), cancelled: token.cancelled().boxed() }
    }

    /// Whether the subject may run. If not, the context is woken when it may.
    fn may_run(&mut self, context: &mut Context<'_>) -> bool {
        while self.changed.poll_unpin(context).is_ready() {
            self.changed = self.rules.changed().boxed();
        }
        if !self.subject.rests(self.rules) {
            return true;
        }
        self.token.is_cancelled() || self.cancelled.poll_unpin(context).is_ready()
    }
}

/// Runs what a node does, while the node is up, until it has ended.
pub async fn while_up<T>(
    rules: Option<&Rules>,
    node: &str,
    token: &CancellationToken,
    work: impl Future<Output = T>,
) -> T {
    let Some(rules) = rules else { return work.await };
    let (mut supervised, mut work) = (Supervised::new(rules, Subject::Node(node), token), pin!(work));
    poll_fn(|context| if supervised.may_run(context) { work.as_mut().poll(context) } else { Poll::Pending }).await
}

/// Starts a controller on the tracker; see [`supervised`].
pub fn start<F: Future<Output = ()> + Send + 'static>(
    server: &Server,
    tasks: &TaskTracker,
    token: &CancellationToken,
    name: &'static str,
    run: impl Fn(Server, CancellationToken) -> F + Send + 'static,
) {
    let (rules, server) = (server.rules().cloned(), server.clone());
    tasks.spawn(supervised(rules, name, token.clone(), move |token| run(server.clone(), token)));
}

/// Runs a controller under a name by which rules can pause it, and start it again: then it is dropped where it waits, and
/// made anew. It ends with the token.
pub fn supervised<F: Future<Output = ()>>(
    rules: Option<Rules>,
    name: &'static str,
    token: CancellationToken,
    start: impl Fn(CancellationToken) -> F,
) -> impl Future<Output = ()> {
    if let Some(rules) = &rules {
        rules.note_controller(name);
    }
    run_supervised(rules, name, token, start)
}

async fn run_supervised<F: Future<Output = ()>>(
    rules: Option<Rules>,
    name: &'static str,
    token: CancellationToken,
    start: impl Fn(CancellationToken) -> F,
) {
    let Some(rules) = &rules else { return start(token).await };
    loop {
        let own = token.child_token();
        let mut supervised = Supervised::new(rules, Subject::Controller(name), &token);
        let mut running = pin!(start(own.clone()));
        let ended = poll_fn(|context| {
            if !supervised.may_run(context) {
                return Poll::Pending;
            }
            if !token.is_cancelled() && rules.restarts(name) {
                return Poll::Ready(false);
            }
            running.as_mut().poll(context).map(|()| true)
        })
        .await;
        own.cancel();
        if ended {
            return;
        }
        tracing::debug!(controller = name, "starts again, as a rule wants it");
        tokio::task::yield_now().await;
    }
}
