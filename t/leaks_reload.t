# Memory and descriptors after many reloads: the master, and each new worker, have what they had in
# the beginning. nginx itself grows a little with reloads, so one without the module is reloaded as
# often beside it.
#
# Some reloads here, with some requests in front of each; a thousand of both with `make leaks`.

use strict;
use warnings;

use lib 't/lib';
use Memory;
use Nginx;
use Test::More;
use Time::HiRes 'time';

plan skip_all => 'AddressSanitizer keeps what is freed, and looks for leaks itself' if ($ENV{STOCK} // '') eq 'sanitize';

my $long = $ENV{LEAKS_RELOADS};
my $reloads = $long // 40;
my $requests = $long ? int(($ENV{LEAKS} // 0) / $long) : 50;
# What comes first: a heap has its shape only after some of them.
my $first = $long ? int($reloads / 10) : 10;

my $upstream = <<'EOC';
upstream backend%d {
    balancer_by_lua_block {
        ngx.ctx.n = 1
        require("ngx.balancer").set_current_peer("127.0.0.1", PORT)
        require("ngx.balancer").enable_keepalive()
    }
    balancer_keepalive 8;
}
EOC
my $plain = 'upstream backend%d { server 127.0.0.1:PORT; keepalive 8; keepalive_requests 100; }';

sub configuration {
    my ($with, $port, $version) = @_;
    my $init = $with ? "init_by_lua_block { version = $version } init_worker_by_lua_block { started = version }\nlua_balancer_ssl_session_cache shared:tls:64k;\n" : '';
    return $init . join('', map sprintf(($with ? $upstream : $plain) =~ s/PORT/$port/r, $_), 1 .. 20) . <<"EOC";
server {
    listen 127.0.0.1:${\port($with ? 0 : 2)};
    add_header X-Version $version always;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    location / { proxy_pass http://backend1; }
}
server { listen 127.0.0.1:$port; return 200 "peer\\n"; }
EOC
}

diag(table_head()) if $long;
my %grown;
for my $with (0, 1) {
    my $name = $with ? 'with the module' : 'nginx alone';
    local $ENV{TEST_NGINX_LOAD_MODULES} = $with ? $ENV{TEST_NGINX_LOAD_MODULES} : '';
    my $nginx = Nginx->new(name => $with ? '' : 'plain');
    my $conf = sub { $nginx->conf(configuration($with, port(1), $_[0])) };
    $conf->(0);
    $nginx->start;
    my $master = $nginx->pid;
    my $worker = poll { child($master) };
    my ($began, $failed, @seen, %statuses) = (time);

    for my $n (1 .. $reloads) {
        $conf->($n);
        my $before = $worker;
        many(port($with ? 0 : 2), $requests, \%statuses);
        $nginx->reload;
        # The one before has gone, and the new one serves.
        if (!poll { $worker = child($master); $worker && $worker != $before }) {
            $failed = "reload $n";
            last;
        }
        my $answer = $nginx->get('/', port($with ? 0 : 2));
        $failed //= "answer $answer->{status} after reload $n" if $answer->{body} ne "peer\n" || $answer->{head} !~ /^X-Version: $n\r$/m;
        push @seen, { master => rss($master), worker => rss($worker), descriptors => descriptors($master), open => descriptors($worker) }
            if $n == $first || $n == $reloads;
    }
    is($failed, undef, "$name: $reloads reloads");
    is(join(' ', keys %statuses), 200, "$name: all answers are 200");
    last if @seen < 2;
    for my $what (qw(master worker)) {
        $grown{$what}[$with] = $seen[1]{$what} - $seen[0]{$what};
        $grown{"$what before"} = $seen[0]{$what};
        diag(table_line("$name: $what", $reloads, $seen[0]{$what}, $seen[1]{$what}, time - $began)) if $long;
    }
    is($seen[1]{descriptors}, $seen[0]{descriptors}, "$name: the master has as many descriptors as before");
    is($seen[1]{open}, $seen[0]{open}, "$name: so has a new worker");
    $nginx->stop;
    unlike($nginx->log, qr/exited on signal|\[alert\]|\[emerg\]|internal error/, "$name: nothing odd in the log");
}

# A VM with the API in it takes some 700 kB.
for my $what (qw(master worker)) {
    my ($plain, $with) = map $_ // 0, @{$grown{$what} // []};
    cmp_ok($with, '<=', ($plain > 0 ? $plain : 0) + allowed($grown{"$what before"} // 0, $long),
        "the $what has no more memory than nginx alone takes ($with kB, alone $plain kB)");
}

done_testing();
