# shellcheck shell=sh
# Sourced by the scripts next to it: how they speak, and where the things of the
# chosen nginx (STOCK) are.

set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
BUILD=$ROOT/build
NAME=ngx_http_lua_balancer_module
NGINX_DEV=${NGINX_DEV:-/usr/share/nginx/src}    # where Debian's nginx-dev puts its tree
LUA_NGINX_MODULE=/usr/lib/nginx/modules/ngx_http_lua_module.so    # where Debian puts it
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
NGINX_SRC_CRATE='=1.28.5'                       # crate nginx-src, carries nginx 1.28.3
RUST_MIN=88                                     # mlua 0.12 needs Rust 1.88

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Which nginx, from where its headers, and where its module goes.
STOCK=${STOCK:-stock}
if [ -n "${NGINX_SOURCE_DIR:-}${NGINX_BUILD_DIR:-}" ]; then
    STOCK=custom
fi
CARGO_TARGET_DIR=$BUILD/cargo/$STOCK
MODULE=$BUILD/$STOCK/$NAME.so
case $STOCK in
    stock)
        NGINX=${NGINX:-/usr/sbin/nginx}
        MODULE=$BUILD/$NAME.so
        ;;
    panics | vendored)
        # The installed nginx, and a module with a feature more in a folder of its own.
        NGINX=${NGINX:-/usr/sbin/nginx}
        [ $STOCK = panics ] && FEATURES=panic-points || FEATURES=vendored
        NGINX_SOURCE_DIR=$BUILD/nginx/stock
        ;;
    trixie | sid)
        NGINX=$BUILD/stock/$STOCK/nginx
        ;;
    1.28.3 | sanitize)
        NGINX=$BUILD/nginx/$STOCK/objs/nginx
        ;;
    custom)
        : "${NGINX_BUILD_DIR:=$NGINX_SOURCE_DIR/objs}"
        : "${NGINX_SOURCE_DIR:=$(dirname -- "$NGINX_BUILD_DIR")}"
        # nginx-sys resolves them from its own folder, so they must be absolute.
        [ -d "$NGINX_SOURCE_DIR" ] || die "NGINX_SOURCE_DIR is no folder: $NGINX_SOURCE_DIR"
        [ -d "$NGINX_BUILD_DIR" ] || die "NGINX_BUILD_DIR is no folder: $NGINX_BUILD_DIR (configure nginx first)"
        NGINX_SOURCE_DIR=$(readlink -f -- "$NGINX_SOURCE_DIR")
        NGINX_BUILD_DIR=$(readlink -f -- "$NGINX_BUILD_DIR")
        NGINX=${NGINX:-$NGINX_BUILD_DIR/nginx}
        ;;
    *)
        die "STOCK=$STOCK is not known: stock (the installed nginx), trixie, sid or 1.28.3"
        ;;
esac
NGINX_SOURCE_DIR=${NGINX_SOURCE_DIR:-$BUILD/nginx/$STOCK}
NGINX_BUILD_DIR=${NGINX_BUILD_DIR:-$NGINX_SOURCE_DIR/objs}

# asan_runtime: AddressSanitizer as the Rust toolchain brings it along.
asan_runtime() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    for runtime in "$(rustc --print sysroot)/lib/rustlib/$host/lib"/librustc*_rt.asan.a; do
        [ -f "$runtime" ] && echo "$runtime" && return
    done
    die "no AddressSanitizer in $(rustc -V) for $host: use a toolchain of rustup (https://rustup.rs) on x86_64 or aarch64"
}

# nginx_version BINARY: 1.22.1
nginx_version() {
    "$1" -v 2>&1 | sed -n 's|^nginx version: nginx/\([0-9.]*\).*|\1|p'
}

# nginx_elf: the binary itself, where $NGINX is a script that runs it.
nginx_elf() {
    case $STOCK in
        trixie | sid) echo "$BUILD/stock/$STOCK/root/usr/sbin/nginx" ;;
        *) readlink -f -- "$NGINX" ;;
    esac
}

# find_loader ROOT: the program loader ($ld) and the libraries ($libs) of a Debian that is unpacked there.
find_loader() {
    for ld in "$1"/usr/lib64/ld-linux-*.so.2 "$1"/usr/lib/ld-linux-*.so.1; do
        [ -e "$ld" ] && break
    done
    libs=$(dirname -- "$1"/usr/lib/*-linux-gnu*/libc.so.6)
}

# source_version TREE: 1.22.1
source_version() {
    sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$1/src/core/nginx.h"
}

# private_apt SUITE ARG...: apt-get with lists and cache of its own, so that
# packages of another Debian release can be fetched without the system's apt
# ever hearing of that release. Needs no root. A mirror that stands still, such as
# snapshot.debian.org, is as good: signatures are checked, their age is not.
private_apt() {
    apt_dir=$BUILD/apt/$1
    mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$DEBIAN_MIRROR" "$1" >"$apt_dir/sources.list"
    shift
    apt-get -qq \
        -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::sourcelist="$apt_dir/sources.list" \
        -o Dir::State::Lists="$apt_dir/lists" \
        -o Dir::State::status=/dev/null \
        -o Dir::Cache="$apt_dir/cache" \
        -o APT::Sandbox::User=root \
        -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Retries=3 \
        -o Acquire::Check-Valid-Until=false \
        "$@" || die "apt-get $* failed for Debian ${apt_dir##*/} (its mirror is $DEBIAN_MIRROR)"
}
