# nginx's own keepalive around and under the balancer: what is counted is the connections on the
# peers' side.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Peer;
use POSIX ();
use Test::More;

Peer::start(fastcgi => port(5));
Peer::start(memcached => port(6));

my $nginx = Nginx->new;
my $http2 = $nginx->version >= 1.025001 ? "listen 127.0.0.1:${\port(7)}; http2 on;" : "listen 127.0.0.1:${\port(7)} http2;";

# From 1.29.7 on, nginx keeps connections also where no keepalive is written.
my $by_default = $nginx->version >= 1.029007;

my $lua = <<"EOC";
balancer_by_lua_block {
    local ports = { ${\port(1)}, ${\port(2)}, ${\port(3)}, ${\port(4)}, ${\port(5)}, ${\port(6)}, ${\port(7)}, ${\port(9)} }
    local n = tonumber(ngx.var.arg_peer)
    if n then
        assert(require("ngx.balancer").set_current_peer("127.0.0.1", ports[n]))
    end
}
EOC

# Starts nginx with these directives around the balancer of `backend`.
sub start {
    my ($upstream) = @_;
    $upstream =~ s/LUA/$lua/;
    $nginx->conf(<<"EOC");
upstream backend {
$upstream
}
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend; }
    location /fastcgi {
        fastcgi_keep_conn on;
        fastcgi_param REQUEST_METHOD \$request_method;
        fastcgi_param REQUEST_URI \$request_uri;
        fastcgi_pass backend;
    }
    location /memcached { set \$memcached_key \$uri; memcached_pass backend; }
    location /grpc { grpc_pass grpc://backend; }
    location /close { proxy_set_header Connection close; proxy_pass http://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    listen 127.0.0.1:${\port(3)};
    location / { return 200 "connection \$connection, request \$connection_requests"; }
    location /status { return 404 "connection \$connection, request \$connection_requests"; }
}
server {
    # One that closes after two requests.
    listen 127.0.0.1:${\port(4)};
    keepalive_requests 2;
    location / { return 200 "connection \$connection, request \$connection_requests"; }
}
server {
    $http2
    location / { return 200 "connection \$connection, request \$connection_requests"; }
}
EOC
    $nginx->start;
}

