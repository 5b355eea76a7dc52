//! `ngx.exit`: how the balancer phase ends.

use core::ffi::c_int;

use ngx::ffi::ngx_http_request_t;

use super::{fail_in, ERROR, OK};
use crate::guard::guard;
use crate::lua::current;

/// Notes the status for when the chunk has ended.
///
/// # Safety
/// `errbuf` holds `*errlen` bytes.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_exit(
    _r: *mut ngx_http_request_t,
    status: c_int,
    errbuf: *mut u8,
    errlen: *mut usize,
) -> c_int {
    guard(ERROR, || match current::peer() {
        Some(peer) => {
            peer.exit.set(Some(status as isize));
            OK
        }
        // SAFETY: the caller's promise.
        None => unsafe { fail_in(errbuf, errlen, "API disabled in the current context") },
    })
}
