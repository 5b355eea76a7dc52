# TLS sessions of peers that Lua chooses: which connection resumes one, told by the peer, and which
# sessions are kept how long. Whose they are: t/session_identity.t.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use FakePeer;
use Nginx;
use Pools ();
use Test::More;
use TlsPeer;
use Verdict;

my $nginx = Nginx->new(level => 'debug');
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
$ca->issue('server', names => [qw(a.example b.example c.example)]);
$ca->issue('wrong', names => ['wrong.example']);

my @kinds = sort keys %kinds;
my %port = map { $kinds[$_] => port(1 + $_) } 0 .. $#kinds;
my ($changing, $proxied, @tickets) = map port($_), 5 .. 10;

my $peer = TlsPeer->new(tls => $tls);
sub servers {
    my (@more) = @_;
    return (map($peer->server($_ => $port{$_}), @kinds), @more);
}
$peer->conf(servers())->start;

# The Lua code takes the port and the host from the request's arguments.
my $choose = 'balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.arg_port), ngx.var.arg_host) keep()';

sub upstream { Pools::upstream(Pools::way($nginx, $_[0] // 'nothing'), backend => $choose) }

sub conf {
    my ($locations, %more) = @_;
    unlink "$root/logs/tls.log";
    $nginx->conf(($more{http} // '') . upstream($more{way}) . <<"EOC");
proxy_ssl_protocols TLSv1.2 TLSv1.3;
log_format tls '\$balancer_ssl_session_reused';
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_name unused.example;
    add_header X-Reused \$balancer_ssl_session_reused always;
    access_log logs/tls.log tls;
    $locations
}
EOC
    return $nginx;
}

my $plain = 'location / { proxy_ssl_server_name on; proxy_pass https://backend; }';

sub odd { unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|\[crit\]|internal error|\[error\]/, "$_[0]: nothing odd in the log") }

# What the access log says of all handshakes since conf().
sub in_log { join ' ', split /\n/, slurp("$root/logs/tls.log") }

# Each kind, in each way to keep connections. The peers close each connection, so that all of them
# are new.
for my $way (map $_->{name}, Pools::ways($nginx)) {
    conf($plain, way => $way)->start;
    for my $kind (@kinds) {
        my @answers = shaken($nginx, ("/?port=$port{$kind}&host=a.example") x 4);
        is(handshakes(@answers), '. r r r', "$kind; $way: resumed");
        is(said('request', @answers), '1 1 1 1', "$kind; $way: over connections of their own");
    }
    $nginx->stop;
    is(in_log(), join(' ', ('. r r r') x @kinds), "$way: so says the access log");
    odd($way);
}

# Peers that keep connections: a connection that is used again has no handshake, and one that is
# opened later resumes what the first one got.
{
    $peer->stop->conf(map $peer->server($_ => $port{$_}, keepalive => 1, more => 'keepalive_requests 2;'), @kinds)->start;
    for my $way (grep $_->{keeps}, Pools::ways($nginx)) {
        conf($plain, way => $way->{name})->start;
        for my $kind (@kinds) {
            my @answers = shaken($nginx, ("/?port=$port{$kind}&host=a.example") x 6);
            is(handshakes(@answers), '. . r r r r', "$kind; $way->{name}: resumed when a connection is opened");
            is(said('request', @answers), '1 2 1 2 1 2', "$kind; $way->{name}: each carries two requests");
        }
        $nginx->stop;
        odd("kept; $way->{name}");
    }
    $peer->stop->conf(servers())->start;
}

# Off means off.
{
    conf('proxy_ssl_server_name on; location /off { proxy_ssl_session_reuse off; proxy_pass https://backend; } '
        . 'location /on { proxy_pass https://backend; }')->start;
    for my $kind (@kinds) {
        my @answers = shaken($nginx, map "/$_?port=$port{$kind}&host=a.example", qw(off off on off on off));
        is(handshakes(@answers), '. . . . r .', "$kind: off is never resumed, and makes no session for others");
    }
    $nginx->stop;
    odd('off');
}

# How the handshakes of another kind of request went.
{
    conf($plain . ' location /plain { proxy_set_header X 1; proxy_pass http://backend; } location /none { return 200 "[$balancer_ssl_session_reused]"; }')->start;
    $peer->stop->conf(servers("server { listen 127.0.0.1:$proxied; return 200 plain; }\n"))->start;
    my ($none) = $nginx->get('/none', port(0));
    is($none->{body}, '[]', '$balancer_ssl_session_reused: empty without an upstream');
    my ($answer) = shaken($nginx, "/plain?port=$proxied");
    is($answer->{ours}, undef, '$balancer_ssl_session_reused: empty without TLS');
    my @answers = shaken($nginx, ("/?host=a.example&port=$port{'TLS 1.3'}") x 2);
    is(join(' ', map $_->{ours}, @answers), '. r', '$balancer_ssl_session_reused: a dot, then an r');
    $nginx->stop;
    odd('the variable');

    $nginx->start;
    ($answer) = shaken($nginx, "/?port=$proxied");
    is("$answer->{status} " . ($answer->{ours} // 'empty'), '502 empty', '$balancer_ssl_session_reused: empty when no handshake succeeds');
    $nginx->stop;
}

# A peer that is started again has other keys, and no session of the ones before.
for my $kind (@kinds) {
    conf($plain)->start;
    my @path = ("/?host=a.example&port=$port{$kind}") x 2;
    is(handshakes(shaken($nginx, @path)), '. r', "$kind: resumed");
    $peer->stop->start;
    is(handshakes(shaken($nginx, @path)), '. r', "$kind: a peer with other keys costs one full handshake");
    $nginx->stop;
    odd("other keys; $kind");
}

# A peer that neither takes sessions nor gives any: it is offered none that it has refused.
{
    my ($gives, $gives_none) = map $peer->server($_ => $changing), 'TLS 1.2, tickets',
        'ssl_protocols TLSv1.2; ssl_session_tickets off; ssl_session_cache off;';
    $peer->stop->conf(servers($gives))->start;
    conf($plain)->start;
    my @path = ("/?host=a.example&port=$changing") x 2;
    is(handshakes(shaken($nginx, @path)), '. r', 'rejection: resumed before');
    $peer->stop->conf(servers($gives_none))->start;
    my $offered = $nginx->logged('lua balancer: ssl offering a session');
    is(handshakes(shaken($nginx, @path, @path)), '. . . .', 'rejection: full handshakes');
    is($nginx->logged('lua balancer: ssl offering a session'), $offered + 1, 'rejection: what is refused is not offered again');
    $peer->stop->conf(servers($gives))->start;
    is(handshakes(shaken($nginx, @path, @path)), '. r r r', 'rejection: resumed after');
    $nginx->stop;
    odd('rejection');
}

# A peer whose certificate was wrong and is not any more: a session that was made with the wrong one
# is not resumed again and again. The peer has kept its keys.
{
    my $keys = $ca->write('ticket.key', join '', map chr(65 + $_ % 26), 1 .. 80);
    my ($wrong, $right) = map $peer->server("ssl_protocols TLSv1.2; ssl_session_ticket_key $keys;" => $changing, certificate => $_), qw(wrong server);
    $peer->stop->conf(servers($wrong))->start;
    conf("location / { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/ca.crt; proxy_pass https://backend; }")->start;
    my @path = ("/?host=a.example&port=$changing") x 2;
    is(handshakes(shaken($nginx, @path)), '502 502', 'a certificate for another name fails');
    is($nginx->logged('lua balancer: ssl offering a session'), 0, 'and its session is not offered again');
    $peer->stop->conf(servers($right))->start;
    is(handshakes(shaken($nginx, @path)), '. r', 'and the right one is looked at as soon as it is there');
    $nginx->stop;
}

# A connection that fails in its handshake: its session is offered no more.
{
    $peer->stop->conf(servers())->start;
    my $failing = FakePeer->new($changing, sub {
        my ($client, $number) = @_;
        $client->more;
        $client->pass_on($port{'TLS 1.2, tickets'}) if $number != 3;
    });
    conf($plain)->start;
    is(handshakes(shaken($nginx, ("/?host=a.example&port=$changing") x 5)), '. r 502 . r', 'a handshake that fails: the next one is full');
    $nginx->stop;
}

# Expiry: a session lives as long as the peer said.
for my $version (2, 3) {
    $peer->stop->conf($peer->server("ssl_protocols TLSv1.$version; ssl_session_cache off; ssl_session_timeout 3;" => $port{'TLS 1.3'}))->start;
    conf($plain)->start;
    my $path = "/?host=a.example&port=$port{'TLS 1.3'}";
    is(handshakes(shaken($nginx, $path, $path)), '. r', "TLS 1.$version: resumed while it lives");
    my $until = time + 5;
    poll { time >= $until };
    my $offered = $nginx->logged('lua balancer: ssl offering a session');
    is(handshakes(shaken($nginx, $path)), '.', "TLS 1.$version: not when it is over");
    is($nginx->logged('lua balancer: ssl offering a session'), $offered, "TLS 1.$version: it was not even offered");
    is(handshakes(shaken($nginx, $path)), 'r', "TLS 1.$version: the next one is resumed");
    $nginx->stop;
    odd("expiry, TLS 1.$version");
}
$peer->stop->conf(servers())->start;

# As many tickets as the peer likes to give after one handshake: none, one, or many, which take the
# place of one session.
{
    my @counts = (0, 1, 3, 20);
    $peer->stop->conf(map $peer->server("ssl_protocols TLSv1.3; ssl_session_cache off; ssl_conf_command NumTickets $counts[$_];" => $tickets[$_]), 0 .. $#counts)->start;
    conf($plain, http => "lua_balancer_ssl_sessions 2;\n")->start;
    for my $n (0 .. $#counts) {
        my @answers = shaken($nginx, map "/?host=$_.example&port=$tickets[$n]", qw(a b a b a));
        is(handshakes(@answers), $counts[$n] ? '. . r r r' : '. . . . .', "$counts[$n] tickets a handshake");
    }
    $nginx->stop;
    odd('tickets');
    $peer->stop->conf(servers())->start;
}

# At most so many sessions.
for ([2, 'a b a b c b a b', '. . r r . r . r'], [1, 'a b a a b b', '. . . r . r'], [0, 'a a a', '. . .'], [3, 'a b c a b c', '. . . r r r']) {
    my ($max, $hosts, $expected) = @$_;
    conf($plain, http => "lua_balancer_ssl_sessions $max;\n")->start;
    for my $kind (@kinds) {
        my @answers = shaken($nginx, map "/?host=$_.example&port=$port{$kind}", split ' ', $hosts);
        is(handshakes(@answers), $expected, "lua_balancer_ssl_sessions $max; $kind: the least recently used leaves");
        $nginx->stop;
        $nginx->start;
    }
    $nginx->stop;
    odd("$max sessions");
}

# Many peers: what is kept does not grow with them.
{
    conf($plain, http => "lua_balancer_ssl_sessions 10;\n")->start;
    my @hosts = map "h$_.example", 1 .. 40;
    my @answers = shaken($nginx, map "/?host=$_&port=$port{'TLS 1.3'}", @hosts, reverse @hosts);
    is(handshakes(@answers), join(' ', ('.') x 40, ('r') x 10, ('.') x 30), 'of many peers those of the last ones are left');
    $nginx->stop;
    odd('many');
}

# 1,024 of them unless something else is said.
{
    $nginx->{level} = 'warn';
    conf($plain)->start;
    my @path = map "/?host=h$_.example&port=$port{'TLS 1.2, tickets'}", 0 .. 1024;
    my @answers = shaken($nginx, @path);
    is(said('reused', @answers), join(' ', ('.') x 1025), '1,025 peers');
    is(handshakes(shaken($nginx, @path[1, 0])), 'r .', 'all but the first have a session');
    $nginx->stop;
    odd('1,025 peers');
    $nginx->{level} = 'debug';
}

# The directive's values.
for (
    ['lua_balancer_ssl_sessions;', 'invalid number of arguments in "lua_balancer_ssl_sessions" directive'],
    ['lua_balancer_ssl_sessions many;', 'invalid value "many" in "lua_balancer_ssl_sessions" directive'],
    ['lua_balancer_ssl_sessions -1;', 'invalid value "-1" in "lua_balancer_ssl_sessions" directive'],
    ['lua_balancer_ssl_sessions 99999999;', 'invalid value "99999999" in "lua_balancer_ssl_sessions" directive'],
    ['lua_balancer_ssl_sessions 1; lua_balancer_ssl_sessions 1;', '"lua_balancer_ssl_sessions" directive is duplicate'],
    ['server { lua_balancer_ssl_sessions 1; }', '"lua_balancer_ssl_sessions" directive is not allowed here'],
) {
    my ($directive, $why) = @$_;
    refuses($nginx->conf("$directive\n"), $directive, qr/\Q$why\E in \S*nginx\.conf:6/);
}

done_testing();
