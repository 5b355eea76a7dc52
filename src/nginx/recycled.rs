//! Memory for values of one kind that each live as long as a request, but not in its pool.
//!
//! A pool of nginx grows by blocks of 4 kB: a few hundred bytes more may be the ones that need
//! another block, whose way from and to the allocator costs more than all else that is done for
//! the request. Here each value has a piece of memory of its own. When the request's pool is
//! destroyed, the piece goes back to the list that it came from, for a request to come.

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::alloc::{alloc, dealloc, Layout};

use super::pool::Pool;
use crate::guard::quiet;

/// How many pieces a list keeps for requests to come; those beyond go back to the allocator. In a
/// build with assertions all do, so that AddressSanitizer sees a piece that is used after its end.
const KEPT: usize = if cfg!(debug_assertions) { 0 } else { 512 };

/// Pieces of memory that no request uses just now. It must outlive every pool that has one of
/// them.
pub struct Recycled<T, const MAX: usize = KEPT> {
    first: Cell<Option<NonNull<Piece<T, MAX>>>>,
    count: Cell<usize>,
}

struct Piece<T, const MAX: usize> {
    value: MaybeUninit<T>,
    /// The one behind it, while it is in its list.
    next: Option<NonNull<Self>>,
    home: NonNull<Recycled<T, MAX>>,
}

impl<T, const MAX: usize> Default for Recycled<T, MAX> {
    fn default() -> Self {
        Recycled { first: Cell::new(None), count: Cell::new(0) }
    }
}

impl<T, const MAX: usize> Recycled<T, MAX> {
    /// Moves `value` into a piece; `None` without memory. It lives as long as `pool`: `'a` must not
    /// be longer.
    #[inline(always)]
    pub fn place<'a>(&'static self, pool: Pool, value: T) -> Option<&'a T> {
        const { assert!(!core::mem::needs_drop::<T>()) };
        // The cleanup first: a piece without one would never come back.
        let cleanup = pool.cleanup()?;
        let piece = self.take()?.as_ptr();
        // SAFETY: the cleanup and the piece are nobody else's yet. The piece stays where it is
        // until the cleanup gives it back.
        unsafe {
            (*cleanup.as_ptr()).data = piece.cast();
            (*cleanup.as_ptr()).handler = Some(give_back::<T, MAX>);
            Some((*piece).value.write(value))
        }
    }

    #[inline]
    fn take(&self) -> Option<NonNull<Piece<T, MAX>>> {
        let Some(piece) = self.first.get() else { return self.another() };
        // SAFETY: what is in the list is a live piece.
        self.first.set(unsafe { (*piece.as_ptr()).next });
        self.count.set(self.count.get() - 1);
        Some(piece)
    }

    #[cold]
    fn another(&self) -> Option<NonNull<Piece<T, MAX>>> {
        let layout = Layout::new::<Piece<T, MAX>>();
        // SAFETY: a piece has a size.
        let piece = NonNull::new(unsafe { alloc(layout) })?.cast::<Piece<T, MAX>>();
        let new = Piece { value: MaybeUninit::uninit(), next: None, home: NonNull::from(self) };
        // SAFETY: fresh memory of its layout.
        unsafe { piece.as_ptr().write(new) };
        Some(piece)
    }

    /// # Safety
    /// The piece came from [`take`](Self::take) of this list, and nobody uses it any longer.
    #[inline]
    unsafe fn put(&self, piece: NonNull<Piece<T, MAX>>) {
        if self.count.get() >= MAX {
            // SAFETY: `another` has allocated it, with this layout.
            return unsafe { dealloc(piece.as_ptr().cast(), Layout::new::<Piece<T, MAX>>()) };
        }
        // SAFETY: the piece is live until it is deallocated.
        unsafe { (*piece.as_ptr()).next = self.first.get() };
        self.first.set(Some(piece));
        self.count.set(self.count.get() + 1);
    }
}

impl<T, const MAX: usize> Drop for Recycled<T, MAX> {
    fn drop(&mut self) {
        while let Some(piece) = self.first.get() {
            // SAFETY: a piece in the list is live and nobody's; `another` has allocated it.
            unsafe {
                self.first.set((*piece.as_ptr()).next);
                dealloc(piece.as_ptr().cast(), Layout::new::<Piece<T, MAX>>());
            }
        }
    }
}

/// Runs when the pool is destroyed.
unsafe extern "C" fn give_back<T, const MAX: usize>(data: *mut c_void) {
    quiet(|| {
        let Some(piece) = NonNull::new(data.cast::<Piece<T, MAX>>()) else { return };
        // SAFETY: `place` took the piece from its home, which outlives the pool; nginx runs a
        // cleanup once, and nothing of a request is used after its pool.
        unsafe { (*piece.as_ptr()).home.as_ref().put(piece) };
    });
}

#[cfg(test)]
mod tests {
    use super::{Piece, Recycled};
    use core::ptr::NonNull;

    fn taken<const MAX: usize>(list: &Recycled<u64, MAX>) -> NonNull<Piece<u64, MAX>> {
        let Some(mut piece) = list.take() else { panic!("no memory") };
        // SAFETY: a piece that was taken is the taker's.
        unsafe { piece.as_mut() }.value.write(7);
        piece
    }

    #[test]
    fn a_piece_that_came_back_is_used_again() {
        let list: Recycled<u64, 2> = Recycled::default();
        let (one, two) = (taken(&list), taken(&list));
        assert_ne!(one, two);
        // SAFETY: each is put back once.
        unsafe {
            list.put(one);
            list.put(two);
        }
        assert_eq!((taken(&list), taken(&list)), (two, one));
        let three = taken(&list);
        assert!(three != one && three != two);
        for piece in [one, two, three] {
            // SAFETY: as above.
            unsafe { list.put(piece) };
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let list: Recycled<u64, 2> = Recycled::default();
        let pieces: Vec<_> = (0..5).map(|_| taken(&list)).collect();
        for (n, piece) in pieces.into_iter().enumerate() {
            // SAFETY: each is put back once.
            unsafe { list.put(piece) };
            assert_eq!(list.count.get(), (n + 1).min(2));
        }
        let none: Recycled<u64, 0> = Recycled::default();
        let piece = taken(&none);
        // SAFETY: as above.
        unsafe { none.put(piece) };
        assert_eq!((none.count.get(), none.first.get()), (0, None));
    }
}
