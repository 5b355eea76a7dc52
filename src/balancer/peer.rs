//! The balancing of one request: what is known of it, and what Lua says of it.

use core::cell::Cell;
use core::ffi::CStr;
use core::ptr;

use ngx::ffi::{ngx_addr_t, ngx_int_t, ngx_str_t, ngx_uint_t};

use super::addresses::Known;
use super::idle::Keepalive;
use super::list::List;
#[cfg(ngx_feature = "http_ssl")]
use super::tls::{Pems, TryTls};
use super::tries::{More, Tries};
use super::Balancer;
use crate::nginx::addr::{self, Parsed};
use crate::nginx::bytes;
use crate::nginx::peer::{Address, Hooks, Peer};
use crate::nginx::request::Request;
use crate::nginx::settings::{Changes, Loan};
use crate::nginx::upstream::{TryState, Upstream};

/// A peer that Lua chose: where it is, and the name that it is to prove.
#[derive(Clone, Copy)]
pub struct Chosen {
    /// Where to connect to.
    pub address: Address,
    /// The name for SNI and certificate verification; empty for the configured one.
    pub host: ngx_str_t,
}

impl Chosen {
    /// The address, for debug lines.
    pub fn address_text(&self) -> String {
        addr::text_of(&self.address)
    }

    /// The name, for debug lines.
    pub fn host_text(&self) -> String {
        // SAFETY: the name lives as long as the request.
        String::from_utf8_lossy(unsafe { bytes(self.host) }).into_owned()
    }
}

/// Whether a request was tried over a connection that was opened for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// Only over connections of a pool, so far.
    NotTried,
    /// The next try must be.
    Wanted,
    /// It was.
    Tried,
}

/// What the balancer knows of a request. nginx hands it to each hook as `data`.
///
/// Everything that changes is in a cell: while Lua runs, its API reaches the same structure
/// through [`crate::lua::current`].
pub struct PeerData {
    pub(super) request: Request,
    pub(super) upstream: Upstream,
    pub(super) balancer: &'static Balancer,
    /// The hooks of who balanced before us: round robin, or what the `upstream{}` names.
    pub(super) original: Hooks,
    pub(super) tries: Cell<Tries>,
    /// How many tries nginx had noted before the first of this upstream.
    pub(super) states_before: Cell<usize>,

    /// The peer that Lua chose for this try; `None` leaves it to the original hooks.
    pub(super) chosen: Cell<Option<Chosen>>,
    /// The peers that Lua gave for this try and those after it.
    pub(super) list: List<'static, Chosen>,
    /// How many tries Lua asked for on top.
    pub(super) more_tries: Cell<usize>,
    /// What `ngx.exit` asked for in this try.
    pub exit: Cell<Option<ngx_int_t>>,
    pub(super) declined_in_a_row: Cell<usize>,
    /// How the last try ended: `NGX_PEER_FAILED`, `NGX_PEER_NEXT`, or 0 before any did.
    pub last_state: Cell<ngx_uint_t>,

    /// The timeouts that Lua set, for all tries that follow.
    pub(super) changes: Cell<Changes>,
    /// The settings of this try, when they are not the location's own.
    pub(super) loan: Cell<Option<Loan>>,
    /// The local address that Lua set, for all tries that follow.
    pub(super) local: Cell<*mut ngx_addr_t>,
    /// Whether and how the connection of this try is kept when it has ended.
    pub keepalive: Cell<Option<Keepalive>>,
    /// The caller's own name for a part of the pool, and how many connections it may have.
    pub(super) pool: Cell<Option<(&'static [u8], usize)>>,
    /// What the connection of this try is opened with, while it is to be kept.
    pub(super) identity: Cell<&'static [u8]>,
    /// The number of that, where nginx's own pool is under us.
    pub(super) noted: Cell<Option<u64>>,
    /// Whether a try has gone over a connection of its own, and whether the next one must.
    pub(super) fresh: Cell<Fresh>,
    /// What Lua wants of the TLS of this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub tls: Cell<TryTls>,
    /// What the TLS session of this try is found and kept under; empty for none.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) session_identity: Cell<&'static [u8]>,
    /// Whether a session was offered in this try, and the peer has given no other one since.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) session_offered: Cell<bool>,
    /// Whether the location uses TLS, and the name that it does so under.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) configured_ssl: (bool, ngx_str_t),

    /// The hooks of who wrapped us after the configuration was read (see [`super::outer`]).
    pub outer: Cell<Option<Hooks>>,
}

impl PeerData {
    /// The data of a request that starts.
    pub fn new(
        request: Request,
        upstream: Upstream,
        balancer: &'static Balancer,
        original: Hooks,
    ) -> Self {
        PeerData {
            request,
            upstream,
            balancer,
            original,
            tries: Cell::new(Tries::default()),
            states_before: Cell::new(Upstream::state_count(request)),
            chosen: Cell::new(None),
            list: List::default(),
            more_tries: Cell::new(0),
            exit: Cell::new(None),
            declined_in_a_row: Cell::new(0),
            last_state: Cell::new(0),
            changes: Cell::new(Changes::default()),
            loan: Cell::new(None),
            local: Cell::new(ptr::null_mut()),
            keepalive: Cell::new(None),
            pool: Cell::new(None),
            identity: Cell::new(&[]),
            noted: Cell::new(None),
            fresh: Cell::new(Fresh::NotTried),
            #[cfg(ngx_feature = "http_ssl")]
            tls: Cell::new(TryTls::default()),
            #[cfg(ngx_feature = "http_ssl")]
            session_identity: Cell::new(&[]),
            #[cfg(ngx_feature = "http_ssl")]
            session_offered: Cell::new(false),
            #[cfg(ngx_feature = "http_ssl")]
            configured_ssl: (upstream.ssl(), upstream.ssl_name()),
            outer: Cell::new(None),
        }
    }

