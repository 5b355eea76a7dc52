//! `ngx_conf_t`: the configuration file that is being read.

use core::ffi::{c_char, c_void, CStr};
use core::ptr::NonNull;
use core::slice;
use std::borrow::Cow;

use ngx::ffi::{
    ngx_conf_file_t, ngx_conf_log_error, ngx_conf_t, ngx_get_full_name, ngx_module_t,
    ngx_read_file, ngx_str_t, NGX_LOG_ALERT, NGX_LOG_EMERG, NGX_LOG_WARN, NGX_OK,
};

use super::bytes;
use super::log::Log;
use super::pool::Pool;

/// What a directive's handler returns when it has logged the reason itself.
pub use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};

/// The state of reading one configuration.
#[derive(Clone, Copy)]
pub struct Conf(NonNull<ngx_conf_t>);

impl Conf {
    /// # Safety
    /// `cf` is the `ngx_conf_t` that nginx passed to a configuration callback, which has not
    /// returned yet.
    pub unsafe fn from_ptr(cf: *mut ngx_conf_t) -> Option<Self> {
        NonNull::new(cf).map(Conf)
    }

    /// The raw structure, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_conf_t {
        self.0.as_ptr()
    }

    /// The pool of the cycle that is being configured.
    pub fn pool(self) -> Option<Pool> {
        // SAFETY: cf is live, and its pool lives as long as the cycle.
        unsafe { Pool::from_ptr((*self.as_ptr()).pool) }
    }

    /// Where messages about the configuration go.
    pub fn log(self) -> Option<Log> {
        // SAFETY: cf is live, and so is its log.
        unsafe { Log::from_ptr((*self.as_ptr()).log) }
    }

    /// The directive's arguments behind its name.
    pub fn args(self) -> Vec<&'static [u8]> {
        // SAFETY: cf->args holds the strings of the current directive, which are allocated from
        // the cycle's pool: they outlive the configuration.
        unsafe {
            let args = (*self.as_ptr()).args;
            (*args).as_slice::<ngx_str_t>().iter().skip(1).map(|s| bytes(*s)).collect()
        }
    }

    /// The directive's name, which is one of ours.
    pub fn directive(self) -> &'static str {
        // SAFETY: as in `args`; nginx calls no handler without the name in front.
        let name = unsafe {
            let args = (*self.as_ptr()).args;
            (*args).as_slice::<ngx_str_t>().first().map_or(&b""[..], |s| bytes(*s))
        };
        core::str::from_utf8(name).unwrap_or_default()
    }

    /// Copies `bytes` for as long as the configuration is in use; `None` without memory.
    pub fn keep(self, bytes: &[u8]) -> Option<&'static [u8]> {
        let copy = self.pool()?.copy(bytes)?;
        // SAFETY: the copy lies in the cycle's pool, as the strings of directives do.
        Some(unsafe { super::bytes(copy) })
    }

    /// All modules of nginx, built in or loaded.
    pub fn modules(self) -> impl Iterator<Item = &'static ngx_module_t> {
        // SAFETY: the cycle's table of modules ends with a null pointer, and they stay where they
        // are as long as the cycle lives.
        let mut next = unsafe { (*(*self.as_ptr()).cycle).modules };
        core::iter::from_fn(move || {
            // SAFETY: as above.
            unsafe {
                let module = (*next).as_ref()?;
                next = next.add(1);
                Some(module)
            }
        })
    }

    /// Whether nginx has a module.
    pub fn has_module(self, name: &CStr) -> bool {
        self.modules().any(|module| module_name(module) == name.to_bytes())
    }

    /// The prefix that relative paths of Lua files stand under (`-p`), without a closing slash.
    pub fn prefix(self) -> &'static [u8] {
        // SAFETY: cf and its cycle are live; the cycle's strings live in its pool.
        let prefix = unsafe { bytes((*(*self.as_ptr()).cycle).prefix) };
        prefix.strip_suffix(b"/").unwrap_or(prefix)
    }

    /// `path` made absolute against the prefix (`ngx_get_full_name`); `None` without memory.
    pub fn full_name(self, path: &[u8]) -> Option<Vec<u8>> {
        let mut name = self.pool()?.copy(path)?;
        // SAFETY: cf and its cycle are live; nginx replaces `name`'s data with pool memory.
        unsafe {
            let prefix = &raw mut (*(*self.as_ptr()).cycle).prefix;
            let pool = (*self.as_ptr()).pool;
            let rc = ngx_get_full_name(pool, prefix, &mut name);
            (rc == NGX_OK as isize).then(|| bytes(name).to_vec())
        }
    }

    fn file(self) -> Option<NonNull<ngx_conf_file_t>> {
        // SAFETY: cf is live.
        NonNull::new(unsafe { (*self.as_ptr()).conf_file })
    }

    /// The configuration file's name, relative to the folder of `nginx.conf` where it is in it.
    pub fn file_name(self) -> Cow<'static, str> {
        let Some(file) = self.file() else { return "command line".into() };
        // SAFETY: conf_file and the cycle are live while the file is read. The names lie in the
        // cycle's pool.
        let (name, folder) = unsafe {
            (bytes((*file.as_ptr()).file.name), bytes((*(*self.as_ptr()).cycle).conf_prefix))
        };
        if name.is_empty() {
            return "command line".into();
        }
        String::from_utf8_lossy(name.strip_prefix(folder).unwrap_or(name))
    }

    /// The number of the line that is being read.
    pub fn line(self) -> usize {
        // SAFETY: conf_file is live while the file is read.
        self.file().map_or(0, |f| unsafe { (*f.as_ptr()).line })
    }

    /// Sets the number of the line that is being read: what comes after is counted from there,
    /// and messages name it.
    pub fn set_line(self, line: usize) {
        if let Some(file) = self.file() {
            // SAFETY: conf_file is live while the file is read.
            unsafe { (*file.as_ptr()).line = line };
        }
    }

    /// Shows `take` what has been read of the file and not been used; it says how many bytes of
    /// that it uses, and its result. When nothing is left, the file is read on as
    /// `ngx_conf_read_token` does it, and what is read shows up in `nginx -T`.
    pub fn read<R>(self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Result<R, NoBytes> {
        let file = self.file().ok_or(NoBytes::NoFile)?.as_ptr();
        // SAFETY: conf_file and its buffer are live while the file is read, and pos..last lies in
        // the buffer, which nobody changes while `take` looks at it: nginx is waiting for us.
        unsafe {
            let buffer = (*file).buffer;
            if buffer.is_null() {
                return Err(NoBytes::NoFile);
            }
            if (*buffer).pos >= (*buffer).last {
                refill(file)?;
            }
            let len = (*buffer).last.offset_from((*buffer).pos) as usize;
            let bytes = slice::from_raw_parts((*buffer).pos, len);
            let (used, result) = take(bytes);
            let used = &bytes[..used.min(len)];
            (*buffer).pos = (*buffer).pos.add(used.len());
            (*file).line += lines(used);
            Ok(result)
        }
    }

    fn message(self, level: u32, message: &str) {
        let message = &message.as_bytes()[..message.len().min(1500)];
        // SAFETY: cf is live; "%*s" takes the length and the bytes of `message`. nginx adds the
        // file and the line by itself.
        unsafe {
            ngx_conf_log_error(
                level as usize,
                self.as_ptr(),
                0,
                c"%*s".as_ptr(),
                message.len(),
                message.as_ptr(),
            );
        }
    }

    /// Says why the configuration is refused, with file and line.
    pub fn emerg(self, message: &str) {
        self.message(NGX_LOG_EMERG, message);
    }

    /// Says what is dangerous in the configuration, with file and line.
    pub fn alert(self, message: &str) {
        self.message(NGX_LOG_ALERT, message);
    }

    /// Says what is doubtful in the configuration, with file and line.
    pub fn warn(self, message: &str) {
        self.message(NGX_LOG_WARN, message);
    }
}

