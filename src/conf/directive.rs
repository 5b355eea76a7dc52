//! The directives. Each says why it refuses, and nginx adds the file and the line.

use core::cell::{OnceCell, RefCell};
use core::ffi::{c_char, c_void, CStr};
use core::ops::RangeInclusive;
use core::ptr;

use ngx::ffi::{
    ngx_command_t, ngx_conf_t, ngx_str_t, NGX_CONF_BLOCK, NGX_CONF_FLAG, NGX_CONF_NOARGS,
    NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET,
    NGX_HTTP_SRV_CONF_OFFSET, NGX_HTTP_UPS_CONF,
};

use super::{block, KeepaliveConf, MainConf, SrvConf};
use crate::balancer::Balancer;
use crate::guard::guard;
use crate::lua::chunk::{Chunk, LoadError, Loaded};
use crate::nginx::conf::{milliseconds, Conf, Handler, NGX_CONF_ERROR, NGX_CONF_OK};
use crate::nginx::{shm, upstream_conf};

/// A directive's result; the error is a message for the user.
type Result<T = ()> = core::result::Result<T, String>;

/// The message when nginx has told the user why.
const TOLD: String = String::new();

/// [`inline`] or [`file`].
type Read = fn(Conf) -> Result<Chunk>;

const BLOCK: u32 = NGX_CONF_BLOCK | NGX_CONF_NOARGS;

/// The directive table, closed by an empty entry.
pub static mut COMMANDS: [ngx_command_t; 16] = [
    http(c"lua_package_path", NGX_CONF_TAKE1, lua_package_path),
    http(c"lua_package_cpath", NGX_CONF_TAKE1, lua_package_cpath),
    http(c"lua_code_cache", NGX_CONF_FLAG, lua_code_cache),
    http(c"lua_memory_limit", NGX_CONF_TAKE1, lua_memory_limit),
    http(c"lua_balancer_ssl_sessions", NGX_CONF_TAKE1, lua_balancer_ssl_sessions),
    http(c"lua_balancer_ssl_session_cache", NGX_CONF_TAKE1, lua_balancer_ssl_session_cache),
    http(c"init_by_lua_block", BLOCK, init_by_lua_block),
    http(c"init_by_lua_file", NGX_CONF_TAKE1, init_by_lua_file),
    http(c"init_worker_by_lua_block", BLOCK, init_worker_by_lua_block),
    http(c"init_worker_by_lua_file", NGX_CONF_TAKE1, init_worker_by_lua_file),
    upstream(c"balancer_by_lua_block", BLOCK, balancer_by_lua_block),
    upstream(c"balancer_keepalive", NGX_CONF_TAKE1 | NGX_CONF_TAKE2, balancer_keepalive),
    http(c"balancer_by_lua_timeout", NGX_CONF_TAKE1, balancer_by_lua_timeout_in_http),
    upstream(c"balancer_by_lua_timeout", NGX_CONF_TAKE1, balancer_by_lua_timeout),
    upstream(c"balancer_by_lua_file", NGX_CONF_TAKE1, balancer_by_lua_file),
    ngx_command_t::empty(),
];

const fn http(name: &'static CStr, args: u32, set: Handler) -> ngx_command_t {
    command(name, NGX_HTTP_MAIN_CONF | args, NGX_HTTP_MAIN_CONF_OFFSET, set)
}

const fn upstream(name: &'static CStr, args: u32, set: Handler) -> ngx_command_t {
    command(name, NGX_HTTP_UPS_CONF | args, NGX_HTTP_SRV_CONF_OFFSET, set)
}

const fn command(name: &'static CStr, kind: u32, conf: usize, set: Handler) -> ngx_command_t {
    ngx_command_t {
        name: ngx_str_t { len: name.to_bytes().len(), data: name.as_ptr().cast::<u8>().cast_mut() },
        type_: kind as usize,
        set: Some(set),
        conf,
        offset: 0,
        post: ptr::null_mut(),
    }
}

