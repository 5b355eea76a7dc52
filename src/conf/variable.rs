//! The variables of the module, for logs and headers.

use core::ffi::CStr;

use ngx::ffi::{
    ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t, ngx_int_t,
    ngx_str_t, NGX_HTTP_VAR_NOCACHEABLE,
};

use super::SrvConf;
use crate::balancer::ctx::RequestCtx;
use crate::balancer::Balancer;
use crate::guard::guard;
use crate::nginx::conf::Conf;
use crate::nginx::peer::Peer;
use crate::nginx::request::Request;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::tls::Tls;
use crate::nginx::upstream::{ERROR, OK};

type Handler = unsafe extern "C" fn(
    *mut ngx_http_request_t,
    *mut ngx_http_variable_value_t,
    usize,
) -> ngx_int_t;

/// Each variable's name, and what it is made of; `None` where the request has no balancer.
const VARIABLES: [(&CStr, Value); 3] = [
    (c"balancer_connection_reused", connection_reused),
    (c"balancer_keepalive_idle", keepalive_idle),
    (c"balancer_ssl_session_reused", ssl_session_reused),
];

type Value = fn(Request, &Balancer) -> Option<String>;

/// `1` when the last try went over a connection that was used before, `0` when not.
fn connection_reused(request: Request, _: &Balancer) -> Option<String> {
    let reused = request.upstream()?.peer().is_some_and(Peer::is_cached);
    Some(u8::from(reused).to_string())
}

/// How many connections `enable_keepalive` keeps for this upstream in this worker.
fn keepalive_idle(_: Request, balancer: &Balancer) -> Option<String> {
    Some(balancer.idle()?.count().to_string())
}

/// `r` when the last TLS connection to a peer resumed a session, `.` when not, as
/// `$ssl_session_reused` says it of the client's.
fn ssl_session_reused(request: Request, _: &Balancer) -> Option<String> {
    #[cfg(ngx_feature = "http_ssl")]
    let now = request.upstream().and_then(|u| u.peer()?.connection()).and_then(Tls::of);
    // A connection that has ended is gone, and so is its TLS.
    #[cfg(ngx_feature = "http_ssl")]
    let now = now.filter(|tls| tls.is_handshaked()).map(Tls::is_resumed);
    #[cfg(not(ngx_feature = "http_ssl"))]
    let now = None;
    let resumed = now.or_else(|| RequestCtx::of(request)?.ssl_resumed.get())?;
    Some(if resumed { "r" } else { "." }.into())
}

/// Makes the variables known; false without memory.
pub fn add(cf: Conf) -> bool {
    VARIABLES.iter().enumerate().all(|(n, (name, _))| {
        let cf: *mut ngx_conf_t = cf.as_ptr();
        let mut name =
            ngx_str_t { len: name.to_bytes().len(), data: name.as_ptr().cast::<u8>().cast_mut() };
        // SAFETY: cf is live, nginx copies the name, and the variable belongs to the cycle.
        unsafe {
            let flags = NGX_HTTP_VAR_NOCACHEABLE as usize;
            let Some(variable) = ngx_http_add_variable(cf, &mut name, flags).as_mut() else {
                return false;
            };
            let handler: Handler = ngx_http_lua_balancer_variable;
            variable.get_handler = Some(handler);
            variable.data = n;
        }
        true
    })
}

/// Evaluates a variable of the module (`ngx_http_get_variable_pt`).
///
/// # Safety
/// nginx calls it with a live request and a value to fill in.
unsafe extern "C" fn ngx_http_lua_balancer_variable(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    data: usize,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let Some(request) = (unsafe { Request::from_ptr(r) }) else { return ERROR };
        let upstream = request.upstream().and_then(|upstream| upstream.block());
        let balancer = upstream.and_then(SrvConf::of).and_then(SrvConf::balancer);
        let text = balancer.and_then(|balancer| VARIABLES.get(data)?.1(request, balancer));
        let Some(text) = text else {
            // SAFETY: the caller's promise.
            unsafe { (*value).set_not_found(1) };
            return OK;
        };
        let Some(copy) = request.pool().and_then(|pool| pool.copy(text.as_bytes())) else {
            return ERROR;
        };
        // SAFETY: the caller's promise; the copy lives as long as the request.
        unsafe {
            (*value).set_len(copy.len as u32);
            (*value).set_valid(1);
            (*value).set_no_cacheable(0);
            (*value).set_not_found(0);
            (*value).data = copy.data;
        }
        OK
    })
}
