//! Bounds for Lua code that recurses on the C stack, of which LuaJIT itself bounds nothing but
//! what its own stack allows: coroutines within coroutines, each with a stack of its own, and
//! `string.gsub` in its own callback, with a buffer of 8 kB for each level.
//!
//! A check in a C function costs a few instructions, one in Lua a call. So `coroutine.resume` and
//! `coroutine.wrap` are written anew over `lua_resume`, with LuaJIT's words and results, and
//! `string.gsub` calls the one that it replaces in its own frame.

use core::ffi::{c_char, c_int, CStr};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use mlua::ffi;

use super::stack;

/// How many coroutines may run within one another. Lua 5.1 allows 200; what a chain of them raises
/// through `coroutine.wrap` grows by a place at each, and takes half a megabyte for 200 of them,
/// 31 for these.
const MAX_DEPTH: usize = 1000;

/// How many do. It cannot drift: `lua_resume` returns whatever happens within.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// LuaJIT's `string.gsub`.
static GSUB: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// What LuaJIT takes the functions of `coroutine.wrap` for, and where that stands in one; 0 is not
/// known.
static KIND: AtomicUsize = AtomicUsize::new(0);
static KIND_AT: AtomicUsize = AtomicUsize::new(0);

const OVERFLOW: &CStr = c"C stack overflow";
const DEAD: &CStr = c"cannot resume dead coroutine";
const RUNNING: &CStr = c"cannot resume running coroutine";
const TOO_MANY: &CStr = c"stack overflow";

/// Puts the functions in place.
///
/// # Safety
/// The state has its libraries and nothing else yet; an error may be raised.
pub(super) unsafe fn bound(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise.
    unsafe {
        ffi::lua_getglobal_(state, c"coroutine".as_ptr());
        learn_kind(state);
        set(state, c"resume", resume);
        set(state, c"wrap", wrap);
        ffi::lua_getglobal_(state, c"string".as_ptr());
        ffi::lua_getfield_(state, -1, c"gsub".as_ptr());
        let original = ffi::lua_tocfunction(state, -1);
        ffi::lua_settop(state, -2);
        if let Some(original) = original {
            GSUB.store(original as *mut (), Relaxed);
            set(state, c"gsub", gsub);
        }
        ffi::lua_settop(state, -3);
    }
}

/// Finds out how LuaJIT knows the functions that `coroutine.wrap` gives.
///
/// A trace holds for one function, and each of these is another one; LuaJIT makes an exception for
/// its own, which it knows by a number in the head of the function. Ours have the same number:
/// without it a loop over generators ended in a hundred traces and took three times as long. It is
/// the third of four bytes that are the same in all of LuaJIT's releases: marks for the collector,
/// type, kind, count of upvalues; before them is a pointer. Where they look otherwise, the number
/// stays as it is.
///
/// # Safety
/// As [`bound`], with LuaJIT's own `coroutine` on top.
unsafe fn learn_kind(state: *mut ffi::lua_State) {
    /// `~LJ_TFUNC`
    const FUNCTION: u8 = 8;
    /// `FF_C`
    const C: u8 = 1;

    // SAFETY: the caller's promise. A function is larger than what is read of it.
    unsafe {
        ffi::lua_getfield_(state, -1, c"wrap".as_ptr());
        ffi::lua_pushcclosure(state, resume, 0);
        ffi::lua_call(state, 1, 1);
        ffi::lua_pushboolean(state, 1);
        ffi::lua_pushcclosure(state, resume, 1);
        let head = |index| ffi::lua_topointer(state, index).cast::<[u8; 12]>().read();
        let (theirs, ours) = (head(-2), head(-1));
        ffi::lua_settop(state, -3);
        // Pointers of the collector's have 8 bytes, in older builds 4.
        for at in [8, 4] {
            let (theirs, ours) = (&theirs[at + 1..at + 4], &ours[at + 1..at + 4]);
            if ours == [FUNCTION, C, 1] && theirs == [FUNCTION, theirs[1], 1] && theirs[1] > C {
                KIND_AT.store(at + 2, Relaxed);
                KIND.store(theirs[1].into(), Relaxed);
                return;
            }
        }
    }
}

/// # Safety
/// As [`bound`], with a table on top.
unsafe fn set(state: *mut ffi::lua_State, name: &CStr, function: ffi::lua_CFunction) {
    // SAFETY: the caller's promise.
    unsafe {
        ffi::lua_pushcclosure(state, function, 0);
        ffi::lua_setfield(state, -2, name.as_ptr());
    }
}

// No value in what follows has a destructor: Lua errors unwind through these frames. None is in
// `guard`: nothing in them can panic.

/// `string.gsub`: LuaJIT's, unless the C stack is nearly used up (`lua_CFunction`).
unsafe extern "C-unwind" fn gsub(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with a live state. What is stored is LuaJIT's function, which needs
    // nothing but its arguments, and they are those of this frame.
    unsafe {
        if !stack::has_room() {
            return ffi::luaL_error(state, OVERFLOW.as_ptr());
        }
        let original: ffi::lua_CFunction = core::mem::transmute(GSUB.load(Relaxed));
        original(state)
    }
}

