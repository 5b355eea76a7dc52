#!/usr/bin/perl
# Everything goes wrong at once, and no request may fail that need not; started by chaos/run.
#
# Some seconds of load with all peers well, then troubles of every kind for three quarters of the time,
# then a reload, the same load again, and for the last quarter the peers' troubles alone, so that
# there is a worker that has lived through them and can be compared with itself.
use strict;
use warnings;

use Certificates;
use Chaos::Client;
use Chaos::Conf 'conf';
use Chaos::Front;
use Chaos::Group;
use Chaos::Judge qw(cuts complaints);
use File::Path qw(make_path remove_tree);
use IO::Select;
use Nginx ();
use POSIX ();
use Time::HiRes qw(sleep time);

$| = 1;
my $seconds = $ENV{CHAOS_SECONDS};
my $seed = $ENV{CHAOS_SEED};
my $rate = $ENV{CHAOS_RATE};
my $root = $ENV{TEST_NGINX_SERVROOT};
my $main = $$;

# What a worker may have grown by, in kB.
use constant GROWTH => 3000;

my (@clients, %groups, $front, $ended);

# In the end nothing is left that was started here, whichever way it comes to that.
sub end_all {
    return if $ended || $$ != $main;
    $ended = 1;
    kill KILL => map $_->{pid} // (), @clients, map $_->peers, values %groups;
    $front->end if $front;
    1 while waitpid(-1, POSIX::WNOHANG()) > 0;
}
END {
    my $status = $?;
    end_all();
    $? = $status;
}
$SIG{$_} = sub { print "==> stopped\n"; exit 1 } for qw(INT TERM HUP);
$SIG{PIPE} = 'IGNORE';

# Orphans, which nginx's masters become, are ours to wait for.
my %prctl = (x86_64 => 157, aarch64 => 167, riscv64 => 167, i686 => 172);
my $prctl = $prctl{(POSIX::uname())[4]};
syscall $prctl, 36, 1, 0, 0, 0 if $prctl;

sub say_line { printf "==> %s\n", join '', @_ }

my (%count, @cuts, @bad, $longest, $oldest, %oldest, %paused);
$longest = $oldest = 0;

sub hear {
    for my $client (@clients) {
        for ($client->lines) {
            my ($what, $rest) = split ' ', $_, 2;
            if ($what eq 'oldest') { $oldest{$client->{name}} = $rest }
            elsif ($what eq 'longest') { $longest = $rest if $rest > $longest }
            elsif ($what eq 'paused') { $paused{$client->{name}} = 1 }
            elsif ($what eq 'cut') { push @cuts, { split /[ =]/, $rest } }
            elsif ($what eq 'bad') {
                push @bad, $rest;
                print "    $rest\n" if @bad <= 5;
            }
            elsif ($what eq 'count') {
                my %more = split ' ', $rest;
                $count{$_} += $more{$_} for keys %more;
            }
        }
    }
    $oldest = (sort { $a <=> $b } values %oldest)[0] // 0;
}

# Children that nobody ended: of ours none may, and of nginx's the log tells.
sub reap {
    my %ours = map { $_->{pid} => $_->{name} } grep $_->{pid}, @clients, map $_->peers, values %groups;
    while ((my $pid = waitpid -1, POSIX::WNOHANG()) > 0) {
        die "$ours{$pid} has ended by itself (status $?)\n" if $ours{$pid};
    }
}

my ($began, $told) = (time, time);

sub progress {
    my ($phase) = @_;
    return if time < $told + 5;
    $told = time;
    say_line(sprintf '%3d s, %s: %d requests, %d retries, %d sick peers so far, %d workers killed, %d reloads, %d upgrades; longest %.1f s%s',
        time - $began, $phase, $count{requests} // 0, $count{retries} // 0, sick(), map($front->{count}{$_} // 0,
        qw(workers_killed reloads upgrades)), $longest, @bad ? '; ' . @bad . ' BAD' : '');
}

sub sick {
    my $sick = 0;
    for my $group (values %groups) {
        $_ ne 'guardians' and $sick += $group->{count}{$_} for keys %{ $group->{count} };
    }
    return $sick;
}

# Goes on until `until` says so; each tick does what is given.
sub ticks {
    my ($phase, $until, $tick) = @_;
    while (!$until->()) {
        IO::Select->new(map $_->{control}, @clients)->can_read(0.05);
        hear();
        reap();
        $tick->() if $tick;
        progress($phase);
    }
}

sub for_seconds {
    my ($length) = @_;
    my $end = time + $length;
    return sub { time >= $end };
}

sub within {
    my ($what, $length, $condition) = @_;
    my $end = time + $length;
    return sub { $condition->() || (time >= $end and die "$what: not within $length seconds\n") };
}

