//! The hooks that nginx calls for each try of a request, and how a try runs.

use core::ffi::c_void;
use core::ptr;

use ngx::ffi::{
    ngx_int_t, ngx_peer_connection_t, ngx_uint_t, NGX_AGAIN, NGX_DONE, NGX_PEER_FAILED,
};

use super::ctx::RequestCtx;
use super::exit::{self, Exit};
use super::idle::{Idle, Keepalive};
use super::peer::{Fresh, PeerData};
use crate::guard::{guard, panic_point, quiet};
use crate::log::debug;
use crate::lua::call::{self, Failed};
use crate::lua::current::Current;
use crate::nginx::peer::{Hooks, Peer};
use crate::nginx::upstream::{ERROR, OK};
use crate::phase::Phase;

impl PeerData {
    /// The hooks to install, with this as their data.
    pub fn hooks(&self) -> Hooks {
        Hooks {
            data: ptr::from_ref(self).cast_mut().cast(),
            get: Some(ngx_http_lua_balancer_get_peer),
            free: Some(ngx_http_lua_balancer_free_peer),
            notify: self.original.notify.map(|_| ngx_http_lua_balancer_notify_peer as _),
            #[cfg(ngx_feature = "http_ssl")]
            set_session: Some(super::session::ngx_http_lua_balancer_set_session),
            #[cfg(ngx_feature = "http_ssl")]
            save_session: Some(super::session::ngx_http_lua_balancer_save_session),
        }
    }

    /// Runs the chunk, or takes the next of the peers that it gave, and does what it says.
    fn get(&self, pc: Peer) -> ngx_int_t {
        panic_point("get");
        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: get peer, tries: {}", pc.tries());
        }

        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() || self.extra().is_some() {
            let Ok(extra) = self.extra_or_new() else { return ERROR };
            extra.begin_tls(self.upstream);
        }
        // The same try once more, over a fresh connection: nothing that was chosen changes.
        let again = self.fresh.get() == Fresh::Wanted && self.is_chosen();
        if !again {
            self.tries.set(self.tries.get().begin());
            self.chosen.set(self.extra().and_then(|extra| extra.list.next()));
        }
        if !self.is_chosen() {
            self.reset();
            if self.run().is_err() {
                return ERROR;
            }
            self.grant_tries(pc);
            match self.exit.get().map_or(Exit::Go, Exit::of) {
                Exit::Go => (),
                exit => return exit::end(self, pc, exit),
            }
        }

