//! hyper's timers on the cluster's [`Clock`], so that limits on connections are reached in virtual time too.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;
use jiff::{SignedDuration, Timestamp};

use crate::clock::{Alarm, Clock};

/// A timer that counts the clock's time from an instant on.
#[derive(Clone, Debug)]
pub(super) struct ClockTimer {
    clock: Clock,
    /// Where hyper's instants and the clock's times meet.
    base: Instant,
    start: Timestamp,
}

impl ClockTimer {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), base: TokioTimer::new().now(), start: clock.now() }
    }
}

impl Timer for ClockTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let time = self.clock.now().saturating_add(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
        Box::pin(Sleeping(self.clock.alarm(time.expect("no calendar unit"))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let after = SignedDuration::try_from(deadline.saturating_duration_since(self.base));
        let time = self.start.saturating_add(after.unwrap_or(SignedDuration::MAX)).expect("no calendar unit");
        Box::pin(Sleeping(self.clock.alarm(time)))
    }

    fn now(&self) -> Instant {
        self.base + Duration::try_from(self.clock.now().duration_since(self.start)).unwrap_or_default()
    }
}

struct Sleeping(Alarm);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl Sleep for Sleeping {}
