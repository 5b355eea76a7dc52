//! Tries never pass their limit, and each peer of a list is taken once.
#![no_main]

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::list::List;
use module::balancer::tries::Tries;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let limit = input.below(8);
    let peers: Vec<u8> = (0..=u8::MAX).collect();
    let list = List::default();
    let mut expected: Option<core::slice::Iter<u8>> = None;

    // As nginx does it: one try is left at first, and each that ends takes one off.
    let mut tries = Tries::default().begin();
    let (mut left, mut begun) = (1, 1);
    while left > 0 && !input.is_empty() {
        match input.below(5) {
            0 => {
                let count = match input.byte() {
                    255 => usize::MAX,
                    count => count.into(),
                };
                // More than that is not asked for without a limit: the sum is nginx's own number.
                let count = if limit == 0 { count.min(255) } else { count };
                let more = tries.more(count, left, limit);
                assert!(more.count <= count);
                assert_eq!(more.reduced, more.count < count);
                left += more.count;
            }
            1 => {
                let count = input.below(peers.len());
                left = tries.for_all(count, limit);
                assert!(left <= count);
            }
            2 => {
                let count = input.below(peers.len());
                list.set(&peers[..count]);
                expected = Some(peers[..count].iter());
                assert_eq!(list.count(), Some(count));
            }
            3 => {
                list.clear();
                expected = None;
                assert_eq!(list.count(), None);
            }
            _ => {
                assert_eq!(list.next(), expected.as_mut().and_then(Iterator::next).copied());
                left = left.saturating_sub(1);
                if left > 0 {
                    tries = tries.begin();
                    begun += 1;
                }
            }
        }
        let planned = begun + left.saturating_sub(1);
        assert!(limit == 0 || planned <= limit, "{planned} tries of {limit}");
    }
});
