# Header injection: nothing that Lua hands over, headers, their names, variables, adds a line to the
# request that the peer gets.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Test::More;

my $nginx = Nginx->new;
my $peer = FakePeer->new(port(1), sub {
    my ($connection) = @_;
    while (my $request = $connection->request) { $connection->answer("ok\n") }
});

# The texts are those of the request's argument, with %XX decoded by Lua, as code would do it.
$nginx->conf(<<"EOC")->start;
init_by_lua_block {
    function decoded(text)
        return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
    end
    set = ngx.req.set_header
    steps = {
        value = function(text) set("X-A", text) end,
        values = function(text) set("X-A", { "one", text }) end,
        number = function(text) set("X-A", 1e15) end,
        name = function(text) set(text, "value") end,
        host = function(text) set("Host", text) end,
        cookie = function(text) set("Cookie", text) end,
        empty = function(text) set("", text) end,
        args = function(text) ngx.var.args = text end,
        variable = function(text) ngx.var.value = text end,
        part = function(text) ngx.var.part = text end,
        method = function(text) ngx.var.method = text end,
        body = function(text) ngx.var.body = text end,
        data = function(text) ngx.req.set_body_data(text) end,
    }
}
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        balancer.set_current_peer("127.0.0.1", ${\port(1)})
        local did, err = pcall(steps[ngx.var.arg_do], decoded(ngx.var.arg_text))
        local ok, why = balancer.recreate_request()
        ngx.var.seen = tostring(did and ok) .. " " .. tostring(why or err)
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$seen "";
    set \$value "";
    set \$part "";
    set \$method GET;
    set \$body "";
    add_header X-Seen \$seen always;
    proxy_set_header X-Value \$value;
    proxy_set_header X-Part "before \$part behind";
    location / { proxy_pass http://backend; }
    location /method { proxy_method \$method; proxy_pass http://backend; }
    location /body { proxy_set_body "\$body"; proxy_pass http://backend; }
    location /http_host { proxy_set_header Host \$http_host; proxy_pass http://backend; }
    location /host { proxy_set_header Host \$host; proxy_pass http://backend; }
    location /cookie { proxy_set_header X-Cookie \$cookie_a; proxy_pass http://backend; }
}
EOC

sub encode { $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }

# Asks; returns what arrived, what recreate_request said, and the answer's status.
sub came {
    my ($path, $do, $text) = @_;
    $peer->forget;
    my $answer = $nginx->get("$path?do=$do&text=" . encode($text), port(0));
    my ($seen) = $answer->{head} =~ /^X-Seen: (.*?)\r$/m;
    my @requests = $peer->requests;
    is(scalar(@requests), 1, "$path $do: one request");
    is($answer->{status}, 200, "$path $do: which is answered");
    return ($requests[0] // '', $seen // '');
}


sub lines_of { my ($head) = split /\r\n\r\n/, $_[0], 2; return split /\r\n/, $head }

# Every header of a request, and no other line.
sub well_formed {
    my ($request, @expected) = @_;
    my ($first, @headers) = lines_of($request);
    my @wrong = grep !/^[!#\$%&'*+.^_`|~0-9A-Za-z-]+: [^\0-\x08\x0a-\x1f\x7f]*$/, @headers;
    push @wrong, $first if $first !~ m{^[A-Z]+ /[!-~]* HTTP/1\.[01]$};
    push @wrong, grep /^(?:Evil|X-Evil)\b/i, @headers;
    push @wrong, 'a bare CR or LF' if (split /\r\n\r\n/, $request, 2)[0] =~ /\r(?!\n)|(?<!\r)\n/;
    return @wrong;
}

my %texts = (
    'CRLF' => "a\r\nEvil: 1",
    'LF' => "a\nEvil: 1",
    'CR' => "a\rEvil: 1",
    'the end of the head' => "a\r\n\r\nGET /evil HTTP/1.1\r\nEvil: 1",
    'NUL' => "a\0Evil: 1",
    'DEL and other controls' => "a\x7f\x01\x1b\x0b",
    'CRLF in front' => "\r\nEvil: 1",
    'CRLF at the end' => "a\r\n",
    'a folded line' => "a\r\n Evil: 1",
);

for my $name (sort keys %texts) {
    my $text = $texts{$name};
    my $escaped = $text =~ s/([\0-\x08\x0a-\x1f\x7f])/sprintf '%%%02X', ord $1/ger;
    my ($request, $seen);

    for my $do (qw(value values)) {
        ($request, $seen) = came('/', $do, $text);
        is(join('|', well_formed($request)), '', "$name in a value ($do): the head is well-formed");
        like($request, qr/^X-A: \Q$escaped\E\r$/m, "$name in a value ($do): percent-encoded, as in lua-nginx-module");
    }
    ($request) = came('/', 'name', "X$text");
    is(join('|', well_formed($request)), '', "$name in a name: the head is well-formed");
    like($request, qr/^X[^\r\n]*: value\r$/m, "$name in a name: the header arrives");
    for my $path ('/http_host', '/host') {
        ($request) = came($path, 'host', $text);
        is(join('|', well_formed($request)), '', "$name in the host: $path");
    }
    ($request) = came('/cookie', 'cookie', "a=$text");
    is(join('|', well_formed($request)), '', "$name in a cookie");
    ($request) = came('/', 'args', "b=$text");
    is(join('|', well_formed($request)), '', "$name in \$args: the request line is well-formed");
    my $args = $text =~ s/([\0-\x20\x7f])/sprintf '%%%02X', ord $1/ger;
    like($request, qr{^GET /\?b=\Q$args\E HTTP/1}, "$name in \$args: percent-encoded");

    # A variable holds what it likes, but its line breaks do not get into the head.
    for my $do (qw(variable part)) {
        ($request, $seen) = came('/', $do, $text);
        my ($ok) = $text =~ /[\r\n\0]/ ? 'nil' : 'true';
        like($seen, qr/^$ok\b/, "$name in a variable ($do): recreate_request returns $ok");
        like($seen, qr/line break or NUL/, "$name in a variable ($do): and says why") if $ok eq 'nil';
        is(join('|', grep !/^X-(?:Value|Part): /, well_formed($request)), '', "$name in a variable ($do): the head is well-formed");
        unlike($request, qr/^[ \t]?Evil/m, "$name in a variable ($do): nothing of it arrives") if $ok eq 'nil';
    }
    ($request, $seen) = came('/method', 'method', "GET / HTTP/1.1\r\nEvil: 1\r\nX: $text");
    like($seen, qr/^nil .*line break or NUL/, "$name in the method: refused");
    unlike($request, qr/^[ \t]?Evil/m, "$name in the method: nothing of it arrives");

    # In a body they are welcome. (The peer's notes end at a NUL.)
    next if $text =~ /\0/;
    ($request, $seen) = came('/body', 'body', $text);
    is($seen, 'true nil', "$name in a variable of the body: taken");
    ($request, $seen) = came('/', 'data', $text);
    like($request, qr/\r\n\r\n\Q$text\E$/, "$name in the body: as it is");
    is(join('|', well_formed($request)), '', "$name in the body: the head is well-formed");
}

my ($request, $seen) = came('/', 'name', "X A:\tb");
like($request, qr/^X%20A%3A%09b: value\r$/m, 'what is no token is percent-encoded in a name');
($request, $seen) = came('/', 'empty', 'value');
like($seen, qr/^nil .*bad argument #1 to 'set_header' \(the name is empty\)|^false/, 'an empty name is refused');
unlike($request, qr/^: /m, 'and no header without a name arrives');
($request) = came('/', 'number', 'a');
is(join('|', well_formed($request)), '', 'a number as value');
($request) = came('/', 'value', "tab\tand \xe9 and \xff");
like($request, qr/^X-A: tab\tand \xe9 and \xff\r$/m, 'what a value may have stays as it is');

$nginx->stop;
unlike($nginx->log, qr/exited on signal|\[(?:alert|emerg|crit|error)\]|internal error/, 'nothing odd in the log');

done_testing();
