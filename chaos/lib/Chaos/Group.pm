package Chaos::Group;

# Some peers, of which one at least is well for as long as any request lives. That one is the guardian;
# the others fall ill and recover by chance. The guardian hands over like this: another one gets well
# and has a second to be found so; then no request may be left that began before; then the old one may
# fall ill. So each request has, from its beginning to its end, one and the same peer that is well.

use strict;
use warnings;

use Chaos::Peer;
use Time::HiRes 'time';

# What befalls a peer that is no guardian, in turn with being well.
my @plain = qw(killed killed frozen refuses deaf mute resets resets garbage closes closes busy slow);
my @tls = (@plain, qw(rekeyed rekeyed untrusted));

# How many seconds at most; 2 if it is not said. What makes requests wait is longer than their first
# patience, and shorter than their last.
my %lasts = (killed => 1, frozen => 2.5, deaf => 2.5, mute => 2.5);

# new NAME, PEERS (what Chaos::Peer->new wants), TLS: certificates to show, those of `untrusted` last
sub new {
    my ($class, %options) = @_;
    my @peers = map Chaos::Peer->new(%$_), @{ $options{peers} };
    return bless { %options, peers => \@peers, sicknesses => $options{certificates} ? \@tls : \@plain, count => {} }, $class;
}

sub peers { @{ $_[0]{peers} } }
sub ports { map $_->{port}, $_[0]->peers }
sub paths { map $_->{path}, $_[0]->peers }

sub start {
    my ($self) = @_;
    $self->revive($_) for $self->peers;
    return $self;
}

sub stop {
    my ($self) = @_;
    $_->kill for $self->peers;
}

sub pick { $_[rand @_] }

# From a pile that is shuffled when all have been drawn, so that each comes in its turn.
sub draw {
    my ($self) = @_;
    my $pile = $self->{pile} //= [];
    push @$pile, sort { $a->[0] <=> $b->[0] } map [rand, $_], @{ $self->{sicknesses} } if !@$pile;
    return (shift @$pile)->[1];
}

# Well, whatever it was.
sub revive {
    my ($self, $peer, $certificate) = @_;
    if ($self->{certificates} && (!$peer->{pid} || $certificate)) {
        $peer->kill;
        $certificate //= pick(grep $_ ne 'untrusted', @{ $self->{certificates} });
        my $folder = $self->{folder};
        $peer->{tls} = { cert => "$folder/$certificate.crt", key => "$folder/$certificate.key", ca => "$folder/ca.crt",
            version => pick('TLSv12', 'TLSv13', 'TLSv13') };
        $peer->{shows} = $certificate;
    }
    return $peer->start if !$peer->{pid};
    $peer->be('well');
}

sub sicken {
    my ($self, $peer, $what) = @_;
    $self->{count}{$what}++;
    if ($what eq 'killed') { $peer->kill }
    elsif ($what eq 'rekeyed') { $self->revive($peer, pick(grep $_ ne 'untrusted', @{ $self->{certificates} })) }
    elsif ($what eq 'untrusted') { $self->revive($peer, 'untrusted'); $peer->note('untrusted') }
    else {
        $self->revive($peer) if !$peer->{pid};
        $peer->be($what);
    }
}

sub cure {
    my ($self, $peer) = @_;
    return $self->revive($peer) if ($peer->{shows} // '') ne 'untrusted';
    $peer->kill;
    $self->revive($peer);
}

# Everybody is well; true when they say so.
sub rest {
    my ($self) = @_;
    $_->{is} ne 'well' and $self->cure($_) for map { $_->{is} //= 'killed'; $_ } $self->peers;
    delete @$self{qw(guardian successor)};
    return !grep !$_->well, $self->peers;
}

# A step of the troubles; `oldest` is when the oldest request began that has no answer yet.
sub trouble {
    my ($self, $now, $oldest) = @_;
    my @peers = $self->peers;
    if (!$self->{guardian}) {
        # All have been well up to here.
        $self->{guardian} = pick(@peers);
        $self->{hand_over} = $now + 2 + rand 3;
        $_->{until} = $now + rand for @peers;
    }
    $self->hand_over($now, $oldest);
    for my $peer (grep $_ != $self->{guardian} && $_ != ($self->{successor} // 0), @peers) {
        next if $peer->{until} > $now;
        # Well for a while between two illnesses, or one illness after the other.
        if ($peer->{is} ne 'well' && rand() < 0.5) {
            $self->cure($peer);
            $peer->{until} = $now + 0.2 + rand 1;
        }
        else {
            my $what = $self->draw;
            $self->sicken($peer, $what);
            $peer->{until} = $now + 0.1 + rand($lasts{$what} // 2);
        }
    }
}

sub hand_over {
    my ($self, $now, $oldest) = @_;
    my $next = $self->{successor};
    if (!$next) {
        return if $now < $self->{hand_over};
        $next = $self->{successor} = pick(grep $_ != $self->{guardian}, $self->peers);
        $self->cure($next) if $next->{is} ne 'well';
        $self->{on_duty} = 0;
        $self->{well_at} = 0;
        return;
    }
    if (!$self->{on_duty}) {
        return if !$next->well;
        $self->{well_at} ||= $now;
        $self->{on_duty} = $now if $now - $self->{well_at} > 1;
        return;
    }
    return if $oldest <= $self->{on_duty};
    $self->{count}{guardians}++;
    $self->{guardian} = $next;
    $self->{hand_over} = $now + 1 + rand 3;
    delete $self->{successor};
}

1;
