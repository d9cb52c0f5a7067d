//! [`Clock`]: the only file that reads time.
//!
//! `now = epoch + tokio's elapsed time + what it was moved by`, or where somebody holds it. On a paused tokio runtime (`#[tokio::test(start_paused = true)]`) time
//! stands still while anything runs and leaps to the next timer when everything waits; on a running one it passes as
//! usual. [`Clock::advance`] works on both.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::Instant};

/// A shared clock; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: Timestamp,
    start: Instant,
    shift: watch::Sender<Shift>,
    /// Deadlines that someone sleeps for, with how many do: `advance` stops at each.
    deadlines: Mutex<BTreeMap<Timestamp, usize>>,
    /// Counts what the cluster does: while it stands, nobody does anything.
    stirred: AtomicU64,
}

/// How the clock goes beside tokio's time.
#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    /// How far it is ahead; behind, where that is negative.
    by: SignedDuration,
    /// Where it stands still, while somebody holds it.
    held: Option<Timestamp>,
    holders: usize,
}

/// Holds a clock; see [`Clock::hold`].
#[derive(Debug)]
#[must_use = "the clock goes on when this is dropped"]
pub struct Held(Clock);

impl Drop for Held {
    fn drop(&mut self) {
        let Clock(inner) = &self.0;
        inner.shift.send_modify(|shift| {
            shift.holders -= 1;
            if shift.holders == 0
                && let Some(held) = shift.held.take()
            {
                shift.by = held.duration_since(inner.by_tokio());
            }
        });
    }
}

impl Inner {
    fn by_tokio(&self) -> Timestamp {
        self.epoch.saturating_add(signed(self.start.elapsed())).expect("a duration is no calendar unit")
    }
}

impl Clock {
    /// A clock that starts at the machine's time; what a server for other processes uses.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    pub fn system() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// A clock that starts at a given time; what a test uses, so that its times are the same in each run.
    pub fn starting_at(epoch: Timestamp) -> Self {
        let (shift, _) = watch::channel(Shift::default());
        let (deadlines, stirred) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { epoch, start: Instant::now(), shift, deadlines, stirred }))
    }

    /// As [`starting_at`](Self::starting_at), and stands still there from the first moment on.
    pub fn held_at(epoch: Timestamp) -> (Self, Held) {
        let clock = Self::starting_at(epoch);
        let held = clock.hold();
        clock.0.shift.send_if_modified(|shift| {
            shift.held = Some(epoch);
            false
        });
        (clock, held)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let Shift { by, held, .. } = *self.0.shift.borrow();
        held.unwrap_or_else(|| self.0.by_tokio().saturating_add(by).expect("a duration is no calendar unit"))
    }

    /// Stops the clock until the value is dropped, but for [`advance`](Self::advance): no time passes by itself, and no
    /// sleeper wakes.
    pub fn hold(&self) -> Held {
        let now = self.now();
        self.0.shift.send_if_modified(|shift| {
            shift.holders += 1;
            shift.held.get_or_insert(now);
            false // sleepers see it when they wake
        });
        Held(self.clone())
    }

    /// The first time that somebody waits for.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let now = self.now();
        let deadlines = self.0.deadlines.lock().expect("no panic under this lock");
        deadlines.range((Bound::Excluded(now), Bound::Unbounded)).next().map(|(time, _)| *time)
    }

    /// Notes that something of the cluster moves.
    pub(crate) fn stir(&self) {
        self.0.stirred.fetch_add(1, Ordering::Relaxed);
    }

    fn stirred(&self) -> u64 {
        self.0.stirred.load(Ordering::Relaxed)
    }

    /// Waits, while no time passes, until everybody waits for time or input; `false` if somebody still moves after that
    /// much of the machine's time. On a paused tokio runtime the answer is exact; where time is real it means that nobody
    /// has moved for some milliseconds. Cancel-safe.
    pub async fn settle(&self, limit: Duration) -> bool {
        let _held = self.hold();
        self.quiet(SETTLED, limit).await
    }

    #[expect(clippy::disallowed_methods, reason = "a limit on what a paused runtime's time cannot measure")]
    async fn quiet(&self, ticks: u32, limit: Duration) -> bool {
        let began = std::time::Instant::now();
        let (mut seen, mut calm) = (self.stirred(), 0);
        while calm < ticks {
            if began.elapsed() > limit {
                return false;
            }
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if self.stirred() == seen {
                // On a paused runtime this ends when nobody can run.
                tokio::time::sleep(TICK).await;
                calm += 1;
            }
            let now = self.stirred();
            if now != seen {
                (seen, calm) = (now, 0);
            }
        }
        true
    }

    /// Lets others run for that much of tokio's time, which also passes while the clock is held. For who looks again and
    /// again whether something has come true.
    pub(crate) async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// The time as Kubernetes writes it: `2026-01-02T03:04:05Z`, cut to seconds.
    pub fn now_text(&self) -> String {
        time_text(self.now())
    }

    /// Waits until the time has come. Cancel-safe.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let _registered = Registered::new(&self.0.deadlines, deadline);
        let mut shifts = self.0.shift.subscribe();
        self.stir();
        loop {
            let held = shifts.borrow_and_update().held.is_some();
            let left = deadline.duration_since(self.now());
            let Some(left) = Duration::try_from(left).ok().filter(|left| !left.is_zero()) else {
                self.stir();
                return;
            };
            let passes = async {
                match held {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(left).await,
                }
            };
            tokio::select! {
                biased;
                _ = shifts.changed() => {}
                () = passes => {}
            }
        }
    }

    /// Waits that long. Cancel-safe.
    pub async fn sleep(&self, duration: Duration) {
        let deadline = self.now().saturating_add(signed(duration)).expect("a duration is no calendar unit");
        self.sleep_until(deadline).await;
    }

    /// Waits until the time has come, as a value: for who waits again and again for the same time.
    pub fn alarm(&self, deadline: Timestamp) -> Alarm {
        let clock = self.clone();
        Alarm(Box::pin(async move { clock.sleep_until(deadline).await }))
    }

    /// Runs a future for at most that long; `None` when time ran out.
    pub async fn timeout<T>(&self, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = self.sleep(duration) => None,
        }
    }

    /// Moves the clock forward. It stops at each deadline on the way until everybody has done what was due then, so that
    /// timers fire in their order; meanwhile no other time passes.
    pub async fn advance(&self, duration: Duration) {
        let _held = self.hold();
        let end = self.now().saturating_add(signed(duration)).expect("a duration is no calendar unit");
        self.quiet(STEPPED, LONGEST_STEP).await;
        while self.now() < end {
            let next = self.next_deadline().filter(|next| *next < end);
            let target = next.unwrap_or(end);
            self.0.shift.send_modify(|shift| shift.held = shift.held.max(Some(target)));
            self.quiet(STEPPED, LONGEST_STEP).await;
        }
    }
}

