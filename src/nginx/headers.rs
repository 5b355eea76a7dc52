//! Request headers (`r->headers_in`): the list that is passed to the peer, and nginx's own
//! pointers into it.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use ngx::ffi::{
    nginx_version, ngx_atoof, ngx_hash_find, ngx_hash_strlow, ngx_http_header_t, ngx_list_part_t,
    ngx_list_push, ngx_palloc, ngx_str_t, ngx_table_elt_t,
};
use ngx::http::{HttpModuleMainConf, NgxHttpCoreModule};

use super::request::Request;
use super::{bytes, var};
use crate::log::debug;

/// There is no memory left.
#[derive(Debug)]
pub struct NoMemory;

/// The `n`th header, name and value, in the order in which they are passed on.
pub fn nth(request: Request, n: usize) -> Option<(&'static [u8], &'static [u8])> {
    let header = elements(request).nth(n)?;
    // SAFETY: the element belongs to the live request.
    unsafe { Some((bytes((*header).key), bytes((*header).value))) }
}

/// Gives a header these values, in place of all that it had; none takes it away.
///
/// What frames the body follows the body alone and is left as it is: a length that is not the
/// body's would let its peer take a part of it for another request, or of another request for it.
pub fn set(request: Request, name: &[u8], values: &[&[u8]]) -> Result<(), NoMemory> {
    let is = |framing: &str| {
        let dashed = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte });
        dashed.map(|byte| byte.to_ascii_lowercase()).eq(framing.bytes())
    };
    let taken_away = values.is_empty();
    if is("content-length") || is("transfer-encoding") && !taken_away {
        let name = String::from_utf8_lossy(name);
        debug!(request.log(), "lua balancer: {name} is left to the body");
        return Ok(());
    }
    replace(request, name, values)
}

/// The same for every header.
///
/// Nothing is changed when there is no memory for all of it.
pub(super) fn replace(request: Request, name: &[u8], values: &[&[u8]]) -> Result<(), NoMemory> {
    let name = escape(name, is_token);
    let values: Vec<Vec<u8>> = values.iter().map(|value| escape(value, is_field_byte)).collect();

    let pool = request.pool().ok_or(NoMemory)?;
    let key = pool.copy(&name).ok_or(NoMemory)?;
    let lowcase = pool.copy(&name).ok_or(NoMemory)?;
    // SAFETY: both copies have the name's length.
    let hash = unsafe { ngx_hash_strlow(lowcase.data, key.data, key.len) };
    let mut copies = Vec::with_capacity(values.len());
    for value in &values {
        // nginx wants the NUL behind: it prints and parses some values as C strings.
        let mut copy = pool.copy(&[value.as_slice(), b"\0"].concat()).ok_or(NoMemory)?;
        copy.len -= 1;
        copies.push(copy);
    }

    // SAFETY: the name lives as long as the request.
    let wanted = unsafe { bytes(lowcase) };
    keep(request, |header| {
        // SAFETY: the element belongs to the live request.
        !unsafe { bytes((*header).key) }.eq_ignore_ascii_case(wanted)
    })?;

    let mut first: *mut ngx_table_elt_t = ptr::null_mut();
    for value in copies {
        // SAFETY: the list belongs to the live request; what is pushed is written whole.
        unsafe {
            let header: *mut ngx_table_elt_t =
                ngx_list_push(&raw mut (*request.as_ptr()).headers_in.headers).cast();
            if header.is_null() {
                return Err(NoMemory);
            }
            header.write_bytes(0, 1);
            (*header).hash = hash;
            (*header).key = key;
            (*header).value = value;
            (*header).lowcase_key = lowcase.data;
            if first.is_null() {
                first = header;
            }
        }
    }
    point_to(request, wanted, hash, first);
    var::forget(request, |variable| shows(variable, wanted));
    Ok(())
}

/// Whether a variable is made of the header `lowcase`.
fn shows(variable: &[u8], lowcase: &[u8]) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        let dash = |c: &u8| if *c == b'-' { b'_' } else { *c };
        a.iter().map(dash).eq(b.iter().map(dash))
    };
    match variable.strip_prefix(b"http_") {
        Some(name) => same(name, lowcase),
        None if lowcase == b"cookie" => variable.starts_with(b"cookie_"),
        // $host, $content_length, $content_type
        None => same(variable, lowcase),
    }
}

/// Makes nginx's own pointer to a header it knows (`headers_in.host`) point to `header`, or to
/// none.
fn point_to(request: Request, lowcase: &[u8], hash: usize, header: *mut ngx_table_elt_t) {
    // SAFETY: the request is live; nginx only reads its table and the name. The offset is that of
    // a pointer to an element, except for the two arrays below.
    unsafe {
        let headers_in = &raw mut (*request.as_ptr()).headers_in;
        let value = header.as_ref().map(|h| h.value);
        match lowcase {
            b"content-length" => {
                (*headers_in).content_length_n =
                    value.map_or(-1, |v| ngx_atoof(v.data, v.len) as _);
            }
            b"host" => {
                if let Some(value) = value {
                    (*headers_in).server = host_of(value);
                }
            }
            // Arrays of pointers before 1.23, which only variables of these names read.
            b"cookie" | b"x-forwarded-for" if nginx_version < 1_023_000 => return,
            _ => (),
        }

        let Some(main) = NgxHttpCoreModule::main_conf(&*request.as_ptr()) else { return };
        let table = ptr::from_ref(&main.headers_in_hash).cast_mut();
        let known = ngx_hash_find(table, hash, lowcase.as_ptr().cast_mut(), lowcase.len());
        let Some(known) = known.cast::<ngx_http_header_t>().as_ref() else { return };
        if known.offset != 0 {
            *headers_in.byte_add(known.offset).cast::<*mut ngx_table_elt_t>() = header;
        }
    }
}

