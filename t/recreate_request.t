# ngx.balancer.recreate_request: what has changed since the request for the peer was made arrives with
# the try that it is called in.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Test::More;

my $nginx = Nginx->new;

# Takes the first request of a connection and closes, so that there is a retry.
my $rude = FakePeer->new(port(1), sub { $_[0]->request });
my $good = FakePeer->new(port(2), sub {
    my ($connection) = @_;
    while ($connection->request) { $connection->answer("good\n") }
});

# What a try does, by its name; `do1` names those of the first try, `do2` of the second.
$nginx->conf(<<"EOC");
proxy_http_version 1.1;
proxy_set_header Connection close;
client_body_buffer_size 8k;
client_max_body_size 10m;
init_by_lua_block {
    balancer = require "ngx.balancer"
    steps = {
        variable = function() ngx.var.value = "changed" end,
        again = function() ngx.var.value = ngx.var.value .. "+" end,
        header = function() ngx.req.set_header("X-Added", "by Lua") end,
        headers = function() ngx.req.set_header("X-Added", { "one", "two" }) end,
        replace = function() ngx.req.set_header("X-Sent", "replaced") end,
        clear = function() ngx.req.clear_header("X-Sent") end,
        host = function() ngx.var.upstream_host = "changed.example" end,
        body = function() ngx.req.set_body_data("a new body") end,
        long = function() ngx.req.set_body_data(("long "):rep(60000)) end,
        empty = function() ngx.req.set_body_data("") end,
        recreate = function()
            local ok, err = balancer.recreate_request()
            ngx.var.seen = ngx.var.seen .. tostring(ok) .. ":" .. tostring(err) .. ";"
        end,
    }
}
upstream backend {
    balancer_by_lua_block {
        local n = (ngx.ctx.n or 0) + 1
        ngx.ctx.n = n
        local tries = tonumber(ngx.var.arg_tries or 1)
        if n == 1 and tries > 1 then
            balancer.set_more_tries(tries - 1)
        end
        balancer.set_current_peer("127.0.0.1", n < tries and @{[port(1)]} or @{[port(2)]})
        for step in (ngx.var["arg_do" .. n] or ""):gmatch("[^,]+") do
            steps[step]()
        end
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    set \$seen "";
    set \$value first;
    set \$upstream_host first.example;
    add_header X-Seen \$seen always;
    proxy_next_upstream error non_idempotent;
    proxy_set_header Connection close;
    proxy_set_header X-Value \$value;
    proxy_set_header Host \$upstream_host;
    location /t { proxy_pass http://backend; }
    location /stream { proxy_request_buffering off; proxy_pass http://backend; }
    location /off {
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header Connection close;
        proxy_set_header X-Value \$value;
        proxy_pass http://backend;
    }
    location /set-body { proxy_set_body "value is \$value"; proxy_pass http://backend; }
}
EOC
$nginx->start;

my $answer;

# Asks, and returns what arrived with the last try, and with the first.
sub last_of {
    my ($path, $body, @headers) = @_;
    $_->forget for $good, $rude;
    my $method = defined $body ? 'POST' : 'GET';
    $answer = $nginx->request("$method $path HTTP/1.1", port(0), $body // '', 'Connection: close', @headers);
    ($answer->{seen}) = $answer->{head} =~ /^X-Seen: (.*?)\r$/m;
    my @good = $good->requests;
    is(scalar(@good), 1, "$path: one request arrives in the end");
    return ($good[0], $rude->requests);
}

sub header {
    my ($request, $name) = @_;
    return join ' ', $request =~ /^\Q$name\E: (.*?)\r$/mg;
}

sub body { $_[0] =~ s/^.*?\r\n\r\n//sr }

# A variable.
my ($last, @before) = last_of('/t?do1=variable');
is(header($last, 'X-Value'), 'first', 'without it, a changed variable does not arrive');
($last) = last_of('/t?do1=variable,recreate');
is(header($last, 'X-Value'), 'changed', 'a variable, on the first try');
is($answer->{seen}, 'true:nil;', 'it returns true');
($last, @before) = last_of('/t?tries=2&do2=variable,recreate');
is(header($before[0], 'X-Value'), 'first', 'a variable, on a retry: the try before had the old one');
is(header($last, 'X-Value'), 'changed', 'and this one has the new');
($last, @before) = last_of('/t?tries=2&do1=variable,recreate');
is(header($last, 'X-Value'), 'changed', 'a retry without it has what the try before made');
($last, @before) = last_of('/t?tries=3&do1=again,recreate&do2=again,recreate&do3=again,recreate');
is(join(' ', map header($_, 'X-Value'), @before, $last), 'first+ first++ first+++', 'for each try anew');
($last) = last_of('/t?do1=variable,recreate,again,recreate');
is(header($last, 'X-Value'), 'changed+', 'twice in a run: the last counts');
($last) = last_of('/t?do1=host,recreate');
is(header($last, 'Host'), 'changed.example', 'the Host header');

# Headers.
($last) = last_of('/t?do1=header');
is(header($last, 'X-Added'), '', 'without it, a header that is added does not arrive');
($last, @before) = last_of('/t?tries=2&do2=header,recreate');
is(header($before[0], 'X-Added') . '|' . header($last, 'X-Added'), '|by Lua', 'a header that is added');
($last) = last_of('/t?do1=headers,recreate');
is(header($last, 'X-Added'), 'one two', 'two of one name');
($last, @before) = last_of('/t?tries=2&do2=replace,recreate', undef, 'X-Sent: by the client');
is(header($before[0], 'X-Sent') . '|' . header($last, 'X-Sent'), 'by the client|replaced', 'a header that is replaced');
($last, @before) = last_of('/t?tries=2&do2=clear,recreate', undef, 'X-Sent: by the client');
is(header($before[0], 'X-Sent') . '|' . header($last, 'X-Sent'), 'by the client|', 'a header that is cleared');

# The body: kept as it is, in memory and in a file.
for my $size (1, 5_000, 9_000, 300_000) {
    my $body = join '', map chr(97 + $_ % 26), 1 .. $size;
    for my $do ('do1=variable,recreate', 'do2=variable,recreate', 'do1=again,recreate&do2=again,recreate') {
        ($last, @before) = last_of("/t?tries=2&$do", $body);
        is(body($last) eq $body, 1, "$do: a body of $size arrives unchanged");
        is(body($before[0]) eq $body, 1, "$do: with the try before, too");
        is(header($last, 'Content-Length'), $size, "$do: and its length");
        isnt(header($last, 'X-Value'), 'first', "$do: the variable has changed");
    }
}

# The body: a new one.
for my $size (0, 10, 300_000) {
    my $old = 'o' x $size;
    ($last, @before) = last_of('/t?tries=2&do2=body,recreate', $old, $size ? () : 'Content-Length: 0');
    is(body($before[0]), $old, "the body of $size, first");
    is(body($last), 'a new body', "a new body instead of $size");
    is(header($last, 'Content-Length'), 10, 'with its own length');
}
($last) = last_of('/t?do1=body,recreate', 'old');
is(body($last), 'a new body', 'a new body on the first try');
($last) = last_of('/t?do1=long,recreate', 'old');
is(body($last) eq 'long ' x 60000, 1, 'a long one');
($last) = last_of('/t?do1=empty,recreate', 'old');
is(body($last), '', 'an empty one');
is(header($last, 'Content-Length'), 0, 'has length 0');
($last) = last_of('/t?tries=2&do1=body,recreate&do2=long,recreate', 'old');
is(body($last) eq 'long ' x 60000, 1, 'a new one for each try');

# Where nginx makes the body itself, or sends none.
($last, @before) = last_of('/set-body?tries=2&do2=variable,recreate', 'old');
is(body($before[0]) . '|' . body($last), 'value is first|value is changed', 'proxy_set_body');
($last) = last_of('/off?do1=variable,recreate', 'old');
is(header($last, 'X-Value'), 'changed', 'proxy_pass_request_body off');

# A body that is not kept. One that came with the head is.
{
    my $body = 'b' x 300_000;
    ($last) = last_of('/stream?do1=variable,recreate', $body);
    is($answer->{seen}, 'nil:request body is not buffered (proxy_request_buffering off, or grpc_pass);',
        'proxy_request_buffering off: says why it cannot');
    is(body($last) eq $body, 1, 'and goes on as it was');
    is(header($last, 'X-Value'), 'first', 'with what was made before');
}
($last) = last_of('/stream?do1=variable,recreate');
is(header($last, 'X-Value'), 'changed', 'without a body it can');

is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
