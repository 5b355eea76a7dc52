//! The memory of addresses gives each as it was parsed, under its own text and port.
#![no_main]

use std::collections::BTreeMap;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::addresses::{Addresses, Known};

/// The longest text that is remembered.
const LONGEST: usize = 127;

/// A `sockaddr` and its name.
type Address = (Vec<u8>, Vec<u8>);

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut addresses = Addresses::default();
    let mut known: BTreeMap<(Vec<u8>, u16), Address> = BTreeMap::new();

    while !input.is_empty() {
        let (how, port) = (input.byte(), input.byte().into());
        let (text, sockaddr, rest) = (input.text(), input.text(), input.text());
        // Most names are the text with something behind it.
        let name = if how & 1 == 0 { [text, rest].concat() } else { rest.to_vec() };

        let key = (text.to_vec(), port);
        let expected = known.get(&key).map(|(sockaddr, name)| Known { sockaddr, name });
        assert_eq!(addresses.find(text, port), expected);
        if expected.is_none() && how & 2 == 0 {
            addresses.remember(text, port, Known { sockaddr, name: &name });
            if text.len() <= LONGEST && name.len() <= 255 {
                known.insert(key, (sockaddr.to_vec(), name));
            }
        }
    }
    for ((text, port), (sockaddr, name)) in &known {
        assert_eq!(addresses.find(text, *port), Some(Known { sockaddr, name }));
    }
});
