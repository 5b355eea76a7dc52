# TLS sessions that all workers share, and that outlive a worker and a configuration.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools ();
use Test::More;
use Time::HiRes qw(time);
use TlsPeer;
use Verdict;
use Zone;

my $nginx = Nginx->new(level => 'debug', workers => 2);
my $root = $nginx->root;
my $tls = "$root/tls";

my $ca = Certificates->new($tls);
$ca->issue('server', names => [map "$_.example", 'a' .. 'z']);
# Its session carries the peer's certificate, which is larger than what the zone takes.
$ca->issue('big', names => [map "a-name-that-is-not-short-$_.example", 1 .. 600]);
$ca->issue($_) for qw(one two);

my @kinds = sort keys %kinds;
my %port = map { $kinds[$_] => port(1 + $_) } 0 .. $#kinds;
my ($big, $short) = map port($_), 5, 6;
my $port = $port{'TLS 1.3'};

my $peer = TlsPeer->new(tls => $tls);
$peer->conf(map($peer->server($_ => $port{$_}), @kinds), $peer->server('TLS 1.2, tickets' => $big, certificate => 'big'),
    $peer->server('ssl_protocols TLSv1.2; ssl_session_cache off; ssl_session_timeout 3;' => $short))->start;

my $upstream = Pools::upstream(Pools::way($nginx, 'nothing'),
    backend => 'balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.arg_port), ngx.var.arg_host)');

