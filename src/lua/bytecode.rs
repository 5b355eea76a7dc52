//! The API's own Lua code as bytecode, for a process that makes more than one VM.
//!
//! Compiling it takes three quarters of what a VM costs. A master makes a VM at each reload, and with
//! `lua_code_cache off` a worker makes one for each request. The bytecode never leaves the process,
//! so that it is read by the LuaJIT that wrote it, whichever that is.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Function, Lua};

use crate::api::MODULES;

/// Bytecode of each of [`MODULES`], in their order.
type Bytecode = Arc<Vec<Vec<u8>>>;

/// Set when the first VM has been made: most processes, `nginx -t` among them, make no other.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// What has been kept.
static KEPT: Mutex<Option<Bytecode>> = Mutex::new(None);

/// How many cycles there are.
static CYCLES: AtomicUsize = AtomicUsize::new(0);

/// A cycle that makes VMs. A reload has the next one before the last is gone; with the last of all
/// the bytecode goes, since nginx unloads the module then.
pub struct Cycle(());

impl Default for Cycle {
    fn default() -> Self {
        CYCLES.fetch_add(1, Relaxed);
        Cycle(())
    }
}

impl Drop for Cycle {
    fn drop(&mut self) {
        if CYCLES.fetch_sub(1, Relaxed) == 1 {
            keep(None);
        }
    }
}

/// Hands each module's loader, compiled in this VM, to `take` with its name.
pub fn each(lua: &Lua, take: impl Fn(&str, Function) -> mlua::Result<()>) -> mlua::Result<()> {
    if let Some(bytecode) = kept() {
        for (module, code) in MODULES.iter().zip(bytecode.iter()) {
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
        keep(Some(Arc::new(bytecode)));
    }
    Ok(())
}

fn kept() -> Option<Bytecode> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn keep(bytecode: Option<Bytecode>) {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = bytecode;
}