/// The name in a `Host` header, without the port.
fn host_of(mut value: ngx_str_t) -> ngx_str_t {
    // SAFETY: the value lives as long as the request.
    let text = unsafe { bytes(value) };
    let name_end = if text.starts_with(b"[") {
        text.iter().position(|b| *b == b']').map(|at| at + 1)
    } else {
        text.iter().position(|b| *b == b':')
    };
    value.len = name_end.unwrap_or(value.len);
    value
}

/// All elements of the list.
fn elements(request: Request) -> impl Iterator<Item = *mut ngx_table_elt_t> {
    // SAFETY: the list's first part lies in the live request.
    let mut part = unsafe { &raw mut (*request.as_ptr()).headers_in.headers.part };
    let mut n = 0;
    core::iter::from_fn(move || {
        // SAFETY: parts are linked until null, and each has `nelts` elements.
        unsafe {
            while n >= (*part).nelts {
                part = NonNull::new((*part).next)?.as_ptr();
                n = 0;
            }
            n += 1;
            Some((*part).elts.cast::<ngx_table_elt_t>().add(n - 1))
        }
    })
}

/// Drops the elements that `wanted` refuses. The others stay where they are in memory, since
/// nginx points to them from elsewhere: only the list's parts are made anew around them.
fn keep(request: Request, wanted: impl Fn(*mut ngx_table_elt_t) -> bool) -> Result<(), NoMemory> {
    let all: Vec<_> = elements(request).collect();
    let kept: Vec<_> = all.iter().copied().filter(|header| wanted(*header)).collect();
    if kept.len() == all.len() {
        return Ok(());
    }

    // Runs of neighbours, as (first element, how many).
    let mut runs: Vec<(*mut ngx_table_elt_t, usize)> = Vec::new();
    for header in kept {
        match runs.last_mut() {
            Some((first, count)) if first.wrapping_add(*count) == header => *count += 1,
            _ => runs.push((header, 1)),
        }
    }

    let pool = request.pool().ok_or(NoMemory)?;
    // SAFETY: the list belongs to the live request; its first part lies in the list itself, the
    // others are fresh memory. nginx reads element 0 of each part but the first unasked: none of
    // them may be empty. With `nalloc` at the last part's length the next push starts a new one,
    // behind which nothing lies that somebody may still point to.
    unsafe {
        let list = &raw mut (*request.as_ptr()).headers_in.headers;
        let mut parts: Vec<*mut ngx_list_part_t> = vec![&raw mut (*list).part];
        for _ in 1..runs.len() {
            parts.push(pool.alloc::<ngx_list_part_t>().ok_or(NoMemory)?.as_ptr().cast());
        }
        if runs.is_empty() {
            const ROOM: usize = 4;
            let size = ROOM * size_of::<MaybeUninit<ngx_table_elt_t>>();
            let elts = NonNull::new(ngx_palloc(pool.as_ptr(), size)).ok_or(NoMemory)?;
            *parts[0] = ngx_list_part_t { elts: elts.as_ptr(), nelts: 0, next: ptr::null_mut() };
            (*list).nalloc = ROOM;
        }
        for (n, (first, count)) in runs.iter().enumerate() {
            let next = parts.get(n + 1).copied().unwrap_or(ptr::null_mut());
            *parts[n] = ngx_list_part_t { elts: first.cast(), nelts: *count, next };
            (*list).nalloc = *count;
        }
        (*list).last = parts[parts.len() - 1];
    }
    Ok(())
}

/// Percent-encodes what would end a header or start another one, as lua-nginx-module does it.
fn escape(text: &[u8], allowed: fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if allowed(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// Percent-encodes what would end the request line.
pub(super) fn escape_args(args: &[u8]) -> Vec<u8> {
    escape(args, |byte| byte > b' ' && byte != 0x7f)
}

/// The bytes of a field name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes of a field value (RFC 9110, section 5.5).
fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::{escape, is_field_byte, is_token};

    #[test]
    fn a_value_cannot_end_its_line() {
        assert_eq!(escape(b"a\r\nX: y\0\x7f\tz", is_field_byte), b"a%0D%0AX: y%00%7F\tz");
        assert_eq!(escape("é".as_bytes(), is_field_byte), "é".as_bytes());
    }

    #[test]
    fn variables_show_headers() {
        for (variable, header, shown) in [
            ("http_x_a", "x-a", true),
            ("http_x_a", "x-b", false),
            ("http_host", "host", true),
            ("host", "host", true),
            ("content_type", "content-type", true),
            ("cookie_a", "cookie", true),
            ("cookie_a", "host", false),
        ] {
            assert_eq!(super::shows(variable.as_bytes(), header.as_bytes()), shown, "{variable}");
        }
    }

    #[test]
    fn a_name_is_a_token() {
        assert_eq!(escape(b"X-A: b\r\n", is_token), b"X-A%3A%20b%0D%0A");
    }
}
