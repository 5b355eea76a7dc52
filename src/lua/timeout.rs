//! `balancer_by_lua_timeout`: a run that takes too long is stopped where it is.
//!
//! A timer of the worker's own sends its thread a signal. The handler does what the `luajit`
//! program does at Ctrl-C, the one thing that may be done to a state that is running: it sets a
//! hook, and the hook raises the error. It goes on raising it, at each instruction, until the run
//! has ended, so that no `pcall` within can swallow it for good. The timer runs only while Lua
//! does: nginx's own waits are never interrupted.

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::io;
use std::sync::OnceLock;

use mlua::ffi;

use super::vm::State;
use crate::log::log;
use crate::nginx::log::Log;

/// The signal is sent again after as many milliseconds, until the run has ended: LuaJIT may have
/// been changing the very fields that a hook is set in.
const REPEAT: usize = 10;

/// How far up a function with a line is looked for.
const LEVELS: c_int = 20;

/// The state of the run that is timed; null when there is none.
static RUNNING: AtomicPtr<ffi::lua_State> = AtomicPtr::new(ptr::null_mut());
/// Whether its time is up.
static LATE: AtomicBool = AtomicBool::new(false);
/// How many milliseconds it may take.
static ALLOWED: AtomicUsize = AtomicUsize::new(0);
/// The hook that it had when its time was up.
static BEFORE: Shared<Option<Hook>> = Shared(UnsafeCell::new(None));
/// The worker's timer; `None` when there is none to be had.
static TIMER: OnceLock<Option<Timer>> = OnceLock::new();

/// What the signal handler writes, and its thread reads when the timer stands.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: nginx runs Lua in one thread, to which the signal is sent.
unsafe impl<T> Sync for Shared<T> {}

/// A hook as `lua_sethook` takes it.
#[derive(Clone, Copy)]
struct Hook {
    function: Option<ffi::lua_Hook>,
    mask: c_int,
    count: c_int,
}

impl Hook {
    /// # Safety
    /// The state is live.
    unsafe fn of(state: *mut ffi::lua_State) -> Self {
        // SAFETY: the caller's promise. These only read.
        unsafe {
            Hook {
                function: ffi::lua_gethook(state),
                mask: ffi::lua_gethookmask(state),
                count: ffi::lua_gethookcount(state),
            }
        }
    }

    /// # Safety
    /// The state is live.
    unsafe fn set(self, state: *mut ffi::lua_State) {
        // SAFETY: the caller's promise.
        unsafe { ffi::lua_sethook(state, self.function, self.mask, self.count) };
    }
}

/// Runs `body`, which runs Lua in `state`, for at most as many milliseconds; 0 is no limit.
/// Returns whether its time was up.
#[inline]
pub fn run<R>(state: State, milliseconds: usize, body: impl FnOnce() -> R) -> (R, bool) {
    if milliseconds == 0 {
        return (body(), false);
    }
    let Some(timer) = TIMER.get_or_init(Timer::new_or_alert) else { return (body(), false) };

    // There is no run within a run: nothing that Lua code calls comes back to a balancer.
    begin(state.as_ptr(), milliseconds);
    timer.set(milliseconds);
    let result = body();
    timer.set(0);
    (result, end())
}

/// What is said of a run that took too long.
pub fn message(milliseconds: usize) -> String {
    format!("ran longer than balancer_by_lua_timeout ({milliseconds} ms)")
}

fn begin(state: *mut ffi::lua_State, milliseconds: usize) {
    ALLOWED.store(milliseconds, Relaxed);
    RUNNING.store(state, Relaxed);
}

/// The timed run has ended, and the timer stands: its state gets the hook of before.
fn end() -> bool {
    let state = RUNNING.swap(ptr::null_mut(), Relaxed);
    let late = LATE.swap(false, Relaxed);
    // SAFETY: the timer stands, so the handler does not run; the state is live.
    unsafe {
        if let Some(before) = (*BEFORE.0.get()).take() {
            before.set(state);
        }
    }
    late
}

/// A timer that sends its thread a signal.
struct Timer(libc::timer_t);

// SAFETY: it is used by one thread only, as all of nginx's and Lua's things.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

impl Timer {
    fn new_or_alert() -> Option<Self> {
        Timer::new()
            .inspect_err(|e| {
                if let Some(log) = Log::cycle() {
                    log!(log, NGX_LOG_ALERT, "balancer_by_lua_timeout: no timer, no limit: {e}");
                }
            })
            .ok()
    }

