# balancer_keepalive: its values, who makes room in a full pool, pools within the pool, and
# $balancer_keepalive_idle.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Pools;
use Test::More;
use Verdict;

my $nginx = Nginx->new;

# Which connection a request gets is up to where it is to come from, and to its pool.
my $lua = <<"EOC";
balancer_by_lua_block {
    local balancer = require "ngx.balancer"
    local var = ngx.var
    if var.arg_from then
        balancer.bind_to_local_addr("127.0.0." .. var.arg_from)
    end
    local port = var.arg_look and ${\port(2)} or ${\port(1)}
    balancer.set_current_peer("127.0.0.1", port, { pool = var.arg_pool, pool_size = tonumber(var.arg_size) })
    if not var.arg_look then
        balancer.enable_keepalive()
    end
}
EOC

sub conf {
    my (@directives) = @_;
    my $n = 0;
    $nginx->conf(join('', map { $n++; "upstream backend$n {\n$_\n$lua}\n" } @directives) . <<"EOC");
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Idle \$balancer_keepalive_idle;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
@{[join '', map "    location /$_/ { proxy_pass http://backend$_; }\n", 1 .. @directives]}
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    return 200 '$saw';
}
EOC
    return $nginx;
}

sub idle {
    my ($n) = @_;
    return $nginx->get("/$n/?look=1", port(0))->{head} =~ /^X-Idle: (\d+)\r$/m ? $1 : 'no header';
}

# Local addresses, one request from each.
sub from { carried($nginx, map "/1/?from=$_", @_) }

for my $value (qw(1 2 32 1000000), '10 time=1h', '10 time=500ms', '10 time=0', '10 time=1m30s') {
    accepts(conf("balancer_keepalive $value;"), "balancer_keepalive $value");
}

for my $case (
    (map ["$_", qq(invalid value "$_" in "balancer_keepalive" directive)], qw(0 -1 1.5 abc 10x 0x10 1000001 99999999999999999999)),
    ['""', 'invalid value "" in "balancer_keepalive" directive'],
    ['10 time=abc', 'invalid parameter "time=abc"'],
    ['10 time=', 'invalid parameter "time="'],
    ['10 time=-1s', 'invalid parameter "time=-1s"'],
    ['10 1h', 'invalid parameter "1h"'],
    ['10 timeout=1s', 'invalid parameter "timeout=1s"'],
    ['', 'invalid number of arguments in "balancer_keepalive" directive'],
    ['1 time=1s 3', 'invalid number of arguments in "balancer_keepalive" directive'],
    ["1;\nbalancer_keepalive 2", '"balancer_keepalive" directive is duplicate'],
) {
    my ($value, $message) = @$case;
    my $line = $value =~ /\n/ ? 8 : 7;
    refuses(conf("balancer_keepalive $value;"), "balancer_keepalive $value" =~ s/\n/ /r,
        qr{\Q$message\E in \S+/conf/nginx\.conf:$line$}m);
}

for my $context ('', 'server { ', 'server { location / { ') {
    my $closing = $context =~ tr/{//;
    $nginx->conf($context . 'balancer_keepalive 10;' . '}' x $closing . "\n");
    refuses($nginx, "in ${context}…", qr/"balancer_keepalive" directive is not allowed here/);
}

# It may stand after the balancer, and without one.
{
    $nginx->conf("upstream backend {\n$lua\nbalancer_keepalive 3;\n}\nupstream other { server 127.0.0.1:1; balancer_keepalive 3; }\n");
    accepts($nginx, 'after the balancer, and without one');
}

# The least recently used connection makes room.
conf('balancer_keepalive 2;')->start;
is(on(from(2, 3, 2, 3)), 'a1 b1 a2 b2', 'two fit in');
is(idle(1), 2, 'and are idle');
is(on(from(4, 3, 2)), 'a1 b3 c1', 'the one that was not used for the longest time makes room');
is(on(from(2, 3, 4)), 'a2 b4 c1', 'and that is not the oldest one');
is(idle(1), 2, 'the pool does not grow');
$nginx->stop;

conf('balancer_keepalive 1;')->start;
is(on(from(2, 2, 3, 3, 2)), 'a1 a2 b1 b2 c1', 'a pool of one');
is(idle(1), 1, 'has one');
$nginx->stop;

# Of what is closed to make room, the peer learns.
{
    conf('balancer_keepalive 1;')->start;
    from(2, 3, 4);
    my $open = sub {
        open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
        my $port = sprintf '%04X', port(1);
        return scalar grep /^\s*\d+: \S+ \S+:$port 01 /, <$in>;
    };
    ok(poll { $open->() == 1 }, 'what makes room is closed');
    $nginx->stop;
}

# 32 where nothing is said; each upstream has its own.
{
    conf('', 'balancer_keepalive 5;')->start;
    my $most = 0;
    for my $n (1 .. 40) {
        $nginx->get("/1/?pool=$n", port(0));
        $nginx->get("/2/?pool=$n", port(0)) if $n <= 10;
        my $idle = idle(1);
        $most = $idle if $idle > $most;
    }
    is($most, 32, '32 connections by default');
    is(idle(1), 32, 'when there is no end of them');
    is(idle(2), 5, 'another upstream has its own limit');
    is(on(carried($nginx, map "/1/?pool=$_", 40, 9, 8, 7)), 'a2 b2 c1 d1', 'the last 32 of 40 are there');
    $nginx->stop;
}

# A pool within the pool, with a limit of its own.
conf('balancer_keepalive 5;')->start;
carried($nginx, map "/1/?pool=x&size=2&from=$_", 2, 3, 4);
is(idle(1), 2, 'pool_size: two of three');
is(on(carried($nginx, map "/1/?pool=x&size=2&from=$_", 4, 3, 2)), 'a2 b2 c1', 'pool_size: the least recently used makes room');
carried($nginx, map "/1/?pool=y&size=1&from=$_", 2, 3);
is(idle(1), 3, 'pool_size: another name has its own limit');
from(2, 3, 4, 5);
is(idle(1), 5, 'pool_size: all of them fit in the pool as a whole');
is(on(carried($nginx, '/1/?pool=y&size=1&from=3', '/1/?pool=x&size=2&from=2')), 'a2 b1',
    'pool_size: the least recently used of all makes room for it');
$nginx->stop;

conf('balancer_keepalive 5;')->start;
carried($nginx, map "/1/?pool=x&from=$_", 2 .. 6);
is(idle(1), 5, 'pool: without a size its limit is that of the pool');
carried($nginx, '/1/?pool=x&size=2&from=7');
is(idle(1), 5, 'pool_size: one more makes room for itself alone');
$nginx->stop;

# Many at the same time: what was in use counts when it comes back.
{
    conf('balancer_keepalive 3;')->start;
    my @clients = map { my $pid = fork // die "fork: $!"; if (!$pid) { $nginx->get('/1/', port(0)) for 1 .. 20; require POSIX; POSIX::_exit(0) } $pid } 1 .. 8;
    waitpid $_, 0 for @clients;
    cmp_ok(idle(1), '<=', 3, 'no more than the limit after many at once');
    cmp_ok(idle(1), '>=', 1, 'and not none');
    $nginx->stop;
}
unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'nothing odd in the log');

done_testing();
