//! What Lua can call: C functions that the Lua half (`lua/`) calls through LuaJIT's FFI.
//!
//! They keep lua-nginx-module's names and signatures where it has the function, so that code which
//! declares them itself links too. They return codes and texts; none raises a Lua error.

pub mod balancer;
pub mod config;
pub mod ctx;
pub mod exit;
pub mod log;
pub mod req;
pub mod time;
#[cfg_attr(not(ngx_feature = "http_ssl"), path = "api/no_tls.rs")]
pub mod tls;
pub mod var;

use core::ffi::{c_char, c_int, c_void, CStr};
use std::borrow::Cow;

use crate::balancer::peer::PeerData;
use crate::guard::{guard, panic_point};
use crate::lua::current;
use crate::nginx::request::Request;

/// A Lua module that is part of the binary.
pub struct Module {
    /// The name for `require`.
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
}

impl Module {
    /// The name in tracebacks.
    pub fn chunk_name(&self) -> String {
        format!("={}", self.name)
    }
}

macro_rules! modules {
    ($($name:literal: $path:literal),+ $(,)?) => {
        &[$(Module { name: $name, source: include_str!(concat!("../lua/", $path)) }),+]
    };
}

/// All Lua modules, for `package.preload`.
pub const MODULES: &[Module] = modules![
    "ngx": "ngx.lua",
    "ngx.balancer": "ngx/balancer.lua",
    "ngx.finalizers": "ngx/finalizers.lua",
    "ngx.stoppable": "ngx/stoppable.lua",
    "resty.core": "resty/core.lua",
    "resty.core.base": "resty/core/base.lua",
    "resty.core.ctx": "resty/core/ctx.lua",
    "resty.core.exit": "resty/core/exit.lua",
    "resty.core.globals": "resty/core/globals.lua",
    "resty.core.log": "resty/core/log.lua",
    "resty.core.phase": "resty/core/phase.lua",
    "resty.core.request": "resty/core/request.lua",
    "resty.core.time": "resty/core/time.lua",
    "resty.core.var": "resty/core/var.lua",
];

/// The module that fills the global `ngx`.
pub const BOOTSTRAP: &str = "ngx";

/// The module that keeps machine code from looping.
pub const STOPPABLE: &str = "ngx.stoppable";

