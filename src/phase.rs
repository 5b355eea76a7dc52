//! The phases in which Lua runs.

#![forbid(unsafe_code)]

use core::ffi::CStr;

/// A phase; its number is what Lua sees in `ngx_http_lua_balancer_current.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Phase {
    /// No Lua is running.
    None = 0,
    /// `init_by_lua*`: the configuration has been read.
    Init = 1,
    /// `init_worker_by_lua*`: a worker starts.
    InitWorker = 2,
    /// `balancer_by_lua*`: a try needs a peer.
    Balancer = 3,
}

impl Phase {
    /// The name that `ngx.get_phase()` returns.
    pub const fn name(self) -> Option<&'static CStr> {
        match self {
            Phase::None => None,
            Phase::Init => Some(c"init"),
            Phase::InitWorker => Some(c"init_worker"),
            Phase::Balancer => Some(c"balancer"),
        }
    }
}
