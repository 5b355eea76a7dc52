//! Tells the sources which nginx they are built for, as the module's own build script does it.

#[allow(dead_code)]
#[path = "../../build.rs"]
mod build;

fn main() {
    build::cfg_values("ngx_feature", "DEP_NGINX_FEATURES", "DEP_NGINX_FEATURES_CHECK");
    build::cfg_values("ngx_os", "DEP_NGINX_OS", "DEP_NGINX_OS_CHECK");
}
