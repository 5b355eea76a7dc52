package Bench::Nginx;
# An nginx of the bench: its configuration in a server root of its own, started,
# asked and stopped.
use strict;
use warnings;
use File::Path qw(make_path remove_tree);
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);
use Bench::Client;
use Bench::Proc;

my $cores = () = Bench::Proc::slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;

# The front has a core of its own where there are two; all else shares the other ones.
sub pinned {
    my ($role, @command) = @_;
    return @command if $cores < 2;
    return ('taskset', '-c', $role eq 'front' ? 0 : '1-' . ($cores - 1), @command);
}

# free_ports COUNT: ports that nobody has, below those the kernel gives to clients.
my $next = 14000 + $$ % 4000;
sub free_ports {
    my ($count) = @_;
    my @ports;
    while (@ports < $count) {
        my $port = $next++;
        push @ports, $port if IO::Socket::INET->new(LocalAddr => "0.0.0.0:$port", Listen => 1, ReuseAddr => 1);
    }
    return @ports;
}

# new NAME, ROLE, CONF: CONF is a hash: main, connections, log, http.
sub new {
    my ($class, $name, $role, $conf) = @_;
    my $dir = "$ENV{BENCH_RUN}/$name";
    remove_tree($dir);
    make_path("$dir/logs");
    my $main = $conf->{main} // '';
    my $connections = $conf->{connections} // 2048;
    my $level = $conf->{log} // 'error';
    my $temp = join '', map { "    ${_}_temp_path $dir/$_;\n" }
        qw(client_body proxy fastcgi uwsgi scgi);
    open my $out, '>', "$dir/nginx.conf" or die "$dir/nginx.conf: $!\n";
    print $out <<"CONF";
${main}worker_processes 1;
error_log logs/error.log $level;
pid nginx.pid;
events {
    worker_connections $connections;
}
http {
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 600s;
$temp$conf->{http}}
CONF
    close $out or die "$dir/nginx.conf: $!\n";
    return bless { name => $name, role => $role, dir => $dir }, $class;
}

sub command {
    my ($self, @more) = @_;
    my $nginx = $self->{role} eq 'back' ? $ENV{BENCH_PEERS} : $ENV{BENCH_NGINX};
    return ((split ' ', $nginx), '-p', $self->{dir}, '-c', "$self->{dir}/nginx.conf", '-e', 'logs/start.log', @more);
}

sub run {
    my ($self, @command) = @_;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        chdir $self->{dir};
        open STDOUT, '>>', 'logs/out.log';
        open STDERR, '>&', \*STDOUT;
        exec @command or POSIX::_exit(127);
    }
    return $pid;
}

sub failed {
    my ($self, $what) = @_;
    my @lines = split /\n/, $self->log;
    splice @lines, 5;
    die "$self->{name}: $what" . join('', map { "\n    $_" } @lines) . "\n";
}

# As people run it: a master and a worker.
sub start {
    my ($self) = @_;
    waitpid $self->run(pinned($self->{role}, $self->command)), 0;
    $self->failed('nginx does not start') if $?;
    $self->{master} = Bench::Proc::slurp("$self->{dir}/nginx.pid") + 0;
    return $self;
}

# As one process, under a tool, with nothing left to chance.
sub start_under {
    my ($self, @tool) = @_;
    local $ENV{LD_PRELOAD} = $ENV{BENCH_PRELOAD};
    $self->{single} = $self->run(@tool, $self->command('-g', 'daemon off; master_process off;'));
    return $self;
}

# The worker that serves now; an old one may still be on its way out.
sub worker {
    my ($self) = @_;
    for (1 .. 200) {
        my @workers = children($self->{master});
        return $workers[-1] if @workers;
        sleep 0.01;
    }
    $self->failed('there is no worker');
}

sub stop {
    my ($self) = @_;
    if (my $pid = delete $self->{single}) {
        # A signal that comes just before epoll_wait() wakes nobody.
        while (waitpid($pid, WNOHANG) == 0) {
            kill QUIT => $pid;
            sleep 0.1;
        }
    }
    if (my $pid = delete $self->{master}) {
        my $n = 0;
        while (kill 0 => $pid) {
            # One that comes while nginx still starts is not seen either.
            kill TERM => $pid if $n++ % 20 == 0;
            sleep 0.01;
        }
    }
}

sub DESTROY { local $?; local $@; $_[0]->stop }

sub log {
    my ($self) = @_;
    my $dir = $self->{dir};
    return join '', map { Bench::Proc::slurp("$dir/logs/$_") } qw(error.log start.log out.log);
}

# What nginx complained of while it served.
sub errors { Bench::Proc::slurp("$_[0]{dir}/logs/error.log") }

# How long nginx -t takes.
sub check_seconds {
    my ($self) = @_;
    my $start = time;
    waitpid $self->run(pinned($self->{role}, $self->command('-t'))), 0;
    my $took = time - $start;
    $self->failed('nginx -t fails') if $?;
    return $took;
}

# How long a reload takes until a new worker is there.
sub reload_seconds {
    my ($self) = @_;
    $self->worker;
    sleep 0.1;
    my %old = map { $_ => 1 } children($self->{master});
    my $start = time;
    kill HUP => $self->{master};
    while (time - $start < 60) {
        return time - $start if grep { !$old{$_} } children($self->{master});
        sleep 0.001;
    }
    $self->failed('no new worker after a reload');
}

1;
