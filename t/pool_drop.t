# When an idle connection is dropped, and when a connection is not kept at all: what the peer, the
# request or the end of the worker does to it.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use IO::Socket::INET;
use Nginx;
use Pools;
use POSIX ();
use Test::More;
use Time::HiRes 'time';

my $nginx = Nginx->new(level => 'debug');
my $root = $nginx->root;

# Told by the path, a peer does something wrong; each answer tells its connection. What it does
# after an answer it does once the file `go` is there.
my $peer = FakePeer->new(port(1), sub {
    my ($connection, $number) = @_;
    my $count = 0;
    my $wait = sub { poll { -e "$root/go" } };
    while (my $request = $connection->request) {
        $count++;
        my ($path) = $request->{line} =~ m{^\S+ /(\w*)};
        my $body = "connection=$number request=$count";
        if ($path eq 'half') {
            $connection->write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n$body");
            return;
        }
        if ($path eq 'more') {
            # More than it promised, at once.
            $connection->write("HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n${body}and more");
            next;
        }
        if ($path eq 'slow') {
            $connection->write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome");
            next;
        }
        if ($path eq 'accel') {
            # nginx goes elsewhere, and reads no body.
            $connection->write("HTTP/1.1 200 OK\r\nX-Accel-Redirect: /local\r\nContent-Length: 1000000\r\n\r\n");
            next;
        }
        if ($path eq 'intercept') {
            $connection->write("HTTP/1.1 503 No\r\nContent-Length: 1000000\r\n\r\n");
            next;
        }
        if ($path eq 'old') {
            $connection->write("HTTP/1.0 200 OK\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
            next;
        }
        if ($path eq 'said') {
            $connection->answer($body, Connection => 'close');
            next;
        }
        if ($path eq 'until') {
            $connection->write("HTTP/1.1 200 OK\r\n\r\n$body");
            return;
        }
        $connection->answer($body);
        if ($path eq 'close') { $wait->(); return }
        if ($path eq 'shut') { $wait->(); shutdown $connection->{socket}, 1; $connection->more; return }
        if ($path eq 'reset') {
            $wait->();
            setsockopt $connection->{socket}, Socket::SOL_SOCKET, Socket::SO_LINGER, pack 'ii', 1, 0;
            return;
        }
        if ($path eq 'noise') { $wait->(); $connection->write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nNoise") }
    }
});

# One that answers before it has read the body.
my $hasty = FakePeer->new(port(2), sub {
    my ($connection, $number) = @_;
    my $count = 0;
    while (1) {
        $connection->more or return until $connection->{buffer} =~ s/^.*?\r\n\r\n//s;
        $count++;
        $connection->answer("connection=$number request=$count");
        # It reads no further until the test allows it.
        poll { -e "$root/go" };
    }
});

sub start {
    my (%more) = @_;
    unlink "$root/go";
    $nginx->conf(<<"EOC", %more)->start;
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        if ngx.var.arg_look then
            balancer.set_current_peer("127.0.0.1", ${\port(3)})
            return
        end
        balancer.set_current_peer("127.0.0.1", ngx.var.arg_hasty and ${\port(2)} or ${\port(1)})
        balancer.enable_keepalive(0, 0)
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    client_max_body_size 100m;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend; }
    location /look { add_header X-Idle \$balancer_keepalive_idle; proxy_pass http://backend; }
    location /intercept { error_page 503 =200 /local; proxy_intercept_errors on; proxy_pass http://backend; }
    location /slow { proxy_buffering off; proxy_pass http://backend; }
    location /local { return 200 "local\\n"; }
    location /unbuffered { proxy_request_buffering off; proxy_pass http://backend; }
}
server { listen 127.0.0.1:${\port(3)}; return 200; }
EOC
}

sub idle { $nginx->get('/look?look=1', port(0))->{head} =~ /^X-Idle: (\d+)\r$/m ? $1 : 'no header' }

sub go { $nginx->write('go', '') }

# The peers' side of nginx's connections to this port that are open still.
sub open_to {
    my ($port) = @_;
    $port = sprintf '%04X', $port;
    open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    return scalar grep /^\s*\d+: \S+:$port \S+ 01 /, <$in>;
}

# What happens to an idle connection.
for my $case (
    ['close', 'the peer closes'],
    ['shut', 'the peer closes its side'],
    ['reset', 'the peer resets'],
    ['noise', 'bytes that nobody asked for'],
) {
    my ($path, $name) = @$case;
    start();
    my ($first) = carried($nginx, "/$path");
    is($first->{on}, 'a1', "$name: an answer");
    is(idle(), 1, "$name: the connection is kept");
    go();
    ok(poll { idle() == 0 }, "$name: and dropped");
    is($nginx->logged('lua balancer: keepalive closing connection'), 1, "$name: as the log says");
    my ($second) = carried($nginx, '/');
    is($second->{saw}{request}, 1, "$name: the next request has another connection");
    isnt($second->{saw}{connection}, $first->{saw}{connection}, "$name: which it shares with none");
    is($second->{head} =~ /Noise/ || $second->{body} =~ /Noise/ ? 'noise' : '', '', "$name: and its own answer");
    $nginx->stop;
    unlike($nginx->log, qr/\[(?:alert|emerg)\]|exited on signal|internal error/, "$name: nothing odd in the log");
}

# What is not kept in the first place.
for my $case (
    ['half', 200, 'a response that ends early'],
    ['more', 200, 'a response with more than its length'],
    ['accel', 200, 'a response that is not read, by X-Accel-Redirect'],
    ['intercept', 200, 'a response that is not read, by proxy_intercept_errors'],
    ['old', 200, 'HTTP/1.0'],
    ['said', 200, 'the peer says that it closes'],
    ['until', 200, 'a response that ends with the connection'],
) {
    my ($path, $status, $name) = @$case;
    start();
    is($nginx->get("/$path", port(0))->{status}, $status, "$name: an answer");
    is(idle(), 0, "$name: the connection is not kept");
    is($nginx->logged('lua balancer: keepalive not saving connection'), 1, "$name: as the log says");
    my @answers = carried($nginx, '/', '/');
    is(on(@answers), 'a1 a2', "$name: the next requests have another");
    $nginx->stop;
    unlike($nginx->log, qr/\[(?:alert|emerg)\]|exited on signal|internal error/, "$name: nothing odd in the log");
}

# A kept connection that goes wrong in its second use.
{
    start();
    is(on(carried($nginx, '/', '/')), 'a1 a2', 'a second use: a connection');
    like($nginx->get('/more', port(0))->{body}, qr/request=3$/, 'a second use: more than its length');
    is(idle(), 0, 'a second use: it is not kept any more');
    is(on(carried($nginx, '/', '/')), 'a1 a2', 'a second use: the next requests have another');
    $nginx->stop;
}

# A client that goes away in the middle of its response.
{
    start();
    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0)) or die "connect: $!";
    print $client "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    sysread $client, my $some, 100;
    like($some, qr/^HTTP\/1\.1 200 /, 'a client that goes away: after the head of its response');
    close $client;
    ok(poll { $nginx->logged('lua balancer: keepalive not saving connection') }, 'a client that goes away: the connection is not kept');
    is(idle(), 0, 'a client that goes away: as the pool says');
    ok(poll { open_to(port(1)) == 0 }, 'a client that goes away: it is closed');
    is(on(carried($nginx, '/', '/')), 'a1 a2', 'a client that goes away: the next requests have another');
    $nginx->stop;
}

# The peer has answered, and part of the body is still to be sent.
for my $path ('/', '/unbuffered') {
    my $name = 'unsent body' . ($path eq '/' ? '' : ', unbuffered');
    start();
    # More than all the buffers on the way.
    my $answer = $nginx->request("POST $path?hasty=1 HTTP/1.1", port(0), 'x' x 30_000_000, 'Connection: close');
    is($answer->{status}, 200, "$name: an answer") or diag($nginx->log =~ /^(.*\[error\].*)$/m);
    is(idle(), 0, "$name: the connection is not kept");
    is($nginx->logged('lua balancer: keepalive not saving connection'), 1, "$name: as the log says");
    go();
    is($nginx->get("$path?hasty=1", port(0))->{body} =~ /request=(\d+)/ && $1, 1, "$name: the next request has another");
    $nginx->stop;
}

# A worker that shuts down does not wait for what is idle, though that has no time limit.
for my $signal ('QUIT', 'HUP') {
    my $name = $signal eq 'QUIT' ? 'graceful shutdown' : 'reload';
    start(main => 'worker_shutdown_timeout 60s;');
    is(on(carried($nginx, '/', '/')), 'a1 a2', "$name: a connection");
    is(idle(), 1, "$name: is idle");
    is(open_to(port(1)), 1, "$name: and open");
    my ($old) = $nginx->log =~ /start worker process (\d+)/ or die 'no worker';
    my $began = time;
    $nginx->signal($signal);
    ok(poll { !kill 0, $old }, "$name: the worker ends");
    cmp_ok(time - $began, '<', 10, "$name: and does not wait");
    ok(poll { open_to(port(1)) == 0 }, "$name: the connection is closed");
    if ($signal eq 'HUP') {
        is(idle(), 0, "$name: the new worker has none");
        is(on(carried($nginx, '/', '/')), 'a1 a2', "$name: and keeps its own");
    }
    $nginx->stop;
    unlike($nginx->log, qr/\[(?:alert|emerg)\]|open socket .* left in connection|exited on signal|internal error/,
        "$name: nothing is left behind");
}

# A request that is on its way while the worker shuts down is answered, and its connection not kept.
{
    start();
    is(on(carried($nginx, '/')), 'a1', 'a request during the shutdown: a connection before it');
    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0)) or die "connect: $!";
    my $body = 'x' x 1000;
    print $client "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    ok(poll { $nginx->log =~ /http client request body|http read client request body/ }, 'a request during the shutdown: has begun');
    my ($old) = $nginx->log =~ /start worker process (\d+)/ or die 'no worker';
    $nginx->signal('HUP');
    ok(poll { $nginx->log =~ /gracefully shutting down/ }, 'a request during the shutdown: it begins');
    ok(poll { open_to(port(1)) == 0 }, 'a request during the shutdown: what is idle is closed at once');
    print $client $body;
    my $answer = do { local $/; <$client> };
    like($answer, qr/^HTTP\/1\.1 200 .*connection=\d+ request=1$/s, 'a request during the shutdown: is answered');
    ok(poll { !kill 0, $old }, 'a request during the shutdown: the worker ends');
    ok(poll { open_to(port(1)) == 0 }, 'a request during the shutdown: and with it its connection');
    $nginx->stop;
}

done_testing();
