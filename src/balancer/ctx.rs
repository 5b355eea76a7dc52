//! What a request keeps between the runs of its chunk, when it needs anything kept at all:
//! `ngx.ctx`, and with `lua_code_cache off` a VM of its own.

use core::cell::{Cell, OnceCell};
use core::ffi::c_int;

use crate::conf::MainConf;
use crate::lua::vm::Vm;
use crate::module;
use crate::nginx::request::Request;

/// The module's context of a request; dropped when the request ends.
pub struct RequestCtx {
    /// The number of `ngx.ctx` among the VM's tables; 0 when it was never used.
    pub table: Cell<c_int>,
    /// Whether the last TLS connection to a peer resumed a session.
    pub ssl_resumed: Cell<Option<bool>>,
    vm: OnceCell<Vm>,
    main: &'static MainConf,
}

impl RequestCtx {
    /// The request's context, if it has one.
    pub fn of<'a>(request: Request) -> Option<&'a Self> {
        // SAFETY: only `of_or_new` puts anything there, and it lives as long as the request.
        unsafe { request.module_ctx(module()).cast::<Self>().as_ref() }
    }

    /// The request's context, made now if need be; `None` without memory.
    pub fn of_or_new<'a>(request: Request) -> Option<&'a Self> {
        if let Some(ctx) = Self::of(request) {
            return Some(ctx);
        }
        let ctx = request.pool()?.own(RequestCtx {
            table: Cell::new(0),
            ssl_resumed: Cell::new(None),
            vm: OnceCell::new(),
            main: MainConf::of_request(request)?,
        })?;
        request.set_module_ctx(module(), ctx.as_ptr().cast());
        Self::of(request)
    }

    /// The request's own VM for `lua_code_cache off`, in which init_by_lua has run.
    pub fn own_vm(&self) -> Result<&Vm, String> {
        if self.vm.get().is_none() {
            let vm = self.main.new_vm()?;
            // Nothing can have set it meanwhile: making a VM does not come back here.
            let _ = self.vm.set(vm);
        }
        self.vm.get().ok_or_else(|| "no Lua VM".into())
    }
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        // A VM of the request's own goes whole.
        if self.table.get() > 0 && self.vm.get().is_none() {
            if let Some(vm) = self.main.vm() {
                vm.release_ctx(self.table.get());
            }
        }
    }
}
