package Bench::Client;
# One client connection, one request at a time: what is counted is the work of
# requests, not how many of them nginx happens to find waiting at once.
use strict;
use warnings;
use Exporter 'import';
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes 'sleep';
our @EXPORT = qw(requests get connected);

# connected PORT: a socket, as soon as somebody listens.
sub connected {
    my ($port, $seconds) = @_;
    for (1 .. 20 * ($seconds // 20)) {
        my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port");
        return $socket if $socket;
        sleep 0.05;
    }
    die "nobody listens on port $port\n";
}

sub answer {
    my ($socket) = @_;
    my $got = '';
    while (1) {
        if ($got =~ /^(.*?\r\n)\r\n(.*)/s) {
            my ($head, $body) = ($1, $2);
            my ($length) = $head =~ /^Content-Length: (\d+)/mi or die "no length: $head\n";
            return ($head, $body) if length $body >= $length;
        }
        sysread($socket, $got, 65536, length $got) or die "the connection ended\n";
    }
}

# requests PORT, COUNT: a hash of the bodies that came, and one of a header's values.
sub requests {
    my ($port, $count, $header) = @_;
    my $socket = connected($port);
    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
    my (%body, %value);
    for (1 .. $count) {
        syswrite $socket, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n" or die "write: $!\n";
        my ($head, $body) = answer($socket);
        $head =~ m{^HTTP/1.1 200 } or die "not 200: $head\n";
        $body{$body =~ s/\s+$//r}++;
        $value{$1 // ''}++ if defined $header && $head =~ /^$header: (\S*)/mi;
    }
    return (\%body, \%value);
}

# get PORT, URI: the body, over a connection of its own.
sub get {
    my ($port, $uri) = @_;
    my $socket = connected($port);
    syswrite $socket, "GET $uri HTTP/1.0\r\nHost: bench\r\n\r\n";
    local $/;
    return (<$socket> // '') =~ s/^.*?\r\n\r\n//sr;
}

1;
