# The parameters of `server` lines, and nginx's own methods, beside a balancer: both orders are read,
# and they do for a request whose Lua sets no peer what they do without a balancer.

use strict;
use warnings;

use lib 't/lib';
use FakePeer;
use Nginx;
use Test::More;
use Verdict;

my $nginx = Nginx->new;
my $slow = FakePeer->new(port(7), sub {
    my ($connection) = @_;
    while ($connection->request) {
        select undef, undef, undef, 0.3;
        $connection->answer("slow\n");
    }
});

my ($p1, $p2, $p3, $dead, $slow_peer) = map '127.0.0.1:' . port($_), 1, 2, 3, 4, 7;

# Sets a peer when the request names one.
my $lua = <<'EOC';
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        if ngx.var.arg_peer then
            assert(balancer.set_current_peer("127.0.0.1", tonumber(ngx.var.arg_peer)))
        end
        if ngx.var.arg_more and not ngx.ctx.again then
            ngx.ctx.again = true
            balancer.set_more_tries(tonumber(ngx.var.arg_more))
        end
    }
EOC

my $peers = <<"EOC";
server {
    listen $p1;
    listen $p2;
    listen $p3;
    add_header X-Port \$server_port;
    add_header X-Requests \$connection_requests;
    location / { return 200 "\$server_port\\n"; }
}
EOC

# A server that passes to each of the upstreams by its name.
sub front {
    my (@names) = @_;
    return $peers . "server {\nlisten 127.0.0.1:@{[port(0)]};\n"
        . "add_header X-Addr \$upstream_addr always; add_header X-Status \$upstream_status always;\n"
        . "proxy_http_version 1.1; proxy_set_header Connection '';\n"
        . join('', map "location /$_/ { proxy_pass http://$_; }\n", @names)
        . "location /page { ssi on; default_type text/html; root html; }\n}\n";
}

sub upstream {
    my ($name, $lines, $order) = @_;
    return "upstream $name {\n" . ($order eq 'after' ? $lua . $lines : $lines . $lua) . "}\n";
}

sub get { $nginx->get($_[0], port(0)) }
sub addr { get($_[0])->{head} =~ /^X-Addr: (.*?)\r$/m ? $1 : '' }

# How often each of the peers answers.
sub count {
    my ($path, $times) = @_;
    my %count;
    $count{addr($path)}++ for 1 .. $times;
    return join ' ', map "$_=$count{$_}", sort keys %count;
}

sub sorted { join ' ', sort @_ }

my $version = $nginx->version;

# What each nginx reads.
{
    my @parameters = ('weight=3', 'max_conns=10', 'max_fails=3', 'fail_timeout=5s', 'backup', 'down');
    for my $parameter (@parameters, 'weight=2 max_conns=5 max_fails=0 fail_timeout=1m') {
        for my $order ('before', 'after') {
            for my $zone ('', "zone shared 128k;\n") {
                $nginx->conf(upstream('lines', "${zone}server $p1 $parameter;\nserver $p2;\n", $order)
                    . front('lines'));
                accepts($nginx, "server ... $parameter $order the balancer" . ($zone && ', zone'));
            }
        }
    }
}

# A host name that is resolved while nginx runs.
SKIP: {
    skip 'no resolve here', 4 if $version < 1.027003;
    for my $order ('before', 'after') {
        $nginx->conf("resolver 127.0.0.1:@{[port(9)]};\n"
            . upstream('lines', "zone shared 128k;\nserver localhost:@{[port(1)]} resolve;\nserver $p2;\n",
                $order) . front('lines'));
        accepts($nginx, "server ... resolve $order the balancer");
        $nginx->start;
        is(addr("/lines/?peer=@{[port(3)]}"), $p3, "resolve $order: Lua's peer is taken");
        $nginx->stop;
    }
}

