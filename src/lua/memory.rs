//! `lua_memory_limit`: how much memory a VM may have.
//!
//! The VM keeps its allocator; one in front of it counts, and refuses what would pass the limit,
//! which LuaJIT makes an error of: `not enough memory`. LuaJIT 5.1 collects nothing before it
//! gives up, so the collector is woken when memory gets short, and again before a chunk runs.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::ptr;

use mlua::ffi;

use super::vm::State;

/// What must be left for requests when the configuration is complete.
pub const ROOM: usize = 64 * 1024;

/// How fast the collector works, in percent of what is allocated meanwhile: what it has to look
/// through may be ten times what is left below the limit. LuaJIT's own value is 200.
const STEP_MULTIPLIER: c_int = 1000;

/// The limit of one VM.
pub struct Limit {
    state: State,
    original: (ffi::lua_Alloc, *mut c_void),
    limit: usize,
    used: Cell<usize>,
    /// The collector is woken when more than this is used.
    wake_at: Cell<usize>,
    /// All garbage is collected before a chunk runs when more than this is used.
    collect_at: Cell<usize>,
    refused: Cell<bool>,
}

impl Limit {
    /// Puts a limit on a VM, which may be passed already. It holds until [`Limit::lift`].
    ///
    /// # Safety
    /// The state is live and has no limit yet; `lift` is called before either ends.
    pub(super) unsafe fn set(state: State, limit: usize) -> Box<Self> {
        let raw = state.as_ptr();
        let mut data = ptr::null_mut();
        // SAFETY: the caller's promise. None of these calls allocates.
        let (original, used) = unsafe {
            let original = ffi::lua_getallocf(raw, &mut data);
            ffi::lua_gc(raw, ffi::LUA_GCSETSTEPMUL, STEP_MULTIPLIER);
            (original, used(state))
        };
        let this = Box::new(Limit {
            state,
            original: (original, data),
            limit,
            used: Cell::new(used),
            wake_at: Cell::new(0),
            collect_at: Cell::new(0),
            refused: Cell::new(false),
        });
        this.wake_at.set(this.half_of_rest());
        this.collect_at.set(this.half_of_rest());
        // SAFETY: all memory goes through the same allocator as before, and the box stays where
        // it is until the limit is lifted.
        unsafe { ffi::lua_setallocf(raw, allocate, ptr::from_ref(&*this).cast_mut().cast()) };
        this
    }

    /// Gives the VM its own allocator back, which must see that the VM is closed with it.
    ///
    /// # Safety
    /// The state is live.
    pub(super) unsafe fn lift(&self) {
        // SAFETY: the caller's promise.
        unsafe { ffi::lua_setallocf(self.state.as_ptr(), self.original.0, self.original.1) };
    }

    /// The limit in bytes.
    pub fn size(&self) -> usize {
        self.limit
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Bytes that may still be had.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.used.get())
    }

    /// Whether requests have room; the error is a message for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.left() >= ROOM {
            return Ok(());
        }
        Err(format!(
            "\"lua_memory_limit\" of {} is too small: the configuration's Lua takes {}k, and requests \
             must have {}",
            size_text(self.limit),
            self.used().div_ceil(1024),
            size_text(ROOM),
        ))
    }

    /// Whether much has been allocated since all garbage was collected.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.used.get() > self.collect_at.get()
    }

    /// All garbage has been collected.
    pub(super) fn collected(&self) {
        self.wake_at.set(self.half_of_rest());
        self.collect_at.set(self.half_of_rest());
    }

    /// Whether memory has been refused since this was asked for last.
    pub fn take_refused(&self) -> bool {
        self.refused.replace(false)
    }

    fn half_of_rest(&self) -> usize {
        self.used.get().saturating_add(self.left() / 2)
    }

    /// Allows for `size` instead of `old` bytes; false when the limit would be passed.
    #[inline]
    fn admit(&self, old: usize, size: usize) -> bool {
        let used = self.used.get();
        if size <= old {
            self.used.set(used.saturating_sub(old - size));
            // After a collection the collector is to be woken in time again.
            self.wake_at.set(self.wake_at.get().min(self.half_of_rest()));
            return true;
        }
        let more = size - old;
        if more > self.limit.saturating_sub(used) {
            self.refused.set(true);
            return false;
        }
        self.used.set(used + more);
        if used + more > self.wake_at.get() {
            self.wake();
        }
        true
    }

    /// Has the collector take its next step as soon as Lua code allocates, and again when an
    /// eighth of the rest is used up.
    #[cold]
    fn wake(&self) {
        // SAFETY: the state is live: it is allocating. With a number other than -1 LUA_GCRESTART
        // does nothing but set the collector's threshold to what is in use.
        unsafe { ffi::lua_gc(self.state.as_ptr(), ffi::LUA_GCRESTART, 0) };
        self.wake_at.set(self.used.get().saturating_add(self.left() / 8));
    }
}

/// Bytes that a VM has.
///
/// # Safety
/// The state is live.
unsafe fn used(state: State) -> usize {
    // SAFETY: the caller's promise.
    let (kilobytes, rest) = unsafe {
        let state = state.as_ptr();
        (ffi::lua_gc(state, ffi::LUA_GCCOUNT, 0), ffi::lua_gc(state, ffi::LUA_GCCOUNTB, 0))
    };
    kilobytes as usize * 1024 + rest as usize
}

/// The allocator in front of the VM's own (`lua_Alloc`).
///
/// Not in `guard`: nothing in it can panic.
unsafe extern "C" fn allocate(
    data: *mut c_void,
    old: *mut c_void,
    old_size: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: LuaJIT passes what `Limit::set` gave it, which lives until the limit is lifted.
    let limit = unsafe { &*data.cast::<Limit>() };
    if !limit.admit(old_size, size) {
        return ptr::null_mut();
    }
    let (original, data) = limit.original;
    // SAFETY: what LuaJIT passes is handed on to the allocator that all its memory is from.
    let new = unsafe { original(data, old, old_size, size) };
    if new.is_null() && size > old_size {
        limit.used.set(limit.used.get().saturating_sub(size - old_size));
    }
    new
}

/// A size in nginx's own writing, where it has one: `8m`, `300k`, `1001`.
pub fn size_text(bytes: usize) -> String {
    match bytes {
        0 => "0".into(),
        b if b % (1024 * 1024) == 0 => format!("{}m", b >> 20),
        b if b % 1024 == 0 => format!("{}k", b >> 10),
        b => b.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::size_text;

    #[test]
    fn sizes_as_nginx_writes_them() {
        for (bytes, text) in [(0, "0"), (1001, "1001"), (300 << 10, "300k"), (8 << 20, "8m")] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
