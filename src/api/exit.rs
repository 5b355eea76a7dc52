//! `ngx.exit`: how the balancer phase ends.

use core::ffi::c_int;

use ngx::ffi::ngx_http_request_t;

use super::{answer_in, DISABLED, OK};
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
    let exit = || {
        let peer = current::peer().ok_or_else(|| DISABLED.to_string_lossy())?;
        peer.exit.set(Some(status as isize));
        Ok(OK)
    };
    // SAFETY: the caller's promise.
    unsafe { answer_in(errbuf, errlen, exit) }
}
