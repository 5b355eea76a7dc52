//! As much of nginx as its functions for addresses, memory and shared zones need: what `main` and
//! the reading of a configuration would have set up.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::{mem, ptr};
use std::sync::OnceLock;

use module::nginx::conf::Conf;
use module::nginx::pool::Pool;
use ngx::ffi::{
    ngx_cacheline_size, ngx_conf_t, ngx_create_pool, ngx_cycle, ngx_cycle_t, ngx_destroy_pool,
    ngx_list_init, ngx_log_t, ngx_pagesize, ngx_pagesize_shift, ngx_pid, ngx_pool_t,
    ngx_shm_zone_t, ngx_slab_init, ngx_slab_pool_t, ngx_slab_sizes_init, ngx_time_init, NGX_OK,
};

/// A structure of nginx that is there for good.
struct Fixed<T>(UnsafeCell<T>);

// SAFETY: a target is one thread.
unsafe impl<T> Sync for Fixed<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Fixed<T> {}

struct World {
    log: Fixed<ngx_log_t>,
    cycle: Fixed<ngx_cycle_t>,
}

/// nginx, set up once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    static READY: OnceLock<()> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        // SAFETY: all zeroes is how nginx's main starts with these structures.
        unsafe {
            World {
                log: Fixed(UnsafeCell::new(mem::zeroed())),
                cycle: Fixed(UnsafeCell::new(mem::zeroed())),
            }
        }
    });
    READY.get_or_init(|| {
        // SAFETY: one thread, before anything of nginx is used. The log's level is that of no
        // message, so it needs no file.
        unsafe {
            ngx_time_init();
            ngx_pid = libc::getpid();
            ngx_pagesize = 4096;
            ngx_pagesize_shift = 12;
            ngx_cacheline_size = 64;
            ngx_slab_sizes_init();
            (*world.cycle.0.get()).log = world.log.0.get();
            ngx_cycle = world.cycle.0.get();
        }
    });
    world
}

/// A pool that ends with this.
pub struct OwnPool(*mut ngx_pool_t);

impl Default for OwnPool {
    fn default() -> Self {
        // SAFETY: nginx is set up.
        let pool = unsafe { ngx_create_pool(1024, world().log.0.get()) };
        assert!(!pool.is_null());
        OwnPool(pool)
    }
}

impl OwnPool {
    /// The module's handle of it.
    pub fn get(&self) -> Pool {
        // SAFETY: the pool is live as long as `self`, which outlives what targets do with it.
        unsafe { Pool::from_ptr(self.0) }.expect("a pool")
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ngx_destroy_pool(self.0) }
    }
}

/// Reading a configuration that has nothing in it, but zones may be added to it.
pub struct OwnConf {
    pool: OwnPool,
    cycle: Box<ngx_cycle_t>,
    conf: Box<ngx_conf_t>,
}

impl Default for OwnConf {
    fn default() -> Self {
        let pool = OwnPool::default();
        // SAFETY: as nginx starts with them; the parts that `ngx_shared_memory_add` uses are set.
        unsafe {
            let mut cycle: Box<ngx_cycle_t> = Box::new(mem::zeroed());
            cycle.pool = pool.0;
            cycle.log = world().log.0.get();
            let zone = size_of::<ngx_shm_zone_t>();
            assert_eq!(ngx_list_init(&mut cycle.shared_memory, pool.0, 1, zone), NGX_OK as isize);
            let mut conf: Box<ngx_conf_t> = Box::new(mem::zeroed());
            conf.pool = pool.0;
            conf.log = cycle.log;
            conf.cycle = &mut *cycle;
            OwnConf { pool, cycle, conf }
        }
    }
}

impl OwnConf {
    /// The module's handle of it.
    pub fn get(&mut self) -> Conf {
        // SAFETY: live as long as `self`.
        unsafe { Conf::from_ptr(&mut *self.conf) }.expect("a configuration")
    }

    /// Maps the zone that was added, in memory of ours, and has its owner set it up
    /// (`ngx_init_cycle`).
    pub fn map(&mut self) -> Zone {
        // SAFETY: the list has one zone, and the memory is of the size that it asks for.
        unsafe {
            let zone: *mut ngx_shm_zone_t = self.cycle.shared_memory.part.elts.cast();
            let size = (*zone).shm.size;
            let mut memory = ptr::null_mut();
            assert_eq!(libc::posix_memalign(&mut memory, 4096, size), 0);
            memory.write_bytes(0, size);
            (*zone).shm.addr = memory.cast();

            let slab: *mut ngx_slab_pool_t = memory.cast();
            (*slab).end = memory.cast::<u8>().add(size);
            (*slab).min_shift = 3;
            (*slab).addr = memory;
            let lock = &raw mut (*slab).lock;
            let created = ngx::ffi::ngx_shmtx_create(&raw mut (*slab).mutex, lock, ptr::null_mut());
            assert_eq!(created, NGX_OK as isize);
            ngx_slab_init(slab);

            let init = (*zone).init.expect("the module sets it");
            assert_eq!(init(zone, ptr::null_mut()), NGX_OK as isize);
            Zone { memory, size }
        }
    }

    /// The pool of the configuration.
    pub fn pool(&self) -> Pool {
        self.pool.get()
    }
}

/// The memory of a zone.
pub struct Zone {
    memory: *mut c_void,
    size: usize,
}

impl Zone {
    /// All of it. Nothing of the module may run while it is held.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: this is its only owner.
        unsafe { core::slice::from_raw_parts_mut(self.memory.cast(), self.size) }
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: made by posix_memalign in `map`.
        unsafe { libc::free(self.memory) }
    }
}
