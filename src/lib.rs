//! `balancer_by_lua` for stock nginx.
//!
//! The map of the crate, from nginx inwards:
//!
//! - this file: `ngx_module_t`, the start and the end of a worker;
//! - [`conf`]: the directives;
//! - [`balancer`]: the hooks around each try of a request;
//! - [`lua`]: the VM and the chunks; [`phase`]: when they run; [`api`]: what they can call;
//! - [`nginx`]: the only home of raw nginx pointers; [`guard`]: where a panic ends.

pub mod api;
pub mod balancer;
pub mod conf;
pub mod guard;
mod log;
pub mod lua;
pub mod nginx;
pub mod phase;

use core::ptr;

use ngx::ffi::{
    ngx_cycle_t, ngx_http_module_t, ngx_int_t, ngx_module_t, ngx_process, NGX_HTTP_MODULE,
    NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER,
};
use ngx::http::{HttpModule, HttpModuleMainConf, HttpModuleServerConf};

use conf::{MainConf, SrvConf};
use nginx::upstream::OK;

/// The module, as the `ngx` crate wants it named.
pub struct Module;

impl HttpModule for Module {
    fn module() -> &'static ngx_module_t {
        module()
    }
}

// SAFETY: `ngx_http_lua_balancer_create_main_conf` makes nothing else.
unsafe impl HttpModuleMainConf for Module {
    type MainConf = MainConf;
}

// SAFETY: `ngx_http_lua_balancer_create_srv_conf` makes nothing else.
unsafe impl HttpModuleServerConf for Module {
    type ServerConf = SrvConf;
}

// SAFETY: `ngx_http_lua_balancer_create_loc_conf` makes nothing else.
#[cfg(ngx_feature = "http_ssl")]
unsafe impl ngx::http::HttpModuleLocationConf for Module {
    type LocationConf = conf::LocConf;
}

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(conf::ngx_http_lua_balancer_preconfiguration),
    postconfiguration: Some(conf::ngx_http_lua_balancer_postconfiguration),
    create_main_conf: Some(conf::ngx_http_lua_balancer_create_main_conf),
    init_main_conf: Some(conf::ngx_http_lua_balancer_init_main_conf),
    create_srv_conf: Some(conf::ngx_http_lua_balancer_create_srv_conf),
    merge_srv_conf: None,
    #[cfg(ngx_feature = "http_ssl")]
    create_loc_conf: Some(conf::ngx_http_lua_balancer_create_loc_conf),
    #[cfg(ngx_feature = "http_ssl")]
    merge_loc_conf: Some(conf::ngx_http_lua_balancer_merge_loc_conf),
    #[cfg(not(ngx_feature = "http_ssl"))]
    create_loc_conf: None,
    #[cfg(not(ngx_feature = "http_ssl"))]
    merge_loc_conf: None,
};

/// What nginx finds when it loads the module. nginx writes the module's places into it.
#[no_mangle]
#[cfg_attr(not(test), used)]
#[allow(non_upper_case_globals)]
pub static mut ngx_http_lua_balancer_module: ngx_module_t = ngx_module_t {
    ctx: ptr::addr_of!(CONTEXT).cast_mut().cast(),
    commands: ptr::addr_of_mut!(conf::directive::COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as usize,
    init_process: Some(ngx_http_lua_balancer_init_process),
    ..ngx_module_t::default()
};

/// The table that nginx looks up in a shared object.
#[cfg(feature = "export-modules")]
#[allow(missing_docs)]
mod exports {
    use crate::ngx_http_lua_balancer_module;

    ngx::ngx_modules!(ngx_http_lua_balancer_module);
}

/// The module's own structure.
#[inline]
pub fn module() -> &'static ngx_module_t {
    // SAFETY: nginx changes it only while it reads a configuration, when nothing here holds on
    // to a reference.
    unsafe { &*ptr::addr_of!(ngx_http_lua_balancer_module) }
}

/// A process starts.
///
/// # Safety
/// nginx calls it with its cycle.
#[no_mangle]
pub unsafe extern "C" fn ngx_http_lua_balancer_init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx sets it before any process starts. Cache managers and the like serve nobody.
    let process = unsafe { ngx_process } as u32;
    if process != NGX_PROCESS_SINGLE && process != NGX_PROCESS_WORKER {
        return OK;
    }
    guard::quiet(|| {
        // SAFETY: the caller's promise.
        if let Some(main) = unsafe { cycle.as_ref() }.and_then(Module::main_conf) {
            main.init_worker();
        }
    });
    OK
}
