# ngx.balancer.set_upstream_tls: TLS or not, for each try.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use FakePeer;
use Nginx;
use Test::More;

my $nginx = Nginx->new;
my $tls = $nginx->root . '/tls';
my $ca = Certificates->new($tls);
$ca->issue('server', names => ['good.example'])->issue('client');

# One port that speaks both: what arrives there decides.
my ($plain, $secure, $both, $failing) = map port($_), 1 .. 4;
FakePeer::switch($both, qr/^\x16/ => $secure, qr/^/ => $plain);
FakePeer::switch($failing, qr/^\x16/ => $secure + 1000, qr/^/ => $plain + 1000);

my $ssl = "proxy_ssl_trusted_certificate $tls/ca.crt; proxy_ssl_name good.example; proxy_ssl_server_name on;";

$nginx->conf(<<"EOC");
server { listen 127.0.0.1:$plain; return 200 "plain"; }
server {
    listen 127.0.0.1:$secure ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    ssl_client_certificate $tls/ca.crt;
    ssl_verify_client optional;
    return 200 "tls \$ssl_server_name \$ssl_client_s_dn";
}
proxy_http_version 1.1;
proxy_set_header Connection close;

init_by_lua_block {
    balancer = require "ngx.balancer"
    values = { on = true, off = false, one = 1, zero = 0, two = 2 }
    function note(ok, err)
        ngx.var.seen = ngx.var.seen .. tostring(ok) .. ":" .. tostring(err) .. ";"
    end
}
upstream backend {
    balancer_by_lua_block {
        local words = ngx.var.arg_tls or ""
        local n = (ngx.ctx.n or 0) + 1
        ngx.ctx.n = n
        -- One word for each try; "-" calls nothing, "on+off" calls twice.
        local i = 0
        for try in words:gmatch("[^,]+") do
            i = i + 1
            if i == n and try ~= "-" then
                for word in try:gmatch("[^+]+") do
                    note(balancer.set_upstream_tls(values[word]))
                end
            end
        end
        if n == 1 then
            balancer.set_more_tries(i - 1 > 0 and i - 1 or 0)
        end
        balancer.set_current_peer("127.0.0.1", n < i and $failing or $both, ngx.var.arg_name)
    }
}
upstream list {
    balancer_by_lua_block {
        note(balancer.set_upstream_tls(values[ngx.var.arg_tls]))
        balancer.set_peers { { "127.0.0.1", $failing }, { "127.0.0.1", $failing }, { "127.0.0.1", $both } }
    }
}
upstream lines {
    server 127.0.0.1:$both;
    balancer_by_lua_block { note(balancer.set_upstream_tls(values[ngx.var.arg_tls])) }
}
upstream odd {
    balancer_by_lua_block {
        for _, value in ipairs { "on", "", {}, print } do
            local ok, err = pcall(balancer.set_upstream_tls, value)
            assert(not ok and err:find("bad argument #1 to 'set_upstream_tls' (boolean expected, got "
                                       .. type(value) .. ")", 1, true), err)
        end
        local ok, err = pcall(balancer.set_upstream_tls)
        assert(not ok and err:find("bad argument #1 to 'set_upstream_tls'", 1, true), err)
        balancer.set_current_peer("127.0.0.1", $both)
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    set \$seen "";
    add_header X-Seen \$seen always;
    add_header X-Status \$upstream_status always;

    location /https { $ssl proxy_pass https://backend; }
    location /http { $ssl proxy_pass http://backend; }
    location /bare { proxy_pass http://backend; }
    location /verify {
        $ssl
        proxy_ssl_verify on;
        proxy_ssl_certificate $tls/client.crt;
        proxy_ssl_certificate_key $tls/client.key;
        proxy_pass http://backend;
    }
    location /list-https { $ssl proxy_pass https://list; }
    location /list-http { $ssl proxy_pass http://list; }
    location /lines-https { $ssl proxy_pass https://lines; }
    location /lines-http { $ssl proxy_pass http://lines; }
    location /odd { $ssl proxy_pass https://odd; }
    location /around {
        $ssl
        location /around/http { proxy_pass http://backend; }
    }
    location /variable { set \$to backend; $ssl proxy_pass http://\$to; }
}
EOC
$nginx->start;

sub ask {
    my ($path) = @_;
    my $answer = $nginx->get($path, port(0));
    ($answer->{seen}) = $answer->{head} =~ /^X-Seen: (.*?)\r$/m;
    ($answer->{statuses}) = $answer->{head} =~ /^X-Status: (.*?)\r$/m;
    return $answer;
}
sub body { ask($_[0])->{body} }

my $secured = 'tls good.example ';

# What arrives.
is(body('/https'), $secured, 'https:// uses TLS');
is(body('/https?tls=off'), 'plain', 'turned off');
is(body('/https?tls=on'), $secured, 'turned on where it is on');
is(body('/http'), 'plain', 'http:// does not');
is(body('/http?tls=on'), $secured, 'turned on');
is(body('/http?tls=off'), 'plain', 'turned off where it is off');
is(body('/around/http?tls=on'), $secured, 'with settings around the location');
is(body('/http?tls=one'), $secured, '1 is on');
is(body('/https?tls=zero'), 'plain', '0 is off');
is(body('/http?tls=two'), $secured, '2 is on');
is(body('/http?tls=on+off'), 'plain', 'the last call counts: off');
is(body('/https?tls=off+on'), $secured, 'the last call counts: on');
is(ask('/http?tls=on')->{seen}, 'true:nil;', 'it returns true');

# The next request has what is configured.
is(body($_->[0]), $_->[1], "one after the other: $_->[0]")
    for ['/https?tls=off', 'plain'], ['/https', $secured], ['/http?tls=on', $secured], ['/http', 'plain'];

# Per try: the first ones fail, and the last one tells.
my @series = (
    ['/https?tls=off,-', $secured, 'a retry has what is configured: on'],
    ['/http?tls=on,-', 'plain', 'a retry has what is configured: off'],
    ['/https?tls=-,off', 'plain', 'a retry turns it off'],
    ['/http?tls=-,on', $secured, 'a retry turns it on'],
    ['/https?tls=off,on,off', 'plain', 'off, on, off'],
    ['/http?tls=on,off,on', $secured, 'on, off, on'],
);
for (@series) {
    my ($path, $body, $name) = @$_;
    my $answer = ask($path);
    is($answer->{body}, $body, $name);
    like($answer->{statuses}, qr/^502, (502, )?200$/, "$name: the tries before failed");
}

# For all of a list, and with server lines.
is(body('/list-https?tls=off'), 'plain', 'for each peer of a list: off');
is(body('/list-http?tls=on'), $secured, 'for each peer of a list: on');
is(body('/lines-https?tls=off'), 'plain', 'for a server line: off');
is(body('/lines-http?tls=on'), $secured, 'for a server line: on');

# The location's settings are in force.
is(body('/verify?tls=on'), 'tls good.example CN=client', 'http:// with SNI, verification and a certificate');
is(ask('/verify?tls=on&name=wrong.example')->{status}, 502, 'which fails for another name');
is(body('/verify?tls=on&name=good.example'), 'tls good.example CN=client', 'and does not for the right one');
is(body('/verify'), 'plain', 'and plain without');

# Where there is no context to use.
{
    my $answer = ask('/bare?tls=on');
    is($answer->{seen}, 'nil:no TLS context: the location passes to http:// and sets no proxy_ssl_*;',
        'without proxy_ssl_*: says why it cannot');
    is($answer->{body}, 'plain', 'and goes on as it was');
    is(ask('/bare?tls=off')->{seen}, 'true:nil;', 'off can be said');
}
# Whether an upstream that a variable names has one depends on the version; it never ends badly.
like(ask('/variable?tls=on')->{seen}, qr/^(?:true:nil|nil:no TLS context.*);$/, 'an upstream in a variable');
is(ask('/variable?tls=on')->{status}, 200, 'an upstream in a variable: it goes on');
is(body('/bare'), 'plain', 'the worker serves on');

is(body('/odd'), $secured, 'what is no boolean is an error, and changes nothing');
is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
