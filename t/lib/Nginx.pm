package Nginx;

# An nginx of the test's own, for what Test::Nginx's blocks cannot say: -t, -T, -g, signals, and
# several configurations one after the other.
#
#   my $nginx = Nginx->new;
#   $nginx->conf($http);                    # writes conf/nginx.conf
#   my $run = $nginx->run('-t');            # $run->{code}, $run->{out}: both outputs
#   $nginx->start;
#   my $answer = $nginx->get('/t', port(0));    # {status}, {head}, {body}; {worker} from X-Worker
#   $nginx->reload;
#
# What was started is stopped when the test ends, however it ends.

use strict;
use warnings;

use Exporter 'import';
use File::Path qw(make_path remove_tree);
use Files;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

our @EXPORT = qw(port poll slurp);

my @running;

# The n-th of the ports that only this test file has.
sub port {
    my ($n) = @_;
    return $ENV{"TEST_NGINX_P$n"} // die "no port $n: run the tests with make test\n";
}

# How many seconds anything may take.
our $patience = $ENV{TEST_NGINX_PATIENCE} || 15;

# Asks until the answer is true, and returns it; gives up after some seconds with a false one.
sub poll(&) {
    my ($condition) = @_;
    my $until = time + $patience;
    while (time < $until) {
        my $answer = $condition->();
        return $answer if $answer;
        sleep 0.02;
    }
    return;
}

sub new {
    my ($class, %options) = @_;
    my $root = ($ENV{TEST_NGINX_SERVROOT} // die "run the tests with make test\n")
        . ($options{name} ? "-$options{name}" : '');
    remove_tree($root);
    make_path(map "$root/$_", qw(conf logs tmp));
    return bless { root => $root, level => 'notice', workers => 1, %options }, $class;
}

sub root { $_[0]{root} }

sub write {
    my ($self, $name, $text) = @_;
    my $file = "$self->{root}/$name";
    make_path($file =~ s{/[^/]*$}{}r);
    spit($file, $text);
    return $file;
}

# conf/nginx.conf around what stands in http{}; its first line is line 6 of the file.
sub conf {
    my ($self, $http, %more) = @_;
    my $modules = join ' ', map "load_module $_;", split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $main = $more{main} // '';
    $self->write('conf/nginx.conf', <<"EOC" . $http . "}\n");
$modules
daemon off; worker_processes $self->{workers}; error_log logs/error.log $self->{level}; pid logs/nginx.pid; $main
events { worker_connections 256; }
http {
access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
EOC
    return $self;
}

# The number of the first line of a file under the root that has the text.
sub line {
    my ($self, $text, $name) = @_;
    my $n = 0;
    for (split /^/, slurp("$self->{root}/" . ($name // 'conf/nginx.conf'))) {
        $n++;
        return $n if index($_, $text) >= 0;
    }
    die "no line with $text\n";
}

sub spawn {
    my ($self, @args) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$self->{root}/run.out";
        open STDERR, '>&', \*STDOUT;
        $self->become;
        exec $ENV{TEST_NGINX_BINARY}, '-p', "$self->{root}/", '-e', 'stderr', '-c', 'conf/nginx.conf', @args
            or POSIX::_exit(127);
    }
    return $pid;
}

# The user that nginx is run by, where it is not the test's own (user => 65534).
sub become {
    my ($self) = @_;
    my $user = $self->{user} or return;
    system 'chown', '-R', $user, $self->{root};
    $) = "$user $user";
    POSIX::setgid($user);
    POSIX::setuid($user);
}

# Runs the program to its end.
sub run {
    my ($self, @args) = @_;
    waitpid $self->spawn(@args), 0;
    return { code => $? >> 8, signal => $? & 127, out => slurp("$self->{root}/run.out") };
}

# A reader of the configuration alone.
sub test { $_[0]->run('-t') }

sub start {
    my ($self) = @_;
    unlink map "$self->{root}/logs/$_", qw(nginx.pid error.log);
    my $pid = $self->spawn;
    $self->{running} = $pid;
    push @running, $self;
    # Listening comes before the pid file.
    poll { $self->pid == $pid || waitpid($pid, POSIX::WNOHANG) == $pid };
    $self->pid == $pid or die 'nginx does not start: ', slurp("$self->{root}/run.out"), $self->log;
    return $self;
}

sub pid {
    my ($self) = @_;
    return slurp("$self->{root}/logs/nginx.pid") =~ /^(\d+)$/m ? $1 : 0;
}

# The ids of the workers, once all are at work: the pid file is there before they are, and a cache's
# loader comes and goes.
sub workers {
    my ($self) = @_;
    my $pid = $self->pid;
    my @workers;
    poll {
        @workers = grep { worker($_) } split ' ', slurp("/proc/$pid/task/$pid/children");
        @workers == $self->{workers};
    } or die scalar(@workers) . " workers, not $self->{workers}";
    return @workers;
}

# By its title, in front of which stands the loader that nginx was started through, if any. Valgrind keeps
# titles to itself: there a worker is who waits for events and for connections, which the other children have
# stopped to do before they wait for events.
sub worker {
    my ($pid) = @_;
    my $title = slurp("/proc/$pid/cmdline");
    return $title =~ /(?:^|\0)nginx: worker process/ if $title !~ /--tool=memcheck\0/;
    my @open = map readlink($_) // (), glob "/proc/$pid/fd/*";
    my %listening = map { $_ => 1 } slurp("/proc/$pid/net/tcp") =~ /^ *\d+: \S+ \S+ 0A(?: +\S+){5} +(\d+)/mg;
    return grep(/eventpoll/, @open) && grep { /^socket:\[(\d+)\]$/ && $listening{$1} } @open;
}

sub signal {
    my ($self, $signal) = @_;
    my $pid = $self->pid or die "nginx does not run\n";
    kill $signal, $pid or die "kill -$signal $pid: $!";
}

# Runs `body` with a worker stopped, so that others serve.
sub without {
    my ($self, $worker, $body) = @_;
    kill 'STOP', $worker or die "kill -STOP $worker: $!";
    # Until it sleeps the kernel may wake it for a connection, and nobody else.
    poll { slurp("/proc/$worker/stat") =~ /\) T / };
    my @result = eval { $body->() };
    my $error = $@;
    kill 'CONT', $worker;
    die $error if $error;
    return @result;
}

# Kills a worker and waits until another one is started.
sub replace {
    my ($self, $worker) = @_;
    my $started = $self->logged('start worker process ');
    kill 'KILL', $worker or die "kill -KILL $worker: $!";
    poll { $self->logged('start worker process ') > $started };
}

# Has the configuration read again; the caller polls for what must change.
sub reload { $_[0]->signal('HUP') }

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{running} or return;
    kill 'TERM', $pid;
    poll { waitpid $pid, POSIX::WNOHANG } or kill 'KILL', $pid;
}

