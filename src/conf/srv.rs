//! The configuration of an `upstream{}`.
//!
//! nginx makes one for `http{}`, for each `upstream{}` and for each `server{}`; only that of an
//! `upstream{}` ever holds a balancer.

use core::cell::OnceCell;

use ngx::http::HttpModuleServerConf;

use crate::balancer::Balancer;
use crate::nginx::upstream_conf::UpstreamConf;
use crate::Module;

/// The configuration of an `upstream{}`.
#[derive(Default)]
pub struct SrvConf {
    pub(super) balancer: OnceCell<Balancer>,
    /// `balancer_keepalive`: idle connections a worker, and milliseconds that one may live.
    pub(super) keepalive: OnceCell<KeepaliveConf>,
    /// `balancer_by_lua_timeout` in milliseconds; 0 is no limit.
    pub(super) timeout: OnceCell<usize>,
}

/// The `balancer_keepalive` directive.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveConf {
    /// Idle connections a worker.
    pub connections: usize,
    /// Milliseconds after which a connection carries no further request; 0 is no limit.
    pub time: usize,
}

impl Default for KeepaliveConf {
    fn default() -> Self {
        KeepaliveConf { connections: 32, time: 60 * 60 * 1000 }
    }
}

impl SrvConf {
    /// The configuration of a block; `None` for an upstream that nginx made up.
    #[inline]
    pub fn of(us: UpstreamConf) -> Option<&'static Self> {
        // SAFETY: the block is live.
        Module::server_conf(unsafe { &*us.as_ptr() })
    }

    /// What `balancer_keepalive` says.
    pub fn keepalive(&self) -> KeepaliveConf {
        self.keepalive.get().copied().unwrap_or_default()
    }

    /// The block's balancer.
    #[inline]
    pub fn balancer(&self) -> Option<&Balancer> {
        self.balancer.get()
    }
}
