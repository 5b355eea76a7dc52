# A Rust panic costs its request, is told of in one line, and the worker goes on. Wants a module with the
# feature panic-points: make test-panics.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Test::More;

my $module = (split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '')[0] // '';
index(slurp($module), 'ngx_http_lua_balancer_panic_at') >= 0
    or plan skip_all => 'the module has no panic points: make test-panics';

my $nginx = Nginx->new;
my $tls = $nginx->root . '/tls';
Certificates->new($tls)->issue('server', names => ['a.example']);

$nginx->conf(<<"EOC");
init_by_lua_block {
    local ffi = require "ffi"
    ffi.cdef "void ngx_http_lua_balancer_panic_at(const char *name);"
    balancer = require "ngx.balancer"
    panic_at = ffi.C.ngx_http_lua_balancer_panic_at
}
upstream backend {
    balancer_by_lua_block {
        local at = ngx.var.arg_at
        if at then
            panic_at(at)
        end
        balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.port))
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location / { set \$port ${\port(1)}; proxy_pass http://backend; }
    location /tls { set \$port ${\port(2)}; proxy_pass https://backend; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
server {
    listen 127.0.0.1:${\port(2)} ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    return 200 "peer one";
}
EOC
$nginx->start;

my $worker;

sub ask {
    my ($path) = @_;
    my $answer = $nginx->get($path, port(0));
    $worker ||= $answer->{worker};
    return "$answer->{status} $answer->{worker}";
}

is(ask('/tls'), "200 $worker", 'at first');
# Where each place is: file, line and column of the call.
my %place;
for my $file (split ' ', `find src -name '*.rs'`) {
    my $number = 0;
    for my $line (split /\n/, slurp($file)) {
        $number++;
        push @{$place{$2}}, "$file:$number:" . (1 + length $1) if $line =~ /^(\s*)panic_point\("(\w+)"\)/;
    }
}
is(join(' ', map "$_:" . @{$place{$_}}, sort keys %place), 'api:1 free:1 get:1 init_peer:1 set_session:1',
    'each place is one');

for my $case (
    # The request that tells, the one that is hit if it is another, and what they are answered.
    ['api', '/?at=api', 500],
    ['set_session', '/tls?at=set_session', 500],
    ['free', '/?at=free', 200],
    ['get', '/?at=get', 200, '/', 500],
    ['init_peer', '/?at=init_peer', 200, '/', 500],
) {
    my ($name, @asked) = @$case;
    my $before = length $nginx->log;
    while (my ($path, $status) = splice @asked, 0, 2) {
        is(ask($path), "$status $worker", "$name: $path");
    }
    my $log = substr $nginx->log, $before;
    is(scalar(() = $log =~ /\[alert\]/g), 1, "$name: one alert") or diag($log);
    like($log, qr{\[alert\] .*lua balancer: internal error: panicked at \Q$place{$name}[0]\E:\s+told to panic at $name},
        "$name: which says where");
    is(ask($_), "200 $worker", "$name: the same worker serves $_") for qw(/ /tls / /tls);
}
unlike($nginx->log, qr/exited on signal/, 'no worker died');

done_testing();
