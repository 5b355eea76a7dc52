//! `ngx_shm_zone_t`: a cache of byte strings that all workers share.
//!
//! A hash table with a list in the order of use, in memory of nginx's slab pool. The zone is
//! mapped at the same address in every process, and a reload hands it on, so that pointers into it
//! hold. All is done under the pool's lock; values are copied out before it is let go. A worker
//! that is killed in between may leave anything: what is read is checked, and where one was about to
//! change something the next one starts the zone afresh.

use core::ffi::c_void;
use core::hash::Hasher;
use core::mem;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{compiler_fence, Ordering};

use ngx::ffi::{
    ngx_int_t, ngx_shared_memory_add, ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_unlock,
    ngx_slab_alloc_locked, ngx_slab_free_locked, ngx_slab_init, ngx_slab_pool_t, ngx_time,
    NGX_ERROR, NGX_OK,
};
use rustc_hash::FxHasher;

use super::conf::Conf;
use super::log::Log;
use super::str_of;
use crate::log::log;

/// The largest value that is kept, in bytes.
pub const MAX_VALUE: usize = 16 * 1024;

/// The smallest zone that is of any use, in bytes.
pub const MIN_SIZE: usize = 8 * 4096;

/// How many bytes of a zone there are to a bucket of its table.
const BYTES_PER_BUCKET: usize = 1024;

/// A cache in shared memory.
#[derive(Clone, Copy)]
pub struct SharedCache(NonNull<ngx_shm_zone_t>);

/// The head of the zone, what `shpool->data` points to.
#[repr(C)]
struct Table {
    /// 1 while somebody is at it. Whoever finds it so, with the lock, comes after one that died.
    busy: u32,
    buckets: *mut *mut Entry,
    bucket_count: usize,
    /// All entries, the one used last in front.
    first: *mut Entry,
    last: *mut Entry,
}

#[repr(C)]
struct Entry {
    /// The next one in the bucket.
    next: *mut Entry,
    before: *mut Entry,
    after: *mut Entry,
    hash: u64,
    /// A checksum of key and value.
    check: u64,
    /// Seconds since the epoch.
    expires: i64,
    key_len: u32,
    value_len: u32,
    // key and value follow
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing is kept under the key.
    None,
    /// Something is, but it is damaged: it is forgotten.
    Damaged,
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FxHasher::default();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

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
    fn locked<R>(self, body: impl FnOnce(*mut ngx_slab_pool_t, *mut Table) -> R) -> Option<R> {
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
                let result = body(pool, table);
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
        let hash = hash(&[key]);
        // Before the lock: nothing may fail for want of memory while it is held.
        let mut value = Vec::new();
        if value.try_reserve_exact(MAX_VALUE).is_err() {
            return Err(Miss::None);
        }
        // SAFETY: see `locked`; pointers in the table lead to entries of the same pool.
        let found = self.locked(|pool, table| unsafe {
            let entry = find(pool, table, hash, key);
            if entry.is_null() {
                return Err(Miss::None);
            }
            let value_len = (*entry).value_len as usize;
            let is_whole = value_len <= MAX_VALUE && reaches(pool, entry, key.len() + value_len);
            let bytes = if is_whole { value_of(entry) } else { &[] };
            if !is_whole || (*entry).check != self::hash(&[key, bytes]) {
                remove(pool, table, entry);
                return Err(Miss::Damaged);
            }
            if (*entry).expires <= ngx_time() {
                remove(pool, table, entry);
                return Err(Miss::None);
            }
            value.extend_from_slice(bytes);
            unlink(table, entry);
            push_front(table, entry);
            Ok(())
        });
        found.unwrap_or(Err(Miss::None)).map(|()| value)
    }

