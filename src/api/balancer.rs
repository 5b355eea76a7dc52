//! `ngx.balancer`: the peer of a try, and how it is tried.

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong};

use ngx::ffi::ngx_http_request_t;

use super::{answer_in, bytes, fail, in_balancer, DECLINED, DISABLED, OK};
use crate::balancer::idle::Keepalive;
use crate::balancer::peer::Chosen;
use crate::lua::current;
use crate::nginx::addr;
use crate::nginx::settings::Timeouts;

/// Sets the address of this try's peer, and the name for SNI and certificate verification.
///
/// # Safety
/// `addr` and `host` are valid for their lengths; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_current_peer(
    _r: *mut ngx_http_request_t,
    addr: *const u8,
    addr_len: usize,
    port: c_int,
    host: *const u8,
    host_len: isize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let port = u16::try_from(port).map_err(|_| c"invalid port")?;
            let host = bytes(host, usize::try_from(host_len).unwrap_or(0));
            peer.choose(peer.peer_of(bytes(addr, addr_len), port, host)?);
            Ok(OK)
        })
    }
}

/// Names a part of the pool for this try; a negative `size` is no limit of its own.
///
/// # Safety
/// `name` is valid for its length; `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_pool(
    _r: *mut ngx_http_request_t,
    name: *const u8,
    name_len: usize,
    size: c_long,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            peer.set_pool(bytes(name, name_len), usize::try_from(size).ok())?;
            Ok(OK)
        })
    }
}

/// Keeps the connection of this try: `timeout` in milliseconds; 0 is no limit.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_enable_keepalive(
    _r: *mut ngx_http_request_t,
    timeout: c_ulong,
    max_requests: c_uint,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            peer.enable_keepalive(timeout as usize, max_requests as usize)?;
            Ok(OK)
        })
    }
}

/// Limits how long a connection that is kept may live, in milliseconds; 0 is no limit. Comes after
/// `enable_keepalive`.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_keepalive_time(
    _r: *mut ngx_http_request_t,
    time: c_ulong,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let keepalive = peer.keepalive.get().ok_or(c"keepalive is not enabled")?;
            peer.keepalive.set(Some(Keepalive { time: time as usize, ..keepalive }));
            Ok(OK)
        })
    }
}

/// One of the peers of [`ngx_http_lua_ffi_balancer_set_peers`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Candidate {
    addr: *const u8,
    addr_len: usize,
    host: *const u8,
    host_len: usize,
    port: c_int,
}

/// Sets the peers of this try and of those after it. `*bad` is the number of the first one that is
/// wrong, counted from 0; then none is set.
///
/// # Safety
/// `peers` holds `count` of them; `bad` and `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_peers(
    _r: *mut ngx_http_request_t,
    peers: *const Candidate,
    count: usize,
    bad: *mut usize,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        *bad = count;
        in_balancer(err, |peer| {
            let mut list: Vec<Chosen> = Vec::new();
            list.try_reserve_exact(count).map_err(|_| c"no memory")?;
            for n in 0..count {
                let candidate = *peers.add(n);
                *bad = n;
                list.push(peer.peer_of(
                    bytes(candidate.addr, candidate.addr_len),
                    u16::try_from(candidate.port).map_err(|_| c"invalid port")?,
                    bytes(candidate.host, candidate.host_len),
                )?);
            }
            *bad = count;
            let pool = peer.request().pool().ok_or(c"no memory")?;
            peer.choose_all(pool.alloc_slice(&list).ok_or(c"no memory")?)?;
            Ok(OK)
        })
    }
}

/// Adds tries; with fewer than asked for, `*err` says so.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_more_tries(
    _r: *mut ngx_http_request_t,
    count: c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let count = usize::try_from(count).map_err(|_| c"bad count")?;
            *err = core::ptr::null_mut();
            if peer.add_tries(count).reduced {
                fail(err, c"reduced tries due to limit");
            }
            Ok(OK)
        })
    }
}

/// How the try before this one ended: `NGX_PEER_FAILED`, `NGX_PEER_NEXT`, or 0 when this is the
/// first.
///
/// # Safety
/// `status` and `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_get_last_failure(
    _r: *mut ngx_http_request_t,
    status: *mut c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            *status = peer.last_status() as c_int;
            Ok(peer.last_state.get() as c_int)
        })
    }
}

/// How the `n`th try of this request went, counted from 0: its peer's name and its status.
/// `DECLINED` when there is none.
///
/// # Safety
/// The pointers may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_get_tried(
    _r: *mut ngx_http_request_t,
    n: usize,
    name: *mut *const u8,
    name_len: *mut usize,
    status: *mut c_int,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let Some(state) = peer.tried(n) else { return Ok(DECLINED) };
            *name = state.name.as_ptr();
            *name_len = state.name.len();
            *status = state.status as c_int;
            Ok(OK)
        })
    }
}

/// Sets timeouts in milliseconds; 0 keeps the configured one.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_set_timeouts(
    _r: *mut ngx_http_request_t,
    connect: c_long,
    send: c_long,
    read: c_long,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            let ms = |timeout: c_long| u32::try_from(timeout).map_err(|_| c"bad timeout");
            let timeouts = Timeouts { connect: ms(connect)?, send: ms(send)?, read: ms(read)? };
            peer.set_timeouts(timeouts);
            Ok(OK)
        })
    }
}

/// Makes the request for the peer anew, with what has changed since.
///
/// # Safety
/// `err` may be written to.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_recreate_request(
    _r: *mut ngx_http_request_t,
    err: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        in_balancer(err, |peer| {
            peer.request().has_whole_body()?;
            peer.upstream().recreate_request(peer.request())?;
            Ok(OK)
        })
    }
}

/// Binds the connections of this request to a local address.
///
/// # Safety
/// `addr` is valid for its length, `errbuf` for `*errlen` bytes.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_balancer_bind_to_local_addr(
    _r: *mut ngx_http_request_t,
    addr: *const u8,
    addr_len: usize,
    errbuf: *mut u8,
    errlen: *mut usize,
) -> c_int {
    let bind = || {
        let peer = current::peer().ok_or_else(|| DISABLED.to_string_lossy())?;
        let pool = peer.request().pool().ok_or("no memory")?;
        // SAFETY: the caller's promise.
        let text = unsafe { bytes(addr, addr_len) };
        let local = addr::local(pool, text)
            .ok_or_else(|| format!("invalid addr {}", String::from_utf8_lossy(text)))?;
        peer.set_local(local).map_err(|_| "no memory")?;
        Ok(OK)
    };
    // SAFETY: the caller's promise.
    unsafe { answer_in(errbuf, errlen, bind) }
}
