//! Addresses that Lua has named before: found again by their text instead of parsed again.

#![forbid(unsafe_code)]

use core::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// How many addresses are remembered. One takes some 150 bytes.
const ADDRESSES: usize = 16 * 1024;

/// A bounded memory of parsed addresses, or of anything else that is parsed of a text.
pub struct Addresses<T, const MAX: usize = ADDRESSES> {
    table: HashTable<Entry<T>>,
}

struct Entry<T> {
    text: Box<[u8]>,
    port: u16,
    value: T,
}

impl<T, const MAX: usize> Default for Addresses<T, MAX> {
    fn default() -> Self {
        Addresses { table: HashTable::new() }
    }
}

#[inline]
fn hash(text: &[u8], port: u16) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write(text);
    hasher.write_u16(port);
    hasher.finish()
}

impl<T, const MAX: usize> Addresses<T, MAX> {
    /// What `text` and `port` were parsed to, or what `parse` makes of them now. A failure is not
    /// remembered.
    #[inline]
    pub fn get_or_parse<E>(
        &mut self,
        text: &[u8],
        port: u16,
        parse: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        let hash = hash(text, port);
        let absent = match self.table.find_entry(hash, |e| e.port == port && *e.text == *text) {
            Ok(entry) => return Ok(&entry.into_mut().value),
            Err(absent) => absent,
        };
        let value = parse()?;
        Ok(Self::insert(absent.into_table(), hash, Entry { text: text.into(), port, value }))
    }

    #[cold]
    fn insert(table: &mut HashTable<Entry<T>>, of: u64, entry: Entry<T>) -> &T {
        // Whoever names this many addresses names new ones all the time: which of them comes back
        // cannot be told, and starting afresh keeps both memory and the path of a hit small.
        if table.len() >= MAX {
            table.clear();
        }
        &table.insert_unique(of, entry, |e| hash(&e.text, e.port)).into_mut().value
    }
}

#[cfg(test)]
mod tests {
    use super::{Addresses, ADDRESSES as MAX};

    #[test]
    fn an_address_is_parsed_once() {
        let mut addresses = Addresses::<_>::default();
        let mut parsed = 0;
        for _ in 0..3 {
            let value = addresses.get_or_parse(b"127.0.0.1", 80, || {
                parsed += 1;
                Ok::<_, ()>(7)
            });
            assert_eq!(value, Ok(&7));
        }
        assert_eq!(parsed, 1);
    }

    #[test]
    fn the_port_is_part_of_the_address() {
        let mut addresses = Addresses::<_>::default();
        assert_eq!(addresses.get_or_parse(b"::1", 1, || Ok::<_, ()>(1)), Ok(&1));
        assert_eq!(addresses.get_or_parse(b"::1", 2, || Ok::<_, ()>(2)), Ok(&2));
        assert_eq!(addresses.get_or_parse(b"::1", 1, || Err(())), Ok(&1));
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let mut addresses = Addresses::<_>::default();
        assert_eq!(addresses.get_or_parse(b"x", 1, || Err("no")), Err("no"));
        assert_eq!(addresses.get_or_parse(b"x", 1, || Ok::<_, &str>(1)), Ok(&1));
    }

    #[test]
    fn memory_is_bounded() {
        let mut addresses = Addresses::<_>::default();
        for n in 0..3 * MAX {
            let text = n.to_string();
            assert_eq!(addresses.get_or_parse(text.as_bytes(), 1, || Ok::<_, ()>(n)), Ok(&n));
            assert!(addresses.table.len() <= MAX);
        }
    }
}
