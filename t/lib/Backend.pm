package Backend;

# Fills in what most blocks have in common, so that a block shows only what it is about:
#
#   --- balancer   the Lua code of `upstream backend`, which has no server of its own
#   --- upstream   instead of it: all that stands in `upstream backend { }`
#
# Three peers answer on the ports P1, P2 and P3, on 127.0.0.1 and [::1], and on a unix socket:
# "peer 1", which connection it was and how many requests that one has carried. The request tells
# them how to fail: with `s2=503` in it peer 2 answers 503, and with `s2=444` it closes the
# connection without an answer; with `n2=…` it does so for the requests of a connection after the
# first only. Nobody listens on P4, and whoever connects to P5 is never answered.
#
# With `use Backend 'fresh'` each try has a connection of its own, on nginx that pools them by itself
# too. Left out, the request is GET /t and `location /t` passes to the upstream; its answer shows
# $upstream_addr and $upstream_status, and $seen, which Lua may write.

use strict;
use warnings;

use FakePeer;
use Test::Nginx::Socket ();
use Test::Nginx::Util ();

our $silent = FakePeer::silent($ENV{TEST_NGINX_P5}) if $ENV{TEST_NGINX_P5};

my $peers = <<'EOC';
    map $server_addr:$server_port $peer {
        "~:$TEST_NGINX_P1$" 1;
        "~:$TEST_NGINX_P2$" 2;
        "~:$TEST_NGINX_P3$" 3;
        default $server_addr;
    }
    map $peer $asked {
        1 $arg_s1;
        2 $arg_s2;
        3 $arg_s3;
        default $arg_s;
    }
    map $peer $asked_later {
        1 $arg_n1;
        2 $arg_n2;
        3 $arg_n3;
        default $arg_n;
    }
    map $connection_requests $answer {
        1 $asked;
        default $asked$asked_later;
    }
    server {
        listen 127.0.0.1:$TEST_NGINX_P1;
        listen 127.0.0.1:$TEST_NGINX_P2;
        listen 127.0.0.1:$TEST_NGINX_P3;
        listen [::1]:$TEST_NGINX_P1;
        listen [::1]:$TEST_NGINX_P2;
        listen unix:$TEST_NGINX_SERVROOT/peer.sock;
        access_log off;

        location / {
            add_header X-Family $server_addr;
            add_header X-Connection $connection;
            add_header X-Requests $connection_requests;
            add_header X-From $remote_addr;
            add_header X-From-Port $remote_port;
            ANSWERS
            return 200 "peer $peer\n";
        }
    }
EOC
$peers =~ s/ANSWERS/join "\n            ", map "if (\$answer = $_) { return $_"
    . ($_ == 444 ? '; }' : qq( "peer \$peer says $_\\n"; })),
    403, 404, 429, 444, 500, 502, 503, 504/e;

my $connection = '""';

sub import {
    my (undef, $how) = @_;
    $connection = 'close' if ($how // '') eq 'fresh';
}

my $location = <<'EOC';
    location /t {
        set $seen "";
        add_header X-Seen $seen always;
        add_header X-Addr $upstream_addr always;
        add_header X-Status $upstream_status always;
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection CONNECTION;
    }
EOC

# The peers come behind all that a block writes, so that its own lines keep their numbers.
Test::Nginx::Util::add_block_preprocessor(sub {
    my ($block) = @_;

    my $upstream = $block->upstream;
    if (!defined $upstream && defined $block->balancer) {
        $upstream = "balancer_by_lua_block {\n" . $block->balancer . "}\n";
    }
    my $http = defined $block->http_config ? $block->http_config : '';
    $http .= "upstream backend {\n$upstream}\n" if defined $upstream;
    $http = "proxy_set_header Connection close;\n$http" if $connection eq 'close';
    $block->set_value('http_config', $http . $peers);

    $block->set_value('config', $location =~ s/CONNECTION/$connection/r) if !defined $block->config;
    # Test::Nginx knows the ports by their names in most sections, but not in all.
    for my $section (qw(response_headers raw_response_headers_like)) {
        my $value = $block->$section // next;
        $value =~ s/\$(TEST_NGINX_\w+)/$ENV{$1}/g for ref $value ? @$value : $value;
        $block->set_value($section, $value);
    }
    if (!grep { defined $block->$_ } qw(request pipelined_requests raw_request must_die)) {
        $block->set_value('request', 'GET /t');
    }
});

1;
