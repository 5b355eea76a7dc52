# The end of processes: QUIT lets what was begun end and closes what is idle, TERM ends at any moment,
# and a worker that is killed has a successor. With and without a master, and as a daemon.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use IO::Select;
use IO::Socket::INET;
use Nginx;
use Pools;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

# Takes connections and answers nothing, until the test does.
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(2), Listen => 64, ReuseAddr => 1)
    or die "listen: $!";

# Answers at once, and keeps its connections open.
my $peer = FakePeer->new(port(1), sub {
    my ($connection) = @_;
    while (my $request = $connection->request) { $connection->answer("peer one\n") }
});

# How nginx runs: `main` is what stands in front of its configuration.
my @modes = (
    { name => 'a master and a worker', main => '', worker => 1 },
    { name => 'no master', main => 'master_process off;', worker => 0 },
    { name => 'a daemon', main => '', daemon => 1, worker => 1 },
    { name => 'a daemon without a master', main => 'master_process off;', daemon => 1, worker => 0 },
);
my $limit = 10;

sub configure {
    my ($nginx, $mode, $way, %more) = @_;
    $nginx->conf(upstream($way, backend => <<"EOC") . <<"EOC", main => $mode->{main});
        if not balancer.get_last_failure() then
            balancer.set_more_tries(1)
        end
        local tried = #balancer.get_tried()
        local slow = ngx.var.arg_slow and tried == 0
        balancer.set_current_peer("127.0.0.1", slow and ${\port(2)} or ${\port(1)})
        keep()
EOC
init_by_lua_block {
    version = "@{[$more{version} // 'first']}"
    @{[$more{init} // '']}
}
@{[$more{init_worker} ? "init_worker_by_lua_block { $more{init_worker} }" : '']}
server {
    listen 127.0.0.1:${\port(0)};
    location / {
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://backend;
    }
}
EOC
    return if !$mode->{daemon};
    (my $conf = slurp($nginx->root . '/conf/nginx.conf')) =~ s/daemon off;/daemon on;/;
    $nginx->write('conf/nginx.conf', $conf);
}

# Starts nginx as the mode says; returns the number of the process that takes signals.
sub begin {
    my ($nginx, $mode) = @_;
    if (!$mode->{daemon}) {
        $nginx->start;
        return $nginx->pid;
    }
    my $run = $nginx->run;
    $run->{code} == 0 or die "nginx does not start: $run->{out}";
    return poll { $nginx->pid };
}

sub children { split ' ', slurp("/proc/$_[0]/task/$_[0]/children") }
sub exists_process { my $stat = slurp("/proc/$_[0]/stat"); return $stat ne '' && $stat !~ /\) Z / }

# The workers of a master, once there are any.
sub workers {
    my ($mode, $pid) = @_;
    return if !$mode->{worker};
    my @workers;
    poll { @workers = children($pid) };
    return @workers;
}

# The processes that are left of these, once it has had time.
sub left {
    my (@pids) = @_;
    poll { !grep exists_process($_), @pids };
    return join ' ', grep exists_process($_), @pids;
}

# How a child of ours ended: its status, or that it does not.
sub status_of {
    my ($nginx, $mode, $pid) = @_;
    return 'daemon' if $mode->{daemon};
    poll { waitpid($pid, POSIX::WNOHANG) == $pid } or return 'it goes on';
    my $status = $?;
    delete $nginx->{running};
    return $status & 127 ? 'signal ' . ($status & 127) : $status >> 8;
}

# No worker may end otherwise than with 0, and no connection be left behind.
sub nothing_odd {
    my ($nginx, $what) = @_;
    my @odd = grep /\[(?:alert|emerg|crit)\]|exited on signal|exited with code [^0]|open socket|internal error|panick/, split /\n/, $nginx->log;
    is(join("\n", @odd), '', "$what: nothing odd in the log");
}

sub client {
    my ($line) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15) or die "connect: $!";
    print $socket "$line HTTP/1.1\r\nHost: localhost\r\n\r\n";
    return $socket;
}

# An answer that has a Content-Length or is chunked.
sub answer {
    my ($socket) = @_;
    my $text = '';
    my $select = IO::Select->new($socket);
    my $until = time + $Nginx::patience;
    while ($text !~ /\r\n\r\n.*peer \w+\n/s && time < $until) {
        next if !$select->can_read(0.1);
        sysread $socket, $text, 65536, length $text or last;
    }
    return $text =~ m{^HTTP/1\.1 200 .*(peer \w+)\n}s ? $1 : $text;
}

# Whether the other side closes the connection.
sub is_closed {
    my ($socket) = @_;
    my $select = IO::Select->new($socket);
    my $until = time + $Nginx::patience;
    while (time < $until) {
        next if !$select->can_read(0.1);
        return 1 if !sysread $socket, my $bytes, 65536;
    }
    return 0;
}

