//! The module's configuration: of `http{}` and of each `upstream{}`.
//!
//! nginx makes a [`SrvConf`] for `http{}`, for each `upstream{}` and for each `server{}`; only
//! that of an `upstream{}` ever holds a balancer.

pub mod block;
pub mod directive;
pub mod lex;
pub mod variable;

use core::cell::{Cell, OnceCell, RefCell};
use core::ffi::{c_char, c_void};
use core::ptr;
#[cfg(ngx_feature = "http_ssl")]
use std::collections::HashMap;

use ngx::ffi::{ngx_conf_t, ngx_int_t, ngx_module_t, ngx_process, NGX_PROCESS_SIGNALLER};
#[cfg(ngx_feature = "http_ssl")]
use ngx::http::HttpModuleLocationConf;
use ngx::http::{HttpModuleMainConf, HttpModuleServerConf};
#[cfg(ngx_feature = "http_ssl")]
use rustc_hash::FxBuildHasher;

use crate::balancer::addresses::Addresses;
use crate::balancer::identity;
#[cfg(ngx_feature = "http_ssl")]
use crate::balancer::sessions::Sessions;
#[cfg(ngx_feature = "http_ssl")]
use crate::balancer::tls::Pems;
use crate::balancer::Balancer;
use crate::guard::{guard, log_panics};
use crate::lua::call;
use crate::lua::chunk::{Chunk, LoadError, Loaded};
use crate::lua::current::Current;
use crate::lua::stack;
use crate::lua::vm::{self, Vm};
use crate::nginx::conf::{Conf, NGX_CONF_ERROR, NGX_CONF_OK};
use crate::nginx::log::{Log, NGX_LOG_EMERG, NGX_LOG_ERR};
use crate::nginx::request::Request;
use crate::nginx::settings::Copies;
use crate::nginx::shm::SharedCache;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::ssl;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::tls::{Context, Fingerprint, Session};
use crate::nginx::upstream::{ERROR, OK};
use crate::nginx::upstream_conf::{self, UpstreamConf};
use crate::phase::Phase;
use crate::Module;

/// The configuration of `http{}`, and what belongs to one cycle: its VM.
#[derive(Default)]
pub struct MainConf {
    vm: vm::Lazy,
    /// `lua_package_path`, `lua_package_cpath`.
    paths: vm::Paths,
    /// `lua_code_cache`.
    code_cache: Cell<Option<bool>>,
    /// `lua_memory_limit`; 0 is none.
    memory_limit: OnceCell<usize>,
    /// `balancer_by_lua_timeout` in milliseconds, for upstreams that have none.
    timeout: OnceCell<usize>,
    /// Whether a chunk of any upstream may be stopped.
    stops: Cell<bool>,
    /// `init_by_lua_*`; forgotten once it has run, where nobody runs it again.
    init: OnceCell<RefCell<Option<(Chunk, Loaded)>>>,
    /// `init_worker_by_lua_*`.
    init_worker: OnceCell<(Chunk, Loaded)>,
    /// Addresses that Lua has named in this process.
    pub addresses: RefCell<Addresses>,
    /// `lua_balancer_ssl_sessions`.
    max_sessions: OnceCell<usize>,
    /// `lua_balancer_ssl_session_cache`.
    shared_sessions: OnceCell<SharedCache>,
    #[cfg(ngx_feature = "http_ssl")]
    sessions: OnceCell<RefCell<Sessions<Session>>>,
    #[cfg(ngx_feature = "http_ssl")]
    fingerprints: RefCell<HashMap<Context, Fingerprint, FxBuildHasher>>,
    /// PEM that Lua has given in this process.
    #[cfg(ngx_feature = "http_ssl")]
    pub pems: Pems,
    /// Where the identity of a connection is written.
    pub identity: RefCell<identity::Writer>,
    numbers: RefCell<identity::Numbers>,
    /// nginx's own keepalive, looked for once.
    keepalive_module: OnceCell<Option<&'static ngx_module_t>>,
    /// Locations' settings for tries that want others.
    pub settings: RefCell<Copies>,
}

