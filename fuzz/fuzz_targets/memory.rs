//! The memory of parsed texts does what a map would, except that it may forget.
#![no_main]

use std::collections::BTreeMap;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::memory::Memory;

const MAX: usize = 8;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut memory = Memory::<u32, MAX>::default();
    let mut known: BTreeMap<Vec<u8>, u32> = BTreeMap::new();

    let mut value = 0;
    while !input.is_empty() {
        let fails = input.below(4) == 0;
        let text = input.text();
        value += 1;

        let mut parsed = false;
        let got = memory.get_or_parse(text, || {
            parsed = true;
            if fails {
                Err(value)
            } else {
                Ok(value)
            }
        });
        let key = text.to_vec();
        match known.get(&key) {
            Some(known) => {
                assert!(!parsed, "what is known is not parsed again");
                assert_eq!(got, Ok(known));
            }
            None => {
                assert!(parsed, "what nobody has given is not known");
                assert_eq!(got, if fails { Err(value) } else { Ok(&value) });
                if !fails {
                    if known.len() == MAX {
                        known.clear();
                    }
                    known.insert(key, value);
                }
            }
        }
    }
});
