# Addresses and names from untrusted texts: only what is written in the usual way is an address, so
# that code which looks at a text knows where it leads; all else is refused and reaches nobody. Names
# with odd bytes neither cut SNI nor verification short, and pools and sessions of clients' choosing
# stay apart.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Test::More;

my $nginx = Nginx->new;
my $root = $nginx->root;
my $tls = "$root/tls";
Certificates->new($tls)->issue('server', names => ['good.example']);

$nginx->conf(<<"EOC")->start;
init_by_lua_block {
    balancer = require "ngx.balancer"
    function decoded(text)
        return text and (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
    end
    -- Ports that no argument can name.
    ports = { nan = 0/0, inf = 1/0, ["-inf"] = -1/0, half = 80.5, minus = -1, zero = 0, ["2^16"] = 65536, ["2^32+80"] = 2^32 + 80,
              ["2^64+80"] = 2^64 + 80, table = {}, ["true"] = true }
}
upstream plain {
    balancer_by_lua_block {
        local addr, port = decoded(ngx.var.arg_addr), decoded(ngx.var.arg_port)
        local known = ports[decoded(ngx.var.arg_odd) or 1]
        if known ~= nil then port = known end
        local set = ngx.var.arg_list and function(a, p) return balancer.set_peers { { a, p } } end or balancer.set_current_peer
        local did, ok, err = pcall(set, addr, port)
        if not (did and ok) then
            ngx.var.seen = tostring(err or ok):gsub("%c", "?")
            return ngx.exit(403)
        end
    }
}
upstream local {
    balancer_by_lua_block {
        balancer.set_current_peer("127.0.0.1", ${\port(1)})
        local ok, err = balancer.bind_to_local_addr(decoded(ngx.var.arg_addr))
        if not ok then
            ngx.var.seen = err:gsub("%c", "?")
            return ngx.exit(403)
        end
    }
}
upstream tls {
    balancer_by_lua_block {
        local name, pool = decoded(ngx.var.arg_name), decoded(ngx.var.arg_pool)
        local ok, err = balancer.set_current_peer("127.0.0.1", ${\port(2)}, { host = name, pool = pool })
        if not ok then
            ngx.var.seen = err:gsub("%c", "?")
            return ngx.exit(403)
        end
        balancer.enable_keepalive()
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$seen "";
    add_header X-Seen \$seen always;
    add_header X-Resumed \$balancer_ssl_session_reused;
    proxy_connect_timeout 2s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_server_name on;
    proxy_ssl_trusted_certificate $tls/ca.crt;
    location /plain { proxy_pass http://plain; }
    location /local { proxy_pass http://local; }
    location /tls { proxy_pass https://tls; }
    location /closed { proxy_set_header Connection close; proxy_pass https://tls; }
    location /verify { proxy_ssl_verify on; proxy_pass https://tls; }
}
server { listen 127.0.0.1:${\port(1)}; listen [::1]:${\port(1)}; listen unix:$root/a.sock; return 200 "peer for \$remote_addr"; }
server {
    listen 127.0.0.1:${\port(2)} ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    return 200 'sni=\$ssl_server_name connection=\$connection reused=\$ssl_session_reused';
}
EOC

sub encode { $_[0] =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }
sub ask {
    my ($path, %args) = @_;
    my $answer = $nginx->get("$path?" . join('&', map "$_=" . encode($args{$_}), sort keys %args), port(0));
    ($answer->{seen}) = $answer->{head} =~ /^X-Seen: (.*?)\r$/m;
    return $answer;
}

my $port = port(1);

# What is an address.
for my $addr ('127.0.0.1', "127.0.0.1:$port", '::1', '[::1]', "[::1]:$port", '0:0:0:0:0:0:0:1', "unix:$root/a.sock") {
    for my $list ({}, { list => 1 }) {
        is(ask('/plain', addr => $addr, port => $port, %$list)->{status}, 200, "$addr is an address");
    }
}
for my $text ($port, "0$port", "0000000$port") {
    is(ask('/plain', addr => '127.0.0.1', port => $text)->{status}, 200, "$text is a port");
}

# What is none. Each of them means 127.0.0.1, or something else that is well, to some software.
my @no_address = (
    '0177.0.0.1', '127.0.0.01', '127.000.000.001', '0127.0.0.1', '0x7f.0.0.1', '0x7f000001', '2130706433', '017700000001', '127.1',
    '127.0.1', '127...1', '127.0.0.', '.127.0.0.1', '127.0.0.1.', '127.0.0.0.1', '127.0.0.256', '127.0.0.-1', '+127.0.0.1',
    ' 127.0.0.1', '127.0.0.1 ', "127.0.0.1\n", "\t127.0.0.1", "127.0.0.1\r\nX: y", "127.0.0.1\0", "127.0.0.1\0.example", "\0",
    "127.0.0.1:$port\0", "127.0.0.1:$port/", "127.0.0.1:$port?x", "127.0.0.1/", "127.0.0.1#x", "127.0.0.1/8",
    "user\@127.0.0.1", "http://127.0.0.1", "//127.0.0.1", "127.0.0.1:$port:$port", '127.0.0.1:', '127.0.0.1:x', "127.0.0.1: $port",
    "127.0.0.1:+$port", '127.0.0.1:0', '127.0.0.1:65536', '127.0.0.1:-1', '127.0.0.1:4294967376', "127.0.0.1:$port-" . ($port + 1),
    '127.0.0.1:' . '9' x 500, "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1", "127\xe3\x80\x820\xe3\x80\x820\xe3\x80\x821",
    '[127.0.0.1]', '[::1', '::1]', "::1]:$port", '[[::1]]', '[::1]x', "[::1]$port", '[::1]:', '[]', ':::1', '::1::', '1::2::3', '1::2:', ':1::', ':::1.2.3.4', '1:2:3:4:5:6:7:8::',
    '::1%lo', '[::1%lo]', "[::1%25lo]:$port", 'fe80::1%eth0', '::ffff:127.0.0.01', '::g', '1:2:3:4:5:6:7:8:9', '12345::1', '::1/128',
    'localhost', 'LOCALHOST', 'localhost.', 'example.com', '*', "*:$port", ":$port", '', ' ', '.', '..', '-', '%', "\xff\xfe", 'x' x 1000, '1' x 1000,
    'unix:', 'unix', "UNIX:$root/a.sock", "Unix:$root/a.sock", "unix:$root/a.sock\0", "unix:$root/a.sock\0.txt", "unix:\0abstract", 'unix:/' . 'x' x 200,
    " unix:$root/a.sock", "[unix:$root/a.sock]", "unix://$root/../no/such/../a.sock\n",
);
for my $addr (@no_address) {
    my $shown = (length $addr > 60 ? substr($addr, 0, 60) . '…' : $addr) =~ s/([^!-~ ])/sprintf '\x%02X', ord $1/ger;
    for my $list ({}, { list => 1 }) {
        my $answer = ask('/plain', addr => $addr, port => $port, %$list);
        is($answer->{status}, 403, "'$shown' is no address" . (%$list ? ', in a list' : ''));
        like($answer->{seen}, qr/\S/, "'$shown': it is said why");
    }
}

for my $text ('0', '00', '65536', '99999', '-1', '+80', ' 80', '80 ', "80\n", "80\0", '80.0', '8e1', '0x50', '', 'http', '4294967376', '18446744073709551696', '9' x 900) {
    my $answer = ask('/plain', addr => '127.0.0.1', port => $text);
    is($answer->{status}, 403, 'no port: ' . (substr $text, 0, 30) =~ s/([^!-~ ])/sprintf '\x%02X', ord $1/ger);
    like($answer->{seen}, qr/port/, 'and the text tells of the port');
}
for my $odd (qw(nan inf -inf half minus zero 2^16 2^32+80 2^64+80 table true)) {
    is(ask('/plain', addr => '127.0.0.1', odd => $odd)->{status}, 403, "no port: the number $odd");
    is(ask('/plain', addr => '127.0.0.1', odd => $odd, list => 1)->{status}, 403, "no port in a list: the number $odd");
}

# Local addresses.
is(ask('/local', addr => '127.0.0.9')->{body}, 'peer for 127.0.0.9', 'a local address');
for my $addr ('localhost', '0177.0.0.1', '127.0.0.09', '127...1', '::ffff:127.0.0.01', '127.1', '2130706433', "127.0.0.9\0", "127.0.0.9\n", ' 127.0.0.9', '127.0.0.9:65536', '127.0.0.9:-1',
    '::1%lo', '', 'x' x 1000) {
    my $answer = ask('/local', addr => $addr);
    is($answer->{status}, 403, 'no local address: ' . (substr $addr, 0, 30) =~ s/([^!-~ ])/sprintf '\x%02X', ord $1/ger);
}

# Names: what OpenSSL would cut short, or a peer would take for more than a name, is refused.
for my $name ("good.example\0", "good.example\0.evil.example", "\0good.example", "good.example\r\nX: y", "good.example\n", "\x7f", "a\tb") {
    my $shown = $name =~ s/([^!-~ ])/sprintf '\x%02X', ord $1/ger;
    for my $path (qw(/tls /verify)) {
        my $answer = ask($path, name => $name);
        is($answer->{status}, 403, "$path: no name: $shown");
        is($answer->{seen}, 'invalid name of the peer', "$path: it is said why");
    }
}
like(ask('/verify', name => 'good.example')->{body}, qr/^sni=good\.example /, 'a good name is sent and verified');
for my $name ('evil.example', 'good.example.evil.example', 'good.exampl', '.good.example', '*.example', 'good example', '127.0.0.1', 'x' x 250) {
    is(ask('/verify', name => $name)->{status}, 502, "$name is not the peer's name") for 1, 2;
}
for my $long ('x' x 256, 'x' x 7000) {
    isnt(ask('/verify', name => $long)->{status}, 200, 'a name that is too long for TLS fails');
}

# A client that chooses names and pools gets no connection of another name or pool, however the
# texts are put together.
my %who;
for my $pair (['a.example', 'b'], ['a.example', "b\0"], ['a.example', "\0b"], ['a.exampleb', ''], ['a.example', ''], ['a', '.exampleb'],
    ['', 'a.exampleb'], ['a.example', "b" . pack('Q', 0)], ['a.example', pack('Q', 9) . 'b'], ['a.example', 'B'], ['a.example', 'x' x 5000],
    ['a.example', 'x' x 5001]) {
    my ($name, $pool) = @$pair;
    for (1, 2) {
        my $answer = ask('/tls', name => $name, pool => $pool);
        # Without a name it is that of the upstream.
        my ($sni, $connection) = $answer->{body} =~ /^sni=(\S*) connection=(\d+)/ or fail("no answer: $answer->{status}");
        push @{$who{$connection}}, "$name " . unpack 'H*', $pool;
        is($sni, $name || 'tls', "the name '$name' arrives");
    }
}
my @mixed = grep { my %names = map { $_ => 1 } @{$who{$_}}; keys %names > 1 } keys %who;
is(scalar(@mixed), 0, 'no connection serves two names or pools') or diag(explain(\%who));
is(join(' ', map scalar @$_, values %who), join(' ', (2) x keys %who), 'each serves its own twice');

# The same for sessions: never one of another name, whatever the client chooses.
my %first;
for my $name ('s.example', 't.example', 's.exampl', 'sexample', 's.example.t.example', 'S.example', 's.example', 't.example') {
    my $answer = ask('/closed', name => $name, pool => "pool for $name" . $first{$name}++);
    my ($reused) = $answer->{body} =~ /reused=(\S+)/;
    is($reused, $first{$name} > 1 ? 'r' : '.', "$name: " . ($first{$name} > 1 ? 'its own session' : 'no session of another name'));
}

$nginx->stop;
unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'nothing odd in the log');

done_testing();