/// A wait for a time; see [`Clock::alarm`]. It is ready once.
pub struct Alarm(Pin<Box<dyn Future<Output = ()> + Send + Sync>>);

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

/// How often others may run before it is asked whether they did.
const YIELDS: usize = 64;
/// The pause between two looks at whether somebody moved, in tokio's time.
const TICK: Duration = Duration::from_millis(1);
/// For how many looks in a row nobody may have moved: for who asks whether all is settled, and at a step of the clock.
const SETTLED: u32 = 20;
const STEPPED: u32 = 3;
/// How long the clock waits at one deadline for those who never come to rest.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// A time as Kubernetes writes it: `2026-01-02T03:04:05Z`, cut to seconds.
pub fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as `metav1.MicroTime` writes it: `2026-01-02T03:04:05.000006Z`.
pub fn micro_time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A deadline somebody sleeps for; gone when the sleeper is.
struct Registered<'a> {
    deadlines: &'a Mutex<BTreeMap<Timestamp, usize>>,
    deadline: Timestamp,
}

impl<'a> Registered<'a> {
    fn new(deadlines: &'a Mutex<BTreeMap<Timestamp, usize>>, deadline: Timestamp) -> Self {
        *deadlines.lock().expect("no panic under this lock").entry(deadline).or_default() += 1;
        Self { deadlines, deadline }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut deadlines = self.deadlines.lock().expect("no panic under this lock");
        if let Some(count) = deadlines.get_mut(&self.deadline) {
            *count -= 1;
            if *count == 0 {
                deadlines.remove(&self.deadline);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_paused_runtime_a_long_sleep_takes_no_real_time_and_moves_the_clock() {
        let clock = Clock::starting_at(epoch());
        clock.sleep(Duration::from_secs(600)).await;
        assert_eq!(clock.now_text(), "2026-01-01T00:10:00Z");
    }

    #[tokio::test]
    async fn advance_wakes_sleepers_in_the_order_of_their_deadlines() {
        let clock = Clock::starting_at(epoch());
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [300, 100, 200]
            .into_iter()
            .map(|seconds| {
                let (clock, order) = (clock.clone(), order.clone());
                tokio::spawn(async move {
                    clock.sleep(Duration::from_secs(seconds)).await;
                    order.lock().unwrap().push(seconds);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(250)).await;
        assert_eq!(*order.lock().unwrap(), [100, 200]);
        clock.advance(Duration::from_secs(50)).await;
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [100, 200, 300]);
        assert!(clock.0.deadlines.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_clock_that_is_held_stands_still_and_goes_on_from_there() {
        let clock = Clock::starting_at(epoch());
        let held = clock.hold();
        let before = clock.now();
        assert_eq!(clock.timeout(Duration::from_millis(1), clock.pause(TICK)).await, Some(()), "no time passes");
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now().duration_since(before).as_secs(), 5);
        drop(held);
        clock.sleep(Duration::from_millis(2)).await;
        assert!(clock.now().duration_since(before).as_millis() >= 5002);
    }

    #[tokio::test(start_paused = true)]
    async fn settling_takes_no_time_and_ends_when_nobody_can_run() {
        let clock = Clock::starting_at(epoch());
        let (there, sleeper) = (Arc::new(Mutex::new(0)), clock.clone());
        let count = there.clone();
        let task = tokio::spawn(async move {
            for _ in 0..500 {
                tokio::task::yield_now().await;
                *count.lock().unwrap() += 1;
            }
            sleeper.sleep(Duration::from_millis(1)).await;
            *count.lock().unwrap() += 1;
        });
        assert!(clock.settle(Duration::from_secs(10)).await);
        assert_eq!((*there.lock().unwrap(), clock.now()), (500, epoch()));
        assert_eq!(clock.next_deadline().unwrap().duration_since(epoch()).as_millis(), 1);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_rests_is_not_waited_for_for_ever() {
        let clock = Clock::starting_at(epoch());
        let other = clock.clone();
        let task = tokio::spawn(async move {
            loop {
                other.stir();
                tokio::task::yield_now().await;
            }
        });
        assert!(!clock.settle(Duration::from_millis(20)).await);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_gives_none_when_time_runs_out_and_the_value_when_it_does_not() {
        let clock = Clock::starting_at(epoch());
        assert_eq!(clock.timeout(Duration::from_secs(5), std::future::pending::<()>()).await, None);
        assert_eq!(clock.timeout(Duration::from_secs(5), async { 7 }).await, Some(7));
    }
}
