package Memory;

# What a process has: memory, descriptors, children; many requests for it; and how the tests of memory
# tell of it.

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET;
use Nginx;

our @EXPORT = qw(rss descriptors child many allowed table_head table_line);

# Resident memory, in kB.
sub rss { slurp("/proc/$_[0]/status") =~ /^VmRSS:\s+(\d+) kB/m ? $1 : die "no process $_[0]\n" }

sub descriptors { scalar(() = glob "/proc/$_[0]/fd/*") }

# The worker of a master, when there is just one.
sub child {
    my ($master) = @_;
    my @children = split ' ', slurp("/proc/$master/task/$master/children");
    return @children == 1 ? $children[0] : 0;
}

# Sends requests over connections that carry 25 of them at a time, or one each, and are closed after
# some hundred. Counts the answers by status.
sub many {
    my ($port, $count, $statuses, %more) = @_;
    my $body = $more{body} // '';
    my $request = ($body ? 'POST' : 'GET') . " / HTTP/1.1\r\nHost: localhost\r\n"
        . ($body && 'Content-Length: ' . length($body) . "\r\n") . "\r\n$body";
    my ($connections, $batch, $rounds) = $more{one_each} ? (10, 1, 1) : (4, 25, 20);
    local $SIG{ALRM} = sub { die "no answer\n" };
    while ($count > 0) {
        my @sockets = map IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 15) // die("connect: $!"),
            1 .. $connections;
        for (1 .. $rounds) {
            last if $count <= 0;
            syswrite $_, $request x $batch for @sockets;
            for my $socket (@sockets) {
                my ($buffer, @got) = ('');
                alarm 4 * $Nginx::patience;
                while (@got < $batch) {
                    sysread $socket, $buffer, 65536, length $buffer or die 'closed after ' . @got . " of $batch answers\n";
                    @got = $buffer =~ m{HTTP/1\.1 (\d+)}g;
                }
                alarm 0;
                $statuses->{$_}++ for @got;
                $count -= $batch;
            }
        }
    }
}

# How much more memory than `before` is none: 2 % where there are many requests. Few of them may
# still meet memory that is used for the first time; 200 kB are 20 bytes a request of 10,000.
sub allowed {
    my ($before, $long) = @_;
    my $part = int($before * 0.02);
    return $long || $part > 200 ? $part : 200;
}

sub table_head { sprintf '%-44s %9s %11s %11s %8s %7s', 'feature', 'requests', 'kB at 1/10', 'kB at end', 'growth', 'seconds' }

sub table_line {
    my ($name, $count, $before, $after, $seconds) = @_;
    return sprintf '%-44s %9d %11d %11d %+7.2f%% %7d', $name, $count, $before, $after, 100 * ($after - $before) / $before, $seconds;
}

1;
