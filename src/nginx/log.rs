//! `ngx_log_t`: where a message goes, and whether anybody wants it.

use core::ptr::NonNull;
use std::borrow::Cow;

use ngx::ffi::{ngx_cycle, ngx_log_t, NGX_LOG_DEBUG_ALL, NGX_LOG_DEBUG_HTTP, NGX_MAX_ERROR_STR};

/// Severities, as in `error_log`.
pub use ngx::ffi::{NGX_LOG_ALERT, NGX_LOG_DEBUG, NGX_LOG_EMERG, NGX_LOG_ERR, NGX_LOG_WARN};

/// Bytes of a line that a message leaves to nginx's own words: date and process in front, the
/// request's context behind. Without it a long message would push the context out of the line.
const CONTEXT: usize = 700;

/// A log of nginx: the cycle's, a connection's, a request's.
#[derive(Clone, Copy)]
pub struct Log(NonNull<ngx_log_t>);

impl Log {
    /// # Safety
    /// `log` is a live log and outlives every use of the handle.
    pub unsafe fn from_ptr(log: *mut ngx_log_t) -> Option<Self> {
        NonNull::new(log).map(Log)
    }

    /// The log of the running cycle; `None` before there is one.
    pub fn cycle() -> Option<Self> {
        // SAFETY: ngx_cycle and its log are set once before any module is loaded, and replaced
        // only between events.
        unsafe { Log::from_ptr(ngx_cycle.as_ref()?.log) }
    }

    /// The raw log, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_log_t {
        self.0.as_ptr()
    }

    /// The highest level that is written (`NGX_LOG_STDERR` … `NGX_LOG_DEBUG`).
    pub fn level(self) -> u32 {
        // SAFETY: the log is live.
        let level = unsafe { (*self.as_ptr()).log_level };
        // With a debug mask the level is a bit set above all levels.
        if level as u32 & NGX_LOG_DEBUG_ALL != 0 {
            NGX_LOG_DEBUG
        } else {
            level as u32
        }
    }

    /// Whether debug lines of the http modules are written.
    #[inline]
    pub fn debugs_http(self) -> bool {
        // SAFETY: the log is live.
        cfg!(ngx_feature = "debug")
            && unsafe { (*self.as_ptr()).log_level } & NGX_LOG_DEBUG_HTTP as usize != 0
    }

    /// Writes `message` when `level` is wanted; what does not fit into nginx's line is cut.
    #[cold]
    pub fn write(self, level: u32, message: &[u8]) {
        if level > self.level() {
            return;
        }
        let room = NGX_MAX_ERROR_STR as usize - CONTEXT;
        let message = one_entry(&message[..message.len().min(room)]);
        let message = &message[..message.len().min(room)];
        // SAFETY: the log is live, and the length goes with the bytes.
        unsafe { ngx::log::log_error(level as usize, self.as_ptr(), 0, message) };
    }
}

/// A message that cannot be taken for more than one, though it may have several lines: one that
/// begins with a digit, as the date of an entry does, is indented, and control characters are
/// written in hexadecimal. A text that a client has sent could otherwise make entries of its own, or
/// have a terminal do things.
fn one_entry(message: &[u8]) -> Cow<'_, [u8]> {
    let like_entry = |at: usize| message[at].is_ascii_digit() && at > 0 && message[at - 1] == b'\n';
    let control = |byte: u8| byte.is_ascii_control() && byte != b'\n' && byte != b'\t';
    if !(0..message.len()).any(|at| control(message[at]) || like_entry(at)) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() + 16);
    for (at, &byte) in message.iter().enumerate() {
        if like_entry(at) {
            out.push(b'\t');
        }
        if control(byte) {
            out.extend_from_slice(format!("\\x{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::one_entry;

    #[test]
    fn a_message_is_one_entry() {
        assert_eq!(*one_entry(b"plain \xc3\xa9"), *b"plain \xc3\xa9");
        assert_eq!(*one_entry(b"1\nb\n\tc\n"), *b"1\nb\n\tc\n");
        assert_eq!(*one_entry(b"a\r\n2026/01/01 a"), *b"a\\x0D\n\t2026/01/01 a");
        assert_eq!(*one_entry(b"\x1b[2J\0\x7f"), *b"\\x1B[2J\\x00\\x7F");
    }
}
