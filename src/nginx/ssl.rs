//! `ngx_ssl_t`: a TLS context for locations that pass to `http://`.
//!
//! nginx makes the context of a `proxy_pass` location only for `https://`, though it reads the
//! `proxy_ssl_*` directives in any case. A balancer that turns TLS on for a try needs it all the
//! same. The modules keep those settings in structures of their own, which no header shows; but
//! their directive tables tell where each one is.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use ngx::ffi::{
    nginx_version, ngx_array_t, ngx_command_t, ngx_http_conf_ctx_t, ngx_http_upstream_conf_t,
    ngx_int_t, ngx_module_t, ngx_pcalloc, ngx_pool_cleanup_add, ngx_ssl_certificate,
    ngx_ssl_ciphers, ngx_ssl_cleanup_ctx, ngx_ssl_client_session_cache, ngx_ssl_conf_commands,
    ngx_ssl_create, ngx_ssl_crl, ngx_ssl_t, ngx_ssl_trusted_certificate, ngx_str_t, ngx_uint_t,
    NGX_OK,
};

use super::bytes;
use super::conf::{module_name, Conf};
use super::upstream_conf::UpstreamConf;

/// The modules whose locations can use TLS, by the prefix of their directives.
const PREFIXES: [&str; 3] = ["proxy", "grpc", "uwsgi"];

/// How many of [`PREFIXES`] contexts are made for. Before 1.23 nginx uses TLS wherever there is a
/// context. With `proxy_pass` the schema still tells what the location passes to
/// ([`super::upstream::Upstream::correct_ssl`]); the other two derive even that from the context.
const SERVED: usize = if nginx_version < 1_023_000 { 1 } else { PREFIXES.len() };

/// The configurations of one location, by module (`ngx_http_conf_ctx_t.loc_conf`).
#[derive(Clone, Copy)]
pub struct Location(*mut *mut c_void);

impl Default for Location {
    fn default() -> Self {
        Location(ptr::null_mut())
    }
}

impl Location {
    /// The location that is being made or merged.
    pub fn of(cf: Conf) -> Self {
        // SAFETY: while http{} is configured, cf->ctx is its context or that of a part of it.
        unsafe {
            let ctx = (*cf.as_ptr()).ctx.cast::<ngx_http_conf_ctx_t>();
            ctx.as_ref().map_or_else(Location::default, |ctx| Location(ctx.loc_conf))
        }
    }

    fn conf(self, module: &ngx_module_t) -> *mut c_void {
        if self.0.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: loc_conf has a place for each http module.
        unsafe { *self.0.add(module.ctx_index) }
    }
}

/// One of [`PREFIXES`]' configuration of a location.
struct Settings {
    module: &'static ngx_module_t,
    prefix: &'static str,
    conf: *mut c_void,
}

impl Settings {
    /// Where the directive `<prefix>_<name>` keeps its value.
    fn slot<T>(&self, name: &str) -> Option<*mut T> {
        let mut command: *const ngx_command_t = self.module.commands;
        // SAFETY: the table ends with an empty name, and the offset of a directive without a
        // `post` handler of its own is that of its value.
        unsafe {
            while (*command).name.len > 0 {
                let directive = bytes((*command).name);
                let rest = directive.strip_prefix(self.prefix.as_bytes());
                if rest.and_then(|r| r.strip_prefix(b"_")) == Some(name.as_bytes()) {
                    return Some(self.conf.byte_add((*command).offset).cast());
                }
                command = command.add(1);
            }
        }
        None
    }

    /// A copy of the value of the directive `<prefix>_<name>`.
    fn get<T: Copy>(&self, name: &str) -> Option<T> {
        // SAFETY: `slot` points into the module's live configuration of the location; the
        // callers know the type of each directive's value, which has not changed since 1.22.
        self.slot::<T>(name).map(|slot| unsafe { *slot })
    }

    /// The part that nginx's upstream reads.
    fn upstream(&self) -> Option<*mut ngx_http_upstream_conf_t> {
        let timeout = self.slot::<u8>("connect_timeout")?;
        Some(timeout.wrapping_sub(offset_of!(ngx_http_upstream_conf_t, connect_timeout)).cast())
    }

    /// Whether a directive that matters to TLS has another value than its default.
    fn differ_from_default(&self) -> bool {
        let Some(upstream) = self.upstream() else { return false };
        let path = |name| self.get::<ngx_str_t>(name).is_some_and(|s| s.len > 0);
        // SAFETY: merged settings of a live location.
        unsafe {
            (*upstream).ssl_server_name == 1
                || (*upstream).ssl_verify == 1
                || !(*upstream).ssl_name.is_null()
                || !(*upstream).ssl_certificate.is_null()
                || (*upstream).ssl_session_reuse == 0
                || path("ssl_trusted_certificate")
                || path("ssl_crl")
                || self.get::<ngx_str_t>("ssl_ciphers").is_some_and(|s| bytes(s) != b"DEFAULT")
        }
    }

