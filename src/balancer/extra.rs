//! What few requests need: settings of Lua's beyond the peer, and what TLS keeps. It is made at
//! its first use, so that the others neither carry nor clear it.

#![forbid(unsafe_code)]

use core::cell::Cell;
use core::ffi::CStr;
use core::ptr;

use ngx::ffi::ngx_addr_t;
#[cfg(ngx_feature = "http_ssl")]
use ngx::ffi::ngx_str_t;

use super::list::List;
use super::peer::{Chosen, PeerData};
#[cfg(ngx_feature = "http_ssl")]
use super::tls::TryTls;
use crate::nginx::upstream::Upstream;

/// What few requests need. It lives as long as the request.
pub struct Extra {
    /// The peers that Lua gave for this try and those after it.
    pub list: List<'static, Chosen>,
    /// The local address that Lua set, for all tries that follow.
    pub local: Cell<*mut ngx_addr_t>,
    /// The caller's own name for a part of the pool, and how many connections it may have.
    pub pool: Cell<Option<(&'static [u8], usize)>>,
    /// The number of the connection's identity, where nginx's own pool is under us.
    pub noted: Cell<Option<u64>>,
    /// What Lua wants of the TLS of this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub tls: Cell<TryTls>,
    /// What the TLS session of this try is found and kept under; empty for none.
    #[cfg(ngx_feature = "http_ssl")]
    pub session_identity: Cell<&'static [u8]>,
    /// Whether a session was offered in this try, and the peer has given no other one since.
    #[cfg(ngx_feature = "http_ssl")]
    pub session_offered: Cell<bool>,
    /// Whether the location uses TLS, and the name that it does so under.
    #[cfg(ngx_feature = "http_ssl")]
    configured_ssl: (bool, ngx_str_t),
}

impl Extra {
    /// Must be made before anything of `upstream`'s TLS is changed.
    fn new(upstream: Upstream) -> Self {
        #[cfg(not(ngx_feature = "http_ssl"))]
        let _ = upstream;
        Extra {
            list: List::default(),
            local: Cell::new(ptr::null_mut()),
            pool: Cell::new(None),
            noted: Cell::new(None),
            #[cfg(ngx_feature = "http_ssl")]
            tls: Cell::new(TryTls::default()),
            #[cfg(ngx_feature = "http_ssl")]
            session_identity: Cell::new(&[]),
            #[cfg(ngx_feature = "http_ssl")]
            session_offered: Cell::new(false),
            #[cfg(ngx_feature = "http_ssl")]
            configured_ssl: (upstream.ssl(), upstream.ssl_name()),
        }
    }

    /// Forgets what the chunk said for the try before.
    pub fn reset(&self, upstream: Upstream) {
        self.pool.set(None);
        #[cfg(ngx_feature = "http_ssl")]
        {
            self.tls.set(TryTls::default());
            if upstream.ssl() != self.configured_ssl.0 {
                upstream.set_ssl(self.configured_ssl.0);
            }
        }
        #[cfg(not(ngx_feature = "http_ssl"))]
        let _ = upstream;
    }

    /// Starts the TLS of a try under the configured name and without a session: it may go over a
    /// connection of a pool, which is not asked for any.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn begin_tls(&self, upstream: Upstream) {
        upstream.set_ssl_name(self.configured_ssl.1);
        self.session_identity.set(&[]);
        self.session_offered.set(false);
    }
}

impl PeerData {
    /// What was needed so far beyond the peer.
    #[inline]
    pub fn extra(&self) -> Option<&'static Extra> {
        self.extra.get()
    }

    /// The same, made now if need be.
    pub fn extra_or_new(&self) -> Result<&'static Extra, &'static CStr> {
        self.extra().map_or_else(|| self.new_extra(), Ok)
    }

    #[cold]
    fn new_extra(&self) -> Result<&'static Extra, &'static CStr> {
        let pool = self.request.pool().ok_or(c"no memory")?;
        let extra = pool.place(Extra::new(self.upstream)).ok_or(c"no memory")?;
        self.extra.set(Some(extra));
        Ok(extra)
    }

    /// What Lua wants of the TLS of this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) fn try_tls(&self) -> TryTls {
        self.extra().map_or_else(TryTls::default, |extra| extra.tls.get())
    }
}
