# What today's C module does wrong on stock nginx, as it was found there, and what happens here.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools;
use Test::More;

my $nginx = Nginx->new;
my $root = $nginx->root;
my $tls = "$root/tls";
my $by_default = $nginx->version >= 1.029007;

my $ca = Certificates->new($tls);
$ca->issue('server', names => [qw(a.example b.example c.example)]);
$ca->issue($_) for qw(A B);
Certificates->new($tls, 'other');

sub start {
    my ($lua, $locations) = @_;
    $nginx->conf(<<"EOC")->start;
upstream backend {
    server 0.0.0.1;
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        $lua
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    $locations
}
server { listen 127.0.0.1:${\port(1)}; return 200 '$saw'; }
server {
    listen 127.0.0.1:${\port(2)} ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    ssl_client_certificate $tls/ca.crt;
    ssl_verify_client optional;
    return 200 '$saw sni=\$ssl_server_name client=\$ssl_client_s_dn';
}
EOC
}

sub stop {
    my ($name) = @_;
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, "$name: nothing odd in the log");
}

# R1: three SNIs on one ip:port, enable_keepalive(): the second and the third request travelled on
# the connection of the first.
for my $keep ('balancer.enable_keepalive()', '') {
    my $name = 'R1' . ($keep ? '' : ', without enable_keepalive()');
    start("balancer.set_current_peer('127.0.0.1', ${\port(2)}, ngx.var.arg_name) $keep",
        'location / { proxy_ssl_server_name on; proxy_pass https://backend; }');
    my @names = map "$_.example", qw(a b c);
    my @answers = carried($nginx, map "/?name=$_", @names, @names);
    is(seen('sni', @answers), "@names @names", "$name: each goes under its own name");
    is(on(@answers), kept($keep || $by_default, @names, @names), "$name: and over its own connection");
    stop($name);
}

# R2: set_timeouts() with the default keepalive: connections were not used again, or for another
# location.
for my $keep ('', 'balancer.enable_keepalive()') {
    my $name = 'R2' . ($keep ? ', with enable_keepalive()' : '');
    start("balancer.set_current_peer('127.0.0.1', ${\port(1)}) balancer.set_timeouts(1, 2, tonumber(ngx.var.arg_read)) $keep",
        'location /one { proxy_bind 127.0.0.2; proxy_pass http://backend; } location /two { proxy_bind 127.0.0.3; proxy_pass http://backend; }');
    my @paths = map { ("/one?read=$_", "/two?read=$_") } 3, 4, 5, 3;
    my @answers = carried($nginx, @paths);
    is(on(@answers), kept($keep || $by_default, map m{^/(\w+)}, @paths),
        "$name: connections are used again where they are kept, whatever the timeouts");
    is(seen('from', @answers), join(' ', ('127.0.0.2', '127.0.0.3') x 4), "$name: and never for the other location");
    stop($name);
}

# R3: the pool did not look at the client's certificate, nor at verification: location B went out
# with the certificate of A, and one that verifies and must fail went over a connection that was
# never verified.
for my $keep ('balancer.enable_keepalive()', '') {
    my $name = 'R3' . ($keep ? '' : ', without enable_keepalive()');
    start("balancer.set_current_peer('127.0.0.1', ${\port(2)}, 'a.example') $keep", <<"EOC");
location /A { proxy_ssl_certificate $tls/A.crt; proxy_ssl_certificate_key $tls/A.key; proxy_pass https://backend; }
location /B { proxy_ssl_certificate $tls/B.crt; proxy_ssl_certificate_key $tls/B.key; proxy_pass https://backend; }
location /lax { proxy_pass https://backend; }
location /strict { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/other.crt; proxy_pass https://backend; }
EOC
    my @answers = carried($nginx, qw(/A /B /A /B));
    is(seen('client', @answers), 'CN=A CN=B CN=A CN=B', "$name: each location has its own certificate");
    is(on(@answers), kept($keep || $by_default, qw(A B A B)), "$name: on its own connection");
    @answers = carried($nginx, qw(/lax /strict /lax /strict));
    is(join(' ', map $_->{status}, @answers), '200 502 200 502', "$name: verification that must fail does");
    stop($name);
}

done_testing();
