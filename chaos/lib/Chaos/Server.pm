package Chaos::Server;

# What goes on in a peer's process. It says which request it answers, over which connection, and what it
# knows of the TLS; and it is as sick as it is told to be.
#
# A request is /way?id=ID&size=N with the id in X-Id and all along its body. The answer has the id of
# each of the three, so that a mix of two requests is seen whatever is mixed.

use strict;
use warnings;

use Chaos::Sickness;
use Chaos::Text;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::SSL ();
use IO::Socket::UNIX;
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);
use Time::HiRes 'time';

# new NAME, PORT, PATH, FILE for its log, TLS, SEED: listens from now on.
sub new {
    my ($class, %options) = @_;
    my $self = bless { %options }, $class;
    $self->listen;
    return $self;
}

sub listen {
    my ($self) = @_;
    my @sockets = (IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $self->{port}, ReuseAddr => 1, Listen => 512)
        // die "port $self->{port}: $!\n");
    if ($self->{path}) {
        unlink $self->{path};
        push @sockets, IO::Socket::UNIX->new(Local => $self->{path}, Listen => 512) // die "$self->{path}: $!\n";
        chmod 0777, $self->{path};
    }
    $_->blocking(0) for @sockets;
    $self->{listen} = \@sockets;
}

# Until the parent has gone.
sub serve {
    my ($self, $parent, $control, $times) = @_;
    srand $self->{seed} + $times;
    $self->{times} = $times;
    open $self->{log}, '>>', $self->{file} or die "$self->{file}: $!";
    $self->{log}->autoflush(1);
    if (my $tls = $self->{tls}) {
        $self->{context} = IO::Socket::SSL::SSL_Context->new(
            SSL_server => 1, SSL_cert_file => $tls->{cert}, SSL_key_file => $tls->{key}, SSL_ca_file => $tls->{ca},
            SSL_version => $tls->{version}, SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_PEER(),
        ) // die "no TLS context: $IO::Socket::SSL::SSL_ERROR";
        # A session that is resumed keeps the name only if somebody has looked at it.
        Net::SSLeay::CTX_set_tlsext_servername_callback($self->{context}{context}, sub { 0 });
    }
    @$self{qw(sick number connections timers)} = (Chaos::Sickness->new('well'), 0, {}, []);
    my $buffer = '';
    while (getppid == $parent) {
        my $reads = IO::Select->new($control);
        $reads->add(@{ $self->{listen} }) if !$self->{sick}{refuses};
        my @connections = values %{ $self->{connections} };
        $reads->add(map $_->{socket}, @connections) if !$self->{sick}{deaf};
        my $writes = IO::Select->new(map $_->{socket}, grep length $_->{out} && !$_->{waits}, @connections);
        my ($readable, $writable) = IO::Select->select($reads, $writes, undef, $self->soon);
        for my $socket (@{ $writable // [] }) {
            my $c = $self->{connections}{fileno $socket} or next;
            $self->flush($c);
        }
        for my $socket (@{ $readable // [] }) {
            if ($socket == $control) {
                sysread $control, $buffer, 4096, length $buffer or return;
                while ($buffer =~ s/^(\w+) (\d+)\n//) {
                    $self->turn($1);
                    syswrite $control, "$2\n";
                }
                last;   # which sockets are asked may be others now
            }
            my $fd = fileno $socket // next;
            if (my $c = $self->{connections}{$fd}) { $self->input($c) }
            else { $self->accept($socket) }
        }
        $self->timers;
    }
}

sub turn {
    my ($self, $what) = @_;
    my $refused = $self->{sick}{refuses};
    $self->{sick} = Chaos::Sickness->new($what);
    if ($self->{sick}{refuses} && !$refused) {
        close $_ for @{ $self->{listen} };
        unlink $self->{path} if $self->{path};
    }
    if ($refused && !$self->{sick}{refuses}) {
        $self->listen;
    }
    # What was held back is said late.
    if (!$self->{sick}{mute}) {
        $self->answer_next($_) for values %{ $self->{connections} };
    }
}

# Timers: [when, connection, what to do]; those of a connection that is gone are without effect.
sub later {
    my ($self, $seconds, $c, $do) = @_;
    push @{ $self->{timers} }, [time + $seconds, $c, $do];
}

sub soon {
    my ($self) = @_;
    my $soon = 0.5;
    my $now = time;
    for (@{ $self->{timers} }) {
        my $left = $_->[0] - $now;
        $soon = $left if $left < $soon;
    }
    return $soon > 0 ? $soon : 0;
}

sub timers {
    my ($self) = @_;
    my $now = time;
    my @due = grep $_->[0] <= $now, @{ $self->{timers} } or return;
    $self->{timers} = [grep $_->[0] > $now, @{ $self->{timers} }];
    for (@due) {
        my (undef, $c, $do) = @$_;
        $do->($c) if !$c->{gone};
    }
}

sub accept {
    my ($self, $listen) = @_;
    my $socket = $listen->accept or return;
    $socket->blocking(0);
    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1 if $socket->isa('IO::Socket::INET');
    my $c = { socket => $socket, raw => $socket, in => '', out => '', queue => [], requests => 0, ready => !$self->{context},
        number => $self->{number}++ };
    if ($self->{context}) {
        if ($self->{sick}->chance('plain')) {
            # Not what a client of TLS waits for.
            syswrite $socket, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno TLS here\n";
            close $socket;
            return;
        }
        $c->{socket} = IO::Socket::SSL->start_SSL($socket, SSL_server => 1, SSL_startHandshake => 0,
            SSL_reuse_ctx => $self->{context}) or return close $socket;
    }
    $self->{connections}{fileno $c->{socket}} = $c;
}

sub shake {
    my ($self, $c) = @_;
    my $ssl = $c->{socket};
    if ($ssl->accept_SSL) {
        $c->{ready} = 1;
        $c->{sni} = $ssl->get_servername // '';
        $c->{client} = $ssl->peer_certificate('cn') // '';
        $c->{resumed} = $ssl->get_session_reused ? 'r' : '.';
        return 1;
    }
    $self->drop($c) if !$self->waits;
    return 0;
}

# Why nothing was read or written just now: there is nothing yet.
sub waits {
    my ($self) = @_;
    return $!{EAGAIN} if !$self->{context};
    my $error = $IO::Socket::SSL::SSL_ERROR;
    return $error == IO::Socket::SSL::SSL_WANT_READ() || $error == IO::Socket::SSL::SSL_WANT_WRITE();
}

sub input {
    my ($self, $c) = @_;
    if (!$c->{ready}) { $self->shake($c) or return }
    while (1) {
        my $got = $c->{socket}->sysread($c->{in}, 65536, length $c->{in});
        if (!$got) {
            # TLS has more to say than data; the end is an error as well.
            return $self->drop($c) if defined $got;
            return $self->drop($c) if !$self->waits;
            last;
        }
        last if !$self->{context};
    }
    while ($c->{in} =~ /\r\n\r\n/) {
        my $end = $+[0];
        my $head = substr $c->{in}, 0, $end;
        my ($length) = $head =~ /^Content-Length: (\d+)\r$/mi;
        $length //= 0;
        last if length $c->{in} < $end + $length;
        substr $c->{in}, 0, $end, '';
        push @{ $c->{queue} }, [$head, substr $c->{in}, 0, $length, ''];
    }
    $self->answer_next($c) if !$self->{sick}{mute};
}

# The answer to a request: head, body.
sub compose {
    my ($self, $c, $head, $body) = @_;
    my %header = $head =~ /^(X-[\w-]+|Connection|Content-Length): (.*)\r$/mg;
    my ($way, $args) = $head =~ m{^\S+ /(\w+)\?(\S*)};
    my %arg = ($args // '') =~ /(\w+)=([^&]*)/g;
    my $id = $arg{id} // '';
    $c->{first} //= $header{'X-Identity'} // '';
    $c->{requests}++;
    my $sent = !length $body ? '' : $body eq marked($id, length $body) ? length $body : 'WRONG';
    my $text = "$id;$sent;" . marked($id, $arg{size} // 0) . ";$id\n";
    my $close = ($header{Connection} // '') eq 'close';
    my $answer = "HTTP/1.1 200 OK\r\nX-Id: @{[$header{'X-Id'} // '']}\r\nX-First: $c->{first}\r\n"
        . "X-Peer: $self->{name}.$self->{times}.$c->{number}\r\nX-Request: $c->{requests}\r\n"
        . ($self->{context} ? "X-Kind: tls\r\nX-Sni: $c->{sni}\r\nX-Client: $c->{client}\r\nX-Resumed: $c->{resumed}\r\n" : "X-Kind: plain\r\n")
        . ($close ? "Connection: close\r\n" : '');
    if (($arg{how} // '') eq 'chunked') {
        my $half = int(length($text) / 2);
        $answer .= "Transfer-Encoding: chunked\r\n\r\n";
        $text = join '', map(sprintf("%x\r\n%s\r\n", length, $_), grep length, substr($text, 0, $half), substr $text, $half), "0\r\n\r\n";
    }
    else {
        $answer .= 'Content-Length: ' . length($text) . "\r\n\r\n";
    }
    return ($id, $answer, $text, $close);
}

# One at a time: nginx sends no request before it has the answer to the last.
sub answer_next {
    my ($self, $c) = @_;
    return if $c->{gone} || $c->{id} || !@{ $c->{queue} };
    my ($head, $body) = @{ shift @{ $c->{queue} } };
    my ($id, $answer, $text, $close) = $self->compose($c, $head, $body);
    @$c{qw(id close)} = ($id, $close);
    my $sick = $self->{sick};
    if ($sick->chance('drop')) { return $sick->chance('drop') ? $self->reset($c) : $self->drop($c) }
    if ($sick->chance('busy')) {
        $answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\n";
        $text = "busy\n";
    }
    if (my $garbage = $sick->garbage($id)) {
        $c->{out} = $garbage;
        $c->{close} = 1;
        return $self->flush($c);
    }
    if ($sick->chance('head')) {
        # Part of the head, then nothing more.
        $c->{out} = substr $answer, 0, rand length $answer;
        $c->{waits} = 1;
        $self->flush_now($c);
        return $self->later(rand 0.03, $c, sub { $self->reset($_[0]) });
    }
    if ($sick->chance('body')) {
        # The head and a part of the body, then a reset.
        $self->log_of($c, 'began');
        $c->{out} = $answer . substr $text, 0, int rand length $text;
        $c->{waits} = 1;
        $self->flush_now($c);
        return $self->later(0.005 + rand 0.03, $c, sub { $self->reset($_[0]) });
    }
    if ($sick->chance('slow')) {
        $self->log_of($c, 'slow');
        my $part = 1 + int(length($text) / 6);
        my @parts = $text =~ /(.{1,$part})/sg;
        $c->{out} = $answer . shift @parts;
        $c->{parts} = \@parts;
        $self->flush_now($c);
        return $self->later(0.04, $c, sub { $self->next_part($_[0]) });
    }
    $self->log_of($c, 'began') if length $text > 8000;
    $c->{out} = $answer . $text;
    $self->flush($c);
}

sub next_part {
    my ($self, $c) = @_;
    my $part = shift @{ $c->{parts} };
    $c->{parts} = undef if !@{ $c->{parts} };
    $c->{out} .= $part;
    my $more = $c->{parts};
    $self->flush($c);
    $self->later(0.04, $c, sub { $self->next_part($_[0]) }) if $more;
}

# An answer that takes more than one write may be cut: what became of it is written down at once.
sub log_of {
    my ($self, $c, $what) = @_;
    $c->{logged} = $what eq 'began' || $what eq 'slow';
    syswrite $self->{log}, sprintf "%.4f %s %s %s\n", time, $self->{name}, $what, $c->{id};
}

sub flush_now {
    my ($self, $c) = @_;
    my $sent = $c->{socket}->syswrite($c->{out});
    substr $c->{out}, 0, $sent, '' if $sent;
}

sub flush {
    my ($self, $c) = @_;
    while (length $c->{out}) {
        my $sent = $c->{socket}->syswrite($c->{out});
        if (!$sent) {
            $self->drop($c) if !$self->waits;
            return;
        }
        substr $c->{out}, 0, $sent, '';
    }
    return if !$c->{id} || $c->{parts};
    # The answer is out.
    $self->log_of($c, 'ended') if $c->{logged};
    $c->{id} = undef;
    return $self->drop($c) if $c->{close};
    # It may close at any time after that.
    if ($self->{sick}->chance('close')) {
        return $self->drop($c) if rand() < 0.5;
        $self->later(rand 0.2, $c, sub { $self->drop($_[0]) if !$_[0]{id} });
    }
    $self->answer_next($c) if !$self->{sick}{mute};
}

sub forget {
    my ($self, $c) = @_;
    $c->{gone} = 1;
    delete $self->{connections}{fileno $c->{socket}};
}

# Whoever ends it: in the middle of an answer that is `gone`.
sub drop {
    my ($self, $c) = @_;
    return if $c->{gone};
    $self->log_of($c, 'gone') if $c->{logged};
    $self->forget($c);
    $c->{socket}->isa('IO::Socket::SSL') ? $c->{socket}->close(SSL_fast_shutdown => 1) : close $c->{socket};
}

sub reset {
    my ($self, $c) = @_;
    return if $c->{gone};
    $self->log_of($c, 'reset') if $c->{logged};
    $self->forget($c);
    setsockopt $c->{socket}, SOL_SOCKET, SO_LINGER, pack 'II', 1, 0;
    $c->{socket}->isa('IO::Socket::SSL') ? $c->{socket}->close(SSL_no_shutdown => 1) : close $c->{socket};
}

1;
