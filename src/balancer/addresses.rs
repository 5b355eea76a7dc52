//! Addresses that Lua has named before: found again by their text instead of parsed again.
//!
//! There may be thousands, and each is looked at in turn by requests. So all that belongs to one
//! lies together, and all of them in one piece of memory.

#![forbid(unsafe_code)]

use core::hash::{BuildHasher, Hasher};

use rustc_hash::FxBuildHasher;

/// How many addresses are remembered. One of IPv4 takes some 50 bytes with its place in the table.
const MAX: usize = 16 * 1024;

/// How many bytes most of them take, without that place.
const MOSTLY: usize = 40;

/// A bounded memory of parsed addresses.
#[derive(Default)]
pub struct Addresses {
    /// Where each one starts in `bytes`: in the place that its hash names, or the next one behind
    /// it that was free. There are none, or a power of two, of which a quarter is free.
    table: Vec<u32>,
    count: usize,
    bytes: Vec<u8>,
}

/// A place where no address is.
const FREE: u32 = u32::MAX;

/// An address that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// The bytes of the `sockaddr`.
    pub sockaddr: &'a [u8],
    /// As `$upstream_addr` shows it.
    pub name: &'a [u8],
}

/// What stands in front of each address: the port that was given with the text, and the lengths of
/// the text, the `sockaddr` and the name, each in a byte. The `sockaddr` comes first, and then the
/// text, unless the name, which is last, begins with it: an address and its port mostly does.
const HEADER: usize = 5;

#[inline]
fn hash(text: &[u8], port: u16) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write(text);
    hasher.write_u16(port);
    hasher.finish()
}

/// The text, the port and the address that start at a place.
#[inline]
fn entry(bytes: &[u8], at: u32) -> (&[u8], u16, Known<'_>) {
    let (header, rest) = bytes[at as usize..].split_at(HEADER);
    let port = u16::from_ne_bytes([header[0], header[1]]);
    let (sockaddr, rest) = rest.split_at(header[3] as usize);
    let text = &rest[..(header[2] & !APART) as usize];
    let from = if header[2] & APART == 0 { 0 } else { text.len() };
    (text, port, Known { sockaddr, name: &rest[from..from + header[4] as usize] })
}

/// In the length of a text: the name does not begin with it. A longer text is not remembered.
const APART: u8 = 0x80;

impl Addresses {
    /// What `text` and `port` were parsed to.
    #[inline(always)]
    pub fn find(&self, text: &[u8], port: u16) -> Option<Known<'_>> {
        let mut place = hash(text, port) as usize;
        loop {
            let at = *self.table.get(place & self.table.len().wrapping_sub(1))?;
            if at == FREE {
                return None;
            }
            let (known, its_port, address) = entry(&self.bytes, at);
            if its_port == port && known == text {
                return Some(address);
            }
            place = place.wrapping_add(1);
        }
    }

    /// Notes where an address starts, in a table that has room.
    fn note(&mut self, at: u32) {
        let (text, port, _) = entry(&self.bytes, at);
        let mask = self.table.len() - 1;
        let mut place = hash(text, port) as usize & mask;
        while self.table[place] != FREE {
            place = (place + 1) & mask;
        }
        self.table[place] = at;
    }

    fn grow(&mut self) {
        let old = core::mem::take(&mut self.table);
        self.table = vec![FREE; (2 * old.len()).max(64)];
        for at in old.into_iter().filter(|at| *at != FREE) {
            self.note(at);
        }
    }

    /// Remembers what `text` and `port`, which are not known yet, were parsed to.
    #[cold]
    pub fn remember(&mut self, text: &[u8], port: u16, address: Known) {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).ok();
        let Some(text_len) = length(text).filter(|len| len & APART == 0) else { return };
        let (Some(sockaddr_len), Some(name_len)) = (length(address.sockaddr), length(address.name))
        else {
            return;
        };
        // Whoever names this many addresses names new ones all the time: which of them comes back
        // cannot be told, and starting afresh keeps both memory and the path of a hit small.
        if self.count >= MAX {
            self.table.fill(FREE);
            self.count = 0;
            self.bytes.clear();
        }
        if self.bytes.capacity() == 0 {
            // Grown by doubling, up to half of it would be empty, and smaller ones left behind.
            // Memory that is never written to takes none.
            let _ = self.bytes.try_reserve_exact(MAX * MOSTLY);
        }
        let apart = !address.name.starts_with(text);
        let Ok(at) = u32::try_from(self.bytes.len()) else { return };
        self.bytes.extend_from_slice(&port.to_ne_bytes());
        self.bytes.push(if apart { text_len | APART } else { text_len });
        self.bytes.extend_from_slice(&[sockaddr_len, name_len]);
        self.bytes.extend_from_slice(address.sockaddr);
        if apart {
            self.bytes.extend_from_slice(text);
        }
        self.bytes.extend_from_slice(address.name);

        self.count += 1;
        if 4 * self.count > 3 * self.table.len() {
            self.grow();
        }
        self.note(at);
    }
}

