# The name of a try, set_current_peer's third argument: what the peer gets as SNI, and what its
# certificate is verified against.

use strict;
use warnings;

use lib 't/lib';
use Certificates;
use Nginx;
use Test::More;

my $nginx = Nginx->new;
my $tls = $nginx->root . '/tls';
my $ca = Certificates->new($tls);
$ca->issue('server', names => [qw(a.example b.example configured.example)]);

my ($good, $bad, $plain, $dead) = map port($_), 1 .. 4;

# Two peers: the second takes the connection and closes it.
my $peers = <<"EOC";
log_format sni '\$ssl_server_name';
server {
    listen 127.0.0.1:$good ssl;
    listen 127.0.0.1:$bad ssl;
    ssl_certificate $tls/server.crt;
    ssl_certificate_key $tls/server.key;
    access_log logs/sni.log sni;
    if (\$server_port = $bad) { return 444; }
    return 200 "sni=\$ssl_server_name host=\$http_host";
}
server { listen 127.0.0.1:$plain; return 200 "plain host=\$http_host"; }
EOC

$nginx->conf(<<"EOC");
$peers
proxy_http_version 1.1;
proxy_set_header Connection close;
proxy_ssl_trusted_certificate $tls/ca.crt;
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local name = ngx.var.arg_name
        local cases = {
            name = function()
                assert(balancer.set_current_peer("127.0.0.1", $good, name))
            end,
            table = function()
                assert(balancer.set_current_peer("127.0.0.1", $good, { host = name }))
            end,
            table_pool = function()
                assert(balancer.set_current_peer("127.0.0.1", $good,
                                                 { pool = "p", pool_size = 3, host = name }))
            end,
            empty_table = function()
                assert(balancer.set_current_peer("127.0.0.1", $good, {}))
            end,
            empty = function()
                assert(balancer.set_current_peer("127.0.0.1", $good, ""))
            end,
            last = function()
                assert(balancer.set_current_peer("127.0.0.1", $good, "x.example"))
                assert(balancer.set_current_peer("127.0.0.1", $good, name))
            end,
            -- The first try, under the name, fails; the second has none, or another.
            retry = function()
                if not ngx.ctx.again then
                    ngx.ctx.again = true
                    balancer.set_more_tries(1)
                    assert(balancer.set_current_peer("127.0.0.1", $bad, name))
                else
                    assert(balancer.set_current_peer("127.0.0.1", $good, ngx.var.arg_then))
                end
            end,
            list = function()
                assert(balancer.set_peers { { "127.0.0.1", $bad, "a.example" },
                    { addr = "127.0.0.1", port = $bad, host = "b.example" },
                    { "127.0.0.1", $bad }, { "127.0.0.1", $good, name } })
            end,
            plain = function()
                assert(balancer.set_current_peer("127.0.0.1", $plain, name))
            end,
            timeouts = function()
                assert(balancer.set_timeouts(5, 5, 5))
                assert(balancer.set_current_peer("127.0.0.1", $good, name))
            end,
        }
        cases[ngx.var.arg_case or "name"]()
    }
}
upstream lines {
    server 127.0.0.1:$good;
    balancer_by_lua_block {
        if ngx.var.arg_name then
            require("ngx.balancer").set_current_peer("127.0.0.1", $good, ngx.var.arg_name)
        end
    }
}
server {
    listen 127.0.0.1:@{[port(0)]};
    location /sni { proxy_ssl_server_name on; proxy_pass https://backend; }
    location /lines { proxy_ssl_server_name on; proxy_pass https://lines; }
    location /named {
        proxy_ssl_server_name on;
        proxy_ssl_name configured.example;
        proxy_pass https://backend;
    }
    location /variable {
        proxy_ssl_server_name on;
        proxy_ssl_name \$arg_ssl_name;
        proxy_pass https://backend;
    }
    location /unsent { proxy_pass https://backend; }
    location /verify { proxy_ssl_verify on; proxy_pass https://backend; }
    location /verify-named {
        proxy_ssl_verify on;
        proxy_ssl_name configured.example;
        proxy_pass https://backend;
    }
    location /verify-wrong {
        proxy_ssl_verify on;
        proxy_ssl_name wrong.example;
        proxy_pass https://backend;
    }
    location /plain { proxy_pass http://backend; }
    location /fixed-host { proxy_ssl_server_name on; proxy_set_header Connection close;
        proxy_set_header Host fixed.example; proxy_pass https://backend; }
}
EOC
$nginx->start;

sub body { $nginx->get($_[0], port(0))->{body} }
sub status { $nginx->get($_[0], port(0))->{status} }
sub sni { body($_[0]) =~ /^sni=(\S*) / ? $1 : undef }

# The names of all connections since the last call.
my $seen = 0;
sub names {
    my ($count) = @_;
    my @names;
    poll { @names = split /\n/, slurp($nginx->root . '/logs/sni.log'); @names >= $seen + $count };
    splice @names, 0, $seen;
    $seen += @names;
    return "@names";
}

# SNI.
is(sni('/sni?name=a.example'), 'a.example', 'the name is sent');
is(sni('/sni?name=b.example'), 'b.example', 'another one for another request');
is(sni('/sni'), 'backend', 'without one it is that of proxy_pass');
is(sni("/sni?case=$_&name=b.example"), 'b.example', "$_: the name is sent") for qw(table table_pool last timeouts);
is(sni("/sni?case=$_"), 'backend', "$_: no name") for qw(empty_table empty table);
is(sni('/named?name=a.example'), 'a.example', 'it wins over proxy_ssl_name');
is(sni('/named'), 'configured.example', 'which counts without it');
is(sni('/named?case=empty'), 'configured.example', 'and with an empty one');
is(sni('/variable?ssl_name=b.example&name=a.example'), 'a.example', 'it wins over a variable');
is(sni('/variable?ssl_name=b.example'), 'b.example', 'which counts without it');
is(sni('/unsent?name=a.example'), '', 'nothing is sent without proxy_ssl_server_name');
is(sni('/sni?name=127.0.0.1'), '', 'an address is no name to send');
is(sni('/sni?name=a.example:443'), 'a.example', 'a port is not part of it');
is(sni('/lines?name=a.example'), 'a.example', 'beside server lines');
is(sni('/lines'), 'lines', 'for a server line it is that of proxy_pass');
is(body('/fixed-host?name=a.example'), 'sni=a.example host=fixed.example', 'the Host header is another thing');
is(body('/plain?case=plain&name=a.example'), 'plain host=backend', 'http:// has no use for it');

# The next try.
names(0);
is(sni('/sni?case=retry&name=a.example'), 'backend', 'the next try does not have it');
is(names(2), 'a.example backend', 'which the one before had');
is(sni('/sni?case=retry&name=a.example&then=b.example'), 'b.example', 'the next try has its own');
is(names(2), 'a.example b.example', 'both were sent');
is(sni('/named?case=retry&name=a.example'), 'configured.example', 'the next try has the configured one');
is(names(2), 'a.example configured.example', 'both were sent');
is(sni('/sni?case=list&name=b.example'), 'b.example', 'each peer of a list has its own');
is(names(4), 'a.example b.example backend b.example', 'all were sent');
is(sni('/named?case=list'), 'configured.example', 'or the configured one');
is(names(4), 'a.example b.example configured.example configured.example', 'all were sent');

# Verification.
is(status('/verify?name=a.example'), 200, 'the certificate has the name');
is(status('/verify?name=wrong.example'), 502, 'the certificate does not have the name');
is(status('/verify'), 502, 'nor that of proxy_pass');
is(status('/verify-named'), 200, 'it has that of proxy_ssl_name');
is(status('/verify-named?name=wrong.example'), 502, 'but Lua gave a wrong one');
is(status('/verify-wrong'), 502, 'it does not have that of proxy_ssl_name');
is(status('/verify-wrong?name=a.example'), 200, 'but Lua gave a good one');
is(status('/verify?case=table&name=a.example'), 200, 'the table form');
is(status('/verify?case=table&name=wrong.example'), 502, 'the table form, a wrong name');
is(status('/verify?case=retry&name=wrong.example&then=a.example'), 200, 'the next try is verified under its own');
is(status('/verify?case=retry&name=a.example&then=wrong.example'), 502, 'and fails under a wrong one');
is(status('/verify-wrong?case=retry&name=a.example'), 502, 'the next try is verified under the configured one');
is($nginx->logged(q(upstream SSL certificate does not match "wrong.example")), 7, 'each time for that reason');

# One after the other, the names do not leak.
is(sni("/sni?name=$_.example"), "$_.example", "a series: $_") for qw(a b c a c b);
is($nginx->logged('[alert]') + $nginx->logged('[crit]') + $nginx->logged('[emerg]'), 0, 'no alert');

done_testing();
