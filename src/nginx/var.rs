//! Variables of a request (`ngx_http_get_variable` and the variables' hash).

use core::ptr::NonNull;

use ngx::ffi::{
    ngx_hash_find, ngx_hash_strlow, ngx_http_core_main_conf_t, ngx_http_get_variable,
    ngx_http_variable_t, ngx_http_variable_value_t, NGX_HTTP_VAR_CHANGEABLE, NGX_HTTP_VAR_INDEXED,
};
use ngx::http::{HttpModuleMainConf, NgxHttpCoreModule};

use super::request::Request;
use super::{bytes, str_of};

/// Why a variable cannot be written.
pub enum SetError {
    /// There is no such variable, or it only exists for reading (`$http_…`, `$arg_…`).
    NotFound,
    /// It cannot be changed.
    NotChangeable,
    /// There is no memory left.
    NoMemory,
}

/// The lower-case name and its hash.
fn key(request: Request, name: &[u8]) -> Option<(&'static [u8], usize)> {
    let copy = request.pool()?.copy(name)?;
    // SAFETY: source and target have the name's length.
    let hash = unsafe { ngx_hash_strlow(copy.data, name.as_ptr().cast_mut(), name.len()) };
    // SAFETY: the copy lives as long as the request; callers do not keep it longer.
    Some((unsafe { bytes(copy) }, hash))
}

/// The value of `$name`; `None` when there is none. It lives as long as the request.
pub fn get(request: Request, name: &[u8]) -> Option<&'static [u8]> {
    let (lower, hash) = key(request, name)?;
    let mut name = str_of(lower);
    // SAFETY: the request is live; nginx only reads the name.
    let value = unsafe { ngx_http_get_variable(request.as_ptr(), &mut name, hash).as_ref() }?;
    (value.not_found() == 0 && value.valid() != 0).then(|| value.as_bytes())
}

/// What the regular expression of a location or a rewrite captured: `$0` … `$9`.
#[cfg(ngx_feature = "pcre")]
pub fn capture(request: Request, n: usize) -> Option<&'static [u8]> {
    // SAFETY: the request is live. `captures` holds pairs of offsets into `captures_data`, and
    // `ncaptures` counts their numbers.
    unsafe {
        let r = request.as_ptr();
        if (*r).captures.is_null() || (*r).captures_data.is_null() {
            return None;
        }
        if n * 2 + 1 >= (*r).ncaptures {
            return None;
        }
        let from = *(*r).captures.add(n * 2);
        let to = *(*r).captures.add(n * 2 + 1);
        if from < 0 || to < from {
            return None;
        }
        let data = (*r).captures_data.add(from as usize);
        Some(core::slice::from_raw_parts(data, (to - from) as usize))
    }
}

/// Without regular expressions nothing is captured.
#[cfg(not(ngx_feature = "pcre"))]
pub fn capture(_: Request, _: usize) -> Option<&'static [u8]> {
    None
}

