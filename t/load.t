# Many connections for some seconds, with three peers: no request fails, no worker dies, and the
# error log has nothing above notice.

use strict;
use warnings;

use lib 't/lib';
use IO::Select;
use Nginx;
use Test::More;
use Time::HiRes qw(time);

use constant { CONNECTIONS => 32, SECONDS => 3, MANY => 3200 };

my $nginx = Nginx->new(workers => 2);
$nginx->conf(<<"EOC");
keepalive_requests 100000000;
upstream backend {
    server 0.0.0.1;
    balancer_by_lua_block {
        ngx.ctx.seen = true
        local ports = { ${\port(1)}, ${\port(2)}, ${\port(3)} }
        local n = tonumber(ngx.var.arg_n)
        local ok, err = require("ngx.balancer").set_current_peer("127.0.0.1", ports[n % 3 + 1])
        if not ok then
            ngx.log(ngx.ERR, err)
        end
    }
    keepalive 64;
    keepalive_requests 100000000;
}
server {
    listen 127.0.0.1:${\port(0)};
    location / {
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    listen 127.0.0.1:${\port(3)};
    location / { return 200 "\$server_port:\$arg_n:\$connection;"; }
}
EOC
$nginx->start;

my $select = IO::Select->new;
my (%waiting, %connections);
my ($sent, $good, $bad) = (0, 0, 0);

sub ask {
    my ($socket) = @_;
    $waiting{$socket} = { n => $sent++, got => '' };
    syswrite $socket, "GET /?n=$waiting{$socket}{n} HTTP/1.1\r\nHost: localhost\r\n\r\n";
}

for (1 .. CONNECTIONS) {
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => port(0), Timeout => 15) or die "connect: $!";
    $select->add($socket);
    ask($socket);
}

my ($end, $latest) = (time + SECONDS, time + $Nginx::patience);
while (my @ready = $select->can_read(5)) {
    for my $socket (@ready) {
        my $request = $waiting{$socket};
        if (!sysread $socket, $request->{got}, 65536, length $request->{got}) {
            $bad++;
            $select->remove($socket);
            next;
        }
        $request->{got} =~ /;$/ or $request->{got} !~ m{^HTTP/1\.1 200} or next;
        my $expected = port($request->{n} % 3 + 1) . ":$request->{n}";
        if ($request->{got} =~ m{^HTTP/1\.1 200 .*\r\n\r\n\Q$expected\E:(\d+);$}s) {
            $good++;
            $connections{$1} = 1;
        } else {
            $bad++;
        }
        if (time < $end || $good < MANY && time < $latest) { ask($socket) } else { $select->remove($socket) }
    }
}

diag("$good requests, " . keys(%connections) . ' connections to the peers');
is($bad, 0, 'no request fails, and each reaches the peer that was chosen for it');
is($good, $sent, 'all are answered');
cmp_ok($good, '>=', MANY, 'they were many');
cmp_ok(scalar(keys %connections), '<=', 3 * CONNECTIONS, 'over few connections to the peers');

$nginx->stop;
unlike($nginx->said, qr/\[(?:warn|error|crit|alert|emerg)\]/, 'the log has nothing above notice');
unlike($nginx->log, qr/exited on signal/, 'no worker died');

done_testing();
