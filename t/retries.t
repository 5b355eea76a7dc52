# Retries: what counts as a try, over pooled connections too, and what nginx's variables tell of them.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Test::More;

my $nginx = Nginx->new;

# Answers the first request of a connection, after a while so that several connections are open at
# a time; when another one comes over it, closes it without an answer.
my $mortal = FakePeer->new(port(1), sub {
    my ($connection, $number) = @_;
    $connection->request or return;
    select undef, undef, undef, 0.15;
    $connection->answer("mortal\n", 'X-Connection' => $number);
    $connection->request;
});
my $good = FakePeer->new(port(2), sub {
    my ($connection) = @_;
    while (my $request = $connection->request) {
        $connection->answer("good " . length($request->{body}) . "\n");
    }
});
# Begins an answer and closes.
my $half = FakePeer->new(port(3), sub {
    my ($connection) = @_;
    $connection->request;
    $connection->write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it\n");
});
my $silent = FakePeer::silent(port(5));
# Takes the request and closes.
my $rude = FakePeer->new(port(6), sub { $_[0]->request });

$nginx->write('html/page', join '', map "<!--# include virtual=\"/keepalive?warm=$_\" -->", 1 .. 4);
$nginx->conf(<<"EOC");
log_format tries escape=none '\$uri|\$status|\$upstream_addr|\$upstream_status|\$upstream_connect_time|\$upstream_header_time|\$upstream_response_time|\$upstream_bytes_sent|\$upstream_bytes_received|\$upstream_response_length';
proxy_http_version 1.1;
proxy_set_header Connection "";
init_by_lua_block {
    balancer = require "ngx.balancer"
    function run()
        ngx.ctx.n = (ngx.ctx.n or 0) + 1
        ngx.var.runs = ngx.ctx.n
        local state, status = balancer.get_last_failure()
        ngx.var.seen = ngx.var.seen .. tostring(state) .. ":" .. tostring(status) .. ";"
        return ngx.ctx.n
    end
}
upstream keepalive {
    balancer_by_lua_block {
        local n = run()
        if n == 1 and ngx.var.arg_more then
            balancer.set_more_tries(tonumber(ngx.var.arg_more))
        end
        local to = ngx.var.arg_to
        balancer.set_current_peer("127.0.0.1", n > 1 and to or @{[port(1)]})
    }
    keepalive 16;
}
upstream list {
    balancer_by_lua_block {
        run()
        local peers = {}
        for n = 1, tonumber(ngx.var.arg_peers) do
            peers[n] = { "127.0.0.1", @{[port(1)]} }
        end
        balancer.set_peers(peers)
    }
    keepalive 16;
}
upstream each {
    balancer_by_lua_block {
        local ports = { @{[join ', ', map port($_), 4, 6, 5, 2]} }
        local n = run()
        if n == 1 then
            balancer.set_more_tries(3)
        end
        balancer.set_current_peer("127.0.0.1", ports[n])
    }
}
upstream half {
    balancer_by_lua_block {
        run()
        balancer.set_more_tries(1)
        balancer.set_current_peer("127.0.0.1", @{[port(3)]})
    }
}
upstream bodies {
    balancer_by_lua_block {
        if run() == 1 then
            balancer.set_more_tries(2)
        end
        balancer.set_current_peer("127.0.0.1", ngx.ctx.n < 3 and @{[port(6)]} or @{[port(2)]})
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    access_log logs/front.log tries;
    set \$seen "";
    set \$runs 0;
    add_header X-Seen \$seen always;
    add_header X-Runs \$runs always;
    add_header X-Status \$upstream_status always;
    client_max_body_size 10m;
    client_body_buffer_size 8k;
    location /page { ssi on; default_type text/html; root html; }
    location /keepalive { proxy_pass http://keepalive; }
    location /limit { proxy_next_upstream_tries 2; proxy_pass http://keepalive; }
    location /list { proxy_pass http://list; }
    location /each { proxy_read_timeout 200ms; proxy_pass http://each; }
    location /half { proxy_pass http://half; }
    location /bodies { proxy_next_upstream error non_idempotent; proxy_pass http://bodies; }
}
EOC

sub header {
    my ($answer, $name) = @_;
    return $answer->{head} =~ /^\Q$name\E: (.*?)\r$/m ? $1 : '';
}

# A fresh nginx with four connections in the pool, each of which dies at its next use.
sub warm {
    $nginx->stop;
    $nginx->start;
    $mortal->forget;
    is($nginx->get('/page', port(0))->{body}, "mortal\n" x 4, 'four connections for the pool');
    my %connections = map { $_ => 1 } $mortal->connections;
    is(scalar(keys %connections), 4, 'each of its own');
    $mortal->forget;
}

# How many requests came since then.
sub arrived { scalar(() = $mortal->connections) }

# A dead pooled connection is a try like another.
warm();
{
    my $answer = $nginx->get('/keepalive?more=1&to=' . port(2), port(0));
    is($answer->{status}, 200, 'a dead pooled connection: the client notices nothing');
    is(header($answer, 'X-Seen'), 'nil:nil;failed:502;', 'the retry knows of it');
    is(header($answer, 'X-Status'), '502, 200', 'and so does $upstream_status');
    is(arrived(), 1, 'the peer got one request over it');
}
warm();
{
    # Three tries, all over connections that are dead: as for fresh ones, there is no fourth.
    my $answer = $nginx->get('/keepalive?more=2&to=' . port(4), port(0));
    is($answer->{status}, 502, 'then tries that are refused');
    is(header($answer, 'X-Runs'), 3, 'more_tries counts the same after a dead pooled connection');
    is(header($answer, 'X-Status'), '502, 502, 502', 'each is in $upstream_status');
}
warm();
{
    # The pool is full of dead connections. The last try is repeated over a fresh connection:
    # nobody has spoken to the peer itself until then.
    my $answer = $nginx->get('/keepalive?more=1&to=' . port(1), port(0));
    is(header($answer, 'X-Runs'), 2, 'a pool full of dead connections grants no extra try');
    is($answer->{status}, 200, 'the peer itself is well');
    cmp_ok(arrived(), '<=', 3, 'nor do more requests arrive');
}
warm();
{
    my $answer = $nginx->get('/limit?more=9&to=' . port(1), port(0));
    is(header($answer, 'X-Runs'), 2, 'proxy_next_upstream_tries holds for dead connections');
}
{
    # The pool may still hold some: a list is not longer for that either.
    my $answer = $nginx->get('/list?peers=2', port(0));
    cmp_ok(header($answer, 'X-Runs'), '<=', 2, 'nor is a list of peers longer');
}

# What nginx's variables list: refused, closed, timed out, answered.
{
    my $answer = $nginx->get('/each', port(0));
    is($answer->{body}, "good 0\n", 'the fourth peer answers');
    is(header($answer, 'X-Seen'), 'nil:nil;failed:502;failed:502;failed:504;', 'the first three failed');
    my $line = poll { slurp($nginx->root . '/logs/front.log') =~ m{^(/each\|.*)}m && $1 };
    my (undef, $status, @lists) = map [split / ?[,:] /], map { s/^\s+|\s+$//gr } split /\|/, $line;
    is($status->[0], 200, '$status');
    my ($addr, $statuses, $connect, $header, $response, $sent, $received, $length) = @lists;
    is_deeply($addr, [map '127.0.0.1:' . port($_), 4, 6, 5, 2], '$upstream_addr lists every try');
    is_deeply($statuses, [502, 502, 504, 200], '$upstream_status');
    like($line, qr/\|-, \d\.\d{3}, \d\.\d{3}, \d\.\d{3}\|/, '$upstream_connect_time: none for the refused one');
    like($line, qr/\|-, -, -, \d\.\d{3}\|/, '$upstream_header_time: the last one only');
    is(scalar(grep /^\d\.\d{3}$/, @$response), 4, '$upstream_response_time');
    cmp_ok($response->[2], '>=', 0.2, '$upstream_response_time of the one that timed out');
    cmp_ok($response->[2], '<', 2, 'and not of all together');
    is($sent->[0], 0, '$upstream_bytes_sent of the refused one');
    is(scalar(grep $_ > 20, @$sent[1 .. 3]), 3, '$upstream_bytes_sent of the others');
    is_deeply([@$received[0 .. 2]], [0, 0, 0], '$upstream_bytes_received of those without an answer');
    cmp_ok($received->[3], '>', 20, '$upstream_bytes_received of the answer');
    is_deeply($length, [0, 0, 0, 7], '$upstream_response_length');
}

# Once an answer has begun there is no other.
{
    my $answer = $nginx->get('/half', port(0));
    is($answer->{status}, 200, 'half an answer');
    is($answer->{body}, "half of it\n", 'is all that there is');
    is(scalar($half->requests), 1, 'no second try');
}

# Bodies are sent again in full.
for my $size (0, 10, 300_000) {
    $good->forget;
    $rude->forget;
    my $body = join '', map chr(97 + $_ % 26), 1 .. $size;
    my $answer = $nginx->request('POST /bodies HTTP/1.1', port(0), $body, 'Connection: close',
        $size ? () : 'Content-Length: 0');
    is($answer->{body}, "good $size\n", "a body of $size: arrives with the third try");
    my ($arrived) = map s/^.*?\r\n\r\n//sr, $good->requests;
    is($arrived, $body, "a body of $size: unchanged");
    is(scalar($rude->requests), 2, "a body of $size: the tries before had it as well");
    is(join('', map s/^.*?\r\n\r\n//sr, $rude->requests), $body x 2, "a body of $size: unchanged there, too");
}

is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