/// Gives `$name` a value, or none.
pub fn set(request: Request, name: &[u8], value: Option<&[u8]>) -> Result<(), SetError> {
    let (lower, hash) = key(request, name).ok_or(SetError::NoMemory)?;
    let variable = find(request, lower, hash).ok_or(SetError::NotFound)?.as_ptr();
    let pool = request.pool().ok_or(SetError::NoMemory)?;

    // SAFETY: the variable belongs to the running configuration, and r->variables has a place for
    // each indexed one. `data` is memory of the request.
    unsafe {
        if (*variable).flags & NGX_HTTP_VAR_CHANGEABLE as usize == 0 {
            return Err(SetError::NotChangeable);
        }

        // $args is a part of the request line, where a space or a line break would end it.
        let escaped = value.filter(|_| lower == b"args").map(super::headers::escape_args);
        let value = escaped.as_deref().or(value);
        let data = match value {
            Some(value) => Some(pool.copy(value).ok_or(SetError::NoMemory)?),
            None => None,
        };
        let write = |slot: *mut ngx_http_variable_value_t| {
            slot.write_bytes(0, 1);
            match data {
                Some(data) => {
                    (*slot).set_len(data.len as u32);
                    (*slot).set_valid(1);
                    (*slot).data = data.data;
                }
                None => (*slot).set_not_found(1),
            }
        };

        if let Some(set_handler) = (*variable).set_handler {
            let slot =
                pool.alloc::<ngx_http_variable_value_t>().ok_or(SetError::NoMemory)?.as_ptr();
            let slot = slot.cast::<ngx_http_variable_value_t>();
            write(slot);
            set_handler(request.as_ptr(), slot, (*variable).data);
            return Ok(());
        }
        if (*variable).flags & NGX_HTTP_VAR_INDEXED as usize != 0 {
            write((*request.as_ptr()).variables.add((*variable).index));
            return Ok(());
        }
    }
    Err(SetError::NotChangeable)
}

/// Values of variables that hold what ends a line, or a text in C: as they are, and blotted out.
pub struct Broken(Vec<(NonNull<ngx_http_variable_value_t>, *mut u8, *mut u8)>);

impl Broken {
    /// Those that a request has now; `None` when there are none, or no memory.
    pub fn of(request: Request) -> Option<Self> {
        let pool = request.pool()?;
        let mut broken = Vec::new();
        // SAFETY: the request is live, and r->variables has a place for each indexed variable.
        unsafe {
            let main = NgxHttpCoreModule::main_conf(&*request.as_ptr())?;
            for n in 0..main.variables.nelts {
                let slot = NonNull::new((*request.as_ptr()).variables.add(n))?;
                let value = slot.as_ref();
                if value.valid() == 0 || value.not_found() != 0 {
                    continue;
                }
                let text = value.as_bytes();
                if text.iter().any(|byte| b"\r\n\0".contains(byte)) {
                    let blot = |byte: &u8| if b"\r\n\0".contains(byte) { b'_' } else { *byte };
                    let blotted: Vec<u8> = text.iter().map(blot).collect();
                    broken.push((slot, value.data, pool.copy(&blotted)?.data));
                }
            }
        }
        (!broken.is_empty()).then_some(Broken(broken))
    }

    /// Blots the bytes out, or puts them back.
    pub fn blot(&self, out: bool) {
        for (slot, data, blotted) in &self.0 {
            // SAFETY: both texts have the value's length and live as long as the request.
            unsafe { (*slot.as_ptr()).data = if out { *blotted } else { *data } };
        }
    }
}

/// Forgets the values that nginx has kept of some variables, since what they show has changed.
pub fn forget(request: Request, changed: impl Fn(&[u8]) -> bool) {
    // SAFETY: the request is live, and r->variables has a place for each indexed variable.
    unsafe {
        let Some(main) = NgxHttpCoreModule::main_conf(&*request.as_ptr()) else { return };
        for (n, variable) in main.variables.as_slice::<ngx_http_variable_t>().iter().enumerate() {
            if variable.get_handler.is_some() && changed(bytes(variable.name)) {
                let value = (*request.as_ptr()).variables.add(n);
                (*value).set_valid(0);
                (*value).set_not_found(0);
            }
        }
    }
}

fn find(request: Request, lower: &[u8], hash: usize) -> Option<NonNull<ngx_http_variable_t>> {
    // SAFETY: the request is live.
    let main: &ngx_http_core_main_conf_t =
        NgxHttpCoreModule::main_conf(unsafe { &*request.as_ptr() })?;
    let table = core::ptr::from_ref(&main.variables_hash).cast_mut();
    // SAFETY: nginx only reads the table and the name.
    let found = unsafe { ngx_hash_find(table, hash, lower.as_ptr().cast_mut(), lower.len()) };
    NonNull::new(found.cast())
}