impl MainConf {
    /// The configuration of the `http{}` that is being read.
    pub fn of(cf: Conf) -> Option<&'static Self> {
        // SAFETY: nginx passes a live cf.
        Module::main_conf(unsafe { &*cf.as_ptr() })
    }

    /// The configuration that a request is served under.
    pub fn of_request(request: Request) -> Option<&'static Self> {
        // SAFETY: the request is live.
        Module::main_conf(unsafe { &*request.as_ptr() })
    }

    /// The VM; `None` when the configuration has no Lua.
    #[inline]
    pub fn vm(&self) -> Option<&Vm> {
        self.vm.get()
    }

    /// Whether chunks are compiled once and the VM is kept.
    #[inline]
    pub fn code_cache(&self) -> bool {
        self.code_cache.get() != Some(false)
    }

    /// The TLS sessions of this process.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn sessions(&self) -> &RefCell<Sessions<Session>> {
        let max = self.max_sessions.get().copied().unwrap_or(1024);
        self.sessions.get_or_init(|| RefCell::new(Sessions::new(max)))
    }

    /// The TLS sessions of all workers, where the configuration wants them shared.
    pub fn shared_sessions(&self) -> Option<SharedCache> {
        self.shared_sessions.get().copied()
    }

    /// The fingerprint of a TLS context, taken once; `None` where this OpenSSL does not tell.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn fingerprint(&self, context: Context) -> Option<Fingerprint> {
        let mut known = self.fingerprints.try_borrow_mut().ok()?;
        if let Some(fingerprint) = known.get(&context) {
            return Some(*fingerprint);
        }
        let fingerprint = context.fingerprint()?;
        known.insert(context, fingerprint);
        Some(fingerprint)
    }

    /// The number of an identity; `None` while it is being asked for.
    pub fn number_of(&self, identity: &[u8]) -> Option<u64> {
        self.numbers.try_borrow_mut().ok().map(|mut numbers| numbers.of(identity))
    }

    /// nginx's own keepalive, where it has it.
    pub fn keepalive_module(&self, cf: Conf) -> Option<&'static ngx_module_t> {
        *self.keepalive_module.get_or_init(|| upstream_conf::keepalive_module(cf))
    }

    /// Compiles a chunk in the cycle's VM.
    fn load(&self, chunk: &Chunk) -> Result<Loaded, LoadError> {
        let vm = self.vm.get_or_new().map_err(|message| LoadError { message, line: None })?;
        chunk.load(vm)
    }

    /// Sees to it that a chunk compiles in the cycle's VM, which is there from now on.
    fn check(&self, chunk: &Chunk) -> Result<Option<Loaded>, LoadError> {
        let vm = self.vm.get_or_new().map_err(|message| LoadError { message, line: None })?;
        chunk.check(vm)
    }

    /// A VM in which init_by_lua has run, for one request.
    pub fn new_vm(&self) -> Result<Vm, String> {
        let vm = Vm::new()?;
        self.limit(&vm)?;
        vm.set_paths(&self.paths)?;
        if let Some((chunk, _)) =
            self.init.get().map(RefCell::borrow).as_deref().and_then(Option::as_ref)
        {
            let loaded = chunk.load(&vm).map_err(|e| e.message)?;
            run_init(&vm, &loaded, None)?;
        }
        Ok(vm)
    }

    /// Prepares a VM for the limits that the configuration sets.
    fn limit(&self, vm: &Vm) -> Result<(), String> {
        if self.stops.get() {
            vm.make_stoppable()?;
        }
        match self.memory_limit.get() {
            None | Some(0) => Ok(()),
            Some(limit) => vm.set_limit(*limit),
        }
    }

    /// Runs init_by_lua: the configuration has been read.
    fn init(&self, log: Option<Log>) -> Result<(), String> {
        let Some(vm) = self.vm() else { return Ok(()) };
        self.limit(vm)?;
        vm.set_paths(&self.paths)?;

        // SAFETY: nginx sets it before it reads the configuration.
        let signaller = unsafe { ngx_process } as u32 == NGX_PROCESS_SIGNALLER;
        // `nginx -s reload` reads the configuration too, only to find the pid.
        let init = self.init.get().filter(|_| !signaller);
        if let Some((cell, (chunk, loaded))) = init.and_then(|cell| Some((cell, cell.take()?))) {
            run_init(vm, &loaded, log)?;
            if self.code_cache() {
                // Lists of thousands of peers are written there.
                drop((chunk, loaded));
                vm.collect_garbage();
            } else {
                cell.replace(Some((chunk, loaded)));
            }
        }
        vm.guard_globals()?;
        match vm.limit() {
            None => Ok(()),
            Some(limit) => {
                call::collect_garbage(vm);
                limit.check()
            }
        }
    }

    /// Runs init_worker_by_lua. Its failure is logged, and the worker serves.
    pub fn init_worker(&self) {
        if self.vm().is_some() {
            stack::raise_limit();
        }
        let (Some(vm), Some((_, loaded))) = (self.vm(), self.init_worker.get()) else { return };
        let current = Current { phase: Phase::InitWorker, ..Current::NONE };
        let _ = call::run(vm, loaded.reference(), current, 0, |message| {
            if let Some(log) = Log::cycle() {
                log.write(NGX_LOG_ERR, &[b"init_worker_by_lua error: ", message].concat());
            }
        });
    }
}

