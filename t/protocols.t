# Every module of nginx that passes requests on, to peers that Lua has chosen.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Peer;
use Test::More;

my @protocols = qw(fastcgi uwsgi scgi memcached);
my %port = (http => port(1), grpc => port(2), map { $protocols[$_] => port(3 + $_) } 0 .. $#protocols);
my ($nobody, $closed) = (port(9), port(10));

Peer::start($_ => $port{$_}) for @protocols;

my $nginx = Nginx->new;
my $http2 = $nginx->version >= 1.025001 ? "listen 127.0.0.1:$port{grpc}; http2 on;" : "listen 127.0.0.1:$port{grpc} http2;";

# One upstream a protocol: `to` names the ports to try, one after the other.
sub upstream {
    my ($name, $port) = @_;
    return <<"EOC";
upstream $name {
    server 0.0.0.1;
    server 0.0.0.1;
    balancer_by_lua_block {
        local try = (ngx.ctx.try or 0) + 1
        ngx.ctx.try = try
        local how = ngx.var.http_x_how
        if how == "fail" then
            error("told to fail")
        elseif how == "retry" and try == 1 then
            require("ngx.balancer").set_current_peer("127.0.0.1", $nobody)
        elseif how ~= "none" then
            require("ngx.balancer").set_current_peer("127.0.0.1", $port)
        end
    }
}
EOC
}

my %location = (
    http => 'proxy_pass http://http; proxy_http_version 1.1; proxy_set_header Connection "";',
    fastcgi => 'fastcgi_pass fastcgi; fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri;',
    uwsgi => 'uwsgi_pass uwsgi; uwsgi_param REQUEST_METHOD $request_method; uwsgi_param REQUEST_URI $request_uri; uwsgi_param CONTENT_LENGTH $content_length;',
    scgi => 'scgi_pass scgi; scgi_param REQUEST_METHOD $request_method; scgi_param REQUEST_URI $request_uri;',
    memcached => 'set $memcached_key $uri; memcached_pass memcached;',
    grpc => 'grpc_pass grpc://grpc;',
);

$nginx->conf(join('', map upstream($_, $port{$_}), sort keys %location) . <<"EOC");
log_format peer '\$server_port \$request_method \$request_uri [\$http_x_mark]';
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Addr \$upstream_addr always;
@{[join '', map "    location /$_ { $location{$_} }\n", sort keys %location]}
    location /variable { set \$where http; proxy_pass http://\$where; }
    location /uri { proxy_pass http://http/moved; }

    location /guarded {
        auth_request /auth;
        auth_request_set \$user \$upstream_http_x_user;
        add_header X-User \$user;
        proxy_pass http://http;
    }
    location = /auth {
        internal;
        proxy_pass http://http/auth;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
    }

    location /mirrored {
        mirror /copy;
        proxy_pass http://http;
    }
    location = /copy {
        internal;
        proxy_set_header X-Mark copy;
        proxy_pass http://http\$request_uri;
    }
}
server {
    listen 127.0.0.1:$port{http};
    access_log logs/peer.log peer;
    add_header X-Connection \$connection;
    add_header X-Requests \$connection_requests;
    location / { return 200 "http: \$request_method \$request_uri\\n"; }
    location /auth { add_header X-User "user of \$http_x_key"; if (\$http_x_key = mine) { return 204; } return 403; }
}
server {
    $http2
    access_log logs/peer.log peer;
    location / { return 200 "grpc: \$request_method \$request_uri \$server_protocol\\n"; }
}
EOC
$nginx->start;

my %expected = (
    http => "http: GET /http?a=b\n",
    grpc => "grpc: GET /grpc?a=b HTTP/2.0\n",
    memcached => qr{^memcached: get /memcached, connection \d+, request \d+\n$},
    map { $_ => qr{^$_: GET /$_\?a=b \[\], connection \d+, request 1\n$} } qw(fastcgi uwsgi scgi),
);

sub matches {
    my ($got, $expected, $name) = @_;
    return ref $expected ? like($got, $expected, $name) : is($got, $expected, $name);
}

for my $protocol (sort keys %location) {
    my $get = sub { $nginx->get("/$protocol?a=b", port(0), @_) };

    my $answer = $get->();
    is($answer->{status}, 200, "$protocol: answered") or diag($nginx->log);
    matches($answer->{body}, $expected{$protocol}, "$protocol: by the peer that Lua chose");
    like($answer->{head}, qr/^X-Addr: 127\.0\.0\.1:$port{$protocol}\r$/m, "$protocol: under its address");

    $answer = $get->('X-How: retry');
    matches($answer->{body}, $expected{$protocol}, "$protocol: Lua chooses again when a peer is dead");
    like($answer->{head}, qr/^X-Addr: 127\.0\.0\.1:$nobody, 127\.0\.0\.1:$port{$protocol}\r$/m, "$protocol: in two tries");

    for my $how (qw(none fail)) {
        $answer = $get->("X-How: $how");
        is($answer->{status}, 500, "$protocol: $how: no peer is a 500");
        my $message = $how eq 'none' ? 'lua balancer: no peer set' : 'failed to run balancer_by_lua\*: .*told to fail';
        like($nginx->log, qr{$message(?:\n.*)*? while connecting to upstream, .* request: "GET /$protocol\?a=b HTTP/1\.1"},
            "$protocol: $how: and logged");
    }
    matches($get->()->{body}, $expected{$protocol}, "$protocol: goes on afterwards");
}
unlike($nginx->log, qr/connect\(\) to 0\.0\.0\.1/, 'the placeholder is not dialled');

# A request with a body.
for my $protocol (qw(http fastcgi uwsgi scgi grpc)) {
    my $answer = $nginx->request("POST /$protocol HTTP/1.1", port(0), 'what is sent', 'Connection: close');
    my $expected = $protocol eq 'http' ? "http: POST /http\n"
        : $protocol eq 'grpc' ? "grpc: POST /grpc HTTP/2.0\n"
        : qr{^$protocol: POST /$protocol \[what is sent\], };
    matches($answer->{body}, $expected, "$protocol: a body arrives");
}
{
    my $answer = $nginx->request('POST /fastcgi HTTP/1.1', port(0), 'x' x 200_000, 'Connection: close', 'X-How: retry');
    like($answer->{body}, qr/\[200000 bytes\]/, 'a large body arrives, at the second peer');
}

is($nginx->get('/variable/x', port(0))->{body}, "http: GET /variable/x\n", 'proxy_pass with a variable finds the upstream');
is($nginx->get('/uri/x', port(0))->{body}, "http: GET /moved/x\n", 'proxy_pass with a path');

# auth_request: two balancers in one request.
{
    my $answer = $nginx->get('/guarded', port(0), 'X-Key: mine');
    is($answer->{body}, "http: GET /guarded\n", 'auth_request lets in');
    like($answer->{head}, qr/^X-User: user of mine\r$/m, 'and has its answer');
    is($nginx->get('/guarded', port(0))->{status}, 403, 'auth_request keeps out');
    is($nginx->get('/guarded', port(0), 'X-Key: mine', 'X-How: fail')->{status}, 500, 'an error in its balancer is a 500');
    is($nginx->get('/guarded', port(0), 'X-Key: mine', 'X-How: retry')->{body}, "http: GET /guarded\n", 'both try again');
}

# mirror: the copy arrives, and the answer does not wait for it to be right.
{
    my $peer_log = sub { slurp($nginx->root . '/logs/peer.log') };
    is($nginx->get('/mirrored?n=1', port(0))->{body}, "http: GET /mirrored?n=1\n", 'mirror: the request is answered');
    ok(poll { $peer_log->() =~ m{^$port{http} GET /mirrored\?n=1 \[copy\]$}m }, 'mirror: the copy arrives');
    like($peer_log->(), qr{^$port{http} GET /mirrored\?n=1 \[-\]$}m, 'mirror: and the request itself');
    my $answer = $nginx->request('POST /mirrored?n=2 HTTP/1.1', port(0), 'body', 'Connection: close');
    is($answer->{body}, "http: POST /mirrored?n=2\n", 'mirror: with a body');
    ok(poll { $peer_log->() =~ m{^$port{http} POST /mirrored\?n=2 \[copy\]$}m }, 'mirror: its copy arrives');
}

is($nginx->get('/http', port(0))->{body}, "http: GET /http\n", 'all is well at the end');
unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'no worker died');
$nginx->stop;

done_testing();
