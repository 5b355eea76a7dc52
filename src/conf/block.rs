//! Reads the raw Lua between the braces of a `…_by_lua_block { … }` directive.
//!
//! nginx has read the opening brace when it calls the directive's handler; from there on the file
//! is ours until the brace that closes the block.

use std::borrow::Cow;

use super::lex::Lexer;
use crate::lua::chunk::Block;
use crate::lua::syntax;
use crate::nginx::conf::{Conf, NoBytes};

/// Reads the block that has just been opened. The error is a message for the user.
pub fn read(cf: Conf) -> Result<Block, String> {
    let line = cf.line();
    // Most blocks lie whole in the reader's buffer and are sure to compile: one look at their
    // bytes tells that and where they end.
    let whole = cf.read(|bytes| {
        let source = syntax::sure_block(bytes).and_then(|end| cf.keep(&bytes[..end]));
        (source.map_or(0, |source| source.len() + 1), source)
    });
    let (source, sure) = match whole {
        Ok(Some(source)) => (Cow::Borrowed(source), true),
        _ => {
            let source = read_on(cf, line)?;
            let sure = syntax::is_sure(&source);
            (Cow::Owned(source), sure)
        }
    };
    let directive = cf.directive();
    let directive = directive.strip_suffix("_block").unwrap_or(directive);
    Ok(Block { directive, file: cf.file_name(), line, source, sure })
}

/// The same for any block, whatever is in it and however long it is.
fn read_on(cf: Conf, line: usize) -> Result<Vec<u8>, String> {
    let mut source = Vec::new();
    let mut lexer = Lexer::new();

    loop {
        let ended = cf.read(|bytes| {
            let end = lexer.find_end(bytes);
            source.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            (end.map_or(bytes.len(), |end| end + 1), end.is_some())
        });
        match ended {
            Ok(true) => {
                source.shrink_to_fit();
                return Ok(source);
            }
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
