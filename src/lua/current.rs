//! What the Lua code that runs just now works on.
//!
//! One plain structure in static memory, so that the API's Lua half reads the request with one
//! compiled load instead of a call (`ffi.C.ngx_http_lua_balancer_current.request`).

use core::cell::UnsafeCell;
use core::ptr;

use ngx::ffi::ngx_http_request_t;

use crate::balancer::peer::PeerData;
use crate::nginx::log::Log;
use crate::phase::Phase;

/// The running call's context. The layout's head is declared in `lua/resty/core/base.lua`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Current {
    /// The request that is served; null in the phases without one.
    pub request: *mut ngx_http_request_t,
    /// The phase.
    pub phase: Phase,
    /// Where `print` and `ngx.log` write; `None` is the cycle's log.
    pub log: Option<Log>,
    /// The balancer's data of the request; null outside of the balancer phase.
    pub peer: *const PeerData,
}

impl Current {
    /// No Lua is running.
    pub const NONE: Current =
        Current { request: ptr::null_mut(), phase: Phase::None, log: None, peer: ptr::null() };
}

/// A [`Current`] that C code can read by name.
#[repr(transparent)]
pub struct Global(UnsafeCell<Current>);

// SAFETY: an nginx worker runs Lua in one thread only.
unsafe impl Sync for Global {}

/// The context of the running call.
#[no_mangle]
#[allow(non_upper_case_globals)]
pub static ngx_http_lua_balancer_current: Global = Global(UnsafeCell::new(Current::NONE));

/// The context of the running call.
#[inline]
pub fn get() -> Current {
    // SAFETY: one thread, and no reference to it is ever kept.
    unsafe { *ngx_http_lua_balancer_current.0.get() }
}

/// Puts a context in place until it is dropped: calls nest when nginx re-enters us.
pub struct Scope(Current);

impl Scope {
    /// Starts a call with this context.
    #[inline]
    pub fn enter(current: Current) -> Self {
        // SAFETY: as in `get`.
        let before = unsafe { ptr::replace(ngx_http_lua_balancer_current.0.get(), current) };
        Scope(before)
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: as in `get`.
        unsafe { *ngx_http_lua_balancer_current.0.get() = self.0 }
    }
}

/// The balancer's data of the request whose chunk is running; `None` outside the balancer phase.
#[inline]
pub fn peer<'a>() -> Option<&'a PeerData> {
    // SAFETY: the hook that runs the chunk put it there, and it lives as long as the request.
    unsafe { get().peer.as_ref() }
}
