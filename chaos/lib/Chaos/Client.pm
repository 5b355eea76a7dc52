package Chaos::Client;

# A process that sends requests over some connections and looks at each answer. It tells its parent, a
# line each:
#
#   oldest TIME                 all requests that have no answer yet began after this
#   count NAME NUMBER …         what happened since the last time
#   longest SECONDS             the longest that a request took
#   cut NAME=VALUE …            a connection ended before its answer was complete
#   bad TEXT                    an answer that should have been another one, or none
#   paused                      all are answered, and the connections are closed
#
# and is told `run RATE` and `pause`.

use strict;
use warnings;

use Chaos::Conf '@ways';
use Chaos::Text;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC IPPROTO_TCP TCP_NODELAY);
use Time::HiRes 'time';

# Much longer than all tries and all patience together.
use constant GIVES_UP => 300;

my @weighted = map { my $way = $_; ($way) x $way->{weight} } @ways;

# new NAME, PORT, CONNECTIONS, SEED
sub new {
    my ($class, %options) = @_;
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!\n";
    my $parent = $$;
    my $self = bless { %options, sent => 0, in => '', count => {}, longest => 0, oldest => time }, $class;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM);
        $SIG{PIPE} = 'IGNORE';
        $0 = "chaos: client $self->{name}";
        srand $self->{seed};
        eval { $self->serve($parent, $theirs) };
        warn "client $self->{name}: $@" if $@;
        POSIX::_exit($@ ? 1 : 0);
    }
    $ours->blocking(0);
    @$self{qw(pid control)} = ($pid, $ours);
    return $self;
}

# For the parent: the lines that have come since the last time.
sub lines {
    my ($self) = @_;
    my @lines;
    while (sysread $self->{control}, $self->{in}, 65536, length $self->{in}) { }
    push @lines, $1 while $self->{in} =~ s/^(.*)\n//;
    return @lines;
}

sub tell {
    my ($self, $what) = @_;
    syswrite $self->{control}, "$what\n" or die "client $self->{name} does not listen: $!\n";
}

# The process.

sub say_to_parent {
    my ($self, @words) = @_;
    syswrite $self->{control}, "@words\n" or POSIX::_exit(1);
}

