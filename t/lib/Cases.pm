package Cases;

# Code in a balancer that does right or wrong as it is asked, a case a request; and whether all of them are
# served by one worker, that of the first request after the start.
#
#   $nginx->conf($directives . backend($lua));  # $lua runs the case that $arg_case names, and chooses port(1)
#   $nginx->start;
#   serves($nginx, 'ok', 'at first');
#   my $log = fails($nginx, 'loop', 'a name');  # what the error log got
#   serves($nginx, 'ok', 'afterwards');

use strict;
use warnings;

use Exporter 'import';
use Nginx;
use Test::More;

our @EXPORT = qw(backend serves fails);

sub backend {
    my ($lua) = @_;
    return <<"EOC";
upstream backend {
    balancer_by_lua_block {
$lua
    }
}
server {
    listen 127.0.0.1:${\port(0)};
    add_header X-Worker \$pid always;
    location / { proxy_pass http://backend; }
}
server { listen 127.0.0.1:${\port(1)}; return 200 "peer one"; }
EOC
}

# The answer, and which worker must have given it. An nginx that was started again has another id.
sub ask {
    my ($nginx, $case) = @_;
    my $answer = $nginx->get("/?case=$case", port(0));
    return ($answer, $nginx->{first_worker}{$nginx->pid} ||= $answer->{worker} || 'of some id');
}

sub serves {
    my ($nginx, $case, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($answer, $worker) = ask($nginx, $case);
    is("$answer->{status} $answer->{body} $answer->{worker}", "200 peer one $worker", $name)
        or diag(substr $nginx->log, -2000);
}

sub fails {
    my ($nginx, $case, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $before = length $nginx->log;
    my ($answer, $worker) = ask($nginx, $case);
    is("$answer->{status} $answer->{worker}", "500 $worker", "$name: $case fails in the same worker");
    return substr $nginx->log, $before;
}

1;
