# The road of a request, as gdb sees it. scripts/trace runs this on nginx with
# examples/trace/nginx.conf and prints what stands between each title and the next
# empty line.

set debuginfod enabled off
set startup-with-shell off
set width 0
set print pretty on
set print frame-arguments none
set print entry-values no
# Addresses differ from run to run.
set print address off

# From here on the module is loaded and its functions have names. They are stopped
# at their very first instruction, before any frame of Rust's own.
tbreak ngx_http_block
run

break *ngx_http_lua_balancer_create_srv_conf
continue
echo \n## The configuration of http{}\n
backtrace
echo \n
continue
echo \n## The configuration of upstream{}\n
backtrace
echo \n
continue
echo \n## The configuration of server{}\n
backtrace
echo \n
delete

# nginx listens by now: the requests can be sent, and wait until it goes on.
tbreak ngx_single_process_cycle
continue
shell ./requests >requests.log 2>&1 &

tbreak *ngx_http_lua_balancer_get_peer
continue
echo \n## The peer is chosen\n
backtrace
echo \n

frame function ngx_http_upstream_get_keepalive_peer
set print address on
echo \n## What keepalive keeps of the module\n
echo (gdb) print *(ngx_http_upstream_keepalive_peer_data_t *) data\n
print *(ngx_http_upstream_keepalive_peer_data_t *) data
echo \n
set print address off

tbreak *ngx_http_lua_balancer_free_peer
continue
echo \n## The peer is freed\n
backtrace
echo \n

tbreak *ngx_http_lua_balancer_set_session
continue
echo \n## A TLS session is offered\n
backtrace
echo \n

tbreak *ngx_http_lua_balancer_save_session
continue
echo \n## A TLS session is kept\n
backtrace
echo \n

# To the end, where ./requests makes nginx quit.
handle SIGQUIT nostop noprint pass
continue
