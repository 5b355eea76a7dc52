# Request smuggling: whatever Lua says of Content-Length, Transfer-Encoding and the body, the peer
# gets one well-formed request with one right length, and the connection stays fit for the next.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use IO::Socket::INET;
use Nginx;
use Peer;
use Pools;
use Test::More;

my $nginx = Nginx->new(level => 'debug');

# It takes requests by Content-Length alone: bytes that are too many would be a request of their
# own here, and for bytes that are missing it would wait.
my $peer = FakePeer->new(port(1), sub {
    my ($connection) = @_;
    while (my $request = $connection->request) { $connection->answer("ok\n") }
});
Peer::start($_->[0] => port($_->[1])) for [fastcgi => 2], [uwsgi => 3], [scgi => 4];

my %steps = (
    'the length 0' => 'set("Content-Length", 0)',
    'a length too short' => 'set("Content-Length", "1")',
    'a length too long' => 'set("Content-Length", 100)',
    'a negative length' => 'set("Content-Length", "-1")',
    'a length that is no number' => 'set("Content-Length", "six")',
    'a length with a sign' => 'set("Content-Length", "+6")',
    'two lengths' => 'set("Content-Length", { "1", "6" })',
    'two lengths in one' => 'set("Content-Length", "1, 6")',
    'a length of 2^64' => 'set("Content-Length", "18446744073709551616")',
    'a length in other letters' => 'set("CONTENT-length", "1")',
    'a length with an underscore' => 'set("Content_Length", "1")',
    'no length' => 'ngx.req.clear_header("Content-Length")',
    'no length, by nil' => 'set("Content-Length", nil)',
    'chunked' => 'set("Transfer-Encoding", "chunked")',
    'chunked with an underscore' => 'set("transfer_encoding", "chunked")',
    'chunked twice' => 'set("Transfer-Encoding", { "chunked", "identity" })',
    'chunked and a length' => 'set("Transfer-Encoding", "chunked") set("Content-Length", 3)',
    'no encoding' => 'ngx.req.clear_header("Transfer-Encoding")',
    'a shorter body' => 'body("new")',
    'a longer body' => 'body(("longer "):rep(3000))',
    'an empty body' => 'body("")',
    'a body like a request' => 'body("GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n")',
    'a body like chunks' => 'body("0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")',
    'a body, then a length' => 'body("GET /smuggled HTTP/1.1\r\n\r\n") set("Content-Length", 0)',
    'a length, then a body' => 'set("Content-Length", 0) body("GET /smuggled HTTP/1.1\r\n\r\n")',
    'a body, then no length' => 'body("GET /smuggled HTTP/1.1\r\n\r\n") ngx.req.clear_header("content-length")',
    'a body, then chunked' => 'body("0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n") set("Transfer-Encoding", "chunked")',
    'two bodies' => 'body("the first of them") body("2nd")',
);
my @steps = sort keys %steps;
my $steps = join "\n", map qq([$_] = function() $steps{$steps[$_ - 1]} end,), 1 .. @steps;

# What clients send: nothing, a length, chunks, and what does not fit into memory.
sub post { my ($body) = @_; return "Content-Length: " . length($body) . "\r\n\r\n$body" }
sub chunked { my ($body) = @_; return "Transfer-Encoding: chunked\r\n\r\n" . sprintf("%x\r\n%s\r\n", length $body, $body) . "0\r\n\r\n" }
my @sent = (
    [GET => 'nothing', "\r\n", ''],
    [GET => 'a length of 0', post(''), ''],
    [POST => 'six bytes', post('123456'), '123456'],
    [POST => 'six bytes in a chunk', chunked('123456'), '123456'],
    [POST => 'a body that goes to a file', post('f' x 9000), 'f' x 9000],
    [POST => 'chunks that go to a file', chunked('f' x 9000), 'f' x 9000],
);

sub ask {
    my ($line, $rest) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15) or die "connect: $!";
    print $socket "$line HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n$rest";
    local $SIG{ALRM} = sub { die "no answer to $line\n" };
    alarm 2 * $Nginx::patience;
    my $answer = do { local $/; <$socket> } // '';
    alarm 0;
    return $answer =~ m{^HTTP/1\.1 (\d+)} ? $1 : $answer;
}

