//! A pool of idle connections: which one to use again, and which one makes room.
//!
//! Pure, and generic over what a connection is. A connection is found again by its *identity*, all
//! that it was opened with, compared in full. Every operation takes the same time however many
//! connections and identities there are.

#![forbid(unsafe_code)]

use core::hash::Hasher;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

/// No place.
const NIL: u32 = u32::MAX;

/// Where an idle connection is in its pool. It names another connection once that one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// A number below the pool's capacity, which no other idle connection has.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The place of this number; one that no connection has when it is none.
    pub fn at(index: usize) -> Self {
        Place(u32::try_from(index).unwrap_or(NIL))
    }
}

/// Where the connections of an identity were found last, so that they are found again without
/// looking for them. It is only looked at: what it says is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(u32);

impl Default for Hint {
    fn default() -> Self {
        Hint(NIL)
    }
}

/// Idle connections, at most `capacity` of them.
pub struct Pool<T> {
    capacity: usize,
    idle: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// All idle connections, the one used last in front.
    recent: List,
    identities: Groups,
    /// The callers' own names for parts of the pool, each with a limit of its own.
    names: Groups,
}

struct Slot<T> {
    value: Option<T>,
    identity: u32,
    name: u32,
    /// The neighbours in [`Pool::recent`], in the identity's list, in the name's list.
    links: [Links; 3],
}

#[derive(Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

/// Which of a slot's links a list uses.
#[derive(Clone, Copy)]
enum By {
    Recent = 0,
    Identity = 1,
    Name = 2,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl List {
    const EMPTY: List = List { first: NIL, last: NIL, len: 0 };
}

/// Lists of slots, found by their keys.
#[derive(Default)]
struct Groups {
    table: HashTable<u32>,
    groups: Vec<Group>,
    free: Vec<u32>,
    /// The keys of all groups, one behind the other: they are short, and a piece of memory for
    /// each would take twice as much.
    keys: Vec<u8>,
}

struct Group {
    /// Where the key is in [`Groups::keys`].
    key: usize,
    key_len: u32,
    list: List,
}

impl Group {
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

impl Groups {
    fn find(&self, key: &[u8]) -> Option<u32> {
        self.find_hashed(hash(key), key)
    }

    fn find_hashed(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.table.find(hash, |n| self.groups[*n as usize].key(&self.keys) == key).copied()
    }

    /// Whether the `n`th group has this key. One that is forgotten has an empty one.
    fn has_key(&self, n: u32, key: &[u8]) -> bool {
        self.groups.get(n as usize).is_some_and(|group| group.key(&self.keys) == key)
    }

