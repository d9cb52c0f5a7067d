//! Addresses of pods.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// The network that all pods live in.
pub(super) const POD_CIDR: &str = "10.244.0.0/16";

/// Hands out addresses of [`POD_CIDR`], each to one pod at a time; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    used: BTreeSet<u16>,
    /// The last one handed out; the next is looked for after it, so that an address is not used again at once.
    last: u16,
}

/// The first addresses are the network's own and the bridge's.
const FIRST: u16 = 2;
/// The last is for broadcasts.
const LAST: u16 = u16::MAX - 1;

impl Addresses {
    /// A free address; `None` when all are taken.
    pub(super) fn take(&self) -> Option<String> {
        let mut inner = self.0.lock().expect("no panic under this lock");
        let start = inner.last.saturating_add(1).max(FIRST);
        let free = (start..=LAST).chain(FIRST..start).find(|number| !inner.used.contains(number))?;
        inner.used.insert(free);
        inner.last = free;
        let [high, low] = free.to_be_bytes();
        Some(format!("10.244.{high}.{low}"))
    }

    /// Gives an address back.
    pub(super) fn give_back(&self, address: &str) {
        let mut parts = address.strip_prefix("10.244.").unwrap_or_default().split('.').map(str::parse::<u8>);
        if let (Some(Ok(high)), Some(Ok(low))) = (parts.next(), parts.next()) {
            self.0.lock().expect("no panic under this lock").used.remove(&u16::from_be_bytes([high, low]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_come_back_into_use_last() {
        let addresses = Addresses::default();
        let all: BTreeSet<String> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(all.len(), 65533);
        addresses.give_back("10.244.1.7");
        assert_eq!(addresses.take().as_deref(), Some("10.244.1.7"));
        assert_eq!(addresses.take(), None);
    }
}
