package Bench::Proc;
# What Linux tells of processes: time, memory, and who else is at work.
use strict;
use warnings;
use Exporter 'import';
use POSIX ();
use Time::HiRes 'sleep';
our @EXPORT = qw(cpu_seconds rss_kb children busy_seconds others);

my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or return '';
    local $/;
    return <$in> // '';
}

# User and system time of a process so far: to the nanosecond where the kernel counts them.
sub cpu_seconds {
    my ($pid) = @_;
    my ($nanoseconds) = slurp("/proc/$pid/schedstat") =~ /^(\d+)/;
    return $nanoseconds / 1e9 if $nanoseconds;
    # The name in parentheses may have spaces in it.
    my ($rest) = slurp("/proc/$pid/stat") =~ /\) (.*)/s or return 0;
    my @field = split ' ', $rest;
    return ($field[11] + $field[12]) / $ticks;
}

sub rss_kb {
    my ($pid) = @_;
    return slurp("/proc/$pid/status") =~ /^VmRSS:\s*(\d+)/m ? $1 : 0;
}

sub children {
    my ($pid) = @_;
    return split ' ', slurp("/proc/$pid/task/$pid/children");
}

# Time that all cores were busy since the machine started.
sub busy_seconds {
    my (undef, $user, $nice, $system, undef, undef, $irq, $softirq) = split ' ', slurp('/proc/stat');
    return ($user + $nice + $system + $irq + $softirq) / $ticks;
}

# Who uses the cores just now, told in one line.
sub others {
    my %before = map { $_ => cpu_seconds($_) } grep { /^\d+$/ } map { s{.*/}{}r } glob '/proc/[0-9]*';
    sleep 1;
    my %used = map { $_ => 100 * (cpu_seconds($_) - $before{$_}) } keys %before;
    my @top = grep { $used{$_} >= 1 && $_ != $$ } sort { $used{$b} <=> $used{$a} } keys %used;
    splice @top, 5 if @top > 5;
    my $load = join ' ', (split ' ', slurp('/proc/loadavg'))[0 .. 2];
    my @names = map { sprintf '%s %.0f %%', slurp("/proc/$_/comm") =~ s/\s+$//r, $used{$_} } @top;
    return "load $load; " . (@names ? 'at work: ' . join(', ', @names) : 'nobody else at work');
}

1;