/// Makes nginx's handler of a function over our own types.
macro_rules! handler {
    ($(#[$doc:meta])* $name:ident, $conf:ty, $body:expr) => {
        $(#[$doc])*
        unsafe extern "C" fn $name(
            cf: *mut ngx_conf_t,
            _cmd: *mut ngx_command_t,
            conf: *mut c_void,
        ) -> *mut c_char {
            // SAFETY: nginx passes its cf and the configuration that the directive's offset
            // names, which lives as long as the cycle.
            let (cf, conf) = unsafe { (Conf::from_ptr(cf), conf.cast::<$conf>().as_ref()) };
            let (Some(cf), Some(conf)) = (cf, conf) else { return NGX_CONF_ERROR };
            let body: fn(Conf, &$conf) -> Result = $body;
            guard(NGX_CONF_ERROR, || match body(cf, conf) {
                Ok(()) => NGX_CONF_OK,
                Err(message) => {
                    if message != TOLD {
                        cf.emerg(&message);
                    }
                    NGX_CONF_ERROR
                }
            })
        }
    };
}

handler!(lua_package_path, MainConf, |cf, main| set_path(cf, &main.paths.path));
handler!(lua_package_cpath, MainConf, |cf, main| set_path(cf, &main.paths.cpath));
handler!(lua_code_cache, MainConf, |cf, main| {
    fill(cf, &main.code_cache, || match arg(cf)? {
        value if value.eq_ignore_ascii_case(b"on") => Ok(true),
        value if value.eq_ignore_ascii_case(b"off") => {
            cf.alert("lua_code_cache is off; this will hurt performance");
            Ok(false)
        }
        value => Err(invalid_value(cf, value) + ", it must be \"on\" or \"off\""),
    })
});
handler!(lua_memory_limit, MainConf, |cf, main| {
    fill(cf, &main.memory_limit, || {
        let value = arg(cf)?;
        shm::parse_size(value).ok_or_else(|| invalid_value(cf, value))
    })
});
handler!(lua_balancer_ssl_sessions, MainConf, |cf, main| {
    fill(cf, &main.max_sessions, || number(cf, 0..=10_000_000))
});
handler!(lua_balancer_ssl_session_cache, MainConf, |cf, main| {
    fill(cf, &main.shared_sessions, || {
        let value = arg(cf)?;
        let parts: Vec<&[u8]> = value.split(|b| *b == b':').collect();
        let &[b"shared", name @ [_, ..], size] = parts.as_slice() else {
            return Err(invalid_value(cf, value) + ", it must be \"shared:NAME:SIZE\"");
        };
        let size = shm::parse_size(size).ok_or_else(|| invalid_value(cf, value))?;
        if size < shm::MIN_SIZE {
            return Err(format!("zone \"{}\" is too small", String::from_utf8_lossy(value)));
        }
        shm::SharedCache::add(cf, name, size).ok_or(TOLD)
    })
});
handler!(init_by_lua_block, MainConf, |cf, main| init(cf, main, inline));
handler!(init_by_lua_file, MainConf, |cf, main| init(cf, main, file));
handler!(init_worker_by_lua_block, MainConf, |cf, main| init_worker(cf, main, inline));
handler!(init_worker_by_lua_file, MainConf, |cf, main| init_worker(cf, main, file));
handler!(balancer_by_lua_block, SrvConf, |cf, srv| balancer(cf, srv, inline));
handler!(balancer_by_lua_file, SrvConf, |cf, srv| balancer(cf, srv, file));
handler!(balancer_keepalive, SrvConf, |cf, srv| {
    fill(cf, &srv.keepalive, || {
        // More than nginx can have open would only hide a slip of the pen.
        let connections = number(cf, 1..=1_000_000)?;
        let mut keepalive = KeepaliveConf { connections, ..KeepaliveConf::default() };
        if let Some(time) = cf.args().get(1) {
            let value = time.strip_prefix(b"time=").and_then(milliseconds);
            keepalive.time = value.ok_or_else(|| {
                format!("invalid parameter \"{}\"", String::from_utf8_lossy(time))
            })?;
        }
        Ok(keepalive)
    })
});

handler!(balancer_by_lua_timeout_in_http, MainConf, |cf, main| set_timeout(cf, &main.timeout));
handler!(balancer_by_lua_timeout, SrvConf, |cf, srv| set_timeout(cf, &srv.timeout));

fn invalid_value(cf: Conf, value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    format!("invalid value \"{value}\" in \"{}\" directive", cf.directive())
}

fn duplicate(cf: Conf) -> String {
    format!("\"{}\" directive is duplicate", cf.directive())
}

/// The directive's first argument.
fn arg(cf: Conf) -> Result<&'static [u8]> {
    cf.args()
        .first()
        .copied()
        .ok_or_else(|| format!("invalid number of arguments in \"{}\" directive", cf.directive()))
}

/// The first argument as a number.
fn number(cf: Conf, range: RangeInclusive<usize>) -> Result<usize> {
    let value = arg(cf)?;
    let number = core::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
    number.filter(|n| range.contains(n)).ok_or_else(|| invalid_value(cf, value))
}

/// Sets what a directive may set only once.
fn fill<T>(cf: Conf, cell: &OnceCell<T>, value: impl FnOnce() -> Result<T>) -> Result {
    if cell.get().is_some() {
        return Err(duplicate(cf));
    }
    cell.set(value()?).map_err(|_| duplicate(cf))
}

/// How long a chunk may run, in milliseconds.
fn set_timeout(cf: Conf, cell: &OnceCell<usize>) -> Result {
    fill(cf, cell, || {
        let value = arg(cf)?;
        // More than a day is a slip of the pen.
        let time = milliseconds(value).filter(|time| *time <= 86_400_000);
        time.ok_or_else(|| invalid_value(cf, value))
    })
}

/// A Lua search path, with nginx's prefix for `$prefix` and `${prefix}`.
fn set_path(cf: Conf, cell: &OnceCell<Vec<u8>>) -> Result {
    fill(cf, cell, || Ok(with_prefix(arg(cf)?, cf.prefix())))
}

fn with_prefix(path: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(b"$prefix").or_else(|| rest.strip_prefix(b"${prefix}")) {
            Some(behind) => {
                out.extend_from_slice(prefix);
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The code of a `…_by_lua_block { … }`.
fn inline(cf: Conf) -> Result<Chunk> {
    block::read(cf).map(Chunk::Inline)
}

/// The code of a `…_by_lua_file path`.
fn file(cf: Conf) -> Result<Chunk> {
    cf.full_name(arg(cf)?).map(Chunk::File).ok_or_else(|| "no memory".into())
}

/// Reads a chunk and compiles it.
fn load(cf: Conf, main: &MainConf, read: Read) -> Result<(Chunk, Loaded)> {
    let chunk = read(cf)?;
    let loaded = main.load(&chunk).map_err(|error| not_loaded(cf, error))?;
    Ok((chunk, loaded))
}

/// Tells a syntax error with its line.
fn not_loaded(cf: Conf, error: LoadError) -> String {
    if let Some(line) = error.line {
        cf.set_line(line);
    }
    format!("failed to load \"{}\": {}", cf.directive(), error.message)
}

fn init(cf: Conf, main: &MainConf, read: Read) -> Result {
    fill(cf, &main.init, || load(cf, main, read).map(Some).map(RefCell::new))
}

fn init_worker(cf: Conf, main: &MainConf, read: Read) -> Result {
    fill(cf, &main.init_worker, || load(cf, main, read))
}

fn balancer(cf: Conf, srv: &SrvConf, read: Read) -> Result {
    let none = || format!("\"{}\" directive is not in an upstream block", cf.directive());
    let us = upstream_conf::current(cf).ok_or_else(none)?;
    let main = MainConf::of(cf).ok_or_else(none)?;

    // In nginx's own words. It matters most with a `keepalive` that stands before: its pool is
    // then under the balancer, and the peers that Lua chooses pass it by.
    if srv.balancer().is_none() && us.has_method() {
        cf.warn("load balancing method redefined");
    }
    fill(cf, &srv.balancer, || {
        let chunk = read(cf)?;
        let loaded = main.check(&chunk).map_err(|error| not_loaded(cf, error))?;
        if us.server_count() == 0 {
            us.add_placeholder(cf).ok_or("no memory")?;
        }
        Ok(Balancer::new(main, chunk, loaded))
    })?;
    if let Some(balancer) = srv.balancer() {
        balancer.install(us);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::with_prefix;

    #[test]
    fn the_prefix_is_put_in() {
        for (path, expected) in [
            ("$prefix/lua/?.lua;;", "/p/lua/?.lua;;"),
            ("${prefix}/?.lua", "/p/?.lua"),
            ("/a;$prefix;$prefi", "/a;/p;$prefi"),
        ] {
            assert_eq!(with_prefix(path.as_bytes(), b"/p"), expected.as_bytes());
        }
    }
}
