//! Code that is said to be sure to compile does compile: by itself, and as the body of a function.
//! As a block it ends where its braces say.
#![no_main]

use fuzz::lua::compiles;
use libfuzzer_sys::fuzz_target;
use module::conf::lex::Lexer;
use module::lua::syntax::{is_sure, sure_block};

fuzz_target!(|data: &[u8]| {
    if is_sure(data) {
        assert!(compiles(data), "as a chunk");
        assert!(compiles(&[b"return function() ", data, b"\nend"].concat()), "as a function");
        let block = [data, b"\n}"].concat();
        // The line break may be one byte too many.
        if block.len() <= 8 * 1024 {
            assert_eq!(sure_block(&block), Some(block.len() - 1), "as a block");
        }
    }
    if let Some(end) = sure_block(data) {
        assert!(is_sure(&data[..end]), "the code of a block");
        assert_eq!(Lexer::new().find_end(data), Some(end), "the end of a block");
    }
});
