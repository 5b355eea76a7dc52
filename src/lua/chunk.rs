//! Lua code from the configuration: inline blocks and files, their names and their loading.

use core::ffi::c_int;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use mlua::chunk::ChunkMode;
use mlua::{Function, RegistryKey};

use super::call;
use super::syntax;
use super::vm::Vm;

/// The longest chunk name that Lua shows in full (`LUA_IDSIZE` without its NUL).
const MAX_NAME: usize = 59;

/// Code that a directive gave.
#[derive(Debug)]
pub enum Chunk {
    /// Code between braces.
    Inline(Block),
    /// A file, by its full path.
    File(Vec<u8>),
}

/// A block of Lua in a configuration file. There may be thousands, of which few are run: what can
/// wait until then is not made here, and what the configuration holds for good is not copied.
#[derive(Debug)]
pub struct Block {
    /// The directive without its `_block`: `balancer_by_lua`.
    pub directive: &'static str,
    /// The configuration file.
    pub file: Cow<'static, str>,
    /// The line of the opening brace: line 1 of the chunk.
    pub line: usize,
    /// All between the braces, unchanged.
    pub source: Cow<'static, [u8]>,
    /// Whether it is sure to compile.
    pub sure: bool,
}

/// A chunk that a VM has compiled. It lives as long as the VM.
#[derive(Debug)]
pub struct Loaded(RegistryKey);

impl Loaded {
    /// The function's number in the VM's registry.
    #[inline]
    pub fn reference(&self) -> c_int {
        self.0.id()
    }
}

/// Why a chunk cannot be run.
#[derive(Debug)]
pub struct LoadError {
    /// Lua's or the system's words, with the place.
    pub message: String,
    /// The line of the configuration file that the message is about, where it is known.
    pub line: Option<usize>,
}

impl Chunk {
    /// The name in messages and tracebacks: `=balancer_by_lua(nginx.conf:29)` or `@/path`.
    fn name(&self) -> String {
        match self {
            Chunk::Inline(block) => inline_name(block.directive, &block.file, block.line),
            Chunk::File(path) => format!("@{}", String::from_utf8_lossy(path)),
        }
    }

    /// Sees to it that the chunk compiles. One that is sure to is compiled at its first run only,
    /// which for most of thousands of blocks never comes; then there is no result.
    pub fn check(&self, vm: &Vm) -> Result<Option<Loaded>, LoadError> {
        match self {
            Chunk::Inline(block) if block.sure => Ok(None),
            _ => self.load(vm).map(Some),
        }
    }

    /// Compiles the chunk; a file is read again each time.
    pub fn load(&self, vm: &Vm) -> Result<Loaded, LoadError> {
        let read;
        let (source, sure) = match self {
            Chunk::Inline(block) => (&*block.source, block.sure),
            Chunk::File(path) => {
                read = fs::read(OsStr::from_bytes(path)).map_err(|e| LoadError {
                    message: format!("cannot open {}: {e}", String::from_utf8_lossy(path)),
                    line: None,
                })?;
                let source = without_shebang(&read);
                (source, syntax::is_sure(source))
            }
        };

        call::make_room(vm);
        let name = self.name();
        compile_best(vm, &name, source, sure)
            .and_then(|function| vm.lua().create_registry_value(function))
            .map(Loaded)
            .map_err(|e| self.explain(vm, &name, &e))
    }

    fn explain(&self, vm: &Vm, name: &str, error: &mlua::Error) -> LoadError {
        let message = match error {
            mlua::Error::SyntaxError { message, .. } => message.clone(),
            other => vm.limit_passed().unwrap_or_default() + &other.to_string(),
        };
        let line_in = |block: &Block| {
            let rest = message.strip_prefix(name.strip_prefix('=')?)?.strip_prefix(':')?;
            let line: usize = rest[..rest.find(':')?].parse().ok()?;
            Some(block.line + line - 1)
        };
        let line = match self {
            Chunk::Inline(block) => line_in(block),
            Chunk::File(_) => None,
        };
        LoadError { message, line }
    }
}

/// Code as a function without arguments, where it can be one.
fn compile_best(vm: &Vm, name: &str, source: &[u8], sure: bool) -> mlua::Result<Function> {
    if sure {
        if let Some(body) = compile_body(vm, name, source) {
            return Ok(body);
        }
    }
    // Some code that compiles as a body does not by itself: `end, function()`.
    let chunk = compile(vm, name, source)?;
    Ok(compile_body(vm, name, source).unwrap_or(chunk))
}

fn compile(vm: &Vm, name: &str, source: &[u8]) -> mlua::Result<Function> {
    vm.lua().load(source).set_name(name).set_mode(ChunkMode::Text).into_function()
}

/// Code as a function without arguments: LuaJIT starts no trace at a function with `...`, which a
/// chunk is. `None` for code that uses `...`, or that cannot stand in a function.
fn compile_body(vm: &Vm, name: &str, source: &[u8]) -> Option<Function> {
    let body = [b"return function() ", source, b"\nend"].concat();
    compile(vm, name, &body).and_then(|chunk| chunk.call(())).ok()
}

/// `=balancer_by_lua(nginx.conf:29)`; a name that Lua would cut keeps its end, which has the line.
fn inline_name(directive: &str, file: &str, line: usize) -> String {
    let line = line.to_string();
    let fixed = directive.len() + line.len() + "(:)".len();
    let room = MAX_NAME.saturating_sub(fixed);
    let (dots, file) = if file.len() <= room {
        ("", file)
    } else {
        let mut from = file.len() - room.saturating_sub(3).min(file.len());
        while !file.is_char_boundary(from) {
            from += 1;
        }
        ("...", &file[from..])
    };
    ["=", directive, "(", dots, file, ":", &line, ")"].concat()
}

/// Lua's own loader skips a first line that starts with `#`; its line break stays, for the count.
fn without_shebang(source: &[u8]) -> &[u8] {
    if !source.starts_with(b"#") {
        return source;
    }
    let end = source.iter().position(|b| *b == b'\n').unwrap_or(source.len());
    &source[end..]
}

#[cfg(test)]
mod tests {
    use super::{inline_name, without_shebang};

    #[test]
    fn a_name_tells_file_and_line() {
        assert_eq!(
            inline_name("balancer_by_lua", "nginx.conf", 29),
            "=balancer_by_lua(nginx.conf:29)"
        );
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = inline_name("balancer_by_lua", &"very/".repeat(20), 123);
        assert_eq!(name.len(), 60);
        assert!(name.starts_with("=balancer_by_lua(..."), "{name}");
        assert!(name.ends_with("very/:123)"), "{name}");
    }

    #[test]
    fn a_shebang_keeps_its_line() {
        assert_eq!(without_shebang(b"#!/usr/bin/lua\nreturn"), b"\nreturn");
        assert_eq!(without_shebang(b"return"), b"return");
        assert_eq!(without_shebang(b"#"), b"");
    }
}