/// An address in [`EXPORTS`].
#[repr(transparent)]
pub struct Export(#[allow(dead_code)] *const c_void);

// SAFETY: the addresses are never read by this program, only kept by its linker.
unsafe impl Sync for Export {}

macro_rules! exports {
    ($($(#[$cfg:meta])* $function:path),+ $(,)?) => {
        &[$($(#[$cfg])* Export($function as *const c_void)),+]
    };
}

/// Every function that only Lua names: without a reference the linker drops it.
#[used]
pub static EXPORTS: &[Export] = exports![
    #[cfg(feature = "panic-points")]
    crate::guard::points::ngx_http_lua_balancer_panic_at,
    balancer::ngx_http_lua_ffi_balancer_bind_to_local_addr,
    balancer::ngx_http_lua_ffi_balancer_enable_keepalive,
    balancer::ngx_http_lua_ffi_balancer_get_last_failure,
    balancer::ngx_http_lua_ffi_balancer_get_tried,
    balancer::ngx_http_lua_ffi_balancer_recreate_request,
    balancer::ngx_http_lua_ffi_balancer_set_current_peer,
    balancer::ngx_http_lua_ffi_balancer_set_keepalive_time,
    balancer::ngx_http_lua_ffi_balancer_set_more_tries,
    balancer::ngx_http_lua_ffi_balancer_set_peers,
    balancer::ngx_http_lua_ffi_balancer_set_pool,
    balancer::ngx_http_lua_ffi_balancer_set_timeouts,
    config::ngx_http_lua_ffi_debug,
    config::ngx_http_lua_ffi_nginx_version,
    config::ngx_http_lua_ffi_prefix,
    ctx::ngx_http_lua_ffi_get_ctx_ref,
    ctx::ngx_http_lua_ffi_set_ctx_ref,
    exit::ngx_http_lua_ffi_exit,
    log::ngx_http_lua_ffi_log,
    log::ngx_http_lua_ffi_log_level,
    req::ngx_http_lua_ffi_req_body_data,
    req::ngx_http_lua_ffi_req_method,
    req::ngx_http_lua_ffi_req_nth_header,
    req::ngx_http_lua_ffi_req_set_body_data,
    req::ngx_http_lua_ffi_req_set_headers,
    time::ngx_http_lua_ffi_now,
    time::ngx_http_lua_ffi_time,
    time::ngx_http_lua_ffi_update_time,
    tls::ngx_http_lua_ffi_balancer_set_ssl_cert,
    tls::ngx_http_lua_ffi_balancer_set_ssl_trusted,
    tls::ngx_http_lua_ffi_balancer_set_ssl_verify,
    tls::ngx_http_lua_ffi_balancer_set_upstream_tls,
    var::ngx_http_lua_ffi_var_get,
    var::ngx_http_lua_ffi_var_set,
];

/// Success, for Lua.
pub const OK: c_int = 0;
/// Failure with a text, for Lua.
pub const ERROR: c_int = -1;
/// Nothing there, for Lua.
pub const DECLINED: c_int = -5;

/// Why a function that has no try to work on fails.
const DISABLED: &CStr = c"API disabled in the current context";

/// Runs `body`; why it fails is told in `*err`.
///
/// # Safety
/// `err` is null or may be written to.
#[inline]
unsafe fn answer(
    err: *mut *mut c_char,
    body: impl FnOnce() -> Result<c_int, &'static CStr>,
) -> c_int {
    // SAFETY: the caller's promise. Lua reads the text of each failure, that of a panic, too.
    guard(Err(c"internal error"), body).unwrap_or_else(|text| unsafe { fail(err, text) })
}

/// Runs `body` for the try whose chunk is running; outside the balancer phase there is none.
///
/// # Safety
/// `err` is null or may be written to.
#[inline]
unsafe fn in_balancer(
    err: *mut *mut c_char,
    body: impl FnOnce(&PeerData) -> Result<c_int, &'static CStr>,
) -> c_int {
    let body = || {
        panic_point("api");
        current::peer().ok_or(DISABLED).and_then(body)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(err, body) }
}

/// Runs `body`; why it fails is copied to a buffer of `*len` bytes, whose used length it becomes.
///
/// # Safety
/// `buf` holds `*len` bytes, or one of the two is null.
unsafe fn answer_in(
    buf: *mut u8,
    len: *mut usize,
    body: impl FnOnce() -> Result<c_int, Cow<'static, str>>,
) -> c_int {
    guard(Err("internal error".into()), body).unwrap_or_else(|text| {
        if !buf.is_null() && !len.is_null() {
            // SAFETY: the caller's promise.
            unsafe {
                let used = text.len().min(*len);
                core::ptr::copy_nonoverlapping(text.as_ptr(), buf, used);
                *len = used;
            }
        }
        ERROR
    })
}

/// Tells Lua in `*err` why a call failed, or what it is to know besides.
///
/// # Safety
/// `err` is null or may be written to.
unsafe fn fail(err: *mut *mut c_char, text: &'static CStr) -> c_int {
    if !err.is_null() {
        // SAFETY: the caller's promise. Lua only reads what it points to.
        unsafe { *err = text.as_ptr().cast_mut() };
    }
    ERROR
}

/// The bytes that Lua passes.
///
/// # Safety
/// `data` is null or valid for `len` bytes during the call.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(data, len) }
}

/// The request that Lua passes.
///
/// # Safety
/// `r` is null or a live request.
unsafe fn request(r: *mut ngx::ffi::ngx_http_request_t) -> Option<Request> {
    // SAFETY: the caller's promise.
    unsafe { Request::from_ptr(r) }
}
