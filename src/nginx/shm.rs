//! `ngx_shm_zone_t`: a cache of byte strings that all workers share.
//!
//! A [table] in memory of nginx's slab pool. The zone is mapped at the same address in every process,
//! and a reload hands it on, so that pointers into it hold. All is done under the pool's lock; values
//! are copied out before it is let go. A worker that is killed in between may leave anything: what is
//! read is checked, and where one was about to change something the next one starts the zone afresh.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{compiler_fence, Ordering};

use ngx::ffi::{
    ngx_int_t, ngx_shared_memory_add, ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_unlock,
    ngx_slab_init, ngx_slab_pool_t, NGX_ERROR, NGX_OK,
};

use super::conf::Conf;
use super::log::Log;
use super::str_of;
use crate::log::log;

mod table;

pub use table::Miss;
use table::{Locked, Table};

/// The largest value that is kept, in bytes.
pub const MAX_VALUE: usize = 16 * 1024;

/// The smallest zone that is of any use, in bytes.
pub const MIN_SIZE: usize = 8 * 4096;

/// A cache in shared memory.
#[derive(Clone, Copy)]
pub struct SharedCache(NonNull<ngx_shm_zone_t>);

impl SharedCache {
    /// The zone `name` of `size` bytes, shared with whoever else asks for it; `None` when nginx
    /// refuses, for a reason that it has logged.
    pub fn add(cf: Conf, name: &[u8], size: usize) -> Option<Self> {
        let mut name = cf.pool()?.copy(name)?;
        let tag = ptr::from_ref(crate::module()).cast_mut().cast::<c_void>();
        // SAFETY: cf is live, and the name lives as long as the cycle.
        let zone = unsafe { ngx_shared_memory_add(cf.as_ptr(), &mut name, size, tag) };
        let zone = NonNull::new(zone)?;
        // SAFETY: the zone belongs to the cycle.
        unsafe {
            (*zone.as_ptr()).init = Some(init);
            // Not null, or nginx takes the zone for one that nobody uses.
            (*zone.as_ptr()).data = tag;
        }
        Some(SharedCache(zone))
    }

    /// Runs `body` with the pool locked.
    fn locked<R>(self, body: impl FnOnce(&mut Locked) -> R) -> Option<R> {
        // SAFETY: the zone is mapped from the cycle's start to its end, and starts with its pool.
        unsafe {
            let (pool, size) = zone_of(self.0.as_ptr());
            if pool.is_null() || (*pool).data.is_null() {
                return None;
            }
            ngx_shmtx_lock(&raw mut (*pool).mutex);
            let left_busy = {
                let table = (*pool).data.cast::<Table>();
                !table.is_null() && ptr::read_volatile(&raw const (*table).busy) != 0
            };
            if left_busy {
                start_afresh(pool, size);
            }
            let table = (*pool).data.cast::<Table>();
            let result = (!table.is_null()).then(|| {
                // In this order for who is killed; another process looks only with the lock.
                ptr::write_volatile(&raw mut (*table).busy, 1);
                compiler_fence(Ordering::SeqCst);
                let result = body(&mut Locked::new(pool, table));
                compiler_fence(Ordering::SeqCst);
                ptr::write_volatile(&raw mut (*table).busy, 0);
                result
            });
            ngx_shmtx_unlock(&raw mut (*pool).mutex);
            if let (true, Some(log)) = (left_busy, Log::cycle()) {
                log!(
                    log,
                    NGX_LOG_WARN,
                    "lua balancer: a worker died in a shared cache, which starts afresh"
                );
            }
            result
        }
    }

    /// The value of `key`, which is then the one used last.
    pub fn get(self, key: &[u8]) -> Result<Vec<u8>, Miss> {
        // Before the lock: nothing may fail for want of memory while it is held.
        let mut value = Vec::new();
        if value.try_reserve_exact(MAX_VALUE).is_err() {
            return Err(Miss::None);
        }
        let hash = table::hash(&[key]);
        let found = self.locked(|table| table.get(hash, key, &mut value));
        found.unwrap_or(Err(Miss::None)).map(|()| value)
    }

    /// Keeps a value until `expires` (seconds since the epoch) instead of what `key` had; the
    /// least recently used ones make room. False when there is none for it.
    pub fn put(self, key: &[u8], value: &[u8], expires: i64) -> bool {
        if value.len() > MAX_VALUE || key.len() > MAX_VALUE {
            return false;
        }
        let (hash, check) = (table::hash(&[key]), table::hash(&[key, value]));
        self.locked(|table| table.put(hash, key, value, check, expires)).unwrap_or(false)
    }

    /// Forgets the value of `key`.
    pub fn remove(self, key: &[u8]) {
        let hash = table::hash(&[key]);
        self.locked(|table| table.forget(hash, key));
    }
}

/// The slab pool that a zone starts with, and the zone's size in bytes.
///
/// # Safety
/// `zone` is live.
unsafe fn zone_of(zone: *mut ngx_shm_zone_t) -> (*mut ngx_slab_pool_t, usize) {
    // SAFETY: the caller's promise.
    unsafe { ((*zone).shm.addr.cast(), (*zone).shm.size) }
}

/// Forgets all that is in the zone, whatever state it is in.
///
/// # Safety
/// `pool` is locked, and nginx has set it up with `size` bytes.
#[cold]
unsafe fn start_afresh(pool: *mut ngx_slab_pool_t, size: usize) {
    // SAFETY: the caller's promise. ngx_slab_init() makes the pool anew between the ends that it
    // has, and does not touch its lock.
    unsafe {
        (*pool).data = ptr::null_mut();
        ngx_slab_init(pool);
        set_up(pool, size);
    }
}

/// Puts an empty table into an empty pool; false when there is no room for it.
///
/// # Safety
/// `pool` is locked, and has `size` bytes.
unsafe fn set_up(pool: *mut ngx_slab_pool_t, size: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        // A full zone is no event: the least recently used entries leave.
        (*pool).set_log_nomem(0);
        let table = table::make(pool, size);
        (*pool).data = table.cast();
        !table.is_null()
    }
}

/// Sets a zone up, or takes over the one of the configuration before (`ngx_shm_zone_init_pt`).
unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, _old: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx calls it with the zone mapped and its pool set up, before any worker of this
    // configuration starts. Workers of the one before may use the zone: it is not touched then.
    unsafe {
        let (pool, size) = zone_of(zone);
        if !(*pool).data.is_null() {
            return NGX_OK as ngx_int_t;
        }
        let lock = &raw mut (*pool).mutex;
        ngx_shmtx_lock(lock);
        let made = set_up(pool, size);
        ngx_shmtx_unlock(lock);
        if made {
            NGX_OK as ngx_int_t
        } else {
            NGX_ERROR as ngx_int_t
        }
    }
}

/// The size of a zone as nginx reads it (`ngx_parse_size`): `1m`, `512k`, in bytes.
pub fn parse_size(text: &[u8]) -> Option<usize> {
    let mut text = str_of(text);
    // SAFETY: nginx only reads the text.
    usize::try_from(unsafe { ngx::ffi::ngx_parse_size(&mut text) }).ok()
}
