//! `ngx_http_request_t`: the request that is served.

use core::ffi::{c_void, CStr};
use core::ptr::NonNull;

use ngx::ffi::{ngx_http_request_t, ngx_module_t, NGX_LOG_ERR};

use super::log::Log;
use super::pool::Pool;
use super::upstream::Upstream;

/// A request of nginx.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request(NonNull<ngx_http_request_t>);

impl Request {
    /// # Safety
    /// `r` is a live request and outlives every use of the handle.
    pub unsafe fn from_ptr(r: *mut ngx_http_request_t) -> Option<Self> {
        NonNull::new(r).map(Request)
    }

    /// The raw request, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    /// The log of the client's connection, whose lines tell the request's context.
    pub fn log(self) -> Option<Log> {
        // SAFETY: a live request has a live connection.
        unsafe { Log::from_ptr((*(*self.as_ptr()).connection).log) }
    }

    /// Memory that lives as long as the request.
    pub fn pool(self) -> Option<Pool> {
        // SAFETY: a live request has a live pool.
        unsafe { Pool::from_ptr((*self.as_ptr()).pool) }
    }

    /// The upstream that serves the request.
    pub fn upstream(self) -> Option<Upstream> {
        // SAFETY: the request is live; its upstream lives in its pool.
        unsafe { Upstream::from_ptr((*self.as_ptr()).upstream) }
    }

    /// What `module` keeps for the request. nginx forgets it at an internal redirect.
    pub fn module_ctx(self, module: &ngx_module_t) -> *mut c_void {
        // SAFETY: r->ctx has a place for each http module.
        unsafe { *(*self.as_ptr()).ctx.add(module.ctx_index) }
    }

    /// Keeps `ctx` for `module`.
    pub fn set_module_ctx(self, module: &ngx_module_t, ctx: *mut c_void) {
        // SAFETY: r->ctx has a place for each http module.
        unsafe { *(*self.as_ptr()).ctx.add(module.ctx_index) = ctx }
    }

    /// The method, in capitals.
    pub fn method(self) -> &'static [u8] {
        // SAFETY: the request is live; the name lives as long as it does.
        unsafe { super::bytes((*self.as_ptr()).method_name) }
    }

    /// Fails where the body goes to the peer as it comes from the client, kept nowhere: a part of
    /// it has not come yet.
    ///
    /// The flag that says so, request_body_no_buffering, cannot be read. From 1.29.3 on the bit
    /// fields of ngx_http_request_t follow a 16-bit field, and bindgen does not see that C puts
    /// each that would cross a 32-bit boundary behind it: all from `uri_changes` on are misplaced.
    pub fn has_whole_body(self) -> Result<(), &'static CStr> {
        // SAFETY: the request is live, and so is its body.
        match unsafe { (*self.as_ptr()).request_body.as_ref() } {
            Some(body) if body.rest > 0 => {
                Err(c"request body is not buffered (proxy_request_buffering off, or grpc_pass)")
            }
            _ => Ok(()),
        }
    }

    /// Writes an error line with the request's context.
    pub fn error(self, message: &[u8]) {
        if let Some(log) = self.log() {
            log.write(NGX_LOG_ERR, message);
        }
    }
}
