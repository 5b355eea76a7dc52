//! `ngx_peer_connection_t`: the connection to one peer, and the hooks of whoever balances it.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use ngx::ffi::{
    ngx_addr_t, ngx_event_connect_peer, ngx_event_free_peer_pt, ngx_event_get_peer_pt,
    ngx_event_notify_peer_pt, ngx_int_t, ngx_peer_connection_t, ngx_post_event, ngx_posted_events,
    ngx_str_t, ngx_uint_t, sockaddr, socklen_t, NGX_AGAIN, NGX_ERROR, NGX_OK,
};
#[cfg(ngx_feature = "http_ssl")]
use ngx::ffi::{ngx_event_save_peer_session_pt, ngx_event_set_peer_session_pt};

use super::connection::Connection;
use super::log::Log;

/// Where to connect to: what nginx wants to know of a peer.
///
/// The pointers are into memory that lives as long as the request, since `$upstream_addr` reads
/// the name at its very end.
#[derive(Clone, Copy)]
pub struct Address {
    /// The socket address.
    pub sockaddr: *mut sockaddr,
    /// Its length in bytes.
    pub socklen: socklen_t,
    /// Its text, for logs and `$upstream_addr`.
    pub name: *mut ngx_str_t,
}

/// A peer connection of nginx.
#[derive(Clone, Copy)]
pub struct Peer(NonNull<ngx_peer_connection_t>);

impl Peer {
    /// # Safety
    /// `pc` is the live structure that nginx passed to a hook or that is part of a live upstream.
    pub unsafe fn from_ptr(pc: *mut ngx_peer_connection_t) -> Option<Self> {
        NonNull::new(pc).map(Peer)
    }

    /// The raw structure, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_peer_connection_t {
        self.0.as_ptr()
    }

    /// The request's log.
    pub fn log(self) -> Option<Log> {
        // SAFETY: pc is live, and so is its log.
        unsafe { Log::from_ptr((*self.as_ptr()).log) }
    }

    /// How many tries are left, this one included.
    pub fn tries(self) -> ngx_uint_t {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).tries }
    }

    /// Sets how many tries are left.
    pub fn set_tries(self, tries: ngx_uint_t) {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).tries = tries }
    }

    /// Connects to `address`, over a new connection.
    pub fn set_address(self, address: Address) {
        // SAFETY: pc is live; the address lives as long as the request.
        unsafe {
            let pc = self.as_ptr();
            (*pc).sockaddr = address.sockaddr;
            (*pc).socklen = address.socklen;
            (*pc).name = address.name;
            (*pc).set_cached(0);
            (*pc).connection = ptr::null_mut();
        }
    }

    /// Lets nginx take the connection of this try for a new one.
    pub fn forget_cached(self) {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).set_cached(0) }
    }

    /// Where it connects to; `None` when nobody has said so yet.
    pub fn address(self) -> Option<Address> {
        // SAFETY: pc is live.
        unsafe {
            let pc = self.as_ptr();
            let (sockaddr, socklen, name) = ((*pc).sockaddr, (*pc).socklen, (*pc).name);
            (!sockaddr.is_null()).then_some(Address { sockaddr, socklen, name })
        }
    }

    /// Connects to the same peer by another copy of its address.
    pub fn replace_address(self, address: Address) {
        // SAFETY: pc is live; the address lives as long as the request.
        unsafe {
            (*self.as_ptr()).sockaddr = address.sockaddr;
            (*self.as_ptr()).socklen = address.socklen;
        }
    }

    /// Opens a new connection to the address, from within a `get` hook, which is to return what
    /// this does. Whoever has wrapped that hook then looks for no connection of a pool.
    pub fn open(self) -> ngx_int_t {
        // SAFETY: pc is live and has its address. nginx calls the hook that is put in place for
        // the time of the call, and no other.
        unsafe {
            let pc = self.as_ptr();
            let get = (*pc).get.replace(has_address);
            let rc = ngx_event_connect_peer(pc);
            (*pc).get = get;
            if rc != NGX_OK as ngx_int_t {
                return rc;
            }
            // It is connected already. nginx comes back to it as to one that was waited for.
            ngx_post_event((*(*pc).connection).write, &raw mut ngx_posted_events);
            NGX_AGAIN as ngx_int_t
        }
    }

    /// The connection, while there is one.
    pub fn connection(self) -> Option<Connection> {
        // SAFETY: pc is live, and so is its connection.
        unsafe { Connection::from_ptr((*self.as_ptr()).connection) }
    }

    /// The connection is somebody else's now.
    pub fn forget_connection(self) {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).connection = ptr::null_mut() }
    }

    /// Whether the connection was used before.
    pub fn is_cached(self) -> bool {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).cached() != 0 }
    }

    /// What else the connection is opened with (`proxy_socket_keepalive`, `transparent`).
    pub fn options(self) -> usize {
        // SAFETY: pc is live.
        unsafe {
            let pc = &*self.as_ptr();
            (pc.so_keepalive() | pc.transparent() << 1) as usize
        }
    }

    /// Names the peer in `$upstream_addr` without having one.
    pub fn set_name(self, name: *mut ngx_str_t) {
        // SAFETY: pc is live; the name lives as long as the request.
        unsafe { (*self.as_ptr()).name = name }
    }

    /// The local address that the connection is bound to; null for the kernel's choice.
    pub fn local(self) -> *mut ngx_addr_t {
        // SAFETY: pc is live.
        unsafe { (*self.as_ptr()).local }
    }

    /// Binds the connection to a local address; null for the kernel's choice.
    pub fn set_local(self, local: *mut ngx_addr_t) {
        // SAFETY: pc is live; the address lives as long as the request.
        unsafe { (*self.as_ptr()).local = local }
    }
}

