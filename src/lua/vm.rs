//! A LuaJIT VM: made, given its paths and its API, closed with what owns it.

use core::cell::OnceCell;
use core::ffi::c_int;
use core::ptr::NonNull;

use mlua::{ffi, Function, Lua, RegistryKey, Table};

use super::call;
use super::memory::{size_text, Limit};
use super::{bytecode, recursion, stack};
use crate::api;

/// The lua_State that raw calls work on.
pub type State = NonNull<ffi::lua_State>;

/// Where a VM looks for modules, with `$prefix` replaced. `;;` stands for the default.
#[derive(Debug, Default)]
pub struct Paths {
    /// `lua_package_path`, the value for `package.path`.
    pub path: OnceCell<Vec<u8>>,
    /// `lua_package_cpath`, the value for `package.cpath`.
    pub cpath: OnceCell<Vec<u8>>,
}

/// A Lua VM with the API in it.
pub struct Vm {
    lua: Lua,
    state: State,
    /// Where the traceback handler stands on the stack, for good: pushed for each call it would
    /// be an allocation.
    pub(super) handler: c_int,
    /// Where the function that collects all garbage stands on the stack.
    pub(super) collect: c_int,
    guard_globals: Function,
    /// The tables of all `ngx.ctx` in use, by their numbers.
    ctx_tables: RegistryKey,
    /// Closes the state when all that refers to it is gone.
    owner: Owner,
}

/// A state that is closed when this is dropped.
struct Owner {
    state: State,
    limit: OnceCell<Box<Limit>>,
}

impl Owner {
    /// A state with LuaJIT's own allocator, which answers a want of memory with an error.
    fn new() -> Option<Self> {
        // SAFETY: makes a state of its own.
        let state = NonNull::new(unsafe { ffi::luaL_newstate() })?;
        Some(Owner { state, limit: OnceCell::new() })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the state is live, nothing runs in it, and nobody else closes it. LuaJIT gives
        // its memory back as a whole, which it does for an allocator of its own only.
        unsafe {
            if let Some(limit) = self.limit.get() {
                limit.lift();
            }
            ffi::lua_close(self.state.as_ptr());
        }
    }
}

impl Vm {
    /// Makes a VM and loads the API into it. The error is a message for the user.
    pub fn new() -> Result<Self, String> {
        stack::prepare();
        let owner = Owner::new().ok_or("no memory for a Lua VM")?;
        let state = owner.state;
        // SAFETY: the state is fresh. All libraries are opened, FFI too: the code that the VM
        // runs comes from the configuration, which is trusted as much as the module itself. The
        // handle is dropped before the state is closed.
        let lua = unsafe {
            if ffi::lua_cpcall(state.as_ptr(), open_libraries, core::ptr::null_mut()) != 0 {
                return Err("no memory for a Lua VM".into());
            }
            Lua::get_or_init_from_ptr(state.as_ptr()).clone()
        };
        // SAFETY: the state is live and nothing runs in it.
        let (handler, collect) = unsafe { call::push_functions(state) };

        let (guard_globals, ctx_tables) = set_up(&lua).map_err(|e| e.to_string())?;
        Ok(Vm { lua, state, handler, collect, guard_globals, ctx_tables, owner })
    }

    /// Bounds the VM's memory, for good; the error is a message for the user.
    pub fn set_limit(&self, limit: usize) -> Result<(), String> {
        call::collect_garbage(self);
        // SAFETY: the state is live and has no limit; the owner lifts it before both end.
        let limit = self.owner.limit.get_or_init(|| unsafe { Limit::set(self.state, limit) });
        limit.check()
    }

    /// Prepares the VM for runs that may be stopped: a hook is not looked at in machine code.
    pub fn make_stoppable(&self) -> Result<(), String> {
        let load = || self.lua.globals().get::<Function>("require")?.call::<()>(api::STOPPABLE);
        load().map_err(|e| e.to_string())
    }

    /// The VM's limit, if it has one.
    #[inline]
    pub fn limit(&self) -> Option<&Limit> {
        self.owner.limit.get().map(Box::as_ref)
    }

    /// What is said in front of a message when the limit was passed: its name and value.
    pub fn limit_passed(&self) -> Option<String> {
        let limit = self.limit().filter(|limit| limit.take_refused())?;
        Some(format!("lua_memory_limit ({}): ", size_text(limit.size())))
    }

