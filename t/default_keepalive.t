# nginx's own keepalive around the balancer: the one that it has by default since 1.29.7, `keepalive 0`
# and an explicit one, alone and together with enable_keepalive(). On older nginx the same
# configurations do what they have always done there.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Pools;
use Test::More;
use Time::HiRes 'time';
use Verdict;

my $nginx = Nginx->new;
my $by_default = $nginx->version >= 1.029007;
my $default = $by_default ? 'the default keepalive' : 'no keepalive by default';

# Where `keep` is in the request, enable_keepalive is called with it; `/1` and `/2` are two locations.
sub conf {
    my ($after, %more) = @_;
    $nginx->conf(<<"EOC");
upstream backend {
    @{[$more{server} // '']}
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local var = ngx.var
        local peers = { ${\port(1)}, ${\port(2)}, ${\port(3)} }
        if var.arg_lines then
            return
        end
        assert(balancer.set_current_peer("127.0.0.1", peers[tonumber(var.arg_peer or 1)]))
        if var.arg_keep then
            local idle, max = var.arg_keep:match("^([%d.]+),(%d+)\$")
            assert(balancer.enable_keepalive(tonumber(idle), tonumber(max)))
        end
        if var.arg_t then
            assert(balancer.set_timeouts(tonumber(var.arg_t), 5, 5))
        end
    }
    $after
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Idle \$balancer_keepalive_idle;
    add_header X-Reused \$balancer_connection_reused;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend; }
    location /1 { proxy_read_timeout 11s; proxy_pass http://backend; }
    location /2 { proxy_read_timeout 12s; proxy_pass http://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    listen 127.0.0.1:${\port(3)};
    location / { return 200 '$saw'; }
}
EOC
    return $nginx;
}

sub idle { $nginx->get('/?peer=3', port(0))->{head} =~ /^X-Idle: (\d+)\r$/m ? $1 : 'no header' }

sub reused { join ' ', map $_->{head} =~ /^X-Reused: (\d)\r$/m ? $1 : '-', @_ }

# Without any directive.
{
    conf('')->start;
    my @answers = carried($nginx, ('/') x 5);
    is(on(@answers), kept($by_default, (1) x 5), "$default: nothing is written, and nothing is called");
    is(reused(@answers), $by_default ? '0 1 1 1 1' : '0 0 0 0 0', "$default: \$balancer_connection_reused says so");
    is(idle(), 0, "$default: \$balancer_keepalive_idle counts what Lua keeps");
    @answers = carried($nginx, map "/?peer=$_", 2, 3, 2, 3, 2, 3);
    is(on(map $answers[$_], 2 .. 5), on(@answers[2 .. 5]), "$default: several peers");
    my %of = map { ($_->{on} =~ /^(\w)/)[0] => 1 } @answers;
    is(scalar keys %of, $by_default ? 2 : 6, "$default: a connection for each of them");
    $nginx->stop;
}

# nginx keeps connections for each location: another one has settings of its own.
{
    conf('')->start;
    my @answers = carried($nginx, qw(/1 /2 /1 /2 /1 /1?t=7 /1?t=8 /2?t=7 /1));
    is(on(@answers), kept($by_default, qw(1 2 1 2 1 1 1 2 1)),
        "$default: two locations have their own, and timeouts from Lua do not count");
    $nginx->stop;
}

# 32 of them.
if ($by_default) {
    conf('')->start;
    my @clients = map {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0)) or die "connect: $!";
        $socket;
    } 1 .. 3;
    print $_ "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" for @clients;
    my @bodies = map { local $/; <$_> } @clients;
    is(scalar(grep /connection=\d+/, @bodies), 3, "$default: three at the same time");
    like($nginx->get('/', port(0))->{body}, qr/request=[2-9]/, "$default: and one more");
    $nginx->stop;
}

