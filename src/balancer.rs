//! The balancer of one `upstream{}` block: how it gets between nginx and the block's own method.

pub mod addresses;
pub mod connect;
pub mod ctx;
pub mod exit;
pub mod extra;
pub mod hooks;
pub mod identity;
pub mod idle;
pub mod inner;
pub mod keepalive;
pub mod lending;
pub mod list;
#[cfg(ngx_feature = "http_ssl")]
pub mod memory;
pub mod outer;
pub mod peer;
#[cfg(ngx_feature = "http_ssl")]
pub mod session;
pub mod sessions;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls;
pub mod tries;

use core::cell::{Cell, OnceCell};
use core::ffi::c_int;
use core::ptr;

use ngx::ffi::{
    ngx_conf_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt, ngx_http_upstream_init_pt,
    ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_str_t,
};

use self::idle::Idle;
use self::peer::PeerData;
use crate::conf::{KeepaliveConf, MainConf, SrvConf};
use crate::guard::{guard, panic_point};
use crate::log::debug;
use crate::lua::chunk::{Chunk, Loaded};
use crate::lua::vm::Vm;
use crate::nginx::conf::Conf;
use crate::nginx::peer::Hooks;
use crate::nginx::request::Request;
use crate::nginx::upstream::{ERROR, OK};
use crate::nginx::upstream_conf::UpstreamConf;

/// nginx's own keepalive around a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NginxKeepalive {
    /// There is none.
    None,
    /// It is under us, and never sees the peers that Lua chooses.
    Inner,
    /// The one that nginx has since 1.29.7 without being told.
    Default,
    /// A `keepalive` directive.
    Explicit,
}

/// What a `balancer_by_lua_*` directive makes of its block.
pub struct Balancer {
    /// The configuration of `http{}`.
    pub main: &'static MainConf,
    /// The code.
    pub chunk: Chunk,
    loaded: OnceCell<Loaded>,
    /// Whether Lua alone knows the peers: the block has no server but placeholders.
    pub placeholder_only: Cell<bool>,
    /// `balancer_by_lua_timeout` in milliseconds; 0 is no limit.
    pub timeout: Cell<usize>,
    /// The connections that `enable_keepalive` keeps.
    idle: OnceCell<Idle>,
    /// The number of connections that only their protocol tells from others, with the protocol
    /// that it was asked for last.
    pub plain: Cell<Option<(usize, u64)>>,
    /// How nginx's own keepalive is set up for the block.
    nginx_keepalive: Cell<NginxKeepalive>,
    original_init_upstream: Cell<ngx_http_upstream_init_pt>,
    original_init_peer: Cell<ngx_http_upstream_init_peer_pt>,
    /// The `init_peer` of who wrapped us after all upstreams were prepared.
    outer_init_peer: Cell<ngx_http_upstream_init_peer_pt>,
    /// The block's name.
    name: Cell<*mut ngx_str_t>,
    /// The data that `init_peer` made last.
    last: Cell<Option<&'static PeerData>>,
}

impl Balancer {
    /// The balancer of a block, whose chunk may have been compiled.
    pub fn new(main: &'static MainConf, chunk: Chunk, loaded: Option<Loaded>) -> Self {
        Balancer {
            main,
            chunk,
            loaded: loaded.map_or_else(OnceCell::new, OnceCell::from),
            placeholder_only: Cell::new(false),
            timeout: Cell::new(0),
            idle: OnceCell::new(),
            plain: Cell::new(None),
            nginx_keepalive: Cell::new(NginxKeepalive::None),
            original_init_upstream: Cell::new(None),
            original_init_peer: Cell::new(None),
            outer_init_peer: Cell::new(None),
            name: Cell::new(ptr::null_mut()),
            last: Cell::new(None),
        }
    }

    /// Where the compiled chunk is; `None` before its first run, and when each request compiles
    /// its own.
    #[inline]
    fn loaded(&self) -> Option<(&'static Vm, c_int)> {
        if !self.main.code_cache() {
            return None;
        }
        Some((self.main.vm()?, self.loaded.get()?.reference()))
    }

    /// Compiles the chunk for its first run.
    #[cold]
    fn load(&self) -> Result<(&'static Vm, c_int), String> {
        let vm = self.main.vm().ok_or("no Lua VM")?;
        let loaded = self.chunk.load(vm).map_err(|e| e.message)?;
        Ok((vm, self.loaded.get_or_init(|| loaded).reference()))
    }

    /// Makes the balancer the one of its block. nginx calls us back when all is read.
    pub fn install(&self, us: UpstreamConf) {
        let before = us.replace_init_upstream(Some(ngx_http_lua_balancer_init_upstream));
        self.original_init_upstream.set(before);
        self.name.set(us.host());
    }

    /// The block's name, for `$upstream_addr` where no peer was chosen.
    pub fn name(&self) -> *mut ngx_str_t {
        self.name.get()
    }

    fn init_upstream(&self, cf: Conf, us: UpstreamConf) -> ngx_int_t {
        self.placeholder_only.set(us.retire_placeholders());
        // Later it is filled in, and cannot be told from a directive any more.
        let default =
            outer::WANTED && us.keepalive_connections(self.main.keepalive_module(cf)).is_none();
        let rc = us.init_upstream(cf, self.original_init_upstream.get());
        if rc != OK {
            return rc;
        }
        self.wrap(us);
        if default {
            self.nginx_keepalive.set(NginxKeepalive::Default);
        }
        OK
    }

