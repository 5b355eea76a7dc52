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

/// Sends panic messages to nginx's error log instead of to standard error, which a daemon has
/// closed.
pub fn log_panics() {
    static HOOK: Once = Once::new();

    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            if let Some(log) = Log::cycle() {
                log!(log, NGX_LOG_ALERT, "lua balancer: internal error: {info}");
            }
        }));
    });
}