# keepalive 0 turns it off; older nginx does not know it.
{
    my $nginx = conf('keepalive 0;');
    if ($by_default) {
        accepts($nginx, 'keepalive 0');
        $nginx->start;
        is(on(carried($nginx, ('/') x 3)), 'a1 b1 c1', 'keepalive 0: a connection for each request');
        is(on(carried($nginx, ('/?keep=60,100') x 3)), 'a1 a2 a3', 'keepalive 0: enable_keepalive is effective');
        is(idle(), 1, 'keepalive 0: in a pool of its own');
        $nginx->stop;
    } else {
        refuses($nginx, 'keepalive 0', qr/invalid value "0" in "keepalive" directive/);
    }
}

# enable_keepalive() is effective all the same, with its own limits.
{
    conf('')->start;
    is(on(carried($nginx, ('/?keep=60,3') x 7)), 'a1 a2 a3 b1 b2 b3 c1', "$default, enable_keepalive: its own number of requests");
    is(idle(), 1, "$default, enable_keepalive: in its own pool");
    ok(idle() == 1, "$default, enable_keepalive: where it stays");
    my @answers = carried($nginx, '/?keep=60,3', '/', '/?keep=60,3', '/');
    is(on(@answers[0, 2]), 'a2 a3', "$default, enable_keepalive: for who asks for it");
    isnt(substr($answers[1]{on}, 0, 1), 'a', "$default, enable_keepalive: and not for others");
    $nginx->stop;

    conf('')->start;
    my $began = time;
    my $seconds = $Nginx::patience / 50;
    is(on(carried($nginx, ("/?keep=$seconds,0") x 2)), 'a1 a2', "$default, enable_keepalive: a timeout of its own");
    is(idle(), 1, "$default, enable_keepalive: is kept");
    ok(poll { idle() == 0 }, "$default, enable_keepalive: and closed");
    cmp_ok(time - $began, '>=', $seconds - 0.01, "$default, enable_keepalive: not too early");
    $nginx->stop;

    # Two locations share what Lua keeps, since timeouts are no part of what a connection is.
    conf('')->start;
    is(on(carried($nginx, '/1?keep=60,0', '/2?keep=60,0', '/1?keep=60,0&t=3', '/?keep=60,0')), 'a1 a2 a3 a4',
        "$default, enable_keepalive: for all locations");
    $nginx->stop;
}

# An explicit keepalive goes before enable_keepalive().
{
    my $name = 'an explicit keepalive';
    conf('keepalive 4;')->start;
    is(on(carried($nginx, ('/?keep=60,2') x 5)), 'a1 a2 a3 a4 a5', "$name: the number of requests is not that of enable_keepalive");
    is(idle(), 0, "$name: nothing is in the pool of enable_keepalive");
    is(on(carried($nginx, '/', '/?keep=60,2')), 'a6 a7', "$name: it makes no difference who calls it");
    $nginx->stop;

    conf('keepalive 4; keepalive_requests 3;')->start;
    is(on(carried($nginx, ('/?keep=60,100') x 7)), 'a1 a2 a3 b1 b2 b3 c1', "$name: keepalive_requests goes before its max_requests");
    is(idle(), 0, "$name: and what nginx gives up is not kept either");
    $nginx->stop;

    conf('keepalive 4; keepalive_timeout 300ms;')->start;
    my $began = time;
    is(on(carried($nginx, '/?keep=60,100', '/?keep=60,100')), 'a1 a2', "$name: keepalive_timeout: a connection is kept");
    my $open = sub {
        open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
        my $port = sprintf '%04X', port(1);
        return scalar grep /^\s*\d+: \S+ \S+:$port 01 /, <$in>;
    };
    ok(poll { $open->() == 0 }, "$name: keepalive_timeout: and closed");
    cmp_ok(time - $began, '<', 10, "$name: keepalive_timeout: not at the time of enable_keepalive");
    $nginx->stop;

    conf('keepalive 1;')->start;
    is(on(carried($nginx, map "/?keep=60,100&peer=$_", 1, 2, 1, 2)), 'a1 b1 c1 d1', "$name: its number of connections counts");
    is(idle(), 0, "$name: and what makes room is not kept either");
    $nginx->stop;
}

unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'nothing odd in the log');

done_testing();
