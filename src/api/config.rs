//! `ngx.config`: the nginx that the module is built for and runs in.

use core::ffi::{c_char, c_int};

use ngx::ffi::{nginx_version, ngx_cycle};

/// The version as a number, 1022001 for 1.22.1.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_nginx_version() -> c_int {
    nginx_version as c_int
}

/// 1 when nginx can write debug lines.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_debug() -> c_int {
    c_int::from(cfg!(ngx_feature = "debug"))
}

/// nginx's prefix (`-p`): its data, and its length as the result.
///
/// # Safety
/// `data` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_prefix(data: *mut *const c_char) -> usize {
    // SAFETY: there is a cycle from nginx's start to its end, and the caller's promise.
    unsafe {
        let prefix = (*ngx_cycle).prefix;
        *data = prefix.data.cast();
        prefix.len
    }
}
