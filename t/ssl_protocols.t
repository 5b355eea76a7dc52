# TLS sessions with each module of nginx that passes requests on over TLS.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Peer;
use Pools ();
use Test::More;
use TlsPeer;

my $nginx = Nginx->new(level => 'debug');
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
$ca->issue('server', names => [qw(a.example b.example)]);
$ca->issue($_) for qw(one two);

my $peer = TlsPeer->new(tls => $tls);
my $h2 = $nginx->version >= 1.025001 ? { more => 'http2 on; keepalive_requests 1;' } : { listen => ' http2', more => 'keepalive_requests 1;' };

# The module's prefix, its location, and the peers that speak its protocol, by kind.
my @modules = (
    { name => 'proxy_pass https://', prefix => 'proxy', pass => 'proxy_pass https://backend;' },
    { name => 'grpc_pass grpcs://', prefix => 'grpc', pass => 'grpc_pass grpcs://backend;', http2 => 1 },
    { name => 'uwsgi_pass suwsgi://', prefix => 'uwsgi', uwsgi => 1,
        pass => 'uwsgi_param REQUEST_METHOD $request_method; uwsgi_param REQUEST_URI $request_uri; uwsgi_pass suwsgi://backend;' },
);
# Since 1.29.4 proxy_pass can speak HTTP/2.
push @modules, { name => 'proxy_http_version 2', prefix => 'proxy', pass => 'proxy_http_version 2; proxy_pass https://backend;', http2 => 1 }
    if $nginx->version >= 1.029004;

# An nginx for what it can serve, fake peers for uwsgi.
my (%port, @servers);
my $next = 1;
for my $kind (sort keys %kinds) {
    for my $http2 (0, 1) {
        $port{$kind}[$http2] = port($next++);
        push @servers, $peer->server($kind => $port{$kind}[$http2], $http2 ? %$h2 : ());
    }
    my ($version) = $kind =~ /TLS 1\.(\d)/;
    # The library that the fake peer uses has tickets only.
    next if $kind =~ /ids/;
    $port{$kind}[2] = port($next++);
    Peer::start(uwsgi => $port{$kind}[2], tls => {
        SSL_cert_file => "$tls/server.crt", SSL_key_file => "$tls/server.key", SSL_version => "TLSv1_$version",
        SSL_ca_file => "$tls/ca.crt",
    });
}
$peer->conf(@servers)->start;

for my $module (@modules) {
    my ($prefix, $pass) = @$module{qw(prefix pass)};
    for my $way (map $_->{name}, Pools::ways($nginx)) {
        my $name = "$module->{name}; $way";
        $nginx->conf(Pools::upstream(Pools::way($nginx, $way), backend => <<'EOL') . <<"EOC")->start;
        assert(balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.arg_port), ngx.var.arg_host))
        if ngx.var.arg_cert then
            local name = ngx.var.arg_cert
            local file = {}
            for _, kind in ipairs { "crt", "key" } do
                local f = assert(io.open(ngx.var.tls .. "/" .. name .. "." .. kind))
                file[kind] = f:read("*a")
                f:close()
            end
            assert(balancer.set_ssl_cert(file.crt, file.key))
        end
        keep()
EOL
${prefix}_ssl_protocols TLSv1.2 TLSv1.3;
server {
    listen 127.0.0.1:${\port(0)};
    ${prefix}_ssl_server_name on;
    add_header X-Reused \$balancer_ssl_session_reused always;
    set \$tls $tls;
    location / { $pass }
    location /verified { ${prefix}_ssl_verify on; ${prefix}_ssl_trusted_certificate $tls/ca.crt; $pass }
    location /one { ${prefix}_ssl_certificate $tls/one.crt; ${prefix}_ssl_certificate_key $tls/one.key; $pass }
    location /off { ${prefix}_ssl_session_reuse off; $pass }
}
EOC
        for my $kind (sort keys %kinds) {
            my $port = $port{$kind}[$module->{uwsgi} ? 2 : $module->{http2} ? 1 : 0] // next;
            my @answers = shaken($nginx, map "$_&port=$port",
                '/?host=a.example', '/?host=a.example', '/?host=b.example', '/verified?host=a.example', '/verified?host=b.example',
                '/one?host=a.example', '/off?host=a.example', '/?host=a.example&cert=two',
                '/?host=a.example', '/?host=b.example', '/verified?host=a.example', '/one?host=a.example', '/off?host=a.example',
                '/?host=a.example&cert=two', '/verified?host=wrong.example');
            is(handshakes(@answers), '. r . . . . . . r r r r . r 502', "$name; $kind: sessions");
            next if $module->{uwsgi};
            is(said('sni', @answers[0 .. 13]), join(' ', map "$_.example", qw(a a b a b a a a a b a a a a)), "$name; $kind: names");
            is(said('client', @answers[5, 7, 8, 13]), 'CN=one CN=two  CN=two', "$name; $kind: certificates");
            is(said('http', $answers[0]), $module->{http2} ? 'HTTP/2.0' : $nginx->version >= 1.029007 ? 'HTTP/1.1' : 'HTTP/1.0', "$name; $kind: the protocol");
        }
        $nginx->stop;
        my @odd = grep /exited on signal|\[(?:alert|emerg|crit)\]|internal error|failed to run/, split /^/, $nginx->log;
        is(join('', @odd), '', "$name: nothing odd in the log");
    }
}

done_testing();