sub all_well {
    ticks('healing', within('all peers well', 120, sub { !grep !$_->rest, values %groups }));
    # What they did last is noticed by now.
    ticks('healing', for_seconds(1));
}

sub load {
    my ($name, $length, $tick) = @_;
    $_->tell("run " . $rate / @clients) for @clients;
    ticks($name, for_seconds($length), $tick);
}

sub trouble_peers {
    my $now = time;
    $_->trouble($now, $oldest) for values %groups;
}

# When it is time for each of nginx's troubles.
my (%next, $upgrade_at);
sub trouble_nginx {
    my $now = time;
    if ($front->{upgrade} < 4 && $now >= $upgrade_at) {
        my $more = $front->upgrade_step;
        $next{reload} = $now + 2 if $more;
    }
    if ($now >= $next{reload}) {
        $front->reload;
        $next{reload} = $now + 2;
    }
    if ($now >= $next{kill}) {
        $front->kill_worker;
        $next{kill} = $now + 1 + rand 3;
    }
}

# All requests are answered, all peers well, and nginx's workers at rest: what they have then.
sub at_rest {
    my ($name) = @_;
    %paused = ();
    $_->tell('pause') for @clients;
    ticks('pausing', within('the clients', 300, sub { keys %paused == @clients }));
    my $last = '';
    my $rests = sub {
        my @workers = $front->workers(undef, 1);
        my $now = join ' ', map { my $d = Chaos::Front::descriptors($_); "$_:$d->{tcp}:$d->{unix}:$d->{other}" } @workers;
        my $same = $now eq $last;
        $last = $now;
        return $same && @workers == 2 && $now !~ /:[1-9]\d*:\d+:\d+( |$)/;
    };
    my $end = time + 60;
    ticks('resting', sub { sleep 0.3; $rests->() || time > $end });
    my @workers = map { { pid => $_, %{ Chaos::Front::descriptors($_) }, memory => Chaos::Front::memory_kb($_) } } sort $front->workers(undef, 1);
    push @bad, "$name: not two workers, but " . @workers if @workers != 2;
    push @bad, map "$name: worker $_->{pid} has $_->{tcp} connections left", grep $_->{tcp}, @workers;
    return { name => $name, workers => \@workers, master => Chaos::Front::memory_kb($front->master) };
}

sub most { (sort { $b <=> $a } @_)[0] }

# `after` must be as `before`.
sub compare {
    my ($before, $after) = @_;
    for my $kind (qw(listening unix other)) {
        my ($was, $is) = map { my $at = $_; most(map $_->{$kind}, @{ $at->{workers} }) } $before, $after;
        push @bad, "descriptors ($kind): $is $after->{name}, $was $before->{name}" if $is > $was;
    }
    my ($was, $is) = map { my $at = $_; most(map $_->{memory}, @{ $at->{workers} }) } $before, $after;
    push @bad, "memory of a worker: $is kB $after->{name}, $was kB $before->{name}" if $is > $was + GROWTH;
    push @bad, "memory of the master: $after->{master} kB $after->{name}, $before->{master} kB $before->{name}"
        if $after->{master} > $before->{master} + GROWTH;
}

# Reloads, and waits until all workers are new ones.
sub fresh_workers {
    my @old = $front->workers(undef, 1);
    $front->reload;
    ticks('reloading', within('a reload', 60, sub {
        my %now = map { $_ => 1 } $front->workers(undef, 1);
        keys %now == 2 && !grep $now{$_}, @old;
    }));
}

# A session that was made before a reload is resumed after it, by whichever worker.
sub sessions {
    my $port = $front->{port};
    my $resumed = sub {
        my ($host) = @_;
        my $answer = Nginx->get("/tlstry?id=s&size=0&first=0&host=$host", $port, 'X-Id: s');
        return $answer->{head} =~ /^X-Resumed: (.)\r$/m ? $1 : "status $answer->{status}";
    };
    my @hosts = map "s$_.chaos.example", 1 .. 4;
    my @made = map $resumed->($_), @hosts;
    fresh_workers();
    my @again = map $resumed->($_), @hosts;
    push @bad, "sessions: '@made' when they were made, '@again' after a reload" if "@made @again" ne '. . . . r r r r';
    return "@again" eq 'r r r r';
}

