//! `ngx.balancer`: the TLS of a try.

use core::ffi::{c_char, c_int};

use ngx::ffi::ngx_http_request_t;

use super::balancer::in_balancer;
use super::{bytes, OK};

/// Turns the verification of the peer's certificate on or off; a negative `depth` keeps the
/// configured one.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_verify(
    _r: *mut ngx_http_request_t,
    on: c_int,
    depth: c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let place = &peer.extra_or_new()?.tls;
            let mut tls = place.get();
            tls.verify = Some(on != 0);
            tls.depth = (depth >= 0).then_some(depth);
            place.set(tls);
            Ok(OK)
        })
    }
}

/// Shows a certificate of our own to the peer: both in PEM.
///
/// # Safety
/// Both texts are valid for their lengths; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_cert(
    _r: *mut ngx_http_request_t,
    cert: *const u8,
    cert_len: usize,
    key: *const u8,
    key_len: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let pool = peer.request().pool().ok_or(c"no memory")?;
            let pems = peer.pems();
            let given = pems.certificate(bytes(cert, cert_len), bytes(key, key_len), pool)?;
            let place = &peer.extra_or_new()?.tls;
            let mut tls = place.get();
            tls.certificate = Some(given);
            place.set(tls);
            Ok(OK)
        })
    }
}

/// Trusts the authorities in a PEM and no others.
///
/// # Safety
/// `pem` is valid for its length; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_ssl_trusted(
    _r: *mut ngx_http_request_t,
    pem: *const u8,
    pem_len: usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let pool = peer.request().pool().ok_or(c"no memory")?;
            let given = peer.pems().trusted(bytes(pem, pem_len), pool)?;
            let place = &peer.extra_or_new()?.tls;
            let mut tls = place.get();
            tls.trusted = Some(given);
            place.set(tls);
            Ok(OK)
        })
    }
}
