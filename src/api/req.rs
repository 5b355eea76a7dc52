//! `ngx.req`: the request as the peer is to see it. A change takes effect with
//! `balancer.recreate_request()`.

use core::ffi::{c_char, c_int, CStr};

use ngx::ffi::{ngx_http_request_t, ngx_str_t};

use super::{bytes, in_balancer, DECLINED, OK};
use crate::nginx::headers::NoMemory;
use crate::nginx::request::Request;
use crate::nginx::{self, body, headers};

/// Runs `body` for the request whose chunk is running.
///
/// # Safety
/// `err` is null or may be written to.
unsafe fn with_request(
    err: *mut *mut c_char,
    body: impl FnOnce(Request) -> Result<c_int, &'static CStr>,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { in_balancer(err, |peer| body(peer.request())) }
}

/// The `n`th header, counted from 0; `DECLINED` when there is none.
///
/// # Safety
/// The pointers may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_req_nth_header(
    _r: *mut ngx_http_request_t,
    n: usize,
    name: *mut ngx_str_t,
    value: *mut ngx_str_t,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        with_request(err, |request| {
            let Some((key, text)) = headers::nth(request, n) else { return Ok(DECLINED) };
            *name = nginx::str_of(key);
            *value = nginx::str_of(text);
            Ok(OK)
        })
    }
}

/// Gives a header `count` values; 0 takes it away.
///
/// # Safety
/// `name` is valid for its length, `values` for `count` strings; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_req_set_headers(
    _r: *mut ngx_http_request_t,
    name: *const u8,
    name_len: usize,
    values: *const ngx_str_t,
    count: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        with_request(err, |request| {
            let values: Vec<&[u8]> = (0..count).map(|n| nginx::bytes(*values.add(n))).collect();
            headers::set(request, bytes(name, name_len), &values)
                .map_err(|NoMemory| c"no memory")?;
            Ok(OK)
        })
    }
}

/// The method's name, in capitals.
///
/// # Safety
/// The pointers may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_req_method(
    _r: *mut ngx_http_request_t,
    name: *mut ngx_str_t,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        with_request(err, |request| {
            *name = nginx::str_of(request.method());
            Ok(OK)
        })
    }
}

/// Replaces the body.
///
/// # Safety
/// `data` is valid for its length; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_req_set_body_data(
    _r: *mut ngx_http_request_t,
    data: *const u8,
    len: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        with_request(err, |request| {
            request.has_whole_body()?;
            body::set(request, bytes(data, len)).map_err(|NoMemory| c"no memory")?;
            Ok(OK)
        })
    }
}

/// The body, when it is in memory: with a null `buf` only its length, otherwise the bytes as well.
/// `DECLINED` without one, or when it is in a file.
///
/// # Safety
/// `buf` is null or has room for the body; the other pointers may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_req_body_data(
    _r: *mut ngx_http_request_t,
    buf: *mut u8,
    len: *mut usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        with_request(err, |request| {
            let Some(data) = body::data(request) else { return Ok(DECLINED) };
            *len = data.len();
            if !buf.is_null() {
                core::ptr::copy_nonoverlapping(data.as_ptr(), buf, data.len());
            }
            Ok(OK)
        })
    }
}
