package TlsPeer;

# A peer that speaks TLS and says how each handshake went: an nginx of its own, so that it can be
# restarted while the nginx that is tested goes on.
#
#   my $ca = Certificates->new("$root/tls");
#   my $peer = TlsPeer->new(tls => "$root/tls");        # shows server.crt, asks for client certificates
#   $peer->conf(server($tickets => port(1)), server($ids => port(2), …))->start;
#
#   my @answers = shaken($nginx, '/a', '/b', '/a');
#   is(handshakes(@answers), '. . r', …);       # as the peer saw it: a full one, or a session resumed
#
# Each connection carries one request, unless the server is made with keepalive => 1.

use strict;
use warnings;

use Exporter 'import';
use Nginx;
use Test::More;

our @EXPORT = qw(shaken handshakes said %kinds);

# How a session comes back: as the client's ticket, or by its number in the peer's memory. With
# TLS 1.3 both are tickets, which come after the handshake.
our %kinds = (
    'TLS 1.2, tickets' => 'ssl_protocols TLSv1.2; ssl_session_cache off;',
    'TLS 1.2, ids' => 'ssl_protocols TLSv1.2; ssl_session_tickets off; ssl_session_cache shared:ids:1m;',
    'TLS 1.3' => 'ssl_protocols TLSv1.3; ssl_session_cache off;',
    'TLS 1.3, ids' => 'ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache shared:ids:1m;',
);

sub new {
    my ($class, %options) = @_;
    return bless { nginx => Nginx->new(name => 'peer'), %options }, $class;
}

# A server{} on a port: `kind` is one of %kinds, or directives of the caller's own.
sub server {
    my ($self, $kind, $port, %more) = @_;
    my $certificate = $more{certificate} // 'server';
    my $answer = $more{answer} // 'reused=$ssl_session_reused sni=$ssl_server_name verify=$ssl_client_verify '
        . 'client=$ssl_client_s_dn protocol=$ssl_protocol connection=$connection request=$connection_requests '
        . 'port=$server_port http=$server_protocol';
    return join "\n    ", 'server {',
        "listen 127.0.0.1:$port ssl@{[$more{listen} // '']};", $more{more} // '',
        $kinds{$kind} // $kind,
        "ssl_certificate $self->{tls}/$certificate.crt;", "ssl_certificate_key $self->{tls}/$certificate.key;",
        $more{no_client} ? () : ("ssl_client_certificate $self->{tls}/ca.crt;", 'ssl_verify_client optional;',
            'ssl_verify_depth 2;'),
        $more{keepalive} ? () : 'keepalive_timeout 0;',
        "location / { return 200 '$answer'; }\n}\n";
}

sub conf {
    my ($self, @servers) = @_;
    $self->{nginx}->conf(join '', @servers);
    return $self;
}

sub start { $_[0]{nginx}->start; $_[0] }
sub stop { $_[0]{nginx}->stop; $_[0] }
sub nginx { $_[0]{nginx} }

# Requests one after the other. Each answer has what the peer saw in `saw`, or the status where it
# is not 200; and $balancer_ssl_session_reused, where the location shows it as X-Reused, must agree.
sub shaken {
    my ($nginx, @paths) = @_;
    my @answers = map {
        my ($path, @headers) = ref $_ ? @$_ : $_;
        # A handshake that hangs must not hang the test.
        local $SIG{ALRM} = sub { die "no answer to $path\n" };
        alarm 2 * $Nginx::patience;
        my $answer = $nginx->get($path, port(0), @headers);
        alarm 0;
        $answer->{saw} = { $answer->{body} =~ /(\w+)=(\S*)/g };
        ($answer->{ours}) = $answer->{head} =~ /^X-Reused: (.*)\r$/m;
        $answer;
    } @paths;
    my @wrong = grep $_->{status} == 200 && defined $_->{ours} && $_->{ours} ne $_->{saw}{reused}, @answers;
    fail("the variable says $_->{ours}, the peer $_->{saw}{reused}") for @wrong;
    return @answers;
}

# A dot for a full handshake and an r for a resumed one, as the peer saw them.
sub handshakes { said('reused', @_) }

sub said {
    my ($what, @answers) = @_;
    return join ' ', map $_->{status} == 200 ? $_->{saw}{$what} // 'nothing' : $_->{status}, @answers;
}

1;