/// How many lines end in `bytes`. Counted in bytes of their own, of which a processor adds up
/// sixteen at once.
fn lines(bytes: &[u8]) -> usize {
    let ends = |part: &[u8]| part.iter().map(|b| u8::from(*b == b'\n')).sum::<u8>();
    bytes.chunks(u8::MAX.into()).map(|part| usize::from(ends(part))).sum()
}

/// A time as nginx reads it (`ngx_parse_time`): `60s`, `1h`, `500ms`, in milliseconds.
pub fn milliseconds(text: &[u8]) -> Option<usize> {
    let mut text = super::str_of(text);
    // SAFETY: nginx only reads the text.
    let ms = unsafe { ngx::ffi::ngx_parse_time(&mut text, 0) };
    usize::try_from(ms).ok()
}

/// The name of a module.
pub fn module_name(module: &ngx_module_t) -> &'static [u8] {
    if module.name.is_null() {
        return b"";
    }
    // SAFETY: nginx gives each module its name, a string literal, before it reads a configuration.
    unsafe { CStr::from_ptr(module.name) }.to_bytes()
}

/// Why [`Conf::read`] has nothing to show.
pub enum NoBytes {
    /// The configuration does not come from a file (`-g`).
    NoFile,
    /// The file ends here.
    End,
    /// The file cannot be read; nginx has logged why.
    Unreadable,
}

/// Reads the next piece of the file into its buffer, and into the copy for `nginx -T`.
///
/// # Safety
/// `file` and its buffer are live, and the buffer is used up.
unsafe fn refill(file: *mut ngx_conf_file_t) -> Result<(), NoBytes> {
    // SAFETY: the caller's promise. The dump is as large as the file, so that all of it fits.
    unsafe {
        if (*file).file.fd < 0 {
            return Err(NoBytes::NoFile);
        }
        let buffer = (*file).buffer;
        let left = (*file).file.info.st_size - (*file).file.offset;
        if left <= 0 {
            return Err(NoBytes::End);
        }
        let size = (left as usize).min((*buffer).end.offset_from((*buffer).start) as usize);
        let offset = (*file).file.offset;
        let read = ngx_read_file(&raw mut (*file).file, (*buffer).start, size, offset);
        if read <= 0 {
            return Err(NoBytes::Unreadable);
        }
        (*buffer).pos = (*buffer).start;
        (*buffer).last = (*buffer).start.add(read as usize);

        let dump = (*file).dump;
        if !dump.is_null() {
            core::ptr::copy_nonoverlapping((*buffer).pos, (*dump).last, read as usize);
            (*dump).last = (*dump).last.add(read as usize);
        }
        Ok(())
    }
}

/// The type of a directive's handler, `ngx_command_t.set`.
pub type Handler = unsafe extern "C" fn(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx::ffi::ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char;