/// The `get` hook of a peer connection whose address is known (`ngx_event_get_peer`).
unsafe extern "C" fn has_address(_pc: *mut ngx_peer_connection_t, _data: *mut c_void) -> ngx_int_t {
    NGX_OK as ngx_int_t
}

/// The balancing hooks of a peer connection, with the data they are called with.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Handed to each hook.
    pub data: *mut c_void,
    /// Chooses the peer of a try.
    pub get: ngx_event_get_peer_pt,
    /// Learns how the try ended.
    pub free: ngx_event_free_peer_pt,
    /// Learns of what happens between.
    pub notify: ngx_event_notify_peer_pt,
    /// Offers a TLS session to the peer.
    #[cfg(ngx_feature = "http_ssl")]
    pub set_session: ngx_event_set_peer_session_pt,
    /// Keeps a TLS session of the peer.
    #[cfg(ngx_feature = "http_ssl")]
    pub save_session: ngx_event_save_peer_session_pt,
}

impl Hooks {
    /// The hooks that `peer` has now.
    pub fn of(peer: Peer) -> Self {
        // SAFETY: pc is live.
        unsafe {
            let pc = peer.as_ptr();
            Hooks {
                data: (*pc).data,
                get: (*pc).get,
                free: (*pc).free,
                notify: (*pc).notify,
                #[cfg(ngx_feature = "http_ssl")]
                set_session: (*pc).set_session,
                #[cfg(ngx_feature = "http_ssl")]
                save_session: (*pc).save_session,
            }
        }
    }

    /// Makes these the hooks of `peer`.
    pub fn install(self, peer: Peer) {
        // SAFETY: pc is live.
        unsafe {
            let pc = peer.as_ptr();
            (*pc).data = self.data;
            (*pc).get = self.get;
            (*pc).free = self.free;
            (*pc).notify = self.notify;
            #[cfg(ngx_feature = "http_ssl")]
            {
                (*pc).set_session = self.set_session;
                (*pc).save_session = self.save_session;
            }
        }
    }

    /// Lets the hook choose the peer; `NGX_ERROR` where there is none.
    pub fn get(&self, peer: Peer) -> ngx_int_t {
        match self.get {
            // SAFETY: hook and data were taken together from this very connection.
            Some(get) => unsafe { get(peer.as_ptr(), self.data) },
            None => NGX_ERROR as ngx_int_t,
        }
    }

    /// Tells the hook how its try ended (`NGX_PEER_FAILED`, `NGX_PEER_NEXT` or 0).
    pub fn free(&self, peer: Peer, state: ngx_uint_t) {
        if let Some(free) = self.free {
            // SAFETY: as in `get`.
            unsafe { free(peer.as_ptr(), self.data, state) }
        }
    }

    /// Hands a notification on.
    pub fn notify(&self, peer: Peer, kind: ngx_uint_t) {
        if let Some(notify) = self.notify {
            // SAFETY: as in `get`.
            unsafe { notify(peer.as_ptr(), self.data, kind) }
        }
    }

    /// Lets the hook offer its TLS session.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn set_session(&self, peer: Peer) -> ngx_int_t {
        match self.set_session {
            // SAFETY: as in `get`.
            Some(set_session) => unsafe { set_session(peer.as_ptr(), self.data) },
            None => ngx::ffi::NGX_OK as ngx_int_t,
        }
    }

    /// Lets the hook keep the TLS session of the connection.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn save_session(&self, peer: Peer) {
        if let Some(save_session) = self.save_session {
            // SAFETY: as in `get`.
            unsafe { save_session(peer.as_ptr(), self.data) }
        }
    }
}
