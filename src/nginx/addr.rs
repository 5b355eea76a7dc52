//! Addresses as nginx reads and writes them (`ngx_parse_url`).

use core::ffi::CStr;
use core::mem;
use core::ptr::{self, NonNull};
use core::slice;

use ngx::ffi::{
    ngx_addr_t, ngx_palloc, ngx_parse_addr_port, ngx_parse_url, ngx_str_t, ngx_url_t, NGX_OK,
};

use super::bytes;
use super::peer::Address;
use super::pool::Pool;

/// A socket address with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The bytes of the `sockaddr`.
    pub sockaddr: Box<[u8]>,
    /// `ip:port`, `[ip6]:port` or `unix:path`, as `$upstream_addr` shows it.
    pub name: Box<[u8]>,
}

impl Parsed {
    /// A copy that lives as long as the request whose pool it is in: the access log reads the
    /// name when the address may long be forgotten.
    #[inline]
    pub fn copy_to(&self, pool: Pool) -> Option<Address> {
        let size = mem::size_of::<ngx_str_t>() + self.sockaddr.len() + self.name.len();
        // SAFETY: the pool is live, and the three parts lie one behind the other in memory of
        // their total size, the one that needs alignment first.
        unsafe {
            let name = NonNull::new(ngx_palloc(pool.as_ptr(), size))?.as_ptr().cast::<ngx_str_t>();
            let sockaddr = name.add(1).cast::<u8>();
            let text = sockaddr.add(self.sockaddr.len());
            ptr::copy_nonoverlapping(self.sockaddr.as_ptr(), sockaddr, self.sockaddr.len());
            ptr::copy_nonoverlapping(self.name.as_ptr(), text, self.name.len());
            name.write(ngx_str_t { len: self.name.len(), data: text });
            Some(Address { sockaddr: sockaddr.cast(), socklen: self.sockaddr.len() as _, name })
        }
    }
}

/// Parses a literal address; `port` counts where `text` has none (0: none given either).
///
/// `pool` holds what nginx allocates on the way. Host names are refused: there is no waiting for
/// a resolver in the balancer phase. The error is nginx's own word for it.
pub fn parse(pool: Pool, text: &[u8], port: u16) -> Result<Parsed, &'static CStr> {
    if text.is_empty() {
        return Err(c"no host");
    }
    if text.iter().any(|b| b.is_ascii_control()) {
        return Err(c"invalid host");
    }

    // nginx wants IPv6 in brackets.
    let bracketed;
    let bare_ip6 = !text.starts_with(b"[")
        && !text.starts_with(b"unix:")
        && text.iter().filter(|b| **b == b':').count() > 1;
    let text = if bare_ip6 {
        bracketed = [b"[", text, b"]"].concat();
        &bracketed
    } else {
        text
    };

    let copy = pool.copy(text).ok_or(c"no memory")?;
    // SAFETY: all zeroes is how every user of ngx_url_t starts.
    let mut url: ngx_url_t = unsafe { mem::zeroed() };
    url.url = copy;
    url.default_port = port;
    url.set_no_resolve(1);

    // SAFETY: `url` is set up as ngx_parse_url wants it, with text from the same pool.
    let rc = unsafe { ngx_parse_url(pool.as_ptr(), &mut url) };
    if rc != NGX_OK as isize {
        if url.err.is_null() {
            return Err(c"invalid host");
        }
        // SAFETY: nginx's error texts are string literals.
        return Err(unsafe { CStr::from_ptr(url.err) });
    }
    if url.naddrs == 0 || url.addrs.is_null() {
        return Err(c"no host allowed");
    }

    // SAFETY: nginx filled `naddrs` addresses in, all with memory of the pool.
    let (sockaddr, name, family) = unsafe {
        let addr = &*url.addrs;
        let sockaddr = slice::from_raw_parts(addr.sockaddr.cast::<u8>(), addr.socklen as usize);
        (sockaddr, bytes(addr.name), i32::from((*addr.sockaddr).sa_family))
    };
    if family != libc::AF_UNIX && url.port == 0 {
        return Err(c"no port");
    }

    Ok(Parsed { sockaddr: sockaddr.into(), name: name.into() })
}

/// Parses the literal address, with or without port, that a connection is bound to
/// (`ngx_parse_addr_port`); `None` for anything else. It lives as long as the pool.
pub fn local(pool: Pool, text: &[u8]) -> Option<*mut ngx_addr_t> {
    if text.is_empty() || text.iter().any(u8::is_ascii_control) {
        return None;
    }
    // nginx takes an IPv6 address in brackets with a port only.
    let text = match text {
        [b'[', ip6 @ .., b']'] if ip6.contains(&b':') => ip6,
        text => text,
    };
    let name = pool.copy(text)?;
    let memory = pool.alloc::<ngx_addr_t>()?.as_ptr().cast::<ngx_addr_t>();
    // SAFETY: fresh memory of the right size; nginx reads the text and fills the address in.
    unsafe {
        memory.write_bytes(0, 1);
        let rc = ngx_parse_addr_port(pool.as_ptr(), memory, name.data, name.len);
        if rc != NGX_OK as isize {
            return None;
        }
        (*memory).name = name;
    }
    Some(memory)
}

/// Whether `sockaddr` is `0.0.0.1`, which configurations name where Lua alone knows the peers.
pub fn is_placeholder(sockaddr: &[u8]) -> bool {
    const FAMILY: usize = mem::size_of::<libc::sa_family_t>();
    const ADDR: usize = mem::offset_of!(libc::sockaddr_in, sin_addr);

    let family = (libc::AF_INET as libc::sa_family_t).to_ne_bytes();
    sockaddr.len() >= mem::size_of::<libc::sockaddr_in>()
        && sockaddr[..FAMILY] == family
        && sockaddr[ADDR..ADDR + 4] == [0, 0, 0, 1]
}
