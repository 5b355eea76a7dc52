//! The cache in shared memory, over nginx's slab allocator: it gives what was put in or nothing,
//! also when its entries are damaged, or a process has died in the middle of it.
#![no_main]

use std::collections::BTreeMap;

use fuzz::input::Input;
use fuzz::nginx::{OwnConf, Zone};
use libfuzzer_sys::fuzz_target;
use module::nginx::shm::{Miss, SharedCache, MAX_VALUE, MIN_SIZE};
use ngx::ffi::{ngx_slab_pool_t, ngx_time};

/// What stands in front of an entry's key, without the pointers that it starts with: those lead
/// nginx's own allocator as well.
const HEADER: usize = 32;

struct Kept {
    value: Vec<u8>,
    expires: i64,
}

/// A key that stands nowhere else in the zone.
fn key_of(n: usize, length: usize) -> Vec<u8> {
    let mut key = vec![b'k'; 8 + length];
    key[..8].copy_from_slice(&(0x6b65_7920_6f66_0000 + (length << 8 | n) as u64).to_be_bytes());
    key
}

/// Changes a byte of the entry that has this key: of its header, its key or its value of this
/// length. What was freed keeps its bytes; false where that could be taken for the entry.
fn damage(zone: &mut Zone, key: &[u8], length: usize, input: &mut Input) -> bool {
    let zone = zone.bytes();
    let words = zone.chunks_exact(8).enumerate();
    let mut places = words.filter(|(_, word)| *word == &key[..8]).map(|(n, _)| n * 8);
    let (Some(place), None) = (places.next(), places.next()) else { return false };
    let at = input.below(HEADER + key.len() + length.min(64));
    zone[place - HEADER + at] ^= input.byte();
    true
}

/// A process dies while it is at the cache, and leaves anything in it.
fn die(zone: &mut Zone, left: u8) {
    const HEAD: usize = size_of::<ngx_slab_pool_t>();
    let zone = zone.bytes();
    // SAFETY: a zone starts with its allocator, which knows the table, whose first word says that
    // somebody is at it.
    unsafe {
        let table = (*zone.as_ptr().cast::<ngx_slab_pool_t>()).data.cast::<u32>();
        zone[HEAD..].fill(left);
        table.write(1);
    }
}

fn free_pages(zone: &mut Zone) -> usize {
    // SAFETY: a zone starts with its allocator.
    unsafe { (*zone.bytes().as_ptr().cast::<ngx_slab_pool_t>()).pfree }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut conf = OwnConf::default();
    let size = MIN_SIZE + input.below(3) * 4096;
    let cache = SharedCache::add(conf.get(), b"fuzz", size).expect("a zone");
    let mut zone = conf.map();
    let free_at_first = free_pages(&mut zone);

    let now = ngx_time();
    let mut known: BTreeMap<Vec<u8>, Kept> = BTreeMap::new();
    let mut used: Vec<Vec<u8>> = Vec::new();
    let mut damaged = false;

    while !input.is_empty() {
        let what = input.below(9);
        let key = key_of(input.below(8), input.below(2) * 48);
        used.push(key.clone());
        match what {
            0..=2 => {
                let length = usize::from(input.short()) % (MAX_VALUE + 16);
                let value = vec![input.byte(); length];
                let expires = now + 1000 - i64::from(input.byte() == 0) * 2000;
                let kept = cache.put(&key, &value, expires);
                assert!(length <= MAX_VALUE || !kept);
                if kept {
                    // A value that nobody wants any more is not looked for.
                    if expires > now && !damaged {
                        assert_eq!(cache.get(&key).as_ref(), Ok(&value));
                    }
                    known.insert(key, Kept { value, expires });
                } else if length <= MAX_VALUE {
                    known.remove(&key);
                }
            }
            3..=5 => match cache.get(&key) {
                Ok(value) => {
                    let kept = known.get(&key).expect("nothing comes of itself");
                    assert!(value == kept.value && (damaged || kept.expires > now));
                }
                Err(Miss::None) => {
                    known.remove(&key);
                }
                Err(Miss::Damaged) => assert!(damaged),
            },
            6 => {
                cache.remove(&key);
                assert_eq!(cache.get(&key), Err(Miss::None));
                known.remove(&key);
            }
            7 => {
                if let Ok(value) = cache.get(&key) {
                    damaged |= damage(&mut zone, &key, value.len(), &mut input);
                }
            }
            _ => {
                die(&mut zone, input.byte());
                assert_eq!(cache.get(&key), Err(Miss::None));
                known.clear();
                damaged = false;
            }
        }
    }

    // All that was taken is given back.
    if !damaged {
        used.iter().for_each(|key| cache.remove(key));
        assert_eq!(free_pages(&mut zone), free_at_first);
    }
});