    /// Sets `package.path` and `package.cpath`.
    pub fn set_paths(&self, paths: &Paths) -> Result<(), String> {
        let set = || -> mlua::Result<()> {
            let package: Table = self.lua.globals().get("package")?;
            for (name, value) in [("path", paths.path.get()), ("cpath", paths.cpath.get())] {
                if let Some(value) = value {
                    let default = package.get::<mlua::LuaString>(name)?;
                    let value = with_default(value, &default.as_bytes());
                    package.set(name, self.lua.create_string(value)?)?;
                }
            }
            Ok(())
        };
        set().map_err(|e| e.to_string())
    }

    /// The state for raw calls.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// The VM for what is not on the path of a request.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Warns of global variables that are made from now on.
    pub fn guard_globals(&self) -> Result<(), String> {
        self.guard_globals.call::<()>(()).map_err(|e| e.to_string())
    }

    /// Frees what nothing refers to any more, compiled chunks included.
    pub fn collect_garbage(&self) {
        self.lua.expire_registry_values();
        // An error would be one of a finalizer in Lua code; the rest of the garbage waits.
        let _ = self.lua.gc_collect();
    }

    /// Forgets the `ngx.ctx` of a request that has ended.
    pub fn release_ctx(&self, number: c_int) {
        let state = self.state.as_ptr();
        // SAFETY: the registry holds the tables, and luaL_unref only writes to indices that they
        // have: it allocates nothing and so raises nothing.
        unsafe {
            ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, self.ctx_tables.id().into());
            ffi::luaL_unref(state, -1, number);
            ffi::lua_settop(state, -2);
        }
    }
}

/// Opens LuaJIT's libraries, and bounds what they let recurse.
///
/// Not in `guard`: it calls nothing but LuaJIT, whose errors pass through.
unsafe extern "C-unwind" fn open_libraries(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with the fresh state.
    unsafe {
        ffi::luaL_openlibs(state);
        recursion::bound(state);
    }
    0
}

/// Puts the API into a fresh VM. Returns its function that guards the globals, and the table of
/// all `ngx.ctx` in use.
fn set_up(lua: &Lua) -> mlua::Result<(Function, RegistryKey)> {
    let package: Table = lua.globals().get("package")?;
    let preload: Table = package.get("preload")?;
    bytecode::each(lua, |name, loader| preload.set(name, loader))?;

    // Index 0 starts luaL_unref's list of free numbers; set here, it is never made later.
    let tables = lua.create_table()?;
    tables.raw_set(0, 0)?;
    lua.set_named_registry_value("ngx_lua_ctx_tables", &tables)?;

    let require: Function = lua.globals().get("require")?;
    let hooks: Table = require.call(api::BOOTSTRAP)?;
    let ngx: Table = lua.globals().get("ngx")?;
    ngx.raw_set("null", mlua::Value::NULL)?;

    Ok((hooks.get("guard_globals")?, lua.create_registry_value(tables)?))
}

/// A VM that is made at its first use.
#[derive(Default)]
pub struct Lazy(OnceCell<Box<Vm>>);

impl Lazy {
    /// The VM, made now if need be.
    pub fn get_or_new(&self) -> Result<&Vm, String> {
        if self.0.get().is_none() {
            let vm = Vm::new()?;
            // Nothing can have set it meanwhile: making a VM does not come back here.
            let _ = self.0.set(Box::new(vm));
        }
        self.get().ok_or_else(|| "no Lua VM".into())
    }

    /// The VM, if it has been made.
    #[inline]
    pub fn get(&self) -> Option<&Vm> {
        self.0.get().map(Box::as_ref)
    }
}

/// Puts `default` where `value` has `;;`, as Lua does it with `LUA_PATH`.
fn with_default(value: &[u8], default: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.windows(2).position(|w| w == b";;") {
        for part in [&rest[..at], default] {
            if !part.is_empty() {
                if !path.is_empty() {
                    path.push(b';');
                }
                path.extend_from_slice(part);
            }
        }
        rest = &rest[at + 2..];
    }
    if !rest.is_empty() {
        if !path.is_empty() {
            path.push(b';');
        }
        path.extend_from_slice(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::with_default;

    #[test]
    fn two_semicolons_are_the_default_path() {
        for (value, path) in [
            ("/a/?.lua;;", "/a/?.lua;DEF"),
            (";;/a/?.lua", "DEF;/a/?.lua"),
            ("/a;;/b", "/a;DEF;/b"),
            ("/a;/b", "/a;/b"),
            (";;", "DEF"),
            ("", ""),
        ] {
            assert_eq!(with_default(value.as_bytes(), b"DEF"), path.as_bytes());
        }
    }
}
