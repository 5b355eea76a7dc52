# A unix socket whose path fills its address: nginx's own keepalive cannot tell identities apart
# there, and so does not see such peers at all. What enable_keepalive keeps needs no such room.

use strict;
use warnings;

use lib 't/lib';
use File::Temp 'tempdir';
use Nginx;
use Pools;
use Test::More;

my $nginx = Nginx->new;
my $dir = tempdir('XXXX', DIR => '/tmp', CLEANUP => 1);
chmod 0755, $dir or die "$dir: $!";

my @ways = ways($nginx);
for my $length (90, 98, 99, 100, 106, 107) {
    my $path = "$dir/" . 'x' x ($length - length($dir) - 1);
    for my $way (@ways) {
        for my $who ('Lua', 'a server line') {
            next if $way->{keep} && $who ne 'Lua';
            my $name = "a path of $length, $way->{name}, $who";
            my $lua = $who eq 'Lua' ? "balancer.set_current_peer('unix:$path') keep()" : '';
            my $before = $who eq 'Lua' ? '' : "server unix:$path;";
            my %way = (%$way, before => $before . ($way->{before} // ''));
            $nginx->conf(upstream(\%way, backend => $lua) . <<"EOC")->start;
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_socket_keepalive off;
    location / { proxy_pass http://backend; }
    location /other { proxy_socket_keepalive on; proxy_pass http://backend; }
}
server { listen unix:$path; return 200 '$saw'; }
EOC
            # Two identities: what else a socket is opened with is part of it.
            my @answers = carried($nginx, qw(/ / /other / /other /other));
            my @names = qw(1 1 2 1 2 2);
            my $under = $way->{before} && $nginx->version < 1.029007;
            if ($under && $who ne 'Lua') {
                is(on(@answers), kept(1, qw(1 1 2 3 4 4)), "$name: the pool under the balancer");
            } else {
                my $own = $way->{keep} && ($under || !$way->{before} && !$way->{after});
                is(on(@answers), kept($way->{keeps} && ($length < 100 || $own), @names), $name);
            }
            $nginx->stop;
            unlike($nginx->log, qr/\[(?:error|crit|alert|emerg)\]|exited on signal|internal error/, "$name: nothing odd in the log");
        }
    }
}

done_testing();
