# Requests of different identity never share a connection, and those of the same do where
# connections are kept at all: each theme in each way to keep connections, told by the peers.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use FakePeer;
use Nginx;
use Peer;
use Pools;
use Test::More;

my $nginx = Nginx->new;
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
my $middle = $ca->intermediate('middle');
$ca->issue('server', names => [qw(a.example b.example c.example localhost)]);
$middle->issue('deep', names => ['a.example']);
$ca->issue($_) for qw(one two);
$ca->issue('revoked', names => ['a.example'])->revoke('revoked');
Certificates->new($tls, 'other');

my ($http, $https, $h2, $deep, $revoked, $fastcgi, $memcached, $both, $all) = map port($_), 1 .. 9;
my $http2 = $nginx->version >= 1.025001 ? "listen 127.0.0.1:$h2; http2 on;" : "listen 127.0.0.1:$h2 http2;";

Peer::start(fastcgi => $fastcgi);
Peer::start(memcached => $memcached);
FakePeer::switch($both, qr/^\x16/ => $https, qr/^/ => $http);
FakePeer::switch($all, qr/^PRI / => $h2, qr/^\x01/ => $fastcgi, qr/^get / => $memcached, qr/^/ => $http);

my $answer = "return 200 '$saw port=\$server_port sni=\$ssl_server_name client=\$ssl_client_s_dn protocol=\$server_protocol';";
my $peers = <<"EOC";
server {
    listen 127.0.0.1:$http;
    listen [::1]:$http;
    listen unix:$root/peer.sock;
    $answer
}
server {
    listen 127.0.0.1:$https ssl;
    listen [::1]:$https ssl;
    listen unix:$root/tls.sock ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    ssl_client_certificate $tls/ca.crt;
    ssl_verify_client optional;
    $answer
}
server { listen 127.0.0.1:$deep ssl; ssl_certificate $tls/deep.crt; ssl_certificate_key $tls/deep.key; $answer }
server { listen 127.0.0.1:$revoked ssl; ssl_certificate $tls/revoked.crt; ssl_certificate_key $tls/revoked.key; $answer }
server { $http2 $answer }
EOC