sub log { slurp("$_[0]{root}/logs/error.log") }

# All that it said: until its error log is open, nginx speaks to standard error.
sub said { slurp("$_[0]{root}/run.out") . $_[0]->log }

# How often the error log has the text.
sub logged {
    my ($self, $text) = @_;
    return scalar(() = $self->log =~ /\Q$text\E/g);
}

# The version as a number: 1.022001.
sub version {
    my ($self) = @_;
    $self->run('-v')->{out} =~ m{nginx/(\d+)\.(\d+)\.(\d+)} or die "no version\n";
    return sprintf '%d.%03d%03d', $1, $2, $3;
}

# One request over a connection of its own.
sub get {
    my ($self, $path, $port, @headers) = @_;
    return $self->request("GET $path HTTP/1.1", $port, '', 'Connection: close', @headers);
}

# The same in full: a request line, a body, headers.
sub request {
    my ($self, $line, $port, $body, @headers) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 15)
        or die "port $port: $!";
    push @headers, 'Content-Length: ' . length $body if length $body;
    print $socket join "\r\n", $line, 'Host: localhost', @headers, '', $body;
    local $/;
    (my $head, $body) = split /\r\n\r\n/, <$socket> // '', 2;
    my ($status) = ($head // '') =~ m{^HTTP/1\.1 (\d+)};
    ($head, $body) = ($head // '', $body // '');
    $body = dechunk($body) if $head =~ /^Transfer-Encoding: chunked\r?$/mi;
    my ($worker) = "$head\r\n" =~ /^X-Worker: (\d+)\r$/m;
    return { status => $status // 0, head => "$head\r\n", body => $body, worker => $worker // 0 };
}

sub dechunk {
    my ($chunks) = @_;
    my $body = '';
    while ($chunks =~ s/^([0-9a-f]+)\r\n//i) {
        my $size = hex $1 or last;
        $body .= substr $chunks, 0, $size, '';
        $chunks =~ s/^\r\n//;
    }
    return $body;
}

my $test = $$;

END {
    my $status = $?;
    # Not when it is a child of the test that ends.
    if ($$ == $test) { $_->stop for @running }
    $? = $status;
}

1;
