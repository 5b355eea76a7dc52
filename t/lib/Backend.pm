package Backend;

# Fills in what most blocks have in common, so that a block shows only what it is about:
#
#   --- balancer   the Lua code of `upstream backend`, which has no server of its own
#   --- upstream   instead of it: all that stands in `upstream backend { }`
#
# Three peers answer on the ports P1, P2 and P3, on 127.0.0.1 and [::1], and on a unix socket:
# "peer 1", which connection it was and how many requests that one has carried. Left out, the
# request is GET /t and `location /t` passes to the upstream.

use strict;
use warnings;

use Test::Nginx::Socket ();
use Test::Nginx::Util ();

my $peers = <<'EOC';
    map $server_addr:$server_port $peer {
        "~:$TEST_NGINX_P1$" 1;
        "~:$TEST_NGINX_P2$" 2;
        "~:$TEST_NGINX_P3$" 3;
        default $server_addr;
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
            return 200 "peer $peer\n";
        }
    }
EOC

my $location = <<'EOC';
    location /t {
        proxy_pass http://backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
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
    $block->set_value('http_config', $http . $peers);

    $block->set_value('config', $location) if !defined $block->config;
    if (!grep { defined $block->$_ } qw(request pipelined_requests raw_request must_die)) {
        $block->set_value('request', 'GET /t');
    }
});

1;