my $lua = <<"EOC";
        balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.peer))
        keep()
        local step = steps[tonumber(ngx.var.arg_step)]
        if step then
            step()
            if ngx.var.arg_again then assert(balancer.recreate_request()) end
            assert(balancer.recreate_request())
        end
EOC

for my $way (grep $_->{name} eq 'enable_keepalive' || $_->{name} eq 'keepalive after', ways($nginx)) {
    $nginx->conf(<<"EOC" . upstream($way, backend => $lua) . <<"EOC")->start;
init_by_lua_block {
    local function set(...) return ngx.req.set_header(...) end
    local function body(...) return ngx.req.set_body_data(...) end
    steps = {
        $steps
    }
}
EOC
client_body_buffer_size 1k;
server {
    listen 127.0.0.1:${\port(0)};
    set \$peer ${\port(1)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 3s;
    proxy_next_upstream off;
    location / { proxy_pass http://backend; }
    location /fastcgi { set \$peer ${\port(2)}; fastcgi_pass backend; fastcgi_param REQUEST_METHOD \$request_method;
        fastcgi_param REQUEST_URI \$uri; fastcgi_param CONTENT_LENGTH \$content_length; }
    location /uwsgi { set \$peer ${\port(3)}; uwsgi_pass backend; uwsgi_param REQUEST_METHOD \$request_method;
        uwsgi_param REQUEST_URI \$uri; uwsgi_param CONTENT_LENGTH \$content_length; }
    location /scgi { set \$peer ${\port(4)}; scgi_pass backend; scgi_param REQUEST_METHOD \$request_method;
        scgi_param REQUEST_URI \$uri; }
}
EOC
    for my $sent (@sent) {
        my ($method, $what, $rest, $body) = @$sent;
        my @wrong;
        for my $n (1 .. @steps) {
            $peer->forget;
            my $name = "$steps[$n - 1], $what";
            my $again = $n % 2 ? '' : '&again=1';
            my @status = (ask("$method /?step=$n$again", $rest), ask('GET /next', "\r\n"));
            my @came = $peer->requests;
            push @wrong, "$name: answered @status" if "@status" ne '200 200';
            push @wrong, "$name: " . scalar(@came) . ' requests came' if @came != 2;
            push @wrong, "$name: the next request is $came[1]" if ($came[1] // '') !~ m{^GET /next HTTP/1\.1\r\n};
            my ($head, $data) = split /\r\n\r\n/, $came[0] // '', 2;
            my @lengths = $head =~ /^content.length: *(.*?)\r?$/mgi;
            my $length = length $data;
            push @wrong, "$name: lengths @lengths of $length bytes" if @lengths > 1 || ($lengths[0] // 0) ne $length;
            push @wrong, "$name: $1" if $head =~ /^(transfer.encoding.*?)\r?$/mi;
            my $expected = $steps{$steps[$n - 1]} =~ /body/ ? undef : $body;
            push @wrong, "$name: another body, $data" if defined $expected && $data ne $expected;
        }
        is(join("\n", @wrong), '', "$way->{name}: $what, HTTP");
    }

    # The protocols that have records or parameters of their own.
    for my $protocol (qw(fastcgi uwsgi scgi)) {
        my @wrong;
        for my $n (grep $steps{$steps[$_ - 1]} !~ /body/, 1 .. @steps) {
            my $answer = $nginx->request("POST /$protocol?step=$n HTTP/1.1", port(0), '123456', 'Connection: close');
            push @wrong, "$steps[$n - 1]: $answer->{status} $answer->{body}"
                if $answer->{body} !~ m{^$protocol: POST /$protocol \[123456\]};
        }
        is(join("\n", @wrong), '', "$way->{name}: $protocol");
    }
    cmp_ok($nginx->logged('Content-Length is left to the body'), '>', 0, "$way->{name}: it is told at the level debug");
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[(?:alert|emerg|crit|error)\]|internal error/, "$way->{name}: nothing odd in the log");
}

done_testing();