    /// The request that is balanced.
    pub fn request(&self) -> Request {
        self.request
    }

    /// Its upstream.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// Whether Lua chose the peer of this try.
    pub fn is_chosen(&self) -> bool {
        self.chosen.get().is_some()
    }

    /// The peer that Lua chose for this try.
    pub fn chosen(&self) -> Option<Chosen> {
        self.chosen.get()
    }

    /// PEM that was parsed before.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn pems(&self) -> &Pems {
        &self.balancer.main.pems
    }

    /// Makes a peer of what Lua names. `port` counts where `text` has none.
    pub fn peer_of(&self, text: &[u8], port: u16, host: &[u8]) -> Result<Chosen, &'static CStr> {
        let pool = self.request.pool().ok_or(c"no memory")?;
        let mut addresses = self.balancer.main.addresses.try_borrow_mut().map_err(|_| c"busy")?;
        let address = match addresses.find(text, port) {
            Some(Known { sockaddr, name }) => addr::place(pool, sockaddr, name),
            None => {
                let Parsed { sockaddr, name } = &addr::parse(pool, text, port)?;
                addresses.remember(text, port, Known { sockaddr, name });
                addr::place(pool, sockaddr, name)
            }
        };
        let address = address.ok_or(c"no memory")?;
        let host = match host {
            [] => ngx_str_t::empty(),
            host => pool.copy(host).ok_or(c"no memory")?,
        };
        Ok(Chosen { address, host })
    }

    /// Chooses the peer of this try.
    pub fn choose(&self, peer: Chosen) {
        self.list.clear();
        self.pool.set(None);
        self.chosen.set(Some(peer));
    }

    /// Chooses the peers of this try and of those after it, one for each.
    pub fn choose_all(&self, peers: &'static [Chosen]) {
        self.list.set(peers);
        self.pool.set(None);
        self.chosen.set(self.list.next());
    }

    /// Adds tries, as far as `proxy_next_upstream_tries` allows.
    pub fn add_tries(&self, count: usize) -> More {
        let limit = self.upstream.tries_limit();
        let left = self.upstream.peer().map_or(0, Peer::tries);
        let more = self.tries.get().more(count, left, limit);
        self.more_tries.set(more.count);
        more
    }

    /// Sets the timeouts for all tries that follow, in milliseconds; 0 keeps the configured one.
    pub fn set_timeouts(&self, connect: usize, send: usize, read: usize) {
        let mut changes = self.changes.get();
        for (value, timeout) in [
            (connect, &mut changes.connect_timeout),
            (send, &mut changes.send_timeout),
            (read, &mut changes.read_timeout),
        ] {
            if value > 0 {
                *timeout = value;
            }
        }
        self.changes.set(changes);
    }

    /// Binds all tries that follow to a local address.
    pub fn set_local(&self, local: *mut ngx_addr_t) {
        self.local.set(local);
    }

    /// How the tries of this request went, the one that begins now not counted.
    pub fn tried(&self, n: usize) -> Option<TryState> {
        let first = self.states_before.get();
        let current = Upstream::state_count(self.request).checked_sub(1)?;
        (first + n < current).then(|| Upstream::state(self.request, first + n)).flatten()
    }

    /// The status of the try before this one; 0 when there is none.
    pub fn last_status(&self) -> usize {
        let count = Upstream::state_count(self.request);
        count.checked_sub(2).and_then(|n| self.state_of_this_upstream(n)).map_or(0, |s| s.status)
    }

    fn state_of_this_upstream(&self, n: usize) -> Option<TryState> {
        (n >= self.states_before.get()).then(|| Upstream::state(self.request, n)).flatten()
    }

    /// What the connection of this try was opened with.
    pub fn identity(&self) -> &[u8] {
        self.identity.get()
    }

    /// The caller's own name for a part of the pool, and how many connections it may have.
    pub fn pool_name(&self) -> Option<(&[u8], usize)> {
        self.pool.get().filter(|(_, size)| *size < usize::MAX)
    }

    /// Keeps the connection of this try when it has ended. In milliseconds, 0 is no limit.
    pub fn enable_keepalive(
        &self,
        timeout: usize,
        max_requests: usize,
    ) -> Result<(), &'static CStr> {
        if !self.is_chosen() {
            return Err(c"no current peer set");
        }
        let defaults = self.balancer.idle().ok_or(c"no pool")?.defaults();
        self.keepalive.set(Some(Keepalive { timeout, max_requests, ..defaults }));
        Ok(())
    }

    /// Names a part of the pool for this try, once its peer is chosen; `None` as `size` is no limit
    /// but the pool's own.
    pub fn set_pool(&self, name: &[u8], size: Option<usize>) -> Result<(), &'static CStr> {
        let pool = self.request.pool().ok_or(c"no memory")?;
        let name = pool.alloc_slice(name).ok_or(c"no memory")?;
        self.pool.set(Some((name, size.unwrap_or(usize::MAX))));
        Ok(())
    }
}
