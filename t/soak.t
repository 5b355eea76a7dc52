# The long run: many requests at 64 connections over 50 identities, with peers that close at random.
# No connection is used for another identity, no request fails, and no file descriptor is left.
#
# Some thousand requests here, a hundred thousand with `make soak`.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use Nginx;
use Pools;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Time::HiRes 'time';

my $requests = $ENV{SOAK} // 5_000;
my $seed = $ENV{SOAK_SEED} // time % 1_000_000;
my $clients = 64;
my $idle = 64;
diag("$requests requests, SOAK_SEED=$seed") if $ENV{SOAK};

# What tells the identities apart is what their peers can see: 20 TLS names, and 10 local addresses
# with 3 pools each.
my @identities = ((map "n$_.example", 1 .. 20), map { my $from = $_; map "$from.$_", 1 .. 3 } 1 .. 10);

my $nginx = Nginx->new(level => 'error');
my $peers = Nginx->new(name => 'peers', level => 'error');
my $tls = $peers->root . '/tls';
Certificates->new($tls)->issue('server', names => ['*.example']);

# TLS peers: a connection is closed without an answer for 4 % of its further requests, and after 50
# of them in any case.
$peers->conf(<<"EOC")->start;
split_clients \$request_id \$chance { 4% close; * ''; }
map \$connection_requests \$further { 1 ''; default \$chance; }
server {
    listen 127.0.0.1:${\port(2)} ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    keepalive_requests 50;
    if (\$further) { return 444; }
    return 200 'id=\$ssl_server_name';
}
EOC

# The other peers are this process: who asks for what over which connection is known there.
my $wrong = File::Temp->new;
my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(1), Listen => 256, ReuseAddr => 1) or die "listen: $!";
my $plain = fork // die "fork: $!";
if (!$plain) {
    serve_plain();
    POSIX::_exit(0);
}

sub serve_plain {
    srand $seed + 1;
    my $parent = getppid;
    open my $log, '>>', $wrong->filename or POSIX::_exit(1);
    $log->autoflush(1);
    my $select = IO::Select->new($listen);
    my (%of, %closes);
    my $drop = sub {
        my ($c) = @_;
        $select->remove($c->{socket});
        delete $of{$c->{socket}};
        delete $closes{$c->{socket}};
        close $c->{socket};
    };
    while (getppid == $parent) {
        for my $socket ($select->can_read(%closes ? 0.005 : 1)) {
            if ($socket == $listen) {
                my $client = $listen->accept or next;
                setsockopt $client, IPPROTO_TCP, TCP_NODELAY, 1;
                $select->add($client);
                $of{$client} = { socket => $client, buffer => '', count => 0, from => $client->peerhost };
                next;
            }
            my $c = $of{$socket} or next;
            if (!sysread $socket, $c->{buffer}, 65536, length $c->{buffer}) {
                $drop->($c);
                next;
            }
            while ($c->{buffer} =~ s/^(.*?)\r\n\r\n//s) {
                my ($id) = $1 =~ /^X-Id: (\S+)\r?$/m;
                $c->{id} //= $id;
                my ($from) = $id =~ /^(\d+)\./;
                print $log "$id over a connection of $c->{id} from $c->{from}\n"
                    if $id ne $c->{id} || $c->{from} ne "127.0.1.$from";
                $c->{count}++;

                my $how = rand;
                if ($c->{count} > 1 && $how < 0.03) { $drop->($c); last }
                if ($c->{count} > 1 && $how < 0.04) {
                    syswrite $socket, 'HTTP/1.1 2';
                    $drop->($c);
                    last;
                }
                my $body = "id=$id";
                my $says = $how > 0.98 ? "Connection: close\r\n" : '';
                syswrite $socket, "HTTP/1.1 200 OK\r\n${says}Content-Length: " . length($body) . "\r\n\r\n$body";
                if ($says || $how < 0.08) { $drop->($c); last }
                $closes{$socket} = time + rand 0.03 if $how < 0.12;
            }
        }
        my $now = time;
        for (grep $closes{$_} < $now, keys %closes) {
            $drop->($of{$_});
        }
    }
}

END {
    my $status = $?;
    if ($plain) {
        kill 'KILL', $plain;
        waitpid $plain, 0;
    }
    $? = $status;
}

