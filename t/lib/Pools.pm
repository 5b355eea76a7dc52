package Pools;

# The ways in which connections are kept, and what the peers saw of them.
#
#   for my $way (ways($nginx)) {
#       $nginx->conf(upstream($way, backend => '…Lua…') . '…')->start;
#       my @answers = carried($nginx, '/a', '/b', '/a');
#       is(on(@answers), $way->{keeps} ? 'a1 b1 a2' : 'a1 b1 c1', "$way->{name}: …");
#
# In the Lua code `balancer` is the module, and `keep()` stands for what the way wants to be called
# once the peer is set. A peer answers with `connection=… request=…` and whatever else it saw, as
# $saw has it for a peer that is nginx.

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(ways way upstream carried on seen kept $saw);

# What stands in the answer of a peer that is nginx.
our $saw = 'connection=$connection request=$connection_requests from=$remote_addr';

# From 1.29.7 on, nginx puts its own keepalive around every upstream, wherever it is written and
# also where none is. Before, one that is written before the balancer is under it, and the peers
# that Lua chooses pass it by.
sub ways {
    my ($nginx) = @_;
    my $by_default = $nginx->version >= 1.029007;
    return (
        { name => 'enable_keepalive', keep => 'assert(balancer.enable_keepalive())', keeps => 1 },
        { name => 'keepalive after', after => 'keepalive 16;', keeps => 1 },
        { name => 'keepalive before', before => 'keepalive 16;', keeps => $by_default },
        { name => 'keepalive before, enable_keepalive', before => 'keepalive 16;',
            keep => 'assert(balancer.enable_keepalive())', keeps => 1 },
        { name => 'keepalive after, enable_keepalive', after => 'keepalive 16;',
            keep => 'assert(balancer.enable_keepalive())', keeps => 1 },
        { name => 'nothing', keeps => $by_default },
    );
}

sub way {
    my ($nginx, $name) = @_;
    return (grep $_->{name} eq $name, ways($nginx))[0] // die "no way $name\n";
}

# An upstream{} with this Lua code.
sub upstream {
    my ($way, $name, $lua) = @_;
    my ($before, $after, $keep) = map $_ // '', @$way{qw(before after keep)};
    return <<"EOC";
upstream $name {
    $before
    balancer_by_lua_block {
        local balancer = require "ngx.balancer"
        local function keep()
            $keep
        end
$lua
    }
    $after
}
EOC
}

# Requests one after the other. Each answer has `on`: a letter for its connection on the peers'
# side, in the order of their first use, and the request's number on it, or the status where it is
# not 200; and what the peer saw in `saw`.
sub carried {
    my ($nginx, @paths) = @_;
    my %letter;
    return map {
        my ($path, @headers) = ref $_ ? @$_ : $_;
        my $answer = $nginx->get($path, $ENV{TEST_NGINX_P0}, @headers);
        my %saw = $answer->{body} =~ /(\w+)=(\S*)/g;
        # The answers of t/lib/Peer.pm.
        @saw{qw(protocol connection request)} = ($1, $2, $3)
            if $answer->{body} =~ /^(\w+): .*, connection (\d+), request (\d+)$/;
        $answer->{saw} = \%saw;
        $answer->{on} = $answer->{status};
        if ($answer->{status} == 200 && exists $saw{connection}) {
            my $key = ($saw{protocol} // '') . $saw{connection};
            $letter{$key} = chr(ord('a') + keys %letter) if !exists $letter{$key};
            $answer->{on} = $letter{$key} . $saw{request};
        }
        $answer;
    } @paths;
}

sub on { join ' ', map $_->{on}, @_ }

sub seen {
    my ($what, @answers) = @_;
    return join ' ', map $_->{saw}{$what} // $_->{status}, @answers;
}

# What `on` says of requests of these names (anything; each is a connection's whole identity) when
# connections are kept, and when each request has its own.
sub kept {
    my ($keeps, @names) = @_;
    my (%letter, %count);
    my $n = 0;
    return join ' ', map {
        my $name = $keeps ? $_ : $n++;
        $letter{$name} = chr(ord('a') + keys %letter) if !exists $letter{$name};
        $letter{$name} . ++$count{$name};
    } @names;
}

1;