/// `coroutine.resume` (`lua_CFunction`).
unsafe extern "C-unwind" fn resume(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with a live state and LUA_MINSTACK free slots. The coroutine stays
    // on its stack.
    unsafe {
        let coroutine = ffi::lua_tothread(state, 1);
        if coroutine.is_null() {
            return ffi::luaL_argerror(state, 1, c"coroutine expected".as_ptr());
        }
        match run(state, coroutine, ffi::lua_gettop(state) - 1) {
            Ran::Ended => {
                let results = ffi::lua_gettop(coroutine);
                ffi::lua_pushboolean(state, 1);
                ffi::lua_xmove(coroutine, state, results);
                results + 1
            }
            Ran::Failed => {
                ffi::lua_pushboolean(state, 0);
                ffi::lua_xmove(coroutine, state, 1);
                2
            }
            Ran::Not(why) => {
                ffi::lua_pushboolean(state, 0);
                ffi::lua_pushstring_(state, why);
                2
            }
        }
    }
}

/// `coroutine.wrap` (`lua_CFunction`).
unsafe extern "C-unwind" fn wrap(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with a live state and LUA_MINSTACK free slots; a fresh thread has
    // room for a function. The byte that is written is the function's, as `learn_kind` says.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TFUNCTION);
        let coroutine = ffi::lua_newthread(state);
        ffi::lua_pushvalue(state, 1);
        ffi::lua_xmove(state, coroutine, 1);
        ffi::lua_pushcclosure(state, wrapped, 1);
        let kind = KIND.load(Relaxed) as u8;
        if kind != 0 {
            let function = ffi::lua_topointer(state, -1).cast_mut().cast::<u8>();
            function.add(KIND_AT.load(Relaxed)).write(kind);
        }
        1
    }
}

/// What `coroutine.wrap` gives (`lua_CFunction`).
unsafe extern "C-unwind" fn wrapped(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: LuaJIT calls it with a live state and LUA_MINSTACK free slots. Its upvalue is the
    // coroutine, which lives as long as the function.
    unsafe {
        let coroutine = ffi::lua_tothread(state, ffi::lua_upvalueindex(1));
        match run(state, coroutine, ffi::lua_gettop(state)) {
            Ran::Ended => {
                let results = ffi::lua_gettop(coroutine);
                ffi::lua_xmove(coroutine, state, results);
                results
            }
            Ran::Failed => {
                ffi::lua_xmove(coroutine, state, 1);
                if ffi::lua_type(state, -1) == ffi::LUA_TSTRING {
                    // With the place of the caller in front.
                    let text: *const c_char = ffi::lua_tolstring(state, -1, ptr::null_mut());
                    return ffi::luaL_error(state, c"%s".as_ptr(), text);
                }
                ffi::lua_error(state)
            }
            Ran::Not(why) => ffi::luaL_error(state, c"%s".as_ptr(), why),
        }
    }
}

/// What came of a coroutine.
enum Ran {
    /// It has yielded or returned what is on its stack.
    Ended,
    /// It has raised what is on top of its stack.
    Failed,
    /// It was not resumed.
    Not(*const c_char),
}

/// Resumes a coroutine with as many arguments from the top of the stack.
///
/// # Safety
/// Both states are live, and what is between the coroutine and the arguments is on the stack.
#[inline(always)]
unsafe fn run(state: *mut ffi::lua_State, coroutine: *mut ffi::lua_State, arguments: c_int) -> Ran {
    // SAFETY: the caller's promise; `lua_resume` gets a coroutine that is fresh or has yielded.
    unsafe {
        let status = ffi::lua_status(coroutine);
        if status != ffi::LUA_YIELD {
            if let Some(why) = not_fresh(coroutine, status) {
                return Ran::Not(why.as_ptr());
            }
        }
        let depth = DEPTH.load(Relaxed);
        if depth >= MAX_DEPTH || !stack::has_room() {
            return Ran::Not(OVERFLOW.as_ptr());
        }
        if arguments > 0 {
            if ffi::lua_checkstack(coroutine, arguments) == 0 {
                ffi::luaL_error(state, TOO_MANY.as_ptr());
            }
            ffi::lua_xmove(state, coroutine, arguments);
        }
        DEPTH.store(depth + 1, Relaxed);
        let status = ffi::lua_resume_(coroutine, arguments);
        DEPTH.store(depth, Relaxed);
        match status {
            ffi::LUA_OK | ffi::LUA_YIELD => Ran::Ended,
            _ => Ran::Failed,
        }
    }
}

/// Why a coroutine that has not yielded cannot be resumed, if it cannot.
///
/// # Safety
/// The coroutine is live.
#[inline]
unsafe fn not_fresh(coroutine: *mut ffi::lua_State, status: c_int) -> Option<&'static CStr> {
    // SAFETY: the caller's promise; all zeros is a value of the structure, which is not read.
    unsafe {
        if status != ffi::LUA_OK {
            return Some(DEAD);
        }
        let mut frame: ffi::lua_Debug = core::mem::zeroed();
        if ffi::lua_getstack(coroutine, 0, &mut frame) != 0 {
            return Some(RUNNING);
        }
        (ffi::lua_gettop(coroutine) == 0).then_some(DEAD)
    }
}
