# Appended to nginx's Makefile: how the archive is made. Only cargo knows whether
# a Rust source has changed, so it is asked each time; an archive it leaves alone
# keeps its date and nothing is linked again.

cat << END                                                >> $NGX_MAKEFILE

$ngx_rust_archive:	ngx_rust_ask_cargo
	cd $ngx_addon_dir && \\
	NGINX_SOURCE_DIR='$ngx_rust_nginx' NGINX_BUILD_DIR='$ngx_rust_objs' \\
	cargo rustc --release --lib --crate-type staticlib \\
		--no-default-features $ngx_rust_features --target-dir '$ngx_rust_target'

.PHONY:	ngx_rust_ask_cargo
ngx_rust_ask_cargo:

END
