package Chaos::Sickness;

# What can be wrong with a peer while its process runs: how likely it does what when it answers.
#
#   plain    answers the start of TLS with text      drop   closes or resets instead of an answer
#   busy     says 503                                head   resets within the head of an answer
#   junk     what is no answer                       body   resets within the body
#   slow     sends an answer in parts                close  closes the connection when it is idle
#   deaf     takes connections and reads nothing     mute   reads, and answers when it is well again
#   refuses  takes no connections

use strict;
use warnings;

our %is = (
    well => {},
    refuses => { refuses => 1, close => 0.5 },
    deaf => { deaf => 1 },
    mute => { mute => 1 },
    resets => { drop => 0.2, head => 0.3, body => 0.4 },
    garbage => { plain => 0.5, junk => 0.8 },
    closes => { close => 0.5, drop => 0.1 },
    busy => { busy => 0.7 },
    slow => { slow => 0.6 },
);

sub new {
    my ($class, $name) = @_;
    return bless { %{ $is{$name} // die "no sickness $name\n" } }, $class;
}

sub chance {
    my ($self, $what) = @_;
    my $likely = $self->{$what} or return 0;
    return rand() < $likely;
}

# What no client takes for an answer; nothing when it is not to be.
sub garbage {
    my ($self, $id) = @_;
    return if !$self->chance('junk');
    my @kinds = (
        "HTTP/1.1 200 OK\r\n\x01\x02garbage\r\n\r\n$id\n",
        "HTTP/1.1 200 OK\r\nX-Junk: " . 'x' x 40_000 . "\r\n\r\n$id\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nX-Id\0: $id\r\n\r\n$id\n",
    );
    return $kinds[rand @kinds];
}

1;
