//! A location's settings on loan: timeouts and TLS of one try.

#![forbid(unsafe_code)]

use super::peer::PeerData;
use crate::nginx::settings::Changes;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::settings::Loan;

impl PeerData {
    /// Puts the settings of this try in place: timeouts, and the TLS name that Lua gave. Comes
    /// after everybody who tells locations apart by their settings.
    #[inline]
    pub fn borrow_settings(&self) {
        // A try with TLS has that, too.
        if self.timeouts.get().any() || self.extra().is_some() {
            self.borrow();
        }
    }

    fn borrow(&self) {
        #[cfg_attr(not(ngx_feature = "http_ssl"), allow(unused_mut))]
        let mut changes = Changes { timeouts: self.timeouts.get(), ..Changes::default() };
        #[cfg(ngx_feature = "http_ssl")]
        if self.upstream.ssl() {
            if let Some(peer) = self.chosen.get().filter(|p| p.host.len > 0) {
                self.upstream.set_ssl_name(peer.host);
                changes.own_ssl_name = true;
            }
            let tls = self.try_tls();
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
        self.loan.get().map_or_else(|| self.upstream.reuses_sessions(), Loan::reuses_sessions)
    }

    /// Whether the peer's certificate is verified in this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub(super) fn verifies(&self) -> bool {
        self.try_tls().verify.unwrap_or_else(|| self.upstream.verifies())
    }

    /// Puts the location's own settings back.
    #[inline]
    pub fn return_settings(&self) {
        let Some(loan) = self.loan.take() else { return };
        if let Ok(mut copies) = self.balancer.main.settings.try_borrow_mut() {
            copies.give_back(self.upstream, loan);
        }
    }
}
