//! A location's settings on loan: timeouts and TLS of one try.

#![forbid(unsafe_code)]

use super::peer::PeerData;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::settings::Loan;
use crate::nginx::settings::{Changes, Timeouts, TlsChanges};

impl PeerData {
    /// Puts the settings of this try in place: timeouts, and the TLS name that Lua gave. Comes
    /// after everybody who tells locations apart by their settings.
    #[inline(always)]
    pub fn borrow_settings(&self) {
        let timeouts = self.timeouts.get();
        // A try with TLS has that, too.
        if self.extra().is_some() {
            self.borrow_with_tls(timeouts);
        } else if timeouts.any() {
            self.borrow(Changes { timeouts, tls: None });
        }
    }

    #[inline(never)]
    fn borrow_with_tls(&self, timeouts: Timeouts) {
        #[cfg(not(ngx_feature = "http_ssl"))]
        let tls = None;
        #[cfg(ngx_feature = "http_ssl")]
        let tls = self.upstream.ssl().then(|| self.tls_changes());
        let changes = Changes { timeouts, tls: tls.filter(|tls| *tls != TlsChanges::default()) };
        if changes.any() {
            self.borrow(changes);
        }
    }

    #[cfg(ngx_feature = "http_ssl")]
    fn tls_changes(&self) -> TlsChanges {
        let named = self.chosen.get().filter(|peer| peer.host.len > 0);
        if let Some(peer) = named {
            self.upstream.set_ssl_name(peer.host);
        }
        let tls = self.try_tls();
        TlsChanges {
            own_name: named.is_some(),
            verify: tls.verify,
            ask_for_session: tls.is_for_connection(),
        }
    }

    #[inline]
    fn borrow(&self, changes: Changes) {
        if self.loan.get().is_none() {
            self.loan.set(self.balancer.main.settings.lend(self.upstream, changes));
        }
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
    #[inline(always)]
    pub fn return_settings(&self) {
        if let Some(loan) = self.loan.take() {
            self.balancer.main.settings.give_back(self.upstream, loan);
        }
    }
}
