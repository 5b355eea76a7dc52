package FakePeer;

# Peers that do what no nginx does, on a port of the test's own. They go when the test ends.
#
#   my $silent = FakePeer::silent(port(8));     # takes connections and never says anything
#   my $full = FakePeer::full(port(9));         # connections to it are never established
#   my $peer = FakePeer->new(port(7), sub {     # runs once a connection, in a process of its own
#       my ($connection, $number) = @_;
#       while (my $request = $connection->request) {    # {head}, {body}, {line}, {headers}
#           $connection->answer("peer\n", 'X-Number' => $number);
#       }
#   });
#   $peer->requests;                        # what came so far, from all connections, in order
#   $peer->connections;                     # and over which
#
#   # One port for several protocols: a connection goes on to the port of the first pattern that
#   # its first bytes match.
#   FakePeer::switch(port(6), qr/^\x16/ => port(1), qr/^/ => port(2));

use strict;
use warnings;

use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_RCVBUF);

my @running;

sub listener {
    my ($port, %more) = @_;
    return IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1, Listen => 64, %more,
    ) // die "port $port: $!";
}

# The kernel takes connections, and little of what is sent on them; nobody reads it.
sub silent {
    my ($port) = @_;
    my $socket = listener($port);
    setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 4096 or die "SO_RCVBUF: $!";
    return $socket;
}

# The kernel drops what asks for a connection once the queue is full of those that nobody takes.
sub full {
    my ($port) = @_;
    my $socket = listener($port, Listen => 1);
    my @queue = ($socket);
    for (1 .. 16) {
        my $in_queue = IO::Socket::INET->new(
            PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 0.2,
        );
        return \@queue if !$in_queue;
        push @queue, $in_queue;
    }
    die "the queue of port $port does not fill\n";
}

sub switch {
    my ($port, @routes) = @_;
    return FakePeer->new($port, sub {
        my ($client) = @_;
        $client->more or return;
        my ($to) = map $routes[2 * $_ + 1], grep $client->{buffer} =~ $routes[2 * $_], 0 .. $#routes / 2;
        $client->pass_on($to);
    });
}

sub new {
    my ($class, $port, $serve) = @_;
    my $socket = listener($port);
    my $log = File::Temp->new;
    $log->autoflush(1);

    my $parent = $$;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $SIG{CHLD} = 'IGNORE';
        for (my $number = 1; ; $number++) {
            my $client = $socket->accept or next;
            my $child = fork;
            next if !defined $child || $child;
            # A connection that hangs must not outlive the test.
            alarm 60;
            open my $out, '>>', $log->filename or POSIX::_exit(1);
            $out->autoflush(1);
            eval { $serve->(bless({ socket => $client, number => $number, log => $out,
                buffer => '' },
                'FakePeer::Connection'), $number) };
            warn "a fake peer fails: $@" if $@;
            POSIX::_exit(0);
        }
    }
    my $self = bless { pid => $pid, log => $log, parent => $parent }, $class;
    push @running, $self;
    return $self;
}

sub noted {
    my ($self) = @_;
    open my $in, '<', $self->{log}->filename or die $!;
    local $/ = "\0";
    return map { chomp; [split /:/, $_, 2] } <$in>;
}

# The requests so far, each with its body.
sub requests { map $_->[1], $_[0]->noted }

# The numbers of the connections that they came over.
sub connections { map $_->[0], $_[0]->noted }

sub forget { truncate $_[0]{log}->filename, 0 }

END {
    my $status = $?;
    for my $peer (grep $_->{parent} == $$, @running) {
        kill 'KILL', $peer->{pid};
        waitpid $peer->{pid}, 0;
    }
    $? = $status;
}

package FakePeer::Connection;

# More bytes; false at the end.
sub more {
    my ($self) = @_;
    return sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
}

# The next request, its body read by Content-Length; nothing at the end.
sub request {
    my ($self) = @_;
    $self->more or return until $self->{buffer} =~ /\r\n\r\n/;
    $self->{buffer} =~ s/^(.*?)\r\n\r\n//s;
    my $head = $1;
    my ($line, @lines) = split /\r\n/, $head;
    my %headers = map { my ($name, $value) = split /: */, $_, 2; (lc $name => $value) } @lines;

    my $length = $headers{'content-length'} // 0;
    while (length $self->{buffer} < $length) { $self->more or return }
    my $body = substr $self->{buffer}, 0, $length, '';
    syswrite $self->{log}, "$self->{number}:$head\r\n\r\n$body\0";
    return { head => $head, line => $line, headers => \%headers, body => $body };
}

sub write {
    my ($self, $bytes) = @_;
    syswrite $self->{socket}, $bytes;
}

# Passes what has come, and all that will, to another port, and its answers back.
sub pass_on {
    my ($self, $port) = @_;
    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) // return;
    syswrite $server, $self->{buffer};
    my %other = ($self->{socket} => $server, $server => $self->{socket});
    my $both = IO::Select->new($self->{socket}, $server);
    while (1) {
        for my $from ($both->can_read) {
            sysread $from, my $bytes, 65536 or return;
            syswrite $other{$from}, $bytes;
        }
    }
}

# Answers 200 with a body and headers.
sub answer {
    my ($self, $body, @headers) = @_;
    my $head = "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\n";
    $head .= shift(@headers) . ': ' . shift(@headers) . "\r\n" while @headers;
    $self->write("$head\r\n$body");
}

1;
