package Peer;

# Peers that speak what nginx itself cannot serve: FastCGI, uwsgi, SCGI and memcached's protocol.
#
#   Peer::start(fastcgi => port(3));
#
# Each answers a request with one line that tells what arrived and over which connection:
#
#   fastcgi: POST /t?a=b [the body], connection 2, request 1
#
# With `tls => {…}`, arguments for IO::Socket::SSL, it speaks TLS, and a line more says how the
# handshake went: `reused=r`, or a dot for a full one.
#
# With `status => '503 No'` it answers with that, and with `log => $file` all of each request goes into a
# file: its variables as lines `NAME: value`, an empty line, the body, a NUL.
#
# A connection has a process of its own; all end with the test.

use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();

my %serve = (fastcgi => \&fastcgi, uwsgi => \&uwsgi, scgi => \&scgi, memcached => \&memcached);
my @groups;

# What a connection's process adds to each answer, how it answers, and where it writes requests.
my ($more, $status, $log) = ('', '200 OK');

sub start {
    my ($protocol, $port, %more) = @_;
    my $serve = $serve{$protocol} or die "no protocol $protocol\n";
    # It listens before it is needed: nobody has to wait for it.
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 16, ReuseAddr => 1)
        or die "port $port: $!";

    # Made once: a context of its own would give each connection's tickets keys of their own.
    my $context;
    if ($more{tls}) {
        require IO::Socket::SSL;
        $context = IO::Socket::SSL::SSL_Context->new({ %{$more{tls}}, SSL_server => 1, SSL_session_id_context => 'peer' })
            or die "TLS: $IO::Socket::SSL::SSL_ERROR";
    }

    my $pid = fork // die "fork: $!";
    if ($pid) {
        POSIX::setpgid($pid, $pid);
        push @groups, $pid;
        return;
    }
    POSIX::setpgid(0, 0);
    $SIG{CHLD} = 'IGNORE';
    $status = $more{status} // $status;
    open $log, '>>', $more{log} or die "$more{log}: $!" if $more{log};
    my $number = 0;
    while (my $connection = $listen->accept) {
        $number++;
        if (!(fork // die "fork: $!")) {
            if ($context) {
                $connection = IO::Socket::SSL->start_SSL($connection, SSL_server => 1, SSL_reuse_ctx => $context)
                    or POSIX::_exit(0);
                $more = "reused=" . ($connection->get_session_reused ? 'r' : '.') . "\n";
            }
            $serve->($connection, $number);
            close $connection;
            POSIX::_exit(0);
        }
        close $connection;
    }
    POSIX::_exit(0);
}

my $test = $$;

END {
    my $status = $?;
    # Not when it is a child of the test that ends.
    if ($$ == $test) {
        kill 'KILL', map -$_, @groups;
        waitpid $_, 0 for @groups;
    }
    $? = $status;
}

# Exactly so many bytes; the connection's process ends when they do not come.
sub take {
    my ($connection, $size) = @_;
    my $data = '';
    while (length $data < $size) {
        sysread($connection, $data, $size - length $data, length $data) or POSIX::_exit(0);
    }
    return $data;
}

# Up to and including a mark.
sub take_until {
    my ($connection, $mark) = @_;
    my $data = '';
    $data .= take($connection, 1) until substr($data, -length $mark) eq $mark;
    return $data;
}

sub give {
    my ($connection, $data) = @_;
    while (length $data) {
        my $size = syswrite($connection, $data) or POSIX::_exit(0);
        substr $data, 0, $size, '';
    }
}

sub told {
    my ($protocol, $vars, $body, $number, $request) = @_;
    syswrite $log, join('', map("$_: $vars->{$_}\n", sort keys %$vars), "\n$body\0") if $log;
    $body = length($body) . ' bytes' if length $body > 1000;
    return "$protocol: $vars->{REQUEST_METHOD} $vars->{REQUEST_URI} [$body], connection $number, request $request\n$more";
}

sub fastcgi {
    my ($connection, $number) = @_;
    for (my $request = 1; ; $request++) {
        my ($params, $body, $keep, $id) = ('', '', 0, 0);
        while (1) {
            (my ($type, $size, $padding));
            (undef, $type, $id, $size, $padding) = unpack 'CCnnC', take($connection, 8);
            my $data = take($connection, $size);
            take($connection, $padding);
            if ($type == 1) { $keep = (unpack 'nC', $data)[1] & 1 }
            elsif ($type == 4) { $params .= $data }
            elsif ($type == 5) { $body .= $data; last if !$size }
        }
        my %vars;
        while (length $params) {
            my @sizes;
            for (1, 2) {
                my $size = unpack 'C', $params;
                my $wide = $size & 0x80;
                $size = $wide ? unpack('N', $params) & 0x7fffffff : $size;
                substr $params, 0, $wide ? 4 : 1, '';
                push @sizes, $size;
            }
            my $name = substr $params, 0, $sizes[0], '';
            $vars{$name} = substr $params, 0, $sizes[1], '';
        }
        my $text = "Status: $status\r\nContent-Type: text/plain\r\n\r\n" . told('fastcgi', \%vars, $body, $number, $request);
        my $padding = -length($text) % 8;
        give($connection, pack('CCnnCC', 1, 6, $id, length $text, $padding, 0) . $text . "\0" x $padding
            . pack('CCnnCC', 1, 6, $id, 0, 0, 0)
            . pack('CCnnCC', 1, 3, $id, 8, 0, 0) . pack('NCC3', 0, 0, 0, 0, 0));
        return if !$keep;
    }
}

sub uwsgi {
    my ($connection, $number) = @_;
    my (undef, $size) = unpack 'CvC', take($connection, 4);
    my %vars = unpack '(v/a)*', take($connection, $size);
    my $body = take($connection, $vars{CONTENT_LENGTH} || 0);
    give($connection, "HTTP/1.1 $status\r\nContent-Type: text/plain\r\n\r\n" . told('uwsgi', \%vars, $body, $number, 1));
}

sub scgi {
    my ($connection, $number) = @_;
    my $size = take_until($connection, ':');
    chop $size;
    my %vars = unpack '(Z*)*', take($connection, $size);
    take($connection, 1);
    my $body = take($connection, $vars{CONTENT_LENGTH} || 0);
    give($connection, "Status: $status\r\nContent-Type: text/plain\r\n\r\n" . told('scgi', \%vars, $body, $number, 1));
}

sub memcached {
    my ($connection, $number) = @_;
    for (my $request = 1; ; $request++) {
        my ($key) = take_until($connection, "\r\n") =~ /^get (\S+)\r\n$/ or last;
        my $text = "memcached: get $key, connection $number, request $request\n";
        give($connection, "VALUE $key 0 " . length($text) . "\r\n${text}\r\nEND\r\n");
    }
}

1;
