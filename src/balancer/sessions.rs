//! TLS sessions that a worker has at hand: one an identity, the least recently used ones leave.

#![forbid(unsafe_code)]

use super::keepalive::Pool;

/// At most so many sessions, each found by its identity.
pub struct Sessions<T>(Pool<T>);

impl<T: Clone> Sessions<T> {
    /// Room for `capacity` sessions.
    pub fn new(capacity: usize) -> Self {
        Sessions(Pool::new(capacity))
    }

    /// The session of this identity. It stays: a session may be resumed many times.
    pub fn get(&mut self, identity: &[u8]) -> Option<T> {
        let session = self.0.take(identity)?;
        let _ = self.0.put(identity, None, |_| session.clone());
        Some(session)
    }

    /// Keeps a session instead of the one that this identity had.
    pub fn put(&mut self, identity: &[u8], session: T) {
        self.remove(identity);
        let _ = self.0.put(identity, None, |_| session);
    }

    /// Forgets those used longest ago that are of no more use.
    pub fn forget_expired(&mut self, is_expired: impl Fn(&T) -> bool) {
        while let Some((place, _)) = self.0.oldest().filter(|(_, session)| is_expired(session)) {
            drop(self.0.remove(place));
        }
    }

    /// Forgets the session of this identity.
    pub fn remove(&mut self, identity: &[u8]) {
        drop(self.0.take(identity));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::Sessions;

    #[test]
    fn a_session_is_found_again_until_another_comes() {
        let mut sessions = Sessions::new(4);
        sessions.put(b"a", 1);
        assert_eq!(
            (sessions.get(b"a"), sessions.get(b"a"), sessions.get(b"b")),
            (Some(1), Some(1), None)
        );
        sessions.put(b"a", 2);
        assert_eq!((sessions.get(b"a"), sessions.count()), (Some(2), 1));
        sessions.remove(b"a");
        assert_eq!((sessions.get(b"a"), sessions.count()), (None, 0));
    }

    #[test]
    fn the_least_recently_used_leaves() {
        let mut sessions = Sessions::new(2);
        sessions.put(b"a", 1);
        sessions.put(b"b", 2);
        assert_eq!(sessions.get(b"a"), Some(1));
        sessions.put(b"c", 3);
        assert_eq!((sessions.get(b"b"), sessions.get(b"a"), sessions.count()), (None, Some(1), 2));
    }

    #[test]
    fn expired_ones_leave_from_the_end() {
        let mut sessions = Sessions::new(4);
        for (identity, expires) in [(b"a", 1), (b"b", 2), (b"c", 9), (b"d", 3)] {
            sessions.put(identity, expires);
        }
        sessions.forget_expired(|expires| *expires < 5);
        let left = [b"a", b"b", b"c", b"d"].map(|identity| sessions.get(identity));
        assert_eq!(left, [None, None, Some(9), Some(3)]);
        sessions.forget_expired(|_| true);
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn none_is_leaked_or_dropped_twice() {
        let session = Rc::new(());
        let mut sessions = Sessions::new(8);
        for n in 0..1000u32 {
            sessions.put(&(n % 20).to_le_bytes(), session.clone());
            sessions.get(&(n % 7).to_le_bytes());
            sessions.remove(&(n % 11).to_le_bytes());
            assert_eq!(Rc::strong_count(&session), 1 + sessions.count());
        }
        drop(sessions);
        assert_eq!(Rc::strong_count(&session), 1);
    }
}