# Requests one after the other; for each a letter for its connection on the peer's side (in the
# order of their first use) and the request's number on it.
sub used {
    my (@paths) = @_;
    my %letter;
    return join ' ', map {
        my $answer = $nginx->get($_, port(0));
        my ($protocol) = m{^/([a-z]+)};
        my ($connection, $request) = $answer->{body} =~ /connection (\d+), request (\d+)/
            or return "$answer->{status} for $_";
        my ($peer) = /peer=(\d)/;
        my $key = ($peer // '') . " $connection";
        $letter{$key} = chr(ord('a') + keys %letter) if !exists $letter{$key};
        $letter{$key} . $request;
    } @paths;
}

sub to { map "/?peer=$_", @_ }

for my $conf ("server 0.0.0.1;\nLUA\nkeepalive 10;", "LUA\nkeepalive 10;") {
    my $name = $conf =~ /server/ ? 'placeholder' : 'no server';
    start($conf);
    is(used(to(1, 1, 1, 1, 1)), 'a1 a2 a3 a4 a5', "$name: one connection for five requests");
    is(used(to(2, 3, 2, 3)), 'a1 b1 a2 b2', "$name: one for each peer");
    is(used(to(1, 2, 3)), 'a6 b3 c3', "$name: each peer still has its own");
    is(used('/status?peer=1', to(1)), 'a7 a8', "$name: an answer with an error keeps it too");
    is(used('/close?peer=1', to(1, 1)), 'a9 b1 b2', "$name: a connection that closes is not kept");
    is(used(to(4, 4, 4, 4, 4)), 'a1 a2 b1 b2 c1', "$name: one that the peer closes neither");
    is(used(map "/fastcgi?peer=5", 1 .. 3), 'a1 a2 a3', "$name: fastcgi");
    is(used(map "/memcached?peer=6", 1 .. 3), 'a1 a2 a3', "$name: memcached");
    is(used(map "/grpc?peer=7", 1 .. 3), 'a1 a2 a3', "$name: grpc");
    is(used(to(8)), '502 for /?peer=8', "$name: a dead peer is a 502");
    is($nginx->get('/', port(0))->{status}, 500, "$name: no peer is a 500");
    is(used(to(2, 3)), 'a4 b4', "$name: and the connections of the others are kept");
    $nginx->stop;
    unlike($nginx->said, qr/\[warn\] .*load balancing method redefined/, "$name: the order that is meant");
    unlike($nginx->log, qr/exited on signal|\[alert\]|internal error|0\.0\.0\.1/, "$name: nothing odd in the log");
}

# Written before the balancer, the pool is under it: what Lua chooses does not pass through it, the
# peers of the server lines do. From 1.29.7 on nginx puts its pool around all, wherever it is written.
start("server 127.0.0.1:${\port(1)};\nkeepalive 10;\nLUA");
is($nginx->said =~ qr{\[warn\] .*load balancing method redefined in \S+/nginx\.conf:9$}m ? 1 : 0, $by_default ? 0 : 1,
    'keepalive before: is warned of where it matters');
is(used('/', '/', '/'), 'a1 a2 a3', 'keepalive before: server lines have it');
is(used(to(2, 2, 2)), $by_default ? 'a1 a2 a3' : 'a1 b1 c1',
    'keepalive before: Lua has ' . ($by_default ? 'it too' : 'a connection for each request'));
like($nginx->get('/', port(0))->{body}, qr/, request 4$/, 'keepalive before: the one does not disturb the other');
$nginx->stop;
unlike($nginx->log, qr/exited on signal|\[alert\]|internal error/, 'keepalive before: nothing odd in the log');

start("server 127.0.0.1:${\port(1)};\nleast_conn;\nLUA");
like($nginx->said, qr{\[warn\] .*load balancing method redefined in \S+/nginx\.conf:9$}m, 'least_conn before: nginx warns');
is(join(' ', map $nginx->get($_, port(0))->{status}, '/', to(2)), '200 200', 'least_conn before: both answer');
$nginx->stop;

start("LUA\nkeepalive 1;");
is(used(to(1, 1, 2, 2, 1)), 'a1 a2 b1 b2 c1', 'keepalive 1: the connection of the other peer makes room');
$nginx->stop;

start("LUA\nkeepalive 2;");
is(used(to(1, 2, 3, 3, 2, 1)), 'a1 b1 c1 c2 b2 d1', 'keepalive 2: the one longest unused goes');
$nginx->stop;

start("LUA\nkeepalive 10;\nkeepalive_requests 3;");
is(used(to(1, 1, 1, 1, 1)), 'a1 a2 a3 b1 b2', 'keepalive_requests is obeyed');
$nginx->stop;

start('LUA');
is(used(to(1, 1, 1)), $by_default ? 'a1 a2 a3' : 'a1 b1 c1',
    'no keepalive: ' . ($by_default ? "nginx's default keeps them" : 'a connection for each request'));
$nginx->stop;

# Peers from the server lines, those of Lua, and the same pool.
start("server 127.0.0.1:${\port(1)};\nLUA\nkeepalive 10;");
is(used('/', '/', '/'), 'a1 a2 a3', 'round robin: one connection');
like($nginx->get('/?peer=1', port(0))->{body}, qr/, request 4$/, 'which is the one for Lua too, the address being the same');
is(used(to(2, 2)), 'a1 a2', 'and another peer has another');
$nginx->stop;

# The connections in use at a time are as many as the requests.
{
    start("LUA\nkeepalive 10;");
    my @pids;
    for my $n (1 .. 4) {
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            my @bodies = map { $nginx->get('/?peer=' . (1 + $_ % 3), port(0))->{body} } 1 .. 50;
            POSIX::_exit(scalar grep { !/^connection/ } @bodies);
        }
        push @pids, $pid;
    }
    my $failed = 0;
    for (@pids) {
        waitpid $_, 0;
        $failed += $? >> 8;
    }
    is($failed, 0, 'requests at the same time are all answered');
    my $answer = $nginx->get('/?peer=1', port(0))->{body};
    like($answer, qr/request (?:[2-9]|\d\d+)$/, 'over connections that are kept');
    $nginx->stop;
    unlike($nginx->log, qr/\[(?:error|crit|alert|emerg)\]/, 'without an error');
}

done_testing();