    /// Makes the timer of this thread, which does not run yet.
    fn new() -> io::Result<Self> {
        let signal = free_signal()?;
        // SAFETY: plain structures for which all zeros is a value, filled in before use; the
        // handler has the type that is wanted without SA_SIGINFO.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            let handler: extern "C" fn(c_int) = ngx_http_lua_balancer_time_is_up;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigfillset(&mut action.sa_mask);
            check(libc::sigaction(signal, &action, ptr::null_mut()))?;

            let mut event: libc::sigevent = MaybeUninit::zeroed().assume_init();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = ptr::null_mut();
            check(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer))?;
            Ok(Timer(timer))
        }
    }

    /// Lets the timer run out after as many milliseconds, and again from then on; 0 stops it.
    ///
    /// A signal that was sent before has been handled when this returns: the kernel delivers it
    /// on the way out.
    fn set(&self, milliseconds: usize) {
        let repeat = if milliseconds > 0 { REPEAT } else { 0 };
        let times = libc::itimerspec { it_interval: time(repeat), it_value: time(milliseconds) };
        // SAFETY: the timer lives as long as the process, and the structure during the call.
        unsafe { libc::timer_settime(self.0, 0, &times, ptr::null_mut()) };
    }
}

fn time(milliseconds: usize) -> libc::timespec {
    libc::timespec {
        tv_sec: (milliseconds / 1000) as libc::time_t,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as _,
    }
}

/// A real-time signal that nobody has taken.
fn free_signal() -> io::Result<c_int> {
    for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev() {
        // SAFETY: only asks how the signal is handled; all zeros is a value of the structure.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            check(libc::sigaction(signal, ptr::null(), &mut action))?;
            if action.sa_sigaction == libc::SIG_DFL {
                return Ok(signal);
            }
        }
    }
    Err(io::Error::other("all real-time signals are taken"))
}

fn check(rc: c_int) -> io::Result<()> {
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The time of the running code is up: signal handler.
///
/// Not in `guard`: nothing in it can panic, and it does only what a handler may.
extern "C" fn ngx_http_lua_balancer_time_is_up(_signal: c_int) {
    let state = RUNNING.load(Relaxed);
    if state.is_null() {
        return;
    }
    // SAFETY: the state is live while it is running. This is the thread that runs it, which
    // reads BEFORE only when the timer stands; the functions read and write plain fields.
    unsafe {
        if !LATE.swap(true, Relaxed) {
            *BEFORE.0.get() = Some(Hook::of(state));
        }
        raise_from_now_on(state);
    }
}

/// Sets the hook that raises the error.
///
/// # Safety
/// The state is live.
unsafe fn raise_from_now_on(state: *mut ffi::lua_State) {
    // Each instruction of Lua code, and no call of a C function: that of `call::run` which makes
    // a message of the error is one.
    let mask = ffi::LUA_MASKCOUNT;
    // SAFETY: the caller's promise. Taken away first, so that LuaJIT writes its dispatch table
    // anew: it may have been at that when the signal came before.
    unsafe {
        ffi::lua_sethook(state, None, 0, 0);
        ffi::lua_sethook(state, Some(raise), mask, 1);
    }
}

/// Raises the error at the place where the code is (`lua_Hook`).
///
/// Not in `guard`: it only calls LuaJIT, which unwinds through it. No value here has a destructor.
unsafe extern "C-unwind" fn raise(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    if !LATE.load(Relaxed) {
        return;
    }
    // SAFETY: LuaJIT calls the hook with the running state and LUA_MINSTACK free slots.
    unsafe {
        // A C function has no line: the nearest Lua function around it has.
        let mut level = 0;
        let mut length = 0;
        loop {
            ffi::luaL_where(state, level);
            ffi::lua_tolstring(state, -1, &mut length);
            level += 1;
            if length > 0 || level == LEVELS {
                break;
            }
            ffi::lua_settop(state, -2);
        }
        ffi::lua_pushfstring(
            state,
            c"ran longer than balancer_by_lua_timeout (%d ms)".as_ptr(),
            ALLOWED.load(Relaxed) as c_int,
        );
        ffi::lua_concat(state, 2);
        ffi::lua_error(state);
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn milliseconds_are_seconds_and_nanoseconds() {
        let time = time(61_002);
        assert_eq!((time.tv_sec, time.tv_nsec), (61, 2_000_000));
    }
}
