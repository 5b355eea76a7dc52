//! Hooks around those of who wraps us after the configuration is read.
//!
//! Since 1.29.7 nginx puts its own keepalive around every upstream, in an `init_main_conf` that
//! runs after every `init_upstream`, and tells locations apart by the address of their settings.
//! A try with settings of its own must not look like another location: these hooks put them in
//! place behind nginx's back, when it has looked for a connection, and take them away before it
//! keeps one.

use core::cell::OnceCell;
use core::ffi::c_void;
use core::ptr;

use ngx::ffi::{
    nginx_version, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_peer_connection_t, ngx_uint_t,
};

use super::hooks::{arguments, connects};
use super::peer::PeerData;
use super::{with_balancer, Balancer};
use crate::guard::{guard, quiet};
use crate::nginx::peer::{Hooks, Peer};
use crate::nginx::upstream::ERROR;

/// Whether this nginx wraps upstreams after they are prepared.
pub const WANTED: bool = nginx_version >= 1_029_007;

/// Those hooks, where there can be any: on an older nginx this takes no memory.
#[derive(Default)]
pub struct OuterHooks([OnceCell<Hooks>; WANTED as usize]);

impl OuterHooks {
    /// The hooks of who wrapped us.
    #[inline]
    pub fn get(&self) -> Option<&Hooks> {
        self.0.first()?.get()
    }

    fn set(&self, hooks: Hooks) {
        if let Some(place) = self.0.first() {
            // A request is wrapped once.
            let _ = place.set(hooks);
        }
    }
}

/// Puts the hooks around those that `pc` has.
pub fn install(data: &PeerData, pc: Peer) {
    let inner = Hooks::of(pc);
    data.outer.set(inner);
    let hooks = Hooks {
        data: ptr::from_ref(data).cast_mut().cast(),
        get: Some(ngx_http_lua_balancer_get_outer_peer),
        free: Some(ngx_http_lua_balancer_free_outer_peer),
        notify: inner.notify.map(|_| ngx_http_lua_balancer_notify_outer_peer as _),
        #[cfg(ngx_feature = "http_ssl")]
        set_session: Some(ngx_http_lua_balancer_set_outer_session),
        #[cfg(ngx_feature = "http_ssl")]
        save_session: Some(ngx_http_lua_balancer_save_outer_session),
    };
    hooks.install(pc);
}

/// Starts the balancing of a request (`ngx_http_upstream_init_peer_pt`).
///
/// # Safety
/// nginx calls it with a live request and its block.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_outer_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: the caller's promise.
    unsafe { with_balancer(r, us, Balancer::init_outer_peer) }
}

/// Runs `body` with the hooks inside ours.
///
/// # Safety
/// `pc` and `data` are what nginx passes to one of the hooks of [`install`].
unsafe fn inner<R>(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    body: impl FnOnce(Peer, &PeerData, &Hooks) -> R,
) -> Option<R> {
    // SAFETY: the caller's promise.
    let (pc, peer) = unsafe { arguments(pc, data) }?;
    Some(body(pc, peer, peer.outer.get()?))
}

/// Chooses the peer of a try (`ngx_event_get_peer_pt`).
///
/// # Safety
/// nginx calls it with the connection and the data that it was installed with.
unsafe extern "C" fn ngx_http_lua_balancer_get_outer_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> ngx_int_t {
    guard(ERROR, || {
        let get = |pc, peer: &PeerData, inner: &Hooks| {
            let rc = inner.get(pc);
            if connects(rc) {
                peer.borrow_settings();
            }
            rc
        };
        // SAFETY: the caller's promise.
        unsafe { inner(pc, data, get) }.unwrap_or(ERROR)
    })
}

/// Learns how a try ended (`ngx_event_free_peer_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_outer_peer`].
unsafe extern "C" fn ngx_http_lua_balancer_free_outer_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    state: ngx_uint_t,
) {
    quiet(|| {
        // SAFETY: the caller's promise.
        unsafe {
            inner(pc, data, |pc, peer, inner| {
                peer.return_settings();
                // What Lua wants kept is kept as Lua says, unless a directive says otherwise.
                if peer.keepalive.get().is_some() && peer.balancer.pooled_by_default() {
                    peer.free(pc, state);
                } else {
                    inner.free(pc, state);
                }
            });
        }
    });
}

/// Hands a notification on (`ngx_event_notify_peer_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_outer_peer`].
unsafe extern "C" fn ngx_http_lua_balancer_notify_outer_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    kind: ngx_uint_t,
) {
    // SAFETY: the caller's promise.
    quiet(|| unsafe {
        inner(pc, data, |pc, _, inner| inner.notify(pc, kind));
    });
}

/// Offers a TLS session to the peer (`ngx_event_set_peer_session_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_outer_peer`].
#[cfg(ngx_feature = "http_ssl")]
unsafe extern "C" fn ngx_http_lua_balancer_set_outer_session(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        unsafe { inner(pc, data, |pc, _, inner| inner.set_session(pc)) }.unwrap_or(ERROR)
    })
}

/// Keeps the TLS session of the connection (`ngx_event_save_peer_session_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_outer_peer`].
#[cfg(ngx_feature = "http_ssl")]
unsafe extern "C" fn ngx_http_lua_balancer_save_outer_session(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) {
    // SAFETY: the caller's promise.
    quiet(|| unsafe {
        inner(pc, data, |pc, _, inner| inner.save_session(pc));
    });
}