fn run_init(vm: &Vm, loaded: &Loaded, log: Option<Log>) -> Result<(), String> {
    let current = Current { phase: Phase::Init, log, ..Current::NONE };
    let mut text = String::new();
    call::run(vm, loaded.reference(), current, 0, |message| {
        text = format!("init_by_lua error: {}", String::from_utf8_lossy(message));
    })
    .map_err(|call::Failed| text)
}

/// The configuration of an `upstream{}`.
#[derive(Default)]
pub struct SrvConf {
    balancer: OnceCell<Balancer>,
    /// `balancer_keepalive`: idle connections a worker, and milliseconds that one may live.
    keepalive: OnceCell<KeepaliveConf>,
    /// `balancer_by_lua_timeout` in milliseconds; 0 is no limit.
    timeout: OnceCell<usize>,
}

/// The `balancer_keepalive` directive.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveConf {
    /// Idle connections a worker.
    pub connections: usize,
    /// Milliseconds after which a connection carries no further request; 0 is no limit.
    pub time: usize,
}

impl Default for KeepaliveConf {
    fn default() -> Self {
        KeepaliveConf { connections: 32, time: 60 * 60 * 1000 }
    }
}

impl SrvConf {
    /// The configuration of a block; `None` for an upstream that nginx made up.
    #[inline]
    pub fn of(us: UpstreamConf) -> Option<&'static Self> {
        // SAFETY: the block is live.
        Module::server_conf(unsafe { &*us.as_ptr() })
    }

    /// What `balancer_keepalive` says.
    pub fn keepalive(&self) -> KeepaliveConf {
        self.keepalive.get().copied().unwrap_or_default()
    }

    /// The block's balancer.
    #[inline]
    pub fn balancer(&self) -> Option<&Balancer> {
        self.balancer.get()
    }
}

/// The configuration of a location, for what its upstream may need.
#[cfg(ngx_feature = "http_ssl")]
#[derive(Default)]
pub struct LocConf {
    location: Cell<ssl::Location>,
    /// Where TLS settings stand in it or around it.
    tls: Cell<ssl::Configured>,
}

#[cfg(ngx_feature = "http_ssl")]
impl LocConf {
    /// The configuration of the location that is being made or merged.
    fn of(cf: Conf) -> Option<&'static Self> {
        // SAFETY: nginx passes a live cf.
        Module::location_conf(unsafe { &*cf.as_ptr() })
    }

    /// Gives the location the TLS contexts that its balancer may want.
    fn merge(&self, cf: Conf, around: &LocConf) -> Option<()> {
        let has_balancer = |us| SrvConf::of(us).is_some_and(|srv| srv.balancer().is_some());
        let around = (around.location.get(), around.tls.get());
        self.location.set(ssl::Location::of(cf));
        self.tls.set(ssl::make_contexts(cf, around, self.location.get(), has_balancer)?);
        Some(())
    }
}

