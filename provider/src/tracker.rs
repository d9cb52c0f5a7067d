//! [`Tracker`]: what a provider has seen of its sandboxes, and what it tells of them.
//!
//! A watch on the machine below writes it; handles and lists read it. It decides which events there are: one for each change
//! of status, whoever caused it, and none for what was there before the provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use crate::{Code, Error, SandboxEvent, SandboxInfo, SandboxStatus, StopReason};

/// How many events a listener may fall behind before it misses some.
const EVENTS: usize = 1024;

/// Where a provider gets the time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Time as `now` tells it; a simulated cluster has its own.
    pub fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The machine's own time.
    fn default() -> Self {
        Self::of(Timestamp::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A sandbox as the machine below has it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) info: SandboxInfo,
    /// Without activity for so long it is shut down; zero for never.
    pub(crate) idle_timeout: Duration,
    /// Why it is on its way out, if it is.
    pub(crate) reason: StopReason,
    /// What went wrong, if it failed.
    pub(crate) trouble: Option<(Code, String)>,
    /// Grows with each change, so that what is seen late does not undo what was seen before.
    pub(crate) revision: u64,
}

/// When something was last done with a sandbox, and whether something is being done.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    last_ms: AtomicI64,
    fresh: AtomicBool,
    busy: AtomicUsize,
}

impl Activity {
    fn new(clock: Clock, last: Timestamp) -> Arc<Self> {
        let last_ms = AtomicI64::new(last.as_millisecond());
        Arc::new(Self { clock, last_ms, fresh: AtomicBool::new(false), busy: AtomicUsize::new(0) })
    }