# What they do.
for my $order ('before', 'after') {
    my %lines = (
        weight => "server $p1 weight=3;\nserver $p2;\n",
        down => "server $p1 down;\nserver $p2;\n",
        backup => "server $p1;\nserver $p2 backup;\n",
        dead_backup => "server $dead;\nserver $p2 backup;\n",
        fails => "server $dead max_fails=1 fail_timeout=1m;\nserver $p1 max_fails=1 fail_timeout=1m;\n",
        two_fails => "server $dead max_fails=2 fail_timeout=1m;\nserver $p1;\n",
        all_dead => "server $dead max_fails=0;\nserver $dead max_fails=0;\n",
        conns => "server $slow_peer max_conns=1 weight=100;\nserver $p1;\n",
    );
    $nginx->write('html/page', join '', map "<!--# include virtual=\"/conns/?$_\" -->", 1 .. 3);
    for my $zone ('', 'zone') {
        my $where = "$order the balancer" . ($zone && ', zone');
        $nginx->conf(join('', map upstream($_, ($zone && "zone $_ 128k;\n") . $lines{$_}, $order),
            sort keys %lines) . front(sort keys %lines));
        $nginx->start;

        is(count('/weight/', 8), "$p1=6 $p2=2", "weight $where");
        is(count('/down/', 4), "$p2=4", "down $where");
        is(count('/backup/', 4), "$p1=4", "backup $where: it waits");
        is(addr('/dead_backup/'), "$dead, $p2", "backup $where: it helps");
        is(sorted(map addr('/fails/'), 1 .. 4), sorted("$dead, $p1", ($p1) x 3),
            "max_fails=1 $where: a dead server is left alone");
        is(scalar(grep /\Q$dead\E/, map addr('/two_fails/'), 1 .. 6), 2, "max_fails=2 $where");
        {
            my $answer = get('/all_dead/');
            is($answer->{status}, 502, "all dead $where");
            like($answer->{head}, qr/^X-Status: 502, 502\r$/m, "all dead $where: each was tried");
            # Round robin has none to offer for the third.
            like(get('/all_dead/?more=2')->{head}, qr/^X-Status: 502, 502, 502\r$/m,
                "all dead $where: none twice");
        }
        is(get('/page')->{body}, "slow\n@{[port(1)]}\n@{[port(1)]}\n",
            "max_conns=1 $where: one at a time");

        for my $name (sort keys %lines) {
            is(count("/$name/?peer=@{[port(3)]}", 3), "$p3=3", "$name $where: Lua's peer");
        }
        $nginx->stop;
    }
}

# The failures of Lua's peers are not those of the server lines.
$nginx->conf(upstream('lines', "server $p1 max_fails=1 fail_timeout=1m;\n", 'before') . front('lines'));
$nginx->start;
is(get("/lines/?peer=@{[port(4)]}")->{status}, 502, 'a dead peer of Lua') for 1 .. 3;
is(addr('/lines/'), $p1, 'does not count for the server line');
$nginx->stop;

# nginx's own methods: with a balancer that sets no peer they choose as they do without one.
for my $method ('hash $arg_key', 'hash $arg_key consistent', 'ip_hash', 'least_conn', 'random',
    'random two least_conn')
{
    my $servers = "server $p1;\nserver $p2;\nserver $p3;\n";
    for my $order ('before', 'after') {
        $nginx->conf("upstream bare {\n$method;\n$servers}\n"
            . ($order eq 'before' ? upstream('lines', "$method;\n$servers", $order)
                : "upstream lines {\n$servers$lua$method;\n}\n")
            . upstream('dead', "$method;\nserver $dead;\nserver $p1;\n", $order)
            . front('bare', 'lines', 'dead'));
        accepts($nginx, "$method $order the balancer");
        $nginx->start;
        if ($method =~ /random/) {
            like(addr("/lines/?key=$_"), qr/^127\.0\.0\.1:\d+$/, "$method $order: a server") for 1 .. 3;
        } else {
            my ($bare, $lines) = map {
                my $name = $_;
                join ' ', map addr("/$name/?key=$_"), 1 .. 12
            } qw(bare lines);
            is($lines, $bare, "$method $order: the servers that it chooses without a balancer");
        }
        is(count("/lines/?peer=@{[port(3)]}", 3), "$p3=3", "$method $order: Lua's peer");
        is(scalar(grep $_->{status} == 200, map get("/dead/?key=$_"), 1 .. 6), 6,
            "$method $order: on to the next server");
        $nginx->stop;
    }
}

# Sticky sessions, on the nginx that has them.
$nginx->conf("upstream bare {\nserver $p1;\nsticky cookie it;\n}\n" . front('bare'));
SKIP: {
    skip 'no sticky here', 10 if $nginx->test->{code};
    for my $order ('before', 'after') {
        my $servers = "server $p1;\nserver $p2;\n";
        $nginx->conf(upstream('lines', "${servers}sticky cookie it;\n", $order) . front('lines'));
        accepts($nginx, "sticky $order the balancer");
        $nginx->start;
        my $first = get('/lines/');
        my ($cookie) = $first->{head} =~ /^Set-Cookie: (it=[^;\r]+)/m;
        ok($cookie, "sticky $order: the cookie is there");
        my ($chosen) = $first->{head} =~ /^X-Addr: (.*?)\r$/m;
        my %seen = map { ($nginx->get('/lines/', port(0), "Cookie: $cookie")->{head}
            =~ /^X-Addr: (.*?)\r$/m)[0] => 1 } 1 .. 6;
        is("@{[keys %seen]}", $chosen, "sticky $order: and holds");
        is(count("/lines/?peer=@{[port(3)]}", 3), "$p3=3", "sticky $order: Lua's peer");
        is(($nginx->get("/lines/?peer=@{[port(3)]}", port(0), "Cookie: $cookie")->{head}
            =~ /^X-Addr: (.*?)\r$/m)[0], $p3, "sticky $order: also with the cookie");
        $nginx->stop;
    }
}

done_testing();
