//! Running a chunk: protected, with a traceback when it fails.

use core::ffi::{c_char, c_int, CStr};
use core::slice;

use mlua::ffi;

use super::current::{Current, Scope};
use super::timeout;
use super::vm::{State, Vm};

/// A chunk has failed, and its message has been told.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

/// Runs the function that `reference` names in the registry, without arguments and results, for
/// at most as many milliseconds; 0 is no limit. On failure `on_error` gets the message with its
/// traceback.
#[inline]
pub fn run(
    vm: &Vm,
    reference: c_int,
    current: Current,
    milliseconds: usize,
    on_error: impl FnOnce(&[u8]),
) -> Result<(), Failed> {
    let state = vm.state().as_ptr();
    make_room(vm);
    let scope = Scope::enter(current);
    // SAFETY: the state is live; the registry holds a function under `reference`, and pcall
    // catches whatever it raises.
    let (status, late) = timeout::run(vm.state(), milliseconds, || unsafe {
        // lua_rawgeti without the underscore is mlua's own, which asks for the type, too.
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, reference);
        ffi::lua_pcall(state, 0, 0, vm.handler)
    });
    drop(scope);
    if status == ffi::LUA_OK && !late {
        return Ok(());
    }

    let late = late.then(|| timeout::message(milliseconds));
    if status == ffi::LUA_OK {
        // Nothing was raised any more, or it was caught: late it is all the same.
        on_error(late.unwrap_or_default().as_bytes());
        return Err(Failed);
    }
    let passed = vm.limit_passed();
    let no_memory = status == ffi::LUA_ERRMEM || passed.is_some();
    // SAFETY: a failed pcall leaves one value on the stack: the message.
    unsafe {
        let message = match status {
            // Neither had the handler any.
            ffi::LUA_ERRERR if no_memory => b"not enough memory",
            _ => message(vm.state()),
        };
        let late = late.filter(|late| !message.windows(late.len()).any(|w| w == late.as_bytes()));
        let prefix = late.map(|late| late + ": ").or(passed);
        match prefix {
            Some(prefix) => on_error(&[prefix.as_bytes(), message].concat()),
            None => on_error(message),
        }
        ffi::lua_settop(state, -2);
    }
    if no_memory {
        // What the failed call has left is garbage now: the next one is to find room.
        collect_garbage(vm);
    }
    Err(Failed)
}

/// Collects garbage before code runs in a VM whose memory gets short.
#[inline]
pub fn make_room(vm: &Vm) {
    if let Some(limit) = vm.limit() {
        limit.take_refused();
        if limit.is_short() {
            collect_garbage(vm);
        }
    }
}

/// Collects all garbage. An error in a finalizer ends it early, and is nobody's.
#[cold]
pub fn collect_garbage(vm: &Vm) {
    let state = vm.state().as_ptr();
    // SAFETY: the state is live, and the function stands on its stack; a failed pcall leaves one
    // value on it.
    unsafe {
        ffi::lua_pushvalue(state, vm.collect);
        if ffi::lua_pcall(state, 0, 0, 0) != ffi::LUA_OK {
            ffi::lua_settop(state, -2);
        }
    }
    if let Some(limit) = vm.limit() {
        limit.collected();
    }
}

/// The message on top of the stack.
///
/// # Safety
/// The state is live, and the result is used before the value is popped.
#[cold]
unsafe fn message<'a>(state: State) -> &'a [u8] {
    let state = state.as_ptr();
    // SAFETY: a string on the stack is valid until it is popped. Only a string is asked for its
    // text: converting a number could raise an error for want of memory.
    unsafe {
        if ffi::lua_type(state, -1) != ffi::LUA_TSTRING {
            return b"unknown reason";
        }
        let mut len = 0;
        let text = ffi::lua_tolstring(state, -1, &mut len);
        slice::from_raw_parts(text.cast(), len)
    }
}

/// Leaves the message handler and the garbage collector on the stack, since pushed for each call
/// they would be allocations. Returns their places.
///
/// # Safety
/// The state is live, and nothing runs in it.
pub(super) unsafe fn push_functions(state: State) -> (c_int, c_int) {
    // SAFETY: a fresh state has room for two values, and memory for two closures.
    unsafe {
        ffi::lua_pushcfunction(state.as_ptr(), traceback);
        ffi::lua_pushcfunction(state.as_ptr(), collect);
        let top = ffi::lua_gettop(state.as_ptr());
        (top - 1, top)
    }
}

/// Collects all garbage, which may run finalizers.
///
/// Not in `guard`: it calls nothing but LuaJIT, whose errors pass through.
unsafe extern "C-unwind" fn collect(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with a live state.
    unsafe { ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0) };
    0
}

/// The message handler of `lua_pcall`: makes a text of whatever was raised, and adds where.
///
/// Uses 4 stack slots; luaL_traceback checks for its own. Not in `guard`: nothing in it can panic.
unsafe extern "C-unwind" fn traceback(state: *mut ffi::lua_State) -> c_int {
    // No value here has a destructor: a Lua error may unwind through this frame.
    // SAFETY: LuaJIT calls the handler with the raised value as its only argument and at least
    // LUA_MINSTACK free slots.
    unsafe {
        match ffi::lua_type(state, 1) {
            ffi::LUA_TSTRING | ffi::LUA_TNUMBER => (),
            kind => {
                let told = ffi::luaL_callmeta(state, 1, c"__tostring".as_ptr()) != 0
                    && ffi::lua_type(state, -1) == ffi::LUA_TSTRING;
                if !told {
                    let kind: *const c_char = ffi::lua_typename(state, kind);
                    ffi::lua_pushfstring(state, ERROR_OBJECT.as_ptr(), kind);
                }
                ffi::lua_replace(state, 1);
            }
        }
        // luaL_traceback takes the message up to its first NUL only, so it is put in front here.
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pushlstring(state, c"\n".as_ptr(), 1);
        ffi::luaL_traceback(state, state, core::ptr::null(), 1);
        ffi::lua_concat(state, 3);
    }
    1
}

/// lua.c's own words for an error value without a text.
const ERROR_OBJECT: &CStr = c"(error object is a %s value)";
