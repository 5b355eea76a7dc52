//! The balancing of one request: what is known of it, and what Lua says of it.

use core::cell::Cell;
use core::ffi::CStr;

use ngx::ffi::{ngx_addr_t, ngx_int_t, ngx_str_t, ngx_uint_t};

use super::addresses::Known;
use super::extra::Extra;
use super::idle::Keepalive;
use super::keepalive::Hint;
use super::outer::OuterHooks;
#[cfg(ngx_feature = "http_ssl")]
use super::tls::Pems;
use super::tries::{More, Tries};
use super::Balancer;
use crate::nginx::addr::{self, Parsed, Room};
use crate::nginx::bytes;
use crate::nginx::peer::{Address, Hooks, Peer};
use crate::nginx::request::Request;
use crate::nginx::settings::{Loan, Timeouts};
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
    /// How many tries Lua asked for on top.
    pub(super) more_tries: Cell<usize>,
    /// What `ngx.exit` asked for in this try.
    pub exit: Cell<Option<ngx_int_t>>,
    pub(super) declined_in_a_row: Cell<usize>,
    /// How the last try ended: `NGX_PEER_FAILED`, `NGX_PEER_NEXT`, or 0 before any did.
    pub last_state: Cell<ngx_uint_t>,

    /// Whether and how the connection of this try is kept when it has ended.
    pub keepalive: Cell<Option<Keepalive>>,
    /// What the connection of this try is opened with, while it is to be kept.
    pub(super) identity: Cell<&'static [u8]>,
    /// Where the pool has connections of that identity.
    pub(super) hint: Cell<Hint>,
    /// Whether a try has gone over a connection of its own, and whether the next one must.
    pub(super) fresh: Cell<Fresh>,
    /// The timeouts that Lua set, for all tries that follow.
    pub(super) timeouts: Cell<Timeouts>,
    /// The settings of this try, when they are not the location's own.
    pub(super) loan: Cell<Option<Loan>>,
    /// What few requests need.
    pub(super) extra: Cell<Option<&'static Extra>>,
    /// The hooks of who wrapped us after the configuration was read.
    pub(super) outer: OuterHooks,
    /// Where the first address that Lua names lies.
    room: Room,
}

impl PeerData {
    /// The data of a request that starts.
    #[inline(always)]
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
            more_tries: Cell::new(0),
            exit: Cell::new(None),
            declined_in_a_row: Cell::new(0),
            last_state: Cell::new(0),
            keepalive: Cell::new(None),
            identity: Cell::new(&[]),
            hint: Cell::new(Hint::default()),
            fresh: Cell::new(Fresh::NotTried),
            timeouts: Cell::new(Timeouts::default()),
            loan: Cell::new(None),
            extra: Cell::new(None),
            outer: OuterHooks::default(),
            room: Room::new(),
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
    #[inline(always)]
    pub fn peer_of(&self, text: &[u8], port: u16, host: &[u8]) -> Result<Chosen, &'static CStr> {
        // OpenSSL would take what stands in front of a NUL for all of the name.
        if host.iter().any(u8::is_ascii_control) {
            return Err(c"invalid name of the peer");
        }
        let pool = self.request.pool().ok_or(c"no memory")?;
        let mut addresses = self.balancer.main.addresses.try_borrow_mut().map_err(|_| c"busy")?;
        let address = match addresses.find(text, port) {
            Some(Known { sockaddr, name }) => addr::place(pool, &self.room, sockaddr, name),
            None => {
                let Parsed { sockaddr, name } = &addr::parse(pool, text, port)?;
                addresses.remember(text, port, Known { sockaddr, name });
                addr::place(pool, &self.room, sockaddr, name)
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
        if let Some(extra) = self.extra() {
            extra.list.clear();
            extra.pool.set(None);
        }
        self.chosen.set(Some(peer));
    }

    /// Chooses the peers of this try and of those after it, one for each.
    pub fn choose_all(&self, peers: &'static [Chosen]) -> Result<(), &'static CStr> {
        let extra = self.extra_or_new()?;
        extra.list.set(peers);
        extra.pool.set(None);
        self.chosen.set(extra.list.next());
        Ok(())
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
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        let or = |new, old| if new == 0 { old } else { new };
        let before = self.timeouts.get();
        self.timeouts.set(Timeouts {
            connect: or(timeouts.connect, before.connect),
            send: or(timeouts.send, before.send),
            read: or(timeouts.read, before.read),
        });
    }

    /// Binds all tries that follow to a local address.
    pub fn set_local(&self, local: *mut ngx_addr_t) -> Result<(), &'static CStr> {
        self.extra_or_new()?.local.set(local);
        Ok(())
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
        self.named_pool().filter(|(_, size)| *size < usize::MAX)
    }

    /// The same, also where it has no limit of its own.
    pub(super) fn named_pool(&self) -> Option<(&'static [u8], usize)> {
        self.extra()?.pool.get()
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
        self.extra_or_new()?.pool.set(Some((name, size.unwrap_or(usize::MAX))));
        Ok(())
    }
}