# A configuration with these lines in http{}.
sub conf {
    my ($http) = @_;
    return $nginx->conf($http . $upstream . <<"EOC");
proxy_ssl_protocols TLSv1.2 TLSv1.3;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_ssl_server_name on;
    add_header X-Reused \$balancer_ssl_session_reused always;
    add_header X-Worker \$pid always;
    location / { proxy_pass https://backend; }
    location = /none { return 204; }
    location /verified { proxy_ssl_verify on; proxy_ssl_trusted_certificate $tls/ca.crt; proxy_pass https://backend; }
    location /one { proxy_ssl_certificate $tls/one.crt; proxy_ssl_certificate_key $tls/one.key; proxy_pass https://backend; }
    location /two { proxy_ssl_certificate $tls/two.crt; proxy_ssl_certificate_key $tls/two.key; proxy_pass https://backend; }
}
EOC
}

my $shared = "lua_balancer_ssl_session_cache shared:sessions:1m;\n";

sub path { my ($host, $to, $where) = @_; '/' . ($where // '') . "?host=$host.example&port=" . ($to // $port) }

sub ask { (shaken($nginx, path(@_)))[0] }

# One that was killed is named in the log, and nothing else is odd.
sub odd {
    my ($name) = @_;
    my @odd = grep !/exited on signal 9/ && /exited on signal|\[(?:emerg|crit|error)\]|internal error|no memory|damaged/, split /^/, $nginx->log;
    is(join('', @odd), '', "$name: nothing odd in the log");
}

# Two workers: what one has made the other resumes; alone each has its own.
for my $shared ($shared, '') {
    my $name = $shared ? 'shared' : 'not shared';
    conf($shared)->start;
    for my $kind (@kinds) {
        my $first = ask('a', $port{$kind});
        is(handshakes($first), '.', "$kind; $name: a full handshake in one worker");
        my ($other) = $nginx->without($first->{worker}, sub { ask('a', $port{$kind}) });
        isnt($other->{worker}, $first->{worker}, "$kind; $name: another worker serves");
        is(handshakes($other), $shared ? 'r' : '.', "$kind; $name: " . ($shared ? 'it resumes what the first has made' : 'it has none'));
        my ($again) = $nginx->without($first->{worker}, sub { ask('a', $port{$kind}) });
        is(handshakes($again), 'r', "$kind; $name: and it has one now");
    }
    $nginx->stop;
    odd("two workers; $name");
}

# What tells sessions apart does so in all workers.
{
    conf($shared)->start;
    my @first = map ask(@$_), ['a'], ['b'], ['a', $port, 'one'], ['a', $port, 'verified'];
    is(handshakes(@first), '. . . .', 'each of another identity: full handshakes');
    my %workers = map { $_->{worker} => 1 } @first;
    my $worker = (keys %workers)[0];
    my @other = $nginx->without($worker, sub { map ask(@$_), ['a'], ['b'], ['a', $port, 'one'], ['a', $port, 'verified'], ['c'], ['a', $port, 'two'] });
    is(handshakes(@other), 'r r r r . .', 'each is resumed for its own identity in the other worker');
    $nginx->stop;
    odd('identities');
}

# A worker that was killed: the next one goes on with its sessions.
for my $shared ($shared, '') {
    my $name = $shared ? 'shared' : 'not shared';
    $nginx->{workers} = 1;
    conf($shared)->start;
    my @answers = shaken($nginx, (path('a')) x 2);
    is(handshakes(@answers), '. r', "$name: resumed");
    $nginx->replace($answers[0]{worker});
    my $new = ask('a');
    isnt($new->{worker}, $answers[0]{worker}, "$name: a new worker serves");
    is(handshakes($new), $shared ? 'r' : '.', "$name: " . ($shared ? 'it resumes' : 'it has no session'));
    $nginx->stop;
    odd("killed; $name");
}

# A reload, with the zone's size kept, changed, and the zone's name changed.
for (['the same', $shared, 'r'], ['another name', $shared =~ s/sessions:/others:/r, '.'], ['another size', $shared =~ s/1m/2m/r, '.'],
    ['no zone', '', '.'], ['the same, and another limit', "lua_balancer_ssl_sessions 7;\n$shared", 'r']) {
    my ($name, $new, $expected) = @$_;
    conf($shared)->start;
    my @answers = shaken($nginx, (path('a')) x 2);
    is(handshakes(@answers), '. r', "reload, $name: resumed before");
    conf($new)->reload;
    my $old = $answers[0]{worker};
    my $first;
    ok((poll { $first = $nginx->get('/none', port(0)); $first->{worker} && $first->{worker} != $old }), "reload, $name: a new worker serves");
    poll { !kill 0, $old };
    is(handshakes(shaken($nginx, path('a'), path('a'))), "$expected r", "reload, $name: " . ($expected eq 'r' ? 'resumed after' : 'a full handshake after'));
    $nginx->stop;
    odd("reload, $name");
}

# Reloads one after the other, with sessions from each of them.
{
    conf($shared)->start;
    my $worker = ask('a')->{worker};
    for my $host ('b' .. 'f') {
        conf($shared)->reload;
        my $first;
        poll { ($first = $nginx->get('/none', port(0)))->{worker} != $worker };
        poll { !kill 0, $worker };
        $worker = $first->{worker};
        ask($host);
    }
    is(handshakes(shaken($nginx, map path($_), 'a' .. 'f')), 'r r r r r r', 'sessions of all configurations so far');
    $nginx->stop;
    odd('reloads');
}

# A zone that is full: the least recently used leave, and nobody complains.
{
    conf("lua_balancer_ssl_session_cache shared:sessions:32k;\n")->start;
    my @hosts = 'a' .. 'z';
    my @answers = shaken($nginx, map path($_), @hosts, @hosts);
    is(handshakes(@answers), join(' ', ('.') x 26, ('r') x 26), 'a full zone: the worker has its own');
    $nginx->replace($answers[0]{worker});
    # The last one first: each full handshake takes the place of another.
    my $seen = join '', map handshakes(ask($_)), reverse @hosts;
    like($seen, qr/^r{2,20}\.+$/, 'a full zone: the ones used last are left') or diag($seen);
    $nginx->stop;
    odd('full');
}

# One that is too large for a zone is resumed in its own worker only.
{
    conf($shared)->start;
    my @answers = shaken($nginx, (path('a', $big)) x 3);
    is(handshakes(@answers), '. r r', 'too large: resumed in its worker');
    is($nginx->logged('lua balancer: ssl session too large for the shared cache ignored'), 1, 'too large: with a debug line');
    my $small = ask('a');
    $nginx->replace($small->{worker});
    is(handshakes(ask('a', $big)), '.', 'too large: not in another one');
    is(handshakes(ask('a')), 'r', 'too large: others are');
    $nginx->stop;
    odd('too large');
}

# Expired: a session that another worker made is not offered when it is over.
{
    conf($shared)->start;
    my $first = ask('a', $short);
    my $until = time + 4;
    poll { time >= $until };
    $nginx->replace($first->{worker});
    my $offered = $nginx->logged('lua balancer: ssl offering a session');
    is(handshakes(shaken($nginx, (path('a', $short)) x 2)), '. r', 'expired: a full handshake in the new worker');
    is($nginx->logged('lua balancer: ssl offering a session'), $offered + 1, 'expired: it was not even offered');
    $nginx->stop;
    odd('expired');
}

# A peer with other keys: its refusal is known to all workers.
{
    conf($shared)->start;
    my @answers = shaken($nginx, (path('a')) x 2);
    is(handshakes(@answers), '. r', 'other keys: resumed before');
    $peer->stop->start;
    is(handshakes(ask('a')), '.', 'other keys: one full handshake');
    $nginx->replace($answers[0]{worker});
    is(handshakes(ask('a')), 'r', 'other keys: the new session is shared');
    $nginx->stop;
    odd('other keys');
}

# Damaged: ignored, with a debug line. The name stands in the key and, after it, in the session.
SKIP: {
    conf($shared)->start;
    my @answers = shaken($nginx, (path('q')) x 2);
    is(handshakes(@answers), '. r', 'damaged: resumed before');
    my $zone = Zone->of($answers[0]{worker}, 1024 * 1024);
    if (!$zone) {
        $nginx->stop;
        skip 'the memory of a worker cannot be written to', 5;
    }
    $zone->write($zone->last('q.example'), 'x' x 9);
    $nginx->replace($answers[0]{worker});
    is(handshakes(ask('q')), '.', 'damaged: a full handshake');
    is($nginx->logged('[debug]') > 0 ? $nginx->logged('lua balancer: ssl damaged session in the shared cache ignored') : 1, 1, 'damaged: with a debug line');
    my ($new) = ask('q');
    is(handshakes($new), 'r', 'damaged: the next one is resumed');
    $nginx->replace($new->{worker});
    is(handshakes(ask('q')), 'r', 'damaged: and shared again');
    $nginx->stop;
}

# What the directive takes.
for (
    ['lua_balancer_ssl_session_cache;', 'invalid number of arguments in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache sessions;', 'invalid value "sessions" in "lua_balancer_ssl_session_cache" directive, it must be "shared:NAME:SIZE"'],
    ['lua_balancer_ssl_session_cache shared:x;', 'invalid value "shared:x" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache shared::1m;', 'invalid value "shared::1m" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache shared:x:;', 'invalid value "shared:x:" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache shared:x:1q;', 'invalid value "shared:x:1q" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache shared:x:1m:2;', 'invalid value "shared:x:1m:2" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache builtin:x:1m;', 'invalid value "builtin:x:1m" in "lua_balancer_ssl_session_cache" directive'],
    ['lua_balancer_ssl_session_cache shared:x:1k;', 'zone "shared:x:1k" is too small'],
    ['lua_balancer_ssl_session_cache shared:x:1m; lua_balancer_ssl_session_cache shared:x:1m;', '"lua_balancer_ssl_session_cache" directive is duplicate'],
    ['limit_req_zone $uri zone=x:1m rate=1r/s; lua_balancer_ssl_session_cache shared:x:1m;', 'the shared memory zone "x" is already declared for a different use'],
    ['server { lua_balancer_ssl_session_cache shared:x:1m; }', '"lua_balancer_ssl_session_cache" directive is not allowed here'],
) {
    my ($directive, $why) = @$_;
    refuses($nginx->conf("$directive\n"), $directive, qr/\Q$why\E.* in \S*nginx\.conf:6/);
}

done_testing();
