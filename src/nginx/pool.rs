//! `ngx_pool_t`: memory that lives as long as a configuration cycle or a request.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use ngx::ffi::{
    ngx_palloc, ngx_pnalloc, ngx_pool_cleanup_add, ngx_pool_cleanup_t, ngx_pool_t, ngx_str_t,
};

/// A pool of nginx.
#[derive(Clone, Copy)]
pub struct Pool(NonNull<ngx_pool_t>);

impl Pool {
    /// # Safety
    /// `pool` is a live pool and outlives every use of the handle.
    pub unsafe fn from_ptr(pool: *mut ngx_pool_t) -> Option<Self> {
        NonNull::new(pool).map(Pool)
    }

    /// The raw pool, for a call into nginx.
    pub fn as_ptr(self) -> *mut ngx_pool_t {
        self.0.as_ptr()
    }

    /// Memory for one `T`, not yet written; `None` when there is none left.
    pub fn alloc<T>(self) -> Option<NonNull<MaybeUninit<T>>> {
        const { assert!(align_of::<T>() <= ngx::ffi::NGX_ALIGNMENT) };
        // SAFETY: the pool is live; the assertion above rules out an alignment that ngx_palloc
        // does not give.
        NonNull::new(unsafe { ngx_palloc(self.as_ptr(), size_of::<T>()) }.cast())
    }

    /// Moves `value` into the pool; `None` without memory. It lives as long as the pool: `'a` must
    /// not be longer.
    pub fn place<'a, T>(self, value: T) -> Option<&'a T> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        let mut memory = self.alloc::<T>()?;
        // SAFETY: fresh memory, which nobody else knows yet.
        Some(unsafe { memory.as_mut() }.write(value))
    }

    /// Moves `values` into the pool, where they are never dropped; `None` without memory. They
    /// live as long as the pool: `'a` must not be longer.
    pub fn alloc_slice<'a, T: Copy>(self, values: &[T]) -> Option<&'a [T]> {
        const { assert!(align_of::<T>() <= ngx::ffi::NGX_ALIGNMENT) };
        // SAFETY: as in `alloc`; the memory has the size of all values, which are written before
        // the slice is made.
        unsafe {
            let memory: *mut T = ngx_palloc(self.as_ptr(), size_of_val(values)).cast();
            let memory = NonNull::new(memory)?.as_ptr();
            ptr::copy_nonoverlapping(values.as_ptr(), memory, values.len());
            Some(core::slice::from_raw_parts(memory, values.len()))
        }
    }

    /// Copies `bytes` into the pool; `None` when there is no memory left.
    pub fn copy(self, bytes: &[u8]) -> Option<ngx_str_t> {
        // SAFETY: the pool is live.
        let data = unsafe { ngx_pnalloc(self.as_ptr(), bytes.len().max(1)) }.cast::<u8>();
        if data.is_null() {
            return None;
        }
        // SAFETY: `data` is fresh memory of at least this length.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
        Some(ngx_str_t { len: bytes.len(), data })
    }

    /// What is to be done when the pool is destroyed, nothing so far; `None` without memory.
    #[inline]
    pub(super) fn cleanup(self) -> Option<NonNull<ngx_pool_cleanup_t>> {
        // SAFETY: the pool is live.
        NonNull::new(unsafe { ngx_pool_cleanup_add(self.as_ptr(), 0) })
    }

    /// Moves `value` to the heap and drops it with the pool; `None` when there is no memory left.
    pub fn own<T>(self, value: T) -> Option<NonNull<T>> {
        // The cleanup first: a value without one would leak.
        let cleanup = self.cleanup()?;
        let value = NonNull::from(Box::leak(Box::new(value)));
        // SAFETY: the cleanup is fresh and nobody else knows it yet.
        unsafe {
            (*cleanup.as_ptr()).data = value.as_ptr().cast();
            (*cleanup.as_ptr()).handler = Some(drop_boxed::<T>);
        }
        Some(value)
    }
}

/// Runs when the pool is destroyed.
unsafe extern "C" fn drop_boxed<T>(data: *mut c_void) {
    // SAFETY: `data` is the box that `Pool::own` leaked; nginx runs a cleanup once.
    crate::guard::quiet(|| drop(unsafe { Box::from_raw(data.cast::<T>()) }));
}
