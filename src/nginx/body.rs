//! The request's body (`r->request_body`), as it is buffered for the peer.

use core::ptr;

use ngx::ffi::{
    ngx_alloc_chain_link, ngx_buf_t, ngx_create_temp_buf, ngx_http_request_body_t, ngx_pcalloc,
};

use super::headers::{self, NoMemory};
use super::request::Request;

/// The body, when it is in memory; `None` without one, or when it is in a file.
pub fn data(request: Request) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    // SAFETY: the request is live, and so are the buffers of its body.
    unsafe {
        let mut link = (*request.as_ptr()).request_body.as_ref()?.bufs;
        if link.is_null() {
            return None;
        }
        while let Some(chain) = link.as_ref() {
            let buf: &ngx_buf_t = chain.buf.as_ref()?;
            if buf.in_file() != 0 {
                return None;
            }
            let len = buf.last.offset_from(buf.pos) as usize;
            data.extend_from_slice(super::bytes(ngx::ffi::ngx_str_t { len, data: buf.pos }));
            link = chain.next;
        }
    }
    Some(data)
}

/// Replaces the body, and its length in the headers. A subrequest's body is its own from then on.
pub fn set(request: Request, data: &[u8]) -> Result<(), NoMemory> {
    let pool = request.pool().ok_or(NoMemory)?.as_ptr();
    // SAFETY: the pool is live, and all that is made here is written whole before nginx sees it.
    let body = unsafe {
        let body: *mut ngx_http_request_body_t =
            ngx_pcalloc(pool, size_of::<ngx_http_request_body_t>()).cast();
        let buf = ngx_create_temp_buf(pool, data.len().max(1));
        let link = ngx_alloc_chain_link(pool);
        if body.is_null() || buf.is_null() || link.is_null() {
            return Err(NoMemory);
        }
        ptr::copy_nonoverlapping(data.as_ptr(), (*buf).pos, data.len());
        (*buf).last = (*buf).pos.add(data.len());
        (*buf).set_last_buf(1);
        (*link).buf = buf;
        (*link).next = ptr::null_mut();
        // An empty buffer would be taken for a mistake on its way out.
        (*body).bufs = if data.is_empty() { ptr::null_mut() } else { link };
        body
    };

    headers::replace(request, b"Transfer-Encoding", &[])?;
    headers::replace(request, b"Content-Length", &[data.len().to_string().as_bytes()])?;
    // SAFETY: the request is live; the old body's memory stays with the pool, since a try that
    // has ended may still point to it.
    unsafe {
        (*request.as_ptr()).request_body = body;
        (*request.as_ptr()).headers_in.set_chunked(0);
    }
    Ok(())
}