    pub(crate) fn touch(&self) {
        self.last_ms.fetch_max(self.clock.now().as_millisecond(), Ordering::Relaxed);
        self.fresh.store(true, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Timestamp {
        Timestamp::from_millisecond(self.last_ms.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Something is being done until what this returns is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.touch();
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether there was activity since this was asked last; a command that runs is activity.
    pub(crate) fn take_fresh(&self) -> bool {
        if self.busy.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
        self.fresh.swap(false, Ordering::Relaxed)
    }
}

/// See [`Activity::busy`].
pub(crate) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Known {
    record: Record,
    activity: Arc<Activity>,
    /// The status of the last event about it.
    told: SandboxStatus,
}

#[derive(Default)]
pub(crate) struct State {
    known: BTreeMap<String, Known>,
    /// Ids of the sandboxes that are being made here, by project.
    making: BTreeMap<String, String>,
    /// Ids of what was deleted here and may still be told of as it was before.
    deleted: BTreeSet<String>,
    /// Whether a whole list was seen, and no interruption since.
    connected: bool,
}

impl State {
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn record(&self, id: &str) -> Option<&Record> {
        self.known.get(id).map(|known| &known.record)
    }
}

/// What a provider has seen of its sandboxes.
pub(crate) struct Tracker {
    clock: Clock,
    events: broadcast::Sender<SandboxEvent>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Tracker {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        let (events, changed) = (broadcast::Sender::new(EVENTS), watch::Sender::new(()));
        Arc::new(Self { clock, events, state: Mutex::default(), changed })
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        self.events.subscribe()
    }

    pub(crate) fn tell(&self, event: SandboxEvent) {
        // Nobody need listen.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a project for the making of one sandbox, until what this returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>, project_id: &str, id: &str) -> Option<Making> {
        let mut state = self.lock();
        if state.making.contains_key(project_id) {
            return None;
        }
        state.making.insert(project_id.into(), id.into());
        Some(Making { tracker: self.clone(), project_id: project_id.into(), id: id.into() })
    }

    /// Takes in how a sandbox is now, and tells of it if its status has changed.
    pub(crate) fn observe(&self, record: Record) {
        {
            let mut state = self.lock();
            let State { known, making, deleted, .. } = &mut *state;
            let id = record.info.id.clone();
            if deleted.contains(&id) {
                return;
            }
            match known.get_mut(&id) {
                Some(known) if known.record.revision > record.revision => {}
                Some(known) => {
                    known.record = record;
                    if making.get(&known.record.info.project_id) != Some(&id) {
                        self.tell_change(known);
                    }
                }
                None => {
                    let activity = Activity::new(self.clock.clone(), record.info.last_activity_at);
                    let told = record.info.status;
                    known.insert(id, Known { record, activity, told });
                }
            }
        }
        self.changed.send_replace(());
    }

    /// Takes in all that there were at `revision`: those that were known then and are not among them are gone.
    pub(crate) fn observe_all(&self, records: Vec<Record>, revision: u64) {
        let gone: Vec<String> = {
            let state = self.lock();
            let listed = |id: &String| records.iter().any(|record| record.info.id == *id);
            let gone = state.known.iter().filter(|(id, known)| known.record.revision <= revision && !listed(id));
            gone.map(|(id, _)| id.clone()).collect()
        };
        gone.iter().for_each(|id| self.gone(id));
        self.lock().deleted.retain(|id| records.iter().any(|record| record.info.id == *id));
        records.into_iter().for_each(|record| self.observe(record));
    }

    /// A sandbox was deleted here: what is told of it from now on is old, until its end is told.
    pub(crate) fn deleted(&self, id: &str) {
        self.gone(id);
        self.lock().deleted.insert(id.to_owned());
    }

    /// A sandbox is not there any more.
    pub(crate) fn gone(&self, id: &str) {
        {
            let mut state = self.lock();
            state.deleted.remove(id);
            let Some(known) = state.known.remove(id) else { return };
            let making = state.making.get(&known.record.info.project_id).is_some_and(|making| making == id);
            if !making && known.told != SandboxStatus::Stopped {
                self.tell(SandboxEvent::Stopped { sandbox_id: id.into() });
            }
        }
        self.changed.send_replace(());
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.lock().connected = connected;
        self.changed.send_replace(());
    }

    fn tell_change(&self, known: &mut Known) {
        let Record { info, reason, trouble, .. } = &known.record;
        if known.told == info.status {
            return;
        }
        let sandbox_id = info.id.clone();
        known.told = info.status;
        self.tell(match info.status {
            SandboxStatus::Creating => SandboxEvent::Starting { sandbox_id },
            SandboxStatus::Running => SandboxEvent::Started { sandbox_id },
            SandboxStatus::Idle => SandboxEvent::Idle { sandbox_id, idle_since: known.activity.last() },
            SandboxStatus::Stopping => SandboxEvent::Stopping { sandbox_id, reason: *reason },
            SandboxStatus::Stopped => SandboxEvent::Stopped { sandbox_id },
            SandboxStatus::Error => {
                let (code, message) = trouble.clone().unwrap_or((Code::SandboxInternal, "the sandbox failed".into()));
                SandboxEvent::error(&sandbox_id, &Error::new(code, message))
            }
        });
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lock().is_connected()
    }

    pub(crate) fn record(&self, id: &str) -> Option<Record> {
        self.lock().record(id).cloned()
    }

    /// The project's sandbox: the one that runs if there is one, else the latest.
    pub(crate) fn of_project(&self, project_id: &str) -> Option<Record> {
        let state = self.lock();
        let of_project = state.known.values().filter(|known| known.record.info.project_id == project_id);
        let best = of_project.max_by_key(|known| {
            let info = &known.record.info;
            (!info.status.can_be_remade(), info.created_at)
        });
        best.map(|known| known.record.clone())
    }

    /// All, by id; activity is what was seen here or, if later, what the machine below remembers.
    pub(crate) fn list(&self) -> Vec<Record> {
        let with_activity = |known: &Known| {
            let mut record = known.record.clone();
            record.info.last_activity_at = known.activity.last().max(record.info.last_activity_at);
            record
        };
        self.lock().known.values().map(with_activity).collect()
    }

    pub(crate) fn activity(&self, id: &str) -> Arc<Activity> {
        match self.lock().known.get(id) {
            Some(known) => known.activity.clone(),
            None => Activity::new(self.clock.clone(), self.clock.now()),
        }
    }
}

/// A sandbox that is being made; what the watch sees of it is not told until it is done.
pub(crate) struct Making {
    tracker: Arc<Tracker>,
    project_id: String,
    id: String,
}

impl Making {
    /// It is ready: tells so, and of what has become of it since.
    pub(crate) fn ready(self) {
        let mut state = self.tracker.lock();
        state.making.remove(&self.project_id);
        self.tracker.tell(SandboxEvent::Started { sandbox_id: self.id.clone() });
        if let Some(known) = state.known.get_mut(&self.id) {
            known.told = SandboxStatus::Running;
            known.activity.touch();
            self.tracker.tell_change(known);
        }
    }

    /// It could not be made: tells so.
    pub(crate) fn failed(self, error: &Error) {
        self.tracker.tell(SandboxEvent::error(&self.id, error));
        self.tracker.lock().known.remove(&self.id);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut state = self.tracker.lock();
        if state.making.get(&self.project_id) == Some(&self.id) {
            state.making.remove(&self.project_id);
        }
    }
}
