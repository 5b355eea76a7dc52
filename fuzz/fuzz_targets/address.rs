//! An address that is accepted is the one that its text names.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use fuzz::input::Input;
use fuzz::nginx::OwnPool;
use libfuzzer_sys::fuzz_target;
use module::nginx::addr::{self, Parsed, Room};
use module::nginx::peer::Address;
use module::nginx::pool::Pool;

/// What Rust makes of a text that it knows for an address; `None` for one that it does not.
fn known(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Some((ip, port).into());
    }
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = inside.parse::<Ipv6Addr>() {
        return Some((ip, port).into());
    }
    // Zones are not for peers.
    text.parse().ok().filter(|_| !text.contains('%'))
}

/// Whether nginx knows no such IPv6 address: one that ends with a `::` for a single group, or with
/// what stands for no IPv4 address.
fn is_unknown_to_nginx(text: &str, at: SocketAddr) -> bool {
    let text = text.strip_prefix('[').map_or(text, |text| text.split(']').next().unwrap_or(text));
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    let ends_with_none = text.ends_with(&Ipv4Addr::BROADCAST.to_string());
    at.is_ipv6() && (ends_with_none || text.ends_with("::") && groups == 7)
}

/// Whether nginx has written a name that it does not read: it shows the last 32 bits of
/// `::ffff:ffff` and `::ffff:ffff:ffff` as an IPv4 address, and takes that one for "no address". The
/// name is right all the same, everybody else reads it, and nobody can connect to either of them:
/// they are left as nginx has them.
fn is_named_unreadably(name: &[u8]) -> bool {
    let ip6 = name.strip_prefix(b"[").and_then(|name| name.split(|byte| *byte == b']').next());
    ip6.is_some_and(|ip6| ip6.ends_with(Ipv4Addr::BROADCAST.to_string().as_bytes()))
}

/// The address in the bytes of a `sockaddr`; `None` for a unix socket.
fn read(sockaddr: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes([sockaddr[0], sockaddr[1]]);
    let port = u16::from_be_bytes([sockaddr[2], sockaddr[3]]);
    match i32::from(family) {
        libc::AF_INET => {
            assert_eq!(sockaddr.len(), size_of::<libc::sockaddr_in>());
            assert_eq!(sockaddr[8..], [0; 8], "marks are for later");
            let ip: [u8; 4] = sockaddr[4..8].try_into().ok()?;
            Some((ip, port).into())
        }
        libc::AF_INET6 => {
            assert_eq!(sockaddr.len(), size_of::<libc::sockaddr_in6>());
            assert_eq!(sockaddr[4..8], [0; 4], "no flow label");
            assert_eq!(sockaddr[24..28], [0; 4], "no zone");
            let ip: [u8; 16] = sockaddr[8..24].try_into().ok()?;
            Some(SocketAddrV6::new(ip.into(), port, 0, 0).into())
        }
        libc::AF_UNIX => {
            assert_eq!(sockaddr.len(), size_of::<libc::sockaddr_un>());
            assert_eq!(sockaddr.last(), Some(&0), "a path ends");
            None
        }
        family => panic!("family {family}"),
    }
}

/// The path in the bytes of a unix socket's address.
fn path(sockaddr: &[u8]) -> &[u8] {
    sockaddr[2..].split(|byte| *byte == 0).next().unwrap_or_default()
}

fn check(pool: Pool, text: &[u8], port: u16, parsed: &Parsed) {
    let name = core::str::from_utf8(&parsed.name);
    match read(&parsed.sockaddr) {
        Some(at) => {
            assert_ne!(at.port(), 0);
            assert_eq!(name.map(str::parse), Ok(Ok(at)), "the name is that of the address");
        }
        None => {
            assert!(text.len() > 5 && text[..5].eq_ignore_ascii_case(b"unix:"));
            assert_eq!(path(&parsed.sockaddr), &text[5..]);
            assert_eq!(*parsed.name, *text);
        }
    }
    let again = addr::parse(pool, &parsed.name, port);
    if is_named_unreadably(&parsed.name) {
        assert!(again.is_err(), "nginx reads it now: no exception is needed");
    } else {
        assert_eq!(again.as_ref(), Ok(parsed), "the name means the same address");
    }
}

/// All bytes of an address.
fn bytes(address: &Address) -> Vec<u8> {
    // SAFETY: the address is as long as it says.
    unsafe {
        core::slice::from_raw_parts(address.sockaddr.cast(), address.socklen as usize).to_vec()
    }
}

/// A mark tells addresses apart and leaves them what they are.
fn check_marks(pool: Pool, room: &Room, parsed: &Parsed, number: u64) {
    let mut address = addr::place(pool, room, &parsed.sockaddr, &parsed.name).expect("memory");
    assert_eq!(bytes(&address), *parsed.sockaddr);
    let mut other = addr::copy(pool, address).expect("memory");
    assert_eq!(bytes(&other), *parsed.sockaddr);
    let plain = addr::unmarked(&address).to_vec();

    addr::mark(&mut address, number);
    addr::mark(&mut other, number.wrapping_add(1));
    assert_eq!(addr::unmarked(&address), plain);
    assert_eq!(addr::unmarked(&other), plain);
    assert_eq!(bytes(&address) != bytes(&other), addr::has_room(&address));
    if number == 0 {
        assert_eq!(bytes(&address), *parsed.sockaddr, "0 is no mark");
    }
    assert_eq!(
        addr::text_of(&address).as_bytes(),
        String::from_utf8_lossy(&parsed.name).as_bytes()
    );
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let port = input.short();
    let number = input.byte().into();
    let text = input.rest();
    let pool = OwnPool::default();
    let pool = pool.get();

    let parsed = addr::parse(pool, text, port);
    let local = addr::local(pool, text);
    if let Ok(parsed) = &parsed {
        check(pool, text, port, parsed);
        // The first address has the room, another one the pool.
        let room = Room::new();
        check_marks(pool, &room, parsed, number);
        check_marks(pool, &room, parsed, number);
        assert!(!addr::is_placeholder(&parsed.sockaddr) || parsed.sockaddr[4..8] == [0, 0, 0, 1]);
    }

    let utf8 = core::str::from_utf8(text).unwrap_or_default();
    let known = known(utf8, port);
    if let Some(known) = known {
        // The first of them is nginx's number for "no address".
        let none = known.ip() == Ipv4Addr::BROADCAST || is_unknown_to_nginx(utf8, known);
        let at = parsed.as_ref().ok().and_then(|parsed| read(&parsed.sockaddr));
        assert_eq!(at, (known.port() != 0 && !none).then_some(known));
    } else if let Some(at) = parsed.as_ref().ok().and_then(|parsed| read(&parsed.sockaddr)) {
        panic!("{at} has an unusual text");
    }
    if let Some(local) = local {
        // SAFETY: it lives as long as the pool.
        let local = unsafe {
            let length = (*local).socklen as usize;
            core::slice::from_raw_parts((*local).sockaddr.cast::<u8>(), length)
        };
        let at = read(local).expect("no unix socket");
        if let Some(known) = known {
            assert_eq!(at.ip(), known.ip());
        }
    }
});
