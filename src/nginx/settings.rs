//! `ngx_http_upstream_conf_t`: a location's settings, changed for one try.
//!
//! nginx reads timeouts and TLS names from the location's own structure. A try that wants others
//! gets a copy, which goes back when the try has ended: copies are made for as many tries as go
//! on at the same time, not for each request.

use core::cell::{Cell, RefCell};
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
    /// The TLS, where any of it is different.
    pub tls: Option<TlsChanges>,
}

/// What a try with TLS wants to be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsChanges {
    /// The request's own TLS name counts, not `proxy_ssl_name`.
    pub own_name: bool,
    /// Whether the peer's certificate is verified; `None` keeps the configured one.
    pub verify: Option<bool>,
    /// nginx is to ask for a session even where `proxy_ssl_session_reuse` is off: that is when
    /// the connection can be told of its certificates.
    pub ask_for_session: bool,
}

impl Changes {
    /// Whether anything is different at all.
    #[inline]
    pub fn any(&self) -> bool {
        self.timeouts.any() || self.tls.is_some()
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
                let tls = self.tls.unwrap_or_default();
                (*copy).ssl_name =
                    if tls.own_name { ptr::null_mut() } else { (*original).ssl_name };
                (*copy).ssl_verify = tls.verify.map_or((*original).ssl_verify, isize::from);
                (*copy).ssl_session_reuse =
                    if tls.ask_for_session { 1 } else { (*original).ssl_session_reuse };
            }
        }
    }
}

/// Copies of locations' settings that no try uses just now.
#[derive(Default)]
#[allow(clippy::vec_box)] // a copy on loan must not move when another one comes
pub struct Copies {
    /// The copy that came back last: mostly the one that is wanted next, with the same changes.
    last: Cell<Option<Loan>>,
    free: RefCell<HashMap<*mut Raw, Vec<Box<Copied>>, FxBuildHasher>>,
}

/// A copy, what it is one of, and what is different in it.
struct Copied {
    conf: Raw,
    original: *mut Raw,
    changes: Changes,
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

    fn changes(self) -> Changes {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).changes }
    }

    #[cold]
    fn change(self, changes: Changes) {
        // SAFETY: as above; the location's settings live as long as the configuration.
        unsafe {
            changes.apply(self.conf(), self.original());
            (*self.0.as_ptr()).changes = changes;
        }
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
    /// which has the location's own until then; `None` while another one is being looked for.
    #[inline]
    pub fn lend(&self, upstream: Upstream, changes: Changes) -> Option<Loan> {
        let original = upstream.conf();
        let loan = match self.last.get() {
            Some(last) if last.original() == original => {
                self.last.set(None);
                last
            }
            _ => self.another(original)?,
        };
        if loan.changes() != changes {
            loan.change(changes);
        }
        upstream.set_conf(loan.conf());
        Some(loan)
    }

    /// Puts the location's own settings back and takes the copy, which must be the one that
    /// [`lend`](Self::lend) put there.
    #[inline]
    pub fn give_back(&self, upstream: Upstream, loan: Loan) {
        upstream.set_conf(loan.original());
        if let Some(other) = self.last.replace(Some(loan)) {
            self.put_away(other);
        }
    }

    #[cold]
    fn put_away(&self, loan: Loan) {
        let original = loan.original();
        // SAFETY: `another` made it of a box, and nobody has it any longer. A loan is given back
        // once: it is taken out of its cell before.
        let copy = unsafe { Box::from_raw(loan.0.as_ptr()) };
        if let Ok(mut free) = self.free.try_borrow_mut() {
            free.entry(original).or_default().push(copy);
        }
    }

    #[cold]
    fn another(&self, original: *mut Raw) -> Option<Loan> {
        let free = self.free.try_borrow_mut().ok()?.get_mut(&original).and_then(Vec::pop);
        let copy = free.unwrap_or_else(|| {
            // SAFETY: the structure is plain data, whose pointers live as long as the
            // configuration.
            let conf = unsafe { ptr::read(original) };
            Box::new(Copied { conf, original, changes: Changes::default() })
        });
        Some(Loan(NonNull::from(Box::leak(copy))))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Some(loan) = self.last.take() {
            // SAFETY: as in `put_away`.
            drop(unsafe { Box::from_raw(loan.0.as_ptr()) });
        }
    }
}
