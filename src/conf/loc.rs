//! The configuration of a location, for what its upstream may need.

use core::cell::Cell;

use ngx::http::HttpModuleLocationConf;

use super::SrvConf;
use crate::nginx::conf::Conf;
use crate::nginx::ssl;
use crate::Module;

/// The configuration of a location, for what its upstream may need.
#[derive(Default)]
pub struct LocConf {
    pub(super) location: Cell<ssl::Location>,
    /// Where TLS settings stand in it or around it.
    tls: Cell<ssl::Configured>,
}

impl LocConf {
    /// The configuration of the location that is being made or merged.
    pub(super) fn of(cf: Conf) -> Option<&'static Self> {
        // SAFETY: nginx passes a live cf.
        Module::location_conf(unsafe { &*cf.as_ptr() })
    }

    /// Gives the location the TLS contexts that its balancer may want.
    pub(super) fn merge(&self, cf: Conf, around: &LocConf) -> Option<()> {
        let has_balancer = |us| SrvConf::of(us).is_some_and(|srv| srv.balancer().is_some());
        let around = (around.location.get(), around.tls.get());
        self.location.set(ssl::Location::of(cf));
        self.tls.set(ssl::make_contexts(cf, around, self.location.get(), has_balancer)?);
        Some(())
    }
}
