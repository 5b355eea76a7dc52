# A connection of a pool that turns out dead when it is used: the request goes over a fresh one, the
# client does not notice, and the limits of tries hold.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use FakePeer;
use Nginx;
use Pools;
use Test::More;

my $nginx = Nginx->new;

# A peer that takes the first request of a connection and, as long as the path says so, closes when
# it has read another one. nginx cannot know before.
sub moody {
    my ($connection, $number) = @_;
    my $count = 0;
    while (my $request = $connection->request) {
        $count++;
        return if $count > 1 && $request->{line} =~ /dead/;
        return if $request->{line} =~ /always/;
        $connection->answer("connection=$number request=$count");
    }
}

my @peers = map FakePeer->new(port($_), \&moody), 1, 2;

sub start {
    my ($way, %more) = @_;
    $nginx->conf(upstream($way, backend => $more{lua} // <<"EOC") . <<"EOC")->start;
        local try = (ngx.ctx.try or 0) + 1
        ngx.ctx.try = try
        if try == 1 and ngx.var.arg_more then
            balancer.set_more_tries(tonumber(ngx.var.arg_more))
        end
        local port = ngx.var["arg_peer" .. try] == "2" and ${\port(2)} or ${\port(1)}
        balancer.set_current_peer("127.0.0.1", port)
        keep()
EOC
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Status \$upstream_status always;
    add_header X-Reused \$balancer_connection_reused always;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    $more{server}
    location / { proxy_pass http://backend; }
    location /off { proxy_next_upstream off; proxy_pass http://backend; }
    location /non { proxy_next_upstream error timeout non_idempotent; proxy_pass http://backend; }
    location /limit { proxy_next_upstream_tries 2; proxy_pass http://backend; }
}
EOC
}

sub header { my ($answer, $name) = @_; return $answer->{head} =~ /^\Q$name\E: (.*?)\r$/m ? $1 : 'none' }

for my $way (ways($nginx)) {
    next if !$way->{keeps};
    start($way, server => '');
    my $name = $way->{name};

    my ($first, $second, $third) = carried($nginx, '/', '/dead', '/');
    is($second->{status}, 200, "$name: the client does not notice");
    is(header($second, 'X-Status'), '502, 200', "$name: it took two tries");
    is(header($second, 'X-Reused'), 0, "$name: the last one over a fresh connection");
    is(on($first, $second, $third), 'a1 b1 b2', "$name: which is kept");
    is(header($third, 'X-Reused'), 1, "$name: and used again");

    my $dead = $nginx->request('HEAD /dead HTTP/1.1', port(0), '', 'Connection: close');
    is($dead->{status}, 200, "$name: HEAD too");

    # What may have been done must not be done twice: that is nginx's own rule.
    carried($nginx, '/');
    my $post = $nginx->request('POST /dead HTTP/1.1', port(0), 'body', 'Connection: close');
    is($post->{status}, 502, "$name: a POST is not sent twice");
    carried($nginx, '/non/');
    $post = $nginx->request('POST /non/dead HTTP/1.1', port(0), 'body', 'Connection: close');
    is($post->{status}, 200, "$name: but where non_idempotent says so");
    is(header($post, 'X-Status'), '502, 200', "$name: in two tries");
    carried($nginx, '/off/');
    is($nginx->get('/off/dead', port(0))->{status}, 502, "$name: nothing is tried again with proxy_next_upstream off");

    # A peer that is dead over a fresh connection too.
    carried($nginx, '/');
    my $always = $nginx->get('/always', port(0));
    is($always->{status}, 502, "$name: a peer that is down is a 502");
    is(header($always, 'X-Status'), '502, 502', "$name: after one try over a kept connection and one over a fresh one");
    $always = $nginx->get('/always', port(0));
    is(header($always, 'X-Status'), '502', "$name: and without a kept one after one try");

    # Further peers in the same request: the dead connection is a try like any other, but the last
    # try is over a fresh connection.
    carried($nginx, '/', '/?peer1=2');
    my $both = $nginx->get('/dead?more=1&peer2=2', port(0));
    is($both->{status}, 200, "$name: two peers, and a dead connection to each");
    is(header($both, 'X-Status'), '502, 502, 200', "$name: one try more than two, since none was over a fresh connection");

    carried($nginx, '/limit/', '/limit/?peer1=2');
    my $limited = $nginx->get('/limit/always?more=5&peer2=2', port(0));
    is($limited->{status}, 502, "$name: proxy_next_upstream_tries");
    is(header($limited, 'X-Status'), '502, 502, 502', "$name: holds but for that one");
    carried($nginx, '/limit/');
    $limited = $nginx->get('/limit/always?more=5&peer2=2', port(0));
    is(header($limited, 'X-Status'), '502, 502', "$name: and holds when one of the tries was over a fresh one");

    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, "$name: nothing odd in the log");
}

# Many dead connections of one identity at once: they cost one try, not one each.
for my $way (ways($nginx)) {
    next if !$way->{keeps};
    my $name = "$way->{name}, many dead connections";
    start($way, server => 'proxy_request_buffering off;');
    # Connections that are in use at the same time: each has a body of which the end is to come.
    my @clients = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0)) or die "connect: $!" } 1 .. 4;
    print $_ "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\nx" for @clients;
    ok(poll { established(port(1)) == 4 }, "$name: four are in use");
    print $_ 'y' for @clients;
    my @answers = map { local $/; scalar <$_> } @clients;
    is(scalar(grep /request=1$/, @answers), 4, "$name: each with its own request");
    my $answer = $nginx->get('/dead', port(0));
    is($answer->{status}, 200, "$name: the next request is answered");
    is(header($answer, 'X-Status'), '502, 200', "$name: in two tries");
    $answer = $nginx->get('/dead?more=2', port(0));
    is($answer->{status}, 200, "$name: with more tries too");
    cmp_ok(scalar(my @tries = header($answer, 'X-Status') =~ /\d+/g), '<=', 4, "$name: which are not passed by more than one");
    $nginx->stop;
}

sub established {
    my ($port) = @_;
    $port = sprintf '%04X', $port;
    open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    return scalar grep /^\s*\d+: \S+:$port \S+ 01 /, <$in>;
}

# The same over a unix socket, to which nginx is connected at once, and over TLS.
my $tls = $nginx->root . '/tls';
Certificates->new($tls)->issue('server', names => ['a.example']);
for my $way (ways($nginx)) {
    next if !$way->{keeps};
    for my $case (['unix', 'http', "'unix:@{[$nginx->root]}/peer.sock'"], ['TLS', 'https', "'127.0.0.1', ${\port(3)}"]) {
        my ($kind, $scheme, $address) = @$case;
        my $name = "$way->{name}, $kind";
        $nginx->conf(upstream($way, backend => "balancer.set_current_peer($address) keep()") . <<"EOC")->start;
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Status \$upstream_status always;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass $scheme://backend; }
}
map \$connection_requests \$again { 1 ''; default \$uri; }
server {
    listen unix:@{[$nginx->root]}/peer.sock;
    listen 127.0.0.1:${\port(3)} ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    if (\$again = /dead) { return 444; }
    return 200 '$saw';
}
EOC
        my @answers = carried($nginx, '/', '/dead', '/');
        is(on(@answers), 'a1 b1 b2', "$name: over a fresh connection, which is kept");
        is(header($answers[1], 'X-Status'), '502, 200', "$name: in two tries");
        $nginx->stop;
        unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, "$name: nothing odd in the log");
    }
}

# What Lua sees of it.
{
    my ($way) = ways($nginx);
    start($way, server => 'set $seen ""; add_header X-Seen $seen always;', lua => <<"EOC");
        local state, status = balancer.get_last_failure()
        local tried = balancer.get_tried()
        ngx.var.seen = ngx.var.seen .. "[" .. tostring(state) .. " " .. tostring(status) .. " " .. #tried .. "]"
        if ngx.var.arg_more then
            balancer.set_more_tries(1)
        end
        balancer.set_current_peer("127.0.0.1", ${\port(1)})
        keep()
EOC
    my (undef, $answer) = carried($nginx, '/', '/dead?more=1');
    is($answer->{status}, 200, 'Lua sees a dead connection: answered');
    is(header($answer, 'X-Seen'), '[nil nil 0][failed 502 1]', 'Lua sees a dead connection: as a try that failed');
    (undef, $answer) = carried($nginx, '/', '/dead');
    is($answer->{status}, 200, 'the last try over a dead connection: answered');
    is(header($answer, 'X-Seen'), '[nil nil 0]', 'the last try over a dead connection: repeated without Lua');
    $nginx->stop;
}

done_testing();
