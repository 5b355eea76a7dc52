//! From a choice to a connection: which pool may serve the try, and what tells its connection from
//! others.

#![forbid(unsafe_code)]

use ngx::ffi::{ngx_int_t, ngx_str_t, NGX_DONE};

use super::identity::Writer;
use super::peer::{Chosen, Fresh, PeerData};
use crate::log::log;
use crate::nginx::addr;
use crate::nginx::peer::Peer;
use crate::nginx::upstream::{ERROR, OK};

impl PeerData {
    /// Connects to the peer that Lua chose, over a connection of the pool where there is one.
    pub(super) fn connect(&self, pc: Peer, mut peer: Chosen) -> ngx_int_t {
        let must_be_fresh = self.fresh.get() == Fresh::Wanted;
        pc.set_address(peer.address);

        let own_pool = self.own_pool();
        let is_plain = self.is_plain(pc);
        let mut passes_by = must_be_fresh;
        if self.balancer.pooled_by_nginx() || (is_plain && own_pool.is_some()) {
            match self.number(pc, &peer, is_plain) {
                None => return self.cannot_tell(pc),
                Some(_) if !addr::has_room(&peer.address) => passes_by = true,
                Some(0) => (),
                Some(number) => {
                    addr::mark(&mut peer.address, number);
                    pc.replace_address(peer.address);
                }
            }
        }
        if let Some((idle, _)) = own_pool {
            // An address with its mark is an identity already, and shorter.
            let marked = if is_plain { addr::marked(&peer.address) } else { None };
            let Some(identity) = marked.or_else(|| self.full_identity(pc, &peer)) else {
                return self.cannot_tell(pc);
            };
            self.identity.set(identity);
            if !must_be_fresh {
                let (taken, hint) = idle.take(&peer, identity, pc);
                self.hint.set(hint);
                if taken {
                    return NGX_DONE as ngx_int_t;
                }
            }
        }
        if passes_by && self.balancer.pooled_by_nginx() {
            return pc.open();
        }
        OK
    }

    fn cannot_tell(&self, pc: Peer) -> ngx_int_t {
        log!(pc.log(), NGX_LOG_ERR, "lua balancer: no way to tell the connection from others");
        ERROR
    }

    /// Leaves the choice to who balanced before us.
    pub(super) fn fall_back(&self, pc: Peer) -> ngx_int_t {
        if self.balancer.placeholder_only.get() {
            log!(pc.log(), NGX_LOG_ERR, "lua balancer: no peer set");
            return ERROR;
        }
        let rc = self.original.get(pc);
        if self.balancer.has_inner_pool() {
            return self.check_inner(pc, rc);
        }
        if rc == OK && self.balancer.pooled_by_nginx() {
            return self.mark_fallback(pc);
        }
        rc
    }

    /// The number of what the connection of a `server` line is opened with.
    pub(super) fn fallback_number(&self, pc: Peer) -> Option<u64> {
        let address = pc.address()?;
        self.number(pc, &Chosen { address, host: ngx_str_t::empty() }, self.is_plain(pc))
    }

    /// Marks the address of a `server` line, in a copy: the line belongs to all requests.
    fn mark_fallback(&self, pc: Peer) -> ngx_int_t {
        let (Some(number), Some(address)) = (self.fallback_number(pc), pc.address()) else {
            return self.cannot_tell(pc);
        };
        if !addr::has_room(&address) {
            return pc.open();
        }
        if number != 0 {
            let copy = self.request.pool().and_then(|pool| addr::copy(pool, address));
            let Some(mut address) = copy else { return ERROR };
            addr::mark(&mut address, number);
            pc.replace_address(address);
        }
        OK
    }

    /// Writes all but the peer's address of what the connection is opened with.
    fn write_identity(&self, pc: Peer, peer: &Chosen, identity: &mut Writer) -> bool {
        identity.clear();
        identity.number(self.upstream.protocol());
        identity.number(pc.options());
        identity.text(addr::bound_to(pc));
        identity.text(self.named_pool().map_or(&[], |(name, _)| name));
        #[cfg(ngx_feature = "http_ssl")]
        {
            identity.number(self.upstream.ssl().into());
            if self.upstream.ssl() {
                self.try_tls().write_identity(identity);
                identity.number(self.verifies().into());
                return self.upstream.write_tls_identity(
                    self.request,
                    peer.host,
                    self.verifies(),
                    identity,
                );
            }
        }
        let _ = peer;
        true
    }

    /// The number of what the connection is opened with, to mark its address with.
    fn number(&self, pc: Peer, peer: &Chosen, is_plain: bool) -> Option<u64> {
        if !is_plain {
            return self.number_of_identity(pc, peer);
        }
        let protocol = self.upstream.protocol();
        match self.balancer.plain.get() {
            Some((known, number)) if known == protocol => Some(number),
            _ => {
                let number = self.number_of_identity(pc, peer)?;
                self.balancer.plain.set(Some((protocol, number)));
                Some(number)
            }
        }
    }

    /// Whether nothing but the protocol tells the connection from others to the same peer.
    fn is_plain(&self, pc: Peer) -> bool {
        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() {
            return false;
        }
        pc.local().is_null() && pc.options() == 0 && self.named_pool().is_none()
    }

    fn number_of_identity(&self, pc: Peer, peer: &Chosen) -> Option<u64> {
        let mut identity = self.balancer.main.identity.try_borrow_mut().ok()?;
        if !self.write_identity(pc, peer, &mut identity) {
            return None;
        }
        self.balancer.main.number_of(identity.bytes())
    }

    /// All that the connection is opened with. It lives as long as the request, and is no socket
    /// address: it begins with a number of more than one byte, or with 0.
    fn full_identity(&self, pc: Peer, peer: &Chosen) -> Option<&'static [u8]> {
        let mut identity = self.balancer.main.identity.try_borrow_mut().ok()?;
        if !self.write_identity(pc, peer, &mut identity) {
            return None;
        }
        identity.text(addr::unmarked(&peer.address));
        self.request.pool()?.alloc_slice(identity.bytes())
    }
}
