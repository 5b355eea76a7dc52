//! The balancing of one request: its data, and the hooks that nginx calls for each try.

use core::cell::Cell;
use core::ffi::{c_void, CStr};
use core::ptr;

use ngx::ffi::{
    ngx_addr_t, ngx_int_t, ngx_peer_connection_t, ngx_str_t, ngx_uint_t, NGX_AGAIN, NGX_DONE,
    NGX_PEER_FAILED,
};

use super::ctx::RequestCtx;
use super::exit::{self, Exit};
use super::idle::{Idle, Keepalive};
use super::list::List;
#[cfg(ngx_feature = "http_ssl")]
use super::tls::{Pems, TryTls};
use super::tries::{More, Tries};
use super::Balancer;
use crate::guard::{guard, quiet};
use crate::log::debug;
use crate::lua::call::{self, Failed};
use crate::lua::current::Current;
use crate::nginx::addr;
use crate::nginx::bytes;
use crate::nginx::peer::{Address, Hooks, Peer};
use crate::nginx::request::Request;
use crate::nginx::settings::{Changes, Loan};
use crate::nginx::upstream::{TryState, Upstream, ERROR, OK};
use crate::phase::Phase;

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
        // SAFETY: the name lives as long as the request.
        String::from_utf8_lossy(unsafe { bytes(*self.address.name) }).into_owned()
    }

    /// The name, for debug lines.
    pub fn host_text(&self) -> String {
        // SAFETY: as above.
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
    tries: Cell<Tries>,
    /// How many tries nginx had noted before the first of this upstream.
    states_before: Cell<usize>,

    /// The peer that Lua chose for this try; `None` leaves it to the original hooks.
    chosen: Cell<Option<Chosen>>,
    /// The peers that Lua gave for this try and those after it.
    list: List<'static, Chosen>,
    /// How many tries Lua asked for on top.
    more_tries: Cell<usize>,
    /// What `ngx.exit` asked for in this try.
    pub exit: Cell<Option<ngx_int_t>>,
    declined_in_a_row: Cell<usize>,
    /// How the last try ended: `NGX_PEER_FAILED`, `NGX_PEER_NEXT`, or 0 before any did.
    pub last_state: Cell<ngx_uint_t>,

    /// The timeouts that Lua set, for all tries that follow.
    changes: Cell<Changes>,
    /// The settings of this try, when they are not the location's own.
    loan: Cell<Option<Loan>>,
    /// The local address that Lua set, for all tries that follow.
    local: Cell<*mut ngx_addr_t>,
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
    configured_ssl: (bool, ngx_str_t),

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

    /// The hooks to install, with this as their data.
    pub fn hooks(this: ptr::NonNull<Self>) -> Hooks {
        Hooks {
            data: this.as_ptr().cast(),
            get: Some(ngx_http_lua_balancer_get_peer),
            free: Some(ngx_http_lua_balancer_free_peer),
            notify: Some(ngx_http_lua_balancer_notify_peer),
            #[cfg(ngx_feature = "http_ssl")]
            set_session: Some(super::session::ngx_http_lua_balancer_set_session),
            #[cfg(ngx_feature = "http_ssl")]
            save_session: Some(super::session::ngx_http_lua_balancer_save_session),
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

    /// The hooks of who balanced before us.
    pub fn original(&self) -> &Hooks {
        &self.original
    }

    /// Makes a peer of what Lua names. `port` counts where `text` has none.
    pub fn peer_of(&self, text: &[u8], port: u16, host: &[u8]) -> Result<Chosen, &'static CStr> {
        let pool = self.request.pool().ok_or(c"no memory")?;
        let mut addresses = self.balancer.main.addresses.try_borrow_mut().map_err(|_| c"busy")?;
        let parsed = addresses.get_or_parse(text, port, || addr::parse(pool, text, port))?;
        let address = parsed.copy_to(pool).ok_or(c"no memory")?;
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

    /// Runs the chunk, or takes the next of the peers that it gave, and does what it says.
    fn get(&self, pc: Peer) -> ngx_int_t {
        self.tries.set(self.tries.get().begin());
        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: get peer, tries: {}", pc.tries());
        }

        #[cfg(ngx_feature = "http_ssl")]
        {
            self.upstream.set_ssl_name(self.configured_ssl.1);
            self.begin_tls();
        }
        self.chosen.set(self.list.next());
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

        if !self.local.get().is_null() {
            pc.set_local(self.local.get());
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

    /// Forgets what the chunk said for the tries before, except what holds for the whole request.
    fn reset(&self) {
        self.exit.set(None);
        self.more_tries.set(0);
        self.keepalive.set(None);
        self.pool.set(None);
        #[cfg(ngx_feature = "http_ssl")]
        {
            self.tls.set(TryTls::default());
            if self.upstream.ssl() != self.configured_ssl.0 {
                self.upstream.set_ssl(self.configured_ssl.0);
            }
        }
    }

    fn grant_tries(&self, pc: Peer) {
        if let Some(count) = self.list.count() {
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

        if let Some((vm, reference)) = self.balancer.loaded() {
            return call::run(vm, reference, current, failed);
        }

        // lua_code_cache off: all is made anew.
        let vm = RequestCtx::of_or_new(self.request)
            .ok_or_else(|| "no memory".to_string())
            .and_then(RequestCtx::own_vm)
            .map_err(|e| {
                failed(e.as_bytes());
                Failed
            })?;
        let loaded = self.balancer.chunk.load(vm).map_err(|e| {
            let line = format!("failed to load balancer_by_lua*: {}", e.message);
            self.request.error(line.as_bytes());
            Failed
        })?;
        call::run(vm, loaded.reference(), current, failed)
    }

    /// Puts the settings of this try in place: timeouts, and the TLS name that Lua gave. Comes
    /// after everybody who tells locations apart by their settings.
    pub fn borrow_settings(&self) {
        let mut changes = self.changes.get();
        #[cfg(ngx_feature = "http_ssl")]
        if let Some(peer) = self.chosen.get().filter(|p| p.host.len > 0) {
            if self.upstream.ssl() {
                self.upstream.set_ssl_name(peer.host);
                changes.own_ssl_name = true;
            }
        }
        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() {
            let tls = self.tls.get();
            changes.ssl_verify = tls.verify;
            changes.ask_for_session = tls.is_for_connection();
        }
        if !changes.any() || self.loan.get().is_some() {
            return;
        }
        let Ok(mut copies) = self.balancer.main.settings.try_borrow_mut() else { return };
        let loan = copies.lend(self.upstream, &changes);
        self.loan.set(Some(loan));
    }

    /// Whether sessions are offered and kept (`proxy_ssl_session_reuse`).
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) fn reuses_sessions(&self) -> bool {
        self.loan.get().map_or_else(|| self.upstream.reuses_sessions(), |loan| loan.reuses_sessions)
    }

    /// Whether the peer's certificate is verified in this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) fn verifies(&self) -> bool {
        self.tls.get().verify.unwrap_or_else(|| self.upstream.verifies())
    }

    /// Puts the location's own settings back.
    pub fn return_settings(&self) {
        let Some(loan) = self.loan.take() else { return };
        if let Ok(mut copies) = self.balancer.main.settings.try_borrow_mut() {
            copies.give_back(self.upstream, loan);
        }
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
        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: free peer, tries: {}", pc.tries());
        }
        self.return_settings();
        self.declined_in_a_row.set(0);
        self.last_state.set(state);
        let Some(peer) = self.chosen.get() else {
            if self.balancer.has_inner_pool() {
                self.note_for_inner(pc);
            }
            return self.original.free(pc, state);
        };
        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() {
            self.end_tls(pc, state & FAILED != 0);
        }
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
    /// `cached` after this. A request that finds many such in the pool would so pass its limit,
    /// and so the gift is taken only once, by a request that has no try left and was never tried
    /// over a fresh connection: the peer may be well, it has only closed an idle connection.
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
