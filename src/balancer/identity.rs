//! What a connection or a TLS session was made with: two of them are interchangeable only when
//! all of it is the same.
//!
//! An identity is a string of bytes, compared in full. nginx's own keepalive compares nothing but
//! socket addresses; for its sake an identity is also given a number, which goes into bytes of the
//! address that the kernel does not look at.

#![forbid(unsafe_code)]

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// Writes an identity, part by part. Each part is written so that no two lists of parts give the
/// same bytes.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Stands in front of a number that is not below it.
const LONG: u8 = u8::MAX;

impl Writer {
    /// Starts a new identity, in the memory of the last one.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// A number: a flag, a count, an address of something that lives as long as the pool. Most
    /// are small, and take one byte.
    #[inline]
    pub fn number(&mut self, value: usize) {
        match u8::try_from(value) {
            Ok(value) if value < LONG => self.bytes.push(value),
            _ => {
                self.bytes.push(LONG);
                self.bytes.extend_from_slice(&value.to_ne_bytes());
            }
        }
    }

    /// A string of any length.
    #[inline]
    pub fn text(&mut self, value: &[u8]) {
        self.number(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// The identity so far.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// How many identities keep their number. One that is forgotten gets a new number when it comes
/// back, and its old connections are not used again.
const MAX: usize = 16 * 1024;

/// Gives each identity a number of its own. A number is never given twice.
#[derive(Default)]
pub struct Numbers {
    known: HashMap<Box<[u8]>, u64, FxBuildHasher>,
    next: u64,
}

impl Numbers {
    /// The number of this identity.
    pub fn of(&mut self, identity: &[u8]) -> u64 {
        if let Some(number) = self.known.get(identity) {
            return *number;
        }
        if self.known.len() >= MAX {
            self.known.clear();
        }
        let number = self.fresh();
        self.known.insert(identity.into(), number);
        number
    }

    /// A number that no identity has. The first is 0, which is no mark at all: most upstreams have
    /// one identity only.
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Writer, MAX};

    #[test]
    fn parts_do_not_run_into_each_other() {
        let write = |parts: &[&str]| {
            let mut writer = Writer::default();
            parts.iter().for_each(|part| writer.text(part.as_bytes()));
            writer.bytes().to_vec()
        };
        assert_ne!(write(&["ab", "c"]), write(&["a", "bc"]));
        assert_ne!(write(&["", "a"]), write(&["a", ""]));
        assert_eq!(write(&["a", "b"]), write(&["a", "b"]));
    }

    #[test]
    fn numbers_do_not_run_into_each_other() {
        let numbers = [0, 1, 7, 254, 255, 256, 511, 65535, 1 << 32, usize::MAX - 255, usize::MAX];
        let write = |numbers: &[usize]| {
            let mut writer = Writer::default();
            numbers.iter().for_each(|number| writer.number(*number));
            writer.bytes().to_vec()
        };
        let mut seen = std::collections::HashSet::new();
        for first in numbers {
            assert!(seen.insert(write(&[first])));
            for second in numbers {
                assert!(seen.insert(write(&[first, second])));
            }
        }
    }

    #[test]
    fn an_identity_keeps_its_number() {
        let mut numbers = Numbers::default();
        let (a, b) = (numbers.of(b"a"), numbers.of(b"b"));
        assert_ne!(a, b);
        assert_eq!((numbers.of(b"a"), numbers.of(b"b")), (a, b));
        assert!(![a, b].contains(&numbers.fresh()));
    }

    #[test]
    fn no_number_comes_twice() {
        let mut numbers = Numbers::default();
        let mut seen = std::collections::HashSet::new();
        for n in 0..2 * MAX {
            assert!(seen.insert(numbers.of(&n.to_le_bytes())));
            assert!(numbers.known.len() <= MAX);
        }
        assert!(seen.insert(numbers.of(&0usize.to_le_bytes())));
    }
}
