//! TLS sessions of the peers.

use core::ffi::c_void;

use ngx::ffi::{ngx_int_t, ngx_peer_connection_t};

use super::peer::arguments;
use crate::guard::{guard, quiet};
use crate::nginx::upstream::{ERROR, OK};

/// Offers a TLS session to the peer (`ngx_event_set_peer_session_pt`).
///
/// # Safety
/// nginx calls it with the connection and the data that it was installed with.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_set_session(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        match unsafe { arguments(pc, data) } {
            Some((pc, peer)) if !peer.is_chosen() => peer.original().set_session(pc),
            _ => OK,
        }
    })
}

/// Keeps the TLS session of the connection (`ngx_event_save_peer_session_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_set_session`].
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_save_session(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) {
    quiet(|| {
        // SAFETY: the caller's promise.
        match unsafe { arguments(pc, data) } {
            Some((pc, peer)) if !peer.is_chosen() => peer.original().save_session(pc),
            _ => (),
        }
    });
}
