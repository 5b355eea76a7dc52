//! Lists of places, each found by its key.

#![forbid(unsafe_code)]

use core::hash::Hasher;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::list::{Ends, NIL};
use super::reserve;

/// Lists of slots, found by their keys.
#[derive(Default)]
pub struct Groups<L> {
    table: HashTable<u32>,
    groups: Vec<Group<L>>,
    free: Vec<u32>,
    /// The keys of all groups, one behind the other: they are short, and a piece of memory for
    /// each would take twice as much.
    keys: Vec<u8>,
}

struct Group<L> {
    /// Where the key is in [`Groups::keys`].
    key: usize,
    key_len: u32,
    list: L,
}

impl<L> Group<L> {
    #[inline]
    fn key<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        &keys[self.key..self.key + self.key_len as usize]
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

impl<L: Ends + Default> Groups<L> {
    /// The list of the `n`th group.
    #[inline]
    pub fn list(&mut self, n: u32) -> &mut L {
        &mut self.groups[n as usize].list
    }

    /// The group that has this key.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.find_hashed(hash(key), key)
    }

    fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.table.find(hash, |n| self.groups[*n as usize].key(&self.keys) == key).copied()
    }

    /// Whether the `n`th group has this key. One that is forgotten has an empty one.
    pub fn has_key(&self, n: u32, key: &[u8]) -> bool {
        self.groups.get(n as usize).is_some_and(|group| group.key(&self.keys) == key)
    }

    /// The group that has this key, made if need be. `capacity` is how many places there are, and
    /// so how many groups may have some.
    pub fn find_or_add(&mut self, key: &[u8], capacity: usize) -> u32 {
        let hashed = hash(key);
        if let Some(n) = self.find_hashed(hashed, key) {
            return n;
        }
        let spare = capacity.saturating_mul(2).max(64);
        // Empty groups stay, since most come back with the next request; but not without end.
        if self.table.len() >= spare {
            self.forget_empty();
        }
        if self.groups.is_empty() {
            reserve(&mut self.groups, capacity, 1);
            reserve(&mut self.keys, capacity, key.len());
        }
        let list = L::default();
        let group = Group { key: self.keys.len(), key_len: key.len() as u32, list };
        self.keys.extend_from_slice(key);
        let n = match self.free.pop() {
            Some(n) => {
                self.groups[n as usize] = group;
                n
            }
            None => {
                self.groups.push(group);
                self.groups.len() as u32 - 1
            }
        };
        let (groups, keys) = (&self.groups, &self.keys);
        self.table.insert_unique(hashed, n, |n| hash(groups[*n as usize].key(keys)));
        n
    }

    fn forget_empty(&mut self) {
        let mut keys = Vec::new();
        let (groups, free) = (&mut self.groups, &mut self.free);
        self.table.retain(|n| {
            let group = &mut groups[*n as usize];
            if group.list.first() == NIL {
                (group.key, group.key_len) = (0, 0);
                free.push(*n);
                return false;
            }
            let at = keys.len();
            keys.extend_from_slice(group.key(&self.keys));
            group.key = at;
            true
        });
        self.keys = keys;
    }
}

#[cfg(test)]
impl<L> Groups<L> {
    /// What a group takes, its key left aside.
    pub const GROUP: usize = size_of::<Group<L>>();

    /// For how many groups, and how many bytes of keys, there is room.
    pub fn room(&self) -> (usize, usize) {
        (self.groups.capacity(), self.keys.capacity())
    }

    /// How many groups have been made, and how many bytes of keys there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.groups.len(), self.keys.len())
    }
}
