package Chaos::Peer;

# A peer: a process of its own that answers over one port (with TLS or without) and, without TLS, over a
# unix socket as well. This is what the others do with it; what goes on in it is Chaos::Server.
#
#   my $peer = Chaos::Peer->new(name => 'p1', port => …, path => …, tls => { cert, key, ca, version });
#   $peer->start;
#   $peer->be('garbage');       # one of %Chaos::Sickness::is
#   $peer->well;                # has it said that it is well again?
#   $peer->kill;

use strict;
use warnings;

use Chaos::Server;
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);
use Time::HiRes 'time';

sub new {
    my ($class, %options) = @_;
    return bless { %options, times => 0, periods => [] }, $class;
}

sub start {
    my ($self) = @_;
    # Made here, so that nobody is refused once this has returned.
    my $server = Chaos::Server->new(map { $_ => $self->{$_} } qw(name port path file tls seed));
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!\n";
    $self->{times}++;
    my $parent = $$;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM);
        $SIG{PIPE} = 'IGNORE';
        $0 = "chaos: peer $self->{name}";
        eval { $server->serve($parent, $theirs, $self->{times}) };
        warn "peer $self->{name}: $@" if $@;
        POSIX::_exit($@ ? 1 : 0);
    }
    $ours->blocking(0);
    @$self{qw(pid control stopped told said)} = ($pid, $ours, 0, 0, '');
    $self->be('well');
}

sub be {
    my ($self, $what) = @_;
    if ($self->{stopped}) {
        CORE::kill CONT => $self->{pid};
        $self->{stopped} = 0;
    }
    $self->note($what);
    if ($what eq 'frozen') {
        CORE::kill STOP => $self->{pid};
        $self->{stopped} = 1;
        return;
    }
    $self->{told}++;
    syswrite $self->{control}, "$what $self->{told}\n" or die "peer $self->{name} does not listen: $!\n";
}

# What it was, and since when, for the judge.
sub note {
    my ($self, $what) = @_;
    push @{ $self->{periods} }, [time, $what];
    $self->{is} = $what;
}

# It says so when all that it was told before is done.
sub well {
    my ($self) = @_;
    return 0 if $self->{is} ne 'well';
    sysread $self->{control}, $self->{said}, 4096, length $self->{said};
    return $self->{said} =~ /(\d+)\n\z/ && $1 == $self->{told};
}

sub kill {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    $self->note('killed');
    CORE::kill KILL => $pid;
    waitpid $pid, 0;
    close delete $self->{control};
}

1;
