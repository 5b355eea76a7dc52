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
    /// A try begins.
    #[must_use]
    pub fn begin(self) -> Self {
        Tries { total: self.total + 1 }
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
}

#[cfg(test)]
mod tests {
    use super::{More, Tries};

    #[test]
    fn a_list_of_peers_stays_within_the_limit() {
        let mut tries = Tries::default().begin();
        assert_eq!(tries.for_all(3, 0), 3);
        assert_eq!(tries.for_all(3, 2), 2);
        tries = tries.begin();
        assert_eq!(tries.for_all(3, 2), 1);
    }

    #[test]
    fn more_tries_stay_within_the_limit() {
        let mut tries = Tries::default().begin();
        assert_eq!(tries.more(3, 1, 0), More { count: 3, reduced: false });
        assert_eq!(tries.more(3, 1, 4), More { count: 3, reduced: false });
        assert_eq!(tries.more(3, 1, 3), More { count: 2, reduced: true });
        assert_eq!(tries.more(1, 1, 1), More { count: 0, reduced: true });
        assert_eq!(tries.more(usize::MAX, 1, 3), More { count: 2, reduced: true });
        tries = tries.begin();
        assert_eq!(tries.more(2, 1, 3), More { count: 1, reduced: true });
    }
}
