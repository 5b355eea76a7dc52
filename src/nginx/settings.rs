//! `ngx_http_upstream_conf_t`: a location's settings, changed for one try.
//!
//! nginx reads timeouts and TLS names from the location's own structure. A try that wants others
//! gets a copy, which goes back when the try has ended: copies are made for as many tries as go
//! on at the same time, not for each request.

use core::ptr::{self, NonNull};
use std::collections::HashMap;

use ngx::ffi::{ngx_http_upstream_conf_t, ngx_msec_t};
use rustc_hash::FxBuildHasher;

use super::upstream::Upstream;

type Raw = ngx_http_upstream_conf_t;

/// Timeouts in milliseconds; 0 keeps the configured one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `proxy_connect_timeout` and the like.
    pub connect: u32,
    /// `proxy_send_timeout` and the like.
    pub send: u32,
    /// `proxy_read_timeout` and the like.
    pub read: u32,
}

impl Timeouts {
    /// Whether any is changed.
    #[inline]
    pub fn any(self) -> bool {
        self.connect | self.send | self.read != 0
    }
}

/// What a try wants to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The timeouts.
    pub timeouts: Timeouts,
    /// The request's own TLS name counts, not `proxy_ssl_name`.
    pub own_ssl_name: bool,
    /// Whether the peer's certificate is verified; `None` keeps the configured one.
    pub ssl_verify: Option<bool>,
    /// nginx is to ask for a session even where `proxy_ssl_session_reuse` is off: that is when
    /// the connection can be told of its certificates.
    pub ask_for_session: bool,
}

impl Changes {
    /// Whether anything is different at all.
    #[inline]
    pub fn any(&self) -> bool {
        self.timeouts.any()
            || self.own_ssl_name
            || self.ask_for_session
            || self.ssl_verify.is_some()
    }

    /// # Safety
    /// Both are live settings, `copy` a copy of `original`.
    unsafe fn apply(&self, copy: *mut Raw, original: *const Raw) {
        let or =
            |changed, configured| if changed == 0 { configured } else { changed as ngx_msec_t };
        // SAFETY: the caller's promise. All fields that differ in any copy are set, since a copy
        // comes from another try.
        unsafe {
            (*copy).connect_timeout = or(self.timeouts.connect, (*original).connect_timeout);
            (*copy).send_timeout = or(self.timeouts.send, (*original).send_timeout);
            (*copy).read_timeout = or(self.timeouts.read, (*original).read_timeout);
            #[cfg(ngx_feature = "http_ssl")]
            {
                (*copy).ssl_name =
                    if self.own_ssl_name { ptr::null_mut() } else { (*original).ssl_name };
                (*copy).ssl_verify = self.ssl_verify.map_or((*original).ssl_verify, isize::from);
                (*copy).ssl_session_reuse =
                    if self.ask_for_session { 1 } else { (*original).ssl_session_reuse };
            }
        }
    }
}

/// Copies of locations' settings that no try uses just now.
#[derive(Default)]
#[allow(clippy::vec_box)] // a copy on loan must not move when another one comes
pub struct Copies {
    /// The copy that came back last: mostly the one that is wanted next.
    last: Option<Loan>,
    free: HashMap<*mut Raw, Vec<Box<Copied>>, FxBuildHasher>,
}

/// A copy, and what it is one of.
struct Copied {
    conf: Raw,
    original: *mut Raw,
}

/// Settings on loan to a try.
#[derive(Clone, Copy)]
pub struct Loan(NonNull<Copied>);

impl Loan {
    fn original(self) -> *mut Raw {
        // SAFETY: a loan lives until it is given back.
        unsafe { (*self.0.as_ptr()).original }
    }

    fn conf(self) -> *mut Raw {
        // SAFETY: as above.
        unsafe { &raw mut (*self.0.as_ptr()).conf }
    }

    /// Whether the location itself reuses TLS sessions.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn reuses_sessions(self) -> bool {
        // SAFETY: as above; the location's settings live as long as the configuration.
        unsafe { (*self.original()).ssl_session_reuse != 0 }
    }
}

impl Copies {
    /// Puts a copy of the location's settings, with `changes` in it, in place for `upstream`,
    /// which has the location's own until then.
    pub fn lend(&mut self, upstream: Upstream, changes: &Changes) -> Loan {
        let original = upstream.conf();
        let last = self.last.take_if(|loan| loan.original() == original);
        let loan = last.unwrap_or_else(|| self.another(original));
        // SAFETY: both are live.
        unsafe { changes.apply(loan.conf(), original) };
        upstream.set_conf(loan.conf());
        loan
    }

    /// Puts the location's own settings back and takes the copy, which must be the one that
    /// [`lend`](Self::lend) put there.
    pub fn give_back(&mut self, upstream: Upstream, loan: Loan) {
        upstream.set_conf(loan.original());
        if let Some(other) = self.last.replace(loan) {
            let original = other.original();
            // SAFETY: `another` made it of a box, and nobody has it any longer. A loan is given
            // back once: it is taken out of its cell before.
            let copy = unsafe { Box::from_raw(other.0.as_ptr()) };
            self.free.entry(original).or_default().push(copy);
        }
    }

    #[cold]
    fn another(&mut self, original: *mut Raw) -> Loan {
        let copy = self.free.get_mut(&original).and_then(Vec::pop).unwrap_or_else(|| {
            // SAFETY: the structure is plain data, whose pointers live as long as the
            // configuration.
            let conf = unsafe { ptr::read(original) };
            Box::new(Copied { conf, original })
        });
        Loan(NonNull::from(Box::leak(copy)))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Some(loan) = self.last.take() {
            // SAFETY: as in `give_back`.
            drop(unsafe { Box::from_raw(loan.0.as_ptr()) });
        }
    }
}
