//! `ngx.balancer`: the TLS of a try.

use core::ffi::{c_char, c_int, CStr};

use ngx::ffi::ngx_http_request_t;

use super::{bytes, in_balancer, OK};
use crate::balancer::peer::PeerData;
use crate::balancer::tls::TryTls;

/// Notes what Lua wants of the try's TLS.
fn note(peer: &PeerData, change: impl FnOnce(&mut TryTls)) -> Result<c_int, &'static CStr> {
    let place = &peer.extra_or_new()?.tls;
    let mut tls = place.get();
    change(&mut tls);
    place.set(tls);
    Ok(OK)
}

/// Turns TLS on or off for this try.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_upstream_tls(
    _r: *mut ngx_http_request_t,
    on: c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            if on != 0 && !peer.upstream().has_ssl_context() {
                return Err(
                    c"no TLS context: the location passes to http:// and sets no proxy_ssl_*",
                );
            }
            // It knows what is configured.
            peer.extra_or_new()?;
            peer.upstream().set_ssl(on != 0);
            Ok(OK)
        })
    }
}

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
            note(peer, |tls| {
                tls.verify = Some(on != 0);
                tls.depth = (depth >= 0).then_some(depth);
            })
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
            note(peer, |tls| tls.certificate = Some(given))
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
            note(peer, |tls| tls.trusted = Some(given))
        })
    }
}
