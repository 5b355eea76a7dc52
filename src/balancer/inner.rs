//! nginx's own keepalive under the balancer: a `keepalive` that stands before it, on nginx before
//! 1.29.7.
//!
//! Peers that Lua chooses never pass through it, but those of the `server` lines do, and it knows
//! connections by their addresses alone. No mark can be put on the address of such a peer, since
//! nobody comes between round robin and the pool. So each connection that goes there has a note of
//! its identity, and one that comes back for another identity is closed.

#![forbid(unsafe_code)]

use ngx::ffi::{ngx_int_t, NGX_DONE};

use super::peer::PeerData;
use crate::log::debug;
use crate::nginx::peer::Peer;
use crate::nginx::upstream::OK;

impl PeerData {
    /// Looks at what the pool gave the try: `rc` is what its `get` has returned.
    pub(super) fn check_inner(&self, pc: Peer, rc: ngx_int_t) -> ngx_int_t {
        let number = self.fallback_number(pc);
        // A connection without a note is not used again.
        if let Ok(extra) = self.extra_or_new() {
            extra.noted.set(number);
        }
        let Some(connection) = pc.connection().filter(|_| rc == NGX_DONE as ngx_int_t) else {
            return rc;
        };
        if number.is_some() && connection.noted() == number {
            return rc;
        }
        let c = connection.as_ptr() as usize;
        debug!(pc.log(), "lua balancer: keepalive closing connection {c:016X} of another identity");
        pc.forget_connection();
        pc.forget_cached();
        connection.close();
        OK
    }

    /// Notes what the connection was opened with, before the pool may take it. One without a note
    /// is not used again.
    pub(super) fn note_for_inner(&self, pc: Peer) {
        let number = self.extra().and_then(|extra| extra.noted.get());
        if let (Some(connection), Some(number)) = (pc.connection(), number) {
            connection.note(number);
        }
    }
}
