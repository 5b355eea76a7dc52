//! `ngx.log` and `print`: the text is made in Lua (`lua/resty/core/log.lua`), and only when
//! somebody wants it.

use core::ffi::c_int;

use crate::guard::quiet;
use crate::lua::current;
use crate::nginx::log::Log;

fn log() -> Option<Log> {
    current::get().log.or_else(Log::cycle)
}

/// The highest level that is written.
#[no_mangle]
pub extern "C" fn ngx_http_lua_ffi_log_level() -> c_int {
    log().map_or(-1, |log| log.level() as c_int)
}

/// Writes a line.
///
/// # Safety
/// `text` is valid for `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_ffi_log(level: c_int, text: *const u8, len: usize) {
    quiet(|| {
        // SAFETY: the caller's promise.
        let text = unsafe { super::bytes(text, len) };
        if let (Some(log), Ok(level)) = (log(), u32::try_from(level)) {
            log.write(level, text);
        }
    });
}