/// Makes the configuration of a location.
///
/// # Safety
/// nginx calls it with its cf.
#[cfg(ngx_feature = "http_ssl")]
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<LocConf>(unsafe { Conf::from_ptr(cf) })
}

/// Completes the configuration of a location, after all of nginx's own modules.
///
/// # Safety
/// nginx calls it with its cf, and with what `create_loc_conf` made.
#[cfg(ngx_feature = "http_ssl")]
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_merge_loc_conf(
    cf: *mut ngx_conf_t,
    around: *mut c_void,
    conf: *mut c_void,
) -> *mut c_char {
    guard(NGX_CONF_ERROR, || {
        // SAFETY: the caller's promise.
        let (cf, around, conf) = unsafe {
            let around = around.cast::<LocConf>().as_ref();
            (Conf::from_ptr(cf), around, conf.cast::<LocConf>().as_ref())
        };
        match (cf, around, conf) {
            (Some(cf), Some(around), Some(conf)) => {
                conf.merge(cf, around).map_or(NGX_CONF_ERROR, |()| NGX_CONF_OK)
            }
            _ => NGX_CONF_ERROR,
        }
    })
}

/// Comes before the first directive.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    log_panics();
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return ERROR };
        #[cfg(ngx_feature = "http_ssl")]
        if let Some(http) = LocConf::of(cf) {
            http.location.set(ssl::Location::of(cf));
        }
        if cf.has_module(c"ngx_http_lua_module") {
            cf.emerg(
                "ngx_http_lua_module is loaded as well, whose directives have the same names: \
                 remove one of the two load_module lines",
            );
            return ERROR;
        }
        if variable::add(cf) {
            OK
        } else {
            ERROR
        }
    })
}

/// Makes the configuration of `http{}`.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_main_conf(
    cf: *mut ngx_conf_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<MainConf>(unsafe { Conf::from_ptr(cf) })
}

/// Makes the configuration of `http{}`, an `upstream{}` or a `server{}`.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_create_srv_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: the caller's promise.
    create::<SrvConf>(unsafe { Conf::from_ptr(cf) })
}

fn create<T: Default>(cf: Option<Conf>) -> *mut c_void {
    guard(ptr::null_mut(), || {
        cf.and_then(Conf::pool)
            .and_then(|pool| pool.own(T::default()))
            .map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
    })
}

/// Comes when all upstreams are prepared, by nginx's own modules too.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_main_conf(
    cf: *mut ngx_conf_t,
    _conf: *mut c_void,
) -> *mut c_char {
    guard(NGX_CONF_ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return NGX_CONF_ERROR };
        let Some(main) = MainConf::of(cf) else { return NGX_CONF_ERROR };
        for us in upstream_conf::all(cf) {
            let Some(srv) = SrvConf::of(us) else { continue };
            if let Some(balancer) = srv.balancer() {
                balancer.finish(cf, us, srv.keepalive());
                let timeout = srv.timeout.get().or(main.timeout.get()).copied().unwrap_or(0);
                balancer.timeout.set(timeout);
                main.stops.set(main.stops.get() || timeout > 0);
            }
        }
        NGX_CONF_OK
    })
}

/// Comes when the configuration is read.
///
/// # Safety
/// nginx calls it with its cf.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: the caller's promise.
        let Some(cf) = (unsafe { Conf::from_ptr(cf) }) else { return ERROR };
        let Some(main) = MainConf::of(cf) else { return ERROR };
        match main.init(cf.log()) {
            Ok(()) => OK,
            Err(message) => {
                if let Some(log) = cf.log() {
                    log.write(NGX_LOG_EMERG, message.as_bytes());
                }
                ERROR
            }
        }
    })
}