    /// Makes the context, in the steps of `ngx_http_proxy_set_ssl`.
    fn make_context(&self, cf: Conf, upstream: *mut ngx_http_upstream_conf_t) -> Option<()> {
        fn done(rc: ngx_int_t) -> Option<()> {
            (rc == NGX_OK as ngx_int_t).then_some(())
        }

        let cf = cf.as_ptr();
        // SAFETY: all of these are merged settings of a live location, of the types that the
        // functions want; the cleanup frees the context with the cycle.
        unsafe {
            if (*upstream).ssl.is_null() {
                // On nginx 1.22 a location that passes to http:// has none at all.
                let ssl: *mut ngx_ssl_t = ngx_pcalloc((*cf).pool, size_of::<ngx_ssl_t>()).cast();
                if ssl.is_null() {
                    return None;
                }
                (*ssl).log = (*cf).log;
                (*upstream).ssl = ssl;
            }
            let ssl = (*upstream).ssl;
            let protocols = self.get::<ngx_uint_t>("ssl_protocols")?;
            done(ngx_ssl_create(ssl, protocols, ptr::null_mut()))?;
            let cleanup = ngx_pool_cleanup_add((*cf).pool, 0);
            if cleanup.is_null() {
                ngx_ssl_cleanup_ctx(ssl.cast());
                return None;
            }
            (*cleanup).handler = Some(ngx_ssl_cleanup_ctx);
            (*cleanup).data = ssl.cast();

            done(ngx_ssl_ciphers(cf, ssl, self.slot("ssl_ciphers")?, 0))?;
            let (certificate, key) = ((*upstream).ssl_certificate, (*upstream).ssl_certificate_key);
            // A certificate that is named by variables is read for each connection.
            let given = !certificate.is_null() && !key.is_null() && (*certificate).value.len > 0;
            if given && (*certificate).lengths.is_null() && (*key).lengths.is_null() {
                let (certificate, key) = (&raw mut (*certificate).value, &raw mut (*key).value);
                let passwords = (*upstream).ssl_passwords;
                done(ngx_ssl_certificate(cf, ssl, certificate, key, passwords))?;
            }
            let trusted = self.slot::<ngx_str_t>("ssl_trusted_certificate")?;
            if (*upstream).ssl_verify == 1 && (*trusted).len > 0 {
                let depth = self.get::<ngx_int_t>("ssl_verify_depth")?;
                done(ngx_ssl_trusted_certificate(cf, ssl, trusted, depth))?;
                done(ngx_ssl_crl(cf, ssl, self.slot("ssl_crl")?))?;
            }
            let reuse = (*upstream).ssl_session_reuse as ngx_uint_t;
            done(ngx_ssl_client_session_cache(cf, ssl, reuse))?;
            done(ngx_ssl_conf_commands(cf, ssl, self.get::<*mut ngx_array_t>("ssl_conf_command")?))
        }
    }
}

/// Whether a location or one around it has TLS settings, by module in the order of [`PREFIXES`].
pub type Configured = [bool; PREFIXES.len()];

/// Gives `location`, which has been merged with what is around it, the TLS contexts that its
/// settings describe and nginx has not made, where it passes to an upstream that `wants` them.
///
/// Returns where it has settings, for the locations in it; `None` when a context cannot be made,
/// for a reason that nginx has logged.
pub fn make_contexts(
    cf: Conf,
    around: (Location, Configured),
    location: Location,
    wants: fn(UpstreamConf) -> bool,
) -> Option<Configured> {
    let mut configured = around.1;
    for (prefix, configured) in PREFIXES.iter().zip(&mut configured).take(SERVED) {
        let Some(module) = module(cf, prefix) else { continue };
        let settings =
            |location: Location| Settings { module, prefix, conf: location.conf(module) };
        let (outer, inner) = (settings(around.0), settings(location));
        if outer.conf.is_null() || inner.conf.is_null() {
            continue;
        }
        let (Some(outer_upstream), Some(upstream)) = (outer.upstream(), inner.upstream()) else {
            continue;
        };
        // SAFETY: both are settings of live locations.
        let (outer_ssl, ssl, us) =
            unsafe { ((*outer_upstream).ssl, (*upstream).ssl, (*upstream).upstream) };

        // Since 1.23 a location with a setting of its own gets a structure of its own.
        *configured |= ssl != outer_ssl || inner.differ_from_default();
        // SAFETY: nginx's upstreams live as long as the configuration.
        let wanted = unsafe { UpstreamConf::from_ptr(us) }.is_some_and(wants);
        // SAFETY: `ssl` is null or live.
        let missing = unsafe { ssl.as_ref() }.is_none_or(|ssl| ssl.ctx.is_null());
        if *configured && wanted && missing {
            inner.make_context(cf, upstream)?;
        }
    }
    Some(configured)
}

/// The module of `prefix`, where nginx has it.
fn module(cf: Conf, prefix: &str) -> Option<&'static ngx_module_t> {
    cf.modules().find(|module| {
        let name = module_name(module).strip_prefix(b"ngx_http_");
        name.and_then(|n| n.strip_suffix(b"_module")) == Some(prefix.as_bytes())
    })
}
