//! [`Ids`]: the only file that invents names and random numbers, all from one seed.

use std::sync::{Arc, Mutex};

use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha8Rng};

/// The letters of generated suffixes: no vowels, so that no words appear (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A shared source of UIDs, name suffixes and other chance; clones draw from the same stream.
#[derive(Clone, Debug)]
pub struct Ids(Arc<Mutex<ChaCha8Rng>>, u64);

impl Ids {
    /// The same seed gives the same ids in the same order.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed))), seed)
    }

    /// The seed that all comes from.
    pub fn seed(&self) -> u64 {
        self.1
    }

    fn with<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.0.lock().expect("no panic under this lock"))
    }

    /// A UID: a version 4 UUID.
    pub fn uid(&self) -> String {
        let mut bytes = [0; 16];
        self.with(|rng| rng.fill_bytes(&mut bytes));
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut uid = String::with_capacity(36);
        for (index, byte) in bytes.into_iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                uid.push('-');
            }
            uid.extend([byte >> 4, byte & 0x0f].map(|digit| HEX[usize::from(digit)] as char));
        }
        uid
    }

    /// A suffix for `generateName` and the like, of upstream's letters.
    pub fn suffix(&self, length: usize) -> String {
        self.with(|rng| (0..length).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect())
    }

    /// A number below the bound.
    ///
    /// # Panics
    /// If the bound is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.with(|rng| rng.random_range(0..bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let draw = |seed| {
            let ids = Ids::seeded(seed);
            (ids.uid(), ids.suffix(5), ids.below(1000))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        let uid = Ids::seeded(1).uid();
        let bytes = uid.as_bytes();
        assert_eq!(uid.len(), 36);
        assert_eq!(bytes[14], b'4');
        assert!(b"89ab".contains(&bytes[19]), "{uid}");
    }
}