my @ways = grep $_->{name} =~ /^(?:enable_keepalive|keepalive after|nothing)$/, ways(Nginx->new(name => 'version'));

for my $mode (@modes) {
    for my $way (@ways) {
        my $what = "$mode->{name}, $way->{name}";
        my $nginx = Nginx->new;
        configure($nginx, $mode, $way);
        my $pid = begin($nginx, $mode);
        my @pids = ($pid, workers($mode, $pid));

        # An idle client, whose request has left an idle connection to the peer.
        my $idle = client('GET /');
        is(answer($idle), 'peer one', "$what: it serves");
        # Two that wait for a peer that has not answered yet; one of them will be tried elsewhere.
        my @waiting = map client('GET /?slow=1'), 1, 2;
        my @held = map scalar($silent->accept), @waiting;
        # One whose answer has begun.
        my $busy = client('GET /?slow=1');
        my $answering = $silent->accept;
        # The peer has the request before anything else happens.
        IO::Select->new($_)->can_read($limit) for @held, $answering;
        sysread $answering, my $asked, 65536;
        # More than nginx holds back.
        print $answering "HTTP/1.1 200 OK\r\nContent-Length: 50011\r\n\r\n", 'x' x 50_000;
        IO::Select->new($busy)->can_read($limit);

        kill 'QUIT', $pid;
        ok(is_closed($idle), "$what: an idle client's connection is closed");
        if ($mode->{worker}) {
            ok(exists_process($pids[1]), "$what: it waits for those that wait");
            sysread $held[0], my $request, 65536;
            print {$held[0]} "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npeer two\n";
            is(answer($waiting[0]), 'peer two', "$what: a request that waited is answered");
            close $held[1];
            is(answer($waiting[1]), 'peer one', "$what: another is tried at the next peer and answered");
            ok(exists_process($pids[1]), "$what: it waits for an answer that has begun");
            print $answering "peer three\n";
            is(answer($busy), 'peer three', "$what: which arrives in full");
        }
        else {
            # nginx itself knows no graceful end without a master.
            ok(is_closed($_), "$what: clients that wait see that it has ended") for @waiting, $busy;
        }
        is(left(@pids), '', "$what: the processes are gone");
        ok(is_closed($held[0]), "$what: the peer's connections are closed");
        like(status_of($nginx, $mode, $pid), qr/^(?:0|daemon)$/, "$what: the exit status is 0");
        like($nginx->log, qr/worker process $pids[1] exited with code 0/, "$what: so is the worker's") if $mode->{worker};
        nothing_odd($nginx, $what);
    }
}

# HUP while requests wait. Without a master nginx, with no module at all, has no connections after it
# ("worker_connections are not enough").
for my $mode (grep $_->{worker}, @modes) {
    my $what = "$mode->{name}, HUP";
    my $nginx = Nginx->new;
    my $way = $ways[0];
    configure($nginx, $mode, $way);
    my $pid = begin($nginx, $mode);
    is(answer(client('GET /')), 'peer one', "$what: it serves");
    my $waiting = client('GET /?slow=1');
    my $held = $silent->accept;
    for my $version (2 .. 4) {
        my $before = $nginx->logged('reconfiguring');
        my @before = children($pid);
        configure($nginx, $mode, $way, version => $version);
        kill 'HUP', $pid;
        ok(poll { $nginx->logged('reconfiguring') > $before }, "$what $version: it is taken");
        # The listening socket is there all the time.
        is(answer(client('GET /')), 'peer one', "$what $version: it serves");
        ok(poll { my %before = map { $_ => 1 } @before; grep !$before{$_}, children($pid) }, "$what $version: there is a new worker");
    }
    print $held "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npeer two\n";
    is(answer($waiting), 'peer two', "$what: the request that waited is answered");
    close $held;
    close $waiting;
    my @pids = ($pid, children($pid));
    kill 'QUIT', $pid;
    is(left(@pids), '', "$what: then QUIT ends it");
    like(status_of($nginx, $mode, $pid), qr/^(?:0|daemon)$/, "$what: the exit status is 0");
    nothing_odd($nginx, $what);
}

# TERM at any moment, under load.
sub load {
    my ($parent) = ($$);
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    srand;
    my $n = 0;
    while (getppid == $parent) {
        my @sockets = grep defined, map IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 2), 1 .. 4;
        sleep 0.01 if !@sockets;
        for my $round (1 .. 5) {
            for my $socket (@sockets) {
                my $slow = $n++ % 16 == 0 ? '?slow=1' : '';
                syswrite $socket, "GET /$slow HTTP/1.1\r\nHost: localhost\r\n\r\n" if defined fileno $socket;
            }
            sysread $_, my $bytes, 65536 for IO::Select->new(@sockets)->can_read(0.01);
        }
    }
    POSIX::_exit(0);
}

