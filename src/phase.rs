//! The phases in which Lua runs.

#![forbid(unsafe_code)]

/// A phase; its number is what Lua sees in `ngx_http_lua_balancer_current.phase`. Their names are
/// in `lua/resty/core/phase.lua`.
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
