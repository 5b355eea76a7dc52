//! Room on the C stack for Lua code that recurses through C functions (`string.gsub`,
//! `table.sort`), and where it ends.
//!
//! LuaJIT bounds its own stack, and raises an error there, but not the C stack: 8 MB of that are
//! used up first, and the worker would end.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What recursion takes until LuaJIT's bound ends it, mostly: some 9,000 levels of `string.gsub`,
/// each with a buffer of 8 kB. The kernel keeps 128 MB free below the stack, whatever the limit
/// was at the start.
const WANTED: usize = 112 << 20;

/// What one Lua stack takes at most through functions that are not asked whether there is room:
/// 4 MB measured (`string.format`), and as much again for a finalizer, which may have a stack of
/// its own.
const RESERVE: usize = 10 << 20;

/// What may lie above the code that runs, where the end of the stack is not known: the program's
/// arguments and environment.
const ABOVE: usize = 1 << 20;

/// Where the part of the stack ends that code may use which is asked; 0 is not known yet.
static FLOOR: AtomicUsize = AtomicUsize::new(0);

/// Where the stack begins; 0 is not known yet. A worker has it from its master: the C library reads
/// all of `/proc/self/maps` to tell, and `fork` leaves the stack where it is.
static TOP: AtomicUsize = AtomicUsize::new(0);

/// Lets the stack of the worker's thread grow as far as LuaJIT may need it.
pub fn raise_limit() {
    if let Some(mut limit) = limit() {
        if limit.rlim_cur < WANTED as libc::rlim_t {
            limit.rlim_cur = limit.rlim_max.min(WANTED as libc::rlim_t);
            // SAFETY: reads the structure during the call only.
            unsafe { libc::setrlimit(libc::RLIMIT_STACK, &limit) };
        }
    }
    measure();
}

/// Finds out where the stack ends, if nobody has yet.
pub fn prepare() {
    if FLOOR.load(Relaxed) == 0 {
        measure();
    }
}

/// Whether there is room for more recursion.
#[inline(always)]
pub fn has_room() -> bool {
    here() > FLOOR.load(Relaxed)
}

fn measure() {
    // Not even a larger stack is sure to have more room below it.
    let size = limit().map_or(0, |limit| limit.rlim_cur).min(WANTED as libc::rlim_t) as usize;
    if TOP.load(Relaxed) == 0 {
        TOP.store(top().unwrap_or(0), Relaxed);
    }
    let top = match TOP.load(Relaxed) {
        0 => here() + ABOVE.min(size / 8),
        known => known,
    };
    FLOOR.store(top.saturating_sub(usable(size)), Relaxed);
}

/// How much of a stack may be used: all but the reserve, and a quarter of a small one.
fn usable(size: usize) -> usize {
    size.saturating_sub(RESERVE).max(size / 4)
}

fn limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to the structure during the call only.
    (unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) } == 0).then_some(limit)
}

/// Where the stack is. A local variable's address would do, but AddressSanitizer may have moved it
/// to the heap.
#[inline(always)]
fn here() -> usize {
    let place: usize;
    // SAFETY: these read a register.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("mov {}, rsp", out(reg) place, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) place, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        place = ptr::from_ref(&MaybeUninit::<u8>::uninit()).addr();
    }
    place
}

/// Where the stack of this thread begins.
fn top() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut lowest: *mut c_void = ptr::null_mut();
    let mut size = 0;
    // SAFETY: the structure is filled in by the first call before the others read it.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        libc::pthread_attr_getstack(attributes.as_ptr(), &mut lowest, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    Some(lowest.addr() + size)
}

#[cfg(test)]
mod tests {
    use super::{here, top, usable};

    #[test]
    fn a_stack_has_its_reserve() {
        for (size, most) in [(112, 102), (16, 6), (8, 2), (1, 0)] {
            assert_eq!(usable(size << 20) >> 20, most);
        }
        assert_eq!(usable(1 << 20), 256 << 10);
    }

    #[test]
    fn the_stack_begins_above() {
        let above = top().map(|top| top - here());
        assert!(above.is_some_and(|above| above < 8 << 20), "{above:?}");
    }
}
