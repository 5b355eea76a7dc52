//! The list of candidates that `set_peers` gives: each try takes the next one.

#![forbid(unsafe_code)]

use core::cell::Cell;

/// Candidates in order, of which each is taken once.
pub struct List<'a, T> {
    peers: Cell<Option<&'a [T]>>,
    next: Cell<usize>,
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List { peers: Cell::new(None), next: Cell::new(0) }
    }
}

impl<'a, T: Copy> List<'a, T> {
    /// Starts with the first of `peers`.
    pub fn set(&self, peers: &'a [T]) {
        self.peers.set(Some(peers));
        self.next.set(0);
    }

    /// There are no candidates.
    pub fn clear(&self) {
        self.peers.set(None);
    }

    /// The next candidate; `None` when all were taken.
    #[inline]
    pub fn next(&self) -> Option<T> {
        let peer = *self.peers.get()?.get(self.next.get())?;
        self.next.set(self.next.get() + 1);
        Some(peer)
    }

    /// How many candidates there are, taken or not; `None` without a list.
    pub fn count(&self) -> Option<usize> {
        self.peers.get().map(<[T]>::len)
    }
}

#[cfg(test)]
mod tests {
    use super::List;

    #[test]
    fn each_is_taken_once_in_order() {
        let list = List::default();
        assert_eq!((list.next(), list.count()), (None, None));
        list.set(&[1, 2]);
        assert_eq!((list.next(), list.next(), list.next()), (Some(1), Some(2), None));
        assert_eq!(list.count(), Some(2));
        list.set(&[3]);
        assert_eq!((list.next(), list.next()), (Some(3), None));
        list.clear();
        assert_eq!((list.next(), list.count()), (None, None));
    }
}
