# The one way in: `make help` lists what there is.
#
#   STOCK=stock|trixie|sid|1.28.3         which nginx (stock: the installed one)
#   NGINX_SOURCE_DIR=… NGINX_BUILD_DIR=…  a configured tree instead
#   FEATURES=vendored                     cargo features

STOCK ?= stock
STOCKS := stock trixie sid 1.28.3
export STOCK

.PHONY: all
all: ## the release module (the default)
	@scripts/setup build
	@scripts/nginx-tree
	@scripts/build-module

.PHONY: test
test: ## unit tests and t/ on one nginx; T=t/foo.t runs that file only
	@scripts/setup test
	@scripts/nginx-tree
	@scripts/build-module
	@$(if $(T),,scripts/unittest)
	@scripts/run-tests $(T)

.PHONY: test-all
test-all: ## the tests on every nginx: stock, trixie, sid and 1.28.3
	@set -e; for stock in $(STOCKS); do $(MAKE) --no-print-directory test STOCK=$$stock; done

.PHONY: unittest
unittest: ## the Rust unit tests
	@scripts/setup build
	@scripts/nginx-tree
	@scripts/unittest

.PHONY: clean
clean: ## forget everything that was built or fetched
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
