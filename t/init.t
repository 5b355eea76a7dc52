# init_by_lua and init_worker_by_lua: when they run, and what their errors do.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;
use Verdict;

my $serve = <<"EOC";
upstream backend {
    balancer_by_lua_block {
        local answer = require("ngx.balancer").set_current_peer("127.0.0.1", ${\port(1)})
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location / { proxy_pass http://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    location / { return 200 "peer one"; }
}
EOC

sub lines {
    my ($nginx, $pattern) = @_;
    return join '', map "$_\n", $nginx->said =~ /$pattern/g;
}

# The order of things, once a process.
{
    my $nginx = Nginx->new(name => 'order', workers => 2);
    $nginx->conf(<<'EOC' . $serve);
init_worker_by_lua_block {
    runs = runs + 1
    print("init_worker, runs: ", runs, ", shared: ", shared.x)
}
init_by_lua_block {
    print("init")
    runs = 1
    shared = { x = "made in init" }
}
EOC
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'peer one', 'nginx serves');
    poll { $nginx->logged('init_worker, runs') == 2 };
    is(lines($nginx, qr/\[lua\] \S+ (init.*)/), <<'EOC', 'init once, then init_worker in each worker');
init
init_worker, runs: 2, shared: made in init
init_worker, runs: 2, shared: made in init
EOC
    my ($master) = $nginx->said =~ /\[notice\] (\d+)#\S+ \[lua\] \S+ init$/m;
    is($master, $nginx->pid, 'init runs in the master');
    my %workers = map { $_ => 1 } $nginx->log =~ /\[notice\] (\d+)#\S+ \[lua\] \S+ init_worker/g;
    is(keys %workers, 2, 'init_worker runs in each worker');
    ok(!$workers{$master}, 'and not in the master');

    # A reload, with another configuration.
    my $old = $nginx->get('/', port(0))->{worker};
    $nginx->conf(<<'EOC' . $serve);
init_by_lua_block {
    print("init again, runs before: ", runs)
    runs = 10
}
init_worker_by_lua_block {
    runs = runs + 1
    print("init_worker again, runs: ", runs)
}
EOC
    $nginx->reload;
    ok(poll { $nginx->logged('init_worker again') == 2 }, 'a reload runs init_worker again in each worker');
    is(lines($nginx, qr/\[lua\] \S+ (init\w* again.*)/), <<'EOC', 'a reload runs both, in a fresh VM');
init again, runs before: nil
init_worker again, runs: 11
init_worker again, runs: 11
EOC
    ok(poll { !$workers{$nginx->get('/', port(0))->{worker} || $old} },
        'new workers serve');
    is($nginx->get('/', port(0))->{body}, 'peer one', 'and balance');

    # A reload that is refused changes nothing.
    my $worker = $nginx->get('/', port(0))->{worker};
    $nginx->conf(qq{init_by_lua_block { error("not today") }\n} . $serve);
    $nginx->reload;
    ok(poll { $nginx->logged('not today') }, 'an error in init is logged at a reload');
    is($nginx->get('/', port(0))->{body}, 'peer one', 'the old workers go on');
    is($nginx->logged('init_worker again'), 2, 'and no new ones are started');
    $nginx->stop;
}

# Directly with files.
{
    my $nginx = Nginx->new(name => 'files');
    $nginx->write('lua/init.lua', "#!/usr/bin/lua\nprint('init from a file')\nport_of_init = ${\port(1)}\n");
    $nginx->write('lua/worker.lua', "print('init_worker from a file')\n");
    my $balance = $nginx->write('lua/balance.lua',
        "require('ngx.balancer').set_current_peer('127.0.0.1', port_of_init)\n");
    (my $conf = $serve) =~ s/balancer_by_lua_block \{.*?^    \}/balancer_by_lua_file $balance;/ms;
    $nginx->conf(<<'EOC' . $conf);
init_by_lua_file lua/init.lua;
init_worker_by_lua_file lua/worker.lua;
EOC
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'peer one', 'files: relative to the prefix, and by full path');
    ok(poll { $nginx->logged('init_worker from a file') }, 'init_worker_by_lua_file runs');
    like($nginx->said, qr/\[lua\] init\.lua:2: init from a file/, 'init_by_lua_file runs, a shebang does not count out');
    $nginx->stop;
}

