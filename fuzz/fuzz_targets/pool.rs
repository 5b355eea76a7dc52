//! The pool of idle connections does what a list in the order of use would.
#![no_main]

use std::collections::BTreeMap;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::keepalive::{Place, Pool};

/// An idle connection, as the plain list has it.
struct Idle<'a> {
    identity: &'a [u8],
    name: Option<&'a [u8]>,
    value: u32,
}

/// The last one used in front.
struct Model<'a> {
    idle: Vec<Idle<'a>>,
    capacity: usize,
}

impl<'a> Model<'a> {
    fn take(&mut self, identity: &[u8]) -> Option<u32> {
        let at = self.idle.iter().position(|idle| idle.identity == identity)?;
        Some(self.idle.remove(at).value)
    }

    fn put(&mut self, new: Idle<'a>, limit: usize) -> Vec<u32> {
        let mut evicted = Vec::new();
        if let Some(name) = new.name {
            let mut named = (0..self.idle.len()).rev().filter(|n| self.idle[*n].name == Some(name));
            // With a limit that has become smaller, one leaves for each that comes.
            if let (Some(last), true) = (named.next(), named.count() + 1 >= limit) {
                evicted.push(self.idle.remove(last).value);
            }
            if limit == 0 {
                evicted.push(new.value);
                return evicted;
            }
        }
        if self.capacity == 0 {
            evicted.push(new.value);
            return evicted;
        }
        if self.idle.len() >= self.capacity {
            evicted.extend(self.idle.pop().map(|idle| idle.value));
        }
        self.idle.insert(0, new);
        evicted
    }

    fn remove(&mut self, value: u32) -> Option<u32> {
        let at = self.idle.iter().position(|idle| idle.value == value)?;
        Some(self.idle.remove(at).value)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let capacity = input.below(12);
    let mut pool: Pool<u32> = Pool::new(capacity);
    let mut model = Model { idle: Vec::new(), capacity };
    let mut places: BTreeMap<u32, Place> = BTreeMap::new();

    let mut value = 0;
    while !input.is_empty() {
        match input.below(8) {
            0..=2 => {
                value += 1;
                let identity = input.text();
                let name = (input.below(2) == 1).then(|| (input.text(), input.below(6)));
                let mut place = None;
                let evicted: Vec<u32> = pool
                    .put(identity, name, |at| {
                        place = Some(at);
                        value
                    })
                    .into_iter()
                    .collect();
                let (name, limit) = name.unzip();
                let expected = model.put(Idle { identity, name, value }, limit.unwrap_or(0));
                assert_eq!(evicted, expected);
                let place = place.expect("a place for each");
                if evicted.contains(&value) {
                    assert_eq!(pool.remove(place), None);
                } else {
                    assert!(place.index() < capacity);
                    let taken = model.idle.iter().filter(|idle| idle.value != value);
                    assert!(!taken.map(|idle| places[&idle.value]).any(|other| other == place));
                    places.insert(value, place);
                }
            }
            3..=5 => {
                let identity = input.text();
                assert_eq!(pool.take(identity), model.take(identity));
            }
            _ => {
                if model.idle.is_empty() {
                    continue;
                }
                let victim = model.idle[input.below(model.idle.len())].value;
                assert_eq!(pool.remove(places[&victim]), model.remove(victim));
                assert_eq!(pool.remove(places[&victim]), None);
            }
        }
        assert_eq!((pool.len(), pool.is_empty()), (model.idle.len(), model.idle.is_empty()));
        assert!(pool.len() <= capacity);
    }
});
