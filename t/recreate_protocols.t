# ngx.balancer.recreate_request where the request is not passed on by HTTP/1: what arrives with each try.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Peer;
use Test::More;

my $nginx = Nginx->new;
my $root = $nginx->root;
my @lines = qw(fastcgi uwsgi scgi);
my %port = (http2 => [port(1), port(2)], map { $lines[$_] => [port(3 + 2 * $_), port(4 + 2 * $_)] } 0 .. $#lines);
my @http2 = ('grpc', $nginx->version >= 1.029004 ? 'proxy' : ());

# Each protocol has a peer that answers 503, for the first try, and one that does well, for the second.
for my $protocol (@lines) {
    Peer::start($protocol => $port{$protocol}[0], status => '503 No', log => "$root/$protocol.0");
    Peer::start($protocol => $port{$protocol}[1], log => "$root/$protocol.1");
}

# The peers that speak HTTP/2 are nginx, which passes on what has arrived.
my @behind = (
    FakePeer->new(port(10), sub { $_[0]->request and $_[0]->write("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") }),
    FakePeer->new(port(11), sub { $_[0]->request and $_[0]->answer("well\n") }),
);
my $http2 = $nginx->version >= 1.025001 ? '; http2 on' : ' http2';

my $params = join '', map {
    my $module = $_;
    map "${module}_param $_;\n", 'REQUEST_METHOD $request_method', 'REQUEST_URI $request_uri',
        'CONTENT_LENGTH $content_length', 'HTTP_X_VALUE $value'
} @lines;
my %pass = (
    (map { $_ => "${_}_pass backend; ${_}_next_upstream error http_503 non_idempotent;" } @lines),
    grpc => 'grpc_pass grpc://backend; grpc_set_header X-Value $value; grpc_next_upstream error http_503 non_idempotent;',
    proxy => 'proxy_pass http://backend; proxy_http_version 2; proxy_set_header X-Value $value; '
        . 'proxy_next_upstream error http_503 non_idempotent;',
);

$nginx->conf(<<"EOC");
client_body_buffer_size 8k;
client_max_body_size 10m;
init_by_lua_block {
    balancer = require "ngx.balancer"
    steps = {
        variable = function() ngx.var.value = ngx.var.value .. " changed" end,
        header = function()
            ngx.req.set_header("X-Added", "by Lua")
            ngx.req.set_header("X-Sent", "replaced")
            ngx.req.clear_header("X-Gone")
        end,
        body = function() ngx.req.set_body_data("a new body") end,
        long = function() ngx.req.set_body_data(("long "):rep(60000)) end,
        empty = function() ngx.req.set_body_data("") end,
        recreate = function() assert(balancer.recreate_request()) end,
        try = function()
            local ok, err = balancer.recreate_request()
            ngx.var.seen = tostring(ok) .. ":" .. tostring(err)
        end,
    }
}
upstream backend {
    balancer_by_lua_block {
        local try = (ngx.ctx.try or 0) + 1
        ngx.ctx.try = try
        if try == 1 then
            balancer.set_more_tries(1)
        end
        balancer.set_current_peer("127.0.0.1", tonumber(ngx.var["port" .. try]))
        for step in (ngx.var["arg_do" .. try] or ""):gmatch("[^,]+") do
            steps[step]()
        end
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$value first;
    set \$seen "";
    add_header X-Seen \$seen always;
    $params
@{[join '', map {
    my $port = $port{$_} // $port{http2};
    "    location /$_ { set \$port1 $port->[0]; set \$port2 $port->[1]; $pass{$_} }\n"
} @lines, @http2]}
}
@{[join '', map "server { listen 127.0.0.1:$port{http2}[$_]$http2; client_max_body_size 10m; location / { proxy_pass http://127.0.0.1:" . port(10 + $_) . "; } }\n", 0, 1]}
EOC
$nginx->start;

# What arrived with the first try and with the second.
sub tries {
    my ($protocol, $do, $body) = @_;
    my @files = exists $port{$protocol} ? map("$root/$protocol.$_", 0, 1) : ();
    truncate $_, 0 or die "$_: $!" for @files;
    $_->forget for @behind;
    my $answer = $nginx->request("POST /$protocol?$do HTTP/1.1", port(0), $body, 'Connection: close',
        'X-Sent: by the client', 'X-Gone: by the client', length $body ? () : 'Content-Length: 0');
    is($answer->{status}, 200, "$protocol: $do: answered") or diag($nginx->log);
    my @came = @files ? map([split /\0/, slurp($_)], @files) : map [$_->requests], @behind;
    is(join(' ', map scalar @$_, @came), '1 1', "$protocol: $do: one request with each try");
    return map $_->[0], @came;
}

# A header, which is a variable HTTP_… in the older protocols; the body's length is one of its own as well.
sub header {
    my ($name, @requests) = @_;
    my $pattern = $name =~ s/-/[-_]/gr;
    return join '|', map {
        my %values = map { $_ => 1 } (split /\r?\n\r?\n/, $_)[0] =~ /^(?:HTTP_)?$pattern: (.*?)\r?$/mgi;
        join ' ', sort keys %values;
    } @requests;
}

sub body { $_[0] =~ s/^.*?\r?\n\r?\n//sr }

# A body in memory and one in a file.
my ($short, $long) = ('what is sent', join '', map chr(97 + $_ % 26), 1 .. 300_000);
for my $protocol (@lines, @http2) {
    my @tries = tries($protocol, 'do2=variable,header,recreate', $short);
    is(header('X-Value', @tries), 'first|first changed', "$protocol: a variable");
    is(header('X-Added', @tries), '|by Lua', "$protocol: a header that is added");
    is(header('X-Sent', @tries), 'by the client|replaced', "$protocol: a header that is replaced");
    is(header('X-Gone', @tries), 'by the client|', "$protocol: a header that is cleared");
    is(join('|', map body($_), @tries), "$short|$short", "$protocol: the body stays");

    @tries = tries($protocol, 'do2=variable,header', $short);
    is(header('X-Value', @tries) . ' ' . header('X-Added', @tries), 'first|first |', "$protocol: nothing changes without it");

    @tries = tries($protocol, 'do1=variable,recreate&do2=variable,recreate', $short);
    is(header('X-Value', @tries), 'first changed|first changed changed', "$protocol: for each try anew");

    # grpc_pass never waits for a body: only one that has come with the head can be sent again.
    my @sent = ($short, '', $protocol eq 'grpc' ? () : $long);
    for my $sent (@sent) {
        my $name = "$protocol: instead of " . length $sent;
        my %new = (body => 'a new body', long => 'long ' x 60000, empty => '');
        for my $step (sort keys %new) {
            @tries = tries($protocol, "do2=$step,recreate", $sent);
            ok(body($tries[0]) eq $sent, "$name: the first try has what was sent");
            ok(body($tries[1]) eq $new{$step}, "$name: $step: the second has the new body")
                or diag(substr body($tries[1]), 0, 100);
            is(header('Content-Length', @tries), length($sent) . '|' . length $new{$step}, "$name: $step: with its length");
        }
        @tries = tries($protocol, 'do1=body,recreate', $sent);
        is(join('|', map body($_), @tries), 'a new body|a new body', "$name: what the first try made stays");
        @tries = tries($protocol, 'do2=variable,recreate', $sent);
        ok(body($_) eq $sent, "$name: it stays as it is") for @tries;
    }
}

# Of a body that has not come in full, recreate_request says why it cannot send it again.
{
    $_->forget for @behind;
    my $answer = $nginx->request('POST /grpc?do1=try HTTP/1.1', port(0), $long, 'Connection: close');
    is($answer->{status}, 503, 'grpc: a long body goes to one peer');
    like($answer->{head}, qr/^X-Seen: nil:request body is not buffered \(proxy_request_buffering off, or grpc_pass\)\r$/m,
        'grpc: as recreate_request says');
    ok(body(($behind[0]->requests)[0]) eq $long, 'grpc: and arrives there');
    $answer = $nginx->request('POST /grpc?do1=body HTTP/1.1', port(0), $long, 'Connection: close');
    is($answer->{status}, 500, 'grpc: a new body instead of it');
    like($nginx->log, qr/failed to run balancer_by_lua\*: .*request body is not buffered/, 'grpc: is an error');
}

is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
