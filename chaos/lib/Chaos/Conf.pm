package Chaos::Conf;

# The configuration of the nginx that is tested: a location, with an upstream of its own, for each way
# to choose peers and to keep connections. And what a request there may be like.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(conf @ways);

# `run` is the Lua of the upstream, %P and %T the plain and the TLS peers, %U the plain ones by their
# unix sockets; `args` are those that requests have besides `first`; `kind` is what may answer.
# Requests come as often as `weight` says.
our @ways = (
    { name => 'tries', run => 'chaos.each(%P, { keep = true })', args => [qw(decline requests)], kind => 'plain', weight => 4 },
    { name => 'own', run => 'chaos.each(%P)', keepalive => 1, args => [qw(decline)], kind => 'plain', weight => 4 },
    { name => 'list', run => 'chaos.list(%P, { keep = true })', kind => 'plain', weight => 4 },
    { name => 'pool', run => 'chaos.each(%P, { keep = true, pool = true })', args => [qw(pool)], kind => 'plain', weight => 4 },
    { name => 'unix', run => 'chaos.each(%U, { keep = true })', kind => 'plain', weight => 3 },
    { name => 'unixown', run => 'chaos.list(%U, {})', keepalive => 1, kind => 'plain', weight => 2 },
    { name => 'lines', run => 'chaos.lines()', lines => 1, keepalive => 1, kind => 'plain', weight => 1 },
    { name => 'mixed', run => 'chaos.mixed(%P)', lines => 1, keepalive => 1, kind => 'plain', weight => 2 },
    { name => 'tls', run => 'chaos.each(%T, { host = true, keep = true })', args => [qw(host requests)], kind => 'tls',
        verify => 1, weight => 4 },
    { name => 'tlsown', run => 'chaos.each(%T, { host = true })', keepalive => 1, args => [qw(host decline)], kind => 'tls', weight => 3 },
    { name => 'tlslist', run => 'chaos.list(%T, { host = true, keep = true })', args => [qw(host)], kind => 'tls', weight => 3 },
    { name => 'tlstry', run => 'chaos.try(%T)', args => [qw(host)], kind => 'tls', scheme => 'http', close => 1, weight => 2 },
    { name => 'certificate', run => 'chaos.certificate(%T)', args => [qw(host cert)], kind => 'tls', weight => 2 },
    { name => 'switch', run => 'chaos.switch(%T, %P)', args => [qw(host)], kind => 'either', scheme => 'http', weight => 2 },
);

sub lua_list {
    return '{ ' . join(', ', map "{ $_ }", @_) . ' }';
}

# conf ROOT, FRONT PORT, PLAIN, TLS, a random number of connections for each pool. The groups give the
# addresses of their peers.
sub conf {
    my ($root, $port, $plain, $tls, $pool) = @_;
    my %peers = (
        '%P' => lua_list(map "'127.0.0.1', $_", $plain->ports),
        '%U' => lua_list(map "'unix:$_'", $plain->paths),
        '%T' => lua_list(map "'127.0.0.1', $_", $tls->ports),
    );
    my (@upstreams, @locations);
    for my $way (@ways) {
        my $run = $way->{run} =~ s/(%[PUT])/$peers{$1}/gr;
        my @lines = ("balancer_by_lua_block { $run }", "balancer_keepalive $pool time=5s;");
        unshift @lines, map "server 127.0.0.1:$_ max_fails=0;", $plain->ports if $way->{lines};
        push @lines, "keepalive $pool;" if $way->{keepalive};
        # What is idle at the end goes soon, nginx's default pool included.
        push @lines, 'keepalive_timeout 1s;';
        push @upstreams, "upstream $way->{name} {\n" . join('', map "    $_\n", @lines) . "}\n";

        my $scheme = $way->{scheme} // ($way->{kind} eq 'tls' ? 'https' : 'http');
        my @more = "proxy_set_header Connection '@{[$way->{close} ? 'close' : '']}';";
        push @more, 'proxy_ssl_server_name on;' if $way->{kind} ne 'plain';
        push @more, "proxy_ssl_verify on; proxy_ssl_trusted_certificate $root/tls/ca.crt;" if $way->{verify};
        push @locations, "    location /$way->{name} {\n" . join('', map "        $_\n", @more,
            "proxy_set_header X-Identity '$way->{name},\$arg_host,\$arg_pool,\$arg_cert';",
            "proxy_pass $scheme://$way->{name};") . "    }\n";
    }
    my $modules = join ' ', map "load_module $_;", split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $temp = join ' ', map "${_}_temp_path $root/tmp;", qw(client_body proxy fastcgi uwsgi scgi);
    return <<"EOC";
$modules
worker_processes 2;
error_log $root/logs/error.log notice;
pid $root/logs/nginx.pid;
events { worker_connections 512; }
http {
log_format ids '\$arg_id \$status \$upstream_addr';
access_log $root/logs/access.log ids;
$temp
lua_package_path "$ENV{CHAOS_DIR}/lua/?.lua;;";
init_by_lua_block { chaos = require "chaos"; chaos.load("$root/tls") }
lua_balancer_ssl_sessions 64;
lua_balancer_ssl_session_cache shared:sessions:256k;
@upstreams
server {
    listen 127.0.0.1:$port;
    keepalive_requests 1000000;
    keepalive_timeout 600s;
    proxy_http_version 1.1;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_next_upstream error timeout invalid_header http_503 non_idempotent;
    proxy_set_header Host \$http_host;
    add_header X-Worker \$pid always;
    add_header X-Tried \$upstream_addr always;
    add_header X-Ours '\$balancer_connection_reused\$balancer_ssl_session_reused' always;
@locations
}
}
EOC
}

1;
