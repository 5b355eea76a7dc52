//! Addresses as nginx reads and writes them (`ngx_parse_url`).

use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_void, CStr};
use core::mem::{self, MaybeUninit};
use core::net::Ipv6Addr;
use core::ptr::{self, NonNull};
use core::slice;

use ngx::ffi::{
    ngx_addr_t, ngx_palloc, ngx_parse_addr_port, ngx_parse_url, ngx_str_t, ngx_url_t, NGX_OK,
};

use super::bytes;
use super::peer::{Address, Peer};
use super::pool::Pool;

/// A socket address with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The bytes of the `sockaddr`.
    pub sockaddr: Box<[u8]>,
    /// `ip:port`, `[ip6]:port` or `unix:path`, as `$upstream_addr` shows it.
    pub name: Box<[u8]>,
}

/// Bytes of a number that [`mark`] writes.
const MARK: usize = size_of::<u64>();

/// Writes `number` into bytes of a socket address that the kernel does not look at, so that
/// nginx's own keepalive, which compares all of the address, tells two identities apart.
///
/// These are `sin_zero` for IPv4, bytes behind the structure for IPv6 (Linux takes any length up
/// to `sockaddr_storage`), and what follows the path of a unix socket. An address without
/// [room](has_room) stays as it is. It must come from [`place`] or [`copy`].
pub fn mark(address: &mut Address, number: u64) {
    // SAFETY: the address is the request's own copy, with room for a mark behind it.
    unsafe {
        let start = address.sockaddr.cast::<u8>();
        let place = match i32::from((*address.sockaddr).sa_family) {
            libc::AF_INET => start.add(mem::offset_of!(libc::sockaddr_in, sin_zero)),
            libc::AF_INET6 => {
                let end = mem::size_of::<libc::sockaddr_in6>();
                let mark = if number == 0 { 0 } else { MARK };
                address.socklen = (end + mark) as _;
                start.add(end)
            }
            _ => match end_of_path(address) {
                Some(end) => start.add(end),
                None => return,
            },
        };
        ptr::copy_nonoverlapping(number.to_le_bytes().as_ptr(), place, MARK);
    }
}

/// Whether a mark fits into the address: not when the path of a unix socket is very long.
#[inline]
pub fn has_room(address: &Address) -> bool {
    // SAFETY: the address is valid.
    match i32::from(unsafe { (*address.sockaddr).sa_family }) {
        libc::AF_INET | libc::AF_INET6 => true,
        _ => end_of_path(address).is_some(),
    }
}

/// Where the path of a unix socket has ended, when a mark fits behind it.
fn end_of_path(address: &Address) -> Option<usize> {
    // SAFETY: the address is valid for its length.
    let bytes =
        unsafe { slice::from_raw_parts(address.sockaddr.cast::<u8>(), address.socklen as usize) };
    // SAFETY: as above.
    if i32::from(unsafe { (*address.sockaddr).sa_family }) != libc::AF_UNIX {
        return None;
    }
    let path = mem::offset_of!(libc::sockaddr_un, sun_path);
    let end = path + bytes.get(path..)?.iter().position(|b| *b == 0)? + 1;
    (end + MARK <= bytes.len()).then_some(end)
}

/// The text of an address, for debug lines.
pub fn text_of(address: &Address) -> String {
    // SAFETY: the name lives as long as the request.
    let name = unsafe { address.name.as_ref().map_or(&b""[..], |name| bytes(*name)) };
    String::from_utf8_lossy(name).into_owned()
}

/// The bytes of a request's own address that name a peer, without a mark.
pub fn unmarked(address: &Address) -> &'static [u8] {
    // SAFETY: the address lives as long as the request and is as long as it says.
    let bytes =
        unsafe { slice::from_raw_parts(address.sockaddr.cast::<u8>(), address.socklen as usize) };
    // SAFETY: as above.
    let len = match i32::from(unsafe { (*address.sockaddr).sa_family }) {
        libc::AF_INET => mem::offset_of!(libc::sockaddr_in, sin_zero),
        libc::AF_INET6 => mem::size_of::<libc::sockaddr_in6>(),
        _ => {
            let path = mem::offset_of!(libc::sockaddr_un, sun_path);
            let end = bytes.get(path..).and_then(|path| path.iter().position(|b| *b == 0));
            end.map_or(bytes.len(), |n| path + n)
        }
    };
    &bytes[..len.min(bytes.len())]
}