# Errors in init stop -t, the start and the reload.
for my $case (
    ['a text', 'error("init broke")', qr/init_by_lua error: init_by_lua\(nginx\.conf:6\):2: init broke$/m],
    ['a table', 'error({})', qr/init_by_lua error: \(error object is a table value\)$/m],
    ['a failing require', 'require "no.such.module"', qr/init_by_lua error: .*module 'no\.such\.module' not found:/],
    ['an API of requests', 'ngx.var.x = 1', qr/init_by_lua error: .*:2: no request found/],
    ['an exit', 'ngx.exit(500)', qr/init_by_lua error: .*:2: /],
) {
    my ($name, $lua, $message) = @$case;
    my $nginx = Nginx->new(name => 'broken');
    $nginx->conf("init_by_lua_block {\n$lua\n}\n" . $serve);
    my $test = refuses($nginx, "$name in init", $message);
    like($test->{out}, qr/^stack traceback:\n(?:\t.*\n)*\tinit_by_lua\(nginx\.conf:6\):2: in function <init_by_lua\(nginx\.conf:6\):1>/m,
        "$name: and its traceback");
    like($test->{out}, qr/test failed$/m, "$name: and nginx's own word");
    my $run = $nginx->run;
    is("$run->{code} $run->{signal}", '1 0', "$name in init stops the start");
    like($run->{out}, qr/\[emerg\] .*$message/, "$name: with its message");
    ok(!$nginx->pid, "$name: nothing is left running");
}

# nginx -t runs init, and nothing after it; nginx -s does not run it.
{
    my $nginx = Nginx->new(name => 'tested');
    $nginx->conf(<<'EOC' . $serve);
init_by_lua_block { print("init runs") }
init_worker_by_lua_block { print("init_worker runs") }
EOC
    my $test = accepts($nginx, 'init and init_worker');
    like($test->{out} . $nginx->log, qr/init runs/, 'nginx -t runs init');
    unlike($test->{out} . $nginx->log, qr/init_worker runs/, 'but not init_worker');

    $nginx->start;
    ok(poll { $nginx->logged('init_worker runs') == 1 }, 'the start runs both');
    my $before = $nginx->logged('init runs');
    is($nginx->run('-s', 'reload')->{code}, 0, 'nginx -s reload');
    ok(poll { $nginx->logged('init_worker runs') == 2 }, 'reloads');
    is($nginx->logged('init runs') - $before, 1, 'and init runs once, in the master');
    $nginx->stop;
}

# Errors in init_worker are logged, and the worker serves.
for my $case (
    ['a text', 'error("worker broke")', qr/init_worker_by_lua error: init_worker_by_lua\(nginx\.conf:6\):2: worker broke$/m],
    ['a table', 'error({})', qr/init_worker_by_lua error: \(error object is a table value\)$/m],
    ['a nil index', 'local t; t.x = 1', qr/init_worker_by_lua error: .*:2: attempt to index local 't' \(a nil value\)$/m],
) {
    my ($name, $lua, $message) = @$case;
    my $nginx = Nginx->new(name => 'worker');
    $nginx->conf("init_worker_by_lua_block {\n$lua\n}\n" . $serve);
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'peer one', "$name in init_worker: the worker serves");
    like($nginx->log, qr/\[error\] .*$message/, "$name: the error is logged");
    like($nginx->log, qr/^stack traceback:\n(?:\t.*\n)*\tinit_worker_by_lua\(nginx\.conf:6\):2: in function <init_worker_by_lua\(nginx\.conf:6\):1>/m,
        "$name: with its traceback");
    is($nginx->logged('init_worker_by_lua error'), 1, "$name: once");
    unlike($nginx->log, qr/exited on signal|exited with fatal code/, "$name: nobody died");
    $nginx->stop;
}

# Without master: one process does all.
{
    my $nginx = Nginx->new(name => 'single');
    $nginx->conf(<<'EOC' . $serve, main => 'master_process off;');
init_by_lua_block { print("init runs") }
init_worker_by_lua_block { print("init_worker runs") }
EOC
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'peer one', 'master_process off: it serves');
    is(lines($nginx, qr/\[lua\] \S+ (init\w* runs)/), "init runs\ninit_worker runs\n", 'and runs both');
    $nginx->stop;
}

# Other processes than workers (the cache's) are no place for init_worker.
{
    my $nginx = Nginx->new(name => 'cache');
    $nginx->conf(<<'EOC' . $serve);
proxy_cache_path cache keys_zone=z:1m;
init_worker_by_lua_block { print("init_worker runs") }
EOC
    $nginx->start;
    ok(poll { $nginx->log =~ /start cache loader process/ && $nginx->log =~ /init_worker runs/ }, 'the cache has its processes');
    is($nginx->get('/', port(0))->{body}, 'peer one', 'and the worker serves');
    is($nginx->logged('init_worker runs'), 1, 'init_worker runs in the worker only');
    $nginx->stop;
}

# Lua without any balancer, and a module without any Lua.
{
    my $nginx = Nginx->new(name => 'alone');
    $nginx->conf("init_by_lua_block { print('init runs') }\nserver { listen 127.0.0.1:${\port(0)}; return 200 ok; }\n");
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'ok', 'init without a balancer');
    like($nginx->said, qr/init runs/, 'runs');
    $nginx->stop;
    $nginx->conf("server { listen 127.0.0.1:${\port(0)}; return 200 ok; }\n");
    $nginx->start;
    is($nginx->get('/', port(0))->{body}, 'ok', 'no Lua at all');
    $nginx->stop;
    unlike($nginx->log, qr/\[(?:error|alert|emerg)\]/, 'and not a word');
}

done_testing();