    fn find_or_add(&mut self, key: &[u8], spare: usize) -> u32 {
        let hashed = hash(key);
        if let Some(n) = self.find_hashed(hashed, key) {
            return n;
        }
        // Empty groups stay, since most come back with the next request; but not without end.
        if self.table.len() >= spare {
            self.forget_empty();
        }
        let group = Group { key: self.keys.len(), key_len: key.len() as u32, list: List::EMPTY };
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
            if group.list.len == 0 {
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

impl<T> Pool<T> {
    /// An empty pool.
    pub fn new(capacity: usize) -> Self {
        Pool {
            capacity,
            idle: 0,
            slots: Vec::new(),
            free: Vec::new(),
            recent: List::EMPTY,
            identities: Groups::default(),
            names: Groups::default(),
        }
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.idle
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.idle == 0
    }

    /// Takes out the connection of this identity that was used last.
    pub fn take(&mut self, identity: &[u8]) -> Option<T> {
        self.take_hinted(identity).0
    }

    /// The same; also says where the identity is found.
    pub fn take_hinted(&mut self, identity: &[u8]) -> (Option<T>, Hint) {
        let Some(group) = self.identities.find(identity) else { return (None, Hint::default()) };
        let slot = self.identities.groups[group as usize].list.first;
        (self.remove(Place(slot)), Hint(group))
    }

    /// Puts a connection in: under `identity`, and, when the caller names a part of the pool, at
    /// most `limit` under that name. `make` learns the place. Returns the connections that made
    /// room, the least recently used ones; the new one itself when there is no room at all.
    pub fn put(
        &mut self,
        identity: &[u8],
        name: Option<(&[u8], usize)>,
        make: impl FnOnce(Place) -> T,
    ) -> Evicted<T> {
        self.put_hinted(identity, Hint::default(), name, make)
    }

    /// The same for an identity that was looked for before.
    pub fn put_hinted(
        &mut self,
        identity: &[u8],
        hint: Hint,
        name: Option<(&[u8], usize)>,
        make: impl FnOnce(Place) -> T,
    ) -> Evicted<T> {
        let mut evicted = Evicted([None, None]);
        let spare = self.capacity.saturating_mul(2).max(64);

        let name = match name {
            Some((key, limit)) => {
                let name = self.names.find_or_add(key, spare);
                let list = self.names.groups[name as usize].list;
                if list.len as usize >= limit {
                    evicted.0[0] = self.remove(Place(list.last));
                }
                if limit == 0 {
                    evicted.0[1] = Some(make(Place(NIL)));
                    return evicted;
                }
                name
            }
            None => NIL,
        };
        if self.capacity == 0 {
            evicted.0[1] = Some(make(Place(NIL)));
            return evicted;
        }
        if self.idle >= self.capacity {
            evicted.0[1] = self.remove(Place(self.recent.last));
        }

        let identity = if self.identities.has_key(hint.0, identity) {
            hint.0
        } else {
            self.identities.find_or_add(identity, spare)
        };
        let n = self.free.pop().unwrap_or_else(|| {
            let links = [Links { before: NIL, after: NIL }; 3];
            self.slots.push(Slot { value: None, identity: NIL, name: NIL, links });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[n as usize];
        slot.value = Some(make(Place(n)));
        slot.identity = identity;
        slot.name = name;

        push_front(&mut self.slots, &mut self.recent, By::Recent, n);
        let list = &mut self.identities.groups[identity as usize].list;
        push_front(&mut self.slots, list, By::Identity, n);
        if name != NIL {
            push_front(&mut self.slots, &mut self.names.groups[name as usize].list, By::Name, n);
        }
        self.idle += 1;
        evicted
    }

    /// Takes a connection out from where it is: the peer has closed it, or it has been idle for
    /// too long.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let n = place.0;
        let slot = self.slots.get_mut(n as usize)?;
        let value = slot.value.take()?;
        let (identity, name) = (slot.identity, slot.name);

        unlink(&mut self.slots, &mut self.recent, By::Recent, n);
        let list = &mut self.identities.groups[identity as usize].list;
        unlink(&mut self.slots, list, By::Identity, n);
        if name != NIL {
            unlink(&mut self.slots, &mut self.names.groups[name as usize].list, By::Name, n);
        }
        self.free.push(n);
        self.idle -= 1;
        Some(value)
    }
}

/// Connections that a [`Pool::put`] pushed out: they are to be closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Evicted<T>([Option<T>; 2]);

impl<T> IntoIterator for Evicted<T> {
    type Item = T;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<T>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

fn push_front<T>(slots: &mut [Slot<T>], list: &mut List, by: By, n: u32) {
    let first = list.first;
    slots[n as usize].links[by as usize] = Links { before: NIL, after: first };
    match first {
        NIL => list.last = n,
        first => slots[first as usize].links[by as usize].before = n,
    }
    list.first = n;
    list.len += 1;
}

fn unlink<T>(slots: &mut [Slot<T>], list: &mut List, by: By, n: u32) {
    let Links { before, after } = slots[n as usize].links[by as usize];
    match before {
        NIL => list.first = after,
        before => slots[before as usize].links[by as usize].after = after,
    }
    match after {
        NIL => list.last = before,
        after => slots[after as usize].links[by as usize].before = before,
    }
    list.len -= 1;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{Hint, Pool};

    fn put(pool: &mut Pool<u32>, identity: &str, value: u32) -> Vec<u32> {
        pool.put(identity.as_bytes(), None, |_| value).into_iter().collect()
    }

    #[test]
    fn the_last_used_comes_back_first() {
        let mut pool = Pool::new(4);
        for n in 1..=3 {
            assert_eq!(put(&mut pool, "a", n), []);
        }
        assert_eq!(pool.take(b"a"), Some(3));
        assert_eq!(pool.take(b"a"), Some(2));
        put(&mut pool, "a", 9);
        assert_eq!(pool.take(b"a"), Some(9));
        assert_eq!((pool.take(b"a"), pool.take(b"a")), (Some(1), None));
        assert!(pool.is_empty());
    }

    #[test]
    fn an_identity_gets_only_its_own() {
        let mut pool = Pool::new(4);
        put(&mut pool, "a", 1);
        put(&mut pool, "b", 2);
        assert_eq!((pool.take(b"c"), pool.take(b"ab"), pool.take(b"")), (None, None, None));
        assert_eq!((pool.take(b"a"), pool.take(b"a")), (Some(1), None));
        assert_eq!(pool.take(b"b"), Some(2));
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut pool = Pool::new(2);
        put(&mut pool, "a", 1);
        put(&mut pool, "b", 2);
        assert_eq!(put(&mut pool, "c", 3), [1]);
        assert_eq!(put(&mut pool, "a", 4), [2]);
        assert_eq!((pool.len(), pool.take(b"b")), (2, None));
    }

    #[test]
    fn a_pool_of_nothing_keeps_nothing() {
        let mut pool = Pool::new(0);
        assert_eq!(put(&mut pool, "a", 1), [1]);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_name_has_its_own_limit() {
        let mut pool = Pool::new(8);
        let named = |pool: &mut Pool<u32>, value, limit| -> Vec<u32> {
            pool.put(b"i", Some((b"n", limit)), |_| value).into_iter().collect()
        };
        assert_eq!(named(&mut pool, 1, 2), []);
        assert_eq!(named(&mut pool, 2, 2), []);
        put(&mut pool, "i", 3);
        assert_eq!(named(&mut pool, 4, 2), [1]);
        assert_eq!(named(&mut pool, 5, 0), [2, 5]);
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn a_place_takes_its_connection_out() {
        let mut pool = Pool::new(4);
        let mut places = Vec::new();
        for n in 0..3 {
            let _ = pool.put(b"a", None, |place| {
                places.push(place);
                n
            });
        }
        assert_eq!(pool.remove(places[1]), Some(1));
        assert_eq!(pool.remove(places[1]), None);
        assert_eq!((pool.take(b"a"), pool.take(b"a"), pool.take(b"a")), (Some(2), Some(0), None));
    }

    /// Against the plainest model there is: a list in the order of use.
    #[test]
    fn it_does_what_a_list_would_do() {
        const CAPACITY: usize = 7;
        let mut random = 12345u64;
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        let mut pool = Pool::new(CAPACITY);
        let mut model: VecDeque<(u64, u32)> = VecDeque::new();
        let mut places = std::collections::HashMap::new();
        // Of any identity, old or new: none may lead to a wrong place.
        let mut hint = Hint::default();

        for value in 0..200_000 {
            let identity = next(200);
            let key = identity.to_le_bytes();
            match next(5) {
                0 | 1 => {
                    let evicted: Vec<u32> = pool
                        .put_hinted(&key, hint, None, |place| {
                            places.insert(value, place);
                            value
                        })
                        .into_iter()
                        .collect();
                    model.push_front((identity, value));
                    let expected: Vec<u32> =
                        model.drain(CAPACITY.min(model.len())..).map(|(_, v)| v).collect();
                    assert_eq!(evicted, expected);
                }
                2 if !model.is_empty() => {
                    let (_, victim) = model[next(model.len() as u64) as usize];
                    assert_eq!(pool.remove(places[&victim]), Some(victim));
                    model.retain(|(_, v)| *v != victim);
                }
                _ => {
                    let at = model.iter().position(|(i, _)| *i == identity);
                    let expected = at.and_then(|at| model.remove(at)).map(|(_, v)| v);
                    let (taken, new) = pool.take_hinted(&key);
                    assert_eq!(taken, expected);
                    if next(4) > 0 {
                        hint = new;
                    }
                }
            }
            assert_eq!(pool.len(), model.len());
            assert!(pool.identities.groups.len() <= 64 + CAPACITY + 1);
            assert!(pool.identities.keys.len() <= (64 + CAPACITY + 1) * key.len());
        }
    }
}
