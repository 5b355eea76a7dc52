# The identity of connections to the peers of `server` lines, which round robin chooses when Lua does
# not: they too are never shared. A `keepalive` that stands before the balancer is under it on nginx
# before 1.29.7, and knows no identities: what it keeps is used again by the next request if that has
# the same one.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use FakePeer;
use Nginx;
use Pools;
use Test::More;

my $nginx = Nginx->new;
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
$ca->issue('server', names => [qw(a.example b.example c.example)]);
$ca->issue($_) for qw(one two);
Certificates->new($tls, 'other');

my ($http, $https, $both) = map port($_), 1 .. 3;
FakePeer::switch($both, qr/^\x16/ => $https, qr/^/ => $http);

my $peers = <<"EOC";
server { listen 127.0.0.1:$http; listen [::1]:$http; return 200 '$saw port=\$server_port'; }
server {
    listen 127.0.0.1:$https ssl;
    listen unix:$root/tls.sock ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    ssl_client_certificate $tls/ca.crt;
    ssl_verify_client optional;
    return 200 '$saw port=\$server_port sni=\$ssl_server_name client=\$ssl_client_s_dn';
}
EOC

# Names as in t/pool_identity.t: undef where the request must fail.
my @names = map { ["/?name=$_.example" => "$_.example"] } qw(a a b b a c c b a a);
my @themes = (
    {
        name => 'three SNIs',
        server => "127.0.0.1:$https",
        locations => 'location / { proxy_ssl_server_name on; proxy_ssl_name $arg_name; proxy_pass https://backend; }',
        requests => \@names,
        saw => 'sni',
    },
    {
        name => 'three SNIs on a unix socket',
        server => "unix:$root/tls.sock",
        locations => 'location / { proxy_ssl_server_name on; proxy_ssl_name $arg_name; proxy_pass https://backend; }',
        requests => \@names,
        saw => 'sni',
    },
    {
        name => 'client certificates',
        server => "127.0.0.1:$https",
        locations => join('', map "location /$_ { proxy_ssl_certificate $tls/$_.crt; proxy_ssl_certificate_key $tls/$_.key; proxy_pass https://backend; }\n",
            qw(one two)) . 'location /none { proxy_pass https://backend; }',
        requests => [map { ["/$_" => $_ eq 'none' ? '' : "CN=$_"] } qw(one one two none none one two two)],
        saw => 'client',
    },
    {
        name => 'verification on and off',
        server => "127.0.0.1:$https",
        locations => <<"EOC",
proxy_ssl_name a.example;
proxy_ssl_trusted_certificate $tls/ca.crt;
location /off { proxy_ssl_verify off; proxy_pass https://backend; }
location /on { proxy_ssl_verify on; proxy_pass https://backend; }
location /other { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/other.crt; proxy_pass https://backend; }
EOC
        requests => [map { ["/$_" => $_ eq 'other' ? undef : $_] } qw(off off other on on other off)],
    },
    {
        name => 'local addresses',
        server => "127.0.0.1:$http",
        locations => 'location / { proxy_bind $arg_from; proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?from=127.0.0.$_" : '/' => '127.0.0.' . ($_ || 1)] } 2, 2, 3, 0, 0, 2, 3, 3],
        saw => 'from',
    },
    {
        name => 'local addresses from Lua',
        server => "127.0.0.1:$http",
        lua => 'if ngx.var.arg_from then assert(balancer.bind_to_local_addr(ngx.var.arg_from)) end',
        locations => 'location / { proxy_pass http://backend; }',
        requests => [map { [$_ ? "/?from=127.0.0.$_" : '/' => '127.0.0.' . ($_ || 1)] } 2, 2, 3, 0, 0, 2, 3, 3],
        saw => 'from',
    },
    {
        name => 'TLS and plain',
        server => "127.0.0.1:$both",
        locations => 'location /on { proxy_pass https://backend; } location /off { proxy_pass http://backend; }',
        requests => [map { ["/$_" => $_ eq 'on' ? $https : $http] } qw(on on off off on off)],
        saw => 'port',
    },
    {
        name => 'one identity over IPv6',
        server => "[::1]:$http",
        locations => 'location / { proxy_pass http://backend; }',
        requests => [(['/' => '::1']) x 4],
        saw => 'from',
    },
    {
        # What Lua chooses passes a pool under it by.
        name => 'the same peer from Lua at times',
        server => "127.0.0.1:$http",
        lua => "if ngx.var.arg_lua then balancer.set_current_peer('127.0.0.1', $http) end",
        locations => 'location / { proxy_pass http://backend; }',
        requests => [map { ['/' . $_ => ''] } '', '', '?lua=1', '', '?lua=1', ''],
        passes_by => qr/lua/,
    },
);

for my $theme (@themes) {
    for my $way (grep !$_->{keep}, ways($nginx)) {
        my $name = "$theme->{name}; $way->{name}";
        my $under = $way->{before} && !$way->{keeps};
        my %upstream = (%$way, before => "server $theme->{server};" . ($way->{before} // ''));
        $nginx->conf(upstream(\%upstream, backend => $theme->{lua} // '') . <<"EOC" . $peers)->start;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    $theme->{locations}
}
EOC
        my @requests = @{$theme->{requests}};
        my @answers = carried($nginx, map $_->[0], @requests);
        my @good = grep defined $requests[$_][1], 0 .. $#requests;
        my @names = map $requests[$_][1], 0 .. $#requests;
        if ($under) {
            my ($last, $run) = ('', 0);
            for (0 .. $#names) {
                if ($theme->{passes_by}) {
                    $names[$_] = $_ if $requests[$_][0] =~ $theme->{passes_by};
                    next;
                }
                my $identity = $names[$_] // 'fails';
                $run++ if $identity ne $last;
                $last = $identity;
                $names[$_] = $run if defined $names[$_];
            }
        }
        is(on(@answers[@good]), kept($way->{keeps} || $under, @names[@good]), $name);
        is(seen($theme->{saw}, @answers[@good]), join(' ', map $requests[$_][1], @good), "$name: and it was the right one")
            if $theme->{saw};
        my @bad = grep !defined $requests[$_][1], 0 .. $#requests;
        is(join(' ', map $answers[$_]{status}, @bad), join(' ', ('502') x @bad), "$name: who must fail does") if @bad;
        $nginx->stop;
        unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error|no way to tell/, "$name: nothing odd in the log");
    }
}

done_testing();