/// The bytes of a request's own address with the mark that it has, which tell it from the same
/// address with another; `None` where there is no room for one.
pub fn marked(address: &Address) -> Option<&'static [u8]> {
    // SAFETY: the address lives as long as the request and is as long as it says.
    has_room(address).then(|| unsafe {
        slice::from_raw_parts(address.sockaddr.cast::<u8>(), address.socklen as usize)
    })
}

/// The local address that a connection is bound to, empty for none.
pub fn bound_to(peer: Peer) -> &'static [u8] {
    // SAFETY: null, or an address of the request or its location, which live as long as the
    // request.
    unsafe {
        peer.local().as_ref().map_or(&[], |local| {
            slice::from_raw_parts(local.sockaddr.cast::<u8>(), local.socklen as usize)
        })
    }
}

/// A copy of an address that somebody else owns, with room for a mark.
pub fn copy(pool: Pool, address: Address) -> Option<Address> {
    let len = address.socklen as usize;
    // SAFETY: the address is valid for its length, the copy for that and a mark.
    unsafe {
        let memory = NonNull::new(ngx_palloc(pool.as_ptr(), len + MARK))?.as_ptr();
        ptr::copy_nonoverlapping(address.sockaddr.cast::<u8>(), memory.cast(), len);
        Some(Address { sockaddr: memory.cast(), ..address })
    }
}

/// Room for an address of IPv4 or IPv6, as [`place`] needs it.
const ROOM: usize = mem::size_of::<ngx_str_t>()
    + mem::size_of::<libc::sockaddr_in6>()
    + MARK
    + "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535".len();

/// Room for one address in what lives as long as the request.
pub struct Room {
    is_taken: Cell<bool>,
    memory: UnsafeCell<MaybeUninit<[usize; ROOM.div_ceil(mem::size_of::<usize>())]>>,
}

