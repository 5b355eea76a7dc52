//! Reads the raw Lua between the braces of a `…_by_lua_block { … }` directive.
//!
//! nginx has read the opening brace when it calls the directive's handler; from there on the file
//! is ours until the brace that closes the block.

use super::lex::Lexer;
use crate::nginx::conf::{Conf, NoBytes};

/// A block of Lua as it stands in the file.
pub struct Block {
    /// All between the braces, unchanged.
    pub source: Box<[u8]>,
    /// The line of the opening brace: line 1 of the chunk.
    pub line: usize,
}

/// Reads the block that has just been opened. The error is a message for the user.
pub fn read(cf: Conf) -> Result<Block, String> {
    let line = cf.line();
    let mut source = Vec::new();
    let mut lexer = Lexer::new();

    loop {
        let ended = cf.read(|bytes| {
            let end = lexer.find_end(bytes);
            source.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            (end.map_or(bytes.len(), |end| end + 1), end.is_some())
        });
        match ended {
            Ok(true) => return Ok(Block { source: source.into(), line }),
            Ok(false) => (),
            Err(NoBytes::End) => {
                return Err(format!(
                    "unexpected end of file, expecting \"}}\" that closes the \"{}\" block of \
                     line {line}",
                    cf.directive()
                ));
            }
            Err(NoBytes::NoFile) => {
                return Err(format!(
                    "\"{}\" needs a configuration file: it cannot be given by \"-g\"",
                    cf.directive()
                ));
            }
            Err(NoBytes::Unreadable) => {
                return Err(format!("the \"{}\" block cannot be read", cf.directive()));
            }
        }
    }
}
