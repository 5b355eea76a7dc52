# ngx.exit in the balancer: what the client gets, what the access log says, which error_page applies.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use IO::Socket::INET;
use Nginx;
use Test::More;

my $nginx = Nginx->new;
my $peer = FakePeer->new(port(1), sub {
    my ($connection) = @_;
    while (my $request = $connection->request) { $connection->answer("peer\n") }
});

$nginx->conf(<<"EOC");
proxy_cache_path cache keys_zone=cache:1m;
log_format front '\$uri?\$args \$status';
proxy_http_version 1.1;
proxy_set_header Connection "";

upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local args = ngx.var.arg_exit
        ngx.ctx.runs = (ngx.ctx.runs or 0) + 1
        ngx.var.runs = ngx.ctx.runs
        if ngx.ctx.runs == 1 and ngx.var.arg_more then
            balancer.set_more_tries(tonumber(ngx.var.arg_more))
        elseif ngx.var.arg_always then
            balancer.set_more_tries(1)
        end
        if ngx.var.arg_set then
            assert(balancer.set_current_peer("127.0.0.1", ngx.var.arg_set))
        end
        if ngx.var.arg_from and ngx.ctx.runs < tonumber(ngx.var.arg_from) then
            return
        end
        if ngx.var.arg_upto and ngx.ctx.runs > tonumber(ngx.var.arg_upto) then
            return
        end
        local code = ngx.var.arg_exit
        return ngx.exit(tonumber(code) or ngx[code])
    }
}

upstream lines {
    server 127.0.0.1:@{[port(1)]};
    server 127.0.0.1:@{[port(1)]};
    balancer_by_lua_block {
        ngx.ctx.runs = (ngx.ctx.runs or 0) + 1
        ngx.var.runs = ngx.ctx.runs
        if ngx.ctx.runs <= tonumber(ngx.var.arg_upto) then
            return ngx.exit(ngx[ngx.var.arg_exit])
        end
    }
}

upstream odd {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local cases = {
            twice = function() ngx.exit(403) ngx.exit(429) end,
            undone = function()
                balancer.set_current_peer("127.0.0.1", @{[port(1)]})
                ngx.exit(403)
                ngx.exit(ngx.OK)
            end,
            error = function() ngx.exit(403) error("after the exit") end,
            deep = function() local function f() ngx.exit(403) end f() end,
            pcall = function() assert(pcall(ngx.exit, 403)) end,
            bad = function()
                for _, status in ipairs { "403", 403.5, 0/0, 1/0, -1/0, 1000, -7, 2^31, {}, true } do
                    local ok, err = pcall(ngx.exit, status)
                    assert(not ok and err:find("bad argument #1 to 'exit'", 1, true), err)
                end
                local ok, err = pcall(ngx.exit)
                assert(not ok and err:find("bad argument #1 to 'exit'", 1, true), err)
                balancer.set_current_peer("127.0.0.1", @{[port(1)]})
            end,
        }
        cases[ngx.var.arg_case]()
    }
}