    /// Keeps a value until `expires` (seconds since the epoch) instead of what `key` had; the
    /// least recently used ones make room. False when there is none for it.
    pub fn put(self, key: &[u8], value: &[u8], expires: i64) -> bool {
        let size = mem::size_of::<Entry>() + key.len() + value.len();
        if value.len() > MAX_VALUE || key.len() > MAX_VALUE {
            return false;
        }
        let (hash, check) = (hash(&[key]), hash(&[key, value]));
        // SAFETY: as in `get`; a fresh entry is written whole before it is linked.
        self.locked(|pool, table| unsafe {
            let old = find(pool, table, hash, key);
            if !old.is_null() {
                remove(pool, table, old);
            }
            let mut entry = ngx_slab_alloc_locked(pool, size).cast::<Entry>();
            while entry.is_null() && !(*table).last.is_null() {
                remove(pool, table, (*table).last);
                entry = ngx_slab_alloc_locked(pool, size).cast();
            }
            if entry.is_null() {
                return false;
            }
            let bucket = bucket(table, hash);
            entry.write(Entry {
                next: *bucket,
                before: ptr::null_mut(),
                after: ptr::null_mut(),
                hash,
                check,
                expires,
                key_len: key.len() as u32,
                value_len: value.len() as u32,
            });
            let bytes = entry.add(1).cast::<u8>();
            ptr::copy_nonoverlapping(key.as_ptr(), bytes, key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), bytes.add(key.len()), value.len());
            *bucket = entry;
            push_front(table, entry);
            true
        })
        .unwrap_or(false)
    }

    /// Forgets the value of `key`.
    pub fn remove(self, key: &[u8]) {
        let hash = hash(&[key]);
        // SAFETY: as in `get`.
        self.locked(|pool, table| unsafe {
            let entry = find(pool, table, hash, key);
            if !entry.is_null() {
                remove(pool, table, entry);
            }
        });
    }
}

/// # Safety
/// `table` is locked.
unsafe fn bucket(table: *mut Table, hash: u64) -> *mut *mut Entry {
    // SAFETY: the number is below the count.
    unsafe { (*table).buckets.add(hash as usize % (*table).bucket_count) }
}

/// Whether the zone reaches as far as `len` bytes behind the entry: what an entry says of its lengths
/// may be damaged.
///
/// # Safety
/// `pool` is live.
unsafe fn reaches(pool: *mut ngx_slab_pool_t, entry: *mut Entry, len: usize) -> bool {
    // SAFETY: the caller's promise.
    let end = unsafe { (*pool).end };
    entry.wrapping_add(1) as usize + len <= end as usize
}

/// # Safety
/// `entry` is linked in a locked table, and as long as it says.
unsafe fn key_of<'a>(entry: *mut Entry) -> &'a [u8] {
    // SAFETY: the key follows the entry.
    unsafe { slice::from_raw_parts(entry.add(1).cast(), (*entry).key_len as usize) }
}

/// # Safety
/// `entry` is linked in a locked table, and as long as it says.
unsafe fn value_of<'a>(entry: *mut Entry) -> &'a [u8] {
    // SAFETY: the value follows the key.
    unsafe {
        let start = entry.add(1).cast::<u8>().add((*entry).key_len as usize);
        slice::from_raw_parts(start, (*entry).value_len as usize)
    }
}

/// # Safety
/// The `table` of `pool` is locked.
unsafe fn find(pool: *mut ngx_slab_pool_t, table: *mut Table, hash: u64, key: &[u8]) -> *mut Entry {
    // SAFETY: a bucket's entries are linked until null. A key is looked at when it lies in the zone.
    unsafe {
        let mut entry = *bucket(table, hash);
        while !entry.is_null() {
            let may_be = (*entry).hash == hash && (*entry).key_len as usize == key.len();
            if may_be && reaches(pool, entry, key.len()) && key_of(entry) == key {
                return entry;
            }
            entry = (*entry).next;
        }
        ptr::null_mut()
    }
}

