//! The table in a zone: buckets of entries by their hash, and a list of them in the order of use.

use core::hash::Hasher;
use core::{mem, ptr, slice};

use ngx::ffi::{ngx_slab_alloc_locked, ngx_slab_free_locked, ngx_slab_pool_t, ngx_time};
use rustc_hash::FxHasher;

use super::MAX_VALUE;

/// How many bytes of a zone there are to a bucket of its table.
const BYTES_PER_BUCKET: usize = 1024;

/// The head of the zone, what `shpool->data` points to.
#[repr(C)]
pub struct Table {
    /// 1 while somebody is at it. Whoever finds it so, with the lock, comes after one that died.
    pub busy: u32,
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

/// What [`Locked`] wants to be given for a key, and for a key with its value.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = FxHasher::default();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// An empty table for a zone of `size` bytes; null when there is no room for it.
///
/// # Safety
/// `pool` is locked, and empty.
pub unsafe fn make(pool: *mut ngx_slab_pool_t, size: usize) -> *mut Table {
    // SAFETY: the caller's promise; the pool's memory is as long as was asked for.
    unsafe {
        let bucket_count = (size / BYTES_PER_BUCKET).max(16);
        let table = ngx_slab_alloc_locked(pool, mem::size_of::<Table>()).cast::<Table>();
        let length = bucket_count * mem::size_of::<*mut Entry>();
        let buckets = ngx_slab_alloc_locked(pool, length).cast::<*mut Entry>();
        if table.is_null() || buckets.is_null() {
            return ptr::null_mut();
        }
        buckets.write_bytes(0, bucket_count);
        let (first, last) = (ptr::null_mut(), ptr::null_mut());
        table.write(Table { busy: 0, buckets, bucket_count, first, last });
        table
    }
}

/// A table while its pool is locked.
pub struct Locked {
    pool: *mut ngx_slab_pool_t,
    table: *mut Table,
}

impl Locked {
    /// # Safety
    /// `table` was [made](make) in `pool`, which stays locked as long as this is there. Pointers in
    /// it lead to entries of the same pool.
    #[inline]
    pub unsafe fn new(pool: *mut ngx_slab_pool_t, table: *mut Table) -> Self {
        Locked { pool, table }
    }

    /// Puts the value of `key` behind what `value` has; the entry is then the one used last.
    /// `value` has room for `MAX_VALUE` bytes.
    pub fn get(&mut self, hash: u64, key: &[u8], value: &mut Vec<u8>) -> Result<(), Miss> {
        let entry = self.find(hash, key);
        if entry.is_null() {
            return Err(Miss::None);
        }
        // SAFETY: `find` gives entries that are linked. What is read lies in the zone.
        unsafe {
            let value_len = (*entry).value_len as usize;
            let is_whole = value_len <= MAX_VALUE && self.reaches(entry, key.len() + value_len);
            let bytes = if is_whole { value_of(entry) } else { &[] };
            if !is_whole || (*entry).check != self::hash(&[key, bytes]) {
                self.remove(entry);
                return Err(Miss::Damaged);
            }
            if (*entry).expires <= ngx_time() {
                self.remove(entry);
                return Err(Miss::None);
            }
            value.extend_from_slice(bytes);
            self.unlink(entry);
            self.push_front(entry);
        }
        Ok(())
    }

    /// Keeps a value instead of what `key` had. The least recently used ones leave while they have
    /// expired, and to make room; false when there is none for it.
    pub fn put(&mut self, hash: u64, key: &[u8], value: &[u8], check: u64, expires: i64) -> bool {
        self.forget(hash, key);
        let size = mem::size_of::<Entry>() + key.len() + value.len();
        // SAFETY: the pool is locked, and the last entry is linked; a fresh one is written whole
        // before it is linked.
        unsafe {
            while let Some(last) = (*self.table).last.as_mut() {
                if last.expires > ngx_time() {
                    break;
                }
                self.remove(last);
            }
            let mut entry = ngx_slab_alloc_locked(self.pool, size).cast::<Entry>();
            while entry.is_null() && !(*self.table).last.is_null() {
                self.remove((*self.table).last);
                entry = ngx_slab_alloc_locked(self.pool, size).cast();
            }
            if entry.is_null() {
                return false;
            }
            let bucket = self.bucket(hash);
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
            self.push_front(entry);
        }
        true
    }

    /// Forgets the value of `key`.
    pub fn forget(&mut self, hash: u64, key: &[u8]) {
        let entry = self.find(hash, key);
        if !entry.is_null() {
            // SAFETY: `find` gives entries that are linked.
            unsafe { self.remove(entry) }
        }
    }

    fn bucket(&self, hash: u64) -> *mut *mut Entry {
        // SAFETY: the number is below the count.
        unsafe { (*self.table).buckets.add(hash as usize % (*self.table).bucket_count) }
    }

    /// Whether the zone reaches as far as `len` bytes behind the entry: what an entry says of its
    /// lengths may be damaged.
    fn reaches(&self, entry: *mut Entry, len: usize) -> bool {
        // SAFETY: the pool is live.
        let end = unsafe { (*self.pool).end };
        entry.wrapping_add(1) as usize + len <= end as usize
    }

    /// The entry of `key`, or null.
    fn find(&self, hash: u64, key: &[u8]) -> *mut Entry {
        // SAFETY: a bucket's entries are linked until null. A key is looked at when it lies in the
        // zone.
        unsafe {
            let mut entry = *self.bucket(hash);
            while !entry.is_null() {
                let may_be = (*entry).hash == hash && (*entry).key_len as usize == key.len();
                if may_be && self.reaches(entry, key.len()) && key_of(entry) == key {
                    return entry;
                }
                entry = (*entry).next;
            }
        }
        ptr::null_mut()
    }

    /// # Safety
    /// `entry` is linked in this table.
    unsafe fn remove(&mut self, entry: *mut Entry) {
        // SAFETY: the caller's promise. nginx keeps the slab's own lists.
        unsafe {
            // With a damaged hash it stands in another bucket, and must not be left there.
            if !leave_bucket(self.bucket((*entry).hash), entry) {
                let (buckets, count) = ((*self.table).buckets, (*self.table).bucket_count);
                let _ = (0..count).any(|n| leave_bucket(buckets.add(n), entry));
            }
            self.unlink(entry);
            ngx_slab_free_locked(self.pool, entry.cast());
        }
    }

    /// # Safety
    /// `entry` is in the list of this table.
    unsafe fn unlink(&mut self, entry: *mut Entry) {
        // SAFETY: the caller's promise.
        unsafe {
            let (before, after) = ((*entry).before, (*entry).after);
            if before.is_null() {
                (*self.table).first = after;
            } else {
                (*before).after = after;
            }
            if after.is_null() {
                (*self.table).last = before;
            } else {
                (*after).before = before;
            }
        }
    }

    /// # Safety
    /// `entry` is in memory of the pool, and not in the list.
    unsafe fn push_front(&mut self, entry: *mut Entry) {
        // SAFETY: the caller's promise.
        unsafe {
            let first = (*self.table).first;
            (*entry).before = ptr::null_mut();
            (*entry).after = first;
            if first.is_null() {
                (*self.table).last = entry;
            } else {
                (*first).before = entry;
            }
            (*self.table).first = entry;
        }
    }
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