# Sends all requests; returns what went wrong, and how often each count of descriptors was seen.
sub run {
    my ($fds) = @_;
    my $select = IO::Select->new;
    my (%of, %status, %answers, $most);
    my ($sent, $done, $bad) = (0, 0, 0);
    my @first_bad;
    my $send = sub {
        my ($c) = @_;
        $c->{id} = $identities[rand @identities];
        $c->{buffer} = '';
        $sent++;
        my $path = $c->{id} =~ /example/ ? 'tls' : 'plain';
        syswrite $c->{socket}, "GET /$path?id=$c->{id} HTTP/1.1\r\nHost: localhost\r\n\r\n";
    };
    for (1 .. $clients) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0)) or die "connect: $!";
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
        $select->add($socket);
        $of{$socket} = { socket => $socket };
        $send->($of{$socket});
    }
    while ($done < $requests) {
        my @ready = $select->can_read(30) or last;
        for my $socket (@ready) {
            my $c = $of{$socket};
            if (!sysread $socket, $c->{buffer}, 65536, length $c->{buffer}) {
                push @first_bad, "a client's connection closed at $c->{id}";
                $select->remove($socket);
                next;
            }
            my ($status, $size) = $c->{buffer} =~ /^HTTP\/1\.1 (\d+).*?^Content-Length: (\d+)\r\n/ms or next;
            my $at = index $c->{buffer}, "\r\n\r\n";
            next if $at < 0 || length($c->{buffer}) < $at + 4 + $size;
            my $body = substr $c->{buffer}, $at + 4, $size;
            $done++;
            if ($status != 200 || $body ne "id=$c->{id}") {
                push @first_bad, "$c->{id}: $status $body" if @first_bad < 5;
                $bad++;
            }
            if ($done % 1000 == 0) {
                my $now = $fds->();
                $most = $now if $now > ($most // 0);
            }
            $send->($c) if $sent < $requests;
        }
    }
    close $_->{socket} for values %of;
    return { done => $done, bad => $bad, first_bad => \@first_bad, most => $most // 0 };
}

for my $way (ways($nginx)) {
    next if !$way->{keeps} || $way->{name} =~ /, /;
    my $name = $way->{name};
    srand $seed;
    truncate $wrong->filename, 0;
    my %way = %$way;
    # What is idle at the end goes soon.
    $way{keep} = 'assert(balancer.enable_keepalive(1))' if $way{keep};
    $way{$_} &&= "keepalive $idle; keepalive_timeout 1s;" for qw(before after);
    $way{after} = 'keepalive_timeout 1s;' if $name eq 'nothing';
    $way{before} = ($way{before} // '') . "balancer_keepalive $idle;";
    $nginx->conf(upstream(\%way, backend => <<"EOC") . <<"EOC");
        local id = ngx.var.arg_id
        local from, pool = id:match("^(%d+)%.(%d)\$")
        if from then
            balancer.bind_to_local_addr("127.0.1." .. from)
            balancer.set_current_peer("127.0.0.1", ${\port(1)}, { pool = pool })
        else
            balancer.set_current_peer("127.0.0.1", ${\port(2)}, id)
        end
        keep()
EOC
keepalive_requests 1000000;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header X-Id \$arg_id;
    location /plain { proxy_pass http://backend; }
    location /tls { proxy_ssl_server_name on; proxy_pass https://backend; }
}
EOC
    $nginx->start;
    my ($worker) = $nginx->workers or die 'no worker';
    my $fds = sub { scalar(() = glob "/proc/$worker/fd/*") };
    # What it has open before the first request.
    my $before;
    poll { my $now = $fds->(); my $same = $now == ($before // 0); $before = $now; $same };

    my $began = time;
    my $run = run($fds);
    my $took = time - $began;
    is($run->{done}, $requests, "$name: all requests are answered");
    is($run->{bad}, 0, "$name: as they should be") or diag(join "\n", @{$run->{first_bad}});
    is(slurp($wrong->filename), '', "$name: no connection is used for another identity");
    my $limit = $before + 2 * $clients + ($name eq 'nothing' ? 2 * 32 : $idle) + 16;
    cmp_ok($run->{most}, '<=', $limit, "$name: no more descriptors than clients, tries and idle connections need");
    ok(poll { $fds->() == $before }, "$name: none is left at the end") or diag($fds->(), " descriptors, $before before");
    is(($nginx->workers)[0], $worker, "$name: the worker is the same");
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error|no way to tell/, "$name: nothing odd in the log");
    my $dead = () = $nginx->log =~ /\[error\]/g;
    cmp_ok($dead, '>', $requests / 500, "$name: many connections were dead when they were used");
    diag(sprintf '%s: %d requests/s, %d dead connections, at most %d descriptors', $name, $run->{done} / $took, $dead, $run->{most}) if $ENV{SOAK};
}

done_testing();
