# The debug lines of enable_keepalive's pool, in lua-nginx-module's words: people's tooling reads them.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools;
use Test::More;

my $nginx = Nginx->new(level => 'debug');
my $root = $nginx->root;
Certificates->new("$root/tls")->issue('server', names => ['a.example']);

sub start {
    my ($lua) = @_;
    $nginx->conf(<<"EOC")->start;
upstream backend {
    balancer_keepalive 2;
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local var = ngx.var
        $lua
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend; }
    location /tls { proxy_ssl_server_name on; proxy_pass https://backend; }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen [::1]:${\port(1)};
    listen unix:$root/peer.sock;
    listen 127.0.0.1:${\port(2)} ssl;
    ssl_certificate $root/tls/server.crt;
    ssl_certificate_key $root/tls/server.key;
    return 200 '$saw';
}
EOC
}

# The lines so far, with A, B, … for the connections in the order of their first appearance.
sub lines {
    my %letter;
    return map {
        my $line = $_;
        $line =~ s{connection ([0-9A-F]{16})\b}{
            $letter{$1} = chr(ord('A') + keys %letter) if !exists $letter{$1};
            "connection $letter{$1}";
        }e;
        $line;
    } $nginx->log =~ /\[debug\] .*?(?:\*\d+ )?(lua balancer: keepalive .*)$/mg;
}

# What the balancer says of requests, one after the other.
sub said {
    my ($lua, $expected, $name, @paths) = @_;
    start($lua);
    carried($nginx, @paths);
    is_deeply([lines()], $expected, $name);
    $nginx->stop;
}

my ($plain, $tls) = ("127.0.0.1:${\port(1)}", "127.0.0.1:${\port(2)}");

# The third request's connection may be where the first one was: only the words count there.
start("balancer.set_current_peer('127.0.0.1', ${\port(1)}, 'a.example') balancer.enable_keepalive(60, 2)");
carried($nginx, '/', '/', '/');
is_deeply([(lines())[0 .. 4]], [
    "lua balancer: keepalive no free connection, host: $plain, name: a.example",
    "lua balancer: keepalive saving connection A, host: $plain, name: a.example",
    "lua balancer: keepalive reusing connection A, host: $plain, name: a.example",
    'lua balancer: keepalive not saving connection A',
    "lua balancer: keepalive no free connection, host: $plain, name: a.example",
], 'a connection with a name, for two requests');
like((lines())[5], qr/^lua balancer: keepalive saving connection \w, host: \Q$plain\E, name: a\.example$/, 'and its successor');
is(scalar(lines()), 6, 'and nothing else');
$nginx->stop;

said("balancer.set_current_peer('127.0.0.1', ${\port(1)}) balancer.enable_keepalive()", [
    "lua balancer: keepalive no free connection, host: $plain, name: ",
    "lua balancer: keepalive saving connection A, host: $plain, name: ",
    "lua balancer: keepalive reusing connection A, host: $plain, name: ",
    "lua balancer: keepalive saving connection A, host: $plain, name: ",
], 'no name', '/', '/');

said("balancer.set_current_peer('::1', ${\port(1)}) balancer.enable_keepalive()", [
    "lua balancer: keepalive no free connection, host: [::1]:${\port(1)}, name: ",
    "lua balancer: keepalive saving connection A, host: [::1]:${\port(1)}, name: ",
], 'IPv6', '/');

said("balancer.set_current_peer('unix:$root/peer.sock') balancer.enable_keepalive()", [
    "lua balancer: keepalive no free connection, host: unix:$root/peer.sock, name: ",
    "lua balancer: keepalive saving connection A, host: unix:$root/peer.sock, name: ",
], 'a unix socket', '/');

said("balancer.set_current_peer('127.0.0.1', ${\port(2)}, 'a.example') balancer.enable_keepalive()", [
    "lua balancer: keepalive no free connection, host: $tls, name: a.example",
    "lua balancer: keepalive saving connection A, host: $tls, name: a.example",
    "lua balancer: keepalive reusing connection A, host: $tls, name: a.example",
    "lua balancer: keepalive saving connection A, host: $tls, name: a.example",
], 'TLS', '/tls', '/tls');

# Who makes room is closed before the other is put away.
said("balancer.set_current_peer('127.0.0.1', ${\port(1)}, { pool = var.arg_pool }) balancer.enable_keepalive()", [
    map({ ("lua balancer: keepalive no free connection, host: $plain, name: ",
        "lua balancer: keepalive saving connection $_, host: $plain, name: ") } qw(A B)),
    "lua balancer: keepalive no free connection, host: $plain, name: ",
    'lua balancer: keepalive closing connection A',
    "lua balancer: keepalive saving connection C, host: $plain, name: ",
], 'one makes room', map "/?pool=$_", 1 .. 3);

# One that has been idle for too long.
{
    start("balancer.set_current_peer('127.0.0.1', ${\port(1)}) balancer.enable_keepalive(0.1)");
    carried($nginx, '/');
    ok(poll { $nginx->logged('lua balancer: keepalive closing connection') }, 'an idle timeout');
    is_deeply([lines()], [
        "lua balancer: keepalive no free connection, host: $plain, name: ",
        "lua balancer: keepalive saving connection A, host: $plain, name: ",
        'lua balancer: keepalive closing connection A',
    ], 'an idle timeout: all that is said');
    $nginx->stop;
}

# Without enable_keepalive nothing is said, nor with a `keepalive` that goes before it.
said("balancer.set_current_peer('127.0.0.1', ${\port(1)})", [], 'not asked for', '/', '/');

# A try that fails.
start("balancer.set_current_peer('127.0.0.1', ${\port(9)}) balancer.enable_keepalive()");
is($nginx->get('/', port(0))->{status}, 502, 'a peer that is down');
is((lines())[0], "lua balancer: keepalive no free connection, host: 127.0.0.1:${\port(9)}, name: ", 'a peer that is down: what is said first');
like((lines())[1], qr/^lua balancer: keepalive not saving connection \w+$/, 'a peer that is down: and then');
$nginx->stop;

done_testing();
