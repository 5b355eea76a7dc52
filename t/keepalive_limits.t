# How long a connection is kept: the idle timeout and the whole time, from enable_keepalive and from
# balancer_keepalive. What nginx sets its timers to is read from its debug log.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Pools;
use Test::More;
use Time::HiRes 'time';

# A part of a second that is long enough for some requests, however slow all is.
my $short = $Nginx::patience / 50;
my $short_ms = int(1000 * $short);

my $nginx = Nginx->new(level => 'debug');

# A request that leaves the pool alone shows what is idle.
sub start {
    my ($lua, $directive) = @_;
    $nginx->conf(<<"EOC")->start;
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        balancer.set_current_peer("127.0.0.1", ngx.var.arg_look and ${\port(2)} or ${\port(1)})
        if not ngx.var.arg_look then
            $lua
        end
    }
    @{[$directive // '']}
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Idle \$balancer_keepalive_idle;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    keepalive_timeout 100000s;
    return 200 '$saw';
}
EOC
}

sub idle { $nginx->get('/?look=1', port(0))->{head} =~ /^X-Idle: (\d+)\r$/m ? $1 : 'no header' }

# How long nginx waits for an event once it has put a connection away, in milliseconds: until the
# first of its timers. The peers wait for longer than any connection is kept.
sub waits {
    my $log = $nginx->log;
    $log =~ /^.*lua balancer: keepalive saving connection/s or return 'not saved';
    return substr($log, $+[0]) =~ /epoll timer: (-?\d+)$/m ? $1 : 'no wait';
}

for my $case (
    ['balancer.enable_keepalive()', 60000],
    ['balancer.enable_keepalive(nil, 5)', 60000],
    ['balancer.enable_keepalive(7)', 7000],
    ['balancer.enable_keepalive(0.25)', 250],
    ['balancer.enable_keepalive(0.0625, 1000)', 62],
    ['balancer.enable_keepalive(86400)', 86400000],
    # No limit: what is left is what the peer waits for.
    ['balancer.enable_keepalive(0)', 100000000],
    ['balancer.enable_keepalive(0, 0)', 100000000],
    # Less than a millisecond is not "no limit".
    ['balancer.enable_keepalive(0.0001)', 1],
) {
    my ($lua, $limit) = @$case;
    start($lua);
    is($nginx->get('/', port(0))->{status}, 200, "$lua: answered");
    # Some ms may have passed since.
    my $waits = poll { waits() =~ /^(\d+)$/ ? $1 : 0 };
    cmp_ok($waits, '<=', $limit, "$lua: idle for at most $limit ms");
    cmp_ok($waits, '>=', $limit - $short_ms / 6, "$lua: and no less");
    $nginx->stop;
}

# A connection that nobody wants is closed when its time has come, and not before.
{
    start('balancer.enable_keepalive(0.4)');
    my $began = time;
    is(on(carried($nginx, '/')), 'a1', 'an idle timeout: a connection');
    is(idle(), 1, 'an idle timeout: is kept');
    ok(poll { idle() == 0 }, 'an idle timeout: and closed');
    my $took = time - $began;
    cmp_ok($took, '>=', 0.39, 'an idle timeout: not too early');
    cmp_ok($took, '<', 5, 'an idle timeout: not too late');
    is($nginx->logged('lua balancer: keepalive closing connection'), 1, 'an idle timeout: as the log says');
    is(on(carried($nginx, '/')), 'a1', 'an idle timeout: the next request has another');
    $nginx->stop;
}

# Each use starts the time again, and each request sets its own.
{
    start('balancer.enable_keepalive(tonumber(ngx.var.arg_idle))');
    my @answers = carried($nginx, '/?idle=60', '/?idle=0.2');
    is(on(@answers), 'a1 a2', 'another timeout: the same connection');
    ok(poll { idle() == 0 }, 'another timeout: closed after that of its last request');
    @answers = carried($nginx, '/?idle=0.3', '/?idle=0');
    is(on(@answers), 'a1 a2', 'no timeout: the same connection');
    my $until = time + 0.6;
    my $idle = 1;
    $idle &&= idle() while time < $until;
    is($idle, 1, 'no timeout: the old one does not count');
    $nginx->stop;
}

# The whole time: a connection that has been open for longer carries no further request once it has
# answered.
sub replaced_after {
    my ($name, $limit) = @_;
    my $began = time;
    my @answers;
    my $replaced = poll {
        push @answers, $nginx->get('/', port(0))->{body};
        $answers[-1] =~ /request=1 / && @answers > 1;
    };
    my $took = time - $began;
    ok($replaced, "$name: the connection is replaced");
    cmp_ok(scalar @answers, '>', 2, "$name: after some requests");
    cmp_ok($took, '>=', $limit, "$name: not too early");
    my %connections = map { /connection=(\d+)/ ? ($1 => 1) : () } @answers;
    is(scalar keys %connections, 2, "$name: by one other");
    $nginx->stop;
}

start("balancer.enable_keepalive(60, 0, $short)");
replaced_after('a time from Lua', $short);

start('balancer.enable_keepalive(60, 0)', "balancer_keepalive 10 time=${short_ms}ms;");
replaced_after('a time from the directive', $short);

start("balancer.enable_keepalive(60, 0, $short)", 'balancer_keepalive 10 time=1h;');
replaced_after('a time from Lua goes before the directive', $short);

for my $case (
    ['Lua says no limit', 'balancer.enable_keepalive(60, 0, 0)', 'balancer_keepalive 10 time=100ms;'],
    ['the default time is long', 'balancer.enable_keepalive(60, 0)', 'balancer_keepalive 10;'],
    ['a time of 0 is no limit', 'balancer.enable_keepalive(60, 0)', 'balancer_keepalive 10 time=0;'],
) {
    my ($name, @conf) = @$case;
    start(@conf);
    my $until = time + 0.4;
    my %connections;
    while (time < $until) {
        $connections{$1} = 1 if $nginx->get('/', port(0))->{body} =~ /connection=(\d+)/;
    }
    is(scalar keys %connections, 1, "$name: one connection for all");
    $nginx->stop;
}

unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'nothing odd in the log');

done_testing();
