//! The configuration of `http{}`, and what belongs to one cycle: its VM.

use core::cell::{Cell, OnceCell, RefCell};
#[cfg(ngx_feature = "http_ssl")]
use std::collections::HashMap;

use ngx::ffi::{ngx_module_t, ngx_process, NGX_PROCESS_SIGNALLER};
use ngx::http::HttpModuleMainConf;
#[cfg(ngx_feature = "http_ssl")]
use rustc_hash::FxBuildHasher;

use crate::balancer::addresses::Addresses;
use crate::balancer::identity;
use crate::balancer::peer::PeerData;
#[cfg(ngx_feature = "http_ssl")]
use crate::balancer::sessions::Sessions;
#[cfg(ngx_feature = "http_ssl")]
use crate::balancer::tls::Pems;
use crate::lua::chunk::{Chunk, LoadError, Loaded};
use crate::lua::current::Current;
use crate::lua::stack;
use crate::lua::vm::{self, Vm};
use crate::lua::{bytecode, call};
use crate::nginx::conf::Conf;
use crate::nginx::log::{Log, NGX_LOG_ERR};
use crate::nginx::recycled::Recycled;
use crate::nginx::request::Request;
use crate::nginx::settings::Copies;
use crate::nginx::shm::SharedCache;
#[cfg(ngx_feature = "http_ssl")]
use crate::nginx::tls::{Context, Fingerprint, Session};
use crate::nginx::upstream_conf;
use crate::phase::Phase;
use crate::Module;

/// The configuration of `http{}`, and what belongs to one cycle: its VM.
#[derive(Default)]
pub struct MainConf {
    vm: vm::Lazy,
    _cycle: bytecode::Cycle,
    /// `lua_package_path`, `lua_package_cpath`.
    pub(super) paths: vm::Paths,
    /// `lua_code_cache`.
    pub(super) code_cache: OnceCell<bool>,
    /// `lua_memory_limit`; 0 is none.
    pub(super) memory_limit: OnceCell<usize>,
    /// `balancer_by_lua_timeout` in milliseconds, for upstreams that have none.
    pub(super) timeout: OnceCell<usize>,
    /// Whether a chunk of any upstream may be stopped.
    pub(super) stops: Cell<bool>,
    /// `init_by_lua_*`; forgotten once it has run, where nobody runs it again.
    pub(super) init: OnceCell<RefCell<Option<(Chunk, Loaded)>>>,
    /// `init_worker_by_lua_*`.
    pub(super) init_worker: OnceCell<(Chunk, Loaded)>,
    /// Addresses that Lua has named in this process.
    pub addresses: RefCell<Addresses>,
    /// `lua_balancer_ssl_sessions`.
    pub(super) max_sessions: OnceCell<usize>,
    /// `lua_balancer_ssl_session_cache`.
    pub(super) shared_sessions: OnceCell<SharedCache>,
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
    /// Where what is known of each request lies.
    pub requests: Recycled<PeerData>,
    /// Locations' settings for tries that want others.
    pub settings: Copies,
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
        self.code_cache.get() != Some(&false)
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
    pub(super) fn load(&self, chunk: &Chunk) -> Result<Loaded, LoadError> {
        chunk.load(self.made_vm()?)
    }

    /// Sees to it that a chunk compiles in the cycle's VM, which is there from now on.
    pub(super) fn check(&self, chunk: &Chunk) -> Result<Option<Loaded>, LoadError> {
        chunk.check(self.made_vm()?)
    }

    fn made_vm(&self) -> Result<&Vm, LoadError> {
        self.vm.get_or_new().map_err(|message| LoadError { message, line: None })
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
    pub(super) fn init(&self, log: Option<Log>) -> Result<(), String> {
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
