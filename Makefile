# The one way in; `make help` lists what there is.
#
#   STOCK=stock|trixie|sid|1.28.3         which nginx (stock: the installed one)
#   NGINX_SOURCE_DIR=… NGINX_BUILD_DIR=…  a configured tree instead
#   FEATURES=vendored                     cargo features

STOCK ?= stock
STOCKS := stock trixie sid 1.28.3
export STOCK

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

.PHONY: all
all: setup-build ## the release module (the default)
	@scripts/nginx-tree
	@scripts/build-module

# One apt call for all of a target's needs, before anything is built.
.PHONY: setup-build setup-demo setup-test setup-chaos setup-trace setup-valgrind setup-sanitize setup-bench setup-fuzz
setup-build setup-demo setup-test setup-chaos setup-trace setup-valgrind setup-sanitize setup-bench setup-fuzz:
	@scripts/setup $(@:setup-%=%)

.PHONY: demo
demo: setup-demo all ## the module at work; KEEP=1 leaves nginx up
	@scripts/demo

.PHONY: test
test: setup-test all ## unit tests and t/ on one nginx; T=t/foo.t: that file only
	@failed=0; $(if $(T),,scripts/unittest || failed=1;) scripts/run-tests $(T) || failed=1; exit $$failed

.PHONY: test-all
test-all: ## the tests on stock, trixie, sid and 1.28.3, and the trace
	@set -e; for stock in $(STOCKS); do $(MAKE) test STOCK=$$stock; done
	@$(MAKE) test-trace

.PHONY: test-panics
test-panics: setup-test ## t/panics.t with a module that panics when it is told to
	@STOCK=stock scripts/nginx-tree
	@STOCK=panics scripts/build-module
	@STOCK=panics scripts/run-tests t/panics.t

.PHONY: test-vendored
test-vendored: setup-test ## the unit tests and t/vendored.t with a LuaJIT that is linked in
	@STOCK=stock scripts/nginx-tree
	@STOCK=vendored scripts/build-module
	@STOCK=vendored scripts/unittest
	@STOCK=vendored scripts/run-tests $(or $(T),t/vendored.t t/set_current_peer.t t/error.t t/timeout.t t/memory_limit.t t/boundaries.t)

.PHONY: soak
soak: setup-test all ## t/soak.t at length: SOAK requests in each way to keep connections
	@SOAK=$${SOAK:-100000} TEST_NGINX_FILE_SECONDS=3600 scripts/run-tests t/soak.t

.PHONY: chaos
chaos: setup-chaos all ## everything goes wrong for SECONDS (300), and no request fails; SEED=N: as planned then
	@CHAOS_SECONDS=$(SECONDS) CHAOS_SEED=$(SEED) chaos/run

.PHONY: leaks
leaks: setup-test all ## memory after a million requests of each feature and a thousand reloads; LEAKS, LEAKS_RELOADS
	@LEAKS=$${LEAKS:-1000000} LEAKS_RELOADS=$${LEAKS_RELOADS:-1000} TEST_NGINX_FILE_SECONDS=86400 JOBS=1 \
		scripts/run-tests t/leaks.t t/leaks_reload.t

.PHONY: unittest
unittest: setup-build ## the Rust unit tests
	@scripts/nginx-tree
	@scripts/unittest

# The targets link against nginx's own object files, which come with no other one.
fuzz: override STOCK := 1.28.3

.PHONY: fuzz
fuzz: setup-fuzz ## the fuzz targets, SECONDS (60) each; T=lex: that one only; SEED=N: the inputs of then; KEEP=1 keeps what they learn
	@scripts/nginx-tree
	@SEED=$(SEED) scripts/fuzz $(or $(SECONDS),60) $(T)

.PHONY: test-configure
test-configure: setup-build ## nginx's own ./configure: --add-module and --add-dynamic-module, with TLS and without
	@STOCK=1.28.3 scripts/nginx-tree
	@scripts/test-configure

.PHONY: check
check: setup-build ## format and lints
	@scripts/nginx-tree
	@scripts/check

.PHONY: check-setup
check-setup: setup-build ## what is said when something is missing
	@scripts/check-setup

.PHONY: deny
deny: setup-build ## licences, sources and advisories of the crates we use
	@scripts/deny

# Frames and line numbers are those of one nginx.
trace test-trace: override STOCK := 1.28.3

.PHONY: trace
trace: setup-trace all ## the road of a request under gdb
	@scripts/trace

.PHONY: test-trace
test-trace: setup-trace all ## the road is the one that docs/internals.md shows
	@scripts/test-trace

.PHONY: valgrind
valgrind: setup-valgrind all ## the balancer, pool and session tests under memcheck; T=t/foo.t: that file only
	@scripts/valgrind $(T)

# nginx is built for it, from the same sources as 1.28.3.
sanitize: override STOCK := sanitize

.PHONY: sanitize
sanitize: setup-sanitize ## all of t/ under AddressSanitizer; T=t/foo.t: that file only
	@scripts/nginx-tree
	@scripts/sanitize $(T)

.PHONY: bench
bench: setup-bench all ## speed, against plain nginx and lua-nginx-module, into bench/results
	@bench/run

.PHONY: bench-instructions
bench-instructions: setup-bench all ## instructions a request, against those that were kept
	@bench/run instructions

.PHONY: install
install: ## the module into its nginx's modules folder (MODULES_DIR, DESTDIR)
	@scripts/install-module

.PHONY: clean
clean: ## forget all that was built or fetched
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