sub table {
    my ($cut, $resumed, @at) = @_;
    my $row = sub { printf "    %-34s %s\n", @_ };
    print "\n";
    $row->(requests => $count{requests});
    $row->('  answered as they should be' => $count{answers} - ($count{wrong} // 0));
    $row->('  over a connection used before' => $count{reused} // 0);
    $row->('  over TLS, of these resumed' => sprintf '%d, %d', map $_ // 0, @count{qw(tls resumed)});
    $row->('retries' => $count{retries} // 0);
    $row->('longest request' => sprintf '%.1f s', $longest);
    for my $name (sort keys %groups) {
        my $group = $groups{$name};
        $row->("$name peers: $_" => $group->{count}{$_}) for grep $_ ne 'guardians', sort keys %{ $group->{count} };
        $row->("$name peers: guardian changed" => $group->{count}{guardians} // 0);
    }
    $row->('nginx: ' . tr/_/ /r => $front->{count}{$_} // 0) for qw(workers_killed reloads upgrades);
    $row->('lost with a killed worker' => $cut->{lost} // 0);
    $row->('truncated by the peer' => $cut->{truncated} // 0);
    $row->('unread by a worker that ended' => $cut->{unread} // 0);
    $row->('failed' => $count{failed} // 0);
    $row->('wrong answers' => $count{wrong} // 0);
    $row->('sessions resumed at the end' => $resumed ? 'yes' : 'NO');
    for my $at (@at) {
        $row->($at->{name} => join '; ', (map "$_->{tcp} connections, " . ($_->{unix} + $_->{listening} + $_->{other})
            . " other descriptors, $_->{memory} kB", @{ $at->{workers} }), "master $at->{master} kB");
    }
    print "\n";
}

sub main {
    say_line("$seconds seconds of trouble, $rate requests/s, SEED=$seed; logs in ", $root =~ s{^\Q$ENV{CHAOS_TOP}\E/}{}r);
    srand $seed;
    remove_tree($root);
    make_path(map "$root/$_", qw(logs tmp));
    my $port = \&Nginx::port;

    my $tls = Certificates->new("$root/tls");
    $tls->issue($_, names => ['*.chaos.example']) for qw(first second third);
    $tls->issue($_) for qw(one two);
    Certificates->new("$root/tls", 'stranger')->issue('untrusted', names => ['*.chaos.example']);

    my @common = (seed => $seed, file => "$root/logs/peers.log");
    $groups{plain} = Chaos::Group->new(name => 'plain',
        peers => [map { name => "p$_", port => $port->($_), path => "$root/p$_.sock", @common }, 1 .. 3]);
    $groups{tls} = Chaos::Group->new(name => 'tls', folder => "$root/tls", certificates => [qw(first second third untrusted)],
        peers => [map { name => "t$_", port => $port->(3 + $_), @common }, 1 .. 3]);
    $front = Chaos::Front->new(root => $root, port => $port->(0),
        conf => sub { conf($root, $port->(0), @groups{qw(plain tls)}, 2 + $_[0] % 7) });
    $front->watch;
    $_->start for values %groups;
    all_well();
    $front->start;
    $front->watch_session;
    @clients = map Chaos::Client->new(name => "c$_", port => $port->(0), connections => 24, seed => $seed + 1000 * $_), 1 .. 2;

    my $warm_up = 4;
    # As the last workers, the first ones that are looked at come from a reload.
    fresh_workers();
    load('warming up', $warm_up);
    my $first = at_rest('first workers');

    my $all = $seconds * 3 / 4;
    @next{qw(reload kill)} = (time + 2, time + 1);
    $upgrade_at = time + $all * (0.3 + rand 0.4);
    load('all troubles', $all, sub { trouble_peers(); trouble_nginx() });
    ticks('upgrading', within('the upgrade', 90, sub { $front->{upgrade} == 4 }),
        sub { trouble_peers(); trouble_nginx() if $front->{upgrade} < 4 });
    all_well();
    at_rest('after all troubles');
    fresh_workers();

    load('warming up', $warm_up);
    my $last = at_rest('last workers');
    load('sick peers', $seconds / 4, \&trouble_peers);
    all_well();
    my $after = at_rest('after sick peers');
    push @bad, 'a worker has ended by itself' if "@{[map $_->{pid}, @{ $last->{workers} }]}" ne "@{[map $_->{pid}, @{ $after->{workers} }]}";
    # A run in which nothing happened shows nothing.
    my %happened = (%count, %{ $front->{count} });
    $happened{$_} or push @bad, "no $_" for qw(answers reused resumed retries workers_killed reloads upgrades);
    compare($first, $last);
    compare($last, $after);
    my $resumed = sessions();
    $front->quit or push @bad, 'nginx does not end';

    my %peers = map { $_->{name} => $_ } map $_->peers, values %groups;
    my ($cut, @unexcused) = cuts(\@cuts, $front, \%peers, "$root/logs/peers.log");
    my @complaints = complaints($front);
    table($cut, $resumed, $first, $last, $after);
    $count{failed} += @unexcused;
    push @bad, @unexcused, @complaints;
    if (@bad) {
        my $most = 40;
        print "    $_\n" for @bad > $most ? (@bad[0 .. $most - 1], '…') : @bad;
        print STDERR "error: ", scalar @bad, " things are not as they must be (SEED=$seed); logs in $root/logs\n";
        return 1;
    }
    say_line('everything is as it must be');
    return 0;
}

exit main();
