//! Idle connections of a balancer: what `enable_keepalive` keeps, over [`super::keepalive`].

use core::cell::{OnceCell, RefCell};
use core::ffi::c_void;

use ngx::ffi::{ngx_event_t, ngx_msec_t, ngx_uint_t};

use super::hooks::FAILED;
use super::keepalive::{Hint, Place, Pool};
use super::peer::{Chosen, PeerData};
use crate::conf::KeepaliveConf;
use crate::guard::quiet;
use crate::log::debug;
use crate::nginx::connection::{is_exiting, Connection};
use crate::nginx::log::Log;
use crate::nginx::peer::Peer;

/// How a connection is kept, as `enable_keepalive` says.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Milliseconds that it may be idle; 0 is no limit.
    pub timeout: ngx_msec_t,
    /// How many requests it may carry; 0 is no limit.
    pub max_requests: usize,
    /// Milliseconds after which it carries no further request; 0 is no limit.
    pub time: ngx_msec_t,
}

/// The idle connections of one `upstream{}` in this worker.
pub struct Idle {
    pool: RefCell<Pool<Connection>>,
    conf: KeepaliveConf,
    /// What an idle connection's `data` points to: one for each place, so that keeping a
    /// connection allocates nothing.
    homes: OnceCell<Box<[Home]>>,
}

/// Where an idle connection belongs. Which of them it is tells the place in the pool.
struct Home {
    idle: *const Idle,
}

impl Idle {
    /// As `balancer_keepalive` says.
    pub fn new(conf: KeepaliveConf) -> Self {
        let pool = RefCell::new(Pool::new(conf.connections));
        Idle { pool, conf, homes: OnceCell::new() }
    }

    /// How connections are kept when `enable_keepalive` is called with nothing.
    pub fn defaults(&self) -> Keepalive {
        Keepalive { timeout: 60_000, max_requests: 100, time: self.conf.time }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.try_borrow().map_or(0, |pool| pool.len())
    }

    fn home(&self, place: Place) -> Option<&Home> {
        let homes = self
            .homes
            .get_or_init(|| (0..self.conf.connections).map(|_| Home { idle: self }).collect());
        homes.get(place.index())
    }

    /// The place that a home is for.
    fn place_of(&self, home: &Home) -> Option<Place> {
        let homes = self.homes.get()?;
        let distance = core::ptr::from_ref(home).addr().checked_sub(homes.as_ptr().addr())?;
        Some(Place::at(distance / size_of::<Home>()))
    }

    /// Gives the try a connection that was opened with the same identity; false when there is
    /// none. Also says where others would be.
    pub fn take(&self, peer: &Chosen, identity: &[u8], pc: Peer) -> (bool, Hint) {
        let (taken, hint) = match self.pool.try_borrow_mut() {
            Ok(mut pool) => pool.take_hinted(identity),
            Err(_) => (None, Hint::default()),
        };
        if let Some(connection) = taken {
            connection.reuse(pc);
        }
        if let Some(log) = pc.log().filter(|log| log.debugs_http()) {
            let (host, name) = (peer.address_text(), peer.host_text());
            match taken {
                Some(c) => debug!(
                    log,
                    "lua balancer: keepalive reusing connection {:016X}, host: {host}, name: {name}",
                    c.as_ptr() as usize
                ),
                None => debug!(
                    log,
                    "lua balancer: keepalive no free connection, host: {host}, name: {name}"
                ),
            }
        }
        (taken.is_some(), hint)
    }

    /// Keeps the connection of a try that has ended, if it can carry another request.
    pub fn save(
        &self,
        data: &PeerData,
        chosen: &Chosen,
        keepalive: Keepalive,
        pc: Peer,
        state: ngx_uint_t,
    ) {
        let usable = pc.connection().filter(|c| {
            state & FAILED == 0
                && c.is_sound()
                && (keepalive.max_requests == 0 || c.requests() < keepalive.max_requests)
                && (keepalive.time == 0 || c.age() <= keepalive.time)
                && data.upstream().leaves_connection_usable()
                && !is_exiting()
        });
        let kept = usable.filter(|c| self.keep(data, *c, keepalive));

        let Some(log) = pc.log() else { return };
        let Some(connection) = kept else {
            let c = pc.connection().map_or(0, |c| c.as_ptr() as usize);
            debug!(log, "lua balancer: keepalive not saving connection {c:016X}");
            return;
        };
        debug!(
            log,
            "lua balancer: keepalive saving connection {:016X}, host: {}, name: {}",
            connection.as_ptr() as usize,
            chosen.address_text(),
            chosen.host_text()
        );
        pc.forget_connection();
        if connection.has_input() {
            check(connection);
        }
    }

    fn keep(&self, data: &PeerData, connection: Connection, keepalive: Keepalive) -> bool {
        let Ok(mut pool) = self.pool.try_borrow_mut() else { return false };
        let mut place = None;
        let evicted = pool.put_hinted(data.identity(), data.hint.get(), data.pool_name(), |at| {
            place = Some(at);
            connection
        });
        let home = place.and_then(|place| self.home(place));
        let waits = home.is_some_and(|home| {
            let data = core::ptr::from_ref(home).cast_mut().cast::<c_void>();
            connection.make_idle(keepalive.timeout, ngx_http_lua_balancer_idle_handler, data)
        });
        if let (false, Some(place)) = (waits, place) {
            pool.remove(place);
        }
        drop(pool);

        for evicted in evicted {
            if evicted != connection {
                close(evicted);
            }
        }
        waits
    }
}

/// Takes an idle connection out of its pool.
fn leave(connection: Connection) {
    // SAFETY: only `keep` makes connections idle with this handler, and homes live as long as
    // their balancer, which outlives the connections that it has.
    let (idle, place) = unsafe {
        let Some(home) = connection.data().cast::<Home>().as_ref() else { return };
        let Some(idle) = home.idle.as_ref() else { return };
        (idle, idle.place_of(home))
    };
    if let (Ok(mut pool), Some(place)) = (idle.pool.try_borrow_mut(), place) {
        pool.remove(place);
    }
}

fn close(connection: Connection) {
    if let Some(log) = Log::cycle() {
        let c = connection.as_ptr() as usize;
        debug!(log, "lua balancer: keepalive closing connection {c:016X}");
    }
    connection.close();
}

/// Something has happened to an idle connection: unless it is a false alarm, it is of no use any
/// more.
fn check(connection: Connection) {
    if !connection.is_to_close() && connection.stays_quiet() {
        return;
    }
    leave(connection);
    close(connection);
}

/// Wakes up for an idle connection: bytes that nobody asked for, the peer's end, the time, or the
/// worker's end.
unsafe extern "C" fn ngx_http_lua_balancer_idle_handler(ev: *mut ngx_event_t) {
    quiet(|| {
        // SAFETY: nginx calls it with an event of the idle connection.
        if let Some(connection) = unsafe { Connection::of_event(ev) } {
            check(connection);
        }
    });
}
