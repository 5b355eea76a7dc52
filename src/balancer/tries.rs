//! Counting the tries of a request.
//!
//! nginx keeps the number of tries left in `pc->tries`: whoever balances takes one off when a try
//! has ended (`free`), and nginx goes on while there is one left.

#![forbid(unsafe_code)]

/// The tries of one request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How many have begun.
    total: usize,
    /// What was left when the last one ended, if it was ours.
    left: Option<usize>,
}

/// What [`Tries::more`] grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More {
    /// How many tries are added.
    pub count: usize,
    /// Whether that is less than asked for.
    pub reduced: bool,
}

impl Tries {
    /// A try begins; returns how many are left, this one included.
    ///
    /// nginx gives a try back when a pooled connection turned out dead
    /// (`ngx_http_upstream_next`: `peer.tries++`), without a word to the balancer. Taken as a
    /// gift it would let a request with dead connections in the pool pass its limit; the try that
    /// begins now is the gift, and what follows is counted as if it had been the first.
    pub fn begin(&mut self, left: usize) -> usize {
        self.total += 1;
        match self.left.take() {
            Some(after) if left > after => after,
            _ => left,
        }
    }

    /// Our try has ended; returns how many are left.
    pub fn end(&mut self, left: usize) -> usize {
        let left = left.saturating_sub(1);
        self.left = Some(left);
        left
    }

    /// How many of `count` further tries `proxy_next_upstream_tries` (0: no limit) leaves room
    /// for, when `left` are left.
    pub fn more(&self, count: usize, left: usize, limit: usize) -> More {
        let planned = self.total + left.saturating_sub(1);
        if limit == 0 || planned.saturating_add(count) <= limit {
            return More { count, reduced: false };
        }
        More { count: limit.saturating_sub(planned), reduced: true }
    }

    /// How many tries are left, this one included, when `count` peers are to be tried and
    /// `proxy_next_upstream_tries` (0: no limit) is to be kept.
    pub fn for_all(&self, count: usize, limit: usize) -> usize {
        if limit == 0 {
            return count;
        }
        count.min(limit.saturating_sub(self.total.saturating_sub(1)))
    }

    /// How many tries have begun.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::{More, Tries};

    #[test]
    fn a_try_that_ends_is_taken_off() {
        let mut tries = Tries::default();
        assert_eq!(tries.begin(2), 2);
        assert_eq!(tries.end(2), 1);
        assert_eq!(tries.begin(1), 1);
        assert_eq!(tries.end(1), 0);
        assert_eq!(tries.end(0), 0);
        assert_eq!(tries.total(), 2);
    }

    #[test]
    fn a_dead_pooled_connection_gives_no_extra_try() {
        let mut tries = Tries::default();
        assert_eq!(tries.begin(2), 2);
        let left = tries.end(2);
        // nginx: peer.tries++
        assert_eq!(tries.begin(left + 1), 1);
        // A further try was not ours: whatever nginx says counts.
        assert_eq!(tries.begin(5), 5);
    }

    #[test]
    fn a_list_of_peers_stays_within_the_limit() {
        let mut tries = Tries::default();
        tries.begin(1);
        assert_eq!(tries.for_all(3, 0), 3);
        assert_eq!(tries.for_all(3, 2), 2);
        tries.begin(1);
        assert_eq!(tries.for_all(3, 2), 1);
    }

    #[test]
    fn more_tries_stay_within_the_limit() {
        let mut tries = Tries::default();
        tries.begin(1);
        assert_eq!(tries.more(3, 1, 0), More { count: 3, reduced: false });
        assert_eq!(tries.more(3, 1, 4), More { count: 3, reduced: false });
        assert_eq!(tries.more(3, 1, 3), More { count: 2, reduced: true });
        assert_eq!(tries.more(1, 1, 1), More { count: 0, reduced: true });
        assert_eq!(tries.more(usize::MAX, 1, 3), More { count: 2, reduced: true });
        tries.begin(1);
        assert_eq!(tries.more(2, 1, 3), More { count: 1, reduced: true });
    }
}
