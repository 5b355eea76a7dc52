//! `ngx_connection_t`: a connection to a peer, in use and idle.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use ngx::ffi::{
    ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec, ngx_cycle,
    ngx_del_timer, ngx_destroy_pool, ngx_event_t, ngx_exiting, ngx_handle_read_event, ngx_msec_t,
    ngx_pool_cleanup_add, ngx_terminate, NGX_OK,
};

use super::log::Log;
use super::peer::Peer;

/// A connection of nginx.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connection(NonNull<ngx_connection_t>);

/// The handler of an event.
pub type Handler = unsafe extern "C" fn(ev: *mut ngx_event_t);

impl Connection {
    /// # Safety
    /// `c` is a live connection, and the handle is not used once it is closed.
    pub unsafe fn from_ptr(c: *mut ngx_connection_t) -> Option<Self> {
        NonNull::new(c).map(Connection)
    }

    /// The connection that an event belongs to.
    ///
    /// # Safety
    /// `ev` is an event of a live connection.
    pub unsafe fn of_event(ev: *mut ngx_event_t) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { Connection::from_ptr((*ev).data.cast()) }
    }

    /// The raw structure, for a call into nginx and for debug lines.
    pub fn as_ptr(self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }

    /// What `make_idle` was told.
    pub fn data(self) -> *mut c_void {
        // SAFETY: the connection is live.
        unsafe { (*self.as_ptr()).data }
    }

    /// Its log.
    pub fn log(self) -> Option<Log> {
        // SAFETY: the connection is live, and so is its log.
        unsafe { Log::from_ptr((*self.as_ptr()).log) }
    }

    /// How many requests it has carried, that of this moment included.
    pub fn requests(self) -> usize {
        // SAFETY: the connection is live.
        unsafe { (*self.as_ptr()).requests }
    }

    /// Milliseconds since it was opened.
    pub fn age(self) -> ngx_msec_t {
        // SAFETY: the connection is live; the time is nginx's own, which wraps around.
        unsafe { ngx_current_msec.wrapping_sub((*self.as_ptr()).start_time) }
    }

    /// Whether it can carry another request, as far as events tell.
    pub fn is_sound(self) -> bool {
        // SAFETY: the connection and its events are live.
        unsafe {
            let (read, write) = (&*(*self.as_ptr()).read, &*(*self.as_ptr()).write);
            read.eof() == 0
                && read.error() == 0
                && read.timedout() == 0
                && write.error() == 0
                && write.timedout() == 0
        }
    }

    /// Whether nginx wants it closed: the worker shuts down, or lacks connections.
    pub fn is_to_close(self) -> bool {
        // SAFETY: the connection is live.
        unsafe { (*self.as_ptr()).close() != 0 || (*(*self.as_ptr()).read).timedout() != 0 }
    }

    /// Lets it wait in a pool: `handler` comes when something arrives or `timeout` milliseconds
    /// (0: no limit) have passed, with `data` in the connection. False when nginx cannot wait for
    /// it.
    pub fn make_idle(self, timeout: ngx_msec_t, handler: Handler, data: *mut c_void) -> bool {
        // SAFETY: the connection and its events are live. Its log is the request's, which ends
        // before it does: every place that holds it gets the cycle's.
        unsafe {
            let c = self.as_ptr();
            let (read, write) = ((*c).read, (*c).write);
            if ngx_handle_read_event(read, 0) != NGX_OK as isize {
                return false;
            }

            (*read).set_delayed(0);
            if timeout > 0 {
                ngx_add_timer(read, timeout);
            } else if (*read).timer_set() != 0 {
                ngx_del_timer(read);
            }
            if (*write).timer_set() != 0 {
                ngx_del_timer(write);
            }
            (*write).handler = Some(ignore);
            (*read).handler = Some(handler);

            (*c).data = data;
            (*c).set_idle(1);
            self.set_log((*ngx_cycle).log);
        }
        true
    }

    /// Puts an idle connection to use for the request of `peer`.
    pub fn reuse(self, peer: Peer) {
        // SAFETY: both are live; the log is the request's, which the connection serves from now.
        unsafe {
            let (c, pc) = (self.as_ptr(), peer.as_ptr());
            (*c).set_idle(0);
            (*c).sent = 0;
            (*c).data = ptr::null_mut();
            self.set_log((*pc).log);
            if (*(*c).read).timer_set() != 0 {
                ngx_del_timer((*c).read);
            }
            (*pc).connection = c;
            (*pc).set_cached(1);
        }
    }

    /// # Safety
    /// `log` lives as long as the connection has it.
    unsafe fn set_log(self, log: *mut ngx::ffi::ngx_log_t) {
        // SAFETY: the connection, its events and its pool are live.
        unsafe {
            let c = self.as_ptr();
            (*c).log = log;
            (*(*c).read).log = log;
            (*(*c).write).log = log;
            if !(*c).pool.is_null() {
                (*(*c).pool).log = log;
            }
        }
    }

    /// Whether something has arrived while it was idle, the peer's end of it included.
    pub fn has_input(self) -> bool {
        // SAFETY: the connection is live.
        unsafe { (*(*self.as_ptr()).read).ready() != 0 }
    }

    /// Asks the kernel whether an idle connection is still quiet, and waits on if so.
    pub fn stays_quiet(self) -> bool {
        let mut byte = 0u8;
        // SAFETY: the connection is live, and one byte is peeked into one byte.
        unsafe {
            let c = self.as_ptr();
            let n = libc::recv((*c).fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK);
            if n != -1 || ngx::ffi::ngx_socket_errno() != libc::EAGAIN {
                return false;
            }
            (*(*c).read).set_ready(0);
            ngx_handle_read_event((*c).read, 0) == NGX_OK as isize
        }
    }

    /// Notes a number, which lives as long as the connection. False without memory.
    pub fn note(self, number: u64) -> bool {
        // SAFETY: the connection is live, and so is its pool, where there is one. The note is
        // memory of the pool, aligned for a number as all of it is.
        unsafe {
            let note = self.find_note().or_else(|| {
                let pool = NonNull::new((*self.as_ptr()).pool)?;
                let cleanup = ngx_pool_cleanup_add(pool.as_ptr(), size_of::<u64>());
                let cleanup = cleanup.as_mut()?;
                cleanup.handler = Some(ngx_http_lua_balancer_note);
                NonNull::new(cleanup.data.cast())
            });
            note.map(|note| note.write(number)).is_some()
        }
    }

    /// The number that was noted last.
    pub fn noted(self) -> Option<u64> {
        // SAFETY: a note is a number for as long as the connection lives.
        self.find_note().map(|note| unsafe { note.read() })
    }

    /// The note is the data of a cleanup that does nothing, and is known by it.
    fn find_note(self) -> Option<NonNull<u64>> {
        let ours: unsafe extern "C" fn(*mut c_void) = ngx_http_lua_balancer_note;
        // SAFETY: the connection is live, and so are its pool and the list of its cleanups.
        unsafe {
            let mut next = (*self.as_ptr()).pool.as_ref()?.cleanup;
            while let Some(cleanup) = next.as_ref() {
                if cleanup.handler.map(|f| f as usize) == Some(ours as usize) {
                    return NonNull::new(cleanup.data.cast());
                }
                next = cleanup.next;
            }
        }
        None
    }

    /// Closes it, with a TLS shutdown that waits for nobody.
    pub fn close(self) {
        // SAFETY: the connection is live and nobody else has it: it was taken out of its pool.
        unsafe { close(self.as_ptr()) }
    }
}

