//! Lua code from the configuration: inline blocks and files, their names and their loading.

use core::ffi::c_int;
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
pub struct Chunk {
    /// The name in messages and tracebacks: `=balancer_by_lua(nginx.conf:29)` or `@/path`.
    name: String,
    /// The line of the file that is line 1 of the chunk; 0 for a Lua file.
    line: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Inline(Box<[u8]>),
    File(Vec<u8>),
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
    /// A block of `directive` (`balancer_by_lua`) that starts on a line of a configuration file.
    pub fn inline(directive: &str, file: &str, line: usize, source: Box<[u8]>) -> Self {
        Chunk { name: inline_name(directive, file, line), line, source: Source::Inline(source) }
    }

    /// A file, by its full path.
    pub fn file(path: Vec<u8>) -> Self {
        let name = format!("@{}", String::from_utf8_lossy(&path));
        Chunk { name, line: 0, source: Source::File(path) }
    }

    /// Sees to it that the chunk compiles. One that is sure to is compiled at its first run only,
    /// which for most of thousands of blocks never comes; then there is no result.
    pub fn check(&self, vm: &Vm) -> Result<Option<Loaded>, LoadError> {
        match &self.source {
            Source::Inline(source) if syntax::is_sure(source) => Ok(None),
            _ => self.load(vm).map(Some),
        }
    }

    /// Compiles the chunk; a file is read again each time.
    pub fn load(&self, vm: &Vm) -> Result<Loaded, LoadError> {
        let read;
        let source = match &self.source {
            Source::Inline(source) => source,
            Source::File(path) => {
                read = fs::read(OsStr::from_bytes(path)).map_err(|e| LoadError {
                    message: format!("cannot open {}: {e}", String::from_utf8_lossy(path)),
                    line: None,
                })?;
                without_shebang(&read)
            }
        };

        call::make_room(vm);
        self.compile_best(vm, source)
            .and_then(|function| vm.lua().create_registry_value(function))
            .map(Loaded)
            .map_err(|e| self.explain(vm, &e))
    }

    /// The chunk as a function without arguments, where it can be one.
    fn compile_best(&self, vm: &Vm, source: &[u8]) -> mlua::Result<Function> {
        if syntax::is_sure(source) {
            if let Some(body) = self.compile_body(vm, source) {
                return Ok(body);
            }
        }
        // Some code that compiles as a body does not by itself: `end, function()`.
        let chunk = self.compile(vm, source)?;
        Ok(self.compile_body(vm, source).unwrap_or(chunk))
    }

    fn compile(&self, vm: &Vm, source: &[u8]) -> mlua::Result<Function> {
        vm.lua().load(source).set_name(&self.name).set_mode(ChunkMode::Text).into_function()
    }

    /// The chunk as a function without arguments: LuaJIT starts no trace at a function with `...`,
    /// which a chunk is. `None` for code that uses `...`, or that cannot stand in a function.
    fn compile_body(&self, vm: &Vm, source: &[u8]) -> Option<Function> {
        let body = [b"return function() ", source, b"\nend"].concat();
        self.compile(vm, &body).and_then(|chunk| chunk.call(())).ok()
    }

    fn explain(&self, vm: &Vm, error: &mlua::Error) -> LoadError {
        let message = match error {
            mlua::Error::SyntaxError { message, .. } => message.clone(),
            other => vm.limit_passed().unwrap_or_default() + &other.to_string(),
        };
        let line = (self.line > 0)
            .then(|| {
                let rest = message.strip_prefix(self.name.strip_prefix('=')?)?.strip_prefix(':')?;
                let line: usize = rest[..rest.find(':')?].parse().ok()?;
                Some(self.line + line - 1)
            })
            .flatten();
        LoadError { message, line }
    }
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
