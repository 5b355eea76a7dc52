//! The API's own Lua code as bytecode, for a process that makes more than one VM.
//!
//! Compiling it takes three quarters of what a VM costs. A master makes a VM at each reload, and with
//! `lua_code_cache off` a worker makes one for each request. The bytecode never leaves the process,
//! so that it is read by the LuaJIT that wrote it, whichever that is.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::OnceLock;

use mlua::{Function, Lua};

use crate::api::MODULES;

/// Set when the first VM has been made: most processes, `nginx -t` among them, make no other.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// Bytecode of each of [`MODULES`], in their order.
static BYTECODE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

/// Hands each module's loader, compiled in this VM, to `take` with its name.
pub fn each(lua: &Lua, take: impl Fn(&str, Function) -> mlua::Result<()>) -> mlua::Result<()> {
    if let Some(bytecode) = BYTECODE.get() {
        for (module, code) in MODULES.iter().zip(bytecode) {
            take(module.name, lua.load(&**code).set_name(module.chunk_name()).into_function()?)?;
        }
        return Ok(());
    }

    let mut bytecode = AGAIN.swap(true, Relaxed).then(Vec::new);
    for module in MODULES {
        let loader = lua.load(module.source).set_name(module.chunk_name()).into_function()?;
        if let Some(bytecode) = &mut bytecode {
            bytecode.push(loader.dump(false));
        }
        take(module.name, loader)?;
    }
    if let Some(bytecode) = bytecode {
        // Where another has been faster, its bytecode is the same.
        let _ = BYTECODE.set(bytecode);
    }
    Ok(())
}
