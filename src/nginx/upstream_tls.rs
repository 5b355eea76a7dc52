//! `ngx_http_upstream_t`: the TLS of one request's upstream.

use ngx::ffi::{ngx_http_complex_value, ngx_http_complex_value_t, ngx_str_t};

use super::request::Request;
use super::upstream::{Upstream, OK};
use super::{bytes, str_of};
use crate::balancer::identity::Writer;

impl Upstream {
    /// Whether this try is to use TLS.
    pub fn ssl(self) -> bool {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).ssl() != 0 }
    }

    /// Turns TLS off where nginx has turned it on, before 1.23, only because the location has a
    /// context: it is one that [`super::ssl`] has made, and the location passes to `http://`.
    pub fn correct_ssl(self) {
        // SAFETY: the upstream is live.
        unsafe {
            let u = self.as_ptr();
            if (*u).ssl() != 0 && bytes((*u).schema).eq_ignore_ascii_case(b"http://") {
                (*u).set_ssl(0);
            }
        }
    }

    /// Turns TLS on or off for the tries that follow.
    pub fn set_ssl(self, on: bool) {
        // SAFETY: the upstream is live; the text is static, and nginx only reads it.
        unsafe {
            (*self.as_ptr()).set_ssl(on.into());
            let schema = bytes((*self.as_ptr()).schema);
            let other: Option<&'static [u8]> = match (schema, on) {
                (b"http://", true) => Some(b"https://"),
                (b"https://", false) => Some(b"http://"),
                (b"grpc://", true) => Some(b"grpcs://"),
                (b"grpcs://", false) => Some(b"grpc://"),
                (b"uwsgi://", true) => Some(b"suwsgi://"),
                (b"suwsgi://", false) => Some(b"uwsgi://"),
                _ => None,
            };
            if let Some(other) = other {
                (*self.as_ptr()).schema = str_of(other);
            }
        }
    }

    /// Whether there is a TLS context to connect with.
    pub fn has_ssl_context(self) -> bool {
        // SAFETY: the settings are live, and so is what they point to.
        unsafe { (*self.conf()).ssl.as_ref().is_some_and(|ssl| !ssl.ctx.is_null()) }
    }

    /// Whether `proxy_ssl_session_reuse` is on.
    pub fn reuses_sessions(self) -> bool {
        // SAFETY: the settings are live.
        unsafe { (*self.conf()).ssl_session_reuse != 0 }
    }

    /// Whether `proxy_ssl_verify` is on.
    pub fn verifies(self) -> bool {
        // SAFETY: the settings are live.
        unsafe { (*self.conf()).ssl_verify != 0 }
    }

    /// The name that the peer's certificate is verified under, once nginx has worked it out.
    pub fn name_to_verify(self) -> &'static [u8] {
        // SAFETY: the name lives as long as the request.
        unsafe { bytes((*self.as_ptr()).ssl_name) }
    }

    /// The name for SNI and certificate verification, where `proxy_ssl_name` does not give one.
    pub fn ssl_name(self) -> ngx_str_t {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).ssl_name }
    }

    /// Writes all that tells TLS connections to one address apart: the location's context (CA,
    /// CRL, protocols, certificates given by path), the name it is asked for and, when `verify` is
    /// set, verified under, a certificate given by variables. `host` is Lua's own name; empty for
    /// the configured one. False when a value cannot be had.
    pub fn write_tls_identity(
        self,
        request: Request,
        host: ngx_str_t,
        verify: bool,
        identity: &mut Writer,
    ) -> bool {
        let value = |complex: *mut ngx_http_complex_value_t| {
            let mut text = ngx_str_t::empty();
            // SAFETY: the request and the location's settings are live; so is the value, which
            // may lie in the request's memory.
            unsafe {
                let rc = ngx_http_complex_value(request.as_ptr(), complex, &mut text);
                (rc == OK).then(|| bytes(text))
            }
        };

        // SAFETY: the settings are live. A certificate with variables has `lengths`.
        unsafe {
            let conf = &*self.conf();
            identity.number(conf.ssl as usize);
            identity.number(conf.ssl_server_name as usize);

            if verify || conf.ssl_server_name != 0 {
                let name = match (host.len, conf.ssl_name.is_null()) {
                    (0, true) => bytes(self.ssl_name()),
                    (0, false) => match value(conf.ssl_name) {
                        Some(name) => name,
                        None => return false,
                    },
                    _ => bytes(host),
                };
                identity.text(name);
            }

            let (certificate, key) = (conf.ssl_certificate, conf.ssl_certificate_key);
            let given = !certificate.is_null() && !key.is_null() && (*certificate).value.len > 0;
            if given && !((*certificate).lengths.is_null() && (*key).lengths.is_null()) {
                let (Some(certificate), Some(key)) = (value(certificate), value(key)) else {
                    return false;
                };
                identity.text(certificate);
                identity.text(key);
            }
        }
        true
    }

    /// Sets that name. It lives as long as the request.
    pub fn set_ssl_name(self, name: ngx_str_t) {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).ssl_name = name }
    }
}
