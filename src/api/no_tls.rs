//! `ngx.balancer`: the TLS of a try, where nginx is built without it. The functions are there all
//! the same, since LuaJIT's FFI raises an error for one that is not.

use core::ffi::{c_char, c_int, CStr};

use ngx::ffi::ngx_http_request_t;

use super::{in_balancer, OK};

const WITHOUT: &CStr = c"nginx is built without TLS";

/// There is none to turn off.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_upstream_tls(
    _r: *mut ngx_http_request_t,
    on: c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { in_balancer(err, |_| if on == 0 { Ok(OK) } else { Err(WITHOUT) }) }
}

macro_rules! refuse {
    ($($name:ident($($arg:ty),+);)+) => {$(
        /// # Safety
        /// `err` may be written to.
        #[no_mangle]
        pub unsafe extern "C" fn $name(
            _r: *mut ngx_http_request_t,
            $(_: $arg,)+
            err: *mut *mut c_char,
        ) -> c_int {
            // SAFETY: the caller's promise.
            unsafe { in_balancer(err, |_| Err(WITHOUT)) }
        }
    )+};
}

refuse! {
    ngx_http_lua_ffi_balancer_set_ssl_verify(c_int, c_int);
    ngx_http_lua_ffi_balancer_set_ssl_cert(*const u8, usize, *const u8, usize);
    ngx_http_lua_ffi_balancer_set_ssl_trusted(*const u8, usize);
}
