# Reloads while requests are on their way: what was begun with one configuration ends with it.

use strict;
use warnings;

use lib 't/lib';
use IO::Socket::INET;
use Nginx;
use Test::More;

# A peer that takes connections and answers nothing, until the test closes them.
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(2), Listen => 16, ReuseAddr => 1)
    or die "listen: $!";

sub conf {
    my ($nginx, $version) = @_;
    $nginx->conf(<<"EOC");
init_by_lua_block { version = "$version" }
init_worker_by_lua_block { print("worker of $version") }
upstream backend {
    server 0.0.0.1;
    server 0.0.0.1;
    balancer_by_lua_block {
        local ctx = ngx.ctx
        ctx.try = (ctx.try or 0) + 1
        ctx.version = ctx.version or version
        ngx.var.said = version .. " " .. ctx.version .. " " .. ctx.try
        local ports = { ${\port(2)}, ${\port(1)} }
        local n = ngx.var.arg_slow and ctx.try or 2
        require("ngx.balancer").set_current_peer("127.0.0.1", ports[n])
    }
    keepalive 4;
}
server {
    listen 127.0.0.1:${\port(0)};
    set \$said "";
    add_header X-Said \$said;
    location / {
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_next_upstream error timeout;
        proxy_pass http://backend;
    }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
}

sub said { $_[0]{head} =~ /^X-Said: (.*?)\r$/m ? $1 : $_[0]{head} }

# A request is on its way while the configuration is replaced.
{
    my $nginx = Nginx->new;
    conf($nginx, 'first');
    $nginx->start;
    is(said($nginx->get('/', port(0))), 'first first 1', 'the first configuration serves');

    # A request that waits for its first peer.
    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15) or die "connect: $!";
    print $client "GET /?slow=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    my $waiting = $silent->accept or die "accept: $!";

    conf($nginx, 'second');
    $nginx->reload;
    ok(poll { $nginx->logged('gracefully shutting down') }, 'the old worker takes no more requests');
    is(said($nginx->get('/', port(0))), 'second second 1', 'the second configuration serves');

    # Its peer goes: the next is chosen by the code that the request began with.
    $waiting->close;
    my $answer = do { local $/; <$client> };
    like($answer, qr/^X-Said: first first 2\r$/m, "the request that was on its way keeps its own");
    like($answer, qr/peer one$/, "and is answered");

    is(said($nginx->get('/', port(0))), 'second second 1', "the second configuration goes on");
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[(?:alert|emerg|crit)\]|internal error/, "no process died");
}

# Each configuration takes its VM with it.
{
    my $nginx = Nginx->new(name => 'many');
    my $memory = sub { slurp('/proc/' . $nginx->pid . '/status') =~ /^VmRSS:\s+(\d+) kB/m ? $1 : 0 };
    my $reload = sub {
        my ($n) = @_;
        conf($nginx, "version$n");
        $nginx->reload;
        poll { $nginx->logged("worker of version$n\n") } or diag("no reload $n");
    };
    conf($nginx, 'first');
    $nginx->start;
    $reload->($_) for 1 .. 20;
    my $before = $memory->();
    $reload->($_) for 21 .. 40;
    my $grown = $memory->() - $before;
    ok(poll { said($nginx->get('/', port(0))) eq 'version40 version40 1' }, 'the last of forty configurations serves');
    # A VM with the API in it takes some 700 kB.
    cmp_ok($grown, '<', 4000, "twenty reloads take no memory in the master ($grown kB)");
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[(?:alert|emerg|crit)\]|internal error/, 'no process died');
}

done_testing();
