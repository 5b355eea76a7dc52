//! Tells the crate which nginx it is built for.
//!
//! `nginx-sys` reads the configured nginx tree (`NGINX_SOURCE_DIR`, `NGINX_BUILD_DIR`) and hands
//! its findings on in `DEP_NGINX_*` variables; here they become `cfg(ngx_feature = "…")`.

use std::env;

fn main() {
    cfg_values("ngx_feature", "DEP_NGINX_FEATURES", "DEP_NGINX_FEATURES_CHECK");
    cfg_values("ngx_os", "DEP_NGINX_OS", "DEP_NGINX_OS_CHECK");

    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-z,relro,-z,now,-z,noexecstack");
        }
        Ok("macos") => {
            // nginx's own symbols are there only once it has loaded the module.
            println!("cargo::rustc-cdylib-link-arg=-undefined");
            println!("cargo::rustc-cdylib-link-arg=dynamic_lookup");
        }
        _ => (),
    }
}

/// Passes the comma-separated values in `list` on as `name="value"`, and those in `check` as known.
pub fn cfg_values(name: &str, list: &str, check: &str) {
    println!("cargo::rerun-if-env-changed={list}");
    println!("cargo::rerun-if-env-changed={check}");

    let known = env::var(check).unwrap_or_else(|_| "any()".into());
    println!("cargo::rustc-check-cfg=cfg({name}, values({known}))");

    for value in env::var(list).unwrap_or_default().split(',').map(str::trim) {
        if !value.is_empty() {
            println!("cargo::rustc-cfg={name}=\"{value}\"");
        }
    }
}