impl Room {
    /// Nobody's yet.
    pub fn new() -> Self {
        Room { is_taken: Cell::new(false), memory: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// All of it, for the first who asks and wants no more than there is.
    #[inline]
    fn take(&self, size: usize) -> Option<NonNull<c_void>> {
        if size > ROOM || self.is_taken.replace(true) {
            return None;
        }
        NonNull::new(self.memory.get().cast())
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

/// An address that lives as long as the request: the access log reads the name when what it was
/// copied from may long be forgotten. It lies in `room`, which lives as long, or in the request's
/// pool when that is taken. `sockaddr` comes from [`parse`].
#[inline]
pub fn place(pool: Pool, room: &Room, sockaddr: &[u8], name: &[u8]) -> Option<Address> {
    let marked = sockaddr.len() + MARK;
    let size = mem::size_of::<ngx_str_t>() + marked + name.len();
    // SAFETY: the pool is live, and the three parts lie one behind the other in memory of their
    // total size, the one that needs alignment first.
    unsafe {
        let memory = room.take(size).or_else(|| NonNull::new(ngx_palloc(pool.as_ptr(), size)))?;
        let text = memory.as_ptr().cast::<ngx_str_t>();
        let start = text.add(1).cast::<u8>();
        let data = start.add(marked);
        ptr::copy_nonoverlapping(sockaddr.as_ptr(), start, sockaddr.len());
        ptr::copy_nonoverlapping(name.as_ptr(), data, name.len());
        text.write(ngx_str_t { len: name.len(), data });
        Some(Address { sockaddr: start.cast(), socklen: sockaddr.len() as _, name: text })
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
    if !is_plainly(sockaddr, text) {
        return Err(c"invalid host");
    }

    Ok(Parsed { sockaddr: sockaddr.into(), name: name.into() })
}

/// Whether `text` is the usual way to write an address. nginx also takes `UNIX:/path`, `1::2:` for
/// `1::2:0`, and `127.0.0.01` or `127...1` for `127.0.0.1`; code that looks at a text to allow or
/// forbid what it leads to would not know them, and other software reads some of them differently.
fn is_plainly(sockaddr: &[u8], text: &[u8]) -> bool {
    const FAMILY: usize = mem::size_of::<libc::sa_family_t>();
    const IP4: usize = mem::offset_of!(libc::sockaddr_in, sin_addr);
    const IP6: usize = mem::offset_of!(libc::sockaddr_in6, sin6_addr);

    let ip4 = |at: usize| match sockaddr.get(at..at + 4) {
        Some([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
        _ => String::new(),
    };
    let family = sockaddr.first_chunk::<FAMILY>().map(|f| libc::sa_family_t::from_ne_bytes(*f));
    match family.map(i32::from) {
        Some(libc::AF_INET) => {
            let rest = text.strip_prefix(ip4(IP4).as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
        }
        Some(libc::AF_INET6) => {
            let inside = text.strip_prefix(b"[").unwrap_or(text).split(|byte| *byte == b']').next();
            let ip = inside.and_then(|ip| core::str::from_utf8(ip).ok()?.parse::<Ipv6Addr>().ok());
            ip.is_some_and(|ip| sockaddr.get(IP6..IP6 + 16) == Some(&ip.octets()))
        }
        Some(libc::AF_UNIX) => text.starts_with(b"unix:"),
        _ => true,
    }
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
        let sockaddr = (*memory).sockaddr.cast::<u8>();
        if !is_plainly(slice::from_raw_parts(sockaddr, (*memory).socklen as usize), text) {
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

#[cfg(test)]
mod tests {
    use super::{has_room, mark, Address, MARK};

    fn marked(sockaddr: &mut [u8], len: usize, number: u64) -> Option<Vec<u8>> {
        let mut address = Address {
            sockaddr: sockaddr.as_mut_ptr().cast(),
            socklen: len as _,
            name: core::ptr::null_mut(),
        };
        let has_room = has_room(&address);
        mark(&mut address, number);
        has_room.then(|| sockaddr[..address.socklen as usize].to_vec())
    }

    fn family(family: i32) -> Vec<u8> {
        let mut bytes = vec![0; 128 + MARK];
        bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        bytes
    }

    #[test]
    fn a_mark_tells_addresses_apart() {
        for (kind, len) in [
            (libc::AF_INET, size_of::<libc::sockaddr_in>()),
            (libc::AF_INET6, size_of::<libc::sockaddr_in6>()),
            (libc::AF_UNIX, size_of::<libc::sockaddr_un>()),
        ] {
            let mut address = family(kind);
            let plain = marked(&mut address, len, 0);
            let one = marked(&mut address, len, 1);
            let big = marked(&mut address, len, u64::MAX);
            assert!(plain.is_some() && one.is_some() && big.is_some());
            assert!(plain != one && one != big && plain != big);
            assert_eq!(plain.as_ref().map(Vec::len), Some(len));
        }
    }

    #[test]
    fn an_address_may_have_no_path() {
        let mut bytes = family(libc::AF_UNIX);
        for (len, unmarked) in [(1, 1), (2, 2), (3, 2), (20, 2)] {
            let address = Address {
                sockaddr: bytes.as_mut_ptr().cast(),
                socklen: len,
                name: core::ptr::null_mut(),
            };
            assert_eq!(super::unmarked(&address).len(), unmarked);
        }
    }

    #[test]
    fn an_address_has_one_spelling() {
        let mut ip4 = family(libc::AF_INET);
        ip4[4..8].copy_from_slice(&[127, 0, 0, 1]);
        let is = |text: &str| super::is_plainly(&ip4, text.as_bytes());
        assert!(is("127.0.0.1") && is("127.0.0.1:80"));
        assert!(!is("127.0.0.01") && !is("0127.0.0.1") && !is("127...1") && !is("127.0.0.1x"));
        let mut ip6 = family(libc::AF_INET6);
        ip6[18..24].copy_from_slice(&[255, 255, 127, 0, 0, 1]);
        let is = |text: &str| super::is_plainly(&ip6, text.as_bytes());
        assert!(is("::ffff:127.0.0.1") && is("[::ffff:127.0.0.1]:80") && is("::ffff:7f00:1"));
        assert!(!is("::ffff:127.0.0.01") && !is("[::ffff:127..1]:80"));
        let unix = family(libc::AF_UNIX);
        assert!(super::is_plainly(&unix, b"unix:/a"));
        assert!(!super::is_plainly(&unix, b"UNIX:/a"));
    }

    #[test]
    fn a_long_path_leaves_no_room() {
        let mut address = family(libc::AF_UNIX);
        let len = size_of::<libc::sockaddr_un>();
        address[2..len - MARK - 1].fill(b'a');
        assert!(marked(&mut address, len, 7).is_some());
        for end in len - MARK..=len {
            address[len - MARK - 1..].fill(0);
            address[2..end].fill(b'a');
            let before = address.clone();
            assert!(marked(&mut address, len, 7).is_none());
            assert_eq!(address, before);
        }
    }
}