/// # Safety
/// `entry` is linked in the locked `table` of `pool`.
unsafe fn remove(pool: *mut ngx_slab_pool_t, table: *mut Table, entry: *mut Entry) {
    // SAFETY: the caller's promise. nginx keeps the slab's own lists.
    unsafe {
        // With a damaged hash it stands in another bucket, and must not be left there.
        if !leave_bucket(bucket(table, (*entry).hash), entry) {
            let _ =
                (0..(*table).bucket_count).any(|n| leave_bucket((*table).buckets.add(n), entry));
        }
        unlink(table, entry);
        ngx_slab_free_locked(pool, entry.cast());
    }
}

/// Takes `entry` out of the bucket; false when it is not there.
///
/// # Safety
/// `link` is a bucket of a locked table.
unsafe fn leave_bucket(mut link: *mut *mut Entry, entry: *mut Entry) -> bool {
    // SAFETY: a bucket's entries are linked until null.
    unsafe {
        while !(*link).is_null() && *link != entry {
            link = &raw mut (**link).next;
        }
        let found = *link == entry;
        if found {
            *link = (*entry).next;
        }
        found
    }
}

/// # Safety
/// `entry` is linked in the locked `table`.
unsafe fn unlink(table: *mut Table, entry: *mut Entry) {
    // SAFETY: the caller's promise.
    unsafe {
        let (before, after) = ((*entry).before, (*entry).after);
        if before.is_null() {
            (*table).first = after;
        } else {
            (*before).after = after;
        }
        if after.is_null() {
            (*table).last = before;
        } else {
            (*after).before = before;
        }
    }
}

/// # Safety
/// `entry` is not linked, and `table` is locked.
unsafe fn push_front(table: *mut Table, entry: *mut Entry) {
    // SAFETY: the caller's promise.
    unsafe {
        let first = (*table).first;
        (*entry).before = ptr::null_mut();
        (*entry).after = first;
        if first.is_null() {
            (*table).last = entry;
        } else {
            (*first).before = entry;
        }
        (*table).first = entry;
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
        make_table(pool, size);
    }
}

/// Puts an empty table into an empty pool; false when there is no room for it.
///
/// # Safety
/// `pool` is locked, and has `size` bytes.
unsafe fn make_table(pool: *mut ngx_slab_pool_t, size: usize) -> bool {
    // SAFETY: the caller's promise; the pool's memory is as long as was asked for.
    unsafe {
        // A full zone is no event: the least recently used entries leave.
        (*pool).set_log_nomem(0);

        let bucket_count = (size / BYTES_PER_BUCKET).max(16);
        let table = ngx_slab_alloc_locked(pool, mem::size_of::<Table>()).cast::<Table>();
        let length = bucket_count * mem::size_of::<*mut Entry>();
        let buckets = ngx_slab_alloc_locked(pool, length).cast::<*mut Entry>();
        if table.is_null() || buckets.is_null() {
            return false;
        }
        buckets.write_bytes(0, bucket_count);
        let (first, last) = (ptr::null_mut(), ptr::null_mut());
        table.write(Table { busy: 0, buckets, bucket_count, first, last });
        (*pool).data = table.cast();
        true
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
        let made = make_table(pool, size);
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

#[cfg(test)]
mod tests {
    use core::{mem, ptr};

    use super::{leave_bucket, Entry};

    #[test]
    fn an_entry_leaves_the_bucket_that_it_is_in() {
        // SAFETY: an entry is numbers and pointers.
        let mut entries: [Entry; 3] = unsafe { mem::zeroed() };
        let [a, b, c] = entries.each_mut().map(ptr::from_mut);
        // SAFETY: all of them live as long as the test, and end with null.
        unsafe {
            (*a).next = b;
            let (mut first, mut second) = (a, c);
            assert!(!leave_bucket(&mut second, b));
            assert!(leave_bucket(&mut first, b));
            assert_eq!((first, (*a).next, second), (a, ptr::null_mut(), c));
            assert!(leave_bucket(&mut first, a) && leave_bucket(&mut second, c));
            assert!(first.is_null() && second.is_null() && !leave_bucket(&mut first, a));
        }
    }
}
