//! What the targets have in common: how they read their input, and an nginx that is set up as far
//! as they need it.

pub mod input;
pub mod lua;
pub mod nginx;
