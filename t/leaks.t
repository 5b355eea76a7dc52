# Memory of a worker under many requests of each feature: after the tenth part of them it has all
# that it needs, and the rest takes no more than 2 % on top.
#
# Some thousand requests here, a million of each feature with `make leaks`. LEAKS_ONLY is a pattern
# for the names of the features, LEAKS_SLOW how many requests those get that take longest.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use List::Util 'max';
use Memory;
use Nginx;
use Test::More;
use Time::HiRes 'time';

plan skip_all => 'AddressSanitizer keeps what is freed, and looks for leaks itself' if ($ENV{STOCK} // '') eq 'sanitize';

my $long = $ENV{LEAKS};
my $requests = $long // 6_000;
my $slow = $ENV{LEAKS_SLOW} // $long // 1_000;
my $only = $ENV{LEAKS_ONLY} // '';

my $peers = Nginx->new(name => 'peers', level => 'error');
my $root = $peers->root;
my $tls = "$root/tls";
my $ca = Certificates->new($tls);
$ca->issue('server', names => ['*.example', 'peer.example']);
$ca->issue($_) for qw(one two three);

# Unix sockets where many connections are opened: they leave no ports behind.
$peers->conf(<<"EOC")->start;
keepalive_requests 1000000000;
keepalive_timeout 1h;
ssl_certificate $tls/server.crt;
ssl_certificate_key $tls/server.key;
server { listen 0.0.0.0:${\port(1)}; listen unix:$root/plain.sock; return 200 ok; }
server { listen unix:$root/closed.sock; keepalive_timeout 0; return 200 ok; }
server { listen unix:$root/tls.sock ssl; return 200 ok; }
server { listen unix:$root/closed-tls.sock ssl; keepalive_timeout 0; return 200 ok; }
server { listen 127.0.0.1:${\port(2)}; return 403 no; }
EOC
# Nobody listens there.
my $nobody = port(9);

# A feature is Lua code, where `n` counts the requests, `good()` sets a peer that is well and
# `certified()` shows one of three certificates. The rest: what stands behind the code in upstream{}, what is said in the location, its scheme, the
# status that clients get, a body that they send, whether it is slow, what is said in http{}, how many
# requests it takes at least until all is there that is bounded (16,384 addresses and identities).
my $own = 'assert(balancer.enable_keepalive(60, 0))';
my $pooled = 'keepalive 64; keepalive_requests 1000000000; keepalive_time 10h;';
my $none = '';
my $secure = 'proxy_ssl_server_name on; proxy_ssl_trusted_certificate ' . "$tls/ca.crt;";
my @features = (
    { name => 'set_current_peer', lua => 'good()' },
    { name => 'set_current_peer, a new connection each', lua => "balancer.set_current_peer('unix:$root/closed.sock')", pool => $none },
    { name => '20,000 addresses', first => 1_200, lua => <<'EOC' },
        for i = 1, 20 do
            local k = n % 1000 * 20 + i
            assert(balancer.set_current_peer("10.1." .. math.floor(k / 250) .. "." .. k % 250, 80))
        end
        good()
EOC
    { name => 'host, 40 names', scheme => 'https', location => $secure, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/tls.sock", nil, "n" .. n % 40 .. ".example")
EOC
    { name => 'set_more_tries and retries', lua => <<"EOC" },
        if not balancer.get_last_failure() then
            balancer.set_more_tries(2)
            return balancer.set_current_peer("127.0.0.1", $nobody)
        elseif #balancer.get_tried() == 1 then
            return balancer.set_current_peer("127.0.0.1", ${\port(2)})
        end
        good()
EOC
    { name => 'set_peers and get_tried', lua => <<"EOC" },
        local tried = balancer.get_tried()
        if #tried == 0 then
            balancer.set_more_tries(2)
            return balancer.set_peers { { "127.0.0.1", $nobody }, { "127.0.0.1", ${\port(2)}, "a.example" } }
        end
        good()
EOC
    { name => 'set_timeouts', lua => 'good() balancer.set_timeouts(1 + n % 977, 2 + n % 997, 3 + n % 1013)' },
    { name => 'enable_keepalive', pool => $none, lua => "good() $own" },
    { name => 'enable_keepalive, 100 pools', pool => $none, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/plain.sock", nil, { pool = "p" .. n % 100, pool_size = 3 })
        $own
EOC
    { name => 'enable_keepalive, a new pool each', first => 17_000, pool => $none, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/plain.sock", nil, { pool = "pool " .. n, pool_size = 1 })
        $own
EOC
    { name => 'keepalive, an identity each', first => 17_000, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/plain.sock", nil, { pool = "pool " .. n })
EOC
    { name => 'bind_to_local_addr', lua => 'good() assert(balancer.bind_to_local_addr("127.0.1." .. 1 + n % 20))' },
    { name => 'recreate_request', body => 'a body', lua => <<'EOC' },
        good()
        ngx.req.set_header("X-N", n)
        ngx.req.set_body_data(("x"):rep(n % 2000))
        assert(balancer.recreate_request())
EOC
    { name => 'set_upstream_tls', location => $secure, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/" .. (n % 2 == 0 and "tls" or "plain") .. ".sock")
        assert(balancer.set_upstream_tls(n % 2 == 0))
EOC
    { name => 'set_ssl_*', scheme => 'https', location => $secure, lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/tls.sock", nil, "peer.example")
        certified()
EOC
    { name => 'set_ssl_*, a handshake each', slow => 1, scheme => 'https', pool => $none, location => "$secure proxy_ssl_session_reuse off;",
        lua => <<"EOC" },
        balancer.set_current_peer("unix:$root/closed-tls.sock", nil, "peer.example")
        certified()
EOC
    { name => 'TLS sessions', slow => 1, scheme => 'https', pool => $none, location => $secure,
        lua => qq{balancer.set_current_peer("unix:$root/closed-tls.sock", nil, "n" .. n % 20 .. ".example")} },
    { name => 'TLS sessions, shared', slow => 1, scheme => 'https', pool => $none, location => $secure,
        http => 'lua_balancer_ssl_session_cache shared:tls:128k; lua_balancer_ssl_sessions 8;',
        lua => qq{balancer.set_current_peer("unix:$root/closed-tls.sock", nil, "n" .. n % 20 .. ".example")} },
    { name => 'TLS sessions, a new name each', slow => 1, first => 2_000, scheme => 'https', pool => $none, location => $secure,
        http => 'lua_balancer_ssl_session_cache shared:tls:128k;',
        lua => qq{balancer.set_current_peer("unix:$root/closed-tls.sock", nil, "n" .. n .. ".example")} },
    { name => 'ngx.ctx', lua => 'ngx.ctx.n = n ngx.ctx[n] = { n } good() assert(ngx.ctx.n == n)' },
    { name => 'ngx.var', lua => <<'EOC' },
        ngx.var.value = n .. ngx.var.uri .. ngx.var.remote_addr
        assert(ngx.var.value ~= ngx.var.arg_none)
        good()
EOC
    { name => 'ngx.req', body => 'a body', lua => <<'EOC' },
        local headers = ngx.req.get_headers()
        assert(headers.host and ngx.req.get_method() == "POST" and ngx.req.get_body_data() == "a body")
        ngx.req.set_header("X-N", { n, n + 1 })
        ngx.req.clear_header("X-N")
        good()
EOC
    { name => 'ngx.exit', status => 503, lua => 'return ngx.exit(503)' },
    { name => 'ngx.exit(ngx.DECLINED)', lua => <<'EOC' },
        if balancer.get_last_failure() then return good() end
        balancer.set_more_tries(1)
        return ngx.exit(ngx.DECLINED)
EOC
    { name => 'ngx.log and print', level => 'notice', lua => 'ngx.log(ngx.ERR, "line ", n, " of ", true) print("printed ", n) good()' },
    { name => 'arguments that are refused', lua => <<'EOC' },
        assert(not balancer.set_current_peer("no.such.name", 80) and not balancer.set_current_peer("127.0.0.1", n + 1e6))
        assert(not pcall(balancer.set_timeouts, -n))
        assert(not balancer.bind_to_local_addr("nowhere " .. n))
        good()
EOC
    { name => 'Lua errors', status => 500, level => 'error', lua => 'error("failed " .. n)' },
    { name => 'server lines', lua => 'local _', more => "server 127.0.0.1:${\port(1)}; server unix:$root/plain.sock;" },
    { name => 'server lines after a retry', more => "server 127.0.0.1:${\port(1)};", lua => <<"EOC" },
        if not balancer.get_last_failure() then
            balancer.set_more_tries(1)
            balancer.set_current_peer("127.0.0.1", $nobody)
        end
EOC
    { name => 'lua_code_cache off', slow => 1, http => 'lua_code_cache off;', lua => 'good() ngx.ctx.n = n' },
);

my $nginx = Nginx->new(level => 'crit');

sub configure {
    my ($feature) = @_;
    my ($lua, $http, $more, $location, $level) = map $feature->{$_} // '', qw(lua http more location level);
    my $pool = $feature->{pool} // $pooled;
    my $scheme = $feature->{scheme} // 'http';
    $nginx->conf(<<"EOC");
$http
@{[$level && "error_log /dev/null $level;"]}
init_by_lua_block {
    -- Each collection begins when the one before has ended: small waves.
    collectgarbage("setpause", 100)
    balancer = require "ngx.balancer"
    n = 0
    pem = {}
    for _, name in ipairs { "ca.crt", "one.crt", "one.key", "two.crt", "two.key", "three.crt", "three.key" } do
        local file = assert(io.open("$tls/" .. name))
        pem[name] = file:read("*a")
        file:close()
    end
    function good() return assert(balancer.set_current_peer("127.0.0.1", ${\port(1)})) end
    function certified()
        local name = n % 3 == 0 and "one" or n % 3 == 1 and "two" or "three"
        assert(balancer.set_ssl_cert(pem[name .. ".crt"], pem[name .. ".key"]))
        assert(balancer.set_ssl_trusted(pem["ca.crt"]))
        assert(balancer.set_ssl_verify(true, 1))
    end
}
upstream backend {
    $more
    balancer_by_lua_block {
        if not balancer.get_last_failure() then
            n = n + 1
        end
$lua
    }
    $pool
}
upstream collect {
    balancer_by_lua_block {
        collectgarbage()
        collectgarbage()
        return ngx.exit(503)
    }
}
keepalive_requests 1000000000;
server {
    listen 127.0.0.1:${\port(0)};
    set \$value "";
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream error timeout http_403 non_idempotent;
    location / { $location proxy_pass $scheme://backend; }
    location = /collect { proxy_pass http://collect; }
}
EOC
}

# Sends requests of the feature. nginx closes after a 500.
sub send_requests {
    my ($feature, $count, $statuses) = @_;
    many(port(0), $count, $statuses, body => $feature->{body}, one_each => ($feature->{status} // 0) == 500);
}

# What the worker has when nothing goes on. LuaJIT collects when it likes, so that its memory comes
# and goes in waves: it is made to collect, several times with some requests between, and the
# smallest number counts. Its heap grows by 128 kB at a time, which is 2 % of a small worker: so the
# waves are kept low, and a full collection, a load that it may not have had before, comes once
# before the first that counts.
sub quiet {
    my ($feature, $worker, $statuses) = @_;
    my $least;
    for (1 .. 5) {
        send_requests($feature, 200, $statuses);
        $nginx->get('/collect', port(0));
        my $now = rss($worker);
        $least = $now if $now < ($least // $now + 1);
    }
    return $least;
}

diag(table_head()) if $long;
for my $feature (grep $_->{name} =~ /$only/, @features) {
    my $name = $feature->{name};
    my $count = $feature->{slow} ? $slow : $requests;
    my $first = max(int($count / ($long ? 10 : 3)), $feature->{first} // 0);
    $count = max($count, int(1.3 * $first));
    configure($feature);
    $nginx->start;
    my $worker = poll { child($nginx->pid) };
    my ($began, %statuses) = (time);
    my @after;
    my $sent = 0;
    for my $upto (int($first / 2), $first, $count) {
        send_requests($feature, $upto - $sent, \%statuses);
        $sent = $upto;
        push @after, [quiet($feature, $worker, \%statuses), descriptors($worker)];
    }
    shift @after;
    my $status = $feature->{status} // 200;
    is(join(' ', sort keys %statuses), $status, "$name: all answers are $status") or diag(explain(\%statuses));
    cmp_ok($after[1][0], '<=', $after[0][0] + allowed($after[0][0], $long), "$name: no memory is lost")
        or diag("$after[0][0] kB after $first requests, $after[1][0] kB after $count");
    cmp_ok($after[1][1], '<=', $after[0][1] + 64, "$name: no descriptor is lost");
    is(child($nginx->pid), $worker, "$name: the worker is the same");
    diag(table_line($name, $count, map($_->[0], @after), time - $began)) if $long;
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, "$name: nothing odd in the log");
}

done_testing();
