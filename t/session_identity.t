# A TLS session is offered under the identity that it was made for and no other: address, name,
# client certificate, verification, authorities. What the peer sees of it.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools ();
use Test::More;
use TlsPeer;

my $nginx = Nginx->new(level => 'debug');
my $tls = $nginx->root . '/tls';

my $ca = Certificates->new($tls);
my $middle = $ca->intermediate('middle');
$ca->issue('server', names => [qw(a.example b.example c.example)]);
$ca->issue($_) for qw(one two);
$middle->issue('deep', names => ['a.example']);
$ca->issue('spare')->revoke('spare');
Certificates->new($tls, 'other');

my @kinds = sort keys %kinds;
my %port = map { $kinds[$_] => port(1 + $_) } 0 .. $#kinds;
my ($second, $deep) = map port($_), 5, 6;

my $peer = TlsPeer->new(tls => $tls);
$peer->conf(map($peer->server($_ => $port{$_}), @kinds), $peer->server('TLS 1.2, tickets' => $second),
    $peer->server('TLS 1.2, tickets' => $deep, certificate => 'deep'))->start;

# The Lua code takes the port and the host from the request's arguments; or it leaves the request to
# a server line, and the host is the location's.
sub conf {
    my ($locations, $line) = @_;
    my $lua = 'balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.arg_port), ngx.var.arg_host)';
    my $way = Pools::way($nginx, 'nothing');
    $way = { %$way, before => "server 127.0.0.1:$line; " . ($way->{before} // '') } if $line;
    my $upstream = Pools::upstream($way, backend => $line ? '' : $lua);
    my $name = $line ? '$arg_host' : 'unused.example';
    return $nginx->conf($upstream . <<"EOC");
proxy_ssl_protocols TLSv1.2 TLSv1.3;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_ssl_name $name;
    add_header X-Reused \$balancer_ssl_session_reused always;
    $locations
}
EOC
}

# Handshakes that must fail are errors in the log; nothing worse is.
sub odd { unlike($nginx->log, qr/exited on signal|\[(?:alert|emerg|crit)\]|internal error/, "$_[0]: nothing odd in the log") }

my $plain = 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }';

