//! `ngx_http_upstream_t`: the upstream of one request.

use core::ffi::CStr;
use core::ptr::{self, NonNull};

use ngx::ffi::{
    ngx_chain_t, ngx_current_msec, ngx_http_block_reading, ngx_http_finalize_request,
    ngx_http_upstream_conf_t, ngx_http_upstream_state_t, ngx_http_upstream_t, ngx_int_t,
    ngx_msec_t, NGX_ERROR, NGX_OK,
};

use super::peer::Peer;
use super::request::Request;
use super::upstream_conf::UpstreamConf;
use super::{bytes, var};

/// The upstream of one request.
#[derive(Clone, Copy)]
pub struct Upstream(NonNull<ngx_http_upstream_t>);

/// How one try of a request went.
pub struct TryState {
    /// The peer's name, empty where none was chosen.
    pub name: &'static [u8],
    /// The status that it ended with; 0 while it goes on.
    pub status: usize,
}

impl Upstream {
    /// # Safety
    /// `u` is the upstream of a live request.
    pub unsafe fn from_ptr(u: *mut ngx_http_upstream_t) -> Option<Self> {
        NonNull::new(u).map(Upstream)
    }

    /// The raw structure, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_http_upstream_t {
        self.0.as_ptr()
    }

    /// The connection to the peer.
    pub fn peer(self) -> Option<Peer> {
        // SAFETY: `peer` is part of the live upstream.
        unsafe { Peer::from_ptr(&raw mut (*self.as_ptr()).peer) }
    }

    /// The `upstream{}` block; `None` before it is known.
    pub fn block(self) -> Option<UpstreamConf> {
        // SAFETY: the upstream is live; the block belongs to the configuration.
        unsafe { UpstreamConf::from_ptr((*self.as_ptr()).upstream) }
    }

    /// The location's settings (`proxy_connect_timeout` and the like).
    #[inline]
    pub fn conf(self) -> *mut ngx_http_upstream_conf_t {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).conf }
    }

    /// Puts other settings in place for this request.
    #[inline]
    pub fn set_conf(self, conf: *mut ngx_http_upstream_conf_t) {
        // SAFETY: the upstream is live; the settings live until they are replaced.
        unsafe { (*self.as_ptr()).conf = conf }
    }

    /// `proxy_next_upstream_tries`; 0 is no limit.
    pub fn tries_limit(self) -> usize {
        // SAFETY: an upstream has its settings before it is started.
        unsafe { (*self.conf()).next_upstream_tries }
    }

    /// Makes the request for the peer anew, with what has changed since.
    ///
    /// A variable may hold a line break: in a body it does no harm, in the head it would be the
    /// start of a header of its own. So the head is made once more with such bytes blotted out,
    /// and refused when that makes a difference.
    pub fn recreate_request(self, request: Request) -> Result<(), &'static CStr> {
        const FAILED: &CStr = c"failed to recreate the upstream request";
        // SAFETY: the upstream is live, and so are the buffers of its requests.
        unsafe {
            let u = self.as_ptr();
            let before = (*u).request_bufs;
            let made = self.create_request(request).ok_or(FAILED)?;
            let Some(broken) = var::Broken::of(request) else { return Ok(()) };
            broken.blot(true);
            let blotted = self.create_request(request);
            broken.blot(false);
            if blotted.is_some_and(|blotted| head(blotted) == head(made)) {
                (*u).request_bufs = made;
                return Ok(());
            }
            (*u).request_bufs = before;
            Err(c"a variable has a line break or NUL that would get into the request's head")
        }
    }

    /// What the protocol's module makes of the request; `None` when it fails.
    fn create_request(self, request: Request) -> Option<*mut ngx_chain_t> {
        // SAFETY: the upstream and its request are live. `create_request` appends what
        // request_bufs holds as the body, as it did the first time: the body without the head
        // that was made then.
        unsafe {
            let (u, r) = (self.as_ptr(), request.as_ptr());
            let create_request = (*u).create_request?;
            let before = (*u).request_bufs;
            let body = (*r).request_body;
            (*u).request_bufs = if body.is_null() { ptr::null_mut() } else { (*body).bufs };
            if create_request(r) == OK {
                return Some((*u).request_bufs);
            }
            (*u).request_bufs = before;
            None
        }
    }

    /// Which protocol the peer is spoken to: each has its own function that makes the request.
    pub fn protocol(self) -> usize {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).create_request.map_or(0, |f| f as usize) }
    }

    /// Whether the response leaves the connection fit for another request, and the whole request
    /// was sent.
    pub fn leaves_connection_usable(self) -> bool {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).keepalive() != 0 && (*self.as_ptr()).request_body_sent() != 0 }
    }

    /// Whether nginx has begun to send the request to the peer of this try.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn is_request_sent(self) -> bool {
        // SAFETY: the upstream is live.
        unsafe { (*self.as_ptr()).request_sent() != 0 }
    }

    /// How many tries nginx has noted for the request, in all its upstreams.
    pub fn state_count(request: Request) -> usize {
        // SAFETY: the request is live.
        unsafe { (*request.as_ptr()).upstream_states.as_ref().map_or(0, |s| s.nelts) }
    }

    /// How the `n`th of them went.
    pub fn state(request: Request, n: usize) -> Option<TryState> {
        // SAFETY: the request is live, and so are its states and the names in them.
        unsafe {
            let states = (*request.as_ptr()).upstream_states.as_ref()?;
            let state = states.as_slice::<ngx_http_upstream_state_t>().get(n)?;
            let name = state.peer.as_ref().map_or(&b""[..], |name| bytes(*name));
            Some(TryState { name, status: state.status })
        }
    }

    /// Ends the request with `status` from within a `get` hook, which must then return
    /// `NGX_ERROR`.
    ///
    /// Stock nginx makes a 500 of whatever `get` returns (`ngx_http_upstream_connect`). So the
    /// upstream is ended here, in the steps of `ngx_http_upstream_finalize_request`, and nginx's
    /// own call of that function, which comes next, finds it ended and only drops the reference
    /// that is taken here: the request survives until then.
    pub fn finalize(self, request: Request, status: ngx_int_t) {
        // SAFETY: the request and its upstream are live. No peer is connected while `get` runs,
        // and no response has begun: what those steps release is not there.
        unsafe {
            let (u, r) = (self.as_ptr(), request.as_ptr());
            if (*u).cleanup.is_null() {
                return;
            }
            *(*u).cleanup = None;
            (*u).cleanup = ptr::null_mut();

            if let Some(state) = (*u).state.as_mut() {
                if state.response_time == ngx_msec_t::MAX {
                    state.response_time = ngx_current_msec.wrapping_sub((*u).start_time);
                }
            }
            if let Some(finalize_request) = (*u).finalize_request {
                finalize_request(r, status);
            }
            #[cfg(ngx_feature = "http_cache")]
            if !(*r).cache.is_null() {
                ngx::ffi::ngx_http_file_cache_free((*r).cache, ptr::null_mut());
            }
            (*r).read_event_handler = Some(ngx_http_block_reading);

            let main = (*r).main;
            (*main).set_count((*main).count() + 1);
            ngx_http_finalize_request(r, status);
        }
    }
}

/// The head of a request: what its first buffer holds, in HTTP/1 up to the empty line.
///
/// # Safety
/// The chain and its buffers are live.
unsafe fn head<'a>(bufs: *mut ngx_chain_t) -> &'a [u8] {
    // SAFETY: the caller's promise; a buffer's memory lies between its two pointers.
    unsafe {
        let Some(buf) = bufs.as_ref().and_then(|link| link.buf.as_ref()) else { return &[] };
        let len = buf.last.offset_from(buf.pos) as usize;
        let text = bytes(ngx::ffi::ngx_str_t { len, data: buf.pos });
        let end = text.windows(4).position(|four| four == b"\r\n\r\n");
        end.map_or(text, |end| &text[..end])
    }
}

/// Success, for a hook.
pub const OK: ngx_int_t = NGX_OK as ngx_int_t;
/// Failure, for a hook.
pub const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
