//! `ngx.balancer`: the peer of a try, and how it is tried.

use core::ffi::{c_char, c_int, CStr};

use ngx::ffi::ngx_http_request_t;

use super::{bytes, fail, ERROR, OK};
use crate::balancer::peer::PeerData;
use crate::guard::guard;
use crate::lua::current;

const DISABLED: &CStr = c"API disabled in the current context";

/// Runs `body` for the try whose chunk is running; outside the balancer phase there is none.
///
/// # Safety
/// `err` is null or may be written to.
unsafe fn in_balancer(
    err: *mut *mut c_char,
    body: impl FnOnce(&PeerData) -> Result<c_int, &'static CStr>,
) -> c_int {
    guard(ERROR, || {
        let result = current::peer().ok_or(DISABLED).and_then(body);
        // SAFETY: the caller's promise.
        result.unwrap_or_else(|text| unsafe { fail(err, text) })
    })
}

/// Sets the address of this try's peer, and the name for SNI and certificate verification.
///
/// # Safety
/// `addr` and `host` are valid for their lengths; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_current_peer(
    _r: *mut ngx_http_request_t,
    addr: *const u8,
    addr_len: usize,
    port: c_int,
    host: *const u8,
    host_len: isize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let port = u16::try_from(port).map_err(|_| c"invalid port")?;
            let host = bytes(host, usize::try_from(host_len).unwrap_or(0));
            peer.set_current(bytes(addr, addr_len), port, host)?;
            Ok(OK)
        })
    }
}
