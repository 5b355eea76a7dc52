//! The boundary of every exported body: a Rust panic ends here and becomes an error value, since
//! unwinding into nginx or LuaJIT would take the worker with it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::log::log;
use crate::nginx::log::Log;

/// Runs `body`; a panic in it is logged with its place and answered with `failure`.
#[inline]
pub fn guard<R>(failure: R, body: impl FnOnce() -> R) -> R {
    // What `body` left half done is one request's own state, which ends with the error.
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(failure)
}

/// Runs `body`, whose failure nobody can be told of.
#[inline]
pub fn quiet(body: impl FnOnce()) {
    guard((), body);
}

/// A place that panics once when it was told to; for t/panics.t, and nothing in any other build.
#[inline]
#[track_caller]
pub fn panic_point(name: &str) {
    #[cfg(feature = "panic-points")]
    points::reach(name);
    #[cfg(not(feature = "panic-points"))]
    let _ = name;
}

#[cfg(feature = "panic-points")]
#[allow(missing_docs)]
pub mod points {
    use core::ffi::{c_char, CStr};
    use std::sync::Mutex;

    static ARMED: Mutex<String> = Mutex::new(String::new());

    fn armed() -> std::sync::MutexGuard<'static, String> {
        ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[track_caller]
    pub fn reach(name: &str) {
        let hit = *armed() == name;
        if hit {
            armed().clear();
            panic!("told to panic at {name}");
        }
    }

    /// Has the next pass of a place panic.
    ///
    /// # Safety
    /// `name` is a string.
    #[no_mangle]
    pub unsafe extern "C" fn ngx_http_lua_balancer_panic_at(name: *const c_char) {
        super::quiet(|| {
            // SAFETY: the caller's promise.
            *armed() = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        });
    }
}

/// Sends panic messages to nginx's error log instead of to standard error, which a daemon has
/// closed.
pub fn log_panics() {
    static HOOK: Once = Once::new();

    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            log!(Log::cycle(), NGX_LOG_ALERT, "lua balancer: internal error: {info}");
        }));
    });
}