    /// Whether nginx keeps connections to peers that Lua chooses.
    #[inline]
    pub fn pooled_by_nginx(&self) -> bool {
        matches!(self.nginx_keepalive.get(), NginxKeepalive::Default | NginxKeepalive::Explicit)
    }

    /// Whether nginx keeps connections to the peers of `server` lines, behind our back.
    #[inline]
    pub fn has_inner_pool(&self) -> bool {
        self.nginx_keepalive.get() == NginxKeepalive::Inner
    }

    /// Whether nginx does so without having been told.
    pub fn pooled_by_default(&self) -> bool {
        self.nginx_keepalive.get() == NginxKeepalive::Default
    }

    /// Whether a `keepalive` directive says how: it goes before what Lua says.
    #[inline]
    pub fn pooled_by_directive(&self) -> bool {
        self.nginx_keepalive.get() == NginxKeepalive::Explicit
    }

    fn wrap(&self, us: UpstreamConf) {
        let before = us.replace_init_peer(Some(ngx_http_lua_balancer_init_peer));
        self.original_init_peer.set(before);
    }

    /// The connections that `enable_keepalive` keeps; `None` while the configuration is read.
    #[inline]
    pub fn idle(&self) -> Option<&Idle> {
        self.idle.get()
    }

    /// Comes when all upstreams are prepared, and finds out who else has been at the block.
    pub fn finish(&self, cf: Conf, us: UpstreamConf, keepalive: KeepaliveConf) {
        self.idle.get_or_init(|| Idle::new(keepalive));
        if self.original_init_peer.get().is_none() {
            // The directive of another method came later and replaced our init_upstream.
            self.placeholder_only.set(us.retire_placeholders());
            self.wrap(us);
        }
        if !us.init_peer_is_not(ngx_http_lua_balancer_init_peer) {
            let inner =
                us.keepalive_connections(self.main.keepalive_module(cf)).is_some_and(|n| n > 0);
            let keepalive = if inner { NginxKeepalive::Inner } else { NginxKeepalive::None };
            self.nginx_keepalive.set(keepalive);
            return;
        }
        if self.nginx_keepalive.get() == NginxKeepalive::None {
            self.nginx_keepalive.set(NginxKeepalive::Explicit);
        }
        if outer::WANTED {
            let before = us.replace_init_peer(Some(outer::ngx_http_lua_balancer_init_outer_peer));
            self.outer_init_peer.set(before);
        }
    }

    fn init_peer(&'static self, request: Request, us: UpstreamConf) -> ngx_int_t {
        panic_point("init_peer");
        debug!(request.log(), "lua balancer: init peer");
        let rc = us.init_peer(request, self.original_init_peer.get());
        if rc != OK {
            return rc;
        }

        let (Some(pool), Some(upstream)) = (request.pool(), request.upstream()) else {
            return ERROR;
        };
        let Some(pc) = upstream.peer() else { return ERROR };
        if pc.tries() == 0 && self.placeholder_only.get() {
            // The placeholder is down and gives no try; what Lua chooses is one.
            pc.set_tries(1);
        }
        #[cfg(ngx_feature = "http_ssl")]
        upstream.correct_ssl();
        let data = PeerData::new(request, upstream, self, Hooks::of(pc));
        let Some(data) = self.main.requests.place(pool, data) else { return ERROR };
        data.hooks().install(pc);
        self.last.set(Some(data));
        OK
    }

    /// Starts a request as who wrapped us does, and wraps them in turn.
    fn init_outer_peer(&self, request: Request, us: UpstreamConf) -> ngx_int_t {
        self.last.set(None);
        let rc = us.init_peer(request, self.outer_init_peer.get());
        if rc != OK {
            return rc;
        }
        let (Some(data), Some(pc)) = (self.last.take(), request.upstream().and_then(|u| u.peer()))
        else {
            return ERROR;
        };
        outer::install(data, pc);
        OK
    }
}

/// Prepares an `upstream{}` block (`ngx_http_upstream_init_pt`).
///
/// # Safety
/// nginx calls it while it prepares the configuration.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_upstream(
    cf: *mut ngx_conf_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let (Some(cf), Some(us)) = (unsafe { (Conf::from_ptr(cf), UpstreamConf::from_ptr(us)) })
        else {
            return ERROR;
        };
        match SrvConf::of(us).and_then(SrvConf::balancer) {
            Some(balancer) => balancer.init_upstream(cf, us),
            None => ERROR,
        }
    })
}

/// Starts the balancing of a request (`ngx_http_upstream_init_peer_pt`).
///
/// # Safety
/// nginx calls it with a live request and its block.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: the caller's promise.
    unsafe { with_balancer(r, us, Balancer::init_peer) }
}

/// Calls the balancer of the block.
///
/// # Safety
/// `r` and `us` are what nginx passes to an `init_peer`.
#[inline]
unsafe fn with_balancer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
    init_peer: impl FnOnce(&'static Balancer, Request, UpstreamConf) -> ngx_int_t,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let (Some(request), Some(us)) =
            (unsafe { (Request::from_ptr(r), UpstreamConf::from_ptr(us)) })
        else {
            return ERROR;
        };
        let balancer = SrvConf::of(us).and_then(SrvConf::balancer);
        balancer.map_or(ERROR, |balancer| init_peer(balancer, request, us))
    })
}
