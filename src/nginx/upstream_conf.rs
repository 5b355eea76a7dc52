//! `ngx_http_upstream_srv_conf_t`: an `upstream{}` block.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::slice;

use ngx::ffi::{
    ngx_array_push, ngx_conf_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_init_pt, ngx_http_upstream_init_round_robin, ngx_http_upstream_server_t,
    ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_module_t, ngx_str_t, NGX_ERROR,
};

use super::addr;
use super::conf::{module_name, Conf};
use super::request::Request;

/// A function that starts each request of a block.
pub type InitPeer =
    unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

/// An `upstream{}` block.
#[derive(Clone, Copy)]
pub struct UpstreamConf(NonNull<ngx_http_upstream_srv_conf_t>);

/// nginx's own keepalive; `None` when it was built without.
pub fn keepalive_module(cf: Conf) -> Option<&'static ngx_module_t> {
    cf.modules().find(|module| module_name(module) == b"ngx_http_upstream_keepalive_module")
}

impl UpstreamConf {
    /// # Safety
    /// `us` belongs to the configuration that is read or runs.
    pub unsafe fn from_ptr(us: *mut ngx_http_upstream_srv_conf_t) -> Option<Self> {
        NonNull::new(us).map(UpstreamConf)
    }

    /// The raw structure, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_http_upstream_srv_conf_t {
        self.0.as_ptr()
    }

    /// What `module` keeps for the block (`ngx_http_conf_upstream_srv_conf`); null for an
    /// upstream without a block (`proxy_pass http://host`).
    pub fn module_conf(self, module: &ngx_module_t) -> *mut c_void {
        // SAFETY: srv_conf, where there is one, has a place for each http module.
        unsafe {
            let confs = (*self.as_ptr()).srv_conf;
            if confs.is_null() {
                return core::ptr::null_mut();
            }
            *confs.add(module.ctx_index)
        }
    }

    /// The block's name.
    pub fn host(self) -> *mut ngx_str_t {
        // SAFETY: the block is live.
        unsafe { &raw mut (*self.as_ptr()).host }
    }

    /// Whether a directive of the block so far has named a balancing method, or `keepalive`.
    pub fn has_method(self) -> bool {
        // SAFETY: the block is live.
        unsafe { (*self.as_ptr()).peer.init_upstream.is_some() }
    }

    /// Replaces the function that prepares the block after the configuration is read, and returns
    /// the one before.
    pub fn replace_init_upstream(
        self,
        init: ngx_http_upstream_init_pt,
    ) -> ngx_http_upstream_init_pt {
        // SAFETY: the block is live.
        unsafe { core::mem::replace(&mut (*self.as_ptr()).peer.init_upstream, init) }
    }

    /// Replaces the function that starts each request, and returns the one before.
    pub fn replace_init_peer(
        self,
        init: ngx_http_upstream_init_peer_pt,
    ) -> ngx_http_upstream_init_peer_pt {
        // SAFETY: the block is live.
        unsafe { core::mem::replace(&mut (*self.as_ptr()).peer.init, init) }
    }

    /// Whether a request is started by another function than `init`.
    pub fn init_peer_is_not(self, init: InitPeer) -> bool {
        // SAFETY: the block is live.
        unsafe { (*self.as_ptr()).peer.init }.map(|f| f as usize) != Some(init as usize)
    }

    /// How many connections nginx's [keepalive module](keepalive_module) keeps for the block: 0
    /// without it. `None`
    /// while the module was told nothing (since 1.29.7 it keeps some all the same). Its
    /// configuration starts with that number, in every version so far.
    pub fn keepalive_connections(self, module: Option<&ngx_module_t>) -> Option<usize> {
        const UNSET: usize = usize::MAX;
        let Some(module) = module else { return Some(0) };
        // SAFETY: the module makes a configuration for each block, which is larger than a number.
        let n = unsafe { self.module_conf(module).cast::<usize>().as_ref() };
        n.copied().map_or(Some(0), |n| (n != UNSET).then_some(n))
    }

    /// Prepares the block as `init` does, or round robin where there is none.
    pub fn init_upstream(self, cf: Conf, init: ngx_http_upstream_init_pt) -> ngx_int_t {
        type Init =
            unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

        let init: Init = init.unwrap_or(ngx_http_upstream_init_round_robin);
        // SAFETY: an init function of nginx gets the block that it was set in.
        unsafe { init(cf.as_ptr(), self.as_ptr()) }
    }

    /// Starts a request as `init` does.
    pub fn init_peer(self, request: Request, init: ngx_http_upstream_init_peer_pt) -> ngx_int_t {
        match init {
            // SAFETY: as in `init_upstream`.
            Some(init) => unsafe { init(request.as_ptr(), self.as_ptr()) },
            None => NGX_ERROR as ngx_int_t,
        }
    }

    /// The `server` lines. The slice must not be held across a call into nginx.
    fn servers(self) -> &'static mut [ngx_http_upstream_server_t] {
        // SAFETY: the array belongs to the block, and nobody else reads it while the
        // configuration is prepared.
        unsafe {
            let servers = (*self.as_ptr()).servers;
            if servers.is_null() || (*servers).nelts == 0 {
                return &mut [];
            }
            slice::from_raw_parts_mut((*servers).elts.cast(), (*servers).nelts)
        }
    }

    /// How many `server` lines the block has so far.
    pub fn server_count(self) -> usize {
        self.servers().len()
    }

    /// Adds a `server 0.0.0.1:80 down`, since nginx refuses a block without any. Nobody dials it,
    /// also where another method comes later and leaves no time to retire it.
    pub fn add_placeholder(self, cf: Conf) -> Option<()> {
        let pool = cf.pool()?;
        let parsed = addr::parse(pool, b"0.0.0.1", 80).ok()?;
        let sockaddr = pool.copy(&parsed.sockaddr)?;
        let name = pool.copy(&parsed.name)?;
        let address = pool.alloc::<ngx::ffi::ngx_addr_t>()?;

        // SAFETY: `address` is fresh memory; the array is the block's own, and what
        // ngx_array_push returns is written whole, as the `server` directive does it.
        unsafe {
            let address = address.as_ptr().cast::<ngx::ffi::ngx_addr_t>();
            (*address).sockaddr = sockaddr.data.cast();
            (*address).socklen = sockaddr.len as _;
            (*address).name = name;

            let server: *mut ngx_http_upstream_server_t =
                ngx_array_push((*self.as_ptr()).servers).cast();
            if server.is_null() {
                return None;
            }
            server.write_bytes(0, 1);
            (*server).name = name;
            (*server).addrs = address;
            (*server).naddrs = 1;
            (*server).weight = 1;
            (*server).max_fails = 1;
            (*server).fail_timeout = 10;
            (*server).down = 1;
        }
        Some(())
    }

    /// Takes each `server 0.0.0.1` out of service when there is another server, so that nobody
    /// dials it. True when there is no other.
    pub fn retire_placeholders(self) -> bool {
        let is_placeholder = |server: &ngx_http_upstream_server_t| {
            // SAFETY: `addrs` has `naddrs` addresses, each with its sockaddr.
            server.naddrs > 0
                && unsafe { slice::from_raw_parts(server.addrs, server.naddrs) }.iter().all(|a| {
                    // SAFETY: as above.
                    addr::is_placeholder(unsafe {
                        slice::from_raw_parts(a.sockaddr.cast(), a.socklen as usize)
                    })
                })
        };

        let servers = self.servers();
        if servers.iter().all(is_placeholder) {
            return true;
        }
        for server in servers.iter_mut().filter(|s| is_placeholder(s)) {
            server.down = 1;
        }
        false
    }
}

/// All `upstream{}` blocks, and the upstreams that nginx made up itself.
pub fn all(cf: Conf) -> Vec<UpstreamConf> {
    use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};

    // SAFETY: nginx passes a live cf.
    let Some(main) = NgxHttpUpstreamModule::main_conf(unsafe { &*cf.as_ptr() }) else {
        return Vec::new();
    };
    // SAFETY: the array holds pointers to the blocks, which live as long as the configuration.
    unsafe {
        main.upstreams
            .as_slice::<*mut ngx_http_upstream_srv_conf_t>()
            .iter()
            .filter_map(|us| UpstreamConf::from_ptr(*us))
            .collect()
    }
}

/// The block whose directives are being read.
pub fn current(cf: Conf) -> Option<UpstreamConf> {
    use ngx::http::{HttpModuleServerConf, NgxHttpUpstreamModule};

    // SAFETY: nginx passes a live cf.
    let us = NgxHttpUpstreamModule::server_conf(unsafe { &*cf.as_ptr() })?;
    // SAFETY: the block lives as long as the configuration.
    unsafe { UpstreamConf::from_ptr(core::ptr::from_ref(us).cast_mut()) }
}