# What tells sessions apart: requests with the names of their identities (undef: it fails).
my @themes = (
    {
        name => 'SNI',
        locations => $plain,
        requests => [map ["/?host=$_.example" => $_], qw(a b c a b c a)],
    },
    {
        name => 'SNI of proxy_ssl_name and of Lua',
        lua_only => 1,
        locations => 'location / { proxy_ssl_server_name on; proxy_ssl_name $arg_conf; proxy_pass https://backend; }',
        requests => [['/?conf=a.example' => 'a'], ['/?host=a.example' => 'a'], ['/?conf=b.example' => 'b'],
            ['/?host=b.example&conf=a.example' => 'b'], ['/?conf=a.example' => 'a']],
    },
    {
        name => 'a name that is not sent',
        locations => 'location / { proxy_pass https://backend; }',
        requests => [map ["/?host=$_.example" => 'any'], qw(a b c)],
    },
    {
        name => 'SNI on and off',
        locations => 'location /on { proxy_ssl_server_name on; proxy_pass https://backend; } location /off { proxy_pass https://backend; }',
        requests => [map ["/$_?host=a.example" => $_], qw(on off on off)],
    },
    {
        name => 'client certificates',
        locations => join('', map "location /$_ { proxy_ssl_certificate $tls/$_.crt; proxy_ssl_certificate_key $tls/$_.key; proxy_pass https://backend; }\n", qw(one two))
            . 'location /none { proxy_pass https://backend; }',
        requests => [map ["/$_?host=a.example" => $_], qw(one two none one two none)],
        saw => [client => { one => 'CN=one', two => 'CN=two', none => '' }],
        verified => { one => 'SUCCESS', two => 'SUCCESS', none => 'NONE' },
    },
    {
        name => 'client certificates from variables',
        locations => "location / { proxy_ssl_certificate $tls/\$arg_who.crt; proxy_ssl_certificate_key $tls/\$arg_who.key; proxy_pass https://backend; }",
        requests => [map ["/?who=$_&host=a.example" => $_], qw(one two one two)],
        saw => [client => { one => 'CN=one', two => 'CN=two' }],
    },
    {
        name => 'verification off, on, and with an authority that does not know the peer',
        locations => <<"EOC",
proxy_ssl_trusted_certificate $tls/ca.crt;
location /off { proxy_ssl_verify off; proxy_pass https://backend; }
location /on { proxy_ssl_verify on; proxy_pass https://backend; }
location /other { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/other.crt; proxy_pass https://backend; }
EOC
        requests => [map ["/$_?host=a.example" => $_ eq 'other' ? undef : $_], qw(off other on other off on other)],
    },
    {
        name => 'the name that is verified, though it is not sent',
        locations => "location / { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/ca.crt; proxy_pass https://backend; }",
        requests => [map ["/?host=$_.example" => $_ eq 'wrong' ? undef : $_], qw(a wrong b wrong a b)],
    },
    {
        name => 'authorities',
        locations => <<"EOC",
proxy_ssl_verify on;
location /one { proxy_ssl_trusted_certificate $tls/ca.crt; proxy_pass https://backend; }
location /both { proxy_ssl_trusted_certificate $tls/both.crt; proxy_pass https://backend; }
location /same { proxy_ssl_trusted_certificate $tls/ca.crt; proxy_ssl_verify on; proxy_ssl_server_name off; proxy_pass https://backend; }
EOC
        requests => [map ["/$_?host=a.example" => $_ eq 'same' ? 'one' : $_], qw(one both same one both)],
    },
    {
        name => 'a list of what is revoked',
        locations => <<"EOC",
proxy_ssl_verify on;
proxy_ssl_trusted_certificate $tls/ca.crt;
location /without { proxy_pass https://backend; }
location /with { proxy_ssl_crl $tls/ca.crl; proxy_pass https://backend; }
EOC
        requests => [map ["/$_?host=a.example" => $_], qw(without with without with)],
    },
    {
        name => 'depths',
        to => $deep,
        locations => <<"EOC",
proxy_ssl_verify on;
proxy_ssl_trusted_certificate $tls/ca.crt;
location /0 { proxy_ssl_verify_depth 0; proxy_pass https://backend; }
location /1 { proxy_ssl_verify_depth 1; proxy_pass https://backend; }
location /2 { proxy_ssl_verify_depth 2; proxy_pass https://backend; }
EOC
        requests => [map ["/$_?host=a.example" => $_ || undef], qw(1 0 2 0 1 2)],
    },
    {
        name => 'ciphers',
        to => $port{'TLS 1.2, tickets'},
        locations => <<"EOC",
location /a { proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; proxy_pass https://backend; }
location /b { proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; proxy_pass https://backend; }
EOC
        requests => [map ["/$_?host=a.example" => $_], qw(a b a b)],
    },
);
$ca->write('both.crt', $ca->read('ca.crt') . $ca->read('other.crt'));

sub sessions {
    my ($theme, $kind, $what) = @_;
    my $port = $theme->{to} // $port{$kind};
    my @requests = @{$theme->{requests}};
    my @answers = shaken($nginx, map "$_->[0]&port=$port", @requests);
    my @names = map $_->[1] // '502', @requests;
    my %seen;
    is(handshakes(@answers), join(' ', map $_ eq '502' ? $_ : $seen{$_}++ ? 'r' : '.', @names), $what);
    if ($theme->{saw}) {
        my ($saw, $of) = @{$theme->{saw}};
        is(said($saw, @answers), join(' ', map $of->{$_}, @names), "$what: and it was the right one");
    }
    if ($theme->{verified}) {
        is(said('verify', @answers), join(' ', map $theme->{verified}{$_}, @names), "$what: and the peer knows it");
    }
}

for my $theme (@themes) {
    my @with = $theme->{to} ? 'TLS 1.2, tickets' : @kinds;
    conf($theme->{locations})->start;
    sessions($theme, $_, "$theme->{name}; $_") for @with;
    $nginx->stop;
    odd($theme->{name});

    next if $theme->{lua_only};
    for my $kind (@with) {
        conf($theme->{locations}, $theme->{to} // $port{$kind})->start;
        sessions($theme, $kind, "$theme->{name}; $kind, a server line");
        $nginx->stop;
        odd("$theme->{name}; $kind, a server line");
    }
}

# The address: two ports of one peer, which would take the same tickets.
{
    conf($plain)->start;
    my $first = $port{'TLS 1.2, tickets'};
    my @answers = shaken($nginx, map "/?host=a.example&port=$_", $first, $second, $first, $second);
    is(handshakes(@answers), '. . r r', 'an address has sessions of its own');
    $nginx->stop;
    odd('addresses');
}

done_testing();
