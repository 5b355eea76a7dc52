package Chaos::Front;

# The nginx that is tested: a daemon, since only a daemon's binary can be upgraded; its workers, what they
# have open, and what is done to them.

use strict;
use warnings;

use Files;
use POSIX ();
use Time::HiRes qw(sleep time);

# new ROOT, PORT, CONF: a function that gives the configuration of a number.
sub new {
    my ($class, %options) = @_;
    return bless { %options, generation => 0, killed => [], upgrade => 0, count => {} }, $class;
}

sub write_conf {
    my ($self) = @_;
    spit("$self->{root}/nginx.conf", $self->{conf}->($self->{generation}++));
}

sub start {
    my ($self) = @_;
    $self->write_conf;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$self->{root}/run.out";
        open STDERR, '>&', \*STDOUT;
        exec $ENV{TEST_NGINX_BINARY}, '-p', "$self->{root}/", '-e', "$self->{root}/logs/error.log", '-c', 'nginx.conf' or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    die "nginx does not start:\n", slurp("$self->{root}/run.out"), $self->log if $?;
    my $until = time + 15;
    sleep 0.02 while !$self->master && time < $until;
    # The daemon has a session of its own, which it shares with all that it starts, also by an upgrade.
    $self->{session} = $self->master or die "nginx does not start\n";
    return $self;
}

# Ends what is left of nginx when this process has gone, however it went.
sub watch {
    my ($self) = @_;
    pipe my $read, $self->{watched} or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        POSIX::setsid();
        $0 = 'chaos: watches nginx';
        close $self->{watched};
        $SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
        sysread $read, my $session, 20;     # when nginx runs; nothing when it never did
        sysread $read, my $nothing, 1;      # at the end
        kill KILL => -$session if $session;
        POSIX::_exit(0);
    }
    close $read;
    $self->{watcher} = $pid;
}

sub watch_session {
    my ($self) = @_;
    syswrite $self->{watched}, $self->{session};
}

sub log { slurp("$_[0]{root}/logs/error.log") }

sub master {
    my ($self) = @_;
    return slurp("$self->{root}/logs/nginx.pid") =~ /^(\d+)$/m ? $1 : 0;
}

# Process 0 would be all of us.
sub signal {
    my ($self, $signal, $pid) = @_;
    $pid ||= $self->master || die "nginx has no process number in logs/nginx.pid\n";
    kill $signal => $pid;
    return $pid;
}

sub children { split ' ', slurp("/proc/$_[0]/task/$_[0]/children") }

# Not those that are about to end, unless `all`.
sub workers {
    my ($self, $master, $all) = @_;
    return grep {
        my $title = slurp("/proc/$_/cmdline");
        $title =~ /worker process/ && ($all || $title !~ /shutting down/);
    } children($master || $self->master);
}

# Memory of its own: what is mapped from files depends on what was forked when.
sub memory_kb { slurp("/proc/$_[0]/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : 0 }

# The sockets of a process, by their inodes: { kind, port, remote }. A table of the kernel that changes
# while it is read may leave lines out, so it is read again for what was not found; a socket that has
# been reset is in none.
sub sockets {
    my ($pid) = @_;
    my %sockets = map { (readlink // '') =~ /^socket:\[(\d+)\]/ ? ($1 => undef) : () } glob "/proc/$pid/fd/*";
    for (1 .. 2) {
        for my $file (qw(tcp unix)) {
            open my $in, '<', "/proc/$pid/net/$file" or next;
            while (<$in>) {
                next if / 06 0{8}:/;    # TIME_WAIT, of which there are many
                my @field = split;
                my $inode = $field[$file eq 'tcp' ? 9 : 6] // next;
                next if !exists $sockets{$inode};
                my ($port, $remote) = $file eq 'tcp' ? map hex((split /:/)[1]), @field[1, 2] : ();
                $sockets{$inode} = { port => $port, remote => $remote,
                    kind => $file eq 'unix' ? 'unix' : $field[3] eq '0A' ? 'listening' : 'tcp' };
            }
        }
        last if !grep !$_, values %sockets;
    }
    return values %sockets;
}

# What a process has open, by kind.
sub descriptors {
    my ($pid) = @_;
    my %count = map { $_ => 0 } qw(tcp unix listening other);
    $count{$_ ? $_->{kind} : 'tcp'}++ for sockets($pid);
    $count{other} = grep { (readlink // 'socket:') !~ /^socket:/ } glob "/proc/$pid/fd/*";
    return \%count;
}

# Kills a worker, and notes whose requests go with it. It is stopped before, so that it takes no
# further connection after they are counted.
sub kill_worker {
    my ($self) = @_;
    my @workers = map $self->workers($_), $self->masters;
    my $pid = $workers[rand @workers] // return;
    my $now = time;
    kill STOP => $pid or return;
    my $until = $now + 5;
    sleep 0.001 while slurp("/proc/$pid/stat") !~ /\) [TZ] / && -e "/proc/$pid" && time < $until;
    my %ports = map { $_->{remote} => 1 } grep $_ && ($_->{port} // 0) == $self->{port}, sockets($pid);
    kill KILL => $pid;
    push @{ $self->{killed} }, { pid => $pid, from => $now, to => time, ports => \%ports };
    $self->{count}{workers_killed}++;
}

sub reload {
    my ($self) = @_;
    $self->write_conf;
    $self->signal('HUP');
    $self->{count}{reloads}++;
}

sub masters {
    my ($self) = @_;
    return $self->{upgrade} && $self->{upgrade} < 4 ? (grep -e "/proc/$_", $self->{old}, $self->master) : $self->master;
}

# One step of the upgrade of the binary; true while there are more to come.
sub upgrade_step {
    my ($self) = @_;
    my $now = time;
    my $step = $self->{upgrade};
    if ($step == 0) {
        $self->{old} = $self->signal('USR2');
        @$self{qw(upgrade since)} = (1, $now);
    }
    elsif ($step == 1) {
        # Both serve for a while.
        my $new = $self->master;
        if ($new && $new != $self->{old} && $self->workers($new) >= 2) {
            $self->{both} //= $now;
            return 1 if $now < $self->{both} + 1;
            $self->signal('WINCH', $self->{old});
            @$self{qw(upgrade since)} = (2, $now);
        }
    }
    elsif ($step == 2) {
        if (!$self->workers($self->{old}, 1)) {
            $self->signal('QUIT', $self->{old});
            @$self{qw(upgrade since)} = (3, $now);
        }
    }
    elsif ($step == 3 && !-e "/proc/$self->{old}") {
        $self->{upgrade} = 4;
        $self->{count}{upgrades}++;
        return 0;
    }
    die "the upgrade of the binary stands still at step $step\n" if $now - $self->{since} > 60;
    return 1;
}

# Ends it as an administrator would, and says whether it went.
sub quit {
    my ($self) = @_;
    my $master = $self->signal('QUIT');
    my $until = time + 30;
    while (-e "/proc/$master" && time < $until) {
        waitpid $master, POSIX::WNOHANG();
        sleep 0.05;
    }
    return !-e "/proc/$master";
}

sub end {
    my ($self) = @_;
    kill KILL => -$self->{session} if $self->{session};
    if ($self->{watcher}) {
        close $self->{watched};
        waitpid $self->{watcher}, 0;
    }
}

1;
