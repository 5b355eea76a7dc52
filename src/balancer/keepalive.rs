//! A pool of idle connections: which one to use again, and which one makes room.
//!
//! Pure, and generic over what a connection is. A connection is found again by its *identity*, all
//! that it was opened with, compared in full. Every operation takes the same time however many
//! connections and identities there are.

#![forbid(unsafe_code)]

mod groups;
mod list;

use groups::Groups;
use list::{push_front, unlink, Ends, Head, Links, List, Nodes, NIL};

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
    identities: Groups<Head>,
    /// The callers' own names for parts of the pool, each with a limit of its own.
    names: Groups<Part>,
    /// The neighbours in the names' lists; of no slots where nobody gives names.
    named: Vec<Links>,
}

struct Slot<T> {
    value: Option<T>,
    identity: u32,
    name: u32,
    /// The neighbours in [`Pool::recent`] and in the identity's list.
    links: [Links; 2],
}

/// The connections under a name.
#[derive(Default)]
struct Part {
    list: List,
    len: u32,
}

impl Ends for Part {
    fn first(&self) -> u32 {
        self.list.first()
    }

    fn set_first(&mut self, n: u32) {
        self.list.set_first(n);
    }

    fn set_last(&mut self, n: u32) {
        self.list.set_last(n);
    }
}

/// Slots, seen by one of their links.
struct By<'a, T, const LINKS: usize>(&'a mut [Slot<T>]);

const RECENT: usize = 0;
const IDENTITY: usize = 1;

impl<T, const LINKS: usize> Nodes for By<'_, T, LINKS> {
    #[inline]
    fn links(&mut self, n: u32) -> &mut Links {
        &mut self.0[n as usize].links[LINKS]
    }
}

/// Makes room for what `capacity` places may need of a list that is still empty. Memory that is
/// never written to takes none; a list that grew by doubling would leave its smaller ones behind.
#[cold]
fn reserve<T>(list: &mut Vec<T>, capacity: usize, each: usize) {
    // More could come as one huge page, which is there as a whole.
    let most = (1 << 20) / size_of::<T>();
    // Without memory for all there may be enough for one.
    let _ = list.try_reserve_exact(capacity.saturating_mul(each).min(most));
}

impl<T> Pool<T> {
    /// An empty pool.
    pub fn new(capacity: usize) -> Self {
        Pool {
            capacity,
            idle: 0,
            slots: Vec::new(),
            free: Vec::new(),
            recent: List::default(),
            identities: Groups::default(),
            names: Groups::default(),
            named: Vec::new(),
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
        let slot = self.identities.list(group).first();
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

        let name = match name {
            Some((key, limit)) => {
                let name = self.names.find_or_add(key, self.capacity);
                let part = self.names.list(name);
                if part.len as usize >= limit {
                    let last = part.list.last();
                    evicted.0[0] = self.remove(Place(last));
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
            evicted.0[1] = self.remove(Place(self.recent.last()));
        }

        let identity = if self.identities.has_key(hint.0, identity) {
            hint.0
        } else {
            self.identities.find_or_add(identity, self.capacity)
        };
        let n = self.free.pop().unwrap_or_else(|| {
            if self.slots.is_empty() {
                reserve(&mut self.slots, self.capacity, 1);
            }
            let links = [Links::NONE; 2];
            self.slots.push(Slot { value: None, identity: NIL, name: NIL, links });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[n as usize];
        slot.value = Some(make(Place(n)));
        slot.identity = identity;
        slot.name = name;

        push_front(&mut By::<T, RECENT>(&mut self.slots), &mut self.recent, n);
        let list = self.identities.list(identity);
        push_front(&mut By::<T, IDENTITY>(&mut self.slots), list, n);
        if name != NIL {
            if self.named.len() < self.slots.len() {
                self.named.resize(self.slots.len(), Links::NONE);
            }
            let part = self.names.list(name);
            push_front(&mut self.named[..], part, n);
            part.len += 1;
        }
        self.idle += 1;
        evicted
    }

    /// The connection that was put in longest ago.
    pub fn oldest(&self) -> Option<(Place, &T)> {
        let n = self.recent.last();
        Some((Place(n), self.slots.get(n as usize)?.value.as_ref()?))
    }

    /// Takes a connection out from where it is: the peer has closed it, or it has been idle for
    /// too long.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let n = place.0;
        let slot = self.slots.get_mut(n as usize)?;
        let value = slot.value.take()?;
        let (identity, name) = (slot.identity, slot.name);

        unlink(&mut By::<T, RECENT>(&mut self.slots), &mut self.recent, n);
        let list = self.identities.list(identity);
        unlink(&mut By::<T, IDENTITY>(&mut self.slots), list, n);
        if name != NIL {
            let part = self.names.list(name);
            unlink(&mut self.named[..], part, n);
            part.len -= 1;
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

#[cfg(test)]
mod tests;
