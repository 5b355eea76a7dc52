//! `ngx.ctx`: which table of the VM is the request's.

use core::ffi::c_int;

use ngx::ffi::ngx_http_request_t;

use super::{request, ERROR, OK};
use crate::balancer::ctx::RequestCtx;
use crate::guard::guard;

/// The number of the request's table; 0 when it has none yet.
///
/// # Safety
/// `r` is null or a live request.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_get_ctx_ref(r: *mut ngx_http_request_t) -> c_int {
    guard(0, || {
        // SAFETY: the caller's promise.
        let request = unsafe { request(r) };
        request.and_then(RequestCtx::of).map_or(0, |ctx| ctx.table.get())
    })
}

/// Gives the request its table, which is released when the request ends.
///
/// # Safety
/// `r` is null or a live request.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_set_ctx_ref(
    r: *mut ngx_http_request_t,
    table: c_int,
) -> c_int {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let request = unsafe { request(r) };
        match request.and_then(RequestCtx::of_or_new) {
            Some(ctx) => {
                ctx.table.set(table);
                OK
            }
            None => ERROR,
        }
    })
}