sub serve {
    my ($self, $parent, $control) = @_;
    $self->{control} = $control;
    my @connections = map +{ socket => undef, next => 0 }, 1 .. $self->{connections};
    my ($runs, $rate, $told) = (0, 1, 0);
    my $buffer = '';
    while (getppid == $parent) {
        my $now = time;
        if ($runs) {
            # The pace: each connection has its share of the rate, more or less.
            for my $c (grep !$_->{id} && $_->{next} <= $now, @connections) {
                $self->ask($c);
                $c->{next} = $now + (0.5 + rand) * @connections / $rate;
            }
        }
        my $select = IO::Select->new($control, map $_->{socket}, grep $_->{socket}, @connections);
        my %of = map { $_->{socket} => $_ } grep $_->{socket}, @connections;
        for my $socket ($select->can_read(0.01)) {
            if ($socket == $control) {
                sysread $control, $buffer, 4096, length $buffer or return;
                while ($buffer =~ s/^(\w+) ?(\S*)\n//) {
                    ($runs, my $paused) = $1 eq 'run' ? (1, 0) : (0, 1);
                    $rate = $2 if $runs;
                    $told = 0 if $paused;
                }
                next;
            }
            $self->input($of{$socket});
        }
        $now = time;
        for my $c (grep $_->{id} && $now - $_->{began} > GIVES_UP, @connections) {
            $self->bad($c, 'no answer in ' . GIVES_UP . ' seconds');
            $self->close($c);
        }
        my @asked = grep $_->{id}, @connections;
        if (!$runs && !@asked && !$told) {
            $self->close($_) for @connections;
            $self->report(\@asked);
            $self->say_to_parent('paused');
            $told = 1;
        }
        $self->report(\@asked) if $now - ($self->{reported} // 0) > 0.1;
    }
}

sub report {
    my ($self, $asked) = @_;
    my $oldest = my $now = time;
    $_->{began} < $oldest and $oldest = $_->{began} for @$asked;
    $self->say_to_parent('count', %{ $self->{count} }) if %{ $self->{count} };
    $self->say_to_parent('longest', $self->{longest});
    $self->say_to_parent('oldest', $oldest);
    $self->{count} = {};
    $self->{reported} = $now;
}

sub close {
    my ($self, $c) = @_;
    close $c->{socket} if $c->{socket};
    @$c{qw(socket id worker)} = ();
}

sub pick { $_[rand @_] }

# A request of any of the ways.
sub compose {
    my ($self) = @_;
    my $way = pick(@weighted);
    my $id = "$self->{name}x" . ++$self->{sent};
    my %want = (id => $id, way => $way, size => pick(0, 10, 200, 200, 1000, 1000, 3000, 20_000, rand() < 0.1 ? 200_000 : 500));
    my %arg = (id => $id, first => int rand 3, size => $want{size});
    my %random = (
        decline => sub { rand() < 0.1 ? 1 : undef },
        requests => sub { rand() < 0.3 ? 1 + int rand 5 : undef },
        pool => sub { 'p' . int rand 4 },
        host => sub { 'n' . int(rand 12) . '.chaos.example' },
        cert => sub { pick('one', 'two', undef) },
    );
    for (@{ $way->{args} // [] }) {
        my $value = $random{$_}->() // next;
        $arg{$_} = $value;
    }
    $arg{how} = 'chunked' if rand() < 0.3;
    my $sent = rand() < 0.25 ? pick(10, 500, 5000, 40_000) : 0;
    $want{body} = "$id;" . ($sent || '') . ';' . marked($id, $want{size}) . ";$id\n";
    $want{identity} = join ',', $way->{name}, map $arg{$_} // '', qw(host pool cert);
    $want{host} = $arg{host};
    $want{cert} = $arg{cert} // '';
    my $request = join "\r\n", ($sent ? 'POST' : 'GET') . " /$way->{name}?" . join('&', map "$_=$arg{$_}", sort keys %arg) . ' HTTP/1.1',
        'Host: localhost', "X-Id: $id", $sent ? "Content-Length: $sent" : (), '', '';
    return (\%want, $request . marked($id, $sent));
}

sub ask {
    my ($self, $c) = @_;
    if (!$c->{socket}) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 30);
        return $self->bad($c, "no connection: $!") if !$socket;
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
        @$c{qw(socket port opened requests worker left)} = ($socket, $socket->sockport, time, 0, 0, 1 + int rand 200);
    }
    my ($want, $request) = $self->compose;
    @$c{qw(id want began in)} = ($want->{id}, $want, time, '');
    $c->{requests}++;
    $self->{count}{requests}++;
    # nginx reads at once, so this may wait; a connection that has ended says so when it is read.
    syswrite $c->{socket}, $request;
}

sub input {
    my ($self, $c) = @_;
    my $got = sysread $c->{socket}, $c->{in}, 262_144, length $c->{in};
    if (!$got) {
        $self->cut($c, defined $got ? 'closed' : "$!") if $c->{id};
        return $self->close($c);
    }
    if (!$c->{id}) {
        $self->bad($c, 'an answer that nobody asked for');
        return $self->close($c);
    }
    my $end = index $c->{in}, "\r\n\r\n";
    return if $end < 0;
    my $head = substr $c->{in}, 0, $end + 2;
    my $rest = substr $c->{in}, $end + 4;
    my $body;
    if ($head =~ /^Content-Length: (\d+)\r$/mi) {
        return if length $rest < $1;
        $body = $rest;
    }
    elsif ($head =~ /^Transfer-Encoding: chunked\r$/mi) {
        $body = unchunked($rest);
        return if !defined $body;
    }
    else {
        # Until the end, which is no way for nginx to answer here.
        $self->bad($c, 'an answer without a length', $head);
        return $self->close($c);
    }
    $self->judge($c, $head, $body);
    my $took = time - $c->{began};
    $self->{longest} = $took if $took > $self->{longest};
    $c->{id} = undef;
    return $self->close($c) if $head =~ /^Connection: close\r$/mi || --$c->{left} <= 0;
}