#[cfg(test)]
mod tests {
    use super::{Addresses, Known, MAX};

    #[test]
    fn an_address_is_found_by_its_text() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.find(b"127.0.0.1", 80), None);
        let four = Known { sockaddr: &[1; 16], name: b"127.0.0.1:80" };
        let six = Known { sockaddr: &[2; 28], name: b"[::1]:80" };
        let unix = Known { sockaddr: &[3; 110], name: b"unix:/a" };
        addresses.remember(b"127.0.0.1", 80, four);
        addresses.remember(b"::1", 80, six);
        addresses.remember(b"unix:/a", 0, unix);
        assert_eq!(addresses.find(b"127.0.0.1", 80), Some(four));
        assert_eq!(addresses.find(b"::1", 80), Some(six));
        assert_eq!(addresses.find(b"unix:/a", 0), Some(unix));
        for other in ["127.0.0.1:80", "127.0.0", "", ":", "1"] {
            assert_eq!(addresses.find(other.as_bytes(), 80), None);
        }
    }

    #[test]
    fn the_port_is_part_of_the_address() {
        let mut addresses = Addresses::default();
        let one = Known { sockaddr: &[1; 28], name: b"[::1]:1" };
        let two = Known { sockaddr: &[2; 28], name: b"[::1]:2" };
        addresses.remember(b"::1", 1, one);
        assert_eq!(addresses.find(b"::1", 2), None);
        addresses.remember(b"::1", 2, two);
        assert_eq!((addresses.find(b"::1", 1), addresses.find(b"::1", 2)), (Some(one), Some(two)));
    }

    #[test]
    fn what_is_too_long_is_not_remembered() {
        let mut addresses = Addresses::default();
        let (short, long) = ([b'0'; 127], [b'0'; 256]);
        for (text, known, found) in [
            (&short[..], Known { sockaddr: &long[..255], name: &long[..255] }, true),
            (&long[..128], Known { sockaddr: b"s", name: b"n" }, false),
            (&long[..1], Known { sockaddr: &long, name: b"n" }, false),
            (&long[..2], Known { sockaddr: b"s", name: &long }, false),
        ] {
            addresses.remember(text, 1, known);
            assert_eq!(addresses.find(text, 1), found.then_some(known));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut addresses = Addresses::default();
        for n in 0..3 * MAX {
            let text = n.to_string();
            let name = format!("{text}:1");
            let known = Known { sockaddr: &n.to_ne_bytes(), name: name.as_bytes() };
            addresses.remember(text.as_bytes(), 1, known);
            assert_eq!(addresses.find(text.as_bytes(), 1), Some(known));
            assert!(addresses.count <= MAX && addresses.table.len() <= 2 * MAX);
            assert!(addresses.bytes.len() <= MAX * 32);
        }
    }
}