$SIG{PIPE} = 'IGNORE';
my $rounds = $ENV{SHUTDOWNS} // 6;
my $version = Nginx->new(name => 'version')->version;
my $seed = $ENV{SHUTDOWN_SEED} // time % 1_000_000;
srand $seed;
for my $signal (qw(TERM QUIT INT)) {
    for my $mode (@modes) {
        my $what = "$signal under load, $mode->{name}";
        my $loader = load();
        my (@left, @status, @odd);
        for my $round (1 .. $rounds) {
            my $nginx = Nginx->new;
            configure($nginx, $mode, $ways[$round % @ways]);
            my $pid = begin($nginx, $mode);
            my @pids = ($pid, workers($mode, $pid));
            # Half of the ends come while another configuration is taken.
            kill 'HUP', $pid if $mode->{worker} && $round % 2;
            sleep rand 0.15;
            push @pids, children($pid) if $mode->{worker};
            kill $signal, $pid;
            # A peer that never answers would hold QUIT up: what waits there is let go.
            poll {
                while (IO::Select->new($silent)->can_read(0)) { close $silent->accept }
                !grep exists_process($_), @pids;
            };
            my $left = left(@pids);
            push @left, $left if $left;
            my $status = status_of($nginx, $mode, $pid);
            push @status, $status if $status !~ /^(?:0|daemon)$/;
            # Before 1.25.4 nginx says so of a worker that was told QUIT first, and then TERM.
            my $told_twice = $round % 2 && $signal ne 'QUIT' && $version < 1.025004 ? qr/ open socket #\d+ left in connection |: aborting$/ : qr/^$/;
            push @odd, grep !/$told_twice/ && /\[(?:alert|emerg|crit)\]|exited on signal|exited with code [^0]|open socket|internal error|panick/, split /\n/, $nginx->log;
            kill 'KILL', grep exists_process($_), @pids;
        }
        kill 'KILL', $loader;
        waitpid $loader, 0;
        is("@left", '', "$what: the processes are gone");
        is("@status", '', "$what: their status is 0");
        is(join("\n", @odd), '', "$what: nothing odd in the log") or diag("SHUTDOWN_SEED=$seed");
    }
}

# A signal that comes while Lua starts. nginx without a master does not see such a one before its next event.
for my $signal (qw(TERM QUIT INT)) {
    for my $phase (qw(init_worker init)) {
        my ($mode, $what) = ($modes[0], "$signal while $phase runs");
        my $nginx = Nginx->new;
        # Less than the second after which a master kills.
        my $busy = q{
            ngx.log(ngx.ERR, "Lua is busy")
            ngx.update_time()
            local finish = ngx.now() + 0.4
            repeat ngx.update_time() until ngx.now() > finish
        };
        # nginx takes signals once it has read its first configuration.
        my $again = $phase eq 'init';
        configure($nginx, $mode, $ways[0], $again ? () : ($phase => $busy));
        $nginx->start;
        my $pid = $nginx->pid;
        if ($again) {
            configure($nginx, $mode, $ways[0], $phase => $busy);
            kill 'HUP', $pid;
        }
        ok(poll { $nginx->logged('Lua is busy') }, "$what: it runs");
        my @pids = ($pid, workers($mode, $pid));
        kill $signal, $pid;
        is(left(@pids), '', "$what: the processes are gone");
        is(status_of($nginx, $mode, $pid), 0, "$what: the exit status is 0");
        nothing_odd($nginx, $what);
    }
}

# A worker that is killed has a successor.
{
    my $nginx = Nginx->new;
    configure($nginx, $modes[0], $ways[0]);
    $nginx->start;
    for my $round (1 .. 3) {
        is(answer(client('GET /')), 'peer one', "before KILL $round it serves");
        my ($worker) = children($nginx->pid);
        my $waiting = client('GET /?slow=1');
        my $held = $silent->accept;
        kill 'KILL', $worker;
        ok(is_closed($waiting), "KILL $round: a client that waited sees it");
        ok(is_closed($held), "KILL $round: so does its peer");
        ok(poll { my ($now) = children($nginx->pid); $now && $now != $worker }, "KILL $round: there is another worker");
        is(answer(client('GET /')), 'peer one', "KILL $round: it serves");
    }
    my $pid = $nginx->pid;
    my @pids = ($pid, children($pid));
    kill 'QUIT', $pid;
    is(left(@pids), '', 'QUIT ends them');
    my @odd = grep !/exited on signal 9/ && /\[(?:alert|emerg|crit)\]/, split /\n/, $nginx->log;
    is(join("\n", @odd), '', 'nothing else is odd in the log');
    status_of($nginx, $modes[0], $pid);
}

done_testing();