# All the chunks; nothing while the last is not there.
sub unchunked {
    my ($text) = @_;
    my ($body, $at) = ('', 0);
    while (1) {
        my $line = index $text, "\r\n", $at;
        return if $line < 0;
        my $size = hex substr $text, $at, $line - $at;
        return if length $text < $line + 2 + $size + 2;
        if (!$size) { return $body . substr $text, $line + 4 }
        $body .= substr $text, $line + 2, $size;
        $at = $line + 2 + $size + 2;
    }
}

sub judge {
    my ($self, $c, $head, $body) = @_;
    my $want = $c->{want};
    my $way = $want->{way};
    my ($status) = $head =~ m{^HTTP/1\.1 (\d+)} or return $self->bad($c, 'no HTTP', $head);
    my %header = $head =~ /^(X-[\w-]+): (.*)\r$/mg;
    $c->{worker} = $header{'X-Worker'} // 0;
    # One address a try.
    my $tries = () = ($header{'X-Tried'} // '') =~ /[^,]+/g;
    $self->{count}{retries} += $tries - 1 if $tries;
    return $self->failed($c, "status $status", $head) if $status != 200;

    $self->{count}{answers}++;
    my $tls = ($header{'X-Kind'} // '') eq 'tls';
    my %should = ('X-Id' => $want->{id}, 'X-First' => $want->{identity});
    # Without TLS there is no name, so the connection is not one of that name.
    if ($way->{kind} eq 'either' && !$tls) { $_ = join ',', (split /,/)[0] for $should{'X-First'}, $header{'X-First'} }
    $should{'X-Kind'} = $way->{kind} if $way->{kind} ne 'either';
    my ($reused, $resumed) = ($header{'X-Ours'} // '') =~ /^(\d)(\D?)$/;
    if ($tls) {
        $should{'X-Sni'} = $want->{host} // '';
        $should{'X-Client'} = $want->{cert};
        $should{'X-Resumed'} = $resumed // 'nothing';
        $self->{count}{"tls"}++;
        $self->{count}{resumed}++ if ($header{'X-Resumed'} // '') eq 'r';
    }
    for (sort keys %should) {
        my $is = $header{$_} // 'nothing';
        return $self->wrong($c, "$_ is $is, not $should{$_}", $head) if $is ne $should{$_};
    }
    my $further = ($header{'X-Request'} // 0) > 1 ? 1 : 0;
    $self->{count}{reused} += $further;
    return $self->wrong($c, "request $header{'X-Request'} of its connection, and reused=" . ($reused // 'nothing'), $head)
        if $further ne ($reused // '');
    return $self->wrong($c, 'another body: ' . substr($body, 0, 60), $head) if $body ne $want->{body};
}

sub wrong {
    my ($self, $c, $why, $head) = @_;
    $self->{count}{wrong}++;
    $self->bad($c, "wrong answer: $why", $head);
}

sub failed {
    my ($self, $c, $why, $head) = @_;
    $self->{count}{failed}++;
    $self->bad($c, $why, $head);
}

sub bad {
    my ($self, $c, $why, $head) = @_;
    my $way = $c->{want} ? $c->{want}{way}{name} : '-';
    (my $said = $head // '') =~ s/\r\n/ | /g;
    $self->say_to_parent(bad => sprintf '%.3f %s %s after %.3f s on port %d: %s [%s]', time, $c->{id} // '-', $way,
        time - ($c->{began} // time), $c->{port} // 0, $why, substr $said, 0, 600);
}

sub cut {
    my ($self, $c, $why) = @_;
    $self->say_to_parent('cut', "id=$c->{id}", "way=$c->{want}{way}{name}", "port=$c->{port}", "opened=$c->{opened}",
        "began=$c->{began}", 'time=' . time, "requests=$c->{requests}", "worker=$c->{worker}", 'bytes=' . length $c->{in},
        'why=' . $why =~ s/\s+/_/gr);
}

1;
