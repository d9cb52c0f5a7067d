//! [`Clock`]: the only file that reads time.
//!
//! `now = epoch + tokio's elapsed time + jumps`. On a paused tokio runtime (`#[tokio::test(start_paused = true)]`) time
//! stands still while anything runs and leaps to the next timer when everything waits; on a running one it passes as
//! usual. [`Clock::advance`] works on both.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
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
    /// How far `advance` has moved the clock beyond tokio's time.
    jumps: watch::Sender<Duration>,
    /// Deadlines that someone sleeps for, with how many do: `advance` stops at each.
    deadlines: Mutex<BTreeMap<Timestamp, usize>>,
}

impl Clock {
    /// A clock that starts at the machine's time; what a server for other processes uses.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    pub fn system() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// A clock that starts at a given time; what a test uses, so that its times are the same in each run.
    pub fn starting_at(epoch: Timestamp) -> Self {
        let (jumps, _) = watch::channel(Duration::ZERO);
        Self(Arc::new(Inner { epoch, start: Instant::now(), jumps, deadlines: Mutex::default() }))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let passed = self.0.start.elapsed() + *self.0.jumps.borrow();
        self.0.epoch.saturating_add(signed(passed)).expect("a duration is no calendar unit")
    }

    /// The time as Kubernetes writes it: `2026-01-02T03:04:05Z`, cut to seconds.
    pub fn now_text(&self) -> String {
        time_text(self.now())
    }

    /// Waits until the time has come. Cancel-safe.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let _registered = Registered::new(&self.0.deadlines, deadline);
        let mut jumps = self.0.jumps.subscribe();
        loop {
            jumps.borrow_and_update();
            let left = deadline.duration_since(self.now());
            let Ok(left) = Duration::try_from(left) else { return };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                _ = jumps.changed() => {}
                () = tokio::time::sleep(left) => {}
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

    /// Moves the clock forward, stopping at each deadline on the way so that sleepers wake in order.
    pub async fn advance(&self, duration: Duration) {
        let end = self.now().saturating_add(signed(duration)).expect("a duration is no calendar unit");
        loop {
            // Where time is real it may have passed the end meanwhile.
            let now = self.now().min(end);
            let next =
                self.0.deadlines.lock().expect("no panic under this lock").range(now..=end).next().map(|(t, _)| *t);
            let target = next.unwrap_or(end);
            let step = Duration::try_from(target.duration_since(now)).unwrap_or_default();
            self.0.jumps.send_modify(|jumps| *jumps += step);
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if self.now() >= end {
                return;
            }
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

/// How often `advance` lets other tasks run at each deadline before it goes on.
const YIELDS: usize = 64;

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

    #[tokio::test(start_paused = true)]
    async fn a_timeout_gives_none_when_time_runs_out_and_the_value_when_it_does_not() {
        let clock = Clock::starting_at(epoch());
        assert_eq!(clock.timeout(Duration::from_secs(5), std::future::pending::<()>()).await, None);
        assert_eq!(clock.timeout(Duration::from_secs(5), async { 7 }).await, Some(7));
    }
}
