//! `ngx.balancer`: the TLS of a try, where nginx is built without it. The functions are there all
//! the same, since LuaJIT's FFI raises an error for one that is not.

use core::ffi::{c_char, c_int, CStr};

use ngx::ffi::ngx_http_request_t;

use super::balancer::in_balancer;

const WITHOUT: &CStr = c"nginx is built without TLS";

/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_verify(
    _r: *mut ngx_http_request_t,
    _on: c_int,
    _depth: c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { refuse(err) }
}

/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_cert(
    _r: *mut ngx_http_request_t,
    _cert: *const u8,
    _cert_len: usize,
    _key: *const u8,
    _key_len: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { refuse(err) }
}

/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_trusted(
    _r: *mut ngx_http_request_t,
    _pem: *const u8,
    _pem_len: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { refuse(err) }
}

/// # Safety
/// `err` may be written to.
unsafe fn refuse(err: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { in_balancer(err, |_| Err(WITHOUT)) }
}
