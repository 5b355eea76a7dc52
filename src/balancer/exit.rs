//! How `ngx.exit` ends a try or a request.

use ngx::ffi::{
    ngx_int_t, NGX_BUSY, NGX_DECLINED, NGX_ERROR, NGX_HTTP_CREATED, NGX_HTTP_NO_CONTENT,
    NGX_HTTP_SPECIAL_RESPONSE,
};

use super::peer::PeerData;
use crate::log::log;
use crate::nginx::peer::Peer;
use crate::nginx::upstream::ERROR;

/// nginx goes to the next try from within the one before, so that many tries that end at once pile
/// up on the stack. Nobody means more than this many.
const MAX_DECLINED: usize = 128;

/// What a status means in the balancer phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Goes on with what was set.
    Go,
    /// The request fails.
    Error,
    /// This try has failed; `busy` says that nobody could serve it.
    Declined {
        /// `NGX_BUSY` and not `NGX_DECLINED`.
        busy: bool,
    },
    /// The client gets this status.
    Status(ngx_int_t),
    /// No status that a balancer can answer with.
    Invalid(ngx_int_t),
}

impl Exit {
    /// The meaning of what `ngx.exit` was called with.
    pub fn of(status: ngx_int_t) -> Self {
        const DECLINED: ngx_int_t = NGX_DECLINED as ngx_int_t;
        const BUSY: ngx_int_t = NGX_BUSY as ngx_int_t;
        const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
        const SPECIAL: ngx_int_t = NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t;
        const CREATED: ngx_int_t = NGX_HTTP_CREATED as ngx_int_t;
        const NO_CONTENT: ngx_int_t = NGX_HTTP_NO_CONTENT as ngx_int_t;

        match status {
            0 => Exit::Go,
            ERROR => Exit::Error,
            DECLINED => Exit::Declined { busy: false },
            BUSY => Exit::Declined { busy: true },
            CREATED | NO_CONTENT => Exit::Status(status),
            SPECIAL..=999 => Exit::Status(status),
            other => Exit::Invalid(other),
        }
    }
}

/// Does what `exit` says; returns what the `get` hook is to return.
pub fn end(peer: &PeerData, pc: Peer, exit: Exit) -> ngx_int_t {
    match exit {
        Exit::Go | Exit::Error => ERROR,
        Exit::Status(status) => {
            peer.upstream().finalize(peer.request(), status);
            ERROR
        }
        Exit::Invalid(status) => {
            log!(
                pc.log(),
                NGX_LOG_ERR,
                "lua balancer: ngx.exit({status}) has no meaning in balancer_by_lua*"
            );
            ERROR
        }
        Exit::Declined { busy } => {
            if peer.declined(pc) > MAX_DECLINED {
                log!(pc.log(), NGX_LOG_ERR, "lua balancer: declined too many tries in a row");
                pc.set_tries(0);
            } else if !busy && pc.tries() == 0 {
                log!(pc.log(), NGX_LOG_ERR, "lua balancer: the last try was declined by ngx.exit");
            }
            // "no live upstreams", which NGX_BUSY stands for, ends the request at once unless
            // all tries are used up anyway.
            if busy && pc.tries() == 0 {
                NGX_BUSY as ngx_int_t
            } else {
                NGX_DECLINED as ngx_int_t
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn each_status_has_its_meaning() {
        assert_eq!(Exit::of(0), Exit::Go);
        assert_eq!(Exit::of(-1), Exit::Error);
        assert_eq!(Exit::of(-3), Exit::Declined { busy: true });
        assert_eq!(Exit::of(-5), Exit::Declined { busy: false });
        for status in [201, 204, 300, 403, 429, 444, 503, 599] {
            assert_eq!(Exit::of(status), Exit::Status(status));
        }
        for status in [-6, -4, -2, 1, 100, 200, 206, 1000] {
            assert_eq!(Exit::of(status), Exit::Invalid(status));
        }
    }
}
