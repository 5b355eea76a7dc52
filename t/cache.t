# proxy_cache over a balancer: what is cached, what is asked for again, and by which peer.

use strict;
use warnings;

use lib 't/lib';
use Nginx;
use Test::More;

my $nginx = Nginx->new;
$nginx->write('html/page', "the page\n");
$nginx->write('html/other', "another page\n");
$nginx->conf(<<"EOC");
proxy_cache_path cache keys_zone=pages:1m;
log_format peer '\$server_port \$request_uri \$status \$http_if_modified_since';
upstream backend {
    balancer_by_lua_block {
        print("balancer: ", ngx.var.uri, " ", ngx.var.upstream_cache_status)
        if ngx.var.arg_fail then error("told to fail") end
        -- another peer each time
        turn = (turn or 0) + 1
        require("ngx.balancer").set_current_peer("127.0.0.1", turn % 2 == 0 and ${\port(1)} or ${\port(2)})
    }
    keepalive 4;
}
server {
    listen 127.0.0.1:${\port(0)};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_cache pages;
    proxy_cache_key \$uri;
    proxy_cache_valid 200 1s;
    proxy_cache_revalidate on;
    add_header X-Cache \$upstream_cache_status;
    add_header X-Addr \$upstream_addr;
    location / { proxy_pass http://backend; }
    location /other {
        proxy_cache_use_stale updating error http_500;
        proxy_cache_background_update on;
        proxy_pass http://backend;
    }
}
server {
    listen 127.0.0.1:${\port(1)};
    listen 127.0.0.1:${\port(2)};
    root html;
    access_log logs/peer.log peer;
    location / { }
}
EOC
$nginx->start;

sub cache { $_[0]{head} =~ /^X-Cache: (\w+)/m ? $1 : 'none' }
sub addr { $_[0]{head} =~ /^X-Addr: (\S+)\r$/m ? $1 : 'none' }
sub asked { slurp($nginx->root . '/logs/peer.log') }

my $answer = $nginx->get('/page', port(0));
is(cache($answer) . " $answer->{body}", "MISS the page\n", 'the first request goes to the peer');
is(addr($answer), '127.0.0.1:' . port(2), 'that Lua chose');

$answer = $nginx->get('/page', port(0));
is(cache($answer) . " $answer->{body}", "HIT the page\n", 'the second is answered from the cache');
is(addr($answer), 'none', 'by nobody');
is($nginx->logged('balancer: /page'), 1, 'and no balancer has run');

# When the page has become old.
ok(poll { $answer = $nginx->get('/page', port(0)); cache($answer) ne 'HIT' }, 'the page becomes old');
is(cache($answer) . " $answer->{status} $answer->{body}", "REVALIDATED 200 the page\n", 'the peer says that it is still good');
is(addr($answer), '127.0.0.1:' . port(1), 'the other peer, in its turn');
like(asked(), qr{^${\port(2)} /page 200 -\n${\port(1)} /page 304 \w+, .* GMT$}m, 'which was asked whether it has changed');
is($nginx->logged('balancer: /page'), 2, 'the balancer ran for it');

# When it has changed.
ok(poll {
    $nginx->write('html/page', "the new page\n");
    utime time + 100, time + 100, $nginx->root . '/html/page';
    $answer = $nginx->get('/page', port(0));
    cache($answer) eq 'EXPIRED';
}, 'a page that has changed is fetched');
is($answer->{body}, "the new page\n", 'whole');

# The old answer at once, the new one asked for by a subrequest.
is(cache($nginx->get('/other', port(0))), 'MISS', 'background update: the first request');
ok(poll { $answer = $nginx->get('/other', port(0)); cache($answer) eq 'STALE' }, 'background update: an old page is given out');
is($answer->{body}, "another page\n", 'at once');
ok(poll { asked() =~ m{ /other 304 } }, 'while it is asked for anew, by way of the balancer');
is($nginx->logged('balancer: /other'), 2, 'which ran once for each');

# An error in the balancer, with an old page at hand.
ok(poll { $answer = $nginx->get('/page?fail=1', port(0)); cache($answer) ne 'HIT' }, 'an error in the balancer when the page is old');
is($answer->{status}, 500, 'is an error');
like($nginx->log, qr/failed to run balancer_by_lua\*: .*told to fail/, 'that is logged');
ok(poll { $answer = $nginx->get('/page', port(0)); $answer->{body} eq "the new page\n" }, 'and passes');

unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, 'no worker died');
$nginx->stop;

done_testing();
