//! A bounded log of one bucket's changes.

use std::{collections::VecDeque, sync::Arc};

use super::{Entry, TooOld};
use crate::base::Stored;

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// Revision of the commit.
    pub revision: u64,
    /// What stood there before.
    pub old: Option<Entry>,
    /// What stands there now; for a deletion the last value, with the revision of the deletion.
    pub value: Arc<Stored>,
    /// Whether the key is gone.
    pub deleted: bool,
}

/// The newest changes of a bucket, oldest first.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Event>,
    capacity: usize,
    /// Everything up to this revision is forgotten: the state after it is the oldest that can be read back.
    oldest: u64,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Self {
        Self { events: VecDeque::new(), capacity, oldest: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(self.events.back().is_none_or(|last| last.revision < event.revision), "revisions only grow");
        self.events.push_back(event);
        while self.events.len() > self.capacity {
            self.oldest = self.events.pop_front().expect("longer than its capacity").revision;
        }
    }

    /// The events after a revision, oldest first.
    pub(super) fn after(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.range(self.events.partition_point(|event| event.revision <= revision)..)
    }

    /// Whether every event after the revision is still there.
    pub(super) fn check(&self, revision: u64) -> Result<(), TooOld> {
        if revision < self.oldest { Err(TooOld { oldest: self.oldest }) } else { Ok(()) }
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.events.clear();
        self.oldest = revision;
    }
}