        if let Some(local) = self.extra().map(|extra| extra.local.get()).filter(|l| !l.is_null()) {
            pc.set_local(local);
        }
        let rc = match self.chosen.get() {
            Some(peer) => self.connect(pc, peer),
            None => self.fall_back(pc),
        };
        if connects(rc) && self.outer.get().is_none() {
            self.borrow_settings();
        }
        rc
    }

    /// Forgets what the chunk said for the tries before, except what holds for the whole request.
    fn reset(&self) {
        self.exit.set(None);
        self.more_tries.set(0);
        self.keepalive.set(None);
        if let Some(extra) = self.extra() {
            extra.reset(self.upstream);
        }
    }

    fn grant_tries(&self, pc: Peer) {
        if let Some(count) = self.extra().and_then(|extra| extra.list.count()) {
            let limit = self.upstream.tries_limit();
            pc.set_tries(self.tries.get().for_all(count, limit));
        }
        let tries = pc.tries().saturating_add(self.more_tries.get());
        pc.set_tries(tries);
    }

    fn run(&self) -> Result<(), Failed> {
        let current = Current {
            request: self.request.as_ptr(),
            phase: Phase::Balancer,
            log: self.request.log(),
            peer: self,
        };
        let failed = |message: &[u8]| {
            let line = [&b"failed to run balancer_by_lua*: "[..], message].concat();
            self.request.error(&line);
        };

        let timeout = self.balancer.timeout.get();
        if let Some((vm, reference)) = self.balancer.loaded() {
            return call::run(vm, reference, current, timeout, failed);
        }

        let not_loaded = |message: String| {
            let line = format!("failed to load balancer_by_lua*: {message}");
            self.request.error(line.as_bytes());
            Failed
        };
        if self.balancer.main.code_cache() {
            let (vm, reference) = self.balancer.load().map_err(not_loaded)?;
            return call::run(vm, reference, current, timeout, failed);
        }

        // All is made anew.
        let vm = RequestCtx::of_or_new(self.request)
            .ok_or_else(|| "no memory".to_string())
            .and_then(RequestCtx::own_vm)
            .map_err(|e| {
                failed(e.as_bytes());
                Failed
            })?;
        let loaded = self.balancer.chunk.load(vm).map_err(|e| not_loaded(e.message))?;
        call::run(vm, loaded.reference(), current, timeout, failed)
    }

    /// Counts a try that ended within `get`, which nginx follows with no `free`. Returns how many
    /// did so in a row.
    pub fn declined(&self, pc: Peer) -> usize {
        self.last_state.set(FAILED);
        pc.set_tries(pc.tries().saturating_sub(1));
        pc.forget_cached();
        pc.set_name(self.balancer.name());
        self.declined_in_a_row.set(self.declined_in_a_row.get() + 1);
        self.declined_in_a_row.get()
    }

    pub(super) fn free(&self, pc: Peer, state: ngx_uint_t) {
        panic_point("free");
        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: free peer, tries: {}", pc.tries());
        }
        self.return_settings();
        self.declined_in_a_row.set(0);
        self.last_state.set(state);
        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() {
            self.end_tls(pc, state & FAILED != 0);
        }
        let Some(peer) = self.chosen.get() else {
            if self.balancer.has_inner_pool() {
                self.note_for_inner(pc);
            }
            return self.original.free(pc, state);
        };
        self.count_try(pc, state);
        if let Some((idle, keepalive)) = self.own_pool() {
            idle.save(self, &peer, keepalive, pc, state);
        }
    }

    /// The pool for the connection of this try, and how it is kept there; `None` when nobody asked
    /// for it, or a `keepalive` directive says how: what nginx gives up is then not for us.
    pub(super) fn own_pool(&self) -> Option<(&'static Idle, Keepalive)> {
        let keepalive = self.keepalive.get()?;
        let idle = self.balancer.idle().filter(|_| !self.balancer.pooled_by_directive())?;
        Some((idle, keepalive))
    }

    /// Takes a try off.
    ///
    /// nginx gives it back when the connection was a pooled one that turned out dead
    /// (`ngx_http_upstream_next`: `peer.tries++`), without a word to the balancer: it looks at
    /// `cached` after this. A request that finds many such in the pool would so pass its limit.
    ///
    /// The gift is taken only once, by a request that has no try left and was never tried over a
    /// fresh connection: the peer may be well, it has only closed an idle connection. That is the
    /// same try, of the same peer, and the chunk does not run for it.
    fn count_try(&self, pc: Peer, state: ngx_uint_t) {
        pc.set_tries(pc.tries().saturating_sub(1));
        if !pc.is_cached() {
            self.fresh.set(Fresh::Tried);
        } else if state & FAILED != 0 {
            if pc.tries() == 0 && self.fresh.get() == Fresh::NotTried {
                self.fresh.set(Fresh::Wanted);
            } else {
                pc.forget_cached();
            }
        }
    }
}

/// Whether nginx goes on with a connection when a `get` hook has returned `rc`.
pub(super) fn connects(rc: ngx_int_t) -> bool {
    rc == OK || rc == NGX_DONE as ngx_int_t || rc == NGX_AGAIN as ngx_int_t
}

/// The state of a failed try.
pub const FAILED: ngx_uint_t = NGX_PEER_FAILED as ngx_uint_t;

/// What a hook is called with.
///
/// # Safety
/// `pc` and `data` are what nginx passes to one of the hooks of [`PeerData::hooks`].
pub(super) unsafe fn arguments<'a>(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> Option<(Peer, &'a PeerData)> {
    // SAFETY: the caller's promise; the data lives as long as the request, whose hooks these are.
    unsafe { Some((Peer::from_ptr(pc)?, data.cast::<PeerData>().as_ref()?)) }
}

/// Chooses the peer of a try (`ngx_event_get_peer_pt`).
///
/// # Safety
/// nginx calls it with the connection and the data that it was installed with.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_get_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
) -> ngx_int_t {
    // SAFETY: the caller's promise.
    guard(ERROR, || unsafe { arguments(pc, data) }.map_or(ERROR, |(pc, peer)| peer.get(pc)))
}

/// Learns how a try ended (`ngx_event_free_peer_pt`).
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_peer`].
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_free_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    state: ngx_uint_t,
) {
    quiet(|| {
        // SAFETY: the caller's promise.
        if let Some((pc, peer)) = unsafe { arguments(pc, data) } {
            peer.free(pc, state);
        }
    });
}

/// Hands a notification on (`ngx_event_notify_peer_pt`): all of them concern who balanced before.
///
/// # Safety
/// As for [`ngx_http_lua_balancer_get_peer`].
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_notify_peer(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    kind: ngx_uint_t,
) {
    quiet(|| {
        // SAFETY: the caller's promise.
        if let Some((pc, peer)) = unsafe { arguments(pc, data) } {
            if !peer.is_chosen() {
                peer.original.notify(pc, kind);
            }
        }
    });
}
