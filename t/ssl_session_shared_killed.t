# A worker is killed while it is inside the zone of the shared TLS sessions: the zone starts afresh, which is
# said once, and no request sees it.
#
# No signal finds a worker there for sure. So it is stopped anywhere, its memory is written to what it would
# have left, the lock with its number and a half-changed table, and then it is killed.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Pools ();
use POSIX ();
use Test::More;
use TlsPeer;
use Zone;

my $size = 1024 * 1024;
my $nginx = Nginx->new(level => 'debug', workers => 2);
my $tls = $nginx->root . '/tls';
Certificates->new($tls)->issue('server', names => [map "$_.example", 'a' .. 'z']);
my $peer = TlsPeer->new(tls => $tls);
$peer->conf($peer->server('TLS 1.3' => port(1), no_client => 1))->start;

$nginx->conf("lua_balancer_ssl_session_cache shared:sessions:$size;\n"
    . Pools::upstream(Pools::way($nginx, 'nothing'),
        backend => 'balancer.set_current_peer("127.0.0.1", ' . port(1) . ', ngx.var.arg_host)')
    . <<"EOC")->start;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    add_header X-Reused \$balancer_ssl_session_reused always;
    add_header X-Worker \$pid always;
    location / { proxy_pass https://backend; }
    location = /none { return 204; }
}
EOC

sub ask { (shaken($nginx, map "/?host=$_.example", @_))[0] }

# All but this worker.
sub others {
    my ($worker, @hosts) = @_;
    return $nginx->without($worker, sub { map ask($_), @hosts });
}

my ($worker, $other) = $nginx->workers;
Zone->of($worker, $size)
    or plan skip_all => 'the memory of a worker cannot be written to: it wants the right to trace it';

# Kills `worker` as if it were inside, having left `bytes` in all that it may have changed. `meanwhile` is run while it
# has the lock.
sub kill_inside {
    my ($worker, $bytes, $meanwhile) = @_;
    my $started = $nginx->logged('start worker process ');
    my @answers = $nginx->without($worker, sub {
        my $zone = Zone->of($worker, $size);
        my $table = $zone->data;
        is(unpack('L', $zone->read($table, 4)), 0, 'nobody is inside before');
        # ngx_shmtx_t has the number of the process that holds it; the table begins with whether it is in use.
        $zone->write(0, pack 'Q', $worker);
        $zone->write($table, pack 'L', 1);
        $zone->write($table + 8, $bytes x ($size - $table - 8)) if length $bytes;

        my $locks = $nginx->logged('shmtx lock');
        my $killer = fork // die "fork: $!";
        if (!$killer) {
            # A nginx without debug lines does not say when the other worker wants the lock.
            local $Nginx::patience = 1;
            poll { !$meanwhile || $nginx->logged('shmtx lock') > $locks };
            kill 'KILL', $worker;
            POSIX::_exit(0);
        }
        my @answers = $meanwhile ? $meanwhile->() : ();
        waitpid $killer, 0;
        @answers;
    });
    ok((poll { $nginx->logged('start worker process ') > $started }), 'another worker is started');
    return @answers;
}

my $said = 'lua balancer: a worker died in a shared cache, which starts afresh';
my @hosts = 'c' .. 'z';
my $deaths = 0;

for (['as it was', ''], ['zeroes', "\0"], ['garbage', "\xff"], ['text', 'x']) {
    my ($name, $bytes) = @$_;
    my ($of_one) = $nginx->without($other, sub { ask('a') });
    is($of_one->{worker}, $worker, "$name: a worker keeps a session");
    my ($of_other) = others($worker, 'b');
    is($of_other->{worker}, $other, "$name: another one does");

    my $host = shift @hosts;
    my ($answer) = kill_inside($worker, $bytes, sub { ask($host) });
    $deaths++;
    is("$answer->{status} $answer->{worker}", "200 $other", "$name: a request that comes meanwhile is served");
    is(handshakes($answer), '.', "$name: with a full handshake");
    is($nginx->logged($said), $deaths, "$name: the zone starts afresh");

    my $killed = $worker;
    ($worker) = grep $_ != $other, $nginx->workers;
    isnt($worker, $killed, "$name: another worker is there");
    is(handshakes(others($worker, 'b', $host)), 'r r', "$name: the other one has its sessions at hand");
    is(handshakes($nginx->without($other, sub { ask($host) })), 'r', "$name: the new one has what was kept since");
    is(handshakes($nginx->without($other, sub { ask('a') })), '.', "$name: and not what was there before");

    # In both directions.
    my ($from, $to) = (shift @hosts, shift @hosts);
    is(handshakes(others($worker, $from)), '.', "$name: a new session of the other");
    is(handshakes(others($other, $from, $to)), 'r .', "$name: is resumed by the new one, which keeps one");
    is(handshakes(others($worker, $to)), 'r', "$name: which is resumed by the other");
    is($nginx->logged($said), $deaths, "$name: that it starts afresh is said once");
}

# The configuration is read anew before anybody has been at the zone since.
{
    kill_inside($worker, 'x');
    is($nginx->logged($said), $deaths++, 'reload: nobody has seen it yet');
    my %old = map { $_ => 1 } $nginx->workers;
    $nginx->reload;
    ok((poll { my $by = $nginx->get('/none', port(0))->{worker}; $by && !$old{$by} }), 'reload: new workers serve');
    poll { !grep kill(0, $_), keys %old };
    ($worker, $other) = $nginx->workers;
    my $host = shift @hosts;
    is(handshakes(others($worker, $host)), '.', 'reload: a full handshake');
    is($nginx->logged($said), $deaths, 'reload: the zone starts afresh');
    is(handshakes(others($other, $host)), 'r', 'reload: the other worker resumes');
    is(handshakes(others($other, $host), others($worker, $host)), 'r r', 'reload: both go on with it');
    is($nginx->logged($said), $deaths, 'reload: that is said once');
}

$nginx->stop;
my @odd = grep /\[(?:warn|error|crit|alert|emerg)\]/, split /^/, $nginx->log;
is(scalar(grep /exited on signal 9/, @odd), $deaths, 'each death is in the log');
is(scalar(grep /shared memory zone "sessions" was locked by/, @odd), $deaths, 'each had the lock');
is(join('', grep !/exited on signal 9|was locked by|\Q$said\E/, @odd), '', 'nothing else is odd in it');

done_testing();
