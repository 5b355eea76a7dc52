//! Where a block of Lua ends: where a plain scanner of the whole text finds it, and, for all that
//! LuaJIT compiles, where LuaJIT has seen nothing but balanced braces.
#![no_main]

use fuzz::lua::compiles;
use libfuzzer_sys::fuzz_target;
use module::conf::lex::Lexer;

/// Where the block ends in a text that comes in pieces of this length.
fn end(text: &[u8], length: usize) -> Option<usize> {
    let mut lexer = Lexer::new();
    let mut pieces = text.chunks(length).enumerate();
    pieces.find_map(|(n, piece)| lexer.find_end(piece).map(|at| n * length + at))
}

/// The same with the whole text at hand.
fn plain_end(text: &[u8]) -> Option<usize> {
    let is_end_of_line = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let mut depth = 1;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let rest = &text[at..];
        at += match byte {
            b'-' if rest.starts_with(b"--") => match long_bracket(&rest[2..]) {
                Some(len) => 2 + len,
                None => rest.iter().position(is_end_of_line).unwrap_or(rest.len()),
            },
            b'[' => long_bracket(rest).unwrap_or(1),
            b'"' | b'\'' => string(rest),
            b'{' => {
                depth += 1;
                1
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
                1
            }
            _ => 1,
        };
    }
    None
}

/// How long the long bracket is that the text starts with.
fn long_bracket(text: &[u8]) -> Option<usize> {
    let level = text.strip_prefix(b"[")?.iter().take_while(|byte| **byte == b'=').count();
    text[1 + level..].strip_prefix(b"[")?;
    let close = [b"]", "=".repeat(level).as_bytes(), b"]"].concat();
    let inside = &text[level + 2..];
    let end = inside.windows(close.len()).position(|window| window == close);
    Some(end.map_or(text.len(), |end| level + 2 + end + close.len()))
}

/// How long the string is that the text starts with; one that is not finished ends with its line.
fn string(text: &[u8]) -> usize {
    let quote = text[0];
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' => {
                let escaped = &text[at..];
                at += match escaped {
                    [b'\r', b'\n', ..] | [b'\n', b'\r', ..] => 2,
                    [b'z', space @ ..] => {
                        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t'..=b'\r');
                        1 + space.iter().take_while(is_space).count()
                    }
                    [_, ..] => 1,
                    [] => 0,
                };
            }
            b'\n' | b'\r' => break,
            byte if *byte == quote => break,
            _ => (),
        }
    }
    at
}

fuzz_target!(|data: &[u8]| {
    let expected = plain_end(data);
    for length in [1, 2, 3, 7, 64, 4096] {
        assert_eq!(end(data, length), expected, "in pieces of {length}");
    }

    // A first line with a # is Lua's own matter: it is not a comment to anybody else.
    let special = data.starts_with(b"#") || data.starts_with(b"\xef\xbb\xbf");
    if !special && compiles(data) {
        let block = [data, b"\n}"].concat();
        assert_eq!(end(&block, 4096), Some(block.len() - 1), "the braces of code that compiles");
    }
});
