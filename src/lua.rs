//! LuaJIT: the VM of a cycle, the chunks it has loaded, and running them.
//!
//! What is set up once goes through `mlua`; what runs for each request works on the stack itself,
//! in [`call`].

pub mod bytecode;
pub mod call;
pub mod chunk;
pub mod current;
pub mod memory;
mod recursion;
pub mod stack;
pub mod syntax;
pub mod timeout;
pub mod vm;
