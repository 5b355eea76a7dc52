//! `ngx.time`, `ngx.now`, `ngx.update_time`: nginx's cached time (`ngx_timeofday`).

use core::ffi::c_long;

use ngx::ffi::{ngx_time, ngx_time_update, ngx_timeofday};

/// Seconds since the epoch.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_time() -> c_long {
    ngx_time() as c_long
}

/// Seconds since the epoch, with milliseconds.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_now() -> f64 {
    let now = ngx_timeofday();
    now.sec as f64 + f64::from(now.msec as u32) / 1000.0
}

/// Asks the system for the time.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_update_time() {
    // SAFETY: it only writes nginx's own time slots, under its own lock.
    unsafe { ngx_time_update() }
}
