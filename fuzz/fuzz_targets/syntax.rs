//! Code that is said to be sure to compile does compile: by itself, and as the body of a function.
#![no_main]

use fuzz::lua::compiles;
use libfuzzer_sys::fuzz_target;
use module::lua::syntax::is_sure;

fuzz_target!(|data: &[u8]| {
    if is_sure(data) {
        assert!(compiles(data), "as a chunk");
        assert!(compiles(&[b"return function() ", data, b"\nend"].concat()), "as a function");
    }
});
