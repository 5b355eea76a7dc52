//! The pool against plain lists, and what it takes.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::groups::Groups;
use super::list::Head;
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

/// There may be ten thousand idle connections in each worker.
#[test]
fn a_connection_takes_little() {
    assert_eq!(size_of::<super::Slot<core::ptr::NonNull<u8>>>(), 32);
    assert_eq!(Groups::<Head>::GROUP, 16);

    let mut pool = Pool::new(1000);
    for n in 0..1000 {
        put(&mut pool, &format!("identity {n:03}"), n);
    }
    assert_eq!((pool.slots.capacity(), pool.named.capacity()), (1000, 0));
    assert_eq!(pool.identities.room(), (1000, 12_000));
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
        let (groups, keys) = pool.identities.sizes();
        assert!(groups <= 64 + CAPACITY + 1);
        assert!(keys <= (64 + CAPACITY + 1) * key.len());
    }
}
