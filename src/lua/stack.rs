//! Room for Lua code that recurses through C functions (`string.gsub`, `table.sort`).
//!
//! LuaJIT bounds its own stack, and raises an error there, but not the C stack: 8 MB of that are
//! used up first, and the worker would end.

/// What LuaJIT's bound takes at most: some 9,000 levels of `string.gsub`, each with a buffer of
/// 8 kB. The kernel keeps 128 MB free below the stack, whatever the limit was at the start.
const WANTED: libc::rlim_t = 112 << 20;

/// Lets the stack of the worker's thread grow as far as LuaJIT may need it.
pub fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the structure during the call only.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_STACK, &mut limit) != 0 || limit.rlim_cur >= WANTED {
            return;
        }
        limit.rlim_cur = WANTED.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_STACK, &limit);
    }
}