server {
    listen 127.0.0.1:@{[port(0)]};
    access_log logs/front.log front;
    set \$runs 0;
    add_header X-Runs \$runs always;
    add_header X-Addr \$upstream_addr always;
    add_header X-Status \$upstream_status always;

    location /plain { proxy_pass http://backend; }
    location /lines { proxy_pass http://lines; }
    location /odd { proxy_pass http://odd; }
    location /tls { proxy_pass https://backend; }
    location /stream { proxy_request_buffering off; proxy_pass http://backend; }
    location /fastcgi { fastcgi_pass backend; }

    location /page {
        error_page 403 503 = /its-page;
        error_page 500 502 = /wrong-page;
        proxy_pass http://backend;
    }
    location /page-500 {
        error_page 500 = /its-page;
        error_page 502 = /wrong-page;
        proxy_pass http://backend;
    }
    location /page-502 {
        error_page 502 = /its-page;
        error_page 500 = /wrong-page;
        proxy_pass http://backend;
    }
    location /its-page { return 200 "its page\\n"; }
    location /wrong-page { return 200 "wrong page\\n"; }
    location /page-keeps { error_page 403 /its-page; proxy_pass http://backend; }
    location /named { error_page 403 = \@named; proxy_pass http://backend; }
    location \@named { proxy_pass http://127.0.0.1:@{[port(1)]}; }
    location /again {
        recursive_error_pages on;
        error_page 403 = \@again;
        proxy_pass http://backend;
    }
    location \@again {
        recursive_error_pages on;
        error_page 403 = \@named;
        proxy_pass http://backend;
    }

    location /cached {
        proxy_cache cache;
        proxy_cache_key \$uri;
        proxy_cache_valid any 1m;
        proxy_cache_lock on;
        proxy_cache_lock_timeout 1m;
        proxy_cache_use_stale http_503 error;
        proxy_pass http://backend;
    }

    @{[map "location = /asking/$_ { auth_request /auth/$_; root html; }", 403, 401, 503, 204]}
    location ~ ^/auth/([0-9]+) { internal; set \$args exit=\$1; proxy_pass http://backend; }
    location /included { ssi on; default_type text/html; root html; }
}
server {
    listen 127.0.0.1:@{[port(2)]} http2;
    access_log logs/front.log front;
    set \$runs 0;
    location / { proxy_pass http://backend; }
}
EOC
$nginx->write('html/asking/204', "the file\n");
$nginx->write('html/included',
    '<!--# include virtual="/plain?exit=403" -->|<!--# include virtual="/plain?exit=OK&set=' . port(1)
    . '" -->|end');
$nginx->start;

my ($worker) = $nginx->workers;

# The access log's word on the latest request for a path.
sub logged_status {
    my ($path) = @_;
    return poll { (slurp($nginx->root . '/logs/front.log') =~ /^\Q$path\E (\d+)$/mg)[-1] };
}

sub get { $nginx->get($_[0], port(0)) }

sub header {
    my ($answer, $name) = @_;
    return $answer->{head} =~ /^\Q$name\E: (.*?)\r$/m ? $1 : undef;
}

# Asks, and compares the status with that of the access log.
sub status_is {
    my ($path, $status, $name) = @_;
    my $answer = get($path);
    is($answer->{status}, $status, "$name: the client's status");
    is(logged_status($path =~ /\?/ ? $path : "$path?"), $status, "$name: \$status");
    return $answer;
}

for my $status (301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 409, 410, 413, 414, 415,
    416, 421, 429, 451, 500, 501, 502, 503, 504, 505, 507, 599)
{
    my $answer = status_is("/plain?exit=$status", $status, "ngx.exit($status)");
    is(header($answer, 'X-Runs'), 1, "ngx.exit($status): one run");
}
for my $status (201, 204) {
    status_is("/plain?exit=$status", $status, "ngx.exit($status)");
}
is(get('/plain?exit=HTTP_FORBIDDEN')->{status}, 403, 'a constant');

# What nginx closes the connection for.
for my $status (408, 444, 499) {
    my $answer = get("/plain?exit=$status");
    is($answer->{head}, "\r\n", "ngx.exit($status): no answer");
    is(logged_status("/plain?exit=$status"), $status, "ngx.exit($status): \$status");
}

# ngx.ERROR, and what has no meaning.
for my $status ('ERROR', -6, -4, -2, 1, 100, 101, 199, 200, 202, 206, 299) {
    status_is("/plain?exit=$status", 500, "ngx.exit($status)");
}
is($nginx->logged('has no meaning in balancer_by_lua*'), 11, 'what has no meaning is logged');

# error_page.
is(get('/page?exit=403')->{body}, "its page\n", 'error_page of the status applies');
is(get('/page?exit=503')->{body}, "its page\n", 'of a 5xx as well');
is(get('/page?exit=429')->{status}, 429, 'that of another status does not');
is(get('/page?exit=429')->{body} =~ /wrong page/, '', 'nor that of 500 and 502');
is(get('/page-500?exit=ERROR')->{body}, "its page\n", 'ngx.ERROR is a 500 for error_page');
for my $code (qw(BUSY DECLINED)) {
    is(get("/page-502?exit=$code")->{body}, "its page\n", "ngx.$code is a 502 for error_page");
}
{
    my $answer = get('/page-keeps?exit=403');
    is($answer->{status}, 403, 'error_page without "=" keeps the status');
    is($answer->{body}, "its page\n", 'and shows the page');
}
is(get('/named?exit=403')->{body}, "peer\n", 'error_page leads to another upstream');
is(get('/again?exit=403')->{body}, "peer\n", 'error_page leads to the balancer again');

# Busy and declined.
for my $code (qw(BUSY DECLINED)) {
    my $why = $code eq 'BUSY' ? 'no live upstreams' : 'lua balancer: the last try was declined by ngx.exit';
    my $said = $nginx->logged($why);
    my $answer = status_is("/plain?exit=$code", 502, "ngx.exit(ngx.$code)");
    is($nginx->logged($why), $said + 1, "ngx.$code: the log says why");
    is(header($answer, 'X-Runs'), 1, "ngx.$code: the only try");
    is(header($answer, 'X-Status'), 502, "ngx.$code: \$upstream_status");
    is(header($answer, 'X-Addr'), 'backend', "ngx.$code: \$upstream_addr is the upstream");

    $answer = get("/plain?exit=$code&more=4");
    is($answer->{status}, 502, "ngx.$code in each of 5 tries");
    is(header($answer, 'X-Runs'), 5, "ngx.$code: each of them ran");

    $answer = get("/plain?exit=$code&more=4&upto=2&set=" . port(1));
    is($answer->{body}, "peer\n", "ngx.$code, and then a peer");
    is($nginx->logged($why), $said + 2, "ngx.$code: nothing is said of tries that others follow");
    is(header($answer, 'X-Runs'), 3, "ngx.$code: three runs");
    is(header($answer, 'X-Status'), '502, 502, 200', "ngx.$code: each in \$upstream_status");
    is(header($answer, 'X-Addr'), 'backend, backend, 127.0.0.1:' . port(1),
        "ngx.$code: each in \$upstream_addr");

    $answer = get("/plain?exit=$code&always=1");
    is($answer->{status}, 502, "ngx.$code with one try more each time comes to an end");
    cmp_ok(header($answer, 'X-Runs'), '<', 1000, "ngx.$code: soon");

    $answer = get("/lines?exit=$code&upto=1");
    is($answer->{body}, "peer\n", "ngx.$code, and then a server line");
    is(header($answer, 'X-Runs'), 2, "ngx.$code: two runs");
    $answer = get("/lines?exit=$code&upto=9");
    is($answer->{status}, 502, "ngx.$code for each server line");
    is(header($answer, 'X-Runs'), 2, "ngx.$code: as many runs as servers");
}

# ngx.OK.
is(get('/plain?exit=OK&set=' . port(1))->{body}, "peer\n", 'ngx.OK goes on with the peer that is set');
is(get('/plain?exit=OK')->{status}, 500, 'ngx.OK without a peer');
is(get('/plain?exit=0&set=' . port(1))->{body}, "peer\n", '0 is ngx.OK');

# With a peer.
$peer->forget;
is(get('/plain?exit=403&set=' . port(1))->{status}, 403, 'a peer that was set is forgotten');
is(scalar($peer->requests), 0, 'and nothing arrives there');

# In a retry.
{
    my $answer = get('/plain?exit=503&more=3&from=2&set=' . port(4));
    is($answer->{status}, 503, 'in the second try');
    is(header($answer, 'X-Runs'), 2, 'of two');
    like(header($answer, 'X-Status'), qr/^502\b/, 'the first one is in $upstream_status');
}

# How it is called.
is(get('/odd?case=twice')->{status}, 429, 'the last call counts');
is(get('/odd?case=undone')->{body}, "peer\n", 'ngx.OK undoes it');
is(get('/odd?case=error')->{status}, 500, 'an error counts more');
is(get('/odd?case=deep')->{status}, 403, 'from a function');
is(get('/odd?case=pcall')->{status}, 403, 'it raises nothing');
is(get('/odd?case=bad')->{body}, "peer\n", 'a bad status is an error, and sets nothing');

# Other kinds of upstream.
is(get('/tls?exit=403')->{status}, 403, 'in a location that passes to https://');
is(get('/fastcgi?exit=403')->{status}, 403, 'with fastcgi_pass');

# Bodies.
for my $location (qw(plain stream)) {
    for my $size (5, 3_000_000) {
        next if $size > 1_000_000 && $location eq 'plain';
        my $answer = $nginx->request("POST /$location?exit=403 HTTP/1.1", port(0),
            'x' x ($size > 1_000_000 ? 900_000 : $size), 'Connection: close');
        is($answer->{status}, 403, "a POST to /$location with a body of $size");
    }
}
{
    my $answer = $nginx->request('HEAD /plain?exit=403 HTTP/1.1', port(0), '', 'Connection: close');
    is($answer->{status}, 403, 'HEAD');
    is($answer->{body}, '', 'HEAD: no body');
}

# The client's connection serves on.
{
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15)
        or die "port: $!";
    for my $n (1 .. 3) {
        print $socket "GET /plain?exit=403 HTTP/1.1\r\nHost: x\r\n\r\n";
        print $socket "POST /stream?exit=429 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    }
    print $socket "GET /plain?exit=OK&set=", port(1), " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    local $/;
    my @statuses = <$socket> =~ m{^HTTP/1.1 (\d+)}mg;
    is("@statuses", '403 429 403 429 403 429 200', 'seven requests over one connection');
}

# Subrequests.
is(get('/asking/403')->{status}, 403, 'auth_request: 403');
is(get('/asking/401')->{status}, 401, 'auth_request: 401');
is(get('/asking/503')->{status}, 500, 'auth_request: what it does not know is a 500');
is(get('/asking/204')->{body}, "the file\n", 'auth_request: 204 lets pass');
{
    my $answer = get('/included');
    is($answer->{status}, 200, 'SSI: the page is there');
    like($answer->{body}, qr/403 Forbidden.*\|peer\n\|end/s, 'SSI: each part for itself');
}

# The cache.
is(get('/cached/a?exit=403')->{status}, 403, 'with proxy_cache');
is(get('/cached/a?exit=503')->{status}, 503, 'the lock of the entry is free again');
is(get('/cached/a?exit=OK&set=' . port(1))->{body}, "peer\n", 'nothing of it was cached');
is(get('/cached/a?exit=403')->{body}, "peer\n", 'but the answer of a peer is');

# HTTP/2.
{
    my $url = 'http://127.0.0.1:' . port(2);
    for my $status (403, 503, 204, 429) {
        is(`curl -s -o /dev/null -w '%{http_code}' --http2-prior-knowledge '$url/h2?exit=$status'`, $status,
            "HTTP/2: $status");
    }
    is(logged_status('/h2?exit=429'), 429, 'HTTP/2: $status');
}

is(($nginx->workers)[0], $worker, 'all of it in one worker');
is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
