//! `ngx.var`: the request's variables.

use core::ffi::{c_char, c_int};

use ngx::ffi::ngx_http_request_t;

use super::{answer, answer_in, bytes, request, DECLINED, OK};
use crate::nginx::var::{self, SetError};

/// Reads `$name`, or the capture `capture_id` when there is no name. `DECLINED` without a value.
///
/// # Safety
/// The pointers are as lua-resty-core passes them; `r` is null or a live request.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_var_get(
    r: *mut ngx_http_request_t,
    name: *const u8,
    name_len: usize,
    _lowcase: *mut u8,
    capture_id: c_int,
    value: *mut *const u8,
    value_len: *mut usize,
    err: *mut *mut c_char,
) -> c_int {
    let get = || {
        // SAFETY: the caller's promise.
        let request = unsafe { request(r) }.ok_or(c"no request found")?;
        let found = if name.is_null() {
            usize::try_from(capture_id).ok().and_then(|n| var::capture(request, n))
        } else {
            // SAFETY: as above.
            var::get(request, unsafe { bytes(name, name_len) })
        };
        let Some(found) = found else { return Ok(DECLINED) };
        // SAFETY: as above; the value lives as long as the request.
        unsafe {
            *value = found.as_ptr();
            *value_len = found.len();
        }
        Ok(OK)
    };
    // SAFETY: as above.
    unsafe { answer(err, get) }
}

/// Writes `$name`; a null `value` takes it away.
///
/// # Safety
/// The pointers are as lua-resty-core passes them; `r` is null or a live request.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_var_set(
    r: *mut ngx_http_request_t,
    name: *const u8,
    name_len: usize,
    _lowcase: *mut u8,
    value: *const u8,
    value_len: usize,
    errbuf: *mut u8,
    errlen: *mut usize,
) -> c_int {
    let set = || {
        // SAFETY: the caller's promise.
        let request = unsafe { request(r) }.ok_or("no request found")?;
        // SAFETY: as above.
        let name = unsafe { bytes(name, name_len) };
        // SAFETY: as above.
        let value = (!value.is_null()).then(|| unsafe { bytes(value, value_len) });

        let Err(error) = var::set(request, name, value) else { return Ok(OK) };
        let name = String::from_utf8_lossy(name);
        Err(match error {
            SetError::NotFound => format!(
                "variable \"{name}\" not found for writing; maybe it is a built-in variable that \
                 is not changeable or you forgot to use \"set ${name} '';\" in the config file \
                 to define it first"
            ),
            SetError::NotChangeable => format!("variable \"{name}\" not changeable"),
            SetError::NoMemory => "no memory".into(),
        }
        .into())
    };
    // SAFETY: as above.
    unsafe { answer_in(errbuf, errlen, set) }
}