# A theme: its locations, its Lua code, its requests with the names of their identities (undef: the
# request fails, and must), and what the peer must have seen.
my @themes = (
    {
        name => 'three SNIs on one address',
        lua => "balancer.set_current_peer('127.0.0.1', $https, ngx.var.arg_name) keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }',
        requests => [map { my $name = "$_.example"; ["/?name=$name" => $name] } qw(a b c a b c c b a a)],
        saw => 'sni',
    },
    {
        name => 'three SNIs on one IPv6 address',
        lua => "balancer.set_current_peer('::1', $https, ngx.var.arg_name) keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }',
        requests => [map { my $name = "$_.example"; ["/?name=$name" => $name] } qw(a b c a b c c b a a)],
        saw => 'sni',
    },
    {
        name => 'three SNIs on one unix socket',
        lua => "balancer.set_current_peer('unix:$root/tls.sock', nil, ngx.var.arg_name) keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }',
        requests => [map { my $name = "$_.example"; ["/?name=$name" => $name] } qw(a b c a b c c b a a)],
        saw => 'sni',
    },
    {
        name => 'SNI from proxy_ssl_name',
        lua => "balancer.set_current_peer('127.0.0.1', $https) keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_ssl_name $arg_name; proxy_pass https://backend; }',
        requests => [map { my $name = "$_.example"; ["/?name=$name" => $name] } qw(a b a c c b a)],
        saw => 'sni',
    },
    {
        name => 'the same name, from Lua and from proxy_ssl_name',
        lua => "balancer.set_current_peer('127.0.0.1', $https, ngx.var.arg_lua) keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_ssl_name $arg_conf; proxy_pass https://backend; }',
        requests => [map { ["/?$_->[0]" => $_->[1]] } ['lua=a.example&conf=b.example' => 'a.example'],
            ['conf=a.example' => 'a.example'], ['conf=b.example' => 'b.example'],
            ['lua=b.example&conf=a.example' => 'b.example'], ['conf=a.example' => 'a.example']],
        saw => 'sni',
    },
    {
        name => 'TLS with a name that is neither sent nor verified',
        lua => "balancer.set_current_peer('127.0.0.1', $https, ngx.var.arg_name) keep()",
        locations => 'location / { proxy_pass https://backend; }',
        requests => [map { ["/?name=$_.example" => ''] } qw(a b a c)],
        saw => 'sni',
    },
    {
        name => 'client certificates',
        lua => "balancer.set_current_peer('127.0.0.1', $https, 'a.example') keep()",
        locations => join('', map "location /$_ { proxy_ssl_certificate $tls/$_.crt; proxy_ssl_certificate_key $tls/$_.key; proxy_pass https://backend; }\n",
            qw(one two)) . 'location /none { proxy_pass https://backend; }',
        requests => [map { ["/$_" => $_ eq 'none' ? '' : "CN=$_"] } qw(one two none one two none two one none one)],
        saw => 'client',
    },
    {
        name => 'client certificates from variables',
        lua => "balancer.set_current_peer('127.0.0.1', $https, 'a.example') keep()",
        locations => "location / { proxy_ssl_certificate $tls/\$arg_who.crt; proxy_ssl_certificate_key $tls/\$arg_who.key; proxy_pass https://backend; }",
        requests => [map { ["/?who=$_" => "CN=$_"] } qw(one two one two two one)],
        saw => 'client',
    },
    {
        name => 'client certificates of which one is from a variable, and none at times',
        lua => "balancer.set_current_peer('127.0.0.1', $https, 'a.example') keep()",
        locations => "map \$arg_who \$certificate { default $tls/\$arg_who.crt; none ''; }\n"
            . "map \$arg_who \$key { default $tls/\$arg_who.key; none ''; }\nSERVER"
            . 'location / { proxy_ssl_certificate $certificate; proxy_ssl_certificate_key $key; proxy_pass https://backend; }',
        requests => [map { ["/?who=$_" => $_ eq 'none' ? '' : "CN=$_"] } qw(one none one two none two none one)],
        saw => 'client',
    },
    {
        name => 'verification on and off',
        lua => "balancer.set_current_peer('127.0.0.1', $https, 'a.example') keep()",
        locations => <<"EOC",
proxy_ssl_trusted_certificate $tls/ca.crt;
location /off { proxy_ssl_verify off; proxy_pass https://backend; }
location /on { proxy_ssl_verify on; proxy_pass https://backend; }
location /other { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/other.crt; proxy_pass https://backend; }
EOC
        requests => [map { ["/$_" => $_ eq 'other' ? undef : $_] } qw(off other on other off on other on off other)],
    },
    {
        name => 'verification under two names, one of which is wrong',
        lua => "balancer.set_current_peer('127.0.0.1', $https, ngx.var.arg_name) keep()",
        locations => "location / { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/ca.crt; proxy_pass https://backend; }",
        requests => [map { ["/?name=$_.example" => $_ eq 'wrong' ? undef : "$_.example"] } qw(a wrong b a wrong b a)],
    },
    {
        name => 'verification with and without a list of what is revoked',
        lua => "balancer.set_current_peer('127.0.0.1', $revoked, 'a.example') keep()",
        locations => <<"EOC",
proxy_ssl_verify on;
proxy_ssl_trusted_certificate $tls/ca.crt;
location /without { proxy_pass https://backend; }
location /with { proxy_ssl_crl $tls/ca.crl; proxy_pass https://backend; }
EOC
        requests => [map { ["/$_" => $_ eq 'with' ? undef : $_] } qw(without with without with without)],
    },
    {
        name => 'verification of two depths',
        lua => "balancer.set_current_peer('127.0.0.1', $deep, 'a.example') keep()",
        locations => <<"EOC",
proxy_ssl_verify on;
proxy_ssl_trusted_certificate $tls/ca.crt;
location /1 { proxy_ssl_verify_depth 1; proxy_pass https://backend; }
location /2 { proxy_ssl_verify_depth 2; proxy_pass https://backend; }
location /0 { proxy_ssl_verify_depth 0; proxy_pass https://backend; }
EOC
        requests => [map { ["/$_" => $_ ? $_ : undef] } qw(1 0 2 0 1 2 0 1)],
    },
    {
        name => 'local addresses from Lua',
        lua => "if ngx.var.arg_from then assert(balancer.bind_to_local_addr(ngx.var.arg_from)) end "
            . "balancer.set_current_peer('127.0.0.1', $http) keep()",
        locations => 'location / { proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?from=127.0.0.$_" : '/' => '127.0.0.' . ($_ || 1)] } 2, 3, 0, 2, 3, 0, 3, 2, 0],
        saw => 'from',
    },
    {
        name => 'local addresses from proxy_bind',
        lua => "balancer.set_current_peer('127.0.0.1', $http) keep()",
        locations => 'location / { proxy_bind $arg_from; proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?from=127.0.0.$_" : '/' => '127.0.0.' . ($_ || 1)] } 2, 3, 0, 2, 3, 0, 3, 2, 0],
        saw => 'from',
    },
    {
        name => 'TLS and plain on one address',
        lua => "balancer.set_current_peer('127.0.0.1', $both, 'a.example') balancer.set_upstream_tls(ngx.var.arg_tls == 'on') keep()",
        locations => 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }',
        requests => [map { ["/?tls=$_" => $_ eq 'on' ? $https : $http] } qw(on off on off off on)],
        saw => 'port',
    },
    {
        name => 'TLS and plain on one address, by the location',
        lua => "balancer.set_current_peer('127.0.0.1', $both) keep()",
        locations => 'location /on { proxy_pass https://backend; } location /off { proxy_pass http://backend; }',
        requests => [map { ["/$_" => $_ eq 'on' ? $https : $http] } qw(on off on off off on)],
        saw => 'port',
    },
    {
        name => 'protocols on one address',
        lua => "balancer.set_current_peer('127.0.0.1', $all) keep()",
        locations => <<'EOC',
location /http { proxy_pass http://backend; }
location /grpc { grpc_pass grpc://backend; }
location /fastcgi { fastcgi_keep_conn on; fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri; fastcgi_pass backend; }
location /memcached { set $memcached_key $uri; memcached_pass backend; }
EOC
        requests => [map { ["/$_" => { http => 'HTTP/1.1', grpc => 'HTTP/2.0' }->{$_} // $_] }
            qw(http grpc fastcgi memcached http grpc fastcgi memcached memcached grpc http fastcgi)],
        saw => 'protocol',
    },
    {
        name => 'the name of a pool',
        lua => "balancer.set_current_peer('127.0.0.1', $http, { pool = ngx.var.arg_pool }) keep()",
        locations => 'location / { proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?pool=$_" : '/' => $_] } 'x', 'y', '', 'x', 'xy', 'y', '', 'x', 'xy', ''],
    },
    {
        name => 'addresses and ports',
        lua => <<"EOC",
            local peers = { v4 = { '127.0.0.1', $http }, text = { '127.0.0.1:$http' }, v6 = { '::1', $http },
                            unix = { 'unix:$root/peer.sock' }, tls = { '127.0.0.1', $https } }
            local peer = peers[ngx.var.arg_to]
            balancer.set_current_peer(peer[1], peer[2])
            keep()
EOC
        locations => 'location / { proxy_pass http://backend; } location /tls { proxy_pass https://backend; }',
        requests => [map { [($_ eq 'tls' ? '/tls' : '/') . "?to=$_" => $_ eq 'text' ? 'v4' : $_] } qw(v4 v6 unix text tls v6 unix v4 tls text)],
    },
    {
        name => 'timeouts are not part of it',
        lua => "balancer.set_current_peer('127.0.0.1', $http) keep() "
            . "if ngx.var.arg_t then assert(balancer.set_timeouts(tonumber(ngx.var.arg_t), 5, 6)) end",
        locations => 'location / { proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?t=$_" : '/' => ''] } 1, 2, 0, 1, 0, 3],
    },
);

# Since 1.29.4 proxy_pass can speak HTTP/2.
push @themes, {
    name => 'HTTP/1.1 and HTTP/2 on one address',
    lua => "balancer.set_current_peer('127.0.0.1', $all) keep()",
    locations => 'location /1 { proxy_pass http://backend; } location /2 { proxy_http_version 2; proxy_pass http://backend; } '
        . 'location /grpc { grpc_pass backend; }',
    requests => [map { ["/$_" => $_] } qw(1 2 grpc 1 grpc 2 2 1)],
} if $nginx->version >= 1.029004;

my @ways = ways($nginx);
for my $theme (@themes) {
    for my $way (@ways) {
        my $name = "$theme->{name}; $way->{name}";
        my ($maps, $locations) = $theme->{locations} =~ /^(.*)SERVER(.*)$/s ? ($1, $2) : ('', $theme->{locations});
        $nginx->conf(upstream($way, backend => $theme->{lua}) . $maps . <<"EOC" . $peers)->start;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    $locations
}
EOC
        my @requests = @{$theme->{requests}};
        my @answers = carried($nginx, map $_->[0], @requests);
        my @good = grep defined $requests[$_][1], 0 .. $#requests;
        is(on(@answers[@good]), kept($way->{keeps}, map $requests[$_][1], @good), $name);
        if ($theme->{saw}) {
            is(seen($theme->{saw}, @answers[@good]), join(' ', map $requests[$_][1], @good), "$name: and it was the right one");
        }
        if (@good < @requests) {
            my @bad = grep !defined $requests[$_][1], 0 .. $#requests;
            is(join(' ', map $answers[$_]{status}, @bad), join(' ', ('502') x @bad), "$name: who must fail does");
        }
        $nginx->stop;
        unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error|no way to tell/, "$name: nothing odd in the log");
    }
}

done_testing();
