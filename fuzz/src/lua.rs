//! LuaJIT's compiler, which is asked whether it takes a text.

use core::ptr::NonNull;
use std::sync::OnceLock;

use mlua::ffi;

struct State(NonNull<ffi::lua_State>);

// SAFETY: a target is one thread.
unsafe impl Send for State {}
// SAFETY: as above.
unsafe impl Sync for State {}

/// Whether LuaJIT compiles `text` as a chunk.
pub fn compiles(text: &[u8]) -> bool {
    static STATE: OnceLock<State> = OnceLock::new();
    // SAFETY: a state of our own, which is left as it was; loading raises no errors.
    unsafe {
        let new = || State(NonNull::new(ffi::luaL_newstate()).expect("a Lua state"));
        let state = STATE.get_or_init(new).0.as_ptr();
        let (name, mode) = (c"=fuzz".as_ptr(), c"t".as_ptr());
        let rc = ffi::luaL_loadbufferx(state, text.as_ptr().cast(), text.len(), name, mode);
        ffi::lua_settop(state, 0);
        rc == ffi::LUA_OK
    }
}
