# Faults of lua-nginx-module on unpatched nginx that this module was written to be free of, by the
# numbers of their list.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Test::More;
use Time::HiRes qw(time);
use Verdict;

my $nginx = Nginx->new;
my $version = $nginx->version;
my ($p1, $p2) = map '127.0.0.1:' . port($_), 1, 2;

# Closes each connection when a second request comes over it.
my $mortal = FakePeer->new(port(6), sub {
    my ($connection) = @_;
    $connection->request or return;
    $connection->answer("mortal\n");
    $connection->request;
});

my $peers = <<"EOC";
server { listen $p1; listen $p2; add_header X-Connection \$connection; return 200 "peer\\n"; }
EOC

sub front {
    my (%locations) = @_;
    return "$peers server { listen 127.0.0.1:@{[port(0)]}; set \$runs 0; add_header X-Runs \$runs always;\n"
        . "proxy_http_version 1.1; proxy_set_header Connection '';\n"
        . join('', map "location $_ { $locations{$_} }\n", sort keys %locations) . "}\n";
}

sub serve {
    my ($conf) = @_;
    $nginx->stop;
    $nginx->conf($conf);
    $nginx->start;
}

sub get { $nginx->get($_[0], port(0)) }
sub header { $_[0]{head} =~ /^\Q$_[1]\E: (.*?)\r$/m ? $1 : '' }

# The connections that requests go over, by letters in the order of their first use.
sub pattern {
    my %letter;
    return join '', map {
        my $connection = header(get($_), 'X-Connection');
        $letter{$connection} //= chr(ord('a') + keys %letter);
    } @_;
}

# R2. set_timeouts() and pools of connections: with it as without it, a location's connections are
# those that it has without a balancer.
for my $keepalive ("keepalive 8;\n", '') {
    my $set = qq(balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        balancer.set_timeouts(1, 2, tonumber(ngx.var.arg_read))
        balancer.set_current_peer("127.0.0.1", @{[port(1)]})
    });
    serve("upstream lua {\n$set\n$keepalive}\nupstream bare {\nserver $p1;\n$keepalive}\n"
        . front(map { +"/$_/one" => "proxy_pass http://$_;", "/$_/two" => "proxy_pass http://$_;" }
            qw(lua bare)));
    my @requests = ('one?read=5', 'one?read=6', 'one?read=5', 'two?read=5', 'one', 'two?read=7', 'two', 'one');
    my $bare = pattern(map "/bare/$_", @requests);
    is(pattern(map "/lua/$_", @requests), $bare,
        'R2: set_timeouts with ' . ($keepalive ? 'keepalive 8' : 'the default keepalive') . ": $bare");
}

# R4. A status for the client.
serve(<<"EOC" . front('/' => 'proxy_pass http://backend;'));
upstream backend { balancer_by_lua_block { return ngx.exit(tonumber(ngx.var.arg_status)) } }
EOC
is(get("/?status=$_")->{status}, $_, "R4: ngx.exit($_)") for 503, 403, 429;

# R5. A worker that spins for ever.
serve(<<"EOC" . front('/' => 'proxy_pass http://backend;', '/other' => "proxy_pass http://$p1;"));
upstream backend {
    balancer_by_lua_block {
        ngx.ctx.runs = (ngx.ctx.runs or 0) + 1
        ngx.var.runs = ngx.ctx.runs
        if ngx.var.arg_more then
            require("ngx.balancer").set_more_tries(1)
        end
        return ngx.exit(ngx[ngx.var.arg_code])
    }
}
EOC
for my $code (qw(DECLINED BUSY)) {
    my $started = time;
    is(get("/?code=$code")->{status}, 502, "R5: ngx.exit(ngx.$code)");
    is(get("/?code=$code&more=1")->{status}, 502, "R5: ngx.$code with a try more each time");
    is(get('/other')->{status}, 200, 'R5: the worker serves on');
    cmp_ok(time - $started, '<', 5, 'R5: at once');
}

# R7. Several upstreams without a server.
serve(join('', map "upstream $_ { balancer_by_lua_block { if ngx.var.arg_set then "
    . "require('ngx.balancer').set_current_peer('127.0.0.1', @{[port(1)]}) end } }\n", qw(first second third))
    . front(map { +"/$_" => "proxy_connect_timeout 2s; proxy_pass http://$_;" } qw(first second third)));
for my $name (qw(first second third)) {
    my $before = $nginx->logged('no peer set');
    is(get("/$name")->{status}, 500, "R7: no peer set in the $name of three upstreams");
    is($nginx->logged('no peer set'), $before + 1, "R7: $name: noticed");
    is(get("/$name?set=1")->{body}, "peer\n", "R7: $name: with a peer");
}
is($nginx->logged('0.0.0.1'), 0, 'R7: nobody dials 0.0.0.1');

# R8. Parameters of server lines that come after the balancer.
for my $parameter ('max_conns=5', 'backup', 'weight=2', 'max_fails=2', 'fail_timeout=3s', 'down') {
    $nginx->stop;
    $nginx->conf("upstream backend {\nbalancer_by_lua_block { local a }\n"
        . "server $p1 $parameter;\nserver $p2;\n}\n" . front('/' => 'proxy_pass http://backend;'));
    accepts($nginx, "R8: server ... $parameter after balancer_by_lua_block");
    $nginx->start;
    is(get('/')->{body}, "peer\n", "R8: $parameter: it serves");
}

# R9. A dead pooled connection costs a try.
serve(<<"EOC" . front('/' => 'proxy_next_upstream_tries 3; proxy_pass http://backend;'));
upstream backend {
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        ngx.ctx.runs = (ngx.ctx.runs or 0) + 1
        ngx.var.runs = ngx.ctx.runs
        if ngx.ctx.runs == 1 and ngx.var.arg_more then
            balancer.set_more_tries(tonumber(ngx.var.arg_more))
        end
        balancer.set_current_peer("127.0.0.1", ngx.ctx.runs == 1 and @{[port(6)]} or @{[port(4)]})
    }
    keepalive 8;
}
EOC
for my $more (1, 2, 5) {
    my $tries = $more < 2 ? $more + 1 : 3;
    is(get('/')->{body}, "mortal\n", 'R9: a connection for the pool');
    my $answer = get("/?more=$more");
    is($answer->{status}, 502, "R9: it is dead, and so are all others");
    is(header($answer, 'X-Runs'), $tries, "R9: set_more_tries($more), limit 3: $tries tries in all");
}

$nginx->stop;
done_testing();
