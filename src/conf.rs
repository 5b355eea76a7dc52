//! The module's configuration, and when nginx calls for it.

pub mod block;
pub mod directive;
pub mod lex;
#[cfg(ngx_feature = "http_ssl")]
mod loc;
mod main;
mod srv;
pub mod variable;

use core::ffi::{c_char, c_void};
use core::ptr;

use ngx::ffi::{ngx_conf_t, ngx_int_t};

#[cfg(ngx_feature = "http_ssl")]
pub use self::loc::LocConf;
pub use self::main::MainConf;
pub use self::srv::{KeepaliveConf, SrvConf};
use crate::guard::{guard, log_panics};
use crate::nginx::conf::{Conf, NGX_CONF_ERROR, NGX_CONF_OK};
use crate::nginx::log::NGX_LOG_EMERG;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::ssl;
use crate::nginx::upstream::{ERROR, OK};
use crate::nginx::upstream_conf;

/// Makes the configuration of a location.
///
/// # Safety
/// nginx calls it with its cf.
#[cfg(ngx_feature = "http_ssl")]
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<LocConf>(unsafe { Conf::from_ptr(cf) })
}

/// Completes the configuration of a location, after all of nginx's own modules.
///
/// # Safety
/// nginx calls it with its cf, and with what `create_loc_conf` made.
#[cfg(ngx_feature = "http_ssl")]
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_merge_loc_conf(
    cf: *mut ngx_conf_t,
    around: *mut c_void,
    conf: *mut c_void,
) -> *mut c_char {
    guard(NGX_CONF_ERROR, || {
        // SAFETY: the caller's promise.
        let (cf, around, conf) = unsafe {
            let around = around.cast::<LocConf>().as_ref();
            (Conf::from_ptr(cf), around, conf.cast::<LocConf>().as_ref())
        };
        match (cf, around, conf) {
            (Some(cf), Some(around), Some(conf)) => {
                conf.merge(cf, around).map_or(NGX_CONF_ERROR, |()| NGX_CONF_OK)
            }
            _ => NGX_CONF_ERROR,
        }
    })
}

/// Comes before the first directive.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    log_panics();
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return ERROR };
        #[cfg(ngx_feature = "http_ssl")]
        if let Some(http) = LocConf::of(cf) {
            http.location.set(ssl::Location::of(cf));
        }
        if cf.has_module(c"ngx_http_lua_module") {
            cf.emerg(
                "ngx_http_lua_module is loaded as well, whose directives have the same names: \
                 remove one of the two load_module lines",
            );
            return ERROR;
        }
        if variable::add(cf) {
            OK
        } else {
            ERROR
        }
    })
}

/// Makes the configuration of `http{}`.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_main_conf(
    cf: *mut ngx_conf_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<MainConf>(unsafe { Conf::from_ptr(cf) })
}

/// Makes the configuration of `http{}`, an `upstream{}` or a `server{}`.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_srv_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<SrvConf>(unsafe { Conf::from_ptr(cf) })
}

fn create<T: Default>(cf: Option<Conf>) -> *mut c_void {
    guard(ptr::null_mut(), || {
        cf.and_then(Conf::pool)
            .and_then(|pool| pool.own(T::default()))
            .map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
    })
}

/// Comes when all upstreams are prepared, by nginx's own modules too.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_main_conf(
    cf: *mut ngx_conf_t,
    _conf: *mut c_void,
) -> *mut c_char {
    guard(NGX_CONF_ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return NGX_CONF_ERROR };
        let Some(main) = MainConf::of(cf) else { return NGX_CONF_ERROR };
        for us in upstream_conf::all(cf) {
            let Some(srv) = SrvConf::of(us) else { continue };
            if let Some(balancer) = srv.balancer() {
                balancer.finish(cf, us, srv.keepalive());
                let timeout = srv.timeout.get().or(main.timeout.get()).copied().unwrap_or(0);
                balancer.timeout.set(timeout);
                main.stops.set(main.stops.get() || timeout > 0);
            }
        }
        NGX_CONF_OK
    })
}

/// Comes when the configuration is read.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return ERROR };
        let Some(main) = MainConf::of(cf) else { return ERROR };
        match main.init(cf.log()) {
            Ok(()) => OK,
            Err(message) => {
                if let Some(log) = cf.log() {
                    log.write(NGX_LOG_EMERG, message.as_bytes());
                }
                ERROR
            }
        }
    })
}
