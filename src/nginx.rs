//! The only home of raw nginx pointers: each file wraps one structure of nginx in a small handle
//! that is made unsafely once, at the border, and used safely from there on.
//!
//! A handle is a copyable pointer, not a reference: nginx re-enters its own structures freely, so
//! nothing here ever holds a `&mut` to one of them across a call.

pub mod addr;
pub mod body;
pub mod conf;
pub mod connection;
pub mod headers;
pub mod log;
#[cfg(ngx_feature = "http_ssl")]
pub mod openssl;
pub mod peer;
#[cfg(ngx_feature = "http_ssl")]
pub mod pem;
pub mod pool;
pub mod recycled;
pub mod request;
pub mod settings;
pub mod shm;
#[cfg(ngx_feature = "http_ssl")]
pub mod ssl;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls;
pub mod upstream;
pub mod upstream_conf;
#[cfg(ngx_feature = "http_ssl")]
mod upstream_tls;
pub mod var;

use core::slice;

use ngx::ffi::ngx_str_t;

/// The bytes of an `ngx_str_t`.
///
/// # Safety
/// `s.data` is valid for `s.len` bytes, which outlive `'a` unchanged.
pub unsafe fn bytes<'a>(s: ngx_str_t) -> &'a [u8] {
    if s.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; a null pointer comes with length 0 only.
    unsafe { slice::from_raw_parts(s.data, s.len) }
}

/// An `ngx_str_t` that borrows `bytes`: valid only as long as they are.
pub fn str_of(bytes: &[u8]) -> ngx_str_t {
    ngx_str_t { len: bytes.len(), data: bytes.as_ptr().cast_mut() }
}
