//! TLS sessions of peers: what is offered, what is kept, and for whom.
//!
//! That goes for peers of `server` lines too, which Lua left to round robin: it would offer one
//! session a line to whatever location asks.
//!
//! nginx asks once a connection for a session to offer, before the handshake, and hands over each
//! one that the peer gives, which with TLS 1.3 is after it.

use core::ffi::c_void;

use ngx::ffi::{ngx_int_t, ngx_peer_connection_t};

use super::ctx::RequestCtx;
use super::hooks::arguments;
use super::peer::PeerData;
use crate::conf::MainConf;
use crate::guard::{guard, panic_point, quiet};
use crate::log::{debug, log};
use crate::nginx::addr;
use crate::nginx::peer::{Address, Peer};
use crate::nginx::shm::Miss;
use crate::nginx::tls::{Session, Tls};
use crate::nginx::upstream::{ERROR, OK};

impl PeerData {
    /// Readies the TLS of a connection that is to be opened.
    fn set_session(&self, pc: Peer, address: &Address) -> ngx_int_t {
        let Some(tls) = pc.connection().and_then(Tls::of) else { return OK };
        let Ok(extra) = self.extra_or_new() else { return ERROR };
        if !extra.tls.get().apply(tls) {
            log!(pc.log(), NGX_LOG_ERR, "lua balancer: ssl settings of the try refused by OpenSSL");
            return ERROR;
        }
        if !self.reuses_sessions() {
            return OK;
        }
        let Some(identity) = self.write_session_identity(tls, address) else { return OK };
        extra.session_identity.set(identity);

        let session = self.balancer.main.session(identity, pc);
        let what = if session.is_some() { "offering a session" } else { "no session" };
        debug!(pc.log(), "lua balancer: ssl {what}, host: {}", addr::text_of(address));
        if let Some(session) = session {
            let offered = tls.offer(&session);
            extra.session_offered.set(offered);
            if !offered {
                self.balancer.main.forget_session(identity);
            }
        }
        OK
    }

    /// Keeps a session that the peer has just given.
    fn save_session(&self, pc: Peer) {
        let Some(extra) = self.extra() else { return };
        let identity = extra.session_identity.get();
        if identity.is_empty() {
            return;
        }
        let session = pc.connection().and_then(Tls::of).and_then(Tls::session);
        if let Some(session) = session {
            extra.session_offered.set(false);
            self.balancer.main.keep_session(identity, session, pc);
        }
    }

    /// Learns how the TLS of a try went. A session that the peer refused, for no other one, or that
    /// did not lead to a request is not offered again.
    pub(super) fn end_tls(&self, pc: Peer, failed: bool) {
        let tls = pc.connection().and_then(Tls::of).filter(|tls| tls.is_handshaked());
        let resumed = tls.is_some_and(Tls::is_resumed);
        if let (Some(_), Some(ctx)) = (tls, RequestCtx::of_or_new(self.request)) {
            ctx.ssl_resumed.set(Some(resumed));
        }
        let Some(extra) = self.extra() else { return };
        let identity = extra.session_identity.get();
        if identity.is_empty() {
            return;
        }
        let refused = tls.is_some() && extra.session_offered.get() && !resumed;
        // nginx sends nothing to a peer whose certificate is not what it should be.
        let broken = failed && !(tls.is_some() && self.upstream.is_request_sent());
        if refused || broken {
            self.balancer.main.forget_session(identity);
        }
    }

    /// What a session is made under. Unlike a connection's identity it means the same in every
    /// worker, and after a reload.
    fn write_session_identity(&self, tls: Tls, address: &Address) -> Option<&'static [u8]> {
        let main = self.balancer.main;
        let fingerprint = main.fingerprint(tls.context())?;
        let verify = self.verifies();
        let mut identity = main.identity.try_borrow_mut().ok()?;
        identity.clear();
        identity.text(&fingerprint);
        identity.text(&tls.certificate_digest());
        identity.text(tls.server_name());
        identity.text(if verify { self.upstream.name_to_verify() } else { &[] });
        identity.number(verify.into());
        self.try_tls().write_session_identity(&mut identity);
        identity.text(addr::unmarked(address));
        self.request.pool()?.alloc_slice(identity.bytes())
    }
}

impl MainConf {
    /// A session to offer: the worker's own, or one that another worker has made.
    fn session(&self, identity: &[u8], pc: Peer) -> Option<Session> {
        let mut own = self.sessions().try_borrow_mut().ok()?;
        if let Some(session) = own.get(identity) {
            if !session.is_expired() {
                return Some(session);
            }
            own.remove(identity);
        }
        let session = match self.shared_sessions()?.get(identity) {
            Ok(bytes) => Session::from_bytes(&bytes).ok_or(Miss::Damaged),
            Err(miss) => Err(miss),
        };
        match session {
            Ok(session) => {
                own.put(identity, session.clone());
                Some(session)
            }
            Err(Miss::None) => None,
            Err(Miss::Damaged) => {
                debug!(pc.log(), "lua balancer: ssl damaged session in the shared cache ignored");
                None
            }
        }
    }

    fn keep_session(&self, identity: &[u8], session: Session, pc: Peer) {
        if let Some(shared) = self.shared_sessions() {
            let kept = session
                .to_bytes()
                .is_some_and(|bytes| shared.put(identity, &bytes, session.expires()));
            if !kept {
                debug!(
                    pc.log(),
                    "lua balancer: ssl session too large for the shared cache ignored"
                );
            }
        }
        if let Ok(mut own) = self.sessions().try_borrow_mut() {
            own.forget_expired(Session::is_expired);
            own.put(identity, session);
        }
    }

    fn forget_session(&self, identity: &[u8]) {
        if let Ok(mut own) = self.sessions().try_borrow_mut() {
            own.remove(identity);
        }
        if let Some(shared) = self.shared_sessions() {
            shared.remove(identity);
        }
    }
}

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
        panic_point("set_session");
        // SAFETY: the caller's promise.
        let Some((pc, peer)) = (unsafe { arguments(pc, data) }) else { return ERROR };
        pc.address().map_or(ERROR, |address| peer.set_session(pc, &address))
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
        let Some((pc, peer)) = (unsafe { arguments(pc, data) }) else { return };
        peer.save_session(pc);
    });
}
