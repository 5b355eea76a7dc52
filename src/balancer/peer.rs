//! The balancing of one request: its data, and the hooks that nginx calls for each try.

use core::cell::Cell;
use core::ffi::{c_void, CStr};
use core::ptr;

use ngx::ffi::{
    ngx_int_t, ngx_peer_connection_t, ngx_str_t, ngx_uint_t, NGX_PEER_FAILED,
};

use super::ctx::RequestCtx;
use super::tries::Tries;
use super::Balancer;
use crate::guard::{guard, quiet};
use crate::log::{debug, log};
use crate::lua::call;
use crate::lua::current::Current;
use crate::nginx::addr;
use crate::nginx::peer::{Address, Hooks, Peer};
use crate::nginx::request::Request;
use crate::nginx::upstream::{ERROR, OK};
use crate::phase::Phase;

/// What the balancer knows of a request. nginx hands it to each hook as `data`.
///
/// Everything that changes is in a cell: while Lua runs, its API reaches the same structure
/// through [`crate::lua::current`].
pub struct PeerData {
    request: Request,
    balancer: &'static Balancer,
    /// The hooks of who balanced before us: round robin, or what the `upstream{}` names.
    original: Hooks,
    tries: Cell<Tries>,
    /// The peer that Lua chose for this try; `None` leaves it to the original hooks.
    address: Cell<Option<Address>>,
    /// The name for SNI and certificate verification that Lua gave for this try.
    host: Cell<ngx_str_t>,
    /// What `ngx.exit` asked for in this try.
    pub exit: Cell<Option<ngx_int_t>>,
    /// How the last try ended: `NGX_PEER_FAILED`, `NGX_PEER_NEXT`, or 0 before any did.
    pub last_state: Cell<ngx_uint_t>,
}

impl PeerData {
    /// The data of a request that starts.
    pub fn new(request: Request, balancer: &'static Balancer, original: Hooks) -> Self {
        PeerData {
            request,
            balancer,
            original,
            tries: Cell::new(Tries::default()),
            address: Cell::new(None),
            host: Cell::new(ngx_str_t::empty()),
            exit: Cell::new(None),
            last_state: Cell::new(0),
        }
    }

    /// # Safety
    /// `data` is the pointer that `init_peer` installed with our hooks.
    unsafe fn of<'a>(data: *mut c_void) -> Option<&'a Self> {
        // SAFETY: the caller's promise; it lives as long as the request, whose hooks these are.
        unsafe { data.cast::<Self>().as_ref() }
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

    /// Chooses the peer of this try. `port` counts where `text` has none.
    pub fn set_current(&self, text: &[u8], port: u16, host: &[u8]) -> Result<(), &'static CStr> {
        let pool = self.request.pool().ok_or(c"no memory")?;
        let mut addresses = self.balancer.main.addresses.try_borrow_mut().map_err(|_| c"busy")?;
        let parsed = addresses.get_or_parse(text, port, || addr::parse(pool, text, port))?;

        let address = parsed.copy_to(pool).ok_or(c"no memory")?;
        let host = match host {
            [] => ngx_str_t::empty(),
            host => pool.copy(host).ok_or(c"no memory")?,
        };

        self.address.set(Some(address));
        self.host.set(host);
        Ok(())
    }

    /// Whether Lua chose the peer of this try.
    pub fn chosen(&self) -> bool {
        self.address.get().is_some()
    }

    /// The hooks of who balanced before us.
    pub fn original(&self) -> &Hooks {
        &self.original
    }

    /// Runs the chunk and does what it says.
    fn get(&self, pc: Peer) -> ngx_int_t {
        let mut tries = self.tries.get();
        pc.set_tries(tries.begin(pc.tries()));
        self.tries.set(tries);
        self.address.set(None);
        self.host.set(ngx_str_t::empty());
        self.exit.set(None);

        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: get peer, tries: {}", pc.tries());
        }
        if self.run().is_err() {
            return ERROR;
        }

        if let Some(address) = self.address.get() {
            pc.set_address(address);
            self.set_ssl_name();
            return OK;
        }
        if self.balancer.placeholder_only.get() {
            if let Some(log) = pc.log() {
                log!(log, NGX_LOG_ERR, "lua balancer: no peer set");
            }
            return ERROR;
        }
        self.original.get(pc)
    }

    fn run(&self) -> Result<(), ()> {
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
            .map_err(|e| failed(e.as_bytes()))?;
        let loaded = self.balancer.chunk.load(vm).map_err(|e| {
            self.request.error(format!("failed to load balancer_by_lua*: {}", e.message).as_bytes())
        })?;
        call::run(vm, loaded.reference(), current, failed)
    }

    /// Makes `host` the name for SNI and certificate verification.
    fn set_ssl_name(&self) {
        #[cfg(ngx_feature = "http_ssl")]
        if self.host.get().len > 0 {
            if let Some(upstream) = self.request.upstream() {
                upstream.set_ssl_name(self.host.get());
            }
        }
    }

    fn free(&self, pc: Peer, state: ngx_uint_t) {
        if let Some(log) = pc.log() {
            debug!(log, "lua balancer: free peer, tries: {}", pc.tries());
        }
        self.last_state.set(state);
        if !self.chosen() {
            return self.original.free(pc, state);
        }
        let mut tries = self.tries.get();
        pc.set_tries(tries.end(pc.tries()));
        self.tries.set(tries);
    }
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
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        match unsafe { (Peer::from_ptr(pc), PeerData::of(data)) } {
            (Some(pc), Some(peer)) => peer.get(pc),
            _ => ERROR,
        }
    })
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
        if let (Some(pc), Some(peer)) = unsafe { (Peer::from_ptr(pc), PeerData::of(data)) } {
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
        if let (Some(pc), Some(peer)) = unsafe { (Peer::from_ptr(pc), PeerData::of(data)) } {
            if !peer.chosen() {
                peer.original.notify(pc, kind);
            }
        }
    });
}

/// The state of a failed try, for those who compare.
pub const FAILED: ngx_uint_t = NGX_PEER_FAILED as ngx_uint_t;