/// Closes a connection that is in nobody's hands.
///
/// # Safety
/// `c` is live; it is gone after the call, or when its TLS shutdown has ended.
unsafe extern "C" fn close(c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise. While a TLS shutdown goes on, nginx calls back here.
    unsafe {
        #[cfg(ngx_feature = "http_ssl")]
        if let Some(ssl) = (*c).ssl.as_mut() {
            ssl.set_no_wait_shutdown(1);
            ssl.set_no_send_shutdown(1);
            if ngx::ffi::ngx_ssl_shutdown(c) == ngx::ffi::NGX_AGAIN as isize {
                (*(*c).ssl).handler = Some(close);
                return;
            }
        }
        if !(*c).pool.is_null() {
            ngx_destroy_pool((*c).pool);
        }
        ngx_close_connection(c);
    }
}

/// Marks the cleanup that is a note.
#[no_mangle]
unsafe extern "C" fn ngx_http_lua_balancer_note(_data: *mut c_void) {}

/// The handler of what nobody waits for.
unsafe extern "C" fn ignore(_ev: *mut ngx_event_t) {}

/// Whether the worker is about to end: nothing new is kept.
pub fn is_exiting() -> bool {
    // SAFETY: nginx's own flags, set by its signal handlers between events.
    unsafe { ngx_terminate != 0 || ngx_exiting != 0 }
}
